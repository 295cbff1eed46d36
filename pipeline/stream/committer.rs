//! Tracks what is finished in each partition of a stream, and stores the finished prefixes.
//!
//! One task a stream. At most one batch a partition is under way, so each begins where the last one ended;
//! while it is, results pile up and make the next batch larger: batches grow with the load and a lone
//! record waits for nothing. It never blocks on the source or the engine.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::Utc;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{self, MissedTickBehavior},
};

use super::{
    Event,
    delivery::{Delivery, deliver},
};
use crate::{
    crash::crash_point,
    domain::{
        checkpoint::{Advance, PartitionKey, Position},
        document::{Finished, Outcome},
        live::LiveFormat,
        rejection::{LimitExceeded, RejectionLimits, RejectionWatch},
        tracker::{Tracker, TrackerError},
    },
    source::Lease,
    storage::{Batch, LabelStore, StoreError},
    telemetry::metrics as names,
};

/// Events taken from the queue at once. Only saves wake-ups.
const EVENTS_AT_ONCE: usize = 1024;

/// How often the claims of idle partitions are looked at: a partition with work finds out by storing. Shorter asks
/// Postgres more often; longer, an idle stream follows an operator who moved its position later.
const CLAIM_CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// How a stream's labels are stored.
#[derive(Debug, Clone)]
pub struct CommitterConfig {
    /// Records of one batch.
    pub batch_documents_max: usize,
    /// Batches under way, over all partitions: no more than connections are there for.
    pub batches_max: usize,
    /// What is published of a batch; `None` without a live topic.
    pub live: Option<Arc<LiveFormat>>,
    /// For how long rejected records are kept as they came; `None`: not at all.
    pub keep_records: Option<Duration>,
    /// Beyond them the stream stops.
    pub limits: RejectionLimits,
}

/// Storing cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum CommitterError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("records of a partition arrived or finished out of order, which is a bug: {0}")]
    Tracker(#[from] TrackerError),
    #[error(
        "{limit}; the last one is {last}; correct the source, or the stream's mapping, and start again: the stream goes on behind them, and `albertine dead-letter replay` labels them; the limits are `streams.{stream}.rejections`"
    )]
    Rejections { stream: Arc<str>, limit: LimitExceeded, last: String },
}

/// See the module.
pub struct Committer<S> {
    store: Arc<S>,
    config: CommitterConfig,
    events: mpsc::Receiver<Event>,
    partitions: HashMap<i32, Partition>,
    under_way: JoinSet<Report>,
    checks: JoinSet<Vec<Unlike>>,
    watch: RejectionWatch,
    draining: bool,
}

/// An idle partition whose checkpoint is not as this worker left it.
struct Unlike {
    lease: Arc<Lease>,
    /// Where this worker had left it.
    left: Position,
    is_owner: bool,
}

struct Partition {
    lease: Arc<Lease>,
    tracker: Tracker<Finished>,
    position: Position,
    storing: bool,
}

impl Partition {
    /// Everything that arrived is stored.
    fn is_idle(&self) -> bool {
        self.tracker.is_empty() && !self.storing
    }
}

/// A batch that ended.
struct Report {
    lease: Arc<Lease>,
    to: Position,
    summary: Summary,
    result: Result<Delivery, StoreError>,
}

/// What a batch held, for the metrics.
#[derive(Default)]
struct Summary {
    records: usize,
    bytes: usize,
    labelled: u64,
    deleted: u64,
    /// Milliseconds since 1970 of each labelled record.
    produced_at_ms: Vec<i64>,
    rejected: HashMap<(&'static str, &'static str), u64>,
    /// In the order of the records: whether each was rejected.
    rejections: Vec<bool>,
    last_rejection: Option<(i64, String)>,
    started: Option<Instant>,
}

impl<S: LabelStore> Committer<S> {
    pub fn new(store: Arc<S>, config: CommitterConfig, events: mpsc::Receiver<Event>) -> Self {
        Self {
            watch: RejectionWatch::new(config.limits),
            store,
            config,
            events,
            partitions: HashMap::new(),
            under_way: JoinSet::new(),
            checks: JoinSet::new(),
            draining: false,
        }
    }

