//! Reads the fields of a record by a stream's mapping, whatever format the record had: every format decodes to
//! JSON's kinds of values first.

use std::borrow::Cow;

use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};
use serde_json::Value;

use super::{
    Input,
    mapping::{FieldMapping, FieldPath, TimeUnit},
    reject,
};
use crate::domain::{
    document::{Attributes, Document, YEARS, is_storable},
    rejection::Rejection,
};

/// The longest id, item or user, in bytes. Postgres indexes them, and an index entry must stay below a
/// third of a page (2,704 bytes); real keys are far shorter, so a longer one is a wrong mapping.
pub const IDENTIFIER_BYTES_MAX: usize = 512;

/// A field that holds a text, and the reasons to reject a record for it.
struct TextField {
    name: &'static str,
    missing: &'static str,
    empty: &'static str,
}

const TEXT: TextField = TextField { name: "text", missing: "text_missing", empty: "text_empty" };
const TEXT_PAIR: TextField = TextField { name: "text_pair", missing: "text_pair_missing", empty: "text_pair_empty" };

/// Reads the document of a record whose value is `value`.
///
/// # Errors
/// A [`Rejection`] that names the field and what stood there instead.
pub fn document(mapping: &FieldMapping, input: &Input<'_>, value: &Value) -> Result<Document, Rejection> {
    let record = Record { input, value };
    let attributes = Attributes {
        id: record.identifier("id", &mapping.id)?.ok_or_else(|| {
            let message = format!("there is no id at `{}`; set `fields.id` of the stream to where it lies", mapping.id);
            reject("id_missing", message)
        })?,
        item: record.optional("item", mapping.item.as_ref(), Record::identifier)?,
        user: record.optional("user", mapping.user.as_ref(), Record::identifier)?,
        rating: record.optional("rating", mapping.rating.as_ref(), Record::number)?,
        occurred_at: record.optional("occurred_at", mapping.occurred_at.as_ref(), |record, field, path| {
            record.time(field, path, mapping.occurred_at_unit)
        })?,
        language: record.optional("language", mapping.language.as_ref(), Record::identifier)?,
    };
    let text = record.text(&TEXT, &mapping.text)?;
    let pair = Some(&mapping.text_pair).filter(|paths| !paths.is_empty());
    let text_pair = pair.map(|paths| record.text(&TEXT_PAIR, paths)).transpose()?;
    Ok(Document { attributes, text, text_pair })
}

/// Reads the id that a record without a value withdraws.
///
/// # Errors
/// A [`Rejection`] where the stream's ids do not come from the key, or there is no key.
pub fn deletion(mapping: &FieldMapping, input: &Input<'_>) -> Result<String, Rejection> {
    if !mapping.supports_deletion() {
        let message = format!(
            "a record without a value deletes the document its key names, but this stream takes the id from `{}`; set `fields.id` to `key` if the keys are the ids",
            mapping.id
        );
        return Err(reject("deletion_without_id", message));
    }
    let record = Record { input, value: &Value::Null };
    record.identifier("id", &FieldPath::Key)?.ok_or_else(|| {
        reject(
            "id_missing",
            "a record without a value needs a key to say which document it deletes; produce it with one",
        )
    })
}

struct Record<'a> {
    input: &'a Input<'a>,
    value: &'a Value,
}

