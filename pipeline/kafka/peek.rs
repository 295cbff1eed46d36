//! Looks at the last records of a topic without joining a group or moving anything.

use std::time::{Duration, Instant};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};

use super::client::{ClientLog, client_config};
use crate::config::secret::ClientSettings;

/// Deadline of one request, and of all records together.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A record as the topic holds it.
#[derive(Debug, Clone)]
pub struct PeekedRecord {
    pub partition: i32,
    pub offset: i64,
    pub timestamp_ms: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
}

/// The newest records of a topic, at most `limit`, oldest first within each partition.
///
/// # Errors
/// Where the broker does not answer, or there is no such topic.
pub fn newest(client: &ClientSettings, topic: &str, limit: usize) -> Result<Vec<PeekedRecord>, KafkaError> {
    let mut settings = client_config(client, &[]);
    // Never used: partitions are assigned by hand, and nothing is committed.
    settings
        .set("group.id", "albertine-peek")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed");
    settings
        .set("auto.offset.reset", "earliest")
        .set("allow.auto.create.topics", "false")
        .set("enable.partition.eof", "true");
    let consumer: BaseConsumer<ClientLog> = settings.create_with_context(ClientLog::default())?;
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT)?;
    if let Some(error) = metadata.topics().iter().find_map(rdkafka::metadata::MetadataTopic::error) {
        return Err(KafkaError::MetadataFetch(error.into()));
    }
    let partitions: Vec<i32> = metadata
        .topics()
        .iter()
        .flat_map(rdkafka::metadata::MetadataTopic::partitions)
        .map(rdkafka::metadata::MetadataPartition::id)
        .collect();
    let share = i64::try_from(limit.div_ceil(partitions.len().max(1))).unwrap_or(i64::MAX);
    let mut assignment = TopicPartitionList::new();
    for &partition in &partitions {
        let (low, high) = consumer.fetch_watermarks(topic, partition, TIMEOUT)?;
        if high > low {
            assignment.add_partition_offset(topic, partition, Offset::Offset(high.saturating_sub(share).max(low)))?;
        }
    }
    consumer.assign(&assignment)?;
    read(&consumer, assignment.count(), limit)
}

fn read(
    consumer: &BaseConsumer<ClientLog>,
    mut open_partitions: usize,
    limit: usize,
) -> Result<Vec<PeekedRecord>, KafkaError> {
    let started = Instant::now();
    let mut records = Vec::new();
    while open_partitions > 0 && records.len() < limit && started.elapsed() < TIMEOUT {
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Err(KafkaError::PartitionEOF(_))) => open_partitions -= 1,
            Some(Err(error)) => return Err(error),
            Some(Ok(message)) => records.push(PeekedRecord {
                partition: message.partition(),
                offset: message.offset(),
                timestamp_ms: message.timestamp().to_millis(),
                key: message.key().map(<[u8]>::to_vec),
                value: message.payload().map(<[u8]>::to_vec),
            }),
        }
    }
    records.sort_by_key(|record| (record.partition, record.offset));
    Ok(records)
}
