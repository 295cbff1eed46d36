//! `albertine backfill work`: labels what is left of a job, and shows how far it is.

use std::{
    future::Future,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::bail;
use bytesize::ByteSize;
use indicatif::{HumanDuration, ProgressBar};
use tokio::runtime::Runtime;

use super::{connect, find, show, stream_of};
use crate::{
    commands::{
        progress,
        run::{crash_on_panic, wait_for_signal},
        runtime,
    },
    config::resolved::Config,
    domain::backfill::{Job, JobState, Progress},
    engine::Priority,
    storage::postgres::Postgres,
    telemetry,
    topology::Pipeline,
};

/// How often the progress bar moves.
const BAR_INTERVAL: Duration = Duration::from_secs(1);
/// How often the progress is said where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub struct WorkArgs {
    /// The job, as `backfill list` names it [default: every running one, the oldest first]
    job: Option<String>,
    /// Show the outcome for programs
    #[arg(long, env = "ALBERTINE_BACKFILL_WORK_JSON")]
    json: bool,
}

pub fn run(config: &Config, args: &WorkArgs) -> anyhow::Result<()> {
    let runtime = runtime()?;
    let jobs = runtime.block_on(async {
        let store = connect(config).await?;
        let jobs = if let Some(id) = &args.job {
            vec![find(&store, id).await?]
        } else {
            let mut running = store.backfills(None).await?;
            running.retain(|job| job.state == JobState::Running && config.streams.contains_key(&job.stream));
            running.reverse();
            running
        };
        store.close().await;
        anyhow::Ok(jobs)
    })?;
    if jobs.is_empty() {
        eprintln!("no backfill is running");
    }
    for job in jobs {
        work_on(config, &runtime, &job, args.json)?;
    }
    Ok(())
}

/// Works on a job until nothing of it is open, and says what came of it.
///
/// # Errors
/// Also where it was stopped before that, or a shard failed.
pub fn work_on(config: &Config, runtime: &Runtime, job: &Job, json: bool) -> anyhow::Result<()> {
    let stream = stream_of(config, job)?;
    crash_on_panic();
    runtime.block_on(async {
        if let Some(listen) = config.metrics_listen
            && let Err(error) = telemetry::metrics::serve(listen)
        {
            // `albertine run` on this machine has the same configuration.
            tracing::warn!(%error, "going on without metrics");
        }
        let shutdown = wait_for_signal()?;
        let store = connect(config).await?;
        let files = store.open_backfill_files(&job.id).await?;
        if let Some(first) = files.first().filter(|_| files.iter().all(|file| !Path::new(file).exists())) {
            bail!("none of the files of backfill `{}` is on this machine: not `{first}`", job.id);
        }
        let mut pipeline = Pipeline::start(config, [stream]).await?;
        // Nothing is live in this process.
        let feed = pipeline.files_of(stream, job.clone(), Priority::Live)?;
        pipeline.add(stream, feed).await?;
        let watch = Watch::new(store.backfill_progress(job).await?);
        watch.beside(&store, job, pipeline.run_until(shutdown)).await?;
        store.close().await;
        show::outcome(config, job, json).await?;
        end_of(config, job).await
    })
}

/// Fails unless the job came to its end, and well.
async fn end_of(config: &Config, job: &Job) -> anyhow::Result<()> {
    let store = connect(config).await?;
    let (job, progress) = (find(&store, &job.id).await?, store.backfill_progress(job).await?);
    store.close().await;
    let id = &job.id;
    match job.state {
        JobState::Finished if progress.shards_failed == 0 => Ok(()),
        JobState::Finished => bail!(
            "{} of {} shard(s) failed; try them again with `albertine backfill resume {id}`, or start a new backfill for files that had to be mended:\n  {}",
            progress.shards_failed,
            progress.shards,
            progress.failures.join("\n  ")
        ),
        JobState::Running => bail!("stopped before it was done; go on with `albertine backfill work {id}`"),
        JobState::Paused => bail!("it was paused; let it go on with `albertine backfill resume {id}`"),
        JobState::Cancelled => bail!("it was cancelled"),
    }
}

/// Shows how far a job is while it is worked on.
struct Watch {
    began: Instant,
    /// Where the job stood then.
    start: Progress,
    /// Hidden where nobody would see it.
    bar: ProgressBar,
}

impl Watch {
    fn new(start: Progress) -> Self {
        Self { began: Instant::now(), start, bar: progress::bar(Some(1), "{wide_bar} {percent}%  {msg}") }
    }

    /// Runs `work` to its end.
    async fn beside<T>(&self, store: &Postgres, job: &Job, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                result = &mut work => {
                    self.bar.finish_and_clear();
                    return result;
                }
                () = tokio::time::sleep(if self.bar.is_hidden() { LINE_INTERVAL } else { BAR_INTERVAL }) => {
                    match store.backfill_progress(job).await {
                        Ok(progress) => self.show(&progress),
                        Err(error) => tracing::debug!(%error, "how far the backfill is cannot be read; trying again"),
                    }
                }
            }
        }
    }

    fn show(&self, progress: &Progress) {
        let (done, total) = share(progress);
        let message = self.message(progress);
        if self.bar.is_hidden() {
            eprintln!("{}%, {message}", done * 100 / total.max(1));
            return;
        }
        self.bar.set_length(total);
        self.bar.set_position(done);
        self.bar.set_message(message);
    }

    fn message(&self, progress: &Progress) -> String {
        let elapsed = self.began.elapsed().as_secs_f64();
        let new = |now: i64, before: i64| (now - before).max(0) as f64;
        let records = progress.records_stored.unsigned_abs();
        let of = match progress.records {
            Some(total) => format!("{records} of {total} records"),
            None => format!(
                "{records} records, {} of {}",
                ByteSize(progress.bytes_read.unsigned_abs()),
                ByteSize(progress.bytes.unsigned_abs())
            ),
        };
        let rate = new(progress.records_stored, self.start.records_stored) / elapsed;
        let ((done, total), (before, _)) = (share(progress), share(&self.start));
        let left = (done > before)
            .then(|| total.saturating_sub(done) as f64 * elapsed / (done - before) as f64)
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .map_or_else(String::new, |left| format!(", {} left", HumanDuration(left)));
        format!("{of}, {rate:.0} a second{left}, {} rejected", progress.rejected)
    }
}

/// How much is done of how much: records, or bytes where the records are not known.
fn share(progress: &Progress) -> (u64, u64) {
    let (done, total) = match progress.records {
        Some(records) => (progress.records_stored, records),
        None => (progress.bytes_read, progress.bytes),
    };
    (done.clamp(0, total).unsigned_abs(), total.unsigned_abs())
}