    /// Runs until it is drained, or everyone who could send an event is gone.
    ///
    /// # Errors
    /// [`CommitterError`] where an operator has to act.
    pub async fn run(mut self) -> Result<(), CommitterError> {
        let mut events = Vec::with_capacity(EVENTS_AT_ONCE);
        let mut check_due = time::interval_at(time::Instant::now() + CLAIM_CHECK_INTERVAL, CLAIM_CHECK_INTERVAL);
        check_due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.start_batches();
            if self.draining && self.partitions.values().all(Partition::is_idle) {
                return Ok(());
            }
            tokio::select! {
                received = self.events.recv_many(&mut events, EVENTS_AT_ONCE) => {
                    if received == 0 {
                        return Ok(());
                    }
                    for event in events.drain(..) {
                        self.hear(event)?;
                    }
                }
                Some(report) = self.under_way.join_next() => match report {
                    Ok(report) => self.settle(report)?,
                    Err(panic) => std::panic::resume_unwind(panic.into_panic()),
                },
                _ = check_due.tick(), if self.checks.is_empty() => self.check_claims(),
                Some(unlike) = self.checks.join_next() => match unlike {
                    Ok(unlike) => unlike.iter().for_each(|unlike| self.follow(unlike)),
                    Err(panic) => std::panic::resume_unwind(panic.into_panic()),
                },
            }
        }
    }

    fn hear(&mut self, event: Event) -> Result<(), CommitterError> {
        match event {
            Event::Assigned(lease) => {
                let position = lease.claim.position;
                let partition = lease.claim.key.partition;
                self.partitions
                    .insert(partition, Partition { lease, tracker: Tracker::default(), position, storing: false });
            }
            Event::Revoked { partition, owner } => {
                if self.partitions.get(&partition).is_some_and(|present| present.lease.claim.owner == owner) {
                    self.partitions.remove(&partition);
                }
            }
            Event::Arrived { lease, offset } => {
                if let Some(partition) = self.of(&lease) {
                    partition.tracker.register(offset)?;
                }
            }
            Event::Finished { lease, finished } => {
                if let Some(partition) = self.of(&lease) {
                    partition.tracker.finish(finished.offset, *finished)?;
                }
            }
            Event::Drain => self.draining = true,
        }
        Ok(())
    }

    /// The partition, if it is still under this lease.
    fn of(&mut self, lease: &Lease) -> Option<&mut Partition> {
        self.partitions
            .get_mut(&lease.claim.key.partition)
            .filter(|partition| partition.lease.claim.owner == lease.claim.owner)
    }

    fn start_batches(&mut self) {
        for partition in self.partitions.values_mut() {
            if self.under_way.len() >= self.config.batches_max {
                return;
            }
            if partition.storing {
                continue;
            }
            let Some(prefix) = partition.tracker.take_prefix(self.config.batch_documents_max) else { continue };
            partition.storing = true;
            let timestamp_ms_max = prefix
                .records
                .last()
                .map_or(partition.lease.claim.timestamp_ms_max, |record| record.version.timestamp_ms);
            let batch = Batch {
                key: partition.lease.claim.key.clone(),
                owner: partition.lease.claim.owner,
                epoch: partition.lease.claim.epoch,
                advance: Advance { from: partition.position, to: prefix.end, timestamp_ms_max },
                records: prefix.records,
                live: self.config.live.clone(),
                keep_records: self.config.keep_records,
            };
            self.under_way.spawn(store_batch(Arc::clone(&self.store), Arc::clone(&partition.lease), batch));
        }
    }

    fn settle(&mut self, report: Report) -> Result<(), CommitterError> {
        let Report { lease, to, summary, result } = report;
        let place = &lease.claim.key;
        match result? {
            Delivery::Stored { queued_bytes } => {
                lease.stored(to, summary.records, summary.bytes, queued_bytes);
                summary.count(&place.stream);
                if let Some(partition) = self.of(&lease) {
                    partition.position = to;
                    partition.storing = false;
                }
                self.watch_rejections(place, &summary)?;
            }
            Delivery::Rewind(position) => {
                tracing::warn!(%place, position = position.0, "the checkpoint was moved; reading from there");
                self.give_up(&lease);
            }
            Delivery::Fenced => {
                tracing::warn!(%place, "another worker claimed the partition; nothing was written, what is in hand is left to it");
                self.give_up(&lease);
            }
        }
        Ok(())
    }

    fn watch_rejections(&mut self, place: &PartitionKey, summary: &Summary) -> Result<(), CommitterError> {
        summary.rejections.iter().try_for_each(|rejected| self.watch.see(*rejected)).map_err(|limit| {
            let last = summary
                .last_rejection
                .as_ref()
                .map_or_else(String::new, |(offset, message)| format!("offset {offset} of {place}: {message}"));
            CommitterError::Rejections { stream: place.stream.clone(), limit, last }
        })
    }

    /// Compares the checkpoints of idle partitions with where this worker left them.
    fn check_claims(&mut self) {
        let idle: Vec<(Arc<Lease>, Position)> = self
            .partitions
            .values()
            .filter(|partition| partition.is_idle())
            .map(|partition| (Arc::clone(&partition.lease), partition.position))
            .collect();
        let store = Arc::clone(&self.store);
        self.checks.spawn(async move {
            let mut unlike = Vec::new();
            for (lease, left) in idle {
                // A store that does not answer is noticed by whoever has something to store.
                let Ok(observed) = store.observe(&lease.claim.key).await else { break };
                let is_owner = observed.is_some_and(|observed| observed.owner == Some(lease.claim.owner));
                if !is_owner || observed.is_some_and(|observed| observed.position != left) {
                    unlike.push(Unlike { lease, left, is_owner });
                }
            }
            unlike
        });
    }

    /// Gives a partition up whose checkpoint somebody moved or claimed, unless this worker itself moved it since.
    fn follow(&mut self, unlike: &Unlike) {
        let Unlike { lease, left, is_owner } = unlike;
        let is_as_left = |partition: &mut Partition| partition.is_idle() && partition.position == *left;
        if self.of(lease).is_some_and(|partition| !is_owner || is_as_left(partition)) {
            tracing::warn!(place = %lease.claim.key, "the checkpoint of an idle partition was moved or claimed by somebody else; giving it up");
            self.give_up(lease);
        }
    }

    /// The source claims the partition again, if it is still assigned to it.
    fn give_up(&mut self, lease: &Lease) {
        metrics::counter!(names::CLAIMS_LOST, "stream" => lease.claim.key.stream.to_string()).increment(1);
        if self.of(lease).is_some() {
            self.partitions.remove(&lease.claim.key.partition);
        }
        lease.lose();
    }
}

