//! Puts records on a stream's topic, each acknowledged by the broker or reported.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rdkafka::{
    ClientContext, Message,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, ToBytes},
    producer::{BaseProducer, BaseRecord, Producer, ProducerContext},
};

use super::client::{ClientLog, client_config, create};
use crate::config::secret::ClientSettings;

/// How long to wait for room in the client's queue before looking again.
const QUEUE_PAUSE: Duration = Duration::from_millis(20);
/// How long the last records may take to be acknowledged.
const FLUSH_TIMEOUT: Duration = Duration::from_mins(1);

/// Queues a record, waiting for room in the client's queue.
///
/// # Errors
/// Where the client refuses it, as for a record that is too large.
pub fn enqueue<C, K, V>(producer: &BaseProducer<C>, mut record: BaseRecord<'_, K, V>) -> Result<(), KafkaError>
where
    C: ProducerContext<DeliveryOpaque = ()>,
    K: ToBytes + ?Sized,
    V: ToBytes + ?Sized,
{
    loop {
        match producer.send(record) {
            Ok(()) => {
                producer.poll(Duration::ZERO);
                return Ok(());
            }
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), returned)) => {
                producer.poll(QUEUE_PAUSE);
                record = returned;
            }
            Err((error, _)) => return Err(error),
        }
    }
}

/// A producer that counts what was acknowledged. Idempotent, so a retry inside the client writes no record
/// twice.
pub struct RecordProducer {
    producer: BaseProducer<DeliveryCount>,
    counts: Arc<Counts>,
    topic: String,
}

/// What became of the records.
#[derive(Debug, Default)]
pub struct Counts {
    pub acknowledged: AtomicU64,
    pub failed: AtomicU64,
}

struct DeliveryCount {
    counts: Arc<Counts>,
    log: ClientLog,
}

impl ClientContext for DeliveryCount {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.log.line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.log.error(&error, reason);
    }
}

impl ProducerContext for DeliveryCount {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => {
                self.counts.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Err((error, message)) => {
                self.counts.failed.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%error, key = %String::from_utf8_lossy(message.key().unwrap_or_default()), "a record was not written");
            }
        }
    }
}

impl RecordProducer {
    /// # Errors
    /// Where the settings are wrong.
    pub fn new(client: &ClientSettings, topic: &str) -> Result<Self, KafkaError> {
        let mut settings = client_config(client, &[("linger.ms", "5"), ("compression.type", "zstd")]);
        settings.set("enable.idempotence", "true").set("acks", "all");
        let counts = Arc::new(Counts::default());
        let producer = create(&settings, DeliveryCount { counts: Arc::clone(&counts), log: ClientLog::default() })?;
        Ok(Self { producer, counts, topic: topic.to_owned() })
    }

    /// Queues a record, waiting for room in the client's queue.
    ///
    /// # Errors
    /// Where the client refuses it, as for a record that is too large.
    pub fn send(&self, key: Option<&str>, value: Option<&[u8]>) -> Result<(), KafkaError> {
        let mut record = BaseRecord::<str, [u8]>::to(&self.topic);
        record.key = key;
        record.payload = value;
        enqueue(&self.producer, record)
    }

    /// Waits until every record is acknowledged or given up.
    ///
    /// # Errors
    /// Where that takes longer than a minute.
    pub fn finish(self) -> Result<Arc<Counts>, KafkaError> {
        self.producer.flush(FLUSH_TIMEOUT)?;
        Ok(self.counts)
    }
}
