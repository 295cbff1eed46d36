//! Reads a topic as its `read_committed` subscribers see it.
//!
//! Guarantee: records of open and aborted transactions are never given; those of a partition come in its order,
//! those of several as they arrive. It joins no group, commits nothing and makes no topic. Where the broker is
//! away it waits for it, and goes on where it was.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers as _},
    metadata::{Metadata, MetadataPartition, MetadataTopic},
};

use super::{
    client::{ClientLog, client_config, create},
    connection::{ConnectionError, topic_metadata},
};
use crate::{
    config::secret::ClientSettings,
    decode::TopicPosition,
    domain::live::{HeaderValue, Headers},
};

/// Deadline of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a topic that is followed is asked for new partitions. They are rare, and nothing of them is missed.
const PARTITIONS_INTERVAL: Duration = Duration::from_secs(30);

/// A record as the topic holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicRecord {
    pub partition: i32,
    pub offset: i64,
    pub timestamp_ms: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Headers,
}

impl TopicRecord {
    /// The last header of this name, where it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        match self.headers.iter().rev().find(|(key, _)| key == name)? {
            (_, HeaderValue::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// Its place.
    pub fn position(&self) -> TopicPosition {
        TopicPosition { partition: self.partition, offset: self.offset }
    }

    pub(super) fn of(message: &BorrowedMessage<'_>) -> Self {
        Self {
            partition: message.partition(),
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers(message),
        }
    }
}

/// Where to begin, in every partition the topic has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// With the oldest record there is.
    Beginning,
    /// With the first record of this time or a later one.
    At(DateTime<Utc>),
    /// So many offsets before the end, shared out over the partitions; 0 for what comes from now on.
    Newest(usize),
}

/// Where to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Where the topic ends when the reading begins.
    PresentEnd,
    /// Nowhere: partitions that are added later are read too, from their beginning.
    Never,
}

/// What [`Subscription::next`] found.
#[derive(Debug)]
pub enum Next {
    Record(TopicRecord),
    /// Nothing came within the time.
    Nothing,
    /// Everything up to [`Until::PresentEnd`] was given.
    End,
}

/// A topic cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SubscribeError {
    #[error("topic `{topic}` does not exist")]
    Missing { topic: String },
    #[error("cannot read topic `{topic}`: cannot ask the brokers at `{servers}`: {source}")]
    Unreachable { topic: String, servers: String, source: Box<ConnectionError> },
    #[error("cannot read topic `{topic}`: {source}{}", remedy(source))]
    Broker { topic: String, source: Box<KafkaError> },
}

fn remedy(error: &KafkaError) -> &'static str {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::TopicAuthorizationFailed) => "; grant Read and Describe on the topic to this user",
        _ => "",
    }
}

/// See the module.
pub struct Subscription {
    consumer: BaseConsumer<ClientLog>,
    topic: String,
    partitions: BTreeSet<i32>,
    /// The partitions that are not read to their end yet, with that end. `None`: the topic is followed.
    unread: Option<BTreeMap<i32, i64>>,
    asked_at: Instant,
}

impl Subscription {
    /// Begins to read. `group` is only named, for brokers that let a user read under certain names alone.
    ///
    /// # Errors
    /// [`SubscribeError`] where there is no such topic, or the broker does not answer or refuses.
    pub fn open(
        client: &ClientSettings,
        group: &str,
        topic: &str,
        since: Since,
        until: Until,
    ) -> Result<Self, SubscribeError> {
        let failed = |source| broker_error(topic, source);
        let consumer = reader(client, group).map_err(failed)?;
        let metadata = topic_metadata(&consumer, client, topic).map_err(|source| SubscribeError::Unreachable {
            topic: topic.to_owned(),
            servers: client.0.get("bootstrap.servers").cloned().unwrap_or_default(),
            source: Box::new(source),
        })?;
        let partitions: BTreeSet<i32> = partitions_of(&metadata).map_err(failed)?.into_iter().collect();
        let ranges = ranges(&consumer, topic, &partitions, since).map_err(failed)?;
        let mut assignment = TopicPartitionList::new();
        let mut unread = BTreeMap::new();
        for (partition, start, end) in ranges {
            if until == Until::Never || start < end {
                assignment.add_partition_offset(topic, partition, Offset::Offset(start)).map_err(failed)?;
                unread.insert(partition, end);
            }
        }
        consumer.assign(&assignment).map_err(failed)?;
        let unread = (until == Until::PresentEnd).then_some(unread);
        Ok(Self { consumer, topic: topic.to_owned(), partitions, unread, asked_at: Instant::now() })
    }

    /// How many partitions are read.
    pub fn partitions(&self) -> usize {
        self.partitions.len()
    }

