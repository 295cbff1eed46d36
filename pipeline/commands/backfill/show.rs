//! `albertine backfill status` and `list`: how far jobs are.

use std::{fmt::Write as _, io::Write};

use serde_json::{Value, json};

use super::{connect, find};
use crate::{
    commands::{
        output::{Shown, age, number, print_json, size, table},
        runtime,
        terminal::printable,
    },
    config::resolved::Config,
    domain::backfill::{Job, Progress},
};

#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// The job, as `backfill list` names it
    job: String,
    /// For programs
    #[arg(long, env = "ALBERTINE_BACKFILL_STATUS_JSON")]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Only those of this stream
    stream: Option<String>,
    /// For programs
    #[arg(long, env = "ALBERTINE_BACKFILL_LIST_JSON")]
    json: bool,
}

pub fn status(config: &Config, args: &StatusArgs) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        let store = connect(config).await?;
        let job = find(&store, &args.job).await?;
        store.close().await;
        outcome(config, &job, args.json).await
    })
}

pub fn list(config: &Config, args: &ListArgs) -> anyhow::Result<()> {
    let jobs = runtime()?.block_on(async {
        let store = connect(config).await?;
        let mut jobs = Vec::new();
        for job in store.backfills(args.stream.as_deref()).await? {
            let progress = store.backfill_progress(&job).await?;
            jobs.push((job, progress));
        }
        store.close().await;
        anyhow::Ok(jobs)
    })?;
    if args.json {
        return print_json(&jobs.iter().map(|(job, progress)| as_json(job, progress)).collect());
    }
    let heads = ["job", "stream", "state", "records", "of", "rejected", "shards", "failed", "size", "created"];
    let rows = jobs.iter().map(|(job, progress)| row(job, progress));
    Ok(std::io::stdout().lock().write_all(table(&heads, rows).as_bytes())?)
}

fn row(job: &Job, progress: &Progress) -> Vec<Shown> {
    vec![
        job.id.as_str().into(),
        job.stream.as_str().into(),
        job.state.as_str().into(),
        number(Some(progress.records_stored)),
        number(progress.records),
        number(Some(progress.rejected)),
        number(Some(progress.shards)),
        number(Some(progress.shards_failed)),
        size(progress.bytes.unsigned_abs()),
        age(Some(job.created_at)),
    ]
}

/// Shows a job as it stands now.
pub async fn outcome(config: &Config, job: &Job, json: bool) -> anyhow::Result<()> {
    let store = connect(config).await?;
    let (job, progress) = (find(&store, &job.id).await?, store.backfill_progress(job).await?);
    store.close().await;
    if json {
        return print_json(&as_json(&job, &progress));
    }
    Ok(std::io::stdout().lock().write_all(as_text(&job, &progress).as_bytes())?)
}

fn as_text(job: &Job, progress: &Progress) -> String {
    let of = progress.records.map_or_else(String::new, |records| format!(" of {records}"));
    let mut text = format!(
        "backfill {} of stream {}: {}\n  records  {}{of}, {} of them rejected\n  shards   {} finished, {} failed, {} in work, of {}\n  rank     {}\n",
        job.id,
        job.stream,
        job.state,
        progress.records_stored,
        progress.rejected,
        progress.shards_finished,
        progress.shards_failed,
        progress.shards_held,
        progress.shards,
        job.rank,
    );
    for failure in &progress.failures {
        let _ = writeln!(text, "  failed   {}", printable(failure));
    }
    text
}

fn as_json(job: &Job, progress: &Progress) -> Value {
    json!({
        "job": job.id,
        "stream": job.stream,
        "state": job.state.as_str(),
        "rank": job.rank.as_str(),
        "publishes": job.publishes,
        "created_at": job.created_at,
        "finished_at": job.finished_at,
        "records": progress.records,
        "records_stored": progress.records_stored,
        "rejected": progress.rejected,
        "bytes": progress.bytes,
        "bytes_read": progress.bytes_read,
        "shards": progress.shards,
        "shards_finished": progress.shards_finished,
        "shards_failed": progress.shards_failed,
        "shards_in_work": progress.shards_held,
        "failures": progress.failures,
    })
}
