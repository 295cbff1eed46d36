//! What every use of Kafka here shares: clients with our defaults and logs that do not flood, questions
//! about topics, and reading and writing records outside the pipeline.
//!
//! The pipeline itself reads through [`crate::source::kafka`].

pub mod admin;
mod certificate;
pub mod client;
pub mod connection;
pub mod diagnosis;
pub mod grants;
pub mod offsets;
pub mod peek;
pub mod produce;
pub mod reread;
pub mod subscribe;
pub mod topic_id;
