//! Reads the fields of a record by a stream's mapping, whatever format the record had: every format decodes to
//! JSON's kinds of values first.

use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};
use serde_json::Value;

use super::{
    mapping::{FieldMapping, FieldPath, TimeUnit},
    reject,
};
use crate::domain::{
    document::{Attributes, Document},
    rejection::Rejection,
};

/// The longest id, item or user, in bytes. Postgres indexes them, and an index entry must stay below a
/// third of a page (2,704 bytes); real keys are far shorter, so a longer one is a wrong mapping.
pub const IDENTIFIER_BYTES_MAX: usize = 512;

/// Reads the document of a record whose value is `value`.
///
/// # Errors
/// A [`Rejection`] that names the field and what stood there instead.
pub fn document(mapping: &FieldMapping, key: Option<&[u8]>, value: &Value) -> Result<Document, Rejection> {
    let record = Record { key, value };
    let attributes = Attributes {
        id: record
            .identifier("id", &mapping.id)?
            .ok_or_else(|| reject("id_missing", format!("there is no id at `{}`", mapping.id)))?,
        item: record.optional("item", mapping.item.as_ref(), Record::identifier)?,
        user: record.optional("user", mapping.user.as_ref(), Record::identifier)?,
        rating: record.optional("rating", mapping.rating.as_ref(), Record::number)?,
        occurred_at: record.optional("occurred_at", mapping.occurred_at.as_ref(), |record, field, path| {
            record.time(field, path, mapping.occurred_at_unit)
        })?,
        language: record.optional("language", mapping.language.as_ref(), Record::identifier)?,
    };
    let text = record.text(&mapping.text)?;
    Ok(Document { attributes, text })
}

/// Reads the id that a record without a value withdraws.
///
/// # Errors
/// A [`Rejection`] where the stream's ids do not come from the key, or there is no key.
pub fn deletion(mapping: &FieldMapping, key: Option<&[u8]>) -> Result<String, Rejection> {
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
        .ok_or_else(|| reject("id_missing", "a record without a value needs a key to say which document it deletes"))
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

    fn time(&self, field: &str, path: &FieldPath, unit: TimeUnit) -> Result<Option<DateTime<Utc>>, Rejection> {
        let Some(value) = self.at(field, path)? else { return Ok(None) };
        let time = match &value {
            Value::String(text) => time_of_text(text.trim()),
            Value::Number(number) => number.as_i64().and_then(|count| unit.since_epoch(count)),
            _ => None,
        };
        time.map(Some).ok_or_else(|| {
            wrong_type(field, path, &format!("an RFC 3339 time, a date or integer {unit} since 1970"), &value)
        })
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

/// An RFC 3339 time; the same with a blank for the `T`, or without a zone, which counts as UTC; or a date, which is its
/// midnight.
pub(super) fn time_of_text(text: &str) -> Option<DateTime<Utc>> {
    let zoned = || DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc());
    let local = |format| NaiveDateTime::parse_from_str(text, format).ok().map(|time| time.and_utc());
    let date = || NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0).map(|time| time.and_utc());
    zoned().or_else(|| local("%Y-%m-%dT%H:%M:%S%.f")).or_else(|| local("%Y-%m-%d %H:%M:%S%.f")).or_else(date)
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
