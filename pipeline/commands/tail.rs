//! `albertine stream tail`: what `read_committed` subscribers see of a stream's live topic, as it comes.

use std::{
    io::{IsTerminal, Write},
    time::Duration,
};

use anyhow::bail;
use chrono::{DateTime, Utc};
use owo_colors::OwoColorize;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    UsageError, find_stream, runtime,
    terminal::{excerpt, json_line, output_closed, printable},
    wants_colour,
};
use crate::{
    config::resolved::{Config, StreamConfig},
    domain::live::{
        HeaderValue, LABEL_SCHEMA, LivePosition, MESSAGE_HEADER, MODEL_HEADER, OMITTED_HEADER, POSITION_HEADER,
        REASON_HEADER, SCHEMA_HEADER, STAGE_HEADER, split_key,
    },
    kafka::subscribe::{Next, Since, SubscribeError, Subscription, TopicRecord, Until},
};

/// Longest wait for a record. Bounds how late a closed pipe is noticed; shorter costs idle wake-ups.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  albertine stream tail reviews                                 labels from now on, until Ctrl-C
  albertine stream tail reviews --since 10m --label negative    and those of the last ten minutes
  albertine stream tail reviews --since beginning --no-follow --format json | jq .confidence
  albertine stream tail reviews --dead-letters --since 1d       what could not be labelled, and why

Shown is what a subscriber with isolation.level=read_committed sees. Nothing is written, and no group is joined.
Times are when a record was published, in UTC; so is that of `--since`.

With `--format json` a label is its record's value. Other records are objects too, told apart by a field: a
deletion has `deleted`, a record that is no label has `problem`, a dead letter has `reason`.

A deletion has a task, but neither a label nor an item: `--label` and `--item` leave it out. A record that is no
label is left out by each of the three.")]
pub struct TailArgs {
    /// The stream, by its name in the configuration
    name: String,
    /// Where to begin: `beginning`, so long ago (`10m`), or a time (`2026-01-31T00:00:00Z`) [default: now]
    #[arg(long, env = "ALBERTINE_STREAM_TAIL_SINCE", value_name = "TIME", value_parser = parse_since)]
    since: Option<Since>,
    /// Only records with this label; repeated, with any of them
    #[arg(long, env = "ALBERTINE_STREAM_TAIL_LABEL", value_name = "LABEL")]
    label: Vec<String>,
    /// Only records about this item; repeated, about any of them
    #[arg(long, env = "ALBERTINE_STREAM_TAIL_ITEM", value_name = "ITEM")]
    item: Vec<String>,
    /// Only records of this task; repeated, of any of them
    #[arg(long, env = "ALBERTINE_STREAM_TAIL_TASK", value_name = "TASK")]
    task: Vec<String>,
    /// End after so many records were shown
    #[arg(long, env = "ALBERTINE_STREAM_TAIL_LIMIT", value_name = "RECORDS", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// End where the topic ends now
    #[arg(long, env = "ALBERTINE_STREAM_TAIL_NO_FOLLOW", requires = "since")]
    no_follow: bool,
    /// Show the records that could not be labelled, with the reason and their place
    #[arg(long, env = "ALBERTINE_STREAM_TAIL_DEAD_LETTERS", conflicts_with_all = ["label", "item", "task"])]
    dead_letters: bool,
    /// How records are shown
    #[arg(long, env = "ALBERTINE_STREAM_TAIL_FORMAT", value_enum, default_value = "table", value_name = "FORMAT")]
    format: TailFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum TailFormat {
    /// A line a record, for people
    Table,
    /// A JSON object a line
    Json,
}

fn parse_since(text: &str) -> Result<Since, String> {
    if text == "beginning" {
        return Ok(Since::Beginning);
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(Since::At(time.to_utc()));
    }
    let ago = humantime_serde::re::humantime::parse_duration(text).ok().and_then(|ago| {
        let ago = chrono::TimeDelta::from_std(ago).ok()?;
        Utc::now().checked_sub_signed(ago)
    });
    ago.map(Since::At).ok_or_else(|| {
        "expected `beginning`, a duration such as `10m` or `2h 30m`, or a time such as `2026-01-31T00:00:00Z`".into()
    })
}

/// Shows records until the limit, the end, or a closed pipe.
pub fn run(config: &Config, args: &TailArgs) -> anyhow::Result<()> {
    let stream = find_stream(config, &args.name)?;
    let (topic, field) = topic(stream, args.dead_letters)?;
    let until = if args.no_follow { Until::PresentEnd } else { Until::Never };
    let since = args.since.unwrap_or(Since::Newest(0));
    let mut subscription = match Subscription::open(&config.kafka.client, &stream.group, topic, since, until) {
        Err(SubscribeError::Missing { topic }) => bail!(
            "topic `{topic}` does not exist yet: `albertine run` makes it when it starts; if it has another name, correct `streams.{}.live.{field}`",
            stream.name
        ),
        other => other?,
    };
    if std::io::stderr().is_terminal() && until == Until::Never {
        eprintln!("topic `{topic}`, {} partition(s); Ctrl-C ends", subscription.partitions());
    }
    let runtime = runtime()?;
    let closed = runtime.spawn(output_closed());
    let mut out = std::io::stdout().lock();
    let view = View { args, colour: wants_colour(&out) };
    let mut shown = 0;
    while !closed.is_finished() && args.limit != Some(shown) {
        let record = match subscription.next(POLL_TIMEOUT)? {
            Next::Record(record) => record,
            Next::Nothing => continue,
            Next::End => break,
        };
        if let Some(line) = view.line(&record) {
            writeln!(out, "{line}")?;
            shown += 1;
        }
    }
    Ok(())
}

/// The topic to show, and the field of the configuration that names it.
fn topic(stream: &StreamConfig, dead_letters: bool) -> Result<(&str, &'static str), UsageError> {
    let name = &stream.name;
    let live = stream.live.as_ref().ok_or_else(|| {
        UsageError(format!(
            "stream `{name}` has no live topic: its labels are only stored; remove `enabled = false` from `streams.{name}.live` to publish them"
        ))
    })?;
    if !dead_letters {
        return Ok((&live.labels.topic, "topic"));
    }
    let dead_letters = live.dead_letters.as_ref().ok_or_else(|| {
        UsageError(format!(
            "stream `{name}` has no topic for dead letters: set `streams.{name}.live.dead_letters`; until then rejected records are only rows of `rejections`"
        ))
    })?;
    Ok((&dead_letters.topic, "dead_letters"))
}

/// What a record of the live topic is.
enum Live {
    Label(Box<LabelFields>),
    Deletion {
        document_id: String,
        task: String,
        model: String,
    },
    /// Not written by this program, or by a newer one; why it cannot be read.
    Unknown(String),
}

/// Of a label record what a line of the table, or a filter, needs.
#[derive(Deserialize)]
struct LabelFields {
    document_id: String,
    task: String,
    label: String,
    confidence: f32,
    model: String,
    item: Option<String>,
    rating: Option<f64>,
}

impl Live {
    fn of(record: &TopicRecord) -> Self {
        match record.header(SCHEMA_HEADER) {
            Some(LABEL_SCHEMA) => {}
            Some(other) => return Self::Unknown(format!("has the schema `{other}`, not `{LABEL_SCHEMA}`")),
            None => return Self::Unknown(format!("has no header `{SCHEMA_HEADER}`")),
        }
        let Some(value) = &record.value else {
            let key = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
            return match key.and_then(split_key) {
                Some((document_id, task, model)) => {
                    Self::Deletion { document_id: document_id.into(), task: task.into(), model: model.into() }
                }
                None => Self::Unknown("deletes what its key does not name".into()),
            };
        };
        serde_json::from_slice(value)
            .map_or_else(|error| Self::Unknown(format!("is no label record: {error}")), Self::Label)
    }
}

/// How the options have records shown.
struct View<'a> {
    args: &'a TailArgs,
    colour: bool,
}

