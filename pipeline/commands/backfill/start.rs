//! `albertine backfill start`: cuts files into a job's shards, and works on them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail};
use bytesize::ByteSize;
use chrono::{DateTime, DurationRound, TimeDelta, Utc};

use super::{connect, show, work};
use crate::{
    commands::{UsageError, dry_run, find_stream, output::OutputFormat, runtime},
    config::resolved::{Config, StreamConfig},
    decode::{Decoder, Format},
    domain::backfill::{FilePart, Job, JobState, Rank},
    source::{
        backfill,
        file::{Consumed, FileFormat, shards},
    },
    stream::{dry_run::DryRun, intake::IntakeConfig},
    topology::{self, ModelHost},
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  albertine backfill start reviews 'archive/*.parquet'
  albertine backfill start reviews old.csv.gz --field id=/review_id --field text=/body
  albertine backfill start reviews old.jsonl --rank newest --publish
  albertine backfill start reviews old.jsonl --dry-run --limit 200

Files are JSON lines, plain lines, CSV with a header, or Parquet, and may be compressed with gzip or Zstandard. A
record's fields lie where the stream's mapping says; `--field` says otherwise for these files. Bad rows become
rejections with their file and line; a file that is broken is labelled up to that place, and reported.

Ctrl-C stops cleanly; `albertine backfill work JOB` goes on, here or anywhere else that has the files. Exits with 1 if
the job did not come to its end, or a shard failed.")]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub struct StartArgs {
    /// The stream, by its name in the configuration
    stream: String,
    /// The files, or patterns such as `archive/*.parquet`
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The name of the job [default: made from the date]
    #[arg(long, env = "ALBERTINE_BACKFILL_START_NAME", value_name = "JOB")]
    name: Option<String>,
    /// How the records are written [default: by each file's name, or its beginning]
    #[arg(long, env = "ALBERTINE_BACKFILL_START_FORMAT", value_enum)]
    format: Option<FileFormat>,
    /// Where a field lies in these files, such as `text=/body`; once for each field
    #[arg(long = "field", value_name = "NAME=PATH")]
    fields: Vec<String>,
    /// The field that stands for the record's key, for streams whose id is the key
    #[arg(long, env = "ALBERTINE_BACKFILL_START_KEY_FIELD", default_value = "key", value_name = "FIELD")]
    key_field: String,
    /// How the records rank beside others of the same documents
    #[arg(long, env = "ALBERTINE_BACKFILL_START_RANK", value_enum, default_value_t = Rank::Oldest)]
    rank: Rank,
    /// Publish the labels on the stream's live topic too
    #[arg(long, env = "ALBERTINE_BACKFILL_START_PUBLISH")]
    publish: bool,
    /// Label only the first records, in the order of the files
    #[arg(long, env = "ALBERTINE_BACKFILL_START_LIMIT", value_name = "RECORDS", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Make the job, and leave the work to others
    #[arg(long, conflicts_with = "dry_run")]
    detach: bool,
    /// Label the records, show what came of them, and store nothing
    #[arg(long)]
    dry_run: bool,
    /// Show the outcome for programs
    #[arg(long, env = "ALBERTINE_BACKFILL_START_JSON")]
    json: bool,
}

pub fn run(config: &Config, args: &StartArgs) -> anyhow::Result<()> {
    let stream = find_stream(config, &args.stream)?;
    let job = job(stream, args)?;
    let decoder = decoder(stream, &job)?;
    let parts = parts(config, args)?;
    if args.dry_run {
        return dry_run(config, stream, decoder, &job, &parts, args);
    }
    if args.publish && stream.live.is_none() {
        return Err(UsageError(format!("`--publish` needs a live topic, and stream `{}` has none", stream.name)).into());
    }
    let runtime = runtime()?;
    let job = runtime.block_on(async {
        let store = connect(config).await?;
        if store.backfill(&job.id).await?.is_some() {
            return Err(UsageError(format!("there is a backfill `{}` already; choose another name", job.id)).into());
        }
        let job = store.create_backfill(&job, &parts).await?;
        store.close().await;
        anyhow::Ok(job)
    })?;
    let files: std::collections::BTreeSet<&str> = parts.iter().map(|part| part.file.as_str()).collect();
    let bytes = parts.iter().map(|part| part.bytes.unsigned_abs()).sum();
    eprintln!("backfill `{}`: {} shard(s) of {} file(s), {}", job.id, parts.len(), files.len(), ByteSize(bytes));
    if args.detach {
        eprintln!("work on it with `albertine backfill work {}`", job.id);
        return runtime.block_on(show::outcome(config, &job, args.json));
    }
    work::work_on(config, &runtime, &job, args.json)
}

