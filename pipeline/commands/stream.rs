//! `albertine stream`: puts records on a stream's topic, and looks at what is there and what comes of it.

use std::{
    path::PathBuf,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde_json::{Map, Value};

use super::{GlobalOptions, find_stream, peek, progress, runtime, tail};
use crate::{
    config::resolved::{Config, StreamConfig},
    decode::mapping::FieldPath,
    kafka::{admin, produce::RecordProducer},
    source::file::{self, FileFormat},
};

#[derive(Debug, clap::Args)]
pub struct StreamArgs {
    #[command(subcommand)]
    command: StreamCommand,
}

#[derive(Debug, clap::Subcommand)]
enum StreamCommand {
    /// Put the records of a file on a stream's topic
    Produce(ProduceArgs),
    /// Show a stream's newest records as its mapping sees them, or propose a mapping for a topic
    Peek(peek::PeekArgs),
    /// Show the labels of a stream's live topic as they are published
    Tail(tail::TailArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  albertine stream produce reviews reviews.jsonl
  echo '{\"id\": \"r1\", \"text\": \"A fine kettle.\"}' | albertine stream produce reviews -

The record's key is its id, so that all records of a document go to one partition. Ids come from where the
stream's mapping says; where that is the key, from the field `--key-field` names.")]
struct ProduceArgs {
    /// The stream, by its name in the configuration
    name: String,
    /// The file, as JSON lines or CSV with a header; `-` for the standard input
    file: PathBuf,
    /// How the records are written [default: by the file's name]
    #[arg(long, env = "ALBERTINE_STREAM_PRODUCE_FORMAT", value_enum)]
    format: Option<FileFormat>,
    /// Make the topic with this many partitions unless it is there
    #[arg(long, env = "ALBERTINE_STREAM_PRODUCE_PARTITIONS", value_name = "COUNT", value_parser = clap::value_parser!(i32).range(1..=10_000))]
    partitions: Option<i32>,
    /// The field that becomes the key, for streams whose id is the record's key
    #[arg(long, env = "ALBERTINE_STREAM_PRODUCE_KEY_FIELD", default_value = "id", value_name = "FIELD")]
    key_field: String,
    /// Records a second, to imitate live traffic [default: as fast as possible]
    #[arg(long, env = "ALBERTINE_STREAM_PRODUCE_RATE", value_name = "RECORDS", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
}

pub fn run(global: &GlobalOptions, args: &StreamArgs) -> anyhow::Result<()> {
    match &args.command {
        StreamCommand::Produce(args) => produce(&global.load_config()?.with_streams()?, args),
        StreamCommand::Peek(args) => peek::run(&global.load_config_or_defaults()?, args),
        StreamCommand::Tail(args) => tail::run(&global.load_config()?.with_streams()?, args),
    }
}

fn produce(config: &Config, args: &ProduceArgs) -> anyhow::Result<()> {
    let stream = find_stream(config, &args.name)?;
    let input = file::open(Some(&args.file))?;
    if let Some(partitions) = args.partitions {
        runtime()?.block_on(admin::ensure_topic(&config.kafka.client, &stream.topic, partitions))?;
    }
    let producer = RecordProducer::new(&config.kafka.client, &stream.topic).context("cannot start the producer")?;
    let template = if input.size.is_some() { "{wide_bar} {bytes}/{total_bytes} {eta}" } else { "{spinner} {bytes}" };
    let (bar, consumed) = (progress::bar(input.size, template), input.consumed.clone());
    let format = args.format.or_else(|| file::format_of(Some(&args.file))).unwrap_or(FileFormat::Jsonl);
    let started = Instant::now();
    let (mut sent, mut bad) = (0_u32, 0_u64);
    for record in input.records(format)? {
        bar.set_position(consumed.bytes());
        let record = match record {
            Ok(record) => record,
            Err(error) if error.is_one_record() => {
                bad += 1;
                bar.suspend(|| eprintln!("{error}"));
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let key = key_of(stream, &record.fields, &args.key_field);
        let value = serde_json::to_vec(&record.fields)?;
        producer
            .send(key.as_deref(), Some(&value))
            .with_context(|| format!("cannot send the record of {}", record.place))?;
        sent += 1;
        if let Some(rate) = args.rate {
            let due = started + Duration::from_secs(1) * sent / rate;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
    let counts = producer.finish().context("not all records were acknowledged")?;
    bar.finish_and_clear();
    let (acknowledged, failed) = (counts.acknowledged.load(Ordering::Relaxed), counts.failed.load(Ordering::Relaxed));
    eprintln!("{acknowledged} records on topic `{}` in {:.1} s", stream.topic, started.elapsed().as_secs_f64());
    if failed + bad > 0 {
        bail!("{bad} records could not be read and {failed} were not acknowledged");
    }
    Ok(())
}

/// The id, where the record has one; a record without is rejected when it is read, with its place.
fn key_of(stream: &StreamConfig, fields: &Map<String, Value>, key_field: &str) -> Option<String> {
    let id = match &stream.decoder.mapping.id {
        FieldPath::Key => fields.get(key_field)?.clone(),
        FieldPath::Pointer(pointer) => Value::Object(fields.clone()).pointer(pointer)?.clone(),
        FieldPath::Value | FieldPath::Position | FieldPath::Elements(_) => return None,
    };
    match id {
        Value::String(id) => Some(id),
        Value::Number(id) => Some(id.to_string()),
        _ => None,
    }
}
