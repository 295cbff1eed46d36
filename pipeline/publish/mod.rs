//! Publishes what was stored to the live topic, and the contract every live topic keeps.
//!
//! One loop over the outbox of one partition, on a thread of its own. Start, takeover, a failed transaction,
//! a restart and a restored database are the same path: open a session, ask how far the partition is
//! published, go on from there.
//!
//! Guarantee: every record of the outbox becomes visible to a `read_committed` subscriber exactly once, in the
//! order of the outbox. It rests on the session alone: opening one ends and fences every earlier session of the
//! partition, and a session commits records and position together. The claim only tells when to stop; a worker
//! that lost it and does not know yet can publish nothing twice.
//!
//! [`kafka`] publishes to topics.

pub mod kafka;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{anyhow, bail};
use chrono::{DateTime, Utc};

use crate::{
    crash::crash_point,
    domain::{
        checkpoint::{PartitionKey, Position},
        decision::PublishedDecision,
        live::{OutboxRange, Published},
        publication::{Marker, MarkerNote, Resolution, StoredState, resolve, resolve_found},
        standing::Publication,
    },
    retry,
    source::{Lease, Record, Sink},
    telemetry::metrics as names,
};

/// How long the thread sleeps while nothing is stored. It is woken; this only bounds how late a published row
/// leaves the outbox.
const IDLE: Duration = Duration::from_secs(1);
/// Least time between two deletions of published rows: each is a transaction of its own.
const DELETE_INTERVAL: Duration = Duration::from_secs(1);
/// Pause before the first new attempt. A fenced session opens again at once; a broker is back within seconds.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(50);
/// Longest pause between attempts: also how soon an operator's decision is noticed.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(3);

/// The store as the publisher needs it. Calls block until the store answers, or fail by its deadline.
pub trait Outbox: Send + Sync {
    /// The partition's owner and checkpoint.
    ///
    /// # Errors
    /// Where the store does not answer, or has no such partition.
    fn state(&self, key: &PartitionKey) -> anyhow::Result<StoredState>;
    /// The ranges that end behind `published` (all without it), oldest first, about `bytes_max` of them.
    ///
    /// # Errors
    /// Where the store does not answer.
    fn ranges(
        &self,
        key: &PartitionKey,
        published: Option<Published>,
        bytes_max: usize,
    ) -> anyhow::Result<Vec<OutboxRange>>;
    /// The size of the ranges that end behind `published`.
    ///
    /// # Errors
    /// Where the store does not answer.
    fn unpublished_bytes(&self, key: &PartitionKey, published: Published) -> anyhow::Result<usize>;
    /// Deletes the ranges that end at or before `published`.
    ///
    /// # Errors
    /// Where the store does not answer.
    fn delete(&self, key: &PartitionKey, published: Published) -> anyhow::Result<()>;
}

/// A live topic.
pub trait LiveTopic: Send + Sync {
    /// Ends what an earlier session of this partition left open, fences it, and begins a new one.
    ///
    /// # Errors
    /// Where the broker does not answer or refuses.
    fn open(&self, key: &PartitionKey) -> anyhow::Result<Box<dyn LiveSession>>;
}

/// One partition's exclusive right to publish, until the next [`LiveTopic::open`]. After an error it is dropped:
/// whether its last transaction was committed is only known to the next session.
pub trait LiveSession {
    /// The committed position.
    ///
    /// # Errors
    /// Where the broker does not answer.
    fn marker(&mut self) -> anyhow::Result<Option<Marker>>;
    /// Commits a position with a note, and nothing else.
    ///
    /// # Errors
    /// Where the broker does not answer or refuses.
    fn mark(&mut self, position: Position, note: &MarkerNote) -> anyhow::Result<()>;
    /// The newest position of the partition among the live records written since `since`.
    ///
    /// # Errors
    /// Where the broker does not answer.
    fn newest(&mut self, since: DateTime<Utc>) -> anyhow::Result<Newest>;
    /// Publishes the records of `ranges` from `from` on, and commits the end of the last range, in one
    /// transaction.
    ///
    /// # Errors
    /// Whatever went wrong; nothing of it is visible, unless the reply to the commit was lost.
    fn publish(&mut self, ranges: &[OutboxRange], from: Published, note: &MarkerNote) -> anyhow::Result<()>;
}

/// What a look at the live topic showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Newest {
    /// Up to here it is published.
    Found(Published),
    /// Nothing of this partition was written in that time.
    Nothing,
    /// Records of that time may have been deleted already.
    Unknown,
}

/// Before everything that is ever stored.
const NOTHING: Published = Published { epoch: i64::MIN, position: Position(i64::MIN) };

