//! One stream: what happens to a record between its arrival and its stored label.
//!
//! - [`intake`] decodes and tokenizes on threads of its own.
//! - [`inference`] takes documents through their models, and [`duplicates`] spares those that were computed before.
//! - [`committer`] tracks what is finished in each partition and stores the finished prefixes.
//! - [`delivery`] stores one batch, whatever the database does meanwhile.
//! - [`dry_run`] labels records and stores nothing.
//!
//! Guarantee: a record that was registered is stored once, as labels, deletion or rejection, unless its
//! partition is taken away first; then its next owner reads it again. Publishing to the live topic will
//! follow [`delivery`], as a reader of the outbox.

pub mod committer;
pub mod delivery;
pub mod dry_run;
pub mod duplicates;
pub mod inference;
pub mod intake;

use std::sync::Arc;

use crate::{domain::document::Finished, source::Lease};

/// What the committer hears, in the order it happened for each record.
#[derive(Debug)]
pub enum Event {
    Assigned(Arc<Lease>),
    Revoked {
        partition: i32,
        owner: uuid::Uuid,
    },
    Arrived {
        lease: Arc<Lease>,
        offset: i64,
    },
    Finished {
        lease: Arc<Lease>,
        finished: Box<Finished>,
    },
    /// Nothing more arrives: end once everything is stored.
    Drain,
}
