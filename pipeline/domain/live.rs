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
/// As text: `stream/topic/partition/epoch/offset`. No stream's name and no topic's holds a slash; that of a job, which
/// stands for a topic, holds one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LivePosition {
    pub key: PartitionKey,
    pub epoch: i64,
    pub offset: i64,
}

/// How far a partition is published. Ordered: an epoch begins where the one before ended, whatever its
/// offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, serde::Deserialize)]
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
    /// How far the partition was published before this range.
    pub fn begins(&self) -> Published {
        Published { epoch: self.epoch, position: self.start }
    }

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
    language: Option<&'a str>,
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
        language: attributes.language.as_deref(),
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
        let read = || {
            let (stream, rest) = text.split_once('/')?;
            let mut parts = rest.rsplitn(4, '/');
            let (offset, epoch, partition, topic) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
            let key = PartitionKey { stream: stream.into(), topic: topic.into(), partition: partition.parse().ok()? };
            Some(Self { key, epoch: epoch.parse().ok()?, offset: offset.parse().ok()? })
        };
        read().ok_or_else(|| InvalidLivePosition(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::domain::{rejection::Stage, version::Version};

    const OFFSET: i64 = 41;

    fn key() -> PartitionKey {
        PartitionKey { stream: "reviews".into(), topic: "source".into(), partition: 3 }
    }

    fn format() -> LiveFormat {
        let model = |name: &str, version: &str| ("sentiment".into(), name.into(), version.into());
        LiveFormat { models: vec![model("small", "1"), model("large", "7")], dead_letters: true }
    }

    fn finished(outcome: Outcome) -> Finished {
        Finished {
            offset: OFFSET,
            version: Version { generation: 1, timestamp_ms: 0, partition: 3, offset: OFFSET },
            produced_at: None,
            labelled_at: DateTime::UNIX_EPOCH,
            bytes: 0,
            trace: None,
            place: None,
            record: None,
            outcome,
        }
    }

    fn label(model: &str, probabilities: Vec<f32>) -> Label {
        Label {
            task: "sentiment".into(),
            model: model.into(),
            model_version: "1".into(),
            label: "positive".into(),
            confidence: probabilities[1],
            classes: ["negative".into(), "positive".into()].into(),
            probabilities,
            depth: 6,
        }
    }

    fn labelled(attributes: Attributes) -> Finished {
        finished(Outcome::Labelled { attributes, labels: vec![label("small", vec![0.25, 0.75])] })
    }

    /// Everything that can be there is.
    fn full() -> Finished {
        let attributes = Attributes {
            id: "d1".into(),
            item: Some("kettle".into()),
            user: Some("u1".into()),
            rating: Some(4.5),
            occurred_at: DateTime::from_timestamp_millis(1_700_000_000_123),
            language: Some("en".into()),
        };
        let produced_at = DateTime::from_timestamp_millis(1_700_000_001_000);
        Finished { produced_at, trace: Some("00-a-b-01".into()), ..labelled(attributes) }
    }

    /// Nothing that may be missing is there.
    fn bare() -> Finished {
        labelled(Attributes { id: "d1".into(), ..Attributes::default() })
    }

    fn published(finished: &Finished) -> Vec<LiveRecord> {
        format().records(&key(), 2, finished)
    }

    fn text(bytes: Option<&Vec<u8>>) -> &str {
        std::str::from_utf8(bytes.expect("a key or value")).unwrap()
    }

    fn value(finished: &Finished) -> Value {
        serde_json::from_str(text(published(finished)[0].value.as_ref())).unwrap()
    }

    fn header<'a>(record: &'a LiveRecord, name: &str) -> Vec<&'a HeaderValue> {
        record.headers.iter().filter(|(found, _)| found == name).map(|(_, value)| value).collect()
    }

    fn schema() -> Value {
        serde_json::from_str(include_str!("../../docs/label.schema.json")).unwrap()
    }

    fn names(object: &Value) -> BTreeSet<&str> {
        object.as_object().unwrap().keys().map(String::as_str).collect()
    }

    /// What is wrong with a value by a schema: of JSON Schema just what `label.schema.json` uses. Another keyword
    /// is a problem too, so that none goes unchecked.
    fn problems(schema: &Value, value: &Value, path: &str) -> Vec<String> {
        let mut problems = Vec::new();
        for (keyword, wanted) in schema.as_object().unwrap() {
            let (number, bound) = (value.as_f64().unwrap_or(f64::NAN), wanted.as_f64().unwrap_or(f64::NAN));
            let size = |least: usize| least as u64 >= wanted.as_u64().unwrap();
            let is_kept = match keyword.as_str() {
                "$schema" | "$id" | "title" | "description" => true,
                "type" => match wanted.as_str().unwrap() {
                    "object" => value.is_object(),
                    "string" => value.is_string(),
                    "number" => value.is_number(),
                    "integer" => value.is_i64() || value.is_u64(),
                    _ => false,
                },
                "minimum" => number >= bound,
                "exclusiveMinimum" => number > bound,
                "maximum" => number <= bound,
                "minLength" => value.as_str().is_some_and(|text| size(text.chars().count())),
                "minProperties" => value.as_object().is_some_and(|object| size(object.len())),
                "format" => {
                    let time = value.as_str().map(DateTime::parse_from_rfc3339);
                    wanted == "date-time" && time.is_some_and(|time| time.is_ok())
                }
                "required" => wanted.as_array().unwrap().iter().all(|name| value.get(name.as_str().unwrap()).is_some()),
                "properties" => {
                    for (name, schema) in wanted.as_object().unwrap() {
                        let found = value.get(name).map(|value| self::problems(schema, value, name));
                        problems.extend(found.unwrap_or_default());
                    }
                    true
                }
                "additionalProperties" => {
                    assert!(schema.get("properties").is_none(), "together they are not understood here");
                    for (name, value) in value.as_object().into_iter().flatten() {
                        problems.extend(self::problems(wanted, value, name));
                    }
                    true
                }
                _ => false,
            };
            if !is_kept {
                problems.push(format!("{path}: {keyword}"));
            }
        }
        problems
    }

    #[test]
    fn the_schema_holds_for_records_and_has_their_fields_and_no_others() {
        let (schema, full, bare) = (schema(), value(&full()), value(&bare()));
        assert_eq!(problems(&schema, &full, ""), Vec::<String>::new());
        assert_eq!(problems(&schema, &bare, ""), Vec::<String>::new());
        assert_eq!(names(&full), names(&schema["properties"]), "a field is only in the record or only in the schema");
        let required: BTreeSet<&str> =
            schema["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        assert_eq!(names(&bare), required, "what is always there is required");
        let described = |(_, field): (&String, &Value)| field["description"].is_string();
        assert!(schema["properties"].as_object().unwrap().iter().all(described));
        assert_eq!(schema["title"], LABEL_SCHEMA);
    }

    #[test]
    fn the_example_for_subscribers_is_such_a_record() {
        let (_, example) = include_str!("../../docs/live-topics.md").split_once("```json\n").unwrap();
        let example: Value = serde_json::from_str(example.split_once("```").unwrap().0).unwrap();
        assert_eq!(problems(&schema(), &example, ""), Vec::<String>::new());
        assert!(names(&example).is_subset(&names(&schema()["properties"])), "{example}");
    }

    #[test]
    fn the_schema_refuses_what_no_record_is() {
        let (schema, record) = (schema(), value(&full()));
        for name in names(&record) {
            let mut wrong = record.clone();
            wrong[name] = json!([]);
            assert!(!problems(&schema, &wrong, "").is_empty(), "`{name}` may be an array");
        }
        let cases = [
            ("confidence", json!(0)),
            ("confidence", json!(1.5)),
            ("probabilities", json!({"negative": 0.5})),
            ("probabilities", json!({"negative": -0.5, "positive": 1.0})),
            ("depth", json!(0.5)),
            ("labelled_at", json!("yesterday")),
            ("document_id", json!("")),
        ];
        for (name, value) in cases {
            let mut wrong = record.clone();
            wrong[name] = value;
            assert!(!problems(&schema, &wrong, "").is_empty(), "`{name}` may be {}", wrong[name]);
        }
        let mut wrong = record;
        wrong.as_object_mut().unwrap().remove("label");
        assert_eq!(problems(&schema, &wrong, ""), [": required"]);
    }

    #[test]
    fn a_label_record_has_its_key_and_its_headers() {
        let records = published(&full());
        assert_eq!(records.len(), 1);
        let record = &records[0];
        assert_eq!((record.offset, record.destination), (OFFSET, Destination::Labels));
        assert_eq!(text(record.key.as_ref()), "d1/sentiment/small");
        let expected = [
            ("schema", LABEL_SCHEMA),
            ("model", "small@1"),
            ("albertine.position", "reviews/source/3/2/41"),
            ("traceparent", "00-a-b-01"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), HeaderValue::Text(value.to_owned())));
        assert_eq!(record.headers, expected);
        assert_eq!(header(&published(&bare())[0], TRACE_HEADER), [] as [&HeaderValue; 0]);
    }

    #[test]
    fn each_label_of_a_document_is_a_record_in_their_order() {
        let labels = vec![label("small", vec![0.5, 0.5]), label("large", vec![0.5, 0.5])];
        let attributes = Attributes { id: "a/b".into(), ..Attributes::default() };
        let records = published(&finished(Outcome::Labelled { attributes, labels }));
        let keys: Vec<&str> = records.iter().map(|record| text(record.key.as_ref())).collect();
        assert_eq!(keys, ["a/b/sentiment/small", "a/b/sentiment/large"]);
    }

    #[test]
    fn a_key_reads_back_from_its_end() {
        for id in ["d1", "a/b", "/", "a//b/", " "] {
            assert_eq!(split_key(&record_key(id, "sentiment", "small")), Some((id, "sentiment", "small")));
        }
        for other in ["", "d1", "d1/sentiment", "/sentiment/small", "d1//small", "d1/sentiment/"] {
            assert_eq!(split_key(other), None, "{other}");
        }
    }

    #[test]
    fn probabilities_are_the_shortest_decimals() {
        let probabilities = vec![0.1, 1.0];
        let labels = vec![label("small", probabilities)];
        let attributes = Attributes { id: "d1".into(), ..Attributes::default() };
        let records = published(&finished(Outcome::Labelled { attributes, labels }));
        let value = text(records[0].value.as_ref());
        assert!(value.contains(r#""confidence":1.0,"probabilities":{"negative":0.1,"positive":1.0}"#), "{value}");
        for (found, expected) in [(0.3, "0.3"), (0.0, "0.0"), (1e-10, "1e-10"), (1.0 / 3.0, "0.33333334")] {
            assert_eq!(decimal(found).to_string(), expected);
        }
    }

    #[test]
    fn a_deletion_is_a_record_without_a_value_for_each_model() {
        let records = published(&finished(Outcome::Deleted { id: "d1".into() }));
        let keys: Vec<&str> = records.iter().map(|record| text(record.key.as_ref())).collect();
        assert_eq!(keys, ["d1/sentiment/small", "d1/sentiment/large"]);
        for (record, model) in records.iter().zip(["small@1", "large@7"]) {
            assert_eq!((record.destination, &record.value), (Destination::Labels, &None));
            assert_eq!(header(record, MODEL_HEADER), [&HeaderValue::Text(model.into())]);
            assert_eq!(header(record, SCHEMA_HEADER), [&HeaderValue::Text(LABEL_SCHEMA.into())]);
        }
    }

    fn rejected(record: SourceRecord) -> Finished {
        let rejection = Rejection::new(Stage::Decode, "json_invalid", "is\0not JSON");
        Finished { record: Some(record.into()), ..finished(Outcome::Rejected(rejection)) }
    }

    fn dead_letter_of(record: SourceRecord) -> LiveRecord {
        let mut records = published(&rejected(record));
        assert_eq!(records.len(), 1);
        records.remove(0)
    }

    #[test]
    fn a_dead_letter_is_the_record_as_it_came_with_why_in_its_headers() {
        let bytes = HeaderValue::of(Some(b"\xff\x00"));
        let came_with = vec![("tenant".to_owned(), bytes.clone()), ("empty".to_owned(), HeaderValue::Null)];
        let source =
            SourceRecord { key: Some(b"\xfe".to_vec()), value: Some(b"{not".to_vec()), headers: came_with.clone() };
        let record = dead_letter_of(source);
        assert_eq!((record.offset, record.destination), (OFFSET, Destination::DeadLetters));
        assert_eq!((record.key, record.value), (Some(b"\xfe".to_vec()), Some(b"{not".to_vec())));
        let ours = [
            (POSITION_HEADER, "reviews/source/3/2/41"),
            (STAGE_HEADER, "decode"),
            (REASON_HEADER, "json_invalid"),
            (MESSAGE_HEADER, "is\u{fffd}not JSON"),
        ];
        let ours = ours.map(|(name, value)| (name.to_owned(), HeaderValue::Text(value.to_owned())));
        assert_eq!(record.headers, [came_with, ours.to_vec()].concat());
    }

    #[test]
    fn a_dead_letter_that_is_tried_again_has_the_position_of_its_last_try_alone() {
        let old = ("albertine.position".to_owned(), HeaderValue::Text("reviews/source/3/9/9999".into()));
        let record = dead_letter_of(SourceRecord { headers: vec![old], ..SourceRecord::default() });
        assert_eq!(header(&record, POSITION_HEADER), [&HeaderValue::Text("reviews/source/3/2/41".into())]);
    }

    #[test]
    fn a_dead_letter_that_no_broker_would_take_says_how_much_it_left_out() {
        let large = || Some(vec![b'x'; 1_000_000]);
        let kept = ("tenant".to_owned(), HeaderValue::Text("a".into()));
        let source = SourceRecord { key: Some(b"k".to_vec()), value: large(), headers: vec![kept.clone()] };
        let record = dead_letter_of(source);
        assert_eq!((&record.key, &record.value, &record.headers[0]), (&Some(b"k".to_vec()), &None, &kept));
        assert_eq!(header(&record, OMITTED_HEADER), [&HeaderValue::Text("1000000".into())]);

        let without = SourceRecord { key: large(), value: Some(b"v".to_vec()), headers: vec![kept] };
        let record = dead_letter_of(without);
        assert_eq!((&record.key, &record.value), (&None, &None));
        assert_eq!(header(&record, OMITTED_HEADER), [&HeaderValue::Text("1000008".into())]);
        assert_eq!(header(&record, "tenant"), [] as [&HeaderValue; 0]);

        let small = SourceRecord { value: Some(vec![b'x'; 900_000]), ..SourceRecord::default() };
        assert_eq!(dead_letter_of(small).value.map(|value| value.len()), Some(900_000));
    }

    #[test]
    fn without_a_topic_for_dead_letters_there_are_none() {
        let without = LiveFormat { dead_letters: false, ..format() };
        assert_eq!(without.records(&key(), 2, &rejected(SourceRecord::default())), []);
    }

    #[test]
    fn a_header_is_text_wherever_postgres_can_store_it_as_such() {
        let hex = |hex: &str| HeaderValue::Bytes { hex: hex.into() };
        assert_eq!(HeaderValue::of(Some("ü".as_bytes())), HeaderValue::Text("ü".into()));
        assert_eq!(HeaderValue::of(Some(b"")), HeaderValue::Text(String::new()));
        assert_eq!(HeaderValue::of(Some(b"a\xff")), hex("61ff"));
        assert_eq!(HeaderValue::of(Some(b"a\0")), hex("6100"));
        assert_eq!(HeaderValue::of(None), HeaderValue::Null);
        for value in [HeaderValue::of(Some(b"a")), hex("61ff"), HeaderValue::Null] {
            let stored = serde_json::to_string(&value).unwrap();
            assert_eq!(serde_json::from_str::<HeaderValue>(&stored).unwrap(), value, "{stored}");
        }
    }

    #[test]
    fn what_is_no_position_is_refused_with_what_is_expected() {
        for text in ["", "a/b/3/2", "a/b/3/2/1/x", "a/b/c/2/1", "a/b/3/2/", "a/b/99999999999/2/1"] {
            let error = text.parse::<LivePosition>().unwrap_err().to_string();
            assert_eq!(error, format!("`{text}` is not a position: expected `stream/topic/partition/epoch/offset`"));
        }
    }

    proptest! {
        #[test]
        fn a_position_reads_back_as_it_was_written(
            names in ("[a-zA-Z0-9._-]{1,20}", "[a-zA-Z0-9._-]{1,20}(/[a-zA-Z0-9._-]{1,20})?"),
            (partition, epoch, offset) in (0..i32::MAX, 0..i64::MAX, 0..i64::MAX),
        ) {
            let key = PartitionKey { stream: names.0.as_str().into(), topic: names.1.as_str().into(), partition };
            let position = LivePosition { key, epoch, offset };
            prop_assert_eq!(position.to_string().parse::<LivePosition>().unwrap(), position);
        }

        #[test]
        fn a_probability_reads_back_as_the_same_float(probability in 0.0_f32..=1.0) {
            let written = decimal(probability).to_string();
            prop_assert_eq!(written.parse::<f32>().unwrap().to_bits(), probability.to_bits(), "{}", written);
        }
    }
}
