//! Reads one stream's topic as a member of a consumer group.
//!
//! Owns the calling thread: the poll loop and the rebalance callback run on it. Offsets come from the
//! claims, never from the group: the group only shares out the partitions, and its committed offsets are
//! hints for lag tools. An offset that is out of range is an error with a remedy, never a silent reset.

pub mod admin;
mod client;
pub mod peek;
pub mod produce;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use chrono::{DateTime, Utc};
use rdkafka::{
    ClientConfig, ClientContext, Message, Offset, TopicPartitionList,
    bindings::rd_kafka_resp_err_t as ResponseError,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
};

use client::{ClientLog, client_config};

use super::{Claims, Lease, Record, Sink, SourceControl};
use crate::{
    config::secret::ClientSettings,
    domain::{checkpoint::Position, version::VersionClock},
    telemetry::metrics as names,
};

/// Longest wait for a record. Bounds how late a pause, a lost claim or a shutdown is noticed; shorter
/// costs idle wake-ups.
const POLL_TIMEOUT: Duration = Duration::from_millis(50);
/// How often the stored positions are committed to the group, for lag tools. Nothing depends on it.
const HINT_INTERVAL: Duration = Duration::from_secs(1);
/// Deadline of one metadata or offset request to the broker.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// A partition is resumed once it is down to this share of its bound: pausing drops what librdkafka has
/// fetched ahead, so it must not flap.
const RESUME_SHARE: usize = 2;

/// How a stream reads its topic.
#[derive(Debug, Clone)]
pub struct KafkaSourceConfig {
    pub stream: Arc<str>,
    pub topic: Arc<str>,
    pub group: String,
    pub start: Start,
    /// Records in flight, over all assigned partitions.
    pub in_flight_documents_max: usize,
    /// Bytes of records in flight, over all assigned partitions.
    pub in_flight_bytes_max: usize,
    /// How long a fenced worker that still believes the partition is its own waits before it claims again:
    /// the time in which the group would tell it otherwise.
    pub reclaim_delay: Duration,
    pub client: ClientSettings,
}

/// Where a stream begins on a topic it has never read. Decided once, at its first claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    Earliest,
    Latest,
    At(DateTime<Utc>),
}

/// Reading the topic cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("stream `{stream}`: cannot {action}: {source}")]
    Broker { stream: Arc<str>, action: String, source: KafkaError },
    #[error("stream `{stream}`: topic `{topic}` does not exist; create it, or correct `streams.{stream}.topic`")]
    TopicMissing { stream: Arc<str>, topic: Arc<str> },
    #[error(
        "stream `{stream}`: the checkpoint of topic `{topic}` partition {partition} stands at offset {position}, which the broker does not have: {reason}; records were deleted before they were read, or the topic was recreated. Decide what to skip and set the checkpoint's position to an offset from {low} to {high}"
    )]
    OffsetOutOfRange {
        stream: Arc<str>,
        topic: Arc<str>,
        partition: i32,
        position: i64,
        low: i64,
        high: i64,
        reason: String,
    },
    #[error("stream `{stream}`: cannot claim partitions {partitions:?}: {source:#}")]
    Claim { stream: Arc<str>, partitions: Vec<i32>, source: anyhow::Error },
}

/// Reads until `control` says close. Blocks the calling thread.
///
/// # Errors
/// [`SourceError`] where reading cannot go on without an operator's decision; what the broker may recover
/// from by itself is logged and tried again.
pub fn run(
    config: KafkaSourceConfig,
    claims: Arc<dyn Claims>,
    sink: Arc<dyn Sink>,
    control: &SourceControl,
) -> Result<(), SourceError> {
    let mut settings = consumer_settings(&config.client);
    settings.set("group.id", &config.group);
    let context = Context { config, claims, sink, assignment: Mutex::default(), failure: Mutex::default(), log: ClientLog::default() };
    let (stream, topic) = (context.config.stream.clone(), context.config.topic.clone());
    let broker = |action: &str, source| SourceError::Broker { stream: stream.clone(), action: action.into(), source };
    let consumer: BaseConsumer<Context> =
        settings.create_with_context(context).map_err(|error| broker("create the consumer", error))?;
    partition_count(&consumer, &stream, &topic)?;
    consumer.subscribe(&[&topic]).map_err(|error| broker(&format!("subscribe to topic `{topic}`"), error))?;
    let result =
        Poller { consumer: &consumer, control, hinted: Instant::now(), scanned: Instant::now() }.poll_until_closed();
    // Leaves the group; the callback hands the partitions back.
    consumer.unsubscribe();
    drop(consumer);
    result
}

