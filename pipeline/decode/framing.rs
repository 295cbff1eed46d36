//! The framing of a schema registry's serializers: the byte 0, four bytes of the schema's id, then the data.

use std::sync::Arc;

use serde_json::Value;

use super::{
    Undecoded,
    hint::likely_cause,
    reject,
    schema::{Schema, SchemaError, Schemas},
};
use crate::domain::rejection::Rejection;

/// The id of the schema and the data; `None` where the bytes are not framed.
pub fn split(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (0, rest) = bytes.split_first().map(|(magic, rest)| (*magic, rest))? else { return None };
    let (id, data) = rest.split_first_chunk()?;
    Some((u32::from_be_bytes(*id), data))
}

/// Finds the schema a record was written with, and reads the data with it. `read` gives `None` where the schema is of
/// another format than the stream's.
pub fn value(
    bytes: &[u8],
    schemas: &dyn Schemas,
    read: impl Fn(&Schema, &[u8]) -> Option<Result<Value, Rejection>>,
) -> Result<Value, Undecoded> {
    let (id, data) = split(bytes).ok_or_else(|| not_framed(bytes))?;
    let schema: Arc<Schema> = schemas.schema(id).map_err(|error| match error {
        SchemaError::Unknown(message) => Undecoded::from(reject("schema_unknown", message)),
        SchemaError::Invalid(message) => reject("schema_invalid", message).into(),
        SchemaError::Unavailable(problem) => Undecoded::SchemaUnavailable(problem),
    })?;
    let value = read(&schema, data).ok_or_else(|| {
        let message = format!(
            "schema {id}, with which the record was written, is of the format `{}`; set `format` of the stream to it, or read another topic",
            schema.format()
        );
        reject("schema_format", message)
    })?;
    Ok(value?)
}

fn not_framed(bytes: &[u8]) -> Undecoded {
    let message = match bytes {
        [0, ..] => format!(
            "the value is cut off: {} of the 5 bytes of a schema registry's framing are there; correct what produces it",
            bytes.len()
        ),
        [first, ..] => format!(
            "the value begins with the byte 0x{first:02x}, not with the 0 of a schema registry's framing{}",
            match first {
                b'{' | b'[' | b'"' => "; if the values are JSON, set `format` of the stream to `json`",
                _ => likely_cause(bytes),
            }
        ),
        [] => format!("the value is not framed by a schema registry's serializer{}", likely_cause(bytes)),
    };
    reject("framing_invalid", message).into()
}