/// What a lease began with, as long as it matters.
#[derive(Debug, Clone, Copy)]
struct Start {
    /// Where the store stood when the partition was claimed, until the first starting point is found. The store goes
    /// on before that is, and must not catch up with an offset that is ahead of it.
    claimed: Option<Published>,
    /// Where the partition began, as long as nothing of it can have been published.
    fresh: Option<Published>,
}

/// How what is stored is shared out over transactions.
#[derive(Debug, Clone, Copy)]
pub struct Transactions {
    /// Size of the ranges of one, in bytes; at least one range.
    pub bytes_max: usize,
    /// Least time from the beginning of one to that of the next of its partition.
    pub interval: Duration,
}

/// Publishes the partitions of one stream.
pub struct Publisher {
    outbox: Arc<dyn Outbox>,
    topic: Arc<dyn LiveTopic>,
    transactions: Transactions,
    /// Nothing more will be stored: end once all is published.
    finishing: AtomicBool,
}

impl Publisher {
    pub fn new(outbox: Arc<dyn Outbox>, topic: Arc<dyn LiveTopic>, transactions: Transactions) -> Self {
        Self { outbox, topic, transactions, finishing: AtomicBool::new(false) }
    }

    /// Lets every thread end once what is stored is published, or publishing fails: the next owner goes on.
    pub fn finish(&self) {
        self.finishing.store(true, Ordering::Release);
    }

    /// Publishes what is stored under this lease until it ends, whatever fails meanwhile. Blocks the calling
    /// thread.
    pub fn run(&self, lease: &Lease) {
        lease.publish_here();
        let claim = &lease.claim;
        let claimed = Published { epoch: claim.epoch, position: claim.position };
        let mut start = Start { claimed: Some(claimed), fresh: claim.is_fresh.then_some(claimed) };
        let mut delays = retry::delays(RETRY_DELAY_MIN, RETRY_DELAY_MAX);
        while lease.is_held() {
            let opened = Instant::now();
            let Err(error) = self.publish_until_failure(lease, &mut start) else { break };
            if opened.elapsed() > RETRY_DELAY_MAX * 2 {
                delays = retry::delays(RETRY_DELAY_MIN, RETRY_DELAY_MAX);
            }
            let delay = delays.next().unwrap_or(RETRY_DELAY_MAX);
            count(names::PUBLISH_FAILURES, &lease.claim.key, 1);
            // Storing goes on, but only until the outbox is full.
            if let Ok(bytes) = self.outbox.unpublished_bytes(&claim.key, NOTHING) {
                lease.unpublished(bytes);
                gauge(names::UNPUBLISHED_BYTES, &claim.key, bytes as f64);
            }
            tracing::warn!(place = %lease.claim.key, error = format!("{error:#}"), retry_in_ms = delay.as_millis(), "publishing failed; going on from the outbox");
            if self.is_finishing() {
                break;
            }
            wait_out(delay, lease);
        }
        gauge(names::UNPUBLISHED_BYTES, &lease.claim.key, 0.0);
        gauge(names::UNPUBLISHED_AGE_SECONDS, &lease.claim.key, 0.0);
    }

    fn publish_until_failure(&self, lease: &Lease, start: &mut Start) -> anyhow::Result<()> {
        let key = &lease.claim.key;
        // A worker that lost its claim must not fence the one that has it.
        if self.outbox.state(key)?.owner != Some(lease.claim.owner) {
            lease.lose();
            return Ok(());
        }
        let mut session = self.topic.open(key)?;
        let marker = session.marker()?;
        // Again, since a worker may have been frozen before it opened its session: only if nobody has claimed the
        // partition since, nobody can have published more than was stored when it was claimed.
        if self.outbox.state(key)?.owner != Some(lease.claim.owner) {
            lease.lose();
            return Ok(());
        }
        let mut published = self.starting_point(session.as_mut(), marker, key, *start)?;
        start.claimed = None;
        lease.published(published.position, 0);
        lease.unpublished(self.outbox.unpublished_bytes(key, published)?);
        tracing::info!(place = %key, %published, "publishing");
        let mut deleted_at = Instant::now();
        let mut deletable = true;
        let mut next_from = Instant::now();
        while lease.is_held() {
            // Also under constant load, or the outbox would only grow.
            if deletable && (deleted_at.elapsed() >= DELETE_INTERVAL || self.is_finishing()) {
                crash_point("before-delete");
                self.outbox.delete(key, published)?;
                crash_point("after-delete");
                (deleted_at, deletable) = (Instant::now(), false);
            }
            let stored = Published { epoch: lease.claim.epoch, position: lease.stored_position() };
            if published < stored {
                let left = next_from.saturating_duration_since(Instant::now());
                if !left.is_zero() && !self.is_finishing() {
                    thread::park_timeout(left);
                    continue;
                }
                next_from = Instant::now() + self.transactions.interval;
                published = self.publish_more(session.as_mut(), lease, published, stored, start)?;
                deletable = true;
            } else if self.is_finishing() {
                break;
            } else {
                thread::park_timeout(IDLE);
            }
        }
        Ok(())
    }

