//! `albertine run`: labels all configured streams until a signal says stop; or their newest records once, to see what
//! would come of them.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use super::{GlobalOptions, dry_run, find_stream, output::OutputFormat, runtime};
use crate::{
    config::resolved::{Config, StreamConfig},
    crash,
    kafka::peek,
    source::Content,
    stream::dry_run::{DryRun, Summary},
    topology::{self, Backfills, ModelHost},
};

/// Exit code of a process that a second signal ended, by the shell's convention for SIGINT.
const EXIT_INTERRUPTED: i32 = 130;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
SIGTERM or Ctrl-C stops: reading ends, what is in flight is stored until `shutdown.deadline`, and the
partitions are handed back. A second one ends the process at once; nothing is lost or stored twice either way.

`--dry-run` reads the newest records of each topic without joining a group, labels them and writes nothing. Where
records carry a rating it says how far the labels agree with it, so that one sees whether the model suits the data:
  albertine run --dry-run --limit 500 reviews")]
pub struct RunArgs {
    /// Work on running backfills too, while nothing live waits
    #[arg(long, env = "ALBERTINE_RUN_BACKFILL", conflicts_with = "dry_run")]
    backfill: bool,
    /// Label the newest records, show what came of them, and store and publish nothing
    #[arg(long)]
    dry_run: bool,
    /// Records of a dry run, for each stream
    #[arg(
        long,
        env = "ALBERTINE_RUN_LIMIT",
        default_value_t = 200,
        value_name = "RECORDS",
        requires = "dry_run",
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..)
    )]
    limit: usize,
    /// How a dry run is shown
    #[arg(long, env = "ALBERTINE_RUN_FORMAT", value_enum, default_value_t = OutputFormat::Table, requires = "dry_run")]
    format: OutputFormat,
    /// The stream of a dry run, by its name in the configuration [default: all]
    #[arg(requires = "dry_run")]
    stream: Option<String>,
}

pub fn run(global: &GlobalOptions, args: &RunArgs) -> anyhow::Result<()> {
    let config = global.load_config()?.with_streams()?;
    if args.dry_run {
        return label_newest(&config, args);
    }
    let backfills = if args.backfill { Backfills::TakeUp } else { Backfills::LeaveToOthers };
    crash_on_panic();
    runtime()?.block_on(async {
        let shutdown = wait_for_signal()?;
        topology::run(config, backfills, shutdown).await
    })
}

fn label_newest(config: &Config, args: &RunArgs) -> anyhow::Result<()> {
    let streams = match &args.stream {
        Some(name) => vec![find_stream(config, name)?],
        None => config.streams.values().collect(),
    };
    let host = ModelHost::start(config, streams.iter().flat_map(|stream| &stream.models))?;
    for stream in streams {
        let summary = label_newest_of(config, stream, &host, args.limit)?;
        dry_run::show(&format!("stream {}", stream.name), &summary, args.format)?;
    }
    Ok(())
}

fn label_newest_of(config: &Config, stream: &StreamConfig, host: &ModelHost, limit: usize) -> anyhow::Result<Summary> {
    let schemas = topology::schemas(config)?;
    let intake = Arc::new(topology::intake_config(stream, host.of(stream), &schemas)?);
    let mut dry_run = DryRun::new(intake, stream.in_flight_documents_max);
    for record in peek::newest(&config.kafka.client, &stream.topic, limit)? {
        let record = record?;
        let place = format!("partition {} offset {}", record.partition, record.offset);
        let position = record.position();
        dry_run.submit(&host.inference, place, record.key.as_deref(), &Content::Encoded(record.value), &position)?;
    }
    Ok(dry_run.finish())
}

/// A thread that is gone would leave its records unfinished for ever. Ending the process is safe: the next
/// one goes on from the checkpoint.
pub(super) fn crash_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if crash::is_contained() {
            return;
        }
        report(panic);
        std::process::abort();
    }));
}

pub(super) fn wait_for_signal() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        next_of(&mut terminate, &mut interrupt).await;
        tracing::info!("stopping: storing what is in flight; a second signal ends at once");
        tokio::spawn(async move {
            next_of(&mut terminate, &mut interrupt).await;
            std::process::exit(EXIT_INTERRUPTED);
        });
    })
}

async fn next_of(first: &mut tokio::signal::unix::Signal, second: &mut tokio::signal::unix::Signal) {
    tokio::select! {
        _ = first.recv() => {}
        _ = second.recv() => {}
    }
}