/// The number of partitions of a topic.
///
/// # Errors
/// Where the broker cannot be asked, or has no such topic.
fn partition_count<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    stream: &Arc<str>,
    topic: &Arc<str>,
) -> Result<i32, SourceError> {
    let metadata = consumer.fetch_metadata(Some(topic), REQUEST_TIMEOUT).map_err(|source| SourceError::Broker {
        stream: stream.clone(),
        action: format!("read the metadata of topic `{topic}`"),
        source,
    })?;
    let partitions = metadata
        .topics()
        .iter()
        .find(|found| found.name() == &**topic && found.error().is_none())
        .map_or(0, |found| found.partitions().len());
    if partitions == 0 {
        return Err(SourceError::TopicMissing { stream: stream.clone(), topic: topic.clone() });
    }
    Ok(i32::try_from(partitions).unwrap_or(i32::MAX))
}

/// Ours above the operator's: these settings carry the delivery contract.
fn consumer_settings(client: &ClientSettings) -> ClientConfig {
    let mut settings = ClientConfig::new();
    // Defaults that an operator may change.
    settings.set("session.timeout.ms", "10000");
    settings.set("queued.max.messages.kbytes", "16384");
    settings.set("fetch.wait.max.ms", "100");
    for (name, value) in client_config(client).config_map() {
        settings.set(name, value);
    }
    settings.set("enable.auto.commit", "false");
    settings.set("enable.auto.offset.store", "false");
    settings.set("auto.offset.reset", "error");
    settings.set("isolation.level", "read_committed");
    settings.set("partition.assignment.strategy", "cooperative-sticky");
    settings.set("allow.auto.create.topics", "false");
    settings.set_log_level(RDKafkaLogLevel::Warning);
    settings
}

struct Context {
    config: KafkaSourceConfig,
    claims: Arc<dyn Claims>,
    sink: Arc<dyn Sink>,
    assignment: Mutex<HashMap<i32, Assigned>>,
    /// What the rebalance callback could not do; the poll loop ends with it.
    failure: Mutex<Option<SourceError>>,
    log: ClientLog,
}

struct Assigned {
    lease: Arc<Lease>,
    clock: VersionClock,
    paused: bool,
    hinted: Position,
    /// When the claim was found lost.
    lost_at: Option<Instant>,
}

