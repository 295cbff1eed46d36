//! Where a topic's partitions begin and end, as a `read_committed` reader sees them. Joins no group and moves
//! nothing.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, Utc};
use rdkafka::{
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};

use super::{
    client::{ClientLog, client_config, create},
    subscribe::offsets_at,
    topic_id::{TopicIdError, topic_id},
};
use crate::{
    config::secret::ClientSettings,
    domain::{checkpoint::Position, standing::TopicExtent},
};

/// Deadline of one request.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A topic's offsets cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum OffsetsError {
    #[error("cannot read the offsets of topic `{topic}`: {source}")]
    Broker { topic: String, source: KafkaError },
    #[error(transparent)]
    TopicId(#[from] TopicIdError),
}

/// Asks about one topic.
pub struct TopicOffsets {
    topic: String,
    consumer: BaseConsumer<ClientLog>,
}

impl TopicOffsets {
    /// # Errors
    /// [`OffsetsError`] where a client setting is wrong.
    pub fn new(client: &ClientSettings, topic: &str) -> Result<Self, OffsetsError> {
        let mut settings = client_config(client, &[]);
        settings.set("isolation.level", "read_committed").set("allow.auto.create.topics", "false");
        let consumer = create(&settings, ClientLog::default())
            .map_err(|source| OffsetsError::Broker { topic: topic.to_owned(), source })?;
        Ok(Self { topic: topic.to_owned(), consumer })
    }

    fn failed(&self) -> impl Fn(KafkaError) -> OffsetsError {
        |source| OffsetsError::Broker { topic: self.topic.clone(), source }
    }

    /// The id that the topic was made with; `None` where there is no such topic.
    ///
    /// # Errors
    /// [`OffsetsError`] where the broker does not answer or refuses.
    pub fn topic_id(&self) -> Result<Option<String>, OffsetsError> {
        Ok(topic_id(self.consumer.client(), &self.topic, TIMEOUT)?)
    }

    /// The extent of each of these partitions: from the oldest record that is there to the last stable offset.
    ///
    /// # Errors
    /// [`OffsetsError`] where the broker does not answer or refuses.
    pub fn extents(&self, partitions: i32) -> Result<BTreeMap<i32, TopicExtent>, OffsetsError> {
        (0..partitions)
            .map(|partition| {
                let (low, end) =
                    self.consumer.fetch_watermarks(&self.topic, partition, TIMEOUT).map_err(self.failed())?;
                Ok((partition, TopicExtent { low: Position(low), end: Position(end) }))
            })
            .collect()
    }

    /// The first record at or after `time` in a partition; `None` where there is none.
    ///
    /// # Errors
    /// [`OffsetsError`] where the broker does not answer or refuses.
    pub fn at(&self, partition: i32, time: DateTime<Utc>) -> Result<Option<Position>, OffsetsError> {
        let found = offsets_at(&self.consumer, &self.topic, [&partition], time).map_err(self.failed())?;
        Ok(found.first().and_then(|(_, offset)| offset.map(Position)))
    }
}
