//! Texts to label, and how they get onto a topic.

use std::{path::Path, time::Duration};

use rdkafka::{
    error::KafkaError,
    producer::{BaseProducer, BaseRecord, Producer},
    types::RDKafkaErrorCode,
};
use serde_json::{Value, json};

use crate::support::broker;

const WORDS: [&str; 24] = [
    "good", "bad", "the", "kettle", "works", "broke", "after", "week", "and", "not", "worth", "money", "I", "love",
    "it", "arrived", "late", "but", "looks", "nice", "would", "buy", "again", "never",
];
/// Words of the documents that are made up: what reviews of products have.
const MADE_UP_WORDS: std::ops::Range<usize> = 20..180;
/// The same texts in every run.
const SEED: u64 = 17;
const FLUSH_TIMEOUT: Duration = Duration::from_mins(1);

/// The texts of a corpus, as many as asked for and there are; without one, as many that are made up.
pub fn texts(corpus: Option<&Path>, count: usize) -> Vec<String> {
    let Some(path) = corpus else {
        let mut random = fastrand::Rng::with_seed(SEED);
        return (0..count).map(|_| sentence(&mut random, MADE_UP_WORDS)).collect();
    };
    let lines = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    let text = |line: &str| serde_json::from_str::<Value>(line).unwrap()["text"].as_str().unwrap().to_owned();
    lines.lines().take(count).map(text).collect()
}

/// Words in any order.
pub fn sentence(random: &mut fastrand::Rng, words: std::ops::Range<usize>) -> String {
    let count = random.usize(words);
    let words: Vec<&str> = (0..count).map(|_| WORDS[random.usize(..WORDS.len())]).collect();
    words.join(" ")
}

/// The value of a record: a short text that no other number has.
pub fn short_record(number: usize) -> String {
    record(number, &format!("good {number}"))
}

pub fn record(number: usize, text: &str) -> String {
    json!({"id": format!("d{number}"), "item": format!("item-{}", number % 1000), "text": text, "rating": number % 5})
        .to_string()
}

/// A producer that waits as long for more to send, 5 ms, as those of Apache Kafka and librdkafka do by default. The broker
/// takes the requests of a connection one after the other, so that a thousand records a second must not be as many.
pub fn usual_producer() -> BaseProducer {
    broker::config().set("linger.ms", "5").set("max.in.flight.requests.per.connection", "5").create().unwrap()
}

/// Puts records on the topic as fast as the broker takes them, each partition in turn, and waits for the last.
pub fn produce(topic: &str, partitions: i32, records: impl IntoIterator<Item = (usize, String)>) {
    let producer: BaseProducer =
        broker::config().set("linger.ms", "20").set("compression.type", "lz4").create().unwrap();
    for (number, value) in records {
        send(&producer, topic, partitions, number, &value);
    }
    producer.flush(FLUSH_TIMEOUT).unwrap();
}

/// Queues a record on the partition of its number, keyed by its id, waiting where the producer's queue is full.
pub fn send(producer: &BaseProducer, topic: &str, partitions: i32, number: usize, value: &str) {
    let key = format!("d{number}");
    let mut record = BaseRecord::to(topic).partition(partition(number, partitions)).key(&key).payload(value);
    while let Err((error, refused)) = producer.send(record) {
        assert_eq!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
        producer.poll(Duration::from_millis(10));
        record = refused;
    }
    producer.poll(Duration::ZERO);
}

/// Where the record of a number lies; the numbers of a topic begin at 0, so its offset is `number / partitions`.
pub fn partition(number: usize, partitions: i32) -> i32 {
    (number % partitions as usize) as i32
}
