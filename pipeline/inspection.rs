//! Reads where the partitions of a stream stand, from Kafka and Postgres, for the commands that show and move
//! positions. Works while workers run and while none does: it joins no group, opens no session and claims nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use crate::{
    config::resolved::{Config, StreamConfig},
    domain::{
        checkpoint::PartitionKey,
        live::Published,
        publication::{GroupOffset, Resolution, resolve_found},
        standing::{Publication, Standing, StoreStanding},
    },
    kafka::offsets::TopicOffsets,
    publish::{
        Newest,
        kafka::{KafkaLiveTopic, group::Group},
    },
    source::kafka::{self, SourceError},
    storage::postgres::{Postgres, PostgresConfig},
    topology,
};

/// How long a server may take to answer first: an operator is waiting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections of a command: it asks one question after the other.
const CONNECTIONS_MAX: u32 = 2;

/// A stream as it stands.
#[derive(Debug)]
pub struct StreamStanding {
    pub name: Arc<str>,
    pub topic: Arc<str>,
    pub group: String,
    /// Members of the group: workers that run.
    pub workers: usize,
    pub topic_exists: bool,
    /// By partition.
    pub partitions: Vec<Standing>,
}

/// The group's offsets of a stream.
#[derive(Debug)]
pub struct GroupOffsets {
    /// 0 where there is no topic.
    topic_partitions: i32,
    pub by_partition: BTreeMap<i32, Option<GroupOffset>>,
    workers: usize,
}

impl GroupOffsets {
    /// Those that albertine committed.
    pub fn published(&self) -> Vec<(i32, Published)> {
        let published = |(partition, offset): (&i32, &Option<GroupOffset>)| {
            let marker = offset.as_ref()?.marker();
            Some((*partition, Published { epoch: marker.note?.epoch, position: marker.position }))
        };
        self.by_partition.iter().filter_map(published).collect()
    }
}

/// See the module.
pub struct Inspector<'a> {
    pub config: &'a Config,
    pub store: Postgres,
    pub runtime: tokio::runtime::Runtime,
}

impl<'a> Inspector<'a> {
    /// Connects to Postgres, and checks that the schema is this program's. `statement_timeout` replaces the
    /// configured one.
    ///
    /// # Errors
    /// Where Postgres cannot be reached or the schema is another.
    pub fn connect(
        config: &'a Config,
        runtime: tokio::runtime::Runtime,
        statement_timeout: Option<Duration>,
    ) -> anyhow::Result<Self> {
        let postgres = PostgresConfig {
            connect_timeout: CONNECT_TIMEOUT.min(config.postgres.connect_timeout),
            connections_max: CONNECTIONS_MAX,
            statement_timeout: statement_timeout.unwrap_or(config.postgres.statement_timeout),
            ..config.postgres.clone()
        };
        let store = runtime.block_on(async {
            let store = Postgres::connect(&postgres).await?;
            store.check_migrated(&postgres.schema).await?;
            anyhow::Ok(store)
        })?;
        Ok(Self { config, store, runtime })
    }

    /// Where each partition stands that the topic has or the store knows.
    ///
    /// # Errors
    /// Where Kafka or Postgres does not answer; a missing topic is no error.
    pub fn stream(&self, stream: &StreamConfig) -> anyhow::Result<StreamStanding> {
        // In this order: what is published was stored before, and what is stored was in the topic before.
        let offsets = self.offsets(stream)?;
        let stored = self.stored(stream, &offsets.published())?;
        self.beside_topic(stream, offsets, stored)
    }

