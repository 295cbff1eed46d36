//! The poll loop: records out, pauses in, lost claims taken up again.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use rdkafka::{
    Message, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
};

use super::{
    REQUEST_TIMEOUT, SourceError,
    assignment::{Assigned, Context},
};
use crate::{
    kafka::subscribe::headers,
    source::{Content, Lease, Record, SourceControl},
    telemetry::metrics as names,
};

/// Longest wait for a record. Bounds how late a pause, a lost claim or a shutdown is noticed; shorter
/// costs idle wake-ups.
const POLL_TIMEOUT: Duration = Duration::from_millis(50);
/// How often the stored positions are committed to the group, for lag tools. Nothing depends on it.
const HINT_INTERVAL: Duration = Duration::from_secs(1);
/// A partition is resumed once it is down to this share of its bound: pausing drops what librdkafka has
/// fetched ahead, so it must not flap.
const RESUME_SHARE: usize = 2;

/// How often to ask whether the topic is still the same one. A recreated topic whose records already reach beyond the
/// stored position is noticed in no other way.
const TOPIC_CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// How long an offset may be out of range before it is an error: brokers hear of a recreated topic one after the other.
const OUT_OF_RANGE_PATIENCE: Duration = Duration::from_secs(5);
/// How often to ask meanwhile.
const OUT_OF_RANGE_CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// The loop's state. Lives on the source's thread.
pub(super) struct Poller<'a> {
    consumer: &'a BaseConsumer<Context>,
    control: &'a SourceControl,
    hinted: Instant,
    scanned: Instant,
    topic_checked: Instant,
    /// The client found an offset that the broker does not have: when, and what it said.
    out_of_range: Option<(Instant, KafkaError)>,
}

impl<'a> Poller<'a> {
    pub(super) fn new(consumer: &'a BaseConsumer<Context>, control: &'a SourceControl) -> Self {
        let now = Instant::now();
        Self { consumer, control, hinted: now, scanned: now, topic_checked: now, out_of_range: None }
    }

    fn context(&self) -> &Context {
        self.consumer.context()
    }

    /// Reads until `control` says close, or something needs an operator.
    pub(super) fn poll_until_closed(&mut self) -> Result<(), SourceError> {
        while !self.control.is_closing() {
            let message = self.consumer.poll(POLL_TIMEOUT);
            if let Some(failure) = self.context().take_failure() {
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
                self.check_topic()?;
            }
            if self.context().config.hints && self.hinted.elapsed() >= HINT_INTERVAL {
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
            content: Content::Encoded(message.payload().map(<[u8]>::to_vec)),
            headers: headers(message),
            place: None,
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
        documents >= share(config.in_flight_documents_max)
            || bytes >= share(config.in_flight_bytes_max)
            // While publishing fails, storing goes on; only so far, or the outbox would grow without bound.
            || lease.unpublished_bytes() >= share(config.unpublished_bytes_max)
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
                tracing::warn!(partition, %error, "cannot pause a partition; what is in flight exceeds its bound until it is tried again");
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

    /// Begins again where the topic was deleted and created again; an offset that is out of range for any other reason
    /// is an error.
    fn check_topic(&mut self) -> Result<(), SourceError> {
        let interval = if self.out_of_range.is_some() { OUT_OF_RANGE_CHECK_INTERVAL } else { TOPIC_CHECK_INTERVAL };
        if self.topic_checked.elapsed() < interval || self.control.is_draining() || self.consumer.assignment_lost() {
            return Ok(());
        }
        self.topic_checked = Instant::now();
        let context = self.context();
        let assigned: Vec<i32> = context.assignment().keys().copied().collect();
        match context.is_recreated(self.consumer) {
            Ok(true) if !assigned.is_empty() => {
                context.unassign(self.consumer, &assigned, &self.list(&assigned))?;
                context.assign(self.consumer, &assigned)?;
                self.out_of_range = None;
            }
            Ok(_) => match &self.out_of_range {
                Some((since, error)) if since.elapsed() > OUT_OF_RANGE_PATIENCE => return Err(self.out_of_range(error)),
                _ => {}
            },
            Err(error) => tracing::debug!(%error, "whether the topic is still the same is not known; asking again"),
        }
        Ok(())
    }

    /// Goes on after what the client recovers from by itself.
    fn survive(&mut self, error: KafkaError) -> Result<(), SourceError> {
        use RDKafkaErrorCode as Code;
        match error.rdkafka_error_code() {
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => {
                self.out_of_range.get_or_insert_with(|| (Instant::now(), error));
                Ok(())
            }
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
            if let Ok((low, high)) = self.consumer.fetch_watermarks(&context.config.topic, partition, REQUEST_TIMEOUT)
                && !(low..=high).contains(&position)
            {
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
        context.broker_error(format!("read topic `{}`", context.config.topic), error.clone())
    }
}