    /// Publishes what the outbox holds behind `published`, or as much as one transaction may hold.
    fn publish_more(
        &self,
        session: &mut dyn LiveSession,
        lease: &Lease,
        published: Published,
        stored: Published,
        start: &mut Start,
    ) -> anyhow::Result<Published> {
        let ranges = self.outbox.ranges(&lease.claim.key, Some(published), self.transactions.bytes_max)?;
        let Some(last) = ranges.last() else {
            // Stored while the stream had no live topic.
            lease.published(stored.position, 0);
            return Ok(stored);
        };
        start.fresh = None;
        publish_ranges(session, lease, &ranges, published, &MarkerNote::of_epoch(last.epoch))?;
        Ok(last.published())
    }

    fn is_finishing(&self) -> bool {
        self.finishing.load(Ordering::Acquire)
    }

    /// How far the partition is published, found out without a guess.
    fn starting_point(
        &self,
        session: &mut dyn LiveSession,
        marker: Option<Marker>,
        key: &PartitionKey,
        start: Start,
    ) -> anyhow::Result<Published> {
        let stored = match start.claimed {
            Some(claimed) => claimed,
            None => self.outbox.state(key)?.stored,
        };
        let oldest = self.outbox.ranges(key, None, 1)?;
        if let Some(oldest) =
            oldest.first().filter(|oldest| marker.as_ref().is_none_or(|marker| oldest.end > marker.position))
        {
            gauge(names::UNPUBLISHED_AGE_SECONDS, key, seconds_since(oldest.stored_at));
        }
        let first = oldest.first().map(OutboxRange::begins);
        let resolution = match resolve(marker.as_ref(), stored, first, start.fresh) {
            Resolution::Search { first } => {
                let since = oldest.first().map_or_else(Utc::now, |range| range.stored_at);
                let found = match session.newest(since)? {
                    Newest::Found(published) => Some(published),
                    Newest::Nothing => None,
                    Newest::Unknown => bail!(
                        "how far {key} is published cannot be found out: the group's offset is not albertine's, and the live topic no longer has all records since {since}; see with `albertine position show {stream}`, and decide with {advice}",
                        stream = key.stream,
                        advice = PublishedDecision::advice(Publication::Unknown { first }, key)
                    ),
                };
                if key.is_of_job() {
                    tracing::info!(place = %key, found = ?found, "the live topic tells how far the shard was published");
                } else {
                    tracing::warn!(place = %key, found = ?found, "the group's offset was deleted or overwritten; the live topic tells how far it was published");
                }
                resolve_found(found, first, stored)
            }
            resolution => resolution,
        };
        match resolution {
            Resolution::From(published) => Ok(published),
            Resolution::Ahead { published, stored } => {
                let note = MarkerNote { ahead_of: Some(stored), ..MarkerNote::of_epoch(published.epoch) };
                if marker.and_then(|marker| marker.note).as_ref() != Some(&note) {
                    session.mark(published.position, &note)?;
                }
                Err(anyhow!(
                    "{key} is published up to {published}, but stored only up to {stored}: the database was restored from an older state, or the group's offset was moved; nothing more of this partition is published until you decide: {advice}",
                    advice = PublishedDecision::advice(Publication::Ahead { published, stored }, key)
                ))
            }
            Resolution::Search { .. } => Err(anyhow!("a search led to another one, which is a bug")),
        }
    }
}