impl Assigned {
    fn new(lease: Arc<Lease>) -> Self {
        let claim = &lease.claim;
        Self {
            clock: VersionClock::new(claim.generation, claim.key.partition, claim.timestamp_ms_max),
            hinted: claim.position,
            paused: false,
            lost_at: None,
            lease,
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.log.line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.log.error(&error, reason);
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: ResponseError, partitions: &mut TopicPartitionList) {
        let numbers: Vec<i32> = partitions
            .elements()
            .iter()
            .map(rdkafka::topic_partition_list::TopicPartitionListElem::partition)
            .collect();
        let outcome = match error {
            ResponseError::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assign(consumer, &numbers),
            // Also on errors: librdkafka wants the assignment given up before it joins again.
            _ => self.unassign(consumer, &numbers, partitions),
        };
        if let Err(error) = outcome {
            self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    }
}

impl Context {
    fn assignment(&self) -> MutexGuard<'_, HashMap<i32, Assigned>> {
        self.assignment.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn broker_error(&self, action: impl Into<String>, source: KafkaError) -> SourceError {
        SourceError::Broker { stream: self.config.stream.clone(), action: action.into(), source }
    }

    /// Claims the partitions and begins to read each where its checkpoint stands.
    fn assign(&self, consumer: &BaseConsumer<Self>, partitions: &[i32]) -> Result<(), SourceError> {
        if partitions.is_empty() {
            return consumer
                .incremental_assign(&TopicPartitionList::new())
                .map_err(|error| self.broker_error("take an empty assignment", error));
        }
        let claimed = self.claim(consumer, partitions)?;
        fail::fail_point!("after-claim", |_| std::process::abort());
        let mut assignment = self.assignment();
        let mut positions = TopicPartitionList::new();
        for lease in &claimed {
            let partition = lease.claim.key.partition;
            positions
                .add_partition_offset(&self.config.topic, partition, Offset::Offset(lease.claim.position.0))
                .map_err(|error| self.broker_error(format!("assign partition {partition}"), error))?;
            self.sink.assigned(Arc::clone(lease));
            assignment.insert(partition, Assigned::new(Arc::clone(lease)));
            tracing::info!(stream = %self.config.stream, topic = %self.config.topic, partition, position = lease.claim.position.0, "claimed");
        }
        drop(assignment);
        consumer
            .incremental_assign(&positions)
            .map_err(|error| self.broker_error(format!("assign partitions {partitions:?}"), error))
    }

    fn unassign(
        &self,
        consumer: &BaseConsumer<Self>,
        numbers: &[i32],
        partitions: &TopicPartitionList,
    ) -> Result<(), SourceError> {
        if !consumer.assignment_lost() {
            self.commit_hints(consumer, numbers, CommitMode::Sync);
        }
        let mut assignment = self.assignment();
        for partition in numbers {
            if let Some(assigned) = assignment.remove(partition) {
                assigned.lease.give_back();
                self.sink.revoked(&assigned.lease);
                tracing::info!(stream = %self.config.stream, topic = %self.config.topic, partition, "handed back");
            }
        }
        drop(assignment);
        consumer
            .incremental_unassign(partitions)
            .map_err(|error| self.broker_error(format!("give up partitions {numbers:?}"), error))
    }

    fn claim(&self, consumer: &BaseConsumer<Self>, partitions: &[i32]) -> Result<Vec<Arc<Lease>>, SourceError> {
        let failed =
            |source| SourceError::Claim { stream: self.config.stream.clone(), partitions: partitions.to_vec(), source };
        let known = self.claims.known_partitions().map_err(failed)?;
        let missing = |partition: &i32| !known.contains(partition);
        if partitions.iter().any(missing) {
            let starts = if known.is_empty() {
                self.first_positions(consumer)?
            } else {
                // A partition that was added later begins at its start: nothing in it was decided away.
                self.low_positions(
                    consumer,
                    &partitions.iter().copied().filter(|partition| missing(partition)).collect::<Vec<_>>(),
                )?
            };
            self.claims.initialise(&starts).map_err(failed)?;
        }
        Ok(self.claims.claim(partitions).map_err(failed)?.into_iter().map(Lease::new).collect())
    }

    /// Start positions of all partitions the topic has now: decided for all at once, so that a partition
    /// that is claimed a little later does not begin a little later too.
    fn first_positions(&self, consumer: &BaseConsumer<Self>) -> Result<Vec<(i32, Position)>, SourceError> {
        let all: Vec<i32> = (0..partition_count(consumer, &self.config.stream, &self.config.topic)?).collect();
        match self.config.start {
            Start::Earliest => self.low_positions(consumer, &all),
            Start::Latest => self.watermarks(consumer, &all, |_, high| high),
            Start::At(time) => self.positions_at(consumer, &all, time),
        }
    }

    fn low_positions(
        &self,
        consumer: &BaseConsumer<Self>,
        partitions: &[i32],
    ) -> Result<Vec<(i32, Position)>, SourceError> {
        self.watermarks(consumer, partitions, |low, _| low)
    }

    fn watermarks(
        &self,
        consumer: &BaseConsumer<Self>,
        partitions: &[i32],
        choose: impl Fn(i64, i64) -> i64,
    ) -> Result<Vec<(i32, Position)>, SourceError> {
        partitions
            .iter()
            .map(|&partition| {
                consumer
                    .fetch_watermarks(&self.config.topic, partition, REQUEST_TIMEOUT)
                    .map(|(low, high)| (partition, Position(choose(low, high))))
                    .map_err(|error| self.broker_error(format!("read the offsets of partition {partition}"), error))
            })
            .collect()
    }

    /// The first record at or after `time` in each partition; its end where there is none.
    fn positions_at(
        &self,
        consumer: &BaseConsumer<Self>,
        partitions: &[i32],
        time: DateTime<Utc>,
    ) -> Result<Vec<(i32, Position)>, SourceError> {
        let failed = |error| self.broker_error(format!("find the offsets at `{time}`"), error);
        let mut query = TopicPartitionList::new();
        for &partition in partitions {
            query
                .add_partition_offset(&self.config.topic, partition, Offset::Offset(time.timestamp_millis()))
                .map_err(failed)?;
        }
        let found = consumer.offsets_for_times(query, REQUEST_TIMEOUT).map_err(failed)?;
        let mut ends = HashMap::new();
        for (partition, position) in self.watermarks(consumer, partitions, |_, high| high)? {
            ends.insert(partition, position);
        }
        Ok(found
            .elements()
            .iter()
            .filter_map(|element| {
                let end = *ends.get(&element.partition())?;
                Some((
                    element.partition(),
                    if let Offset::Offset(offset) = element.offset() { Position(offset) } else { end },
                ))
            })
            .collect())
    }

    /// Tells the group how far these partitions are stored.
    fn commit_hints(&self, consumer: &BaseConsumer<Self>, partitions: &[i32], mode: CommitMode) {
        let mut offsets = TopicPartitionList::new();
        let mut assignment = self.assignment();
        for partition in partitions {
            let Some(assigned) = assignment.get_mut(partition) else { continue };
            let stored = assigned.lease.stored_position();
            let changed = stored != assigned.hinted;
            if changed && offsets.add_partition_offset(&self.config.topic, *partition, Offset::Offset(stored.0)).is_ok()
            {
                assigned.hinted = stored;
            }
        }
        drop(assignment);
        if offsets.count() == 0 {
            return;
        }
        if let Err(error) = consumer.commit(&offsets, mode) {
            tracing::debug!(stream = %self.config.stream, %error, "the group's offsets were not committed; lag tools see older ones for a moment");
        }
    }
}

struct Poller<'a> {
    consumer: &'a BaseConsumer<Context>,
    control: &'a SourceControl,
    hinted: Instant,
    scanned: Instant,
}

impl Poller<'_> {
    fn context(&self) -> &Context {
        self.consumer.context()
    }

