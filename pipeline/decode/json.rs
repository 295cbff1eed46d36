//! Decodes records whose value is one JSON object.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{
    Decoded,
    mapping::{FieldMapping, FieldPath},
};
use crate::domain::{
    document::{Attributes, Document},
    rejection::{Rejection, Stage},
};

/// The longest id, item or user, in bytes. Postgres indexes them, and an index entry must stay below a
/// third of a page (2,704 bytes); real keys are far shorter, so a longer one is a wrong mapping.
pub const IDENTIFIER_BYTES_MAX: usize = 512;

/// Reads a record.
///
/// # Errors
/// A [`Rejection`] that names the field and what stood there instead.
pub fn decode(mapping: &FieldMapping, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<Decoded, Rejection> {
    let Some(value) = value else {
        return deletion(mapping, key);
    };
    let value: Value = serde_json::from_slice(value)
        .map_err(|error| reject("json_invalid", format!("the value is not JSON: {error}")))?;
    let record = Record { key, value: &value };
    let attributes = Attributes {
        id: record
            .identifier("id", &mapping.id)?
            .ok_or_else(|| reject("id_missing", format!("there is no id at `{}`", mapping.id)))?,
        item: record.optional("item", mapping.item.as_ref(), Record::identifier)?,
        user: record.optional("user", mapping.user.as_ref(), Record::identifier)?,
        rating: record.optional("rating", mapping.rating.as_ref(), Record::number)?,
        occurred_at: record.optional("occurred_at", mapping.occurred_at.as_ref(), Record::time)?,
    };
    let text = record.text(&mapping.text)?;
    Ok(Decoded::Document(Document { attributes, text }))
}

fn deletion(mapping: &FieldMapping, key: Option<&[u8]>) -> Result<Decoded, Rejection> {
    if !mapping.supports_deletion() {
        let message = format!(
            "a record without a value deletes the document its key names, but this stream takes the id from `{}`",
            mapping.id
        );
        return Err(reject("deletion_without_id", message));
    }
    let record = Record { key, value: &Value::Null };
    record
        .identifier("id", &FieldPath::Key)?
        .map(|id| Decoded::Deletion { id })
        .ok_or_else(|| reject("id_missing", "a record without a value needs a key to say which document it deletes"))
}

fn reject(reason: &'static str, message: impl Into<String>) -> Rejection {
    Rejection::new(Stage::Decode, reason, message)
}

struct Record<'a> {
    key: Option<&'a [u8]>,
    value: &'a Value,
}