/// Publishes in one transaction, and tells the lease and the metrics.
fn publish_ranges(
    session: &mut dyn LiveSession,
    lease: &Lease,
    ranges: &[OutboxRange],
    from: Published,
    note: &MarkerNote,
) -> anyhow::Result<()> {
    let key = &lease.claim.key;
    let started = Instant::now();
    let oldest = ranges.iter().map(|range| range.stored_at).min().unwrap_or_else(Utc::now);
    gauge(names::UNPUBLISHED_AGE_SECONDS, key, seconds_since(oldest));
    session.publish(ranges, from, note)?;
    let stream = key.stream.to_string();
    metrics::histogram!(names::PUBLISH_TRANSACTION_SECONDS, "stream" => stream.clone()).record(started.elapsed());
    let delay = metrics::histogram!(names::PUBLISH_DELAY_SECONDS, "stream" => stream);
    for range in ranges {
        delay.record(seconds_since(range.stored_at));
        count(names::RECORDS_PUBLISHED, key, range.records.len() as u64);
    }
    gauge(names::UNPUBLISHED_AGE_SECONDS, key, 0.0);
    let last = ranges.last().map_or(from, OutboxRange::published);
    lease.published(last.position, ranges.iter().map(|range| range.bytes).sum());
    gauge(names::UNPUBLISHED_BYTES, key, lease.unpublished_bytes() as f64);
    Ok(())
}

/// Waits as long, also while batches are stored, unless the lease ends.
fn wait_out(delay: Duration, lease: &Lease) {
    let until = Instant::now() + delay;
    while lease.is_held()
        && let Some(left) = until.checked_duration_since(Instant::now())
    {
        thread::park_timeout(left);
    }
}

fn seconds_since(time: DateTime<Utc>) -> f64 {
    (Utc::now() - time).as_seconds_f64().max(0.0)
}

fn count(name: &'static str, key: &PartitionKey, by: u64) {
    metrics::counter!(name, "stream" => key.stream.to_string()).increment(by);
}

fn gauge(name: &'static str, key: &PartitionKey, value: f64) {
    metrics::gauge!(name, "stream" => key.stream.to_string(), "partition" => key.partition.to_string()).set(value);
}

/// Starts a publisher for every lease on its way to the stream.
pub struct PublishingSink<S> {
    pub inner: S,
    /// Runs a publisher for this lease, on a thread of its own.
    pub start: Box<dyn Fn(Arc<Lease>) + Send + Sync>,
}

impl<S: Sink> Sink for PublishingSink<S> {
    fn assigned(&self, lease: Arc<Lease>) {
        (self.start)(Arc::clone(&lease));
        self.inner.assigned(lease);
    }

    fn revoked(&self, lease: &Lease) {
        self.inner.revoked(lease);
    }

    fn record(&self, record: Record) {
        self.inner.record(record);
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, sync::Mutex};

    use uuid::Uuid;

    use super::*;
    use crate::domain::checkpoint::{Claim, Position};

    const MINE: Uuid = Uuid::from_u128(1);
    const OTHER: Uuid = Uuid::from_u128(2);
    const TRANSACTIONS: Transactions = Transactions { bytes_max: 1_000, interval: Duration::ZERO };

    fn at(position: i64) -> Published {
        Published { epoch: 1, position: Position(position) }
    }

    fn range(start: i64, end: i64) -> OutboxRange {
        let (start, end) = (Position(start), Position(end));
        OutboxRange { epoch: 1, start, end, records: Vec::new(), bytes: 1, stored_at: Utc::now() }
    }

    /// A store whose owner changes by a plan, and stays with the last.
    struct FakeOutbox {
        owners: Mutex<VecDeque<Uuid>>,
        stored: i64,
        ranges: Vec<OutboxRange>,
        deleted: Mutex<Vec<Published>>,
    }

    impl Outbox for FakeOutbox {
        fn state(&self, _: &PartitionKey) -> anyhow::Result<StoredState> {
            let mut owners = self.owners.lock().unwrap();
            let owner = if owners.len() > 1 { owners.pop_front() } else { owners.front().copied() };
            Ok(StoredState { owner, stored: at(self.stored) })
        }

        fn ranges(&self, _: &PartitionKey, published: Option<Published>, _: usize) -> anyhow::Result<Vec<OutboxRange>> {
            let behind = |range: &&OutboxRange| published.is_none_or(|published| range.published() > published);
            Ok(self.ranges.iter().filter(behind).cloned().collect())
        }

        fn unpublished_bytes(&self, _: &PartitionKey, _: Published) -> anyhow::Result<usize> {
            Ok(0)
        }

        fn delete(&self, _: &PartitionKey, published: Published) -> anyhow::Result<()> {
            self.deleted.lock().unwrap().push(published);
            Ok(())
        }
    }

    /// A topic that keeps what was committed; the replies to the first commits may be lost.
    #[derive(Default)]
    struct Broker {
        marker: Option<Marker>,
        published: Vec<(i64, i64)>,
        replies_lost: usize,
    }

    #[derive(Clone, Default)]
    struct FakeTopic(Arc<Mutex<Broker>>);

    impl LiveTopic for FakeTopic {
        fn open(&self, _: &PartitionKey) -> anyhow::Result<Box<dyn LiveSession>> {
            Ok(Box::new(self.clone()))
        }
    }

