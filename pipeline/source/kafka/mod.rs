//! Reads one stream's topic as a member of a consumer group.
//!
//! Owns the calling thread: the poll loop and the rebalance callback run on it. Offsets come from the
//! claims, never from the group: the group only shares out the partitions, and its committed offsets are
//! for lag tools and the publisher. An offset that is out of range is an error with a remedy, never a silent reset.

mod assignment;
mod poll;
mod start;

use std::{sync::Arc, time::Duration};

use assignment::Context;
use chrono::{DateTime, Utc};
use poll::Poller;
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
    metadata::{Metadata, MetadataTopic},
};

use super::{Claims, Sink, SourceControl};
use crate::{
    config::secret::ClientSettings,
    kafka::{
        client::{ClientLog, Reporting, client_config, create},
        connection::{ConnectionError, topic_metadata},
        topic_id::TopicIdError,
    },
};

/// Deadline of one metadata or offset request to the broker.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

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
    /// Bytes stored and not published, over all assigned partitions.
    pub unpublished_bytes_max: usize,
    /// Tell the group how far is stored. Not for a stream with a live topic: its offsets say what is published.
    pub hints: bool,
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
    #[error("stream `{stream}`: cannot ask the brokers at `{servers}` about topic `{topic}`: {source}")]
    Unreachable { stream: Arc<str>, topic: Arc<str>, servers: Box<str>, source: Box<ConnectionError> },
    #[error("stream `{stream}`: this user may not see topic `{topic}`; grant Describe and Read on the topic")]
    TopicRefused { stream: Arc<str>, topic: Arc<str> },
    #[error("stream `{stream}`: topic `{topic}` does not exist; create it, or correct `streams.{stream}.topic`")]
    TopicMissing { stream: Arc<str>, topic: Arc<str> },
    #[error(
        "stream `{stream}`: the checkpoint of topic `{topic}` partition {partition} stands at offset {position}, which the broker does not have: {reason}; records were deleted before they were read, or the topic was recreated. Decide what to skip: `albertine position set {stream} --partition {partition} --stored OFFSET`, from {low} to {high}"
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
    #[error(transparent)]
    TopicId(TopicIdError),
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
    let (stream, topic) = (config.stream.clone(), config.topic.clone());
    let context = Context::new(config, claims, sink);

    let broker = |action: &str, source| SourceError::Broker { stream: stream.clone(), action: action.into(), source };
    let consumer: BaseConsumer<Context> =
        create(&settings, context).map_err(|error| broker("create the consumer", error))?;
    let client = &consumer.context().config.client;
    partition_count(&first_metadata(&consumer, client, &stream, &topic)?, &stream, &topic)?;
    consumer.subscribe(&[&topic]).map_err(|error| broker(&format!("subscribe to topic `{topic}`"), error))?;
    let result = Poller::new(&consumer, control).poll_until_closed();
    // Leaves the group; the callback hands the partitions back.
    consumer.unsubscribe();
    drop(consumer);
    result
}

/// The first question of a client.
///
/// # Errors
/// Where no broker answers, with cause and remedy.
fn first_metadata<C: ConsumerContext + Reporting>(
    consumer: &BaseConsumer<C>,
    client: &ClientSettings,
    stream: &Arc<str>,
    topic: &Arc<str>,
) -> Result<Metadata, SourceError> {
    topic_metadata(consumer, client, topic).map_err(|source| SourceError::Unreachable {
        stream: stream.clone(),
        topic: topic.clone(),
        servers: client.0.get("bootstrap.servers").map_or("", String::as_str).into(),
        source: Box::new(source),
    })
}

/// The number of partitions of a topic.
///
/// # Errors
/// Where there is no such topic, or this user may not see it.
fn partition_count(metadata: &Metadata, stream: &Arc<str>, topic: &Arc<str>) -> Result<i32, SourceError> {
    let found = metadata.topics().iter().find(|found| found.name() == &**topic);
    match found.and_then(MetadataTopic::error).map(RDKafkaErrorCode::from) {
        Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
            Err(SourceError::TopicRefused { stream: stream.clone(), topic: topic.clone() })
        }
        None if found.is_some_and(|found| !found.partitions().is_empty()) => {
            Ok(found.map_or(0, |found| i32::try_from(found.partitions().len()).unwrap_or(i32::MAX)))
        }
        _ => Err(SourceError::TopicMissing { stream: stream.clone(), topic: topic.clone() }),
    }
}

/// What an operator may tune, by librdkafka's names: a dead worker is noticed within seconds, what is fetched
/// ahead is bounded, and a lone record waits for no other.
const TUNABLE: [(&str, &str); 5] = [
    ("session.timeout.ms", "10000"),
    ("queued.max.messages.kbytes", "16384"),
    ("fetch.wait.max.ms", "100"),
    // How soon partitions that were added are read.
    ("topic.metadata.refresh.interval.ms", "10000"),
    // How often the lags are measured.
    ("statistics.interval.ms", "5000"),
];

/// Ours above the operator's: these settings carry the delivery contract.
fn consumer_settings(client: &ClientSettings) -> ClientConfig {
    let mut settings = client_config(client, &TUNABLE);
    settings.set("enable.auto.commit", "false");
    settings.set("enable.auto.offset.store", "false");
    settings.set("auto.offset.reset", "error");
    settings.set("isolation.level", "read_committed");
    settings.set("partition.assignment.strategy", "cooperative-sticky");
    settings.set("allow.auto.create.topics", "false");
    settings
}

/// The broker answers to these settings: for `albertine check`. Returns the number of partitions.
///
/// # Errors
/// Where it does not, or the topic does not exist.
pub fn probe(client: &ClientSettings, stream: &Arc<str>, topic: &Arc<str>) -> Result<i32, SourceError> {
    let consumer: BaseConsumer<ClientLog> =
        create(&consumer_settings(client), ClientLog::default()).map_err(|source| SourceError::Broker {
            stream: stream.clone(),
            action: "create the consumer".into(),
            source,
        })?;
    partition_count(&first_metadata(&consumer, client, stream, topic)?, stream, topic)
}
