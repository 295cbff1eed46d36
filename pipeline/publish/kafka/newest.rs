//! Looks into the live topics for the newest record of a source partition: how far it is published, where the
//! group's offset does not tell.

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use chrono::{DateTime, TimeDelta, Utc};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::{BorrowedMessage, Headers},
    topic_partition_list::TopicPartitionListElem,
};

use super::{CALL_TIMEOUT, KafkaLiveConfig};
use crate::{
    domain::{
        checkpoint::{PartitionKey, Position},
        live::{LivePosition, POSITION_HEADER, Published},
    },
    kafka::{
        client::{ClientLog, client_config, create},
        subscribe::{offsets_at, partitions, reader},
    },
    publish::Newest,
};

/// Clocks of Postgres, the workers and the broker may differ by this much.
const CLOCK_TOLERANCE: TimeDelta = TimeDelta::minutes(10);
/// Longest look. A live topic of ten minutes and a million records is read in seconds.
const DEADLINE: Duration = Duration::from_mins(5);

/// How often to look whether a transaction has ended: a running one takes a few milliseconds.
const OPEN_TRANSACTION_POLL: Duration = Duration::from_millis(20);

/// The newest position of `key` among the live records since `since`, as a `read_committed` subscriber sees them.
pub(super) fn newest(config: &KafkaLiveConfig, key: &PartitionKey, since: DateTime<Utc>) -> anyhow::Result<Newest> {
    let deadline = Instant::now() + DEADLINE;
    let mut newest: Option<Published> = None;
    let mut complete = true;
    for topic in [Some(&config.labels_topic), config.dead_letters_topic.as_ref()].into_iter().flatten() {
        let (found, is_complete) = newest_in(config, topic, key, since - CLOCK_TOLERANCE, deadline)
            .with_context(|| format!("cannot look into topic `{topic}`"))?;
        newest = newest.max(found);
        complete &= is_complete;
    }
    Ok(match newest {
        Some(published) => Newest::Found(published),
        None if complete => Newest::Nothing,
        None => Newest::Unknown,
    })
}

/// The newest position of `key` in one topic, and whether none of its records since `since` can have been deleted.
fn newest_in(
    config: &KafkaLiveConfig,
    topic: &str,
    key: &PartitionKey,
    since: DateTime<Utc>,
    deadline: Instant,
) -> anyhow::Result<(Option<Published>, bool)> {
    let consumer = reader(&config.client, &config.group)?;
    let partitions = partitions(&consumer, topic)?;
    await_open_transactions(config, &consumer, topic, &partitions, deadline)?;
    let (assignment, complete) = partitions_since(&consumer, topic, &partitions, since)?;
    consumer.assign(&assignment)?;
    let mut unread: BTreeSet<i32> = assignment.elements().iter().map(TopicPartitionListElem::partition).collect();
    let mut newest: Option<Published> = None;
    while !unread.is_empty() {
        if Instant::now() > deadline {
            bail!("it could not be read to its end within {DEADLINE:?}");
        }
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => newest = newest.max(position(&message, key)),
            // One that grows meanwhile comes to its end several times.
            Some(Err(KafkaError::PartitionEOF(partition))) => _ = unread.remove(&partition),
            Some(Err(error)) => return Err(error).context("cannot read it"),
            None => {}
        }
    }
    Ok((newest, complete))
}

/// Waits until every transaction has ended that is open at the beginning. A subscriber sees nothing behind the first
/// open one, whoever began it, so what was published there before would be taken as not published. The broker ends one
/// whose producer is gone after that producer's `transaction.timeout.ms`.
fn await_open_transactions(
    config: &KafkaLiveConfig,
    consumer: &BaseConsumer<ClientLog>,
    topic: &str,
    partitions: &[i32],
    deadline: Instant,
) -> anyhow::Result<()> {
    let mut settings = client_config(&config.client, &[]);
    settings.set("isolation.level", "read_uncommitted").set("allow.auto.create.topics", "false");
    let everything: BaseConsumer<ClientLog> = create(&settings, ClientLog::default())?;
    for &partition in partitions {
        let (_, end) = everything.fetch_watermarks(topic, partition, CALL_TIMEOUT)?;
        let mut waits = false;
        while consumer.fetch_watermarks(topic, partition, CALL_TIMEOUT)?.1 < end {
            if Instant::now() > deadline {
                bail!(
                    "a transaction in partition {partition} has been open for {DEADLINE:?}; find its producer, or end it with Kafka's `kafka-transactions.sh abort`"
                );
            }
            if !waits {
                tracing::info!(topic, partition, "waiting until open transactions end, to see what was published");
                waits = true;
            }
            thread::sleep(OPEN_TRANSACTION_POLL);
        }
    }
    Ok(())
}

/// Each partition of `topic` from `since` on, where there is something, and whether none of those records can have been
/// deleted.
fn partitions_since(
    consumer: &BaseConsumer<ClientLog>,
    topic: &str,
    partitions: &[i32],
    since: DateTime<Utc>,
) -> anyhow::Result<(TopicPartitionList, bool)> {
    let mut assignment = TopicPartitionList::new();
    let mut complete = true;
    for (partition, offset) in offsets_at(consumer, topic, partitions, since)? {
        let (low, high) = consumer.fetch_watermarks(topic, partition, CALL_TIMEOUT)?;
        let from = offset.unwrap_or(high);
        complete &= low == 0 || from > low;
        if from < high {
            assignment.add_partition_offset(topic, partition, Offset::Offset(from))?;
        }
    }
    Ok((assignment, complete))
}

/// How far the partition was published once this record was, if it is one of the partition.
fn position(message: &BorrowedMessage<'_>, key: &PartitionKey) -> Option<Published> {
    let header = message.headers()?.iter().find(|header| header.key == POSITION_HEADER)?.value?;
    let position: LivePosition = std::str::from_utf8(header).ok()?.parse().ok()?;
    (position.key == *key).then_some(Published { epoch: position.epoch, position: Position::after(position.offset) })
}
