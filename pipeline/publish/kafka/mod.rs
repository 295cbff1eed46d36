//! The live topic on Kafka: a transactional producer for each partition of the source.
//!
//! Its transactional id is `<group>.<topic>.<partition>`. Each transaction holds the records of some ranges and
//! the group's offset of the source partition, so what is published and how far is one fact. The offsets are
//! sent without membership in the group (KIP-447 checks members only where one is named), so a rebalance cannot
//! abort them.
//!
//! Of a job, whose records come from elsewhere, the group can have no offset: its transactions hold the records alone,
//! and how far it is published is what the outbox and the live topic tell.

pub mod group;
mod newest;
pub mod topics;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail};
use backon::{BlockingRetryable, ConstantBuilder};
use chrono::{DateTime, Utc};
use group::Group;
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
};

use super::{LiveSession, LiveTopic, Newest};
use crate::{
    config::secret::ClientSettings,
    crash::crash_point,
    domain::{
        checkpoint::{PartitionKey, Position},
        live::{Destination, HeaderValue, Headers, LiveRecord, OutboxRange, Published},
        publication::{GroupOffset, Marker, MarkerNote},
    },
    kafka::{
        client::{ClientLog, client_config, create},
        produce::enqueue,
    },
};

/// Deadline of one call to the broker.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// How often a decision is tried that a running publisher fences: it opens a session at most every 50 ms, and sooner
/// or later waits for seconds.
const DECISION_RETRIES: usize = 10;
const DECISION_RETRY_DELAY: Duration = Duration::from_millis(200);

/// How often to look for acknowledgements: they take one to a few milliseconds.
const ACKNOWLEDGEMENT_POLL: Duration = Duration::from_millis(1);

/// What an operator may tune: records leave at once, since a flush follows them anyway.
const TUNABLE: [(&str, &str); 2] = [("linger.ms", "0"), ("compression.type", "zstd")];

/// Where a stream publishes.
#[derive(Debug, Clone)]
pub struct KafkaLiveConfig {
    pub group: String,
    pub labels_topic: String,
    pub dead_letters_topic: Option<String>,
    /// After which the broker aborts a transaction that nobody ends.
    pub transaction_timeout: Duration,
    pub client: ClientSettings,
}

/// See the module.
pub struct KafkaLiveTopic {
    config: Arc<KafkaLiveConfig>,
    group: Arc<Group>,
}

impl KafkaLiveTopic {
    /// # Errors
    /// Where a client setting is wrong.
    pub fn new(config: KafkaLiveConfig) -> Result<Self, KafkaError> {
        let group = Group::new(&config.client, &config.group)?;
        Ok(Self { config: Arc::new(config), group: Arc::new(group) })
    }

    /// The newest position of a partition among the live records since `since`; needs no session and ends none.
    ///
    /// # Errors
    /// Where the broker does not answer.
    pub fn newest(&self, key: &PartitionKey, since: DateTime<Utc>) -> anyhow::Result<Newest> {
        newest::newest(&self.config, key, since)
    }

    /// Whether this user may write in transactions whose ids begin with the group's name. Uses an id of its own, so
    /// that no running session ends.
    ///
    /// # Errors
    /// Where the broker does not answer or refuses.
    pub fn check_transactions(&self, timeout: Duration) -> anyhow::Result<()> {
        self.producer(&format!("{}.check", self.config.group), timeout).map(drop)
    }

    /// Ends the running session of a partition, as a takeover does, and begins one that a command drives.
    ///
    /// # Errors
    /// Where the broker does not answer or refuses.
    pub fn session(&self, key: &PartitionKey) -> anyhow::Result<KafkaSession> {
        Ok(KafkaSession {
            config: Arc::clone(&self.config),
            group: Arc::clone(&self.group),
            producer: self.producer(&transactional_id(&self.config.group, key), CALL_TIMEOUT)?,
            key: key.clone(),
        })
    }

