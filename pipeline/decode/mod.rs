//! From the bytes of a record to a document: where each field lies, and what a bad record is told.
//!
//! Guarantee: whatever the bytes are, the result is a document, a deletion or a rejection that names the
//! field; never a panic, and never a guess at a missing field. It knows no broker: a record is a key, a value and
//! the name of its place.

mod avro;
mod convert;
pub mod fields;
mod framing;
mod hint;
mod json;
pub mod mapping;
pub mod proposal;
mod protobuf;
pub mod schema;
mod text;
mod varint;

use std::fmt;

use mapping::FieldMapping;
use schema::{Schema, Schemas};
use serde_json::Value;

use crate::domain::{
    document::Document,
    rejection::{Rejection, Stage},
};

/// What a record asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded {
    Document(Document),
    /// A record without a value withdraws the document its key names.
    Deletion {
        id: String,
    },
}

/// A record as it is decoded.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    /// Where it stands, unique in its stream and the same whenever it is read.
    pub position: &'a dyn fmt::Display,
}

/// The place of a record in a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicPosition {
    pub partition: i32,
    pub offset: i64,
}

impl fmt::Display for TopicPosition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.partition, self.offset)
    }
}

/// How the value of a record is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    #[default]
    Json,
    /// The value is the text itself.
    Text,
    /// Avro, with its schema in a registry.
    Avro,
    /// Protocol Buffers, with its schema in a registry.
    Protobuf,
}

impl fmt::Display for Format {
    /// As the configuration writes it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Json => "json",
            Self::Text => "text",
            Self::Avro => "avro",
            Self::Protobuf => "protobuf",
        })
    }
}

/// Why nothing comes of a record, or not yet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Undecoded {
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// Nothing is known of the record until the registry answers: it waits, and is tried again.
    #[error("the schema registry does not answer: {0}")]
    SchemaUnavailable(String),
}

/// Reads the records of one stream.
#[derive(Debug, Clone)]
pub struct Decoder {
    pub format: Format,
    pub mapping: FieldMapping,
}

impl Decoder {
    /// Reads a record. Blocks while a schema is read.
    ///
    /// # Errors
    /// A [`Rejection`] that names the field and what stood there instead, or that the schema is not known yet.
    pub fn decode(&self, input: &Input<'_>, schemas: &dyn Schemas) -> Result<Decoded, Undecoded> {
        let Some(bytes) = input.value else {
            return Ok(fields::deletion(&self.mapping, input).map(|id| Decoded::Deletion { id })?);
        };
        let value = self.format.value(bytes, schemas)?;
        Ok(self.document(input, &value)?)
    }

    /// The same for a record whose value was read already.
    ///
    /// # Errors
    /// A [`Rejection`] that names the field and what stood there instead.
    pub fn document(&self, input: &Input<'_>, value: &Value) -> Result<Decoded, Rejection> {
        fields::document(&self.mapping, input, value).map(Decoded::Document)
    }
}

impl Format {
    /// Parses the value of a record. Blocks while a schema is read.
    ///
    /// # Errors
    /// A [`Rejection`] where it is not of this format, or that its schema is not known yet.
    pub fn value(self, bytes: &[u8], schemas: &dyn Schemas) -> Result<Value, Undecoded> {
        match self {
            Self::Json => Ok(json::value(bytes)?),
            Self::Text => Ok(text::value(bytes)?),
            Self::Avro => framing::value(bytes, schemas, |schema, data| match schema {
                Schema::Avro(schema) => Some(schema.value(data)),
                _ => None,
            }),
            Self::Protobuf => framing::value(bytes, schemas, |schema, data| match schema {
                Schema::Protobuf(schema) => Some(schema.value(data)),
                _ => None,
            }),
        }
    }
}

/// UTF-8 needs no mark of its byte order, but editors write one.
fn without_byte_order_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