impl View<'_> {
    /// The record's line, without its end; `None` where a filter leaves it out.
    fn line(&self, record: &TopicRecord) -> Option<String> {
        let is_table = self.args.format == TailFormat::Table;
        if self.args.dead_letters {
            return Some(if is_table { self.dead_letter_row(record) } else { dead_letter_object(record) });
        }
        let live = Live::of(record);
        self.is_wanted(&live).then(|| if is_table { self.row(record, &live) } else { object(record, &live) })
    }

    fn is_wanted(&self, live: &Live) -> bool {
        let TailArgs { label, item, task, .. } = self.args;
        let is_one_of = |wanted: &[String], found: Option<&str>| {
            wanted.is_empty() || found.is_some_and(|found| wanted.iter().any(|wanted| wanted == found))
        };
        let (found_label, found_item, found_task) = match live {
            Live::Label(found) => (Some(found.label.as_str()), found.item.as_deref(), Some(found.task.as_str())),
            Live::Deletion { task, .. } => (None, None, Some(task.as_str())),
            Live::Unknown(_) => (None, None, None),
        };
        is_one_of(label, found_label) && is_one_of(item, found_item) && is_one_of(task, found_task)
    }

    fn row(&self, record: &TopicRecord, live: &Live) -> String {
        let time = time(record);
        match live {
            Live::Label(found) => {
                let label = self.label(&found.label);
                let id = self.id(&found.document_id);
                let item = found.item.as_deref().map_or_else(String::new, |item| format!("  item {}", excerpt(item)));
                let rating = found.rating.map_or_else(String::new, |rating| format!("  rating {rating}"));
                let made_by = made_by(&found.task, &found.model);
                format!("{time}  {label}  {:.2}  {id}{item}{rating}  {made_by}", found.confidence)
            }
            Live::Deletion { document_id, task, model } => {
                format!("{time}  {:<9}        {}  {}", "deleted", self.id(document_id), made_by(task, model))
            }
            Live::Unknown(problem) => {
                let key = record.key.as_deref().map_or_else(String::new, |key| String::from_utf8_lossy(key).into());
                let place = format!("partition {} offset {}", record.partition, record.offset);
                format!("{time}  {}        {}  {place}  {}", self.failure("unknown"), excerpt(&key), printable(problem))
            }
        }
    }

    fn dead_letter_row(&self, record: &TopicRecord) -> String {
        let header = |name| record.header(name).map_or_else(|| "-".into(), printable);
        let key = record.key.as_deref().map_or_else(|| "-".into(), |key| excerpt(&String::from_utf8_lossy(key)));
        let place = match position(record) {
            Some(LivePosition { key, offset, .. }) => {
                format!("topic {} partition {} offset {offset}", key.topic, key.partition)
            }
            None => "unknown place".into(),
        };
        let value = match (&record.value, record.header(OMITTED_HEADER)) {
            (Some(value), _) => excerpt(&String::from_utf8_lossy(value)),
            (None, Some(bytes)) => format!("({} bytes left out)", excerpt(bytes)),
            (None, None) => "(no value)".into(),
        };
        let reason = self.failure(&header(REASON_HEADER));
        let (stage, message) = (header(STAGE_HEADER), header(MESSAGE_HEADER));
        format!("{}  {reason}  {stage}  {place}  key {key}  {message}  {value}", time(record))
    }

    fn label(&self, label: &str) -> String {
        let padded = format!("{:<9}", excerpt(label));
        match label {
            "negative" if self.colour => padded.red().to_string(),
            "positive" if self.colour => padded.green().to_string(),
            _ => padded,
        }
    }

    fn id(&self, id: &str) -> String {
        let id = excerpt(id);
        if self.colour { id.cyan().to_string() } else { id }
    }

    fn failure(&self, word: &str) -> String {
        let padded = format!("{word:<9}");
        if self.colour { padded.yellow().to_string() } else { padded }
    }
}

