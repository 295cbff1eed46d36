//! `albertine dead-letter`: shows what was rejected and why, tries it again, or lets it be.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
};

use anyhow::{Context, bail};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

use super::{
    GlobalOptions, UsageError, find_stream,
    output::{OutputFormat, age, number, print_json, table},
    run::wait_for_signal,
    runtime,
    terminal::printable,
};
use crate::{
    config::resolved::{Config, StreamConfig},
    domain::{
        dead_letter::{DeadLetter, DeadLetterFilter, Place, RejectionState},
        document::SourceRecord,
        live::HeaderValue,
        standing::StoreStanding,
    },
    inspection::Inspector,
    storage::dead_letters::ReasonCount,
    topology::{
        self, Pipeline,
        replay::{Replay, TopicRecords, Unavailable},
    },
};

#[derive(Debug, clap::Args)]
pub struct DeadLetterArgs {
    #[command(subcommand)]
    command: DeadLetterCommand,
}

#[derive(Debug, clap::Subcommand)]
enum DeadLetterCommand {
    /// List what was rejected, and count it by reason
    List(ListArgs),
    /// Show all that is known of one rejection, and the record where it can still be had
    Show(ShowArgs),
    /// Read rejected records again and label them, at the version they had
    Replay(ReplayArgs),
    /// Close rejections without trying them again
    Discard(DiscardArgs),
}

/// Which rejections are meant.
#[derive(Debug, clap::Args)]
struct Which {
    /// The stream, by its name in the configuration
    stream: String,
    /// Where they stood: PARTITION:OFFSET, or TOPIC:PARTITION:OFFSET for another topic than the stream's
    #[arg(value_name = "PLACE")]
    places: Vec<String>,
    /// Only those for this reason, such as `json_invalid`
    #[arg(long, env = "ALBERTINE_DEAD_LETTER_REASON")]
    reason: Option<String>,
}

impl Which {
    fn filter(&self, stream: &StreamConfig, state: Option<RejectionState>) -> anyhow::Result<DeadLetterFilter> {
        let place = |text: &String| Place::parse(text, &stream.topic).map_err(|error| UsageError(error.to_string()));
        let places = self.places.iter().map(place).collect::<Result<_, _>>()?;
        Ok(DeadLetterFilter { state, reason: self.reason.clone(), places })
    }
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  albertine dead-letter list reviews
  albertine dead-letter list reviews --reason text_missing --limit 500
  albertine dead-letter list reviews --format json | jq '.reasons'")]
struct ListArgs {
    #[command(flatten)]
    which: Which,
    /// Only those in this state: open, replayed, discarded, or all
    #[arg(long, env = "ALBERTINE_DEAD_LETTER_STATE", default_value = "open")]
    state: String,
    /// How many are listed; all are counted
    #[arg(long, env = "ALBERTINE_DEAD_LETTER_LIST_LIMIT", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// How it is written
    #[arg(long, env = "ALBERTINE_DEAD_LETTER_LIST_FORMAT", value_enum, default_value_t = OutputFormat::Table)]
    format: OutputFormat,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  albertine dead-letter show reviews 3:4711
  albertine dead-letter show reviews 3:4711 --record

The record is taken from where the stream keeps it (`rejections.keep_records`), else from the topic. It is shown only
when asked for, since it may hold what is personal.")]
struct ShowArgs {
    /// The stream, by its name in the configuration
    stream: String,
    /// Where it stood: PARTITION:OFFSET, or TOPIC:PARTITION:OFFSET for another topic than the stream's
    place: String,
    /// Show the record's key, value and headers, too
    #[arg(long)]
    record: bool,
    /// How it is written
    #[arg(long, env = "ALBERTINE_DEAD_LETTER_SHOW_FORMAT", value_enum, default_value_t = OutputFormat::Table)]
    format: OutputFormat,
}

#[derive(Debug, clap::Args)]
#[command(
    group(clap::ArgGroup::new("meant").required(true).multiple(true).args(["places", "reason", "all"])),
    after_help = "\
Examples:
  albertine dead-letter replay reviews --reason text_missing
  albertine dead-letter replay reviews --all --limit 100000

For use after the mapping, or whatever made them fail, was put right. The records are taken from where the stream keeps
them (`rejections.keep_records`), else from the topic, while it still holds them. Each is labelled at the version it
had, so it replaces nothing that is newer, and published like any other. What is rejected again stays open, with the
new reason. Workers may run meanwhile. Exits with 1 where a record could not be had or was rejected again."
)]
struct ReplayArgs {
    #[command(flatten)]
    which: Which,
    /// All open rejections of the stream
    #[arg(long, conflicts_with_all = ["places", "reason"])]
    all: bool,
    /// At most so many, the oldest first
    #[arg(long, env = "ALBERTINE_DEAD_LETTER_REPLAY_LIMIT", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

#[derive(Debug, clap::Args)]
#[command(
    group(clap::ArgGroup::new("meant").required(true).multiple(true).args(["places", "reason", "all"])),
    after_help = "\
Examples:
  albertine dead-letter discard reviews 3:4711 3:4712
  albertine dead-letter discard reviews --reason text_empty

A discarded rejection stays as a row until its retention ends; a record that was kept of it is removed at once."
)]
struct DiscardArgs {
    #[command(flatten)]
    which: Which,
    /// All open rejections of the stream
    #[arg(long, conflicts_with_all = ["places", "reason"])]
    all: bool,
}

