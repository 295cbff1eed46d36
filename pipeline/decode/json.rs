//! Decodes records whose value is one JSON object.

use serde_json::Value;

use super::reject;
use crate::domain::rejection::Rejection;

/// Parses the value of a record.
///
/// # Errors
/// A [`Rejection`] with the line and column where it stops being JSON.
pub fn value(bytes: &[u8]) -> Result<Value, Rejection> {
    serde_json::from_slice(bytes).map_err(|error| reject("json_invalid", format!("the value is not JSON: {error}")))
}
