//! Sends every record of the table between two good ones, to a real broker, through the pipeline, into a real database:
//! each becomes what the table says, nothing else changes by a bit, and nothing stops.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};
use sqlx::Row as _;

use super::table::{Expected, FEEDS, Feed, Row, rows};
use crate::support::{
    broker::{OddRecord, Topic, odd_producer, produce_odd},
    eventually,
    pipeline::{Options, Process, Stream},
    registry::{self, Registered, avro, framed, protobuf},
};

/// Texts of the good records, and so what their labels are made of.
const GOOD_TEXTS: [&str; 6] = ["good", "bad", "fine", "good good bad", "bad, but fine", "nothing known"];

/// The largest record of the table, and some.
const RECORD_BYTES_MAX: &str = "33554432";

/// The schemas of the table's records, in the real registry.
pub struct Schemas {
    pub avro: Registered,
    pub evolved: Registered,
    pub foreign: Registered,
    /// Records that hold another of their kind, and an array of nulls.
    pub linked: Registered,
    pub protobuf: Registered,
    avro_schema: Value,
    pub evolved_schema: Value,
}

impl Schemas {
    pub const PROTOBUF: &str = r#"
        syntax = "proto3";
        package shop;
        message Review { string id = 1; string text = 2; }
        message Outer { message Inner { string id = 1; string text = 2; } }
    "#;

    fn register() -> Self {
        let record = |fields: Value| json!({"type": "record", "name": "Review", "namespace": "shop", "fields": fields});
        let avro_schema =
            record(json!([{"name": "id", "type": "string"}, {"name": "text", "type": ["null", "string"]}]));
        let evolved_schema = record(
            json!([{"name": "text", "type": "string"}, {"name": "added", "type": "int"}, {"name": "id", "type": "long"}]),
        );
        let linked = record(json!([
            {"name": "id", "type": "string"},
            {"name": "text", "type": "string"},
            {"name": "next", "type": ["null", "Review"]},
            {"name": "nothings", "type": {"type": "array", "items": "null"}},
        ]));
        Self {
            avro: registry::register_avro(&avro_schema, &[]),
            evolved: registry::register_avro(&evolved_schema, &[]),
            foreign: registry::register_avro(
                &record(json!([{"name": "x", "type": "int"}, {"name": "y", "type": "int"}])),
                &[],
            ),
            linked: registry::register_avro(&linked, &[]),
            protobuf: registry::register_protobuf(Self::PROTOBUF, &[]),
            avro_schema,
            evolved_schema,
        }
    }

    pub fn avro_review(&self, id: &str, text: &str) -> Vec<u8> {
        use apache_avro::types::Value as Avro;
        let text = Avro::Union(1, Box::new(Avro::String(text.into())));
        framed(self.avro.id, &avro(&self.avro_schema, &[("id", Avro::String(id.into())), ("text", text)]))
    }

    pub fn protobuf_review(&self, id: &str, text: &str) -> Vec<u8> {
        let message = protobuf(Self::PROTOBUF, "shop.Review", &json!({"id": id, "text": text}));
        framed(self.protobuf.id, &[&[0], &message[..]].concat())
    }

    /// A record of this feed that nobody could object to.
    fn good(&self, feed: Feed, id: &str, text: &str) -> OddRecord {
        let value = match feed {
            Feed::Json => json!({"id": id, "text": text}).to_string().into_bytes(),
            Feed::Keyed => json!({"text": text}).to_string().into_bytes(),
            Feed::Text => text.as_bytes().to_vec(),
            Feed::Avro => self.avro_review(id, text),
            Feed::Protobuf => self.protobuf_review(id, text),
        };
        OddRecord { key: Some(id.as_bytes().to_vec()), value: Some(value), ..OddRecord::default() }
    }
}

fn stream_name(feed: Feed) -> String {
    format!("{feed:?}").to_lowercase()
}