fn job(stream: &StreamConfig, args: &StartArgs) -> anyhow::Result<Job> {
    let now = Utc::now();
    let id = match &args.name {
        Some(name) => {
            let is_name = (1..=100).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
            if !is_name {
                let message = format!("`{name}` is no name for a job: 1 to 100 letters, digits, `-`, `_` and `.`");
                return Err(UsageError(message).into());
            }
            name.clone()
        }
        None => format!("{}-{}", now.format("%Y%m%d"), &uuid::Uuid::new_v4().simple().to_string()[..6]),
    };
    Ok(Job {
        id,
        stream: stream.name.to_string(),
        state: JobState::Running,
        created_at: millisecond(now),
        finished_at: None,
        rank: args.rank,
        generation: 0,
        publishes: args.publish,
        key_field: args.key_field.clone(),
        fields: args.fields.clone(),
    })
}

/// As exact as a version is.
fn millisecond(time: DateTime<Utc>) -> DateTime<Utc> {
    time.duration_trunc(TimeDelta::milliseconds(1)).unwrap_or(time)
}

fn decoder(stream: &StreamConfig, job: &Job) -> anyhow::Result<Decoder> {
    let mapping = stream.decoder.mapping.overridden(&job.fields);
    let mapping = mapping.map_err(|error| UsageError(format!("`--field`: {error}")))?;
    Ok(Decoder { format: Format::Json, mapping })
}

/// The parts of all files, in their order.
fn parts(config: &Config, args: &StartArgs) -> anyhow::Result<Vec<FilePart>> {
    let mut parts = Vec::new();
    for pattern in &args.files {
        let files = shards::matching(pattern).map_err(anyhow::Error::msg)?;
        if files.is_empty() {
            bail!("no file matches `{}`", pattern.display());
        }
        for file in files {
            parts.extend(shards::parts(&absolute(&file)?, args.format, config.backfill.shard_bytes)?);
        }
    }
    Ok(match args.limit {
        Some(limit) => limited(parts, i64::from(limit)),
        None => parts,
    })
}

/// A path that means the same to every process of this machine.
fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    path.canonicalize().with_context(|| format!("cannot open `{}`", path.display()))
}

/// The parts that hold the first records. How many a part has is found out by reading it, no further than needed.
fn limited(parts: Vec<FilePart>, limit: i64) -> Vec<FilePart> {
    let mut left = limit;
    let mut limited = Vec::new();
    for mut part in parts {
        if left == 0 {
            break;
        }
        part.records_max = Some(left);
        // What cannot be read has no records, and is reported by whoever works on it.
        let count = |part: &FilePart| {
            shards::read(part, Consumed::default())
                .map_or(0, |records| records.take_while(|record| !is_end(record)).count())
        };
        let records = part.records.unwrap_or_else(|| i64::try_from(count(&part)).unwrap_or(i64::MAX));
        left -= records.min(left);
        limited.push(part);
    }
    limited
}

fn is_end<T>(record: &Result<T, crate::source::file::FileError>) -> bool {
    record.as_ref().is_err_and(|error| !error.is_one_record())
}

fn dry_run(
    config: &Config,
    stream: &StreamConfig,
    decoder: Decoder,
    job: &Job,
    parts: &[FilePart],
    args: &StartArgs,
) -> anyhow::Result<()> {
    let host = ModelHost::start(config, &stream.models)?;
    let intake =
        IntakeConfig { decoder, ..topology::intake_config(stream, host.of(stream), &topology::schemas(config)?)? };
    let mut dry_run = DryRun::new(Arc::new(intake), stream.in_flight_documents_max);
    let mut failures = Vec::new();
    for part in parts {
        let records = match shards::read(part, Consumed::default()) {
            Ok(records) => records,
            Err(error) => {
                failures.push(error.to_string());
                continue;
            }
        };
        for record in records {
            match record {
                Err(error) if !error.is_one_record() => failures.push(error.to_string()),
                record => {
                    let (place, key, content) = backfill::content_of(job, &part.file, record);
                    dry_run.submit(&host.inference, place.clone(), key.as_deref(), &content, &place)?;
                }
            }
        }
    }
    let format = if args.json { OutputFormat::Json } else { OutputFormat::Table };
    dry_run::show(&format!("stream {}", stream.name), &dry_run.finish(), format)?;
    if failures.is_empty() {
        return Ok(());
    }
    bail!("{} part(s) could not be read to their end: {}", failures.len(), failures.join("; "))
}
