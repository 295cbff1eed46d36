//! From the bytes of a record to a document: where each field lies, and what a bad record is told.
//!
//! Guarantee: whatever the bytes are, the result is a document, a deletion or a rejection that names the
//! field; never a panic, and never a guess at a missing field. It knows no broker: a record is a key and
//! a value.

pub mod fields;
mod json;
pub mod mapping;
pub mod proposal;

use mapping::FieldMapping;
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

/// How the value of a record is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json,
}

/// Reads the records of one stream.
#[derive(Debug, Clone)]
pub struct Decoder {
    pub format: Format,
    pub mapping: FieldMapping,
}

impl Decoder {
    /// Reads a record.
    ///
    /// # Errors
    /// A [`Rejection`] that names the field and what stood there instead.
    pub fn decode(&self, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<Decoded, Rejection> {
        let Some(bytes) = value else {
            return fields::deletion(&self.mapping, key).map(|id| Decoded::Deletion { id });
        };
        self.document(key, &self.format.value(bytes)?)
    }

    /// The same for a record whose value was read already.
    ///
    /// # Errors
    /// A [`Rejection`] that names the field and what stood there instead.
    pub fn document(&self, key: Option<&[u8]>, value: &Value) -> Result<Decoded, Rejection> {
        fields::document(&self.mapping, key, value).map(Decoded::Document)
    }
}

impl Format {
    /// Parses the value of a record.
    ///
    /// # Errors
    /// A [`Rejection`] where it is not of this format.
    pub fn value(self, bytes: &[u8]) -> Result<Value, Rejection> {
        match self {
            Self::Json => json::value(bytes),
        }
    }
}

fn reject(reason: &'static str, message: impl Into<String>) -> Rejection {
    Rejection::new(Stage::Decode, reason, message)
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use proptest::prelude::*;

    use super::{
        fields::IDENTIFIER_BYTES_MAX,
        mapping::{
            FieldPath,
            TimeUnit::{Microseconds, Milliseconds, Seconds},
        },
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
            item: Some(pointer("/item")),
            user: Some(pointer("/user")),
            rating: Some(pointer("/stars")),
            occurred_at: Some(pointer("/time")),
            occurred_at_unit: Milliseconds,
            language: Some(pointer("/language")),
        }
    }

    fn decoder(mapping: FieldMapping) -> Decoder {
        Decoder { format: Format::Json, mapping }
    }

    fn decode_text(value: &str) -> Result<Decoded, Rejection> {
        decoder(mapping()).decode(Some(b"key-1"), Some(value.as_bytes()))
    }

    #[test]
    fn nested_fields_are_found_and_texts_are_joined() {
        let decoded = decode_text(
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
        };
        assert_eq!(decoded, Ok(Decoded::Document(expected)));
    }

    #[test]
    fn every_bad_record_is_told_which_field_is_wrong() {
        let cases = [
            ("{", "json_invalid", "the value is not JSON: EOF while parsing an object at line 1 column 1"),
            ("[1]", "id_missing", "there is no id at `/id`"),
            (r#"{"id": ""}"#, "id_missing", "there is no id at `/id`"),
            (
                r#"{"id": 1.5}"#,
                "field_type",
                "the id at `/id` must be a string or an integer, not a number that does not fit",
            ),
            (
                r#"{"id": "a\u0000"}"#,
                "identifier_with_nul",
                "the id at `/id` holds a NUL character, which Postgres cannot store",
            ),
            (r#"{"id": "a"}"#, "text_missing", "there is no text at `/title`, `/body/text`"),
            (r#"{"id": "a", "title": " \n"}"#, "text_empty", "the text at `/title`, `/body/text` is empty"),
            (r#"{"id": "a", "title": ["x"]}"#, "field_type", "the text at `/title` must be a string, not an array"),
            (
                r#"{"id": "a", "title": "x", "stars": "many"}"#,
                "field_type",
                "the rating at `/stars` must be a number, not a string that does not fit",
            ),
            (
                r#"{"id": "a", "title": "x", "stars": "NaN"}"#,
                "field_type",
                "the rating at `/stars` must be a number, not a string that does not fit",
            ),
            (
                r#"{"id": "a", "title": "x", "time": true}"#,
                "field_type",
                "the occurred_at at `/time` must be an RFC 3339 time, a date or integer milliseconds since 1970, not a boolean",
            ),
            (
                r#"{"id": "a", "title": "x", "item": {}}"#,
                "field_type",
                "the item at `/item` must be a string or an integer, not an object",
            ),
        ];
        for (value, reason, message) in cases {
            let rejection = decode_text(value).expect_err(value);
            assert_eq!((rejection.reason, rejection.message.as_str()), (reason, message), "{value}");
        }
    }

    #[test]
    fn times_are_read_in_the_ways_people_write_them() {
        let expected = DateTime::from_timestamp_millis(1_714_557_600_000);
        let read = |time: &str, occurred_at_unit| {
            let mapping = FieldMapping { occurred_at_unit, ..mapping() };
            let value = format!(r#"{{"id": "a", "title": "x", "time": {time}}}"#);
            match decoder(mapping).decode(None, Some(value.as_bytes())) {
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
    }

    #[test]
    fn an_identifier_has_a_longest_length() {
        let record = |length| format!(r#"{{"id": "{}", "title": "x"}}"#, "i".repeat(length));
        assert!(decode_text(&record(IDENTIFIER_BYTES_MAX)).is_ok());
        assert_eq!(decode_text(&record(IDENTIFIER_BYTES_MAX + 1)).unwrap_err().reason, "identifier_too_long");
    }

    #[test]
    fn a_record_without_a_value_deletes_what_its_key_names() {
        let keyed = decoder(FieldMapping { id: FieldPath::Key, ..mapping() });
        assert_eq!(keyed.decode(Some(b"a"), None), Ok(Decoded::Deletion { id: "a".into() }));
        assert_eq!(keyed.decode(None, None).unwrap_err().reason, "id_missing");
        assert_eq!(keyed.decode(Some(b"\xff"), None).unwrap_err().reason, "key_not_utf8");
        assert_eq!(decoder(mapping()).decode(Some(b"a"), None).unwrap_err().reason, "deletion_without_id");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(key in prop::option::of(any::<Vec<u8>>()), value in any::<Vec<u8>>()) {
            let _ = decoder(mapping()).decode(key.as_deref(), Some(&value));
        }
    }
}
