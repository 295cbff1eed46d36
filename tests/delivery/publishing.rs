//! What is stored reaches subscribers, and what happens where it cannot.

use std::time::{Duration, Instant};

use rdkafka::{
    admin::{NewTopic, ResourceSpecifier, TopicReplication},
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
};

use crate::support::{
    block_on, broker, eventually,
    pipeline::{Options, Stream},
    subscriber::Subscriber,
};

fn live(lines: &str) -> Options {
    Options { live: true, instant_model: true, live_lines: lines.to_owned(), ..Options::default() }
}

fn partitions(topic: &str) -> usize {
    let client: rdkafka::consumer::BaseConsumer = broker::config().create().unwrap();
    let metadata = rdkafka::consumer::Consumer::fetch_metadata(&client, Some(topic), Duration::from_secs(10)).unwrap();
    metadata.topics()[0].partitions().len()
}

fn setting(topic: &str, name: &str) -> String {
    let resource = ResourceSpecifier::Topic(topic);
    let described = block_on(broker::admin().describe_configs([&resource], &broker::request_options())).unwrap();
    described[0].as_ref().unwrap().get(name).unwrap().value.clone().unwrap()
}

#[test]
fn live_topics_are_made_like_the_source_and_as_configured() {
    let stream = Stream::new(5);
    stream.start_claimed(&live("cleanup = \"compact-delete\"\nretention = \"3days\"")).stop();
    assert_eq!((partitions(&stream.labels), partitions(&stream.dead_letters)), (5, 5));
    assert_eq!(setting(&stream.labels, "cleanup.policy"), "compact,delete");
    assert_eq!(setting(&stream.labels, "retention.ms"), "259200000");
    assert_eq!(setting(&stream.dead_letters, "cleanup.policy"), "delete");

    let mut other = stream.start(&live("cleanup = \"compact\""));
    assert_eq!(other.wait().code(), Some(1));
    let complaint = format!("topic `{}` has `cleanup.policy=compact,delete`", stream.labels);
    assert!(other.log().contains(&complaint), "{}", other.log());
}

#[test]
fn the_trace_of_a_record_goes_on_in_its_label_and_in_its_dead_letter() {
    let stream = Stream::new(1);
    let producer: BaseProducer = broker::config().create().unwrap();
    for (value, trace) in [(r#"{"id": "a", "text": "good"}"#, "00-1-2-01"), ("nothing", "00-3-4-01")] {
        let headers = OwnedHeaders::new().insert(Header { key: "traceparent", value: Some(trace) });
        let record = BaseRecord::to(&stream.topic).key("a").payload(value).headers(headers);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(30)).unwrap();
    let process = stream.start_claimed(&live(""));
    let topics = [(stream.labels.to_string(), 1), (stream.dead_letters.to_string(), 1)];
    let mut seen = Subscriber::start(&topics).wait_for(2);
    process.stop();
    seen.sort_by_key(|record| record.position.offset);
    let header = |index: usize, name: &str| seen[index].headers[name].clone();
    assert_eq!((header(0, "traceparent"), header(1, "traceparent")), ("00-1-2-01".into(), "00-3-4-01".into()));
    assert_eq!((header(0, "schema"), header(0, "model")), ("albertine.label.v1".into(), "albert-sentiment@1".into()));
    assert_eq!(header(1, "albertine.reason"), "json_invalid");
    assert_eq!((seen[1].key.as_deref(), seen[1].value.as_deref()), (Some(&b"a"[..]), Some(&b"nothing"[..])));
    assert_eq!(seen[0].json()["source_offset"], 0);
}

/// Only publishing fails: the live topic is gone, and nothing makes it again.
#[test]
fn while_publishing_fails_storing_goes_on_until_the_outbox_is_full_and_then_waits() {
    const DOCUMENTS: usize = 3_000;
    let stream = Stream::new(2);
    let options = Options {
        stream: "in_flight_documents_max = 100\nbatch_documents_max = 50".into(),
        ..live("unpublished_bytes_max = \"200KB\"")
    };
    let process = stream.start_claimed(&options);
    broker::produce_documents(&stream.topic, 0..100);
    stream.wait_for_labels(100);
    block_on(broker::admin().delete_topics(&[&stream.labels], &broker::request_options())).unwrap();
    broker::produce_documents(&stream.topic, 100..DOCUMENTS);
    let outbox = || stream.database.number("SELECT coalesce(sum(bytes), 0)::bigint FROM {s}.outbox");
    process.wait_for_log("publishing failed");
    // Half of it: what was published before the topic went may count until it is deleted.
    let (held, labels) = eventually("the outbox is full and reading waits", || {
        let before = (outbox(), stream.database.current_labels());
        std::thread::sleep(Duration::from_secs(1));
        (before.0 >= 100_000 && before == (outbox(), stream.database.current_labels())).then_some(before)
    });
    assert!(labels > 100 && labels < i64::try_from(DOCUMENTS).unwrap(), "{labels} labels");
    // Each partition may exceed its share by what was in flight.
    assert!(held < 200_000 + 2 * 100 * 1_000, "{held} bytes");

    eventually("the topic is made again", || {
        let new = NewTopic::new(&stream.labels, 2, TopicReplication::Fixed(1));
        let made = block_on(broker::admin().create_topics([&new], &broker::request_options()));
        made.is_ok_and(|results| results[0].is_ok()).then_some(())
    });
    let subscriber = Subscriber::start(&[(stream.labels.to_string(), 2)]);
    stream.wait_for_labels(i64::try_from(DOCUMENTS).unwrap());
    eventually("all is published", || (outbox() == 0).then_some(()));
    // What went with the deleted topic was published before.
    subscriber.with(|seen| assert!(seen.len() > DOCUMENTS - 100 - 100 && seen.len() <= DOCUMENTS, "{}", seen.len()));
    process.stop();
}

#[test]
fn a_live_topic_that_is_switched_on_later_begins_there() {
    let stream = Stream::new(1);
    broker::produce_documents(&stream.topic, 0..20);
    stream.run_until_labelled(&Options { live: false, ..live("") }, 20);
    let process = stream.start_claimed(&live(""));
    broker::produce_documents(&stream.topic, 20..30);
    stream.wait_for_labels(30);
    let seen = Subscriber::start(&[(stream.labels.to_string(), 1)]).wait_for(10);
    process.stop();
    let offsets: Vec<i64> = seen.iter().map(|record| record.position.offset).collect();
    assert_eq!(offsets, (20..30).collect::<Vec<_>>());
}

#[test]
fn a_steady_stream_is_published_in_few_transactions_and_the_first_record_at_once() {
    const RECORDS: usize = 60;
    let stream = Stream::new(1);
    let process = stream.start_claimed(&live("transaction_interval = \"1s\""));
    let published = || process.metric("albertine_records_published_total");
    let began = Instant::now();
    broker::produce_documents(&stream.topic, 0..1);
    eventually("the first record is published", || (published() >= 1.0).then_some(()));
    for index in 1..RECORDS {
        broker::produce_documents(&stream.topic, [index]);
        std::thread::sleep(Duration::from_millis(30));
    }
    eventually("all records are published", || (published() >= RECORDS as f64).then_some(()));
    let transactions = process.metric("albertine_publish_transaction_seconds_count");
    assert!(transactions <= began.elapsed().as_secs_f64() + 2.0, "{transactions} transactions");
    assert!(transactions >= 2.0, "{transactions} transactions");
}
