//! Any bytes, in any format: a document that can be stored, a deletion or a rejection, and never a panic.
//!
//! The first byte chooses the format and whether there is a key, the rest is the record's value, for Avro and Protobuf
//! without the framing.
#![no_main]

use std::sync::{Arc, LazyLock};

use albertine::{
    decode::{
        Decoded, Decoder, Format, Input, TopicPosition, Undecoded,
        fields::IDENTIFIER_BYTES_MAX,
        mapping::{FieldMapping, FieldPath, TimeUnit},
        schema::{Schema, SchemaError, SchemaKind, SchemaSource, Schemas},
    },
    domain::document::is_storable,
};
use libfuzzer_sys::fuzz_target;

const AVRO: &str = r#"{"type": "record", "name": "R", "fields": [
    {"name": "id", "type": ["null", "string", "long"]},
    {"name": "text", "type": ["string", {"type": "array", "items": ["null", "string"]}, "bytes"]},
    {"name": "rating", "type": ["null", "double", "float", {"type": "bytes", "logicalType": "decimal", "precision": 30, "scale": 3}]},
    {"name": "time", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}, {"type": "int", "logicalType": "date"}]},
    {"name": "state", "type": ["null", {"type": "enum", "name": "E", "symbols": ["A", "B"]}, {"type": "fixed", "name": "F", "size": 3}]},
    {"name": "map", "type": {"type": "map", "values": ["null", "R"]}},
    {"name": "nothings", "type": {"type": "array", "items": {"type": "array", "items": "null"}}},
    {"name": "next", "type": ["null", "R"]}
]}"#;

const PROTOBUF: &str = r#"
    syntax = "proto3";
    import "google/protobuf/timestamp.proto";
    import "google/protobuf/wrappers.proto";
    import "google/protobuf/struct.proto";
    import "google/protobuf/any.proto";
    message R {
        string id = 1;
        repeated string text = 2;
        optional double rating = 3;
        google.protobuf.Timestamp time = 4;
        oneof choice { google.protobuf.StringValue title = 5; bytes raw = 6; }
        map<int64, R> map = 7;
        google.protobuf.Value extra = 8;
        google.protobuf.Any any = 9;
        repeated sint32 numbers = 10;
        R next = 11;
        State state = 12;
        message Inner { string id = 1; }
        enum State { NEW = 0; OLD = 1; }
    }
"#;

/// An Avro schema under 1, a Protobuf schema under 2.
struct Two(Arc<Schema>, Arc<Schema>);

impl Schemas for Two {
    fn schema(&self, id: u32) -> Result<Arc<Schema>, SchemaError> {
        match id {
            1 => Ok(Arc::clone(&self.0)),
            2 => Ok(Arc::clone(&self.1)),
            _ => Err(SchemaError::Unknown("there is no such schema; register it".into())),
        }
    }
}

static SCHEMAS: LazyLock<Two> = LazyLock::new(|| {
    let compile = |kind, text: &str| {
        let source = SchemaSource { kind, text: text.into(), references: Vec::new() };
        Arc::new(Schema::compile(&source).expect("a schema of this file"))
    };
    Two(compile(SchemaKind::Avro, AVRO), compile(SchemaKind::Protobuf, PROTOBUF))
});

static MAPPING: LazyLock<FieldMapping> = LazyLock::new(|| {
    let path = |path| FieldPath::parse(path).expect("a path of this file");
    FieldMapping {
        id: path("/id"),
        text: vec![path("/text"), path("/next/text"), path("/map/a/text")],
        text_pair: vec![path("/next/text")],
        item: Some(path("/state")),
        user: Some(path("/next/id")),
        rating: Some(path("/rating")),
        occurred_at: Some(path("/time")),
        occurred_at_unit: TimeUnit::Seconds,
        language: Some(path("/language")),
    }
});

static PLAIN: LazyLock<FieldMapping> = LazyLock::new(|| FieldMapping {
    id: FieldPath::Position,
    text: vec![FieldPath::Value],
    text_pair: Vec::new(),
    item: Some(FieldPath::Key),
    user: None,
    rating: None,
    occurred_at: None,
    occurred_at_unit: TimeUnit::Seconds,
    language: None,
});

fuzz_target!(|data: &[u8]| {
    let Some((choice, rest)) = data.split_first() else { return };
    let framed = |id: u8| [&[0, 0, 0, 0, id], rest].concat();
    let (format, mapping, value) = match choice % 5 {
        0 => (Format::Json, &*MAPPING, rest.to_vec()),
        1 => (Format::Text, &*PLAIN, rest.to_vec()),
        2 => (Format::Avro, &*MAPPING, framed(1)),
        3 => (Format::Protobuf, &*MAPPING, framed(2)),
        _ => (Format::Avro, &*MAPPING, rest.to_vec()),
    };
    let key = (choice & 0x80 != 0).then(|| &rest[..rest.len().min(8)]);
    let position = TopicPosition { partition: 0, offset: 1 };
    let decoder = Decoder { format, mapping: mapping.clone() };
    match decoder.decode(&Input { key, value: Some(&value), position: &position }, &*SCHEMAS) {
        Ok(Decoded::Document(document)) => {
            let attributes = &document.attributes;
            for identifier in
                [Some(&attributes.id), attributes.item.as_ref(), attributes.user.as_ref()].into_iter().flatten()
            {
                assert!(
                    !identifier.is_empty() && identifier.len() <= IDENTIFIER_BYTES_MAX && !identifier.contains('\0')
                );
            }
            assert!(attributes.rating.is_none_or(f64::is_finite));
            assert!(attributes.occurred_at.is_none_or(is_storable));
            assert!(!document.text.trim().is_empty());
        }
        Ok(Decoded::Deletion { .. }) => panic!("a value deletes nothing"),
        Err(Undecoded::Rejected(rejection)) => assert!(rejection.message.contains("; "), "{rejection} has no remedy"),
        Err(Undecoded::SchemaUnavailable(problem)) => panic!("{problem}"),
    }
});
