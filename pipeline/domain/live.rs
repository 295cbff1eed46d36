//! What subscribers see: the records of the live topic and the dead letters, made from finished records.
//!
//! The format is fixed by `docs/label.schema.json`; a test compares both. One record a label, keyed
//! `<document id>/<task>/<model>` so that a compacted topic keeps the newest of each; neither a task nor a
//! model may hold a slash, so the key reads back from its end. A deletion is one record without a value for
//! each model of the stream. A dead letter is the record as it came, with why in its headers.

use std::{fmt, str::FromStr, sync::Arc};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    checkpoint::{PartitionKey, Position},
    document::{Attributes, Finished, Outcome, SourceRecord},
    label::Label,
    rejection::Rejection,
};

/// The header of a label record, and of a deletion, that names the format.
pub const SCHEMA_HEADER: &str = "schema";
/// The header of both with the model, as `name@version`.
pub const MODEL_HEADER: &str = "model";
/// Names the format of a label record, in its header `schema`.
pub const LABEL_SCHEMA: &str = "albertine.label.v1";
/// The header with the place of the source record, a [`LivePosition`] as text.
pub const POSITION_HEADER: &str = "albertine.position";
/// The header of distributed tracing (W3C Trace Context), passed on where the source record has it.
pub const TRACE_HEADER: &str = "traceparent";

/// The headers of a dead letter: the stage that gave up, a word to group by, and what was expected and found.
pub const STAGE_HEADER: &str = "albertine.stage";
pub const REASON_HEADER: &str = "albertine.reason";
pub const MESSAGE_HEADER: &str = "albertine.message";
/// The header of a dead letter that was too large to go as it came: the bytes that were left out.
pub const OMITTED_HEADER: &str = "albertine.omitted-bytes";
/// What our headers of a dead letter begin with.
const HEADER_PREFIX: &str = "albertine.";

/// Where in the source the cause of a live record stood.
///
/// As text: `stream/topic/partition/epoch/offset`; none of the names may hold a slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LivePosition {
    pub key: PartitionKey,
    pub epoch: i64,
    pub offset: i64,
}

/// How far a partition is published. Ordered: an epoch begins where the one before ended, whatever its
/// offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Published {
    pub epoch: i64,
    /// Everything below is published.
    pub position: Position,
}

impl fmt::Display for Published {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "position {} of epoch {}", self.position.0, self.epoch)
    }
}

/// A header's value: text nearly always.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(untagged)]
pub enum HeaderValue {
    Text(String),
    Bytes { hex: String },
    Null,
}

impl HeaderValue {
    pub fn of(value: Option<&[u8]>) -> Self {
        match value.map(|value| (std::str::from_utf8(value), value)) {
            None => Self::Null,
            Some((Ok(text), _)) if !text.contains('\0') => Self::Text(text.to_owned()),
            Some((_, bytes)) => Self::Bytes { hex: hex::encode(bytes) },
        }
    }
}

pub type Headers = Vec<(String, HeaderValue)>;

/// Where a live record goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Destination {
    Labels,
    DeadLetters,
}

/// A record for Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveRecord {
    /// Offset of the source record.
    pub offset: i64,
    pub destination: Destination,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Headers,
}

/// The records of one stored batch, ready to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRange {
    pub epoch: i64,
    pub start: Position,
    pub end: Position,
    pub records: Vec<LiveRecord>,
    pub bytes: usize,
    pub stored_at: DateTime<Utc>,
}

impl OutboxRange {
    /// How far the partition is published once this range is.
    pub fn published(&self) -> Published {
        Published { epoch: self.epoch, position: self.end }
    }
}

/// What a stream publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveFormat {
    /// Task, model and version of each model, for the tombstones of a deletion.
    pub models: Vec<(Arc<str>, Arc<str>, Arc<str>)>,
    pub dead_letters: bool,
}

#[derive(Serialize)]
struct LabelRecord<'a> {
    stream: &'a str,
    document_id: &'a str,
    task: &'a str,
    label: &'a str,
    confidence: f32,
    probabilities: Map<String, Value>,
    model: &'a str,
    model_version: &'a str,
    depth: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    item: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rating: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    occurred_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    produced_at: Option<String>,
    labelled_at: String,
    source_topic: &'a str,
    source_partition: i32,
    source_offset: i64,
}

impl LiveFormat {
    /// The live records of a finished record, in the order in which they are published.
    pub fn records(&self, key: &PartitionKey, epoch: i64, finished: &Finished) -> Vec<LiveRecord> {
        let place = LivePosition { key: key.clone(), epoch, offset: finished.offset };
        match &finished.outcome {
            Outcome::Labelled { attributes, labels } => {
                labels.iter().map(|label| label_record(&place, finished, attributes, label)).collect()
            }
            Outcome::Deleted { id } => self
                .models
                .iter()
                .map(|(task, model, version)| LiveRecord {
                    offset: finished.offset,
                    destination: Destination::Labels,
                    key: Some(record_key(id, task, model).into_bytes()),
                    value: None,
                    headers: headers(&place, finished, model, version),
                })
                .collect(),
            Outcome::Rejected(rejection) if self.dead_letters => vec![dead_letter(&place, finished, rejection)],
            Outcome::Rejected(_) => Vec::new(),
        }
    }
}

/// The key of a label record.
pub fn record_key(document_id: &str, task: &str, model: &str) -> String {
    format!("{document_id}/{task}/{model}")
}

