//! The values every part shares and the rules that hold between them. Pure: no runtime, no
//! configuration, no adapter, no clock of its own.

pub mod agreement;
pub mod backfill;
pub mod checkpoint;
pub mod dead_letter;
pub mod decision;
pub mod document;
pub mod early_exit;
pub mod evaluation;
pub mod exit_calibration;
pub mod label;
pub mod likelihood;
pub mod live;
pub mod publication;
pub mod rejection;
pub mod standing;
pub mod temperature_scaling;
pub mod tracker;
pub mod verification;
pub mod version;
pub mod window_pooling;