pub fn run(global: &GlobalOptions, args: &DeadLetterArgs) -> anyhow::Result<()> {
    let config = &global.load_config()?.with_streams()?;
    match &args.command {
        DeadLetterCommand::List(args) => list(config, args),
        DeadLetterCommand::Show(args) => show(config, args),
        DeadLetterCommand::Replay(args) => replay(config, args),
        DeadLetterCommand::Discard(args) => discard(config, args),
    }
}

fn list(config: &Config, args: &ListArgs) -> anyhow::Result<()> {
    let stream = find_stream(config, &args.which.stream)?;
    let state = match args.state.as_str() {
        "all" => None,
        state => Some(state.parse::<RejectionState>().map_err(|error| UsageError(format!("{error}, or all")))?),
    };
    let filter = args.which.filter(stream, state)?;
    let inspector = Inspector::connect(config, runtime()?, None)?;
    let (reasons, letters) = inspector.runtime.block_on(async {
        let reasons = inspector.store.dead_letter_reasons(&stream.name, &filter).await?;
        let letters = inspector.store.dead_letters(&stream.name, &filter, i64::from(args.limit), false).await?;
        anyhow::Ok((reasons, letters))
    })?;
    match args.format {
        OutputFormat::Json => print_json(&json!({
            "stream": &*stream.name,
            "reasons": reasons.iter().map(reason_json).collect::<Vec<_>>(),
            "rejections": letters.iter().map(letter_json).collect::<Vec<_>>(),
        })),
        OutputFormat::Table => {
            std::io::stdout().lock().write_all(list_text(stream, &args.state, &reasons, &letters).as_bytes())?;
            Ok(())
        }
    }
}

fn list_text(stream: &StreamConfig, state: &str, reasons: &[ReasonCount], letters: &[DeadLetter]) -> String {
    let total: i64 = reasons.iter().map(|reason| reason.count).sum();
    let state = if state == "all" { "" } else { &format!("{state} ") };
    if total == 0 {
        return format!("stream {} has no {state}rejections\n", stream.name);
    }
    let by_reason = reasons.iter().map(|reason| {
        vec![
            number(Some(reason.count)),
            reason.stage.as_str().into(),
            reason.reason.as_str().into(),
            age(Some(reason.first)),
            age(Some(reason.last)),
        ]
    });
    let by_place = letters.iter().map(|letter| {
        vec![
            place_text(stream, &letter.place).into(),
            letter.reason.as_str().into(),
            age(Some(letter.rejected_at)),
            letter.state.as_str().into(),
            printable(&letter.message).into(),
        ]
    });
    format!(
        "{}\n{}\n{} of {total} {state}rejections of stream {}\n",
        table(&["rejections", "stage", "reason", "first ago", "last ago"], by_reason),
        table(&["place", "reason", "ago", "state", "message"], by_place),
        letters.len(),
        stream.name,
    )
}