fn made_by(task: &str, model: &str) -> String {
    format!("{}/{}", excerpt(task), excerpt(model))
}

/// When the record was published.
fn time(record: &TopicRecord) -> String {
    let time = record.timestamp_ms.and_then(DateTime::from_timestamp_millis);
    time.map_or_else(|| format!("{:<23}", "-"), |time| time.format("%F %T%.3f").to_string())
}

fn position(record: &TopicRecord) -> Option<LivePosition> {
    record.header(POSITION_HEADER)?.parse().ok()
}

fn text(bytes: Option<&Vec<u8>>) -> Value {
    json!(HeaderValue::of(bytes.map(Vec::as_slice)))
}

fn object(record: &TopicRecord, live: &Live) -> String {
    match live {
        // It was read as JSON, so it is UTF-8.
        Live::Label(_) => json_line(&String::from_utf8_lossy(record.value.as_deref().unwrap_or_default())),
        Live::Deletion { document_id, task, model } => {
            let version =
                record.header(MODEL_HEADER).and_then(|header| header.rsplit_once('@')).map(|(_, found)| found);
            let fields = json!({
                "key": text(record.key.as_ref()),
                "deleted": true,
                "document_id": document_id,
                "task": task,
                "model": model,
                "model_version": version,
            });
            with_source(fields, record)
        }
        Live::Unknown(problem) => with_source(
            json!({
                "key": text(record.key.as_ref()),
                "problem": problem,
                "value": text(record.value.as_ref()),
                "partition": record.partition,
                "offset": record.offset,
            }),
            record,
        ),
    }
}

fn dead_letter_object(record: &TopicRecord) -> String {
    let mut fields = json!({
        "key": text(record.key.as_ref()),
        "reason": record.header(REASON_HEADER),
        "stage": record.header(STAGE_HEADER),
        "message": record.header(MESSAGE_HEADER),
        "value": text(record.value.as_ref()),
    });
    if let Some(bytes) = record.header(OMITTED_HEADER).and_then(|bytes| bytes.parse::<u64>().ok()) {
        fields["omitted_bytes"] = json!(bytes);
    }
    with_source(fields, record)
}

/// The object with the place of the source record, by the names a label record has for it.
fn with_source(mut fields: Value, record: &TopicRecord) -> String {
    if let (Some(LivePosition { key, offset, .. }), Value::Object(fields)) = (position(record), &mut fields) {
        let place = [
            ("stream", json!(&*key.stream)),
            ("source_topic", json!(&*key.topic)),
            ("source_partition", json!(key.partition)),
            ("source_offset", json!(offset)),
        ];
        fields.extend(place.map(|(name, value)| (name.to_owned(), value)));
    }
    json_line(&fields.to_string())
}
