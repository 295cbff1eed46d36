//! The store as threads outside the runtime see it: sources and publishers block until Postgres answers.

use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

use anyhow::anyhow;
use backon::{ExponentialBuilder, Retryable};
use tokio::runtime::Handle;

use crate::{
    config::resolved::StreamConfig,
    domain::{
        checkpoint::{Claim, PartitionKey, TopicStart},
        dead_letter::{DeadLetterFilter, Place},
        document::SourceRecord,
        live::{OutboxRange, Published},
        publication::StoredState,
    },
    publish::Outbox,
    source::Claims,
    storage::{ErrorKind, StoreError, postgres::Postgres},
};

/// The store of one stream, for threads outside the runtime.
#[derive(Clone)]
pub struct BlockingStore {
    store: Postgres,
    stream: Arc<str>,
    topic: Arc<str>,
    runtime: Handle,
    /// How long a call waits for Postgres. Below the group's `max.poll.interval.ms` (5 minutes), or the
    /// partition would be given away meanwhile.
    timeout: Duration,
}

impl BlockingStore {
    /// Call it inside the runtime.
    pub(super) fn new(store: &Postgres, stream: &StreamConfig, topic: &Arc<str>, timeout: Duration) -> Self {
        let (store, runtime) = (store.clone(), Handle::current());
        Self { store, stream: stream.name.clone(), topic: topic.clone(), runtime, timeout }
    }

    pub(super) fn store(&self) -> &Postgres {
        &self.store
    }

    /// Tries until it works, fails for good, or the time is over.
    pub(super) fn wait<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        attempt: impl FnMut() -> F,
    ) -> anyhow::Result<T> {
        let backoff = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(2))
            .with_total_delay(Some(self.timeout))
            .without_max_times();
        let attempts = attempt
            .retry(backoff)
            .when(|error| error.kind == ErrorKind::Retryable)
            .notify(|error, delay| tracing::warn!(stream = %self.stream, %error, retry_in_ms = delay.as_millis(), "Postgres did not answer; trying again"));
        Ok(self.runtime.block_on(attempts)?)
    }
}

impl BlockingStore {
    /// Which of these dead letters are kept as they came, and how they came.
    ///
    /// # Errors
    /// Where the store cannot be read within its deadline.
    pub(super) fn kept_records(&self, places: Vec<Place>) -> anyhow::Result<HashMap<Place, SourceRecord>> {
        let filter = DeadLetterFilter { places, ..DeadLetterFilter::default() };
        let letters = self.wait(|| self.store.dead_letters(&self.stream, &filter, i64::MAX, true))?;
        Ok(letters.into_iter().filter_map(|letter| Some((letter.place, letter.record?))).collect())
    }
}

impl Claims for BlockingStore {
    fn known_partitions(&self) -> anyhow::Result<Vec<(i32, Option<String>)>> {
        self.wait(|| self.store.known_partitions(&self.stream, &self.topic))
    }

    fn initialise(&self, start: &TopicStart) -> anyhow::Result<()> {
        self.wait(|| self.store.initialise_checkpoints(&self.stream, &self.topic, start))
    }

    fn claim(&self, partitions: &[i32]) -> anyhow::Result<Vec<Claim>> {
        self.wait(|| self.store.claim(&self.stream, &self.topic, partitions))
    }
}

impl Outbox for BlockingStore {
    fn state(&self, key: &PartitionKey) -> anyhow::Result<StoredState> {
        self.wait(|| self.store.stored_state(key))?.ok_or_else(|| anyhow!("{key} has no checkpoint any more"))
    }

    fn ranges(
        &self,
        key: &PartitionKey,
        published: Option<Published>,
        bytes_max: usize,
    ) -> anyhow::Result<Vec<OutboxRange>> {
        self.wait(|| self.store.unpublished_ranges(key, published, bytes_max))
    }

    fn unpublished_bytes(&self, key: &PartitionKey, published: Published) -> anyhow::Result<usize> {
        self.wait(|| self.store.unpublished_bytes(key, published))
    }

    fn delete(&self, key: &PartitionKey, published: Published) -> anyhow::Result<()> {
        self.wait(|| self.store.delete_published(key, published)).map(drop)
    }
}
