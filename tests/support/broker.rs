//! Topics of one's own and records on the real broker.

use std::{collections::BTreeMap, fmt, ops::Deref, sync::OnceLock, time::Duration};

use albertine::{
    config::secret::ClientSettings,
    kafka::{admin::ensure_topic, produce::RecordProducer},
};
use chrono::{DateTime, Utc};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
};
use serde_json::{Value, json};

use super::{block_on, environment, unique};

/// Deadline of the broker's answer to one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Deadline of the broker's acknowledgement of what was produced.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30);

/// The name of a topic that no other test uses; what has that name is deleted with the value.
pub struct Topic(String);

impl Topic {
    /// A new topic with this many partitions.
    pub fn new(prefix: &str, partitions: i32) -> Self {
        let topic = Self::unmade(prefix);
        block_on(ensure_topic(&client(), &topic, partitions)).unwrap();
        topic
    }

    /// The same with settings of its own.
    pub fn with_settings(prefix: &str, partitions: i32, settings: &[(&str, &str)]) -> Self {
        let topic = Self::unmade(prefix);
        let new = NewTopic::new(&topic, partitions, TopicReplication::Fixed(1));
        let new = settings.iter().fold(new, |new, (key, value)| new.set(key, value));
        let made = block_on(admin().create_topics([&new], &request_options())).unwrap();
        assert!(made.iter().all(Result::is_ok), "{made:?}");
        topic
    }

    /// A name without its topic, for one that the test has made later, or never.
    pub fn unmade(prefix: &str) -> Self {
        Self(unique(prefix))
    }

    /// A topic that the program makes under this name.
    pub fn named(name: String) -> Self {
        Self(name)
    }
}

impl Deref for Topic {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = block_on(admin().delete_topics(&[&self.0], &request_options()));
        }
    }
}

/// A client of the broker.
pub fn config() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", environment("KAFKA_BOOTSTRAP_SERVERS"));
    config
}

/// Whether a group has no members.
pub fn group_is_empty(group: &str) -> bool {
    let consumer: BaseConsumer = config().create().unwrap();
    consumer
        .fetch_group_list(Some(group), Duration::from_secs(10))
        .is_ok_and(|list| list.groups().iter().all(|group| group.members().is_empty()))
}

pub fn topic_exists(topic: &str) -> bool {
    let consumer: BaseConsumer = config().create().unwrap();
    let metadata = consumer.fetch_metadata(None, REQUEST_TIMEOUT).unwrap();
    metadata.topics().iter().any(|found| found.name() == topic)
}

/// The sum of the ends of a topic's partitions, as `read_committed` subscribers see them.
pub fn end_of(topic: &str, partitions: i32) -> i64 {
    end_as(topic, partitions, "read_committed")
}

fn end_as(topic: &str, partitions: i32, isolation_level: &str) -> i64 {
    let consumer: BaseConsumer = config().set("isolation.level", isolation_level).create().unwrap();
    let end = |partition| consumer.fetch_watermarks(topic, partition, Duration::from_secs(10)).unwrap().1;
    (0..partitions).map(end).sum()
}

/// A producer with a transaction that is open until the test ends it.
pub fn begin_transaction() -> BaseProducer {
    let producer: BaseProducer = config().set("transactional.id", unique("test")).create().unwrap();
    producer.init_transactions(REQUEST_TIMEOUT).unwrap();
    producer.begin_transaction().unwrap();
    producer
}

/// Waits until subscribers see what was committed: the broker answers a commit before it has written the markers that
/// end the transaction in each partition.
pub fn wait_for_markers(topic: &str, partitions: i32) {
    super::eventually("no transaction is open", || {
        (end_of(topic, partitions) == end_as(topic, partitions, "read_uncommitted")).then_some(())
    });
}

/// Makes a topic.
pub fn create_topic(topic: &str, partitions: i32) {
    block_on(ensure_topic(&client(), topic, partitions)).unwrap();
}

