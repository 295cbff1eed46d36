//! Where a stream begins, and what is told when it cannot go on.

use std::time::Duration;

use chrono::{SecondsFormat, TimeDelta, Utc};
use rdkafka::{
    ClientConfig,
    admin::NewPartitions,
    consumer::{BaseConsumer, Consumer},
};

use crate::support::{
    block_on,
    broker::{self, Topic, produce_documents, produce_documents_at, produce_to},
    environment, eventually,
    pipeline::{Options, Stream},
};

fn start(position: &str) -> Options {
    Options { stream: format!("start = \"{position}\""), ..Options::default() }
}

#[test]
fn a_stream_that_starts_latest_begins_with_what_comes_after_its_first_claim() {
    let stream = Stream::new(2);
    produce_documents(&stream.topic, 0..50);
    let process = stream.start_claimed(&start("latest"));
    produce_documents(&stream.topic, 50..60);
    stream.wait_for_labels(10);
    process.stop();
    // Decided once: a restart does not skip what came meanwhile.
    produce_documents(&stream.topic, 60..70);
    let _again = stream.start(&start("latest"));
    stream.wait_for_labels(20);
}

#[test]
fn a_stream_that_starts_at_a_time_begins_with_its_first_record() {
    let stream = Stream::new(2);
    let time = Utc::now();
    produce_documents_at(&stream.topic, time - TimeDelta::milliseconds(1), 0..20);
    produce_documents_at(&stream.topic, time, 20..30);
    let _process = stream.start(&start(&time.to_rfc3339_opts(SecondsFormat::Millis, true)));
    stream.wait_for_labels(10);
}

#[test]
fn a_partition_that_is_added_later_begins_at_its_start() {
    let stream = Stream::new(1);
    produce_documents(&stream.topic, 0..10);
    let options = start("latest");
    stream.start_claimed(&options).stop();
    add_partitions(&stream.topic, 2);
    let record = serde_json::json!({"id": "new", "text": "On the new partition."}).to_string();
    produce_to(&stream.topic, 1, Some(b"new"), Some(record.as_bytes()));
    let _process = stream.start(&options);
    stream.wait_for_labels(1);
}

fn add_partitions(topic: &str, count: usize) {
    let new = NewPartitions::new(topic, count);
    let results = block_on(broker::admin().create_partitions([&new], &broker::request_options())).unwrap();
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    // The broker tells of new partitions a moment later.
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", environment("KAFKA_BOOTSTRAP_SERVERS")).create().unwrap();
    eventually("the partition is there", || {
        let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10)).ok()?;
        (metadata.topics().first()?.partitions().len() == count).then_some(())
    });
}

#[test]
fn a_position_the_broker_does_not_have_is_an_error_with_its_remedy() {
    let stream = Stream::new(1);
    produce_documents(&stream.topic, 0..10);
    stream.run_until_labelled(&Options::default(), 10);
    stream.database.rows("UPDATE {s}.checkpoints SET position = 1000");
    let mut process = stream.start(&Options::default());
    assert_eq!(process.wait().code(), Some(1));
    process.wait_for_log("partition 0 stands at offset 1000");
    process.wait_for_log("from 0 to 10");
}

#[test]
fn a_topic_that_does_not_exist_is_an_error_with_its_remedy() {
    let mut stream = Stream::new(1);
    stream.topic = Topic::unmade("missing");
    let mut process = stream.start(&Options::default());
    assert_eq!(process.wait().code(), Some(1));
    process.wait_for_log("does not exist; create it, or correct `streams.reviews.topic`");
}

#[test]
fn the_groups_offsets_follow_what_is_stored() {
    let stream = Stream::new(1);
    produce_documents(&stream.topic, 0..10);
    stream.run_until_labelled(&Options::default(), 10);
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", environment("KAFKA_BOOTSTRAP_SERVERS"))
        .set("group.id", &*stream.topic)
        .create()
        .unwrap();
    let mut partitions = rdkafka::TopicPartitionList::new();
    partitions.add_partition(&stream.topic, 0);
    let committed = consumer.committed_offsets(partitions, Duration::from_secs(10)).unwrap();
    assert_eq!(committed.elements()[0].offset(), rdkafka::Offset::Offset(10));
}
