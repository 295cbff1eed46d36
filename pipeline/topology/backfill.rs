//! The records of a backfill's files as what a stream reads.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context, bail};

use super::{Feed, Pipeline, store::BlockingStore};
use crate::{
    config::resolved::StreamConfig,
    decode::{Decoder, Format},
    domain::backfill::{Held, Job, JobState, Renewal, ShardEnd, TOPIC_PREFIX, Taken, topic},
    engine::Priority,
    source::{
        Sink, SourceControl,
        backfill::{self, BackfillConfig, Shards},
    },
};

impl Pipeline<'_> {
    /// What is left of a job: it ends when no shard of it is open any more.
    ///
    /// # Errors
    /// Where the fields of the job cannot be read, or it publishes and the stream has no live topic.
    pub fn files_of(&self, stream: &StreamConfig, job: Job, priority: Priority) -> anyhow::Result<Feed> {
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
        let publishes = job.publishes;
        if publishes && stream.live.is_none() {
            bail!(
                "backfill `{}` publishes, and stream `{}` has no live topic in this configuration",
                job.id,
                stream.name
            );
        }
        let source = BackfillConfig {
            job,
            in_flight_documents_max: stream.in_flight_documents_max,
            in_flight_bytes_max: stream.in_flight_bytes_max,
            unpublished_bytes_max: stream.live.as_ref().map_or(usize::MAX, |live| live.unpublished_bytes_max),
            lease: self.config.backfill.lease,
        };
        let read = move |sink: Arc<dyn Sink>, control: &SourceControl| backfill::run(&source, &shards, &*sink, control);
        let decoder = Decoder { format: Format::Json, mapping };
        Ok(Feed { topic, publishes, replayed: None, decoder: Some(decoder), priority, read: Box::new(read) })
    }
}

/// How often to look for backfills to work on beside the live streams.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(5);

impl Pipeline<'_> {
    /// Works on the oldest running backfill of each stream that has none here yet, if this machine has its files.
    pub(super) async fn take_up_backfills(&mut self) -> anyhow::Result<()> {
        for stream in self.config.streams.values() {
            if self
                .running
                .iter()
                .any(|running| running.stream == stream.name && running.topic.starts_with(TOPIC_PREFIX))
            {
                continue;
            }
            let mut jobs = self.store.backfills(Some(&stream.name)).await?;
            jobs.retain(|job| job.state == JobState::Running);
            // The newest stands first.
            while let Some(job) = jobs.pop() {
                let files = self.store.open_backfill_files(&job.id).await?;
                if files.is_empty() || files.iter().any(|file| !Path::new(file).exists()) {
                    tracing::debug!(job = job.id, "a backfill is left to others: not all its files are here");
                    continue;
                }
                tracing::info!(job = job.id, stream = %stream.name, "working on a backfill beside the live streams");
                match self.files_of(stream, job, Priority::Backfill) {
                    Ok(feed) => {
                        self.add(stream, feed).await?;
                        break;
                    }
                    Err(error) => tracing::warn!(error = format!("{error:#}"), "a backfill is left to others"),
                }
            }
        }
        Ok(())
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