/// The configuration of all feeds but the first, which is the stream that every test has, and of the good texts alone.
fn configuration(topics: &BTreeMap<Feed, Topic>, alone: &Topic) -> String {
    let by_id = "id = \"/id\"\ntext = \"/text\"";
    let streams = [
        ("keyed", &topics[&Feed::Keyed], "json", "id = \"key\"\ntext = \"/text\""),
        ("text", &topics[&Feed::Text], "text", "id = \"position\"\ntext = \"value\"\nitem = \"key\""),
        ("avro", &topics[&Feed::Avro], "avro", by_id),
        ("protobuf", &topics[&Feed::Protobuf], "protobuf", by_id),
        ("alone", alone, "json", by_id),
    ]
    .map(|(name, topic, format, fields)| {
        format!(
            "[streams.{name}]\ntopic = \"{topic}\"\ngroup = \"{topic}\"\nmodels = [\"albert-sentiment\"]\nformat = \"{format}\"\n\
             live.enabled = false\n[streams.{name}.fields]\n{fields}\n"
        )
    });
    format!(
        "user = \"/user\"\noccurred_at = \"/time\"\nlanguage = \"/language\"\n[schema_registry]\nurl = \"{}\"\n{}",
        registry::url(),
        streams.concat()
    )
}

/// What the database says of a record.
#[derive(Debug, PartialEq)]
enum Outcome {
    Label { id: String, probabilities: String },
    Deletion { id: String },
    Rejected { reason: String, message: String },
}

fn outcomes(stream: &Stream) -> HashMap<(String, i64), Outcome> {
    let documents = stream.database.rows(
        "SELECT stream, version[4], document_id, deleted, probabilities::text
         FROM {s}.documents LEFT JOIN {s}.labels USING (stream, document_id, version)",
    );
    let documents = documents.iter().map(|row| {
        let id: String = row.get(2);
        let outcome =
            if row.get(3) { Outcome::Deletion { id } } else { Outcome::Label { id, probabilities: row.get(4) } };
        ((row.get(0), row.get(1)), outcome)
    });
    let rejections = stream
        .database
        .rows("SELECT stream, \"offset\", reason, message FROM {s}.rejections WHERE partition = 0 AND topic <> ''");
    let rejections = rejections
        .iter()
        .map(|row| ((row.get(0), row.get(1)), Outcome::Rejected { reason: row.get(2), message: row.get(3) }));
    documents.chain(rejections).collect()
}

/// With the id of its own in the place of `{id}`.
fn filled(bytes: &[u8], id: &str) -> Vec<u8> {
    match bytes.windows(4).position(|window| window == b"{id}") {
        // Lengths that a format writes before a text stay right: an id has four bytes too.
        Some(at) => [&bytes[..at], id.as_bytes(), &filled(&bytes[at + 4..], id)].concat(),
        None => bytes.to_vec(),
    }
}

