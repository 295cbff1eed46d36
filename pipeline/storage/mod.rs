//! Where labels are stored, and the contract every store keeps. The only importer of `sqlx` is below.
//!
//! Contract:
//! - [`LabelStore::store`] writes a [`Batch`] whole or not at all: checkpoint, documents, labels, rejections, the
//!   sums a view shows, and the outbox: the live records of what was really stored.
//!   It moves nothing unless the checkpoint has the batch's owner and stands where the batch begins, so a
//!   batch is stored once however often it is sent, and never by a worker that lost its claim.
//! - A document's row only ever moves to a newer [`Version`](crate::domain::version::Version).
//! - An error says whether trying again can help ([`StoreError::kind`]). After one that may hide a commit,
//!   [`LabelStore::observe`] tells what happened.

pub mod backfills;
pub mod claims;
pub mod dead_letters;
pub mod inspect;
pub mod labels;
pub mod outbox;
pub mod postgres;
pub mod replay;
pub mod retention;
pub mod rights;
pub mod script;
pub mod sums;
pub mod verify;

use std::{future::Future, sync::Arc, time::Duration};

use uuid::Uuid;

use crate::domain::{
    checkpoint::{Advance, Observed, PartitionKey},
    document::Finished,
    live::LiveFormat,
};

/// Consecutive finished records of one partition, in the order of their offsets.
#[derive(Debug, Clone)]
pub struct Batch {
    pub key: PartitionKey,
    pub owner: Uuid,
    /// The claim's.
    pub epoch: i64,
    pub advance: Advance,
    pub records: Vec<Finished>,
    /// What is published of them; `None` for a stream without a live topic.
    pub live: Option<Arc<LiveFormat>>,
    /// For how long rejected records are kept as they came; `None` for a stream that keeps none.
    pub keep_records: Option<Duration>,
}

/// What a transaction that was committed did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// The checkpoint moved, and everything with it. So much waits in the outbox now to be published.
    Moved { queued_bytes: usize },
    /// The checkpoint was not where the batch begins, or not ours: nothing was written.
    NotMoved,
}

/// What an error asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The connection, the server or a lock failed: try again. The transaction may have been committed.
    Retryable,
    /// A row cannot be stored as it is: trying again fails again.
    BadRow,
    /// The operator has to act.
    Fatal,
}

/// The store could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}: {source}")]
pub struct StoreError {
    pub action: &'static str,
    pub kind: ErrorKind,
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Stores batches of one or many streams.
pub trait LabelStore: Send + Sync + 'static {
    /// Writes a batch in one transaction.
    fn store(&self, batch: &Batch) -> impl Future<Output = Result<Stored, StoreError>> + Send;
    /// Reads a partition's checkpoint; `None` where it has none.
    fn observe(&self, key: &PartitionKey) -> impl Future<Output = Result<Option<Observed>, StoreError>> + Send;
}