impl<'a> Record<'a> {
    /// The value at `path`; `None` where nothing, or null, stands there.
    fn at(&self, field: &str, path: &FieldPath) -> Result<Option<Cow<'a, Value>>, Rejection> {
        Ok(self.all(field, path)?.into_iter().next())
    }

    /// The values at `path`, without nulls: at most one, unless it enters arrays.
    fn all(&self, field: &str, path: &FieldPath) -> Result<Vec<Cow<'a, Value>>, Rejection> {
        let value = self.value;
        let found = match path {
            FieldPath::Key => {
                let key = self.input.key.map(|key| key_text(field, key)).transpose()?;
                key.map(|key| Cow::Owned(Value::String(key.to_owned()))).into_iter().collect()
            }
            FieldPath::Value => vec![Cow::Borrowed(value)],
            FieldPath::Position => vec![Cow::Owned(Value::String(self.input.position.to_string()))],
            FieldPath::Pointer(pointer) => value.pointer(pointer).map(Cow::Borrowed).into_iter().collect(),
            FieldPath::Elements(pointers) => {
                let mut found = Vec::new();
                elements(value, pointers, &mut found);
                found
            }
        };
        Ok(found.into_iter().filter(|value| !value.is_null()).collect())
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
        let identifier = match value.into_owned() {
            Value::String(text) => text,
            Value::Number(number) if !number.is_f64() => number.to_string(),
            other => return Err(wrong_type(field, path, "a string or an integer", &other)),
        };
        if identifier.is_empty() {
            return Ok(None);
        }
        if identifier.len() > IDENTIFIER_BYTES_MAX {
            let message = format!(
                "the {field} at `{path}` has {} bytes, more than the {IDENTIFIER_BYTES_MAX} allowed; {}",
                identifier.len(),
                remedy(field)
            );
            return Err(reject("identifier_too_long", message));
        }
        if identifier.contains('\0') {
            let remedy = match path {
                FieldPath::Key => {
                    "a key that a schema registry's serializer wrote cannot be used: take it from the value".into()
                }
                _ => remedy(field),
            };
            let message =
                format!("the {field} at `{path}` holds a NUL character, which Postgres cannot store; {remedy}");
            return Err(reject("identifier_with_nul", message));
        }
        Ok(Some(identifier))
    }

    /// A number, or a string that is one.
    fn number(&self, field: &str, path: &FieldPath) -> Result<Option<f64>, Rejection> {
        let Some(value) = self.at(field, path)? else { return Ok(None) };
        let number = match &*value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        number.filter(|number| number.is_finite()).map(Some).ok_or_else(|| wrong_type(field, path, "a number", &value))
    }

    fn time(&self, field: &str, path: &FieldPath, unit: TimeUnit) -> Result<Option<DateTime<Utc>>, Rejection> {
        let Some(value) = self.at(field, path)? else { return Ok(None) };
        let time = match &*value {
            Value::String(text) => time_of_text(text.trim()).map(Some),
            Value::Number(number) => Some(match number.as_i64() {
                Some(count) => unit.since_epoch(count),
                None => number.as_f64().and_then(|count| unit.since_epoch_fractional(count)),
            }),
            _ => None,
        };
        let time = time.ok_or_else(|| {
            wrong_type(field, path, &format!("an RFC 3339 time, a date or {unit} since 1970"), &value)
        })?;
        time.filter(|time| is_storable(*time)).map(Some).ok_or_else(|| {
            let message = format!(
                "the {field} at `{path}` is not in the years {} to {}; are its numbers {unit}, as `fields.occurred_at_unit` of the stream says?",
                YEARS.start(),
                YEARS.end()
            );
            reject("time_out_of_range", message)
        })
    }

    /// All texts at these paths that are not blank, with a blank line between them.
    fn text(&self, field: &TextField, paths: &[FieldPath]) -> Result<String, Rejection> {
        let name = field.name;
        let mut parts = Vec::with_capacity(paths.len());
        for path in paths {
            for value in self.all(name, path)? {
                match value {
                    Cow::Borrowed(Value::Array(elements)) => {
                        for element in elements {
                            match element {
                                Value::Null => {}
                                Value::String(text) => parts.push(Cow::Borrowed(text.as_str())),
                                other => return Err(wrong_type(name, path, "a string or an array of them", other)),
                            }
                        }
                    }
                    Cow::Borrowed(Value::String(text)) => parts.push(Cow::Borrowed(text.as_str())),
                    Cow::Owned(Value::String(text)) => parts.push(Cow::Owned(text)),
                    other => return Err(wrong_type(name, path, "a string or an array of them", &other)),
                }
            }
        }
        let listed = || paths.iter().map(|path| format!("`{path}`")).collect::<Vec<_>>().join(", ");
        if parts.is_empty() {
            let message =
                format!("there is no {name} at {}; set `fields.{name}` of the stream to where it lies", listed());
            return Err(reject(field.missing, message));
        }
        parts.retain(|part| part.chars().any(is_visible));
        if parts.is_empty() {
            let message = format!("the {name} at {} is empty; nothing can be said about it", listed());
            return Err(reject(field.empty, message));
        }
        Ok(parts.join("\n\n"))
    }
}

/// Whether a reader sees the character: no blank, no control character, none without width.
fn is_visible(character: char) -> bool {
    let has_no_width = matches!(
        character,
        '\u{ad}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
    );
    !has_no_width && !character.is_whitespace() && !character.is_control()
}

/// What stands at the pointers, every element of an array entered between one and the next.
fn elements<'a>(value: &'a Value, pointers: &[String], found: &mut Vec<Cow<'a, Value>>) {
    let Some((pointer, rest)) = pointers.split_first() else { return };
    match value.pointer(pointer) {
        Some(value) if rest.is_empty() => found.push(Cow::Borrowed(value)),
        Some(Value::Array(items)) => items.iter().for_each(|item| elements(item, rest, found)),
        Some(Value::Object(fields)) => fields.get("*").into_iter().for_each(|field| elements(field, rest, found)),
        _ => {}
    }
}

fn key_text<'a>(field: &str, key: &'a [u8]) -> Result<&'a str, Rejection> {
    std::str::from_utf8(key).map_err(|error| {
        let message = format!(
            "the {field} is the record's key, which is not UTF-8: {error}; take the {field} from the value, or write keys as text"
        );
        reject("key_not_utf8", message)
    })
}

/// An RFC 3339 time; the same with a blank for the `T`, or without a zone, which counts as UTC; or a date, which is its
/// midnight.
pub(super) fn time_of_text(text: &str) -> Option<DateTime<Utc>> {
    let zoned = || DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc());
    let local = |format| NaiveDateTime::parse_from_str(text, format).ok().map(|time| time.and_utc());
    let date = || NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0).map(|time| time.and_utc());
    zoned().or_else(|| local("%Y-%m-%dT%H:%M:%S%.f")).or_else(|| local("%Y-%m-%d %H:%M:%S%.f")).or_else(date)
}

fn remedy(field: &str) -> String {
    format!("correct the record, or `fields.{field}` of the stream")
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
    reject("field_type", format!("the {field} at `{path}` must be {expected}, not {kind}; {}", remedy(field)))
}