    /// The first step of [`Self::stream`]: the group's offsets.
    ///
    /// # Errors
    /// Where Kafka or Postgres does not answer; a missing topic is no error.
    pub fn offsets(&self, stream: &StreamConfig) -> anyhow::Result<GroupOffsets> {
        let client = &self.config.kafka.client;
        let topic_partitions = match kafka::probe(client, &stream.name, &stream.topic) {
            Ok(count) => count,
            Err(SourceError::TopicMissing { .. }) => 0,
            Err(error) => return Err(error.into()),
        };
        let group = Group::new(client, &stream.group)?;
        let known = self.stored(stream, &[])?;
        let partitions: BTreeSet<i32> = (0..topic_partitions).chain(known.into_keys()).collect();
        let offset = |partition| anyhow::Ok((partition, group.offset(&key(stream, partition))?));
        let by_partition = partitions.into_iter().map(offset).collect::<anyhow::Result<_>>()?;
        Ok(GroupOffsets { topic_partitions, by_partition, workers: group.members()? })
    }

    /// The last step of [`Self::stream`]: all that was read, beside what the topic holds.
    ///
    /// # Errors
    /// Where Kafka does not answer.
    pub fn beside_topic(
        &self,
        stream: &StreamConfig,
        offsets: GroupOffsets,
        mut stored: BTreeMap<i32, StoreStanding>,
    ) -> anyhow::Result<StreamStanding> {
        let topic = TopicOffsets::new(&self.config.kafka.client, &stream.topic)?;
        let topic_id = topic.topic_id()?;
        let extents = topic.extents(offsets.topic_partitions)?;
        let partitions = offsets.by_partition.into_iter().map(|(partition, offset)| Standing {
            key: key(stream, partition),
            live: stream.live.is_some(),
            topic_id: topic_id.clone(),
            topic: extents.get(&partition).copied(),
            offset,
            store: stored.remove(&partition).unwrap_or_default(),
        });
        Ok(StreamStanding {
            name: stream.name.clone(),
            topic: stream.topic.clone(),
            group: stream.group.clone(),
            workers: offsets.workers,
            topic_exists: offsets.topic_partitions > 0,
            partitions: partitions.collect(),
        })
    }

    /// How far a partition is published, with a look at the live topic where the group's offset does not tell: as
    /// the publisher finds it out. [`Publication::Unknown`] is left only where that topic does not tell either.
    ///
    /// # Errors
    /// Where Kafka does not answer.
    pub fn publication(&self, stream: &StreamConfig, standing: &Standing) -> anyhow::Result<Publication> {
        let publication = standing.publication();
        let (Publication::Unknown { first }, Some(live), Some(outbox)) =
            (publication, &stream.live, standing.store.outbox)
        else {
            return Ok(publication);
        };
        let topic = KafkaLiveTopic::new(topology::live_config(self.config, stream, live))?;
        let found = match topic.newest(&standing.key, outbox.first_stored_at)? {
            Newest::Found(published) => Some(published),
            Newest::Nothing => None,
            Newest::Unknown => return Ok(publication),
        };
        // Read again, since a publisher may have gone on before the look.
        let stored = self.stored(stream, &[])?.remove(&standing.key.partition).and_then(|store| store.checkpoint);
        let Some(checkpoint) = stored else { return Ok(publication) };
        Ok(match resolve_found(found, first, checkpoint.stored) {
            Resolution::Ahead { published, stored } => Publication::Ahead { published, stored },
            Resolution::From(published) => Publication::At(published),
            Resolution::Search { first } => Publication::Unknown { first },
        })
    }

    /// What the store would count as unpublished if these positions were the published ones.
    ///
    /// # Errors
    /// Where Postgres does not answer.
    pub fn stored(
        &self,
        stream: &StreamConfig,
        published: &[(i32, Published)],
    ) -> anyhow::Result<BTreeMap<i32, StoreStanding>> {
        Ok(self.runtime.block_on(self.store.standings(&stream.name, &stream.topic, published))?)
    }
}

/// A partition of a stream's topic.
pub fn key(stream: &StreamConfig, partition: i32) -> PartitionKey {
    PartitionKey { stream: stream.name.clone(), topic: stream.topic.clone(), partition }
}
