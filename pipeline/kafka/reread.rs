//! Reads single records of a topic again, by partition and offset. Joins no group and moves nothing.

use std::time::{Duration, Instant};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};

use super::{
    client::ClientLog,
    subscribe::{SubscribeError, TopicRecord, broker_error, is_final, reader},
};
use crate::config::secret::ClientSettings;

/// How long the broker may take to send a record.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A record so few offsets ahead is reached sooner by reading on than by asking for it.
const NEAR: i64 = 500;
/// Never joined.
const GROUP: &str = "albertine-reread";

/// See the module. Fast where records are asked for in the order of their offsets.
pub struct RecordReader {
    consumer: BaseConsumer<ClientLog>,
    topic: String,
    /// Partition and offset that are read next.
    at: Option<(i32, i64)>,
}

impl RecordReader {
    /// # Errors
    /// [`SubscribeError`] where a client setting is wrong.
    pub fn new(client: &ClientSettings, topic: &str) -> Result<Self, SubscribeError> {
        let consumer = reader(client, GROUP).map_err(|source| broker_error(topic, source))?;
        Ok(Self { consumer, topic: topic.to_owned(), at: None })
    }

    /// The record at this offset; `None` where the topic does not hold it any more.
    ///
    /// # Errors
    /// [`SubscribeError`] where there is no such topic, or the broker does not answer in time or refuses.
    pub fn read(&mut self, partition: i32, offset: i64) -> Result<Option<TopicRecord>, SubscribeError> {
        let is_near = |(at, next): (i32, i64)| at == partition && (next..=next + NEAR).contains(&offset);
        if !self.at.is_some_and(is_near) {
            let failed = |source| broker_error(&self.topic, source);
            let mut assignment = TopicPartitionList::new();
            assignment.add_partition_offset(&self.topic, partition, Offset::Offset(offset)).map_err(failed)?;
            self.consumer.assign(&assignment).map_err(failed)?;
        }
        // What an error leaves behind is not known.
        self.at = None;
        let started = Instant::now();
        while started.elapsed() < TIMEOUT {
            let record = match self.consumer.poll(Duration::from_millis(100)) {
                None => continue,
                Some(Ok(message)) => TopicRecord::of(&message),
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(None),
                Some(Err(error)) if is_final(&error) => return Err(broker_error(&self.topic, error)),
                Some(Err(error)) => {
                    ClientLog::error(self.consumer.context(), &error, "reading failed; trying again");
                    continue;
                }
            };
            if record.offset >= offset {
                self.at = Some((partition, record.offset + 1));
                return Ok((record.offset == offset).then_some(record));
            }
        }
        let timed_out = KafkaError::MessageConsumption(rdkafka::error::RDKafkaErrorCode::OperationTimedOut);
        Err(broker_error(&self.topic, timed_out))
    }
}