/// Deletes a topic and makes it again.
pub fn recreate_topic(topic: &str, partitions: i32) {
    block_on(admin().delete_topics(&[topic], &request_options())).unwrap();
    super::eventually("the topic is made again", || {
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        block_on(admin().create_topics([&new], &request_options()))
            .is_ok_and(|results| results[0].is_ok())
            .then_some(())
    });
}

pub fn client() -> ClientSettings {
    ClientSettings(BTreeMap::from([("bootstrap.servers".into(), environment("KAFKA_BOOTSTRAP_SERVERS"))]))
}

/// The one admin client of all tests.
pub fn admin() -> &'static AdminClient<DefaultClientContext> {
    static ADMIN: OnceLock<AdminClient<DefaultClientContext>> = OnceLock::new();
    ADMIN.get_or_init(|| config().create().unwrap())
}

pub fn request_options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT))
}

/// Document `index` of a test: its id, an item, a text of its own, whose length varies.
pub fn document(index: usize) -> Value {
    let text = format!("{}{index}", "A good kettle, though the lid is loose. ".repeat(1 + index % 7));
    json!({"id": format!("d{index}"), "item": format!("item-{}", index % 10), "text": text, "rating": index % 5})
}

/// Puts the documents of these numbers on the topic, keyed by id.
pub fn produce_documents(topic: &str, indexes: impl IntoIterator<Item = usize>) {
    let producer = RecordProducer::new(&client(), topic).unwrap();
    for index in indexes {
        let document = document(index);
        producer.send(document["id"].as_str(), Some(document.to_string().as_bytes())).unwrap();
    }
    producer.finish().unwrap();
}

/// Puts the documents of these numbers on the topic, keyed by id, with this time as their records' timestamps.
pub fn produce_documents_at(topic: &str, time: DateTime<Utc>, indexes: impl IntoIterator<Item = usize>) {
    let producer = producer();
    for index in indexes {
        let document = document(index);
        let value = document.to_string();
        let mut record = BaseRecord::<str, str>::to(topic).payload(&value).timestamp(time.timestamp_millis());
        record.key = document["id"].as_str();
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(FLUSH_TIMEOUT).unwrap();
}

/// Puts one record on a partition.
pub fn produce_to(topic: &str, partition: i32, key: Option<&[u8]>, value: Option<&[u8]>) {
    produce_at(topic, partition, Utc::now(), key, value);
}

/// Puts one record on a partition, with this time as its timestamp.
pub fn produce_at(topic: &str, partition: i32, time: DateTime<Utc>, key: Option<&[u8]>, value: Option<&[u8]>) {
    let producer = producer();
    let mut record = BaseRecord::<[u8], [u8]>::to(topic).partition(partition).timestamp(time.timestamp_millis());
    record.key = key;
    record.payload = value;
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(FLUSH_TIMEOUT).unwrap();
}

/// A record with everything that one can have.
#[derive(Default)]
pub struct OddRecord {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(&'static str, Option<Vec<u8>>)>,
    pub timestamp_ms: Option<i64>,
}

/// A producer of records up to 32 MiB, compressed so.
pub fn odd_producer(compression: &str) -> BaseProducer {
    config().set("message.max.bytes", "33554432").set("compression.type", compression).create().unwrap()
}

/// Puts one record on partition 0, and waits for its acknowledgement, so that its place is known.
pub fn produce_odd(producer: &BaseProducer, topic: &str, record: &OddRecord) {
    let headers = record
        .headers
        .iter()
        .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: value.as_deref() }));
    let mut odd = BaseRecord::<[u8], [u8]>::to(topic).partition(0).headers(headers);
    odd.key = record.key.as_deref();
    odd.payload = record.value.as_deref();
    odd.timestamp = record.timestamp_ms;
    producer.send(odd).map_err(|(error, _)| error).unwrap();
    producer.flush(FLUSH_TIMEOUT).unwrap();
}

fn producer() -> BaseProducer {
    config().create().unwrap()
}
