//! Decodes records whose value is the text itself.

use serde_json::Value;

use super::{hint::likely_cause, reject, without_byte_order_mark};
use crate::domain::rejection::Rejection;

/// The value of a record as one string.
///
/// # Errors
/// A [`Rejection`] with the byte where it stops being UTF-8.
pub fn value(bytes: &[u8]) -> Result<Value, Rejection> {
    let text = std::str::from_utf8(without_byte_order_mark(bytes))
        .map_err(|error| reject("text_not_utf8", format!("the value is not UTF-8: {error}{}", likely_cause(bytes))))?;
    Ok(Value::String(text.to_owned()))
}
