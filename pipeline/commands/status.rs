//! `albertine status`: how far each partition is stored and published, a line each.

use std::io::Write;

use bytesize::ByteSize;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{
    GlobalOptions, find_stream,
    output::{OutputFormat, Shown, age, number, print_json, size, table},
    runtime,
};
use crate::{
    config::resolved::StreamConfig,
    domain::standing::{Publication, Standing},
    inspection::{Inspector, StreamStanding},
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  albertine status
  albertine status reviews --format json | jq .totals

END is the topic's last stable offset, STORED what the checkpoint says, PUBLISHED what the consumer group's offset
says. TO STORE and TO PUBLISH count the records from there to the end, in offsets: transaction markers and compacted
records count too, so they may rest above 0. Nothing is joined, claimed or fenced by looking.")]
pub struct StatusArgs {
    /// The stream, by its name in the configuration [default: all]
    stream: Option<String>,
    /// How it is written
    #[arg(long, env = "ALBERTINE_STATUS_FORMAT", value_enum, default_value_t = OutputFormat::Table)]
    format: OutputFormat,
}

pub fn run(global: &GlobalOptions, args: &StatusArgs) -> anyhow::Result<()> {
    let config = global.load_config()?.with_streams()?;
    let streams: Vec<&StreamConfig> = match &args.stream {
        Some(name) => vec![find_stream(&config, name)?],
        None => config.streams.values().collect(),
    };
    let inspector = Inspector::connect(&config, runtime()?, None)?;
    let standings = streams.into_iter().map(|stream| inspector.stream(stream)).collect::<anyhow::Result<Vec<_>>>()?;
    match args.format {
        OutputFormat::Json => print_json(&as_json(&standings)),
        OutputFormat::Table => {
            write!(std::io::stdout().lock(), "{}", as_table(&standings))?;
            Ok(())
        }
    }
}

/// Sums over partitions. Of a partition whose lag is not known nothing is counted, and it is said how many there are.
#[derive(Default)]
struct Totals {
    partitions: usize,
    lag_stored: u64,
    lag_published: u64,
    unknown: usize,
    unpublished_bytes: u64,
    oldest: Option<DateTime<Utc>>,
}

impl Totals {
    fn of(streams: &[StreamStanding]) -> Self {
        let mut totals = Self::default();
        for standing in streams.iter().flat_map(|stream| &stream.partitions) {
            let (stored, published) = (standing.lag_stored(), standing.lag_published());
            totals.partitions += 1;
            totals.lag_stored += stored.unwrap_or(0);
            totals.lag_published += published.unwrap_or(0);
            totals.unknown += usize::from(stored.is_none());
            totals.unpublished_bytes += standing.store.backlog.bytes;
            totals.oldest = totals.oldest.into_iter().chain(standing.store.backlog.oldest).min();
        }
        totals
    }
}

fn as_table(streams: &[StreamStanding]) -> String {
    const HEADS: [&str; 11] = [
        "STREAM",
        "PARTITION",
        "END",
        "STORED",
        "PUBLISHED",
        "TO STORE",
        "TO PUBLISH",
        "OLDEST UNPUBLISHED",
        "UNPUBLISHED",
        "CLAIMED",
        "NOTE",
    ];
    let rows = streams.iter().flat_map(|stream| stream.partitions.iter().map(move |standing| row(stream, standing)));
    let missing = streams
        .iter()
        .filter(|stream| !stream.topic_exists)
        .map(|stream| format!("stream `{}`: topic `{}` does not exist\n", stream.name, stream.topic));
    let Totals { partitions, lag_stored, lag_published, unknown, unpublished_bytes, .. } = Totals::of(streams);
    let unpublished = ByteSize(unpublished_bytes);
    let left_out = match unknown {
        0 => String::new(),
        unknown => format!("; {unknown} partition(s) not counted in full, see NOTE"),
    };
    let totals = format!(
        "{partitions} partition(s): {lag_stored} record(s) to store, {lag_published} to publish, {unpublished} unpublished{left_out}\n"
    );
    std::iter::once(table(&HEADS, rows)).chain(missing).chain([totals]).collect()
}

fn row(stream: &StreamStanding, standing: &Standing) -> Vec<Shown> {
    let checkpoint = standing.store.checkpoint.as_ref();
    let claimed = checkpoint.filter(|checkpoint| checkpoint.owner.is_some()).and_then(|claimed| claimed.claimed_at);
    vec![
        stream.name.to_string().into(),
        number(Some(standing.key.partition)),
        number(standing.topic.map(|extent| extent.end.0)),
        number(checkpoint.map(|checkpoint| checkpoint.stored.position.0)),
        number(published(standing)),
        number(standing.lag_stored()),
        number(standing.lag_published()),
        age(standing.store.backlog.oldest),
        size(standing.store.backlog.bytes),
        age(claimed),
        notes(stream, standing).join(", ").into(),
    ]
}

fn notes(stream: &StreamStanding, standing: &Standing) -> Vec<String> {
    let mut notes = standing.notes();
    if stream.workers == 0 {
        notes.push("no worker runs".into());
    }
    notes
}

/// The published position, where one is known.
fn published(standing: &Standing) -> Option<i64> {
    match standing.publication() {
        Publication::At(published) | Publication::Confirmed(published) | Publication::Ahead { published, .. } => {
            Some(published.position.0)
        }
        Publication::Off | Publication::NotBegun | Publication::Unknown { .. } => None,
    }
}

fn as_json(streams: &[StreamStanding]) -> Value {
    let partition = |stream: &StreamStanding, standing: &Standing| {
        let checkpoint = standing.store.checkpoint.as_ref();
        json!({
            "partition": standing.key.partition,
            "end": standing.topic.map(|extent| extent.end.0),
            "stored": checkpoint.map(|checkpoint| checkpoint.stored.position.0),
            "published": published(standing),
            "lag_stored": standing.lag_stored(),
            "lag_published": standing.lag_published(),
            "oldest_unpublished_at": standing.store.backlog.oldest,
            "unpublished_bytes": standing.store.backlog.bytes,
            "claimed": checkpoint.is_some_and(|checkpoint| checkpoint.owner.is_some()),
            "claimed_at": checkpoint.and_then(|checkpoint| checkpoint.claimed_at),
            "notes": notes(stream, standing),
        })
    };
    let streams_json: Vec<Value> = streams
        .iter()
        .map(|stream| {
            json!({
                "stream": *stream.name,
                "topic": *stream.topic,
                "topic_exists": stream.topic_exists,
                "group": stream.group,
                "workers": stream.workers,
                "partitions": stream.partitions.iter().map(|standing| partition(stream, standing)).collect::<Vec<_>>(),
            })
        })
        .collect();
    let totals = Totals::of(streams);
    json!({
        "streams": streams_json,
        "totals": {
            "partitions": totals.partitions,
            "lag_stored": totals.lag_stored,
            "lag_published": totals.lag_published,
            "partitions_not_counted": totals.unknown,
            "unpublished_bytes": totals.unpublished_bytes,
            "oldest_unpublished_at": totals.oldest,
        },
    })
}
