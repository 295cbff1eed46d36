//! Records of every format through the whole pipeline: good ones, bad ones, and those of the example configurations.

mod bad_input;
mod examples;
mod registry;
mod table;
