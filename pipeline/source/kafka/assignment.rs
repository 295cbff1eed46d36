//! The partitions a worker has: claimed when the group assigns them, handed back when it takes them away.
//!
//! Guarantee: a partition is read from where its claim says, and only after the claim. The rebalance callback
//! runs on the poll loop's thread and may wait for the store; what it cannot do ends the loop.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use rdkafka::{
    ClientContext, Offset, Statistics, TopicPartitionList,
    bindings::rd_kafka_resp_err_t as ResponseError,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext},
    error::KafkaError,
};

use super::{KafkaSourceConfig, REQUEST_TIMEOUT, SourceError};
use crate::{
    crash::crash_point,
    domain::{
        checkpoint::{Position, TopicStart},
        version::VersionClock,
    },
    kafka::{
        client::{ClientLog, Reporting},
        topic_id::topic_id,
    },
    source::{Claims, Lease, Sink},
    telemetry::metrics as names,
};

/// What the rebalance callback and the poll loop share; both run on one thread.
pub(super) struct Context {
    pub(super) config: KafkaSourceConfig,
    claims: Arc<dyn Claims>,
    pub(super) sink: Arc<dyn Sink>,
    assignment: Mutex<HashMap<i32, Assigned>>,
    /// The id of the topic at the last claim.
    topic_id: Mutex<Option<String>>,
    /// What the rebalance callback could not do; the poll loop ends with it.
    failure: Mutex<Option<SourceError>>,
    log: ClientLog,
}

/// A partition under its claim.
pub(super) struct Assigned {
    pub(super) lease: Arc<Lease>,
    pub(super) clock: VersionClock,
    pub(super) paused: bool,
    /// The position last told to the group.
    hinted: Position,
    /// When the claim was found lost.
    pub(super) lost_at: Option<Instant>,
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

    /// The client knows the topic's ends from what it fetches, so the lags cost no request.
    fn stats(&self, statistics: Statistics) {
        let Some(topic) = statistics.topics.get(&*self.config.topic) else { return };
        for (partition, assigned) in self.assignment().iter() {
            let Some(end) = topic.partitions.get(partition).map(|known| known.ls_offset.max(known.hi_offset)) else {
                continue;
            };
            // Not known before the first fetch.
            if end < 0 {
                continue;
            }
            let lag = |name, position: Position| {
                let labels = [("stream", self.config.stream.to_string()), ("partition", partition.to_string())];
                metrics::gauge!(name, &labels).set((end - position.0).max(0) as f64);
            };
            lag(names::STORED_LAG, assigned.lease.stored_position());
            if !self.config.hints {
                lag(names::PUBLISHED_LAG, assigned.lease.published_position());
            }
        }
    }
}

impl Reporting for Context {
    fn client_log(&self) -> &ClientLog {
        &self.log
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
    pub(super) fn new(config: KafkaSourceConfig, claims: Arc<dyn Claims>, sink: Arc<dyn Sink>) -> Self {
        Self {
            config,
            claims,
            sink,
            assignment: Mutex::default(),
            topic_id: Mutex::default(),
            failure: Mutex::default(),
            log: ClientLog::default(),
        }
    }

    /// What the callback could not do, once.
    pub(super) fn take_failure(&self) -> Option<SourceError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn assignment(&self) -> MutexGuard<'_, HashMap<i32, Assigned>> {
        self.assignment.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn broker_error(&self, action: impl Into<String>, source: KafkaError) -> SourceError {
        SourceError::Broker { stream: self.config.stream.clone(), action: action.into(), source }
    }

    /// Claims the partitions and begins to read each where its checkpoint stands.
    pub(super) fn assign(&self, consumer: &BaseConsumer<Self>, partitions: &[i32]) -> Result<(), SourceError> {
        if partitions.is_empty() {
            return consumer
                .incremental_assign(&TopicPartitionList::new())
                .map_err(|error| self.broker_error("take an empty assignment", error));
        }
        let claimed = self.claim(consumer, partitions)?;
        crash_point("after-claim");
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

    pub(super) fn unassign(
        &self,
        consumer: &BaseConsumer<Self>,
        numbers: &[i32],
        partitions: &TopicPartitionList,
    ) -> Result<(), SourceError> {
        if self.config.hints && !consumer.assignment_lost() {
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
        let known: HashMap<i32, Option<String>> = self.claims.known_partitions().map_err(failed)?.into_iter().collect();
        let topic_id = self.topic_id(consumer)?;
        self.topic_id.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&topic_id);
        let missing = |partition: &&i32| !known.contains_key(partition);
        let recreated = |partition: &&i32| matches!((known.get(partition), &topic_id), (Some(Some(before)), Some(now)) if before != now);
        let mut start = TopicStart { topic_id: topic_id.clone(), positions: Vec::new() };
        if known.is_empty() {
            start.positions = self.first_positions(consumer)?;
        } else {
            // A partition that was added later, or whose topic was recreated, begins at its start: nothing in it
            // was decided away.
            let fresh: Vec<i32> =
                partitions.iter().filter(|partition| missing(partition) || recreated(partition)).copied().collect();
            start.positions = self.low_positions(consumer, &fresh)?;
        }
        let again: Vec<i32> = partitions.iter().filter(recreated).copied().collect();
        if !again.is_empty() {
            tracing::warn!(stream = %self.config.stream, topic = %self.config.topic, partitions = ?again, "the topic was deleted and created again; reading it from its start, as newer than all before");
            metrics::counter!(names::TOPICS_RECREATED, "stream" => self.config.stream.to_string())
                .increment(again.len() as u64);
        }
        let is_unknown = known.values().any(Option::is_none) && topic_id.is_some();
        if !start.positions.is_empty() || is_unknown {
            self.claims.initialise(&start).map_err(failed)?;
        }
        crash_point("before-claim");
        Ok(self.claims.claim(partitions).map_err(failed)?.into_iter().map(Lease::new).collect())
    }

    /// Kafka's id of the topic, which tells a recreated one from the one before.
    pub(super) fn topic_id(&self, consumer: &BaseConsumer<Self>) -> Result<Option<String>, SourceError> {
        topic_id(consumer.client(), &self.config.topic, REQUEST_TIMEOUT).map_err(SourceError::TopicId)
    }

    /// Whether the topic is another one than at the last claim.
    pub(super) fn is_recreated(&self, consumer: &BaseConsumer<Self>) -> Result<bool, SourceError> {
        let now = self.topic_id(consumer)?;
        let before = self.topic_id.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(matches!((&*before, &now), (Some(before), Some(now)) if before != now))
    }

    /// Tells the group how far these partitions are stored.
    pub(super) fn commit_hints(&self, consumer: &BaseConsumer<Self>, partitions: &[i32], mode: CommitMode) {
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
