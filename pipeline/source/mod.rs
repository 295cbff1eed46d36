//! Where records come from, and the contract every source keeps.
//!
//! Contract:
//! - A source reads a partition only under a [`Claim`], from the claim's position on, and hands over its
//!   records in the order of their offsets, each once a claim.
//! - It never moves a checkpoint. Whoever stores the labels reports how far they are stored through the
//!   [`Lease`], and the source passes that on to the broker as a hint for lag tools.
//! - What is in flight is bounded a partition, so one slow partition holds up nobody else.
//! - When a partition is taken away, the sink is told before the next owner can claim it, where the
//!   broker allows; a worker that learns it too late is fenced by the claim.
//!
//! [`kafka`] reads topics; [`mod@file`] reads lines for the commands that need no broker.

pub mod file;
pub mod kafka;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicUsize, Ordering},
};

use crate::domain::{
    checkpoint::{Claim, Position},
    version::Version,
};

/// A claimed partition as the source and the committer share it: the source counts records in and reads
/// what was stored; the committer counts them out and says when the claim is lost.
#[derive(Debug)]
pub struct Lease {
    pub claim: Claim,
    in_flight_documents: AtomicUsize,
    in_flight_bytes: AtomicUsize,
    stored: AtomicI64,
    state: AtomicU8,
}

const HELD: u8 = 0;
const LOST: u8 = 1;
const RETURNED: u8 = 2;

impl Lease {
    pub fn new(claim: Claim) -> Arc<Self> {
        Arc::new(Self {
            stored: AtomicI64::new(claim.position.0),
            claim,
            in_flight_documents: AtomicUsize::new(0),
            in_flight_bytes: AtomicUsize::new(0),
            state: AtomicU8::new(HELD),
        })
    }

    pub fn arrived(&self, bytes: usize) {
        self.in_flight_documents.fetch_add(1, Ordering::Relaxed);
        self.in_flight_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Records up to `position` are stored.
    pub fn stored(&self, position: Position, documents: usize, bytes: usize) {
        self.stored.store(position.0, Ordering::Relaxed);
        self.in_flight_documents.fetch_sub(documents, Ordering::Relaxed);
        self.in_flight_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub fn in_flight(&self) -> (usize, usize) {
        (self.in_flight_documents.load(Ordering::Relaxed), self.in_flight_bytes.load(Ordering::Relaxed))
    }

    pub fn stored_position(&self) -> Position {
        Position(self.stored.load(Ordering::Relaxed))
    }

    /// The checkpoint is no longer ours to move: claim again if the partition is still assigned.
    pub fn lose(&self) {
        let _ = self.state.compare_exchange(HELD, LOST, Ordering::AcqRel, Ordering::Acquire);
    }

    /// The partition was taken away, or claimed anew under another lease.
    pub fn give_back(&self) {
        self.state.store(RETURNED, Ordering::Release);
    }

    pub fn is_held(&self) -> bool {
        self.state.load(Ordering::Acquire) == HELD
    }

    pub fn is_lost(&self) -> bool {
        self.state.load(Ordering::Acquire) == LOST
    }
}

/// One record under a lease.
#[derive(Debug)]
pub struct Record {
    pub lease: Arc<Lease>,
    pub offset: i64,
    pub version: Version,
    pub timestamp_ms: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
}

impl Record {
    /// Size of key and value, as counted against the bound on what is in flight.
    pub fn bytes(&self) -> usize {
        self.key.as_ref().map_or(0, Vec::len) + self.value.as_ref().map_or(0, Vec::len)
    }
}

/// Where a source delivers to. Calls may block; a source calls from its own thread.
pub trait Sink: Send + Sync {
    /// Records of this lease follow.
    fn assigned(&self, lease: Arc<Lease>);
    /// No more records of this lease follow, and none of its unfinished ones will be stored.
    fn revoked(&self, lease: &Lease);
    fn record(&self, record: Record);
}

/// The claims on a stream's partitions. Calls block until the store answers.
pub trait Claims: Send + Sync {
    /// Partitions that have a checkpoint.
    ///
    /// # Errors
    /// Where the store cannot be read within its deadline.
    fn known_partitions(&self) -> anyhow::Result<Vec<i32>>;
    /// Gives partitions without a checkpoint one at these positions; others keep theirs.
    ///
    /// # Errors
    /// Where the store cannot be written within its deadline.
    fn initialise(&self, starts: &[(i32, Position)]) -> anyhow::Result<()>;
    /// Claims these partitions under fresh owners. All have a checkpoint.
    ///
    /// # Errors
    /// Where the store cannot be written within its deadline.
    fn claim(&self, partitions: &[i32]) -> anyhow::Result<Vec<Claim>>;
}

/// Tells a running source to stop, in two steps.
#[derive(Debug, Default)]
pub struct SourceControl {
    draining: AtomicBool,
    closing: AtomicBool,
}

impl SourceControl {
    /// Read nothing more, but keep the partitions while what is in flight is finished.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Leave the group and return.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }
}