async fn store_batch<S: LabelStore>(store: Arc<S>, lease: Arc<Lease>, batch: Batch) -> Report {
    let to = batch.advance.to;
    let summary = Summary::of(&batch.records);
    crash_point("before-store");
    let result = deliver(&*store, batch).await;
    crash_point("after-store");
    Report { lease, to, summary, result }
}

impl Summary {
    fn of(records: &[Finished]) -> Self {
        let mut summary = Self {
            records: records.len(),
            bytes: records.iter().map(|record| record.bytes).sum(),
            started: Some(Instant::now()),
            ..Self::default()
        };
        for record in records {
            summary.rejections.push(matches!(record.outcome, Outcome::Rejected(_)));
            match &record.outcome {
                Outcome::Labelled { .. } => {
                    summary.labelled += 1;
                    summary.produced_at_ms.extend(record.produced_at.map(|time| time.timestamp_millis()));
                }
                Outcome::Deleted { .. } => summary.deleted += 1,
                Outcome::Rejected(rejection) => {
                    *summary.rejected.entry((rejection.stage.as_str(), rejection.reason)).or_default() += 1;
                    summary.last_rejection = Some((record.offset, rejection.to_string()));
                }
            }
        }
        summary
    }

    fn count(&self, stream: &str) {
        let stream = stream.to_owned();
        metrics::counter!(names::DOCUMENTS_STORED, "stream" => stream.clone()).increment(self.labelled);
        metrics::counter!(names::DOCUMENTS_DELETED, "stream" => stream.clone()).increment(self.deleted);
        for ((stage, reason), count) in &self.rejected {
            metrics::counter!(names::REJECTIONS, "stream" => stream.clone(), "stage" => *stage, "reason" => *reason)
                .increment(*count);
        }
        metrics::histogram!(names::STORE_BATCH_DOCUMENTS, "stream" => stream.clone()).record(self.records as f64);
        if let Some(started) = self.started {
            metrics::histogram!(names::STORE_BATCH_SECONDS, "stream" => stream.clone()).record(started.elapsed());
        }
        let now_ms = Utc::now().timestamp_millis();
        let latency = metrics::histogram!(names::DELIVERY_SECONDS, "stream" => stream);
        self.produced_at_ms
            .iter()
            .for_each(|produced_at_ms| latency.record((now_ms - produced_at_ms).max(0) as f64 / 1000.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{
            checkpoint::Claim,
            rejection::{Rejection, Stage},
        },
        stream::delivery::tests::{Behaviour, FakeStore, OWNER, finished, key},
    };

    const CONFIG: CommitterConfig = CommitterConfig {
        batch_documents_max: 10,
        batches_max: 2,
        live: None,
        keep_records: None,
        limits: RejectionLimits { streak_max: 3, share_max: 1.0 },
    };

    fn lease(position: i64) -> Arc<Lease> {
        Lease::new(Claim {
            key: key(),
            owner: OWNER,
            position: Position(position),
            epoch: 1,
            generation: 1,
            timestamp_ms_max: 0,
            is_fresh: false,
        })
    }

    async fn run(store: &Arc<FakeStore>, events: Vec<Event>) -> Result<(), CommitterError> {
        let (sender, receiver) = mpsc::channel(events.len().max(1));
        for event in events {
            sender.send(event).await.unwrap();
        }
        Committer::new(Arc::clone(store), CONFIG, receiver).run().await
    }

    fn arrived(lease: &Arc<Lease>, offset: i64) -> Event {
        lease.arrived(1);
        Event::Arrived { lease: Arc::clone(lease), offset }
    }

    fn done(lease: &Arc<Lease>, offset: i64) -> Event {
        Event::Finished { lease: Arc::clone(lease), finished: Box::new(finished(offset)) }
    }

    #[tokio::test(start_paused = true)]
    async fn records_are_stored_in_order_whatever_order_they_finish_in() {
        let (store, lease) = (FakeStore::new(OWNER, 0, vec![Behaviour::Unreachable]), lease(0));
        let mut events = vec![Event::Assigned(Arc::clone(&lease))];
        events.extend([0, 1, 2, 5].map(|offset| arrived(&lease, offset)));
        events.extend([5, 2, 0, 1].map(|offset| done(&lease, offset)));
        events.push(Event::Drain);
        run(&store, events).await.unwrap();
        assert_eq!(store.offsets(), [0, 1, 2, 5]);
        assert_eq!(lease.stored_position(), Position(6));
        assert_eq!(lease.in_flight(), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn results_of_a_revoked_lease_are_not_stored() {
        let (store, lease) = (FakeStore::new(OWNER, 0, Vec::new()), lease(0));
        let events = vec![
            Event::Assigned(Arc::clone(&lease)),
            arrived(&lease, 0),
            Event::Revoked { partition: 0, owner: OWNER },
            done(&lease, 0),
            Event::Drain,
        ];
        run(&store, events).await.unwrap();
        assert_eq!(store.offsets(), Vec::<i64>::new());
    }

    #[tokio::test(start_paused = true)]
    async fn a_fenced_partition_is_given_up_and_the_source_is_told() {
        let (store, lease) = (FakeStore::new(uuid::Uuid::from_u128(9), 0, Vec::new()), lease(0));
        let events = vec![Event::Assigned(Arc::clone(&lease)), arrived(&lease, 0), done(&lease, 0), Event::Drain];
        run(&store, events).await.unwrap();
        assert!(lease.is_lost());
        assert_eq!(store.offsets(), Vec::<i64>::new());
    }

    #[tokio::test(start_paused = true)]
    async fn too_many_rejections_stop_the_stream_once_they_are_stored() {
        let (store, lease) = (FakeStore::new(OWNER, 0, vec![Behaviour::Refuse(1)]), lease(0));
        let reject = |offset| {
            let mut record = finished(offset);
            record.outcome = Outcome::Rejected(Rejection::new(Stage::Decode, "json_invalid", "no JSON"));
            Event::Finished { lease: Arc::clone(&lease), finished: Box::new(record) }
        };
        let mut events = vec![Event::Assigned(Arc::clone(&lease))];
        events.extend((0..4).map(|offset| arrived(&lease, offset)));
        events.extend((0..4).map(reject));
        let error = run(&store, events).await.unwrap_err().to_string();
        let expected = "3 records in a row were rejected; the last one is offset 3 of stream `reviews`, topic `reviews`, partition 0: no JSON; ";
        assert!(error.starts_with(expected), "{error}");
        assert_eq!(store.offsets(), [0, 1, 2, 3], "they are stored, so that the next start goes on behind them");
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_partition_whose_checkpoint_was_moved_is_given_up() {
        let (store, lease) = (FakeStore::new(OWNER, 0, Vec::new()), lease(0));
        let (sender, receiver) = mpsc::channel(1);
        let committer = tokio::spawn(Committer::new(Arc::clone(&store), CONFIG, receiver).run());
        sender.send(Event::Assigned(Arc::clone(&lease))).await.unwrap();
        time::sleep(CLAIM_CHECK_INTERVAL * 3).await;
        assert!(lease.is_held(), "nobody has moved anything");
        store.checkpoint.lock().unwrap().position = Position(7);
        time::sleep(CLAIM_CHECK_INTERVAL * 2).await;
        assert!(lease.is_lost());
        sender.send(Event::Drain).await.unwrap();
        committer.await.unwrap().unwrap();
    }
}
