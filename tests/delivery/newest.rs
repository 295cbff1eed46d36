//! How far a partition is published is told by the live topic, also while others publish to it.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use albertine::{
    domain::{
        checkpoint::{PartitionKey, Position},
        live::{LivePosition, POSITION_HEADER, Published},
    },
    kafka::produce::enqueue,
    publish::{
        Newest,
        kafka::{KafkaLiveConfig, KafkaLiveTopic},
    },
};
use chrono::{TimeDelta, Utc};
use rdkafka::{
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
};

use crate::support::{
    DEADLINE,
    broker::{self, Topic},
    unique,
};

/// So many that reading them takes several requests.
const RECORDS: i64 = 40_000;
const EPOCH: i64 = 1;

fn key(partition: i32) -> PartitionKey {
    PartitionKey { stream: "reviews".into(), topic: "source".into(), partition }
}

/// Puts a label of this offset of a source partition on the partition of the same number.
fn send(producer: &BaseProducer, topic: &str, partition: i32, offset: i64) {
    let position = LivePosition { key: key(partition), epoch: EPOCH, offset }.to_string();
    let payload = "x".repeat(500);
    let headers = OwnedHeaders::new().insert(Header { key: POSITION_HEADER, value: Some(&position) });
    let record = BaseRecord::<(), str>::to(topic).partition(partition).headers(headers).payload(&payload);
    enqueue(producer, record).unwrap();
}

#[test]
fn a_partition_that_grows_meanwhile_hides_nothing_of_another() {
    let topic = Topic::new("newest", 2);
    let producer: BaseProducer = broker::config().create().unwrap();
    for offset in 0..RECORDS {
        send(&producer, &topic, 1, offset);
    }
    producer.flush(DEADLINE).unwrap();
    let live = KafkaLiveTopic::new(KafkaLiveConfig {
        group: unique("newest"),
        labels_topic: topic.to_string(),
        dead_letters_topic: None,
        transaction_timeout: Duration::from_secs(10),
        client: broker::client(),
    })
    .unwrap();
    let found = AtomicBool::new(false);
    let newest = std::thread::scope(|scope| {
        scope.spawn(|| {
            for offset in 0.. {
                if found.load(Ordering::Relaxed) {
                    break;
                }
                send(&producer, &topic, 0, offset);
                producer.flush(DEADLINE).unwrap();
            }
        });
        let newest = live.newest(&key(1), Utc::now() - TimeDelta::hours(1));
        found.store(true, Ordering::Relaxed);
        newest
    });
    assert_eq!(newest.unwrap(), Newest::Found(Published { epoch: EPOCH, position: Position(RECORDS) }));
}
