//! Runs windows of text through the models: many documents in, one answer each, in whatever order
//! serves the machine.
//!
//! Contract:
//! - Every [`Job`] that [`Engine::submit`] accepts is given its answer exactly once, unless nobody wants it any more when
//!   its turn comes ([`job::Answer::is_wanted`]), or the engine is dropped before: then the answer is dropped, and the record
//!   is not finished, so it will be read again.
//! - What is queued is bounded in tokens, for each [`Priority`] apart. `submit` blocks its thread while the queue of its
//!   priority is full, so a backfill never holds up a live document there.
//! - A failing group is answered with an error for each of its windows; the worker goes on.
//!
//! It does not know streams, offsets or labels. [`scheduler`] and [`provider`] are pure, only [`runtime`],
//! [`session`] and `device` import `ort`, [`worker`] holds the threads.

mod device;
pub mod job;
pub mod provider;
pub mod runtime;
pub mod scheduler;
pub mod session;
pub mod worker;

pub use job::{Answer, InferError, Job, JobResult, Priority};
pub use worker::{Engine, EngineConfig};
