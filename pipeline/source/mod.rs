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
//! - A source that ends without having been told to has seen all its records stored.
//!
//! [`kafka`] reads topics, [`backfill`] the files of a job; [`mod@file`] reads files for both and for the commands that
//! need no broker.

pub mod backfill;
pub mod file;
pub mod kafka;
pub mod replay;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicUsize, Ordering},
    },
    thread::Thread,
};

use serde_json::Value;

use crate::domain::{
    checkpoint::{Claim, Position, TopicStart},
    live::{HeaderValue, Headers, TRACE_HEADER},
    rejection::Rejection,
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
    published: AtomicI64,
    publishing: AtomicBool,
    unpublished_bytes: AtomicUsize,
    publisher: OnceLock<Thread>,
    state: AtomicU8,
}

const HELD: u8 = 0;
const LOST: u8 = 1;
const RETURNED: u8 = 2;

impl Lease {
    pub fn new(claim: Claim) -> Arc<Self> {
        Arc::new(Self {
            stored: AtomicI64::new(claim.position.0),
            published: AtomicI64::new(claim.position.0),
            publishing: AtomicBool::new(false),
            unpublished_bytes: AtomicUsize::new(0),
            publisher: OnceLock::new(),
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

    /// Records up to `position` are stored, and `queued_bytes` of live records wait to be published.
    pub fn stored(&self, position: Position, documents: usize, bytes: usize, queued_bytes: usize) {
        self.unpublished_bytes.fetch_add(queued_bytes, Ordering::Relaxed);
        self.stored.store(position.0, Ordering::Release);
        self.in_flight_documents.fetch_sub(documents, Ordering::Relaxed);
        self.in_flight_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.wake_publisher();
    }

    /// The current thread publishes what is stored under this lease, and is unparked whenever there may be more
    /// of it, or the lease ends.
    pub fn publish_here(&self) {
        let _ = self.publisher.set(std::thread::current());
    }

    /// The partition is published up to `position`, by `bytes` more of the outbox.
    pub fn published(&self, position: Position, bytes: usize) {
        self.published.store(position.0, Ordering::Release);
        self.publishing.store(true, Ordering::Release);
        let less = |unpublished: usize| Some(unpublished.saturating_sub(bytes));
        let _ = self.unpublished_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// What the outbox holds unpublished, as measured.
    pub fn unpublished(&self, bytes: usize) {
        self.unpublished_bytes.store(bytes, Ordering::Relaxed);
    }

    pub fn published_position(&self) -> Position {
        Position(self.published.load(Ordering::Acquire))
    }

    /// Whether all below `position` is published, as far as a publisher has found out where it stands.
    pub fn is_published(&self, position: Position) -> bool {
        self.publishing.load(Ordering::Acquire) && self.published_position() >= position
    }

    pub fn unpublished_bytes(&self) -> usize {
        self.unpublished_bytes.load(Ordering::Relaxed)
    }

    fn wake_publisher(&self) {
        if let Some(publisher) = self.publisher.get() {
            publisher.unpark();
        }
    }

    pub fn in_flight(&self) -> (usize, usize) {
        (self.in_flight_documents.load(Ordering::Relaxed), self.in_flight_bytes.load(Ordering::Relaxed))
    }

    pub fn stored_position(&self) -> Position {
        Position(self.stored.load(Ordering::Acquire))
    }

    /// The checkpoint is no longer ours to move: claim again if the partition is still assigned.
    pub fn lose(&self) {
        let _ = self.state.compare_exchange(HELD, LOST, Ordering::AcqRel, Ordering::Acquire);
        self.wake_publisher();
    }

    /// The partition was taken away, or claimed anew under another lease.
    pub fn give_back(&self) {
        self.state.store(RETURNED, Ordering::Release);
        self.wake_publisher();
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
    pub content: Content,
    pub headers: Headers,
    /// Where people find the record, if topic, partition and offset do not tell.
    pub place: Option<String>,
}

/// What a record holds.
#[derive(Debug)]
pub enum Content {
    /// Bytes in the stream's format; `None` withdraws the document that the key names.
    Encoded(Option<Vec<u8>>),
    /// Fields that were read already, or why they could not be, and the size they were read from.
    Decoded { fields: Result<Value, Rejection>, bytes: usize },
}

impl Content {
    pub fn bytes(&self) -> usize {
        match self {
            Self::Encoded(value) => value.as_ref().map_or(0, Vec::len),
            Self::Decoded { bytes, .. } => *bytes,
        }
    }

    /// As bytes, for a record that is passed on.
    pub fn into_bytes(self) -> Option<Vec<u8>> {
        match self {
            Self::Encoded(value) => value,
            Self::Decoded { fields, .. } => serde_json::to_vec(&fields.ok()?).ok(),
        }
    }
}

impl Record {
    /// Size of key and content, as counted against the bound on what is in flight.
    pub fn bytes(&self) -> usize {
        self.key.as_ref().map_or(0, Vec::len) + self.content.bytes()
    }

    /// The `traceparent` header, where the record has one.
    pub fn trace(&self) -> Option<String> {
        self.headers.iter().find_map(|(name, value)| match value {
            HeaderValue::Text(trace) if name == TRACE_HEADER => Some(trace.clone()),
            _ => None,
        })
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
    /// Partitions that have a checkpoint, each with the id of the topic it belongs to, where that is known.
    ///
    /// # Errors
    /// Where the store cannot be read within its deadline.
    fn known_partitions(&self) -> anyhow::Result<Vec<(i32, Option<String>)>>;
    /// Gives partitions of this topic a checkpoint at these positions: those without one, and those whose
    /// checkpoint belongs to a topic of another id, which begin a new generation. Others keep theirs.
    ///
    /// # Errors
    /// Where the store cannot be written within its deadline.
    fn initialise(&self, topic: &TopicStart) -> anyhow::Result<()>;
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