    fn poll_until_closed(&mut self) -> Result<(), SourceError> {
        while !self.control.is_closing() {
            let message = self.consumer.poll(POLL_TIMEOUT);
            if let Some(failure) = self.context().failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return Err(failure);
            }
            match message {
                Some(Ok(message)) => self.deliver(&message),
                Some(Err(error)) => self.survive(error)?,
                None => {}
            }
            if self.scanned.elapsed() >= POLL_TIMEOUT {
                self.scanned = Instant::now();
                self.regulate();
                self.reclaim()?;
            }
            if self.hinted.elapsed() >= HINT_INTERVAL {
                self.hinted = Instant::now();
                let assigned: Vec<i32> = self.context().assignment().keys().copied().collect();
                self.context().commit_hints(self.consumer, &assigned, CommitMode::Async);
            }
        }
        Ok(())
    }

    fn deliver(&self, message: &BorrowedMessage<'_>) {
        let context = self.context();
        let mut assignment = context.assignment();
        let shares = assignment.len();
        let Some(assigned) = assignment.get_mut(&message.partition()) else { return };
        // Its position is read again from the checkpoint by whoever claims the partition next.
        if self.control.is_draining() || !assigned.lease.is_held() {
            return;
        }
        let timestamp_ms = message.timestamp().to_millis();
        let record = Record {
            lease: Arc::clone(&assigned.lease),
            offset: message.offset(),
            version: assigned.clock.tick(message.offset(), timestamp_ms, SystemTime::now()),
            timestamp_ms,
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
        };
        assigned.lease.arrived(record.bytes());
        if self.is_over_bound(&assigned.lease, shares, 1) {
            self.pause(message.partition(), assigned);
        }
        drop(assignment);
        metrics::counter!(names::RECORDS_RECEIVED, "stream" => context.config.stream.to_string()).increment(1);
        context.sink.record(record);
    }

    /// Whether a partition holds more than its share of the bound, divided by `divisor`.
    fn is_over_bound(&self, lease: &Lease, shares: usize, divisor: usize) -> bool {
        let config = &self.context().config;
        let (documents, bytes) = lease.in_flight();
        let share = |total: usize| (total / shares.max(1) / divisor).max(1);
        documents >= share(config.in_flight_documents_max) || bytes >= share(config.in_flight_bytes_max)
    }

    /// Pauses every partition while draining, and resumes those that have room again.
    fn regulate(&self) {
        let mut assignment = self.context().assignment();
        let shares = assignment.len();
        for (&partition, assigned) in assignment.iter_mut() {
            if self.control.is_draining() {
                if !assigned.paused {
                    self.pause(partition, assigned);
                }
            } else if assigned.paused
                && assigned.lease.is_held()
                && !self.is_over_bound(&assigned.lease, shares, RESUME_SHARE)
                && self.consumer.resume(&self.list(&[partition])).is_ok()
            {
                assigned.paused = false;
            }
        }
    }

    fn pause(&self, partition: i32, assigned: &mut Assigned) {
        match self.consumer.pause(&self.list(&[partition])) {
            Ok(()) => assigned.paused = true,
            Err(error) => {
                tracing::warn!(partition, %error, "cannot pause a partition; what is in flight exceeds its bound until it is tried again")
            }
        }
    }

    fn list(&self, partitions: &[i32]) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for &partition in partitions {
            list.add_partition(&self.context().config.topic, partition);
        }
        list
    }

    /// Claims partitions again whose lease was lost while they stay assigned to us.
    fn reclaim(&self) -> Result<(), SourceError> {
        let context = self.context();
        let mut due = Vec::new();
        for (&partition, assigned) in context.assignment().iter_mut() {
            if assigned.lease.is_lost() {
                let lost_at = *assigned.lost_at.get_or_insert_with(Instant::now);
                if lost_at.elapsed() >= context.config.reclaim_delay {
                    due.push(partition);
                }
            }
        }
        if due.is_empty() || self.control.is_draining() || self.consumer.assignment_lost() {
            return Ok(());
        }
        tracing::warn!(stream = %context.config.stream, partitions = ?due, "claiming again after the claim was lost");
        context.unassign(self.consumer, &due, &self.list(&due))?;
        context.assign(self.consumer, &due)
    }

    /// Goes on after what the client recovers from by itself.
    fn survive(&self, error: KafkaError) -> Result<(), SourceError> {
        use RDKafkaErrorCode as Code;
        match error.rdkafka_error_code() {
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => Err(self.out_of_range(&error)),
            Some(
                Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed | Code::Fatal | Code::InvalidConfig,
            ) => Err(self.context().broker_error(format!("read topic `{}`", self.context().config.topic), error)),
            _ => {
                tracing::warn!(stream = %self.context().config.stream, %error, "reading failed; trying again");
                Ok(())
            }
        }
    }

    /// Finds the partition whose position the broker does not have: the client's error does not name it.
    fn out_of_range(&self, error: &KafkaError) -> SourceError {
        let context = self.context();
        let positions: Vec<(i32, i64)> = context
            .assignment()
            .iter()
            .map(|(partition, assigned)| (*partition, assigned.lease.stored_position().0))
            .collect();
        for (partition, position) in positions {
            if let Ok((low, high)) = self.consumer.fetch_watermarks(&context.config.topic, partition, REQUEST_TIMEOUT) {
                if !(low..=high).contains(&position) {
                    let (stream, topic) = (context.config.stream.clone(), context.config.topic.clone());
                    return SourceError::OffsetOutOfRange {
                        stream,
                        topic,
                        partition,
                        position,
                        low,
                        high,
                        reason: error.to_string(),
                    };
                }
            }
        }
        context.broker_error(format!("read topic `{}`", context.config.topic), error.clone())
    }
}

/// The broker answers to these settings: for `albertine check`. Returns the number of partitions.
///
/// # Errors
/// Where it does not, or the topic does not exist.
pub fn probe(client: &ClientSettings, stream: &Arc<str>, topic: &Arc<str>) -> Result<i32, SourceError> {
    let consumer: BaseConsumer<ClientLog> = consumer_settings(client).create_with_context(ClientLog::default()).map_err(|source| SourceError::Broker {
        stream: stream.clone(),
        action: "create the consumer".into(),
        source,
    })?;
    partition_count(&consumer, stream, topic)
}