    /// The next record, waiting for it at most this long.
    ///
    /// # Errors
    /// [`SubscribeError`] where waiting does not help: the topic was deleted, or may not be read any more.
    pub fn next(&mut self, wait: Duration) -> Result<Next, SubscribeError> {
        match &self.unread {
            Some(unread) if unread.is_empty() => return Ok(Next::End),
            None if self.asked_at.elapsed() >= PARTITIONS_INTERVAL => self.add_partitions()?,
            _ => {}
        }
        let record = match self.consumer.poll(wait) {
            None => return Ok(Next::Nothing),
            Some(Ok(message)) => TopicRecord::of(&message),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                self.finish(partition);
                return Ok(Next::Nothing);
            }
            Some(Err(error)) => return self.survive(error).map(|()| Next::Nothing),
        };
        let Some(unread) = &self.unread else { return Ok(Next::Record(record)) };
        // A partition that is finished goes on being fetched until all are.
        let Some(&end) = unread.get(&record.partition) else { return Ok(Next::Nothing) };
        if record.offset + 1 >= end {
            self.finish(record.partition);
        }
        Ok(if record.offset < end { Next::Record(record) } else { Next::Nothing })
    }

    fn finish(&mut self, partition: i32) {
        if let Some(unread) = &mut self.unread {
            unread.remove(&partition);
        }
    }

    /// Begins to read partitions that were added. A broker that does not answer is asked again later.
    fn add_partitions(&mut self) -> Result<(), SubscribeError> {
        self.asked_at = Instant::now();
        let found = match partitions(&self.consumer, &self.topic) {
            Ok(found) => found,
            Err(error) => return self.survive(error),
        };
        let added: Vec<i32> = found.into_iter().filter(|partition| !self.partitions.contains(partition)).collect();
        if added.is_empty() {
            return Ok(());
        }
        let mut assignment = TopicPartitionList::new();
        for &partition in &added {
            assignment
                .add_partition_offset(&self.topic, partition, Offset::Beginning)
                .map_err(|source| broker_error(&self.topic, source))?;
        }
        self.consumer.incremental_assign(&assignment).map_err(|source| broker_error(&self.topic, source))?;
        self.partitions.extend(added);
        Ok(())
    }

    /// Goes on after what the client recovers from by itself.
    fn survive(&self, error: KafkaError) -> Result<(), SubscribeError> {
        if is_final(&error) {
            return Err(broker_error(&self.topic, error));
        }
        // The group is only named: whoever may read the topic needs no right on it.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::GroupAuthorizationFailed) {
            ClientLog::error(self.consumer.context(), &error, "reading failed; trying again");
        }
        Ok(())
    }
}

/// Whether waiting does not help.
pub(super) fn is_final(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::UnknownTopicOrPartition
                | Code::UnknownTopic
                | Code::UnknownPartition
                | Code::TopicAuthorizationFailed
                | Code::Fatal
                | Code::InvalidConfig
        )
    )
}

pub(super) fn broker_error(topic: &str, source: KafkaError) -> SubscribeError {
    let topic = topic.to_owned();
    match source.rdkafka_error_code() {
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
            SubscribeError::Missing { topic }
        }
        _ => SubscribeError::Broker { topic, source: Box::new(source) },
    }
}

/// Of each partition, where to begin and where it ends for a subscriber.
fn ranges(
    consumer: &BaseConsumer<ClientLog>,
    topic: &str,
    partitions: &BTreeSet<i32>,
    since: Since,
) -> Result<Vec<(i32, i64, i64)>, KafkaError> {
    let mut found = BTreeMap::new();
    if let Since::At(time) = since {
        found.extend(offsets_at(consumer, topic, partitions, time)?);
    }
    let share = |records: usize| i64::try_from(records.div_ceil(partitions.len().max(1))).unwrap_or(i64::MAX);
    let range = |&partition: &i32| {
        let (low, high) = consumer.fetch_watermarks(topic, partition, REQUEST_TIMEOUT)?;
        let start = match since {
            Since::Beginning => low,
            Since::Newest(records) => high.saturating_sub(share(records)).max(low),
            Since::At(_) => found.get(&partition).copied().flatten().unwrap_or(high),
        };
        Ok((partition, start, high))
    };
    partitions.iter().map(range).collect()
}

/// A consumer that sees what is committed and moves nothing; it is to be assigned by hand. The group is neither
/// joined nor written to.
///
/// # Errors
/// Where a client setting is wrong.
pub fn reader(client: &ClientSettings, group: &str) -> Result<BaseConsumer<ClientLog>, KafkaError> {
    let mut settings = client_config(client, &[]);
    settings
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "earliest")
        .set("enable.partition.eof", "true")
        .set("allow.auto.create.topics", "false");
    create(&settings, ClientLog::default())
}

/// The partitions of a topic.
///
/// # Errors
/// Where the broker does not answer, or there is no such topic.
pub fn partitions(consumer: &BaseConsumer<ClientLog>, topic: &str) -> Result<Vec<i32>, KafkaError> {
    partitions_of(&consumer.fetch_metadata(Some(topic), REQUEST_TIMEOUT)?)
}

fn partitions_of(metadata: &Metadata) -> Result<Vec<i32>, KafkaError> {
    if let Some(error) = metadata.topics().iter().find_map(MetadataTopic::error) {
        return Err(KafkaError::MetadataFetch(error.into()));
    }
    Ok(metadata.topics().iter().flat_map(MetadataTopic::partitions).map(MetadataPartition::id).collect())
}

/// Of each partition, the first record at or after `time`; `None` where there is none.
///
/// # Errors
/// Where the broker does not answer or refuses.
pub fn offsets_at<'a, C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: impl IntoIterator<Item = &'a i32>,
    time: DateTime<Utc>,
) -> Result<Vec<(i32, Option<i64>)>, KafkaError> {
    let mut times = TopicPartitionList::new();
    for &partition in partitions {
        times.add_partition_offset(topic, partition, Offset::Offset(time.timestamp_millis()))?;
    }
    let found = consumer.offsets_for_times(times, REQUEST_TIMEOUT)?;
    let offset = |element: rdkafka::topic_partition_list::TopicPartitionListElem<'_>| match element.offset() {
        Offset::Offset(offset) => (element.partition(), Some(offset)),
        _ => (element.partition(), None),
    };
    Ok(found.elements().into_iter().map(offset).collect())
}

/// The headers of a message, in their order.
pub fn headers(message: &BorrowedMessage<'_>) -> Headers {
    message.headers().map_or_else(Vec::new, |headers| {
        headers.iter().map(|header| (header.key.to_owned(), HeaderValue::of(header.value))).collect()
    })
}
