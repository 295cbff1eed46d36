//! `albertine backfill`: labels the records of files as a job that many processes may share and none does twice.

mod show;
mod start;
mod work;

use anyhow::{Context, bail};

use super::{GlobalOptions, UsageError, runtime};
use crate::{
    config::resolved::{Config, StreamConfig},
    domain::backfill::{Job, JobState},
    storage::postgres::{Postgres, PostgresConfig},
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  albertine backfill start reviews 'archive/*.parquet'
  albertine backfill start reviews old.csv.gz --field id=/review_id --field text=/body
  albertine backfill start reviews sample.jsonl --dry-run --limit 200
  albertine backfill work                       help with what is to be done, from another machine
  albertine backfill list
  albertine backfill pause 20260131-8f3a2c      and resume, or cancel

A job is cut into shards, and each is labelled by one process at a time. However often processes die and whoever goes
on, every record is stored once.")]
pub struct BackfillArgs {
    #[command(subcommand)]
    command: BackfillCommand,
}

#[derive(Debug, clap::Subcommand)]
enum BackfillCommand {
    /// Make a job of files, and work on it
    Start(start::StartArgs),
    /// Work on a job, beside whoever does already
    Work(work::WorkArgs),
    /// Show how far a job is
    Status(show::StatusArgs),
    /// Show all jobs
    List(show::ListArgs),
    /// Let a job wait: its workers store what they have in hand, and end
    Pause(JobArgs),
    /// Let a paused job go on, or the failed shards of a finished one be tried again
    Resume(JobArgs),
    /// End a job for good; what it has stored stays
    Cancel(JobArgs),
}

#[derive(Debug, clap::Args)]
struct JobArgs {
    /// The job, as `backfill list` names it
    job: String,
}

pub fn run(global: &GlobalOptions, args: &BackfillArgs) -> anyhow::Result<()> {
    let config = global.load_config()?.with_streams()?;
    match &args.command {
        BackfillCommand::Start(args) => start::run(&config, args),
        BackfillCommand::Work(args) => work::run(&config, args),
        BackfillCommand::Status(args) => show::status(&config, args),
        BackfillCommand::List(args) => show::list(&config, args),
        BackfillCommand::Pause(args) => move_to(&config, &args.job, &[JobState::Running], JobState::Paused),
        BackfillCommand::Resume(args) => {
            move_to(&config, &args.job, &[JobState::Paused, JobState::Finished], JobState::Running)?;
            eprintln!("work on it with `albertine backfill work {}`", args.job);
            Ok(())
        }
        BackfillCommand::Cancel(args) => {
            move_to(&config, &args.job, &[JobState::Running, JobState::Paused], JobState::Cancelled)
        }
    }
}

/// Connections of a command that asks one question after the other.
const CONNECTIONS_MAX: u32 = 2;

/// The store, for questions about jobs.
async fn connect(config: &Config) -> anyhow::Result<Postgres> {
    let store =
        Postgres::connect(&PostgresConfig { connections_max: CONNECTIONS_MAX, ..config.postgres.clone() }).await?;
    store.check_migrated(&config.postgres.schema).await?;
    Ok(store)
}

async fn find(store: &Postgres, id: &str) -> anyhow::Result<Job> {
    store
        .backfill(id)
        .await?
        .ok_or_else(|| UsageError(format!("there is no backfill `{id}`; `albertine backfill list` shows all")).into())
}

fn move_to(config: &Config, id: &str, from: &[JobState], to: JobState) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        let store = connect(config).await?;
        let is_moved = store.move_backfill(id, from, to).await?;
        let job = find(&store, id).await?;
        store.close().await;
        if !is_moved && job.state != to {
            let from: Vec<&str> = from.iter().map(|state| state.as_str()).collect();
            bail!("backfill `{id}` is {}, and only one that is {} can be {to}", job.state, from.join(" or "));
        }
        eprintln!("backfill `{id}` is {to}");
        Ok(())
    })
}

/// The stream of a job, as this configuration has it.
fn stream_of<'a>(config: &'a Config, job: &Job) -> anyhow::Result<&'a StreamConfig> {
    config.streams.get(&job.stream).with_context(|| {
        format!("backfill `{}` is of stream `{}`, which this configuration does not have", job.id, job.stream)
    })
}