impl Record<'_> {
    /// The value at `path`; `None` where nothing, or null, stands there.
    fn at(&self, field: &str, path: &FieldPath) -> Result<Option<Value>, Rejection> {
        match path {
            FieldPath::Pointer(pointer) => Ok(self.value.pointer(pointer).filter(|value| !value.is_null()).cloned()),
            FieldPath::Key => self
                .key
                .map(|key| {
                    std::str::from_utf8(key).map(|key| Value::String(key.to_owned())).map_err(|error| {
                        reject("key_not_utf8", format!("the {field} is the record's key, which is not UTF-8: {error}"))
                    })
                })
                .transpose(),
        }
    }

    fn optional<T>(
        &self,
        field: &str,
        path: Option<&FieldPath>,
        read: impl Fn(&Self, &str, &FieldPath) -> Result<Option<T>, Rejection>,
    ) -> Result<Option<T>, Rejection> {
        path.map_or(Ok(None), |path| read(self, field, path))
    }

    /// A string, or an integer as its digits.
    fn identifier(&self, field: &str, path: &FieldPath) -> Result<Option<String>, Rejection> {
        let Some(value) = self.at(field, path)? else { return Ok(None) };
        let identifier = match value {
            Value::String(text) => text,
            Value::Number(number) if !number.is_f64() => number.to_string(),
            other => return Err(wrong_type(field, path, "a string or an integer", &other)),
        };
        if identifier.is_empty() {
            return Ok(None);
        }
        if identifier.len() > IDENTIFIER_BYTES_MAX {
            let message = format!(
                "the {field} at `{path}` has {} bytes, more than the {IDENTIFIER_BYTES_MAX} allowed",
                identifier.len()
            );
            return Err(reject("identifier_too_long", message));
        }
        if identifier.contains('\0') {
            return Err(reject(
                "identifier_with_nul",
                format!("the {field} at `{path}` holds a NUL character, which Postgres cannot store"),
            ));
        }
        Ok(Some(identifier))
    }

    /// A number, or a string that is one.
    fn number(&self, field: &str, path: &FieldPath) -> Result<Option<f64>, Rejection> {
        let Some(value) = self.at(field, path)? else { return Ok(None) };
        let number = match &value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        number.filter(|number| number.is_finite()).map(Some).ok_or_else(|| wrong_type(field, path, "a number", &value))
    }

    /// RFC 3339 text, or an integer of milliseconds since the Unix epoch.
    fn time(&self, field: &str, path: &FieldPath) -> Result<Option<DateTime<Utc>>, Rejection> {
        let Some(value) = self.at(field, path)? else { return Ok(None) };
        let time = match &value {
            Value::String(text) => DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc()),
            Value::Number(number) => number.as_i64().and_then(DateTime::from_timestamp_millis),
            _ => None,
        };
        time.map(Some)
            .ok_or_else(|| wrong_type(field, path, "an RFC 3339 time or integer milliseconds since 1970", &value))
    }

    fn text(&self, paths: &[FieldPath]) -> Result<String, Rejection> {
        let mut parts = Vec::with_capacity(paths.len());
        for path in paths {
            match self.at("text", path)? {
                None => {}
                Some(Value::String(text)) => parts.push(text),
                Some(other) => return Err(wrong_type("text", path, "a string", &other)),
            }
        }
        let listed = || paths.iter().map(|path| format!("`{path}`")).collect::<Vec<_>>().join(", ");
        if parts.is_empty() {
            return Err(reject("text_missing", format!("there is no text at {}", listed())));
        }
        let text = parts.join("\n\n");
        if text.trim().is_empty() {
            return Err(reject("text_empty", format!("the text at {} is empty", listed())));
        }
        Ok(text)
    }
}

fn wrong_type(field: &str, path: &FieldPath, expected: &str, found: &Value) -> Rejection {
    let kind = match found {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number that does not fit",
        Value::String(_) => "a string that does not fit",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    reject("field_type", format!("the {field} at `{path}` must be {expected}, not {kind}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
        }
    }

    fn decode_text(value: &str) -> Result<Decoded, Rejection> {
        decode(&mapping(), Some(b"key-1"), Some(value.as_bytes()))
    }

    #[test]
    fn nested_fields_are_found_and_texts_are_joined() {
        let decoded = decode_text(
            r#"{"id": 17, "title": "Good", "body": {"text": "Really."}, "item": "kettle", "user": null, "stars": "4.5", "time": "2024-05-01T10:00:00+02:00"}"#,
        );
        let expected = Document {
            attributes: Attributes {
                id: "17".into(),
                item: Some("kettle".into()),
                user: None,
                rating: Some(4.5),
                occurred_at: DateTime::from_timestamp_millis(1_714_550_400_000),
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
                "the occurred_at at `/time` must be an RFC 3339 time or integer milliseconds since 1970, not a boolean",
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
    fn an_identifier_has_a_longest_length() {
        let record = |length| format!(r#"{{"id": "{}", "title": "x"}}"#, "i".repeat(length));
        assert!(decode_text(&record(IDENTIFIER_BYTES_MAX)).is_ok());
        assert_eq!(decode_text(&record(IDENTIFIER_BYTES_MAX + 1)).unwrap_err().reason, "identifier_too_long");
    }

    #[test]
    fn a_record_without_a_value_deletes_what_its_key_names() {
        let keyed = FieldMapping { id: FieldPath::Key, ..mapping() };
        assert_eq!(decode(&keyed, Some(b"a"), None), Ok(Decoded::Deletion { id: "a".into() }));
        assert_eq!(decode(&keyed, None, None).unwrap_err().reason, "id_missing");
        assert_eq!(decode(&keyed, Some(b"\xff"), None).unwrap_err().reason, "key_not_utf8");
        assert_eq!(decode(&mapping(), Some(b"a"), None).unwrap_err().reason, "deletion_without_id");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(key in prop::option::of(any::<Vec<u8>>()), value in any::<Vec<u8>>()) {
            let _ = decode(&mapping(), key.as_deref(), Some(&value));
        }
    }
}