    impl LiveSession for FakeTopic {
        fn marker(&mut self) -> anyhow::Result<Option<Marker>> {
            Ok(self.0.lock().unwrap().marker.clone())
        }

        fn newest(&mut self, _: DateTime<Utc>) -> anyhow::Result<Newest> {
            Ok(Newest::Nothing)
        }

        fn mark(&mut self, position: Position, note: &MarkerNote) -> anyhow::Result<()> {
            self.0.lock().unwrap().marker = Some(Marker { position, note: Some(note.clone()) });
            Ok(())
        }

        fn publish(&mut self, ranges: &[OutboxRange], _: Published, note: &MarkerNote) -> anyhow::Result<()> {
            let mut broker = self.0.lock().unwrap();
            broker.published.extend(ranges.iter().map(|range| (range.start.0, range.end.0)));
            let position = ranges.last().unwrap().end;
            broker.marker = Some(Marker { position, note: Some(note.clone()) });
            if broker.replies_lost > 0 {
                broker.replies_lost -= 1;
                bail!("the reply is lost");
            }
            Ok(())
        }
    }

    /// Runs a publisher until it has nothing more to do; what the broker has then.
    fn run(owners: &[Uuid], claimed: i64, ranges: Vec<OutboxRange>, broker: Broker) -> Broker {
        let stored = ranges.last().map_or(claimed, |range| range.end.0);
        let owners = Mutex::new(owners.iter().copied().collect());
        let outbox = Arc::new(FakeOutbox { owners, stored, ranges, deleted: Mutex::default() });
        let topic = FakeTopic(Arc::new(Mutex::new(broker)));
        let key = PartitionKey { stream: "reviews".into(), topic: "reviews".into(), partition: 0 };
        let lease = Lease::new(Claim {
            key,
            owner: MINE,
            position: Position(claimed),
            epoch: 1,
            generation: 1,
            timestamp_ms_max: 0,
            is_fresh: false,
        });
        lease.stored(Position(stored), 0, 0, 0);
        let publisher = Publisher::new(outbox, Arc::new(topic.clone()), TRANSACTIONS);
        thread::scope(|scope| {
            scope.spawn(|| publisher.run(&lease));
            let began = Instant::now();
            while lease.published_position() < Position(stored) && lease.is_held() && began.elapsed() < IDLE {
                thread::sleep(Duration::from_millis(1));
            }
            publisher.finish();
            lease.give_back();
        });
        std::mem::take(&mut *topic.0.lock().unwrap())
    }

    fn published_up_to(position: i64) -> Broker {
        Broker { marker: Some(marker(position)), ..Broker::default() }
    }

    fn marker(position: i64) -> Marker {
        Marker { position: Position(position), note: Some(MarkerNote::of_epoch(1)) }
    }

    #[test]
    fn ranges_behind_the_offset_are_published_once_and_in_order() {
        let broker = published_up_to(10);
        let broker = run(&[MINE], 10, vec![range(0, 10), range(10, 20), range(20, 25)], broker);
        assert_eq!(broker.published, [(10, 20), (20, 25)]);
        assert_eq!(broker.marker.unwrap().position, Position(25));
    }

    #[test]
    fn a_commit_whose_reply_is_lost_is_not_repeated() {
        let broker = Broker { replies_lost: 1, ..published_up_to(10) };
        let broker = run(&[MINE], 10, vec![range(10, 20)], broker);
        assert_eq!(broker.published, [(10, 20)]);
    }

    #[test]
    fn a_worker_whose_claim_was_taken_opens_no_session() {
        let broker = published_up_to(10);
        let broker = run(&[OTHER], 10, vec![range(10, 20)], broker);
        assert_eq!(broker.published, []);
    }

    #[test]
    fn a_worker_that_was_frozen_before_its_session_marks_nothing_as_ahead() {
        // Claimed at 10; another worker took over meanwhile and published up to 50.
        let broker = published_up_to(50);
        let broker = run(&[MINE, OTHER], 10, vec![range(10, 20)], broker);
        assert_eq!((broker.published, broker.marker), (Vec::new(), Some(marker(50))));
    }

    #[test]
    fn an_offset_ahead_of_the_store_is_noted_and_nothing_is_published() {
        let broker = published_up_to(50);
        let broker = run(&[MINE], 10, vec![range(10, 20)], broker);
        let note = broker.marker.unwrap().note.unwrap();
        assert_eq!((broker.published, note.ahead_of), (Vec::new(), Some(at(10))));
    }
}