/// Document id, task and model of a label record's key; `None` where it is no such key.
pub fn split_key(key: &str) -> Option<(&str, &str, &str)> {
    let mut parts = key.rsplitn(3, '/');
    let (model, task, document_id) = (parts.next()?, parts.next()?, parts.next()?);
    [document_id, task, model].iter().all(|part| !part.is_empty()).then_some((document_id, task, model))
}

fn headers(place: &LivePosition, finished: &Finished, model: &str, version: &str) -> Headers {
    let text = |value: String| HeaderValue::Text(value);
    let mut headers = vec![
        (SCHEMA_HEADER.to_owned(), text(LABEL_SCHEMA.to_owned())),
        (MODEL_HEADER.to_owned(), text(format!("{model}@{version}"))),
        (POSITION_HEADER.to_owned(), text(place.to_string())),
    ];
    headers.extend(finished.trace.clone().map(|trace| (TRACE_HEADER.to_owned(), text(trace))));
    headers
}

fn label_record(place: &LivePosition, finished: &Finished, attributes: &Attributes, label: &Label) -> LiveRecord {
    let time = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Millis, true);
    let value = LabelRecord {
        stream: &place.key.stream,
        document_id: &attributes.id,
        task: &label.task,
        label: &label.label,
        confidence: label.confidence,
        probabilities: label
            .classes
            .iter()
            .zip(&label.probabilities)
            // Written as the shortest decimal that reads back as the same f32.
            .map(|(class, probability)| (class.to_string(), decimal(*probability)))
            .collect(),
        model: &label.model,
        model_version: &label.model_version,
        depth: label.depth,
        item: attributes.item.as_deref(),
        user: attributes.user.as_deref(),
        rating: attributes.rating,
        occurred_at: attributes.occurred_at.map(time),
        produced_at: finished.produced_at.map(time),
        labelled_at: time(finished.labelled_at),
        source_topic: &place.key.topic,
        source_partition: place.key.partition,
        source_offset: finished.offset,
    };
    LiveRecord {
        offset: finished.offset,
        destination: Destination::Labels,
        key: Some(record_key(&attributes.id, &label.task, &label.model).into_bytes()),
        // A map of strings and finite numbers always serialises.
        value: serde_json::to_vec(&value).ok(),
        headers: headers(place, finished, &label.model, &label.model_version),
    }
}

/// The shortest decimal that reads back as the same `f32`, with a point as JSON's readers expect of a fraction.
fn decimal(value: f32) -> Value {
    value.to_string().parse().ok().and_then(serde_json::Number::from_f64).map_or(Value::Null, Value::Number)
}

/// The record as it came, apart from headers that have the names of ours: a dead letter that is put on the source
/// again must not bring the position of its first try along. A record that would be larger than a broker takes by
/// default goes without its value, and if that is not enough, without its headers and its key.
fn dead_letter(place: &LivePosition, finished: &Finished, rejection: &Rejection) -> LiveRecord {
    /// Kafka's default for a record is 1 MiB; our headers and the framing need some of it.
    const BYTES_MAX: usize = 900_000;
    let SourceRecord { mut key, mut value, mut headers } = finished.record.as_deref().cloned().unwrap_or_default();
    headers.retain(|(name, _)| !name.starts_with(HEADER_PREFIX));
    let value_bytes = value.as_ref().map_or(0, Vec::len);
    let other_bytes = key.as_ref().map_or(0, Vec::len) + headers.iter().map(header_bytes).sum::<usize>();
    let mut omitted = 0;
    if value_bytes + other_bytes > BYTES_MAX {
        value = None;
        omitted += value_bytes;
    }
    if other_bytes > BYTES_MAX {
        key = None;
        headers.clear();
        omitted += other_bytes;
    }
    let mut add = |name: &str, value: String| headers.push((name.to_owned(), HeaderValue::Text(value)));
    add(POSITION_HEADER, place.to_string());
    add(STAGE_HEADER, rejection.stage.as_str().to_owned());
    add(REASON_HEADER, rejection.reason.to_owned());
    add(MESSAGE_HEADER, rejection.message.replace('\0', "\u{fffd}"));
    if omitted > 0 {
        add(OMITTED_HEADER, omitted.to_string());
    }
    LiveRecord { offset: finished.offset, destination: Destination::DeadLetters, key, value, headers }
}

/// The size of a header on the broker, without framing.
fn header_bytes((name, value): &(String, HeaderValue)) -> usize {
    name.len()
        + match value {
            HeaderValue::Text(text) => text.len(),
            HeaderValue::Bytes { hex } => hex.len() / 2,
            HeaderValue::Null => 0,
        }
}

impl fmt::Display for LivePosition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PartitionKey { stream, topic, partition } = &self.key;
        write!(formatter, "{stream}/{topic}/{partition}/{}/{}", self.epoch, self.offset)
    }
}

/// The header is not a position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a position: expected `stream/topic/partition/epoch/offset`")]
pub struct InvalidLivePosition(String);

impl FromStr for LivePosition {
    type Err = InvalidLivePosition;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.split('/').collect();
        let read = || {
            let [stream, topic, partition, epoch, offset] = parts.as_slice() else { return None };
            let key =
                PartitionKey { stream: (*stream).into(), topic: (*topic).into(), partition: partition.parse().ok()? };
            Some(Self { key, epoch: epoch.parse().ok()?, offset: offset.parse().ok()? })
        };
        read().ok_or_else(|| InvalidLivePosition(text.to_owned()))
    }
}
