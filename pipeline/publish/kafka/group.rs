//! The consumer group of a stream as one sees it from outside: its offsets and members, asked and named without
//! ever joining it. Nobody is fenced and no rebalance begins.

use std::time::Duration;

use anyhow::Context;
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata},
    error::KafkaError,
};

use super::CALL_TIMEOUT;
use crate::{
    config::secret::ClientSettings,
    domain::{
        checkpoint::{PartitionKey, Position},
        publication::GroupOffset,
    },
    kafka::client::{ClientLog, client_config, create},
};

/// Deadline of a question about the group's members, which every broker is asked.
const MEMBERS_TIMEOUT: Duration = Duration::from_secs(10);

/// See the module.
pub struct Group {
    name: String,
    consumer: BaseConsumer<ClientLog>,
    metadata: ConsumerGroupMetadata,
}

impl Group {
    /// # Errors
    /// Where a client setting is wrong.
    pub fn new(client: &ClientSettings, name: &str) -> Result<Self, KafkaError> {
        let mut settings = client_config(client, &[]);
        settings
            .set("group.id", name)
            .set("enable.auto.commit", "false")
            // Without it the offsets of an open transaction would be read as if they were committed.
            .set("isolation.level", "read_committed");
        let consumer: BaseConsumer<ClientLog> = create(&settings, ClientLog::default())?;
        let metadata = consumer
            .group_metadata()
            .ok_or_else(|| KafkaError::ClientCreation("a consumer with a group.id has no group metadata".to_owned()))?;
        Ok(Self { name: name.to_owned(), consumer, metadata })
    }

    /// Names the group to a transaction.
    pub(super) fn metadata(&self) -> &ConsumerGroupMetadata {
        &self.metadata
    }

    /// The committed offset of a partition; waits for an open transaction that holds a newer one.
    ///
    /// # Errors
    /// Where the broker does not answer in time or refuses.
    pub fn offset(&self, key: &PartitionKey) -> anyhow::Result<Option<GroupOffset>> {
        let action = || format!("cannot read the offset of group `{}` for {key}", self.name);
        let mut wanted = TopicPartitionList::new();
        wanted.add_partition(&key.topic, key.partition);
        let committed = self.consumer.committed_offsets(wanted, CALL_TIMEOUT).with_context(action)?;
        let element = committed
            .find_partition(&key.topic, key.partition)
            .context("the broker left out the partition it was asked for")
            .with_context(action)?;
        element.error().with_context(action)?;
        Ok(match element.offset() {
            Offset::Offset(offset) => {
                Some(GroupOffset { position: Position(offset), metadata: element.metadata().to_owned() })
            }
            _ => None,
        })
    }

    /// How many members the group has: each is a worker that runs, or died less than its session's time-out ago.
    ///
    /// # Errors
    /// Where the broker does not answer in time or refuses.
    pub fn members(&self) -> anyhow::Result<usize> {
        let groups = self
            .consumer
            .fetch_group_list(Some(&self.name), MEMBERS_TIMEOUT)
            .with_context(|| format!("cannot read the members of group `{}`", self.name))?;
        Ok(groups.groups().iter().filter(|group| group.name() == self.name).map(|group| group.members().len()).sum())
    }
}
