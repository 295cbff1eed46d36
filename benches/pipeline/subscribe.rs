//! A subscriber of a live topic.

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};

use crate::support::broker;

/// A `read_committed` consumer of all partitions, from their beginning.
pub fn subscribe(topic: &str, partitions: i32) -> BaseConsumer {
    let consumer: BaseConsumer = broker::config()
        .set("group.id", "latency")
        .set("isolation.level", "read_committed")
        .set("fetch.wait.max.ms", "100")
        .set("auto.offset.reset", "error")
        .create()
        .unwrap();
    let mut assignment = TopicPartitionList::new();
    for partition in 0..partitions {
        assignment.add_partition_offset(topic, partition, Offset::Offset(0)).unwrap();
    }
    consumer.assign(&assignment).unwrap();
    consumer
}