    /// A producer that has ended and fenced all earlier ones of its transactional id.
    fn producer(&self, transactional_id: &str, timeout: Duration) -> anyhow::Result<BaseProducer<ClientLog>> {
        let producer: BaseProducer<ClientLog> =
            create(&producer_settings(&self.config, transactional_id), ClientLog::default())
                .context("cannot create the producer")?;
        producer.init_transactions(timeout).map_err(|error| match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::TransactionalIdAuthorizationFailed) => anyhow!(
                "this user may not write with the transactional id `{transactional_id}`; grant Write and Describe on the transactional ids that begin with `{}.`",
                self.config.group
            ),
            _ => anyhow::Error::new(error)
                .context(format!("cannot begin with the transactional id `{transactional_id}`")),
        })?;
        Ok(producer)
    }

    /// Commits an operator's decision in a session of its own. A running publisher is fenced by it and goes on from
    /// there; where it opens its next session in between, this tries again.
    ///
    /// # Errors
    /// Where the broker does not answer or refuses, or other sessions were opened all the time.
    pub fn decide(&self, key: &PartitionKey, position: Position, note: &MarkerNote) -> anyhow::Result<()> {
        let backoff = ConstantBuilder::default().with_delay(DECISION_RETRY_DELAY).with_max_times(DECISION_RETRIES);
        (|| self.session(key)?.commit(position, note))
            .retry(backoff)
            .when(is_fenced)
            .call()
            .with_context(|| format!("cannot commit offset {} of {key} to group `{}`", position.0, self.config.group))
    }
}

/// Whether another session of the partition was opened meanwhile.
fn is_fenced(error: &anyhow::Error) -> bool {
    use RDKafkaErrorCode::{Fenced, InvalidProducerEpoch, ProducerFenced};
    let code = error.chain().find_map(|cause| cause.downcast_ref::<KafkaError>()?.rdkafka_error_code());
    matches!(code, Some(Fenced | InvalidProducerEpoch | ProducerFenced))
}

/// The transactional id of a partition.
pub fn transactional_id(group: &str, key: &PartitionKey) -> String {
    format!("{group}.{}.{}", key.topic, key.partition)
}

/// Ours above the operator's: these settings carry the delivery contract.
fn producer_settings(config: &KafkaLiveConfig, transactional_id: &str) -> ClientConfig {
    let mut settings = client_config(&config.client, &TUNABLE);
    let timeout = config.transaction_timeout.as_millis().to_string();
    settings
        .set("transactional.id", transactional_id)
        .set("transaction.timeout.ms", &timeout)
        .set("message.timeout.ms", &timeout)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        // Every client with the same key sends to the same partition, whatever its language.
        .set("partitioner", "murmur2_random")
        .set("allow.auto.create.topics", "false");
    settings
}

impl LiveTopic for KafkaLiveTopic {
    fn open(&self, key: &PartitionKey) -> anyhow::Result<Box<dyn LiveSession>> {
        Ok(Box::new(self.session(key)?))
    }
}

/// A producer of one partition.
pub struct KafkaSession {
    config: Arc<KafkaLiveConfig>,
    group: Arc<Group>,
    producer: BaseProducer<ClientLog>,
    key: PartitionKey,
}

impl KafkaSession {
    fn send(&self, record: &LiveRecord) -> anyhow::Result<()> {
        let topic = match record.destination {
            Destination::Labels => &self.config.labels_topic,
            // Dead letters of a stream that has no topic for them any more.
            Destination::DeadLetters => match &self.config.dead_letters_topic {
                Some(topic) => topic,
                None => return Ok(()),
            },
        };
        let mut outgoing = BaseRecord::<[u8], [u8]>::to(topic).headers(owned(&record.headers)?);
        outgoing.key = record.key.as_deref();
        outgoing.payload = record.value.as_deref();
        enqueue(&self.producer, outgoing).with_context(|| format!("cannot send the record of offset {}", record.offset))
    }

