//! Topics of one's own and records on the real broker.

use std::{collections::BTreeMap, fmt, ops::Deref, sync::OnceLock, time::Duration};

use albertine::{
    config::secret::ClientSettings,
    kafka::{admin::ensure_topic, produce::RecordProducer},
};
use chrono::{DateTime, Utc};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
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

    /// A name without its topic, for one that the test has made later, or never.
    pub fn unmade(prefix: &str) -> Self {
        Self(unique(prefix))
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

pub fn client() -> ClientSettings {
    ClientSettings(BTreeMap::from([("bootstrap.servers".into(), environment("KAFKA_BOOTSTRAP_SERVERS"))]))
}

/// The one admin client of all tests.
pub fn admin() -> &'static AdminClient<DefaultClientContext> {
    static ADMIN: OnceLock<AdminClient<DefaultClientContext>> = OnceLock::new();
    ADMIN.get_or_init(|| {
        ClientConfig::new().set("bootstrap.servers", environment("KAFKA_BOOTSTRAP_SERVERS")).create().unwrap()
    })
}

pub fn request_options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT))
}

/// Document `index` of a test: its id, an item, a text whose length varies.
pub fn document(index: usize) -> Value {
    let text = "A good kettle, though the lid is loose. ".repeat(1 + index % 7);
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
    let producer = producer();
    let mut record = BaseRecord::<[u8], [u8]>::to(topic).partition(partition);
    record.key = key;
    record.payload = value;
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(FLUSH_TIMEOUT).unwrap();
}

fn producer() -> BaseProducer {
    ClientConfig::new().set("bootstrap.servers", environment("KAFKA_BOOTSTRAP_SERVERS")).create().unwrap()
}