/// Without the topic, where it is the stream's.
fn place_text(stream: &StreamConfig, place: &Place) -> String {
    if place.topic == *stream.topic { format!("{}:{}", place.partition, place.offset) } else { place.to_string() }
}

fn show(config: &Config, args: &ShowArgs) -> anyhow::Result<()> {
    let stream = find_stream(config, &args.stream)?;
    let place = Place::parse(&args.place, &stream.topic).map_err(|error| UsageError(error.to_string()))?;
    let filter = DeadLetterFilter { places: vec![place.clone()], ..DeadLetterFilter::default() };
    let inspector = Inspector::connect(config, runtime()?, None)?;
    let letters =
        inspector.runtime.block_on(inspector.store.dead_letters(&stream.name, &filter, i64::MAX, args.record))?;
    // The newest, where it was read and rejected more than once.
    let Some(letter) = letters.into_iter().max_by_key(|letter| letter.rejected_at) else {
        bail!(
            "nothing was rejected at {place} of stream `{}`; `albertine dead-letter list` shows what was",
            stream.name
        );
    };
    let record = if args.record { record_of(&inspector, stream, &letter)? } else { None };
    match args.format {
        OutputFormat::Json => {
            let mut shown = letter_json(&letter);
            if args.record {
                shown["record"] = record.as_ref().map_or(Value::Null, record_json);
            }
            print_json(&shown)
        }
        OutputFormat::Table => {
            let mut text = letter_text(&letter);
            if args.record {
                text += &record
                    .as_ref()
                    .map_or_else(|| "record       not kept, and no longer in the topic\n".into(), record_text);
            }
            std::io::stdout().lock().write_all(text.as_bytes())?;
            Ok(())
        }
    }
}

/// The record as it was kept, or as the topic still holds it.
fn record_of(
    inspector: &Inspector<'_>,
    stream: &StreamConfig,
    letter: &DeadLetter,
) -> anyhow::Result<Option<SourceRecord>> {
    if letter.record.is_some() {
        return Ok(letter.record.clone());
    }
    let client = &inspector.config.kafka.client;
    let mut topic = TopicRecords::new(client, &stream.topic, generations(inspector, stream)?);
    topic.read(letter).context("cannot read the record again")
}

/// Of each partition of the stream's topic: its present generation.
fn generations(inspector: &Inspector<'_>, stream: &StreamConfig) -> anyhow::Result<BTreeMap<i32, i64>> {
    let generation = |(partition, store): (i32, StoreStanding)| Some((partition, store.checkpoint?.generation));
    Ok(inspector.stored(stream, &[])?.into_iter().filter_map(generation).collect())
}

fn discard(config: &Config, args: &DiscardArgs) -> anyhow::Result<()> {
    let stream = find_stream(config, &args.which.stream)?;
    let filter = args.which.filter(stream, Some(RejectionState::Open))?;
    let inspector = Inspector::connect(config, runtime()?, None)?;
    let count = inspector.runtime.block_on(inspector.store.discard_dead_letters(&stream.name, &filter))?;
    writeln!(std::io::stdout().lock(), "{count} rejections of stream {} discarded", stream.name)?;
    Ok(())
}

fn replay(config: &Config, args: &ReplayArgs) -> anyhow::Result<()> {
    let stream = find_stream(config, &args.which.stream)?;
    let filter = args.which.filter(stream, Some(RejectionState::Open))?;
    let inspector = Inspector::connect(config, runtime()?, None)?;
    let listed = |filter: &DeadLetterFilter, limit| {
        inspector.runtime.block_on(inspector.store.dead_letters(&stream.name, filter, limit, false))
    };
    let mut letters = listed(&filter, i64::from(args.limit))?;
    // A record that was read twice was rejected twice.
    letters.dedup_by(|later, letter| later.place == letter.place);
    let places: Vec<Place> = letters.iter().map(|letter| letter.place.clone()).collect();
    if places.is_empty() {
        writeln!(std::io::stdout().lock(), "stream {} has no open rejections of these", stream.name)?;
        return Ok(());
    }
    let unavailable = Unavailable::default();
    let replay = Replay { letters, generations: generations(&inspector, stream)?, unavailable: unavailable.clone() };
    inspector.runtime.block_on(async {
        let mut pipeline = Pipeline::start(config, [stream]).await?;
        let feed = topology::replay::feed(&pipeline, stream, replay);
        pipeline.add(stream, feed).await?;
        pipeline.run_until(wait_for_signal()?).await
    })?;
    let count = places.len();
    // Also those that are rejected for another reason now.
    let open = listed(&DeadLetterFilter { places, state: Some(RejectionState::Open), reason: None }, i64::MAX)?;
    report_replay(stream, count, &open, &unavailable.places())
}

