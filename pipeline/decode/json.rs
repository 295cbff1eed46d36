//! Decodes records whose value is one JSON value.
//!
//! Of two fields of one name the last counts. Nesting beyond 128 levels, numbers that no `f64` holds and escapes of half a
//! surrogate pair are not JSON here. NUL is a character like any other.

use serde_json::Value;

use super::{framing, hint::likely_cause, reject, without_byte_order_mark};
use crate::domain::rejection::Rejection;

/// Parses the value of a record, without a byte order mark or the framing of a schema registry's serializer.
///
/// # Errors
/// A [`Rejection`] with the line and column where it stops being JSON.
pub fn value(bytes: &[u8]) -> Result<Value, Rejection> {
    // No JSON begins with 0, and what follows the schema's id needs no schema to be read.
    let json = framing::split(bytes).map_or(bytes, |(_, json)| json);
    serde_json::from_slice(without_byte_order_mark(json))
        .map_err(|error| reject("json_invalid", format!("the value is not JSON: {error}{}", likely_cause(bytes))))
}