    /// Waits until the broker has every record. The client's own flush looks only every 100 ms.
    fn await_acknowledgements(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        while self.producer.in_flight_count() > 0 {
            if began.elapsed() > CALL_TIMEOUT {
                bail!("the records were not acknowledged within {CALL_TIMEOUT:?}");
            }
            self.producer.poll(Duration::ZERO);
            std::thread::sleep(ACKNOWLEDGEMENT_POLL);
        }
        Ok(())
    }

    /// Commits `position` with nothing published: an operator's decision.
    ///
    /// # Errors
    /// Where the broker does not answer, or another session was opened meanwhile.
    pub fn commit(&mut self, position: Position, note: &MarkerNote) -> anyhow::Result<()> {
        self.producer.begin_transaction().context("cannot begin a transaction")?;
        self.commit_transaction(position, note)
    }

    fn commit_transaction(&self, position: Position, note: &MarkerNote) -> anyhow::Result<()> {
        if !self.key.is_of_job() {
            self.send_offset(position, note)?;
        }
        crash_point("after-offsets");
        self.producer.commit_transaction(CALL_TIMEOUT).context("cannot commit the transaction")
    }

    fn send_offset(&self, position: Position, note: &MarkerNote) -> anyhow::Result<()> {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(&self.key.topic, self.key.partition, Offset::Offset(position.0))?;
        let metadata = serde_json::to_string(note)?;
        offsets
            .find_partition(&self.key.topic, self.key.partition)
            .context("the offset that was just added is gone")?
            .set_metadata(metadata);
        self.producer
            .send_offsets_to_transaction(&offsets, self.group.metadata(), CALL_TIMEOUT)
            .context("cannot add the group's offset to the transaction")
    }
}

impl LiveSession for KafkaSession {
    fn marker(&mut self) -> anyhow::Result<Option<Marker>> {
        if self.key.is_of_job() {
            return Ok(None);
        }
        Ok(self.group.offset(&self.key)?.as_ref().map(GroupOffset::marker))
    }

    fn mark(&mut self, position: Position, note: &MarkerNote) -> anyhow::Result<()> {
        self.commit(position, note)
    }

    fn newest(&mut self, since: DateTime<Utc>) -> anyhow::Result<Newest> {
        newest::newest(&self.config, &self.key, since)
    }

    fn publish(&mut self, ranges: &[OutboxRange], from: Published, note: &MarkerNote) -> anyhow::Result<()> {
        let Some(end) = ranges.last().map(|range| range.end) else { return Ok(()) };
        crash_point("before-begin");
        self.producer.begin_transaction().context("cannot begin a transaction")?;
        crash_point("after-begin");
        for range in ranges {
            // The first range may have been published in part, if it was cut differently before a restore.
            let is_new = |record: &&LiveRecord| range.epoch > from.epoch || record.offset >= from.position.0;
            for record in range.records.iter().filter(is_new) {
                self.send(record)?;
            }
        }
        // Before the offsets: sending them with records in the queue takes 100 ms longer.
        self.await_acknowledgements()?;
        crash_point("after-produce");
        self.commit_transaction(end, note)?;
        crash_point("after-commit");
        Ok(())
    }
}

fn owned(headers: &Headers) -> anyhow::Result<OwnedHeaders> {
    let mut owned = OwnedHeaders::new_with_capacity(headers.len());
    for (key, value) in headers {
        owned = match value {
            HeaderValue::Text(text) => owned.insert(Header { key, value: Some(text.as_bytes()) }),
            HeaderValue::Bytes { hex } => {
                let bytes = hex::decode(hex).with_context(|| format!("the header `{key}` is not hexadecimal"))?;
                owned.insert(Header { key, value: Some(&bytes) })
            }
            HeaderValue::Null => owned.insert(Header::<&[u8]> { key, value: None }),
        };
    }
    Ok(owned)
}