fn report_replay(
    stream: &StreamConfig,
    count: usize,
    open: &[DeadLetter],
    unavailable: &[Place],
) -> anyhow::Result<()> {
    let again: BTreeSet<&Place> =
        open.iter().map(|letter| &letter.place).filter(|place| !unavailable.contains(place)).collect();
    let replayed = count - again.len() - unavailable.len();
    writeln!(std::io::stdout().lock(), "{replayed} of {count} rejections of stream {} replayed", stream.name)?;
    if again.is_empty() && unavailable.is_empty() {
        return Ok(());
    }
    let example = |places: &mut dyn Iterator<Item = &Place>| {
        places.next().map_or_else(String::new, |place| format!(", such as {}", place_text(stream, place)))
    };
    bail!(
        "{} could not be labelled and stay open{}; the records of {} are neither kept nor in the topic{}",
        again.len(),
        example(&mut again.iter().copied()),
        unavailable.len(),
        example(&mut unavailable.iter())
    )
}

fn time_text(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn letter_text(letter: &DeadLetter) -> String {
    let optional = |time: Option<DateTime<Utc>>| time.map_or_else(|| "-".to_owned(), time_text);
    let lines = [
        ("topic", letter.place.topic.clone()),
        ("partition", letter.place.partition.to_string()),
        ("offset", letter.place.offset.to_string()),
        ("stage", letter.stage.clone()),
        ("reason", letter.reason.clone()),
        ("message", printable(&letter.message)),
        ("produced", optional(letter.produced_at)),
        ("rejected", time_text(letter.rejected_at)),
        ("state", letter.state.as_str().to_owned()),
        ("settled", optional(letter.settled_at)),
    ];
    lines.into_iter().fold(String::new(), |text, (name, value)| format!("{text}{name:<12} {value}\n"))
}

fn letter_json(letter: &DeadLetter) -> Value {
    json!({
        "topic": letter.place.topic,
        "partition": letter.place.partition,
        "offset": letter.place.offset,
        "stage": letter.stage,
        "reason": letter.reason,
        "message": letter.message,
        "produced_at": letter.produced_at.map(time_text),
        "rejected_at": time_text(letter.rejected_at),
        "state": letter.state.as_str(),
        "settled_at": letter.settled_at.map(time_text),
    })
}

fn reason_json(reason: &ReasonCount) -> Value {
    json!({
        "stage": reason.stage,
        "reason": reason.reason,
        "rejections": reason.count,
        "first": time_text(reason.first),
        "last": time_text(reason.last),
    })
}

/// Bytes as text where they are, else as hexadecimal.
fn bytes_json(bytes: Option<&Vec<u8>>) -> Value {
    json!(HeaderValue::of(bytes.map(Vec::as_slice)))
}

fn record_json(record: &SourceRecord) -> Value {
    json!({"key": bytes_json(record.key.as_ref()), "value": bytes_json(record.value.as_ref()), "headers": record.headers})
}

fn record_text(record: &SourceRecord) -> String {
    let shown = |value: Value| match value {
        Value::String(text) => printable(&text),
        Value::Null => "-".into(),
        other => printable(&other.to_string()),
    };
    format!(
        "key          {}\nheaders      {}\nvalue        {}\n",
        shown(bytes_json(record.key.as_ref())),
        shown(json!(record.headers)),
        shown(bytes_json(record.value.as_ref()))
    )
}