fn reject(reason: &'static str, message: impl Into<String>) -> Rejection {
    Rejection::new(Stage::Decode, reason, message)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chrono::DateTime;
    use proptest::prelude::*;

    use super::{
        fields::IDENTIFIER_BYTES_MAX,
        mapping::{
            FieldPath,
            TimeUnit::{Microseconds, Milliseconds, Seconds},
        },
        schema::{SchemaError, SchemaKind, SchemaSource},
        *,
    };
    use crate::domain::document::{Attributes, Document};

    fn pointer(path: &str) -> FieldPath {
        FieldPath::parse(path).unwrap()
    }

    fn mapping() -> FieldMapping {
        FieldMapping {
            id: pointer("/id"),
            text: vec![pointer("/title"), pointer("/body/text")],
            text_pair: Vec::new(),
            item: Some(pointer("/item")),
            user: Some(pointer("/user")),
            rating: Some(pointer("/stars")),
            occurred_at: Some(pointer("/time")),
            occurred_at_unit: Milliseconds,
            language: Some(pointer("/language")),
        }
    }

    const POSITION: TopicPosition = TopicPosition { partition: 3, offset: 17 };

    fn decode(
        format: Format,
        mapping: FieldMapping,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<Decoded, Rejection> {
        let input = Input { key, value, position: &POSITION };
        match (Decoder { format, mapping }).decode(&input, &OneSchema) {
            Ok(decoded) => Ok(decoded),
            Err(Undecoded::Rejected(rejection)) => Err(rejection),
            Err(Undecoded::SchemaUnavailable(problem)) => panic!("{problem}"),
        }
    }

    /// A registry with an Avro schema under 1, a Protobuf schema under 2, a broken one under 3, and no more.
    struct OneSchema;

    impl Schemas for OneSchema {
        fn schema(&self, id: u32) -> Result<Arc<Schema>, SchemaError> {
            let source = |kind, text: &str| SchemaSource { kind, text: text.into(), references: Vec::new() };
            let source = match id {
                1 => source(
                    SchemaKind::Avro,
                    r#"{"type": "record", "name": "R", "fields": [{"name": "id", "type": "long"}, {"name": "title", "type": ["null", "string"]}]}"#,
                ),
                2 => source(SchemaKind::Protobuf, "syntax = \"proto3\"; message R { int64 id = 1; string title = 2; }"),
                3 => return Err(SchemaError::Invalid("it is broken".into())),
                9 => return Err(SchemaError::Unavailable("it is away".into())),
                _ => return Err(SchemaError::Unknown("there is none".into())),
            };
            Ok(Arc::new(Schema::compile(&source).unwrap()))
        }
    }

    fn decode_json(value: &str) -> Result<Decoded, Rejection> {
        decode(Format::Json, mapping(), Some(b"key-1"), Some(value.as_bytes()))
    }

    /// The text of a record, or the reason why there is none.
    fn text_of(decoded: Result<Decoded, Rejection>) -> Result<String, &'static str> {
        match decoded {
            Ok(Decoded::Document(document)) => Ok(document.text),
            Ok(Decoded::Deletion { id }) => panic!("`{id}` is deleted"),
            Err(rejection) => Err(rejection.reason),
        }
    }

    #[test]
    fn nested_fields_are_found_and_texts_are_joined() {
        let decoded = decode_json(
            r#"{"id": 17, "title": "Good", "body": {"text": "Really."}, "item": "kettle", "user": null, "stars": "4.5", "time": "2024-05-01T10:00:00+02:00", "language": "en"}"#,
        );
        let expected = Document {
            attributes: Attributes {
                id: "17".into(),
                item: Some("kettle".into()),
                user: None,
                rating: Some(4.5),
                occurred_at: DateTime::from_timestamp_millis(1_714_550_400_000),
                language: Some("en".into()),
            },
            text: "Good\n\nReally.".into(),
            text_pair: None,
        };
        assert_eq!(decoded, Ok(Decoded::Document(expected)));
    }

    #[test]
    fn a_pair_needs_its_second_text_which_is_read_as_the_first() {
        let mapping = FieldMapping { text_pair: vec![pointer("/reply"), pointer("/more")], ..mapping() };
        let decode = |value: &str| decode(Format::Json, mapping.clone(), None, Some(value.as_bytes()));
        match decode(r#"{"id": "a", "title": "x", "reply": ["y", null], "more": "z"}"#) {
            Ok(Decoded::Document(document)) => {
                assert_eq!((document.text.as_str(), document.text_pair.as_deref()), ("x", Some("y\n\nz")));
            }
            other => panic!("{other:?}"),
        }
        let missing =
            "there is no text_pair at `/reply`, `/more`; set `fields.text_pair` of the stream to where it lies";
        let empty = "the text_pair at `/reply`, `/more` is empty; nothing can be said about it";
        for (reply, reason, message) in [
            ("", "text_pair_missing", missing),
            (r#", "reply": null"#, "text_pair_missing", missing),
            (r#", "reply": """#, "text_pair_empty", empty),
            (r#", "reply": " \u200b", "more": []"#, "text_pair_empty", empty),
            (
                r#", "reply": 5"#,
                "field_type",
                "the text_pair at `/reply` must be a string or an array of them, not a number that does not fit; correct the record, or `fields.text_pair` of the stream",
            ),
        ] {
            let rejection = decode(&format!(r#"{{"id": "a", "title": "x"{reply}}}"#)).unwrap_err();
            assert_eq!((rejection.reason, rejection.message.as_str()), (reason, message), "{reply}");
        }
    }

    #[test]
    fn every_bad_record_is_told_which_field_is_wrong() {
        let cases = [
            (
                "{",
                "json_invalid",
                "the value is not JSON: EOF while parsing an object at line 1 column 1; correct what produces it",
            ),
            ("[1]", "id_missing", "there is no id at `/id`; set `fields.id` of the stream to where it lies"),
            (r#"{"id": ""}"#, "id_missing", "there is no id at `/id`; set `fields.id` of the stream to where it lies"),
            (
                r#"{"id": 1.5}"#,
                "field_type",
                "the id at `/id` must be a string or an integer, not a number that does not fit; correct the record, or `fields.id` of the stream",
            ),
            (
                r#"{"id": "a\u0000"}"#,
                "identifier_with_nul",
                "the id at `/id` holds a NUL character, which Postgres cannot store; correct the record, or `fields.id` of the stream",
            ),
            (
                r#"{"id": "a"}"#,
                "text_missing",
                "there is no text at `/title`, `/body/text`; set `fields.text` of the stream to where it lies",
            ),
            (
                r#"{"id": "a", "title": " \n"}"#,
                "text_empty",
                "the text at `/title`, `/body/text` is empty; nothing can be said about it",
            ),
            (
                r#"{"id": "a", "title": ["x", 5]}"#,
                "field_type",
                "the text at `/title` must be a string or an array of them, not a number that does not fit; correct the record, or `fields.text` of the stream",
            ),
            (
                r#"{"id": "a", "title": "x", "stars": "many"}"#,
                "field_type",
                "the rating at `/stars` must be a number, not a string that does not fit; correct the record, or `fields.rating` of the stream",
            ),
            (
                r#"{"id": "a", "title": "x", "stars": "NaN"}"#,
                "field_type",
                "the rating at `/stars` must be a number, not a string that does not fit; correct the record, or `fields.rating` of the stream",
            ),
            (
                r#"{"id": "a", "title": "x", "time": true}"#,
                "field_type",
                "the occurred_at at `/time` must be an RFC 3339 time, a date or milliseconds since 1970, not a boolean; correct the record, or `fields.occurred_at` of the stream",
            ),
            (
                r#"{"id": "a", "title": "x", "item": {}}"#,
                "field_type",
                "the item at `/item` must be a string or an integer, not an object; correct the record, or `fields.item` of the stream",
            ),
        ];
        for (value, reason, message) in cases {
            let rejection = decode_json(value).expect_err(value);
            assert_eq!((rejection.reason, rejection.message.as_str()), (reason, message), "{value}");
        }
    }

    #[test]
    fn times_are_read_in_the_ways_people_write_them() {
        let expected = DateTime::from_timestamp_millis(1_714_557_600_000);
        let read = |time: &str, occurred_at_unit| {
            let mapping = FieldMapping { occurred_at_unit, ..mapping() };
            let value = format!(r#"{{"id": "a", "title": "x", "time": {time}}}"#);
            match decode(Format::Json, mapping, None, Some(value.as_bytes())) {
                Ok(Decoded::Document(document)) => document.attributes.occurred_at,
                other => panic!("{time} gave {other:?}"),
            }
        };
        for text in
            ["2024-05-01T12:00:00+02:00", "2024-05-01 10:00:00Z", "2024-05-01 10:00:00", "2024-05-01T10:00:00.000"]
        {
            assert_eq!(read(&format!("\"{text}\""), Milliseconds), expected, "{text}");
        }
        for (time, unit) in
            [("1714557600", Seconds), ("1714557600000", Milliseconds), ("1714557600000000", Microseconds)]
        {
            assert_eq!(read(time, unit), expected, "{time}");
        }
        assert_eq!(read("\"2024-05-01\"", Milliseconds), DateTime::from_timestamp_millis(1_714_521_600_000));
        assert_eq!(read("1714557600.25", Seconds), DateTime::from_timestamp_millis(1_714_557_600_250));
        assert_eq!(read("-1", Milliseconds), DateTime::from_timestamp_millis(-1));
    }

    #[test]
    fn times_that_postgres_or_a_reader_might_not_take_are_rejected() {
        let read = |time: &str| decode_json(&format!(r#"{{"id": "a", "title": "x", "time": {time}}}"#));
        for time in ["-62135596800000", "253402300799999", "\"0001-01-01\"", "\"9999-12-31T23:59:59Z\""] {
            assert!(read(time).is_ok(), "{time}");
        }
        for time in [
            "-62135596800001",
            "253402300800000",
            "9223372036854775807",
            "-9223372036854775808",
            "18446744073709551615",
            "1e300",
            "\"0000-12-31\"",
            // What is in microseconds, where milliseconds were expected.
            "1714557600000000",
        ] {
            assert_eq!(read(time).unwrap_err().reason, "time_out_of_range", "{time}");
        }
    }

    #[test]
    fn an_identifier_has_a_longest_length() {
        let record = |length| format!(r#"{{"id": "{}", "title": "x"}}"#, "i".repeat(length));
        assert!(decode_json(&record(IDENTIFIER_BYTES_MAX)).is_ok());
        assert_eq!(decode_json(&record(IDENTIFIER_BYTES_MAX + 1)).unwrap_err().reason, "identifier_too_long");
    }

    #[test]
    fn a_record_without_a_value_deletes_what_its_key_names() {
        let keyed = |key| decode(Format::Json, FieldMapping { id: FieldPath::Key, ..mapping() }, key, None);
        assert_eq!(keyed(Some(b"a")), Ok(Decoded::Deletion { id: "a".into() }));
        assert_eq!(keyed(None).unwrap_err().reason, "id_missing");
        assert_eq!(keyed(Some(b"\xff")).unwrap_err().reason, "key_not_utf8");
        let unkeyed = decode(Format::Json, mapping(), Some(b"a"), None);
        assert_eq!(unkeyed.unwrap_err().reason, "deletion_without_id");
    }

    #[test]
    fn a_text_may_be_an_array_and_lie_in_every_element_of_one() {
        let text = |path: &str, value: &str| {
            let mapping = FieldMapping { id: FieldPath::Key, text: vec![pointer(path)], ..mapping() };
            text_of(decode(Format::Json, mapping, Some(b"k"), Some(value.as_bytes())))
        };
        assert_eq!(text("/t", r#"{"t": ["one", null, " ", "two"]}"#).unwrap(), "one\n\ntwo");
        assert_eq!(text("/t", r#"{"t": ["", " "]}"#), Err("text_empty"));
        assert_eq!(text("/t", r#"{"t": []}"#), Err("text_missing"));
        assert_eq!(text("/t", r#"{"t": ["one", ["two"]]}"#), Err("field_type"));
        assert_eq!(
            text("/c/*/b", r#"{"c": [{"b": "one"}, {"x": 1}, {"b": null}, {"b": ["two"]}]}"#).unwrap(),
            "one\n\ntwo"
        );
        assert_eq!(text("/c/*/b", r#"{"c": [{"b": "one"}, {"b": 2}]}"#), Err("field_type"));
        assert_eq!(text("/c/*/b", r#"{"c": {"*": {"b": "an object's own star"}}}"#).unwrap(), "an object's own star");
        assert_eq!(text("/c/*/b", r#"{"c": "no array"}"#), Err("text_missing"));
        assert_eq!(text("/*/*", r#"[["one"], ["two", "three"]]"#).unwrap(), "one\n\ntwo\n\nthree");
        assert_eq!(text("value", r#""a lone string""#).unwrap(), "a lone string");
    }

    #[test]
    fn a_text_needs_a_character_that_can_be_seen() {
        let text = |text: &str| text_of(decode_json(&serde_json::json!({"id": "a", "title": text}).to_string()));
        for empty in ["", " \n\t", "\u{a0}", "\0\u{7f}", "\u{200b}\u{feff}\u{2060}", "\u{202e} \u{202c}"] {
            assert_eq!(text(empty), Err("text_empty"), "{empty:?}");
        }
        for some in ["a\0b", "\u{1f600}", "\u{301}", "\u{5d0}", "."] {
            assert_eq!(text(some).as_deref(), Ok(some));
        }
    }

    #[test]
    fn hostile_json_is_read_or_rejected_by_rule() {
        let nested = |levels| {
            format!("{{\"id\": \"a\", \"title\": \"x\", \"deep\": {}{}}}", "[".repeat(levels), "]".repeat(levels))
        };
        let title = |value: &str| text_of(decode_json(value));
        assert_eq!(title(&nested(100)).as_deref(), Ok("x"));
        assert_eq!(title(&nested(100_000)), Err("json_invalid"));
        assert_eq!(title(r#"{"id": "a", "title": "first", "title": "last"}"#).as_deref(), Ok("last"));
        assert_eq!(title(r#"{"id": "a", "title": "x", "stars": 1e400}"#), Err("json_invalid"));
        assert_eq!(title(r#"{"id": 123456789012345678901234567890, "title": "x"}"#), Err("field_type"));
        assert_eq!(title(r#"{"id": "a", "title": "\ud83d"}"#), Err("json_invalid"));
        assert_eq!(title(r#"{"id": "a", "title": "x"} {}"#), Err("json_invalid"));
        assert_eq!(title("\u{feff}{\"id\": \"a\", \"title\": \"x\"}").as_deref(), Ok("x"));
        assert_eq!(title("\0\0\0\0\u{5}{\"id\": \"a\", \"title\": \"framed\"}").as_deref(), Ok("framed"));
        assert_eq!(title("\0\0\0"), Err("json_invalid"));
    }

    #[test]
    fn a_plain_text_is_its_value_and_may_take_its_place_as_id() {
        let mapping = |id| FieldMapping {
            id,
            text: vec![FieldPath::Value],
            text_pair: Vec::new(),
            item: None,
            user: None,
            rating: None,
            occurred_at: None,
            occurred_at_unit: Milliseconds,
            language: None,
        };
        let by_position = |value: &[u8]| decode(Format::Text, mapping(FieldPath::Position), None, Some(value));
        let attributes = Attributes { id: "3-17".into(), ..Attributes::default() };
        let expected = Document { attributes, text: "{\"not\": \"parsed\"}".into(), text_pair: None };
        assert_eq!(by_position(b"\xef\xbb\xbf{\"not\": \"parsed\"}"), Ok(Decoded::Document(expected)));
        assert_eq!(by_position(b"caf\xe9").unwrap_err().reason, "text_not_utf8");
        assert_eq!(by_position(b"").unwrap_err().reason, "text_empty");
        let by_key = decode(Format::Text, mapping(FieldPath::Key), None, Some(b"text"));
        assert_eq!(by_key.unwrap_err().reason, "id_missing");
        let deletion = decode(Format::Text, mapping(FieldPath::Position), Some(b"k"), None);
        assert_eq!(deletion.unwrap_err().reason, "deletion_without_id");
    }

    #[test]
    fn framed_records_are_read_with_the_schema_whose_id_they_carry() {
        let title = |format, value: &[u8]| text_of(decode(format, mapping(), None, Some(value)));
        let (avro, protobuf) = (b"\0\0\0\0\x01\x22\x02\x02x", b"\0\0\0\0\x02\0\x08\x11\x12\x01x");
        assert_eq!(title(Format::Avro, avro).as_deref(), Ok("x"));
        assert_eq!(title(Format::Protobuf, protobuf).as_deref(), Ok("x"));
        assert_eq!(title(Format::Avro, b"\0\0\0\0\x01\x22\0"), Err("text_missing"));
        assert_eq!(title(Format::Avro, &avro[..7]), Err("avro_invalid"));
        assert_eq!(title(Format::Protobuf, &protobuf[..10]), Err("protobuf_invalid"));
        assert_eq!(title(Format::Avro, protobuf), Err("schema_format"));
        assert_eq!(title(Format::Protobuf, avro), Err("schema_format"));
        assert_eq!(title(Format::Avro, b"\0\0\0\0\x03"), Err("schema_invalid"));
        assert_eq!(title(Format::Avro, b"\0\0\0\0\x04"), Err("schema_unknown"));
        for (value, message) in [
            (
                &b"{\"id\": 1}"[..],
                "the value begins with the byte 0x7b, not with the 0 of a schema registry's framing; if the values are JSON, set `format` of the stream to `json`",
            ),
            (
                b"\x01\0\0\0\x01",
                "the value begins with the byte 0x01, not with the 0 of a schema registry's framing; correct what produces it",
            ),
            (
                b"\0\0",
                "the value is cut off: 2 of the 5 bytes of a schema registry's framing are there; correct what produces it",
            ),
            (
                b"",
                "the value is not framed by a schema registry's serializer; it is empty: to delete a document, produce a record with a null value",
            ),
        ] {
            let rejection = decode(Format::Avro, mapping(), None, Some(value)).unwrap_err();
            assert_eq!((rejection.reason, rejection.message.as_str()), ("framing_invalid", message));
        }
    }

    #[test]
    fn a_registry_that_does_not_answer_is_no_rejection() {
        let decoder = Decoder { format: Format::Avro, mapping: mapping() };
        let input = Input { key: None, value: Some(b"\0\0\0\0\x09"), position: &POSITION };
        let waiting = Err(Undecoded::SchemaUnavailable("it is away".into()));
        assert_eq!(decoder.decode(&input, &OneSchema), waiting);
        let without = decoder.decode(&input, &schema::NoSchemas).unwrap_err().to_string();
        assert!(without.contains("`schema_registry.url`"), "{without}");
    }

    #[test]
    fn what_is_of_another_format_is_told_the_likely_cause() {
        let cases: [(&[u8], &str); 6] = [
            (b"\xff\xfe{\0}\0", "UTF-16"),
            (b"\x1f\x8b\x08\0", "gzip"),
            (b"\x28\xb5\x2f\xfd\0", "Zstandard"),
            (b"\0\0\0\0\x07\x02a", "`avro` or `protobuf`"),
            (b"Obj\x01\x04", "an Avro file"),
            (b"", "a null value"),
        ];
        for (value, cause) in cases {
            let rejection = decode(Format::Json, mapping(), None, Some(value)).unwrap_err();
            assert_eq!(rejection.reason, "json_invalid");
            assert!(rejection.message.contains(cause), "{value:?}: {rejection}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(key in prop::option::of(any::<Vec<u8>>()), value in any::<Vec<u8>>()) {
            let framed = |id: u8| [&[0, 0, 0, 0, id], value.as_slice()].concat();
            for (format, value) in [
                (Format::Json, value.clone()),
                (Format::Text, value.clone()),
                (Format::Avro, framed(1)),
                (Format::Protobuf, framed(2)),
            ] {
                let _ = decode(format, mapping(), key.as_deref(), Some(&value));
            }
        }
    }
}
