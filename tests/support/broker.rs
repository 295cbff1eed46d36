//! Topics and records on the real broker.

use std::{collections::BTreeMap, time::Duration};

use albertine::{
    config::secret::ClientSettings,
    kafka::{admin, produce::RecordProducer},
};
use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, BaseRecord, Producer},
};
use serde_json::{Value, json};

use super::{block_on, environment};

pub fn client() -> ClientSettings {
    ClientSettings(BTreeMap::from([("bootstrap.servers".into(), environment("KAFKA_BOOTSTRAP_SERVERS"))]))
}

pub fn create_topic(topic: &str, partitions: i32) {
    block_on(admin::ensure_topic(&client(), topic, partitions)).unwrap();
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

/// Puts one record on a partition.
pub fn produce_to(topic: &str, partition: i32, key: Option<&[u8]>, value: Option<&[u8]>) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", environment("KAFKA_BOOTSTRAP_SERVERS")).create().unwrap();
    let mut record = BaseRecord::<[u8], [u8]>::to(topic).partition(partition);
    record.key = key;
    record.payload = value;
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(Duration::from_secs(30)).unwrap();
}
