//! The records of a backfill's files as what a stream reads.

use std::{sync::Arc, time::Duration};

use anyhow::Context;

use super::{Feed, Pipeline, store::BlockingStore};
use crate::{
    config::resolved::StreamConfig,
    decode::{Decoder, Format},
    domain::backfill::{Held, Job, Renewal, ShardEnd, Taken, topic},
    source::{
        Sink, SourceControl,
        backfill::{self, BackfillConfig, Shards},
    },
};

impl Pipeline<'_> {
    /// What is left of a job: it ends when no shard of it is open any more.
    ///
    /// # Errors
    /// Where the fields of the job cannot be read.
    pub fn files_of(&self, stream: &StreamConfig, job: Job) -> anyhow::Result<Feed> {
        let mapping = stream
            .decoder
            .mapping
            .overridden(&job.fields)
            .with_context(|| format!("the fields of backfill `{}` cannot be used", job.id))?;
        let topic = topic(&job.id);
        let shards = JobShards {
            store: self.blocking_store(stream, &topic),
            job: job.id.clone(),
            lease: self.config.backfill.lease,
        };
        let publishes = job.publishes && stream.live.is_some();
        let source = BackfillConfig {
            job: Job { publishes, ..job },
            in_flight_documents_max: stream.in_flight_documents_max,
            in_flight_bytes_max: stream.in_flight_bytes_max,
            unpublished_bytes_max: stream.live.as_ref().map_or(usize::MAX, |live| live.unpublished_bytes_max),
            lease: self.config.backfill.lease,
        };
        let read = move |sink: Arc<dyn Sink>, control: &SourceControl| backfill::run(&source, &shards, &*sink, control);
        let decoder = Decoder { format: Format::Json, mapping };
        Ok(Feed { topic, publishes, replayed: None, decoder: Some(decoder), read: Box::new(read) })
    }
}

/// The shards of one job in the store.
struct JobShards {
    store: BlockingStore,
    job: String,
    lease: Duration,
}

impl Shards for JobShards {
    fn take(&self) -> anyhow::Result<Taken> {
        self.store.wait(|| self.store.store().take_shard(&self.job, self.lease))
    }

    fn renew(&self, held: &[Held]) -> anyhow::Result<Renewal> {
        self.store.wait(|| self.store.store().renew_shards(&self.job, self.lease, held))
    }

    fn release(&self, held: Held) -> anyhow::Result<()> {
        self.store.wait(|| self.store.store().release_shard(&self.job, held))
    }

    fn end(&self, held: Held, end: &ShardEnd) -> anyhow::Result<()> {
        self.store.wait(|| self.store.store().end_shard(&self.job, held, end))
    }
}