/// Where the table's records and their neighbours went.
struct Sent {
    row: Row,
    id: String,
    offset: i64,
    neighbours: [(i64, &'static str); 2],
}

fn send(schemas: &Schemas, topics: &BTreeMap<Feed, Topic>) -> (Vec<Sent>, BTreeMap<Feed, i64>) {
    let mut next: BTreeMap<Feed, i64> = BTreeMap::new();
    let producer = odd_producer("none");
    let mut sent = Vec::new();
    for (number, row) in rows(schemas).into_iter().enumerate() {
        let topic = &topics[&row.feed];
        let offset = next.entry(row.feed).or_default();
        let id = format!("r{number:03}");
        let (before, after) = (GOOD_TEXTS[number % 6], GOOD_TEXTS[(number + 1) % 6]);
        produce_odd(&producer, topic, &schemas.good(row.feed, &format!("before-{number}"), before));
        let fill = |bytes: &Option<Vec<u8>>| bytes.as_deref().map(|bytes| filled(bytes, &id));
        let record = OddRecord {
            key: fill(&row.key),
            value: fill(&row.value),
            headers: row.headers.clone(),
            timestamp_ms: row.timestamp_ms,
        };
        match row.compression {
            "none" => produce_odd(&producer, topic, &record),
            compression => produce_odd(&odd_producer(compression), topic, &record),
        }
        produce_odd(&producer, topic, &schemas.good(row.feed, &format!("after-{number}"), after));
        sent.push(Sent { row, id, offset: *offset + 1, neighbours: [(*offset, before), (*offset + 2, after)] });
        *offset += 3;
    }
    (sent, next)
}

#[test]
fn every_record_becomes_what_the_table_says_and_harms_no_other() {
    let stream = Stream::new(1);
    let schemas = Schemas::register();
    let topics: BTreeMap<Feed, Topic> = FEEDS
        .map(|feed| {
            let settings =
                [("max.message.bytes", RECORD_BYTES_MAX), ("message.timestamp.after.max.ms", "9223372036854775807")];
            (feed, Topic::with_settings("odd", 1, &settings))
        })
        .into();
    let alone = Topic::new("alone", 1);
    let producer = odd_producer("none");
    for text in GOOD_TEXTS {
        produce_odd(&producer, &alone, &schemas.good(Feed::Json, text, text));
    }
    let (sent, ends) = send(&schemas, &topics);
    let kinds = sent.len();
    assert!(kinds >= 80, "the table has {kinds} rows");

    let options =
        Options { extra: configuration(&topics, &alone), instant_model: true, live: true, ..Options::default() };
    let mut command = stream.command(&options);
    command.env("ALBERTINE_STREAMS__REVIEWS__TOPIC", &*topics[&Feed::Json]);
    command.arg("run");
    let mut process = Process::start(command);
    stream.wait_for_positions(ends.values().sum::<i64>() + GOOD_TEXTS.len() as i64);
    assert!(!process.has_ended());
    assert_eq!(process.metric("albertine_records_received_total"), (kinds * 3 + GOOD_TEXTS.len()) as f64, "read once");

    let outcomes = outcomes(&stream);
    let name = |feed| if feed == Feed::Json { "reviews".to_owned() } else { stream_name(feed) };
    let alone: HashMap<&str, &String> = GOOD_TEXTS
        .iter()
        .enumerate()
        .map(|(offset, text)| match &outcomes[&("alone".to_owned(), offset as i64)] {
            Outcome::Label { probabilities, .. } => (*text, probabilities),
            other => panic!("`{text}` alone became {other:?}"),
        })
        .collect();
    let mut wrong = Vec::new();
    for Sent { row, id, offset, neighbours } in &sent {
        let outcome = outcomes.get(&(name(row.feed), *offset));
        if !is_as_expected(&row.expected, id, *offset, outcome) {
            wrong.push(format!("{} ({:?}): expected {:?}, became {outcome:?}", row.name, row.feed, row.expected));
        }
        for (offset, text) in neighbours {
            match outcomes.get(&(name(row.feed), *offset)) {
                Some(Outcome::Label { probabilities, .. }) if probabilities == alone[text] => {}
                other => wrong.push(format!("beside {} ({:?}), `{text}` became {other:?}", row.name, row.feed)),
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {kinds}:\n{}", wrong.len(), wrong.join("\n"));
    let rejected = sent.iter().filter(|sent| matches!(sent.row.expected, Expected::Rejected(_))).count();
    assert_eq!(process.metric("albertine_rejections_total"), rejected as f64);
    eprintln!("{kinds} kinds of records, {rejected} of them rejected");
    eventually("all labels and dead letters are published", || {
        (stream.database.number("SELECT count(*) FROM {s}.outbox") == 0).then_some(())
    });
    assert_eq!(process.metric("albertine_publish_failures_total"), 0.0);
    process.stop();
}

fn is_as_expected(expected: &Expected, own_id: &str, offset: i64, outcome: Option<&Outcome>) -> bool {
    match (expected, outcome) {
        (Expected::Label, Some(Outcome::Label { id, .. })) | (Expected::Deletion, Some(Outcome::Deletion { id })) => {
            id == own_id
        }
        (Expected::LabelOf(given), Some(Outcome::Label { id, .. })) => id == given,
        (Expected::LabelAtPosition, Some(Outcome::Label { id, .. })) => *id == format!("0-{offset}"),
        // What was found, and after a semicolon what to do.
        (Expected::Rejected(given), Some(Outcome::Rejected { reason, message })) => {
            reason == given && message.contains("; ")
        }
        _ => false,
    }
}
