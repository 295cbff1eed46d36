//! Which part of a record is the id, the text and the rest: a stream's `fields` table, checked.

use std::fmt;

use chrono::{DateTime, Utc};

/// Where one field lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldPath {
    /// The record's key, as UTF-8.
    Key,
    /// A JSON Pointer (RFC 6901) into the record's value.
    Pointer(String),
}

/// Why a path in the configuration is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a JSON Pointer: write `/name` or `/outer/inner` (`~1` for a slash in a name), or `key` for the record's key"
)]
pub struct InvalidFieldPath(pub String);

impl FieldPath {
    /// Reads `key` or a JSON Pointer.
    ///
    /// # Errors
    /// [`InvalidFieldPath`] where it is neither.
    pub fn parse(path: &str) -> Result<Self, InvalidFieldPath> {
        if path == "key" {
            return Ok(Self::Key);
        }
        let escapes_are_valid = path.split('~').skip(1).all(|after| after.starts_with('0') || after.starts_with('1'));
        if path.starts_with('/') && escapes_are_valid {
            Ok(Self::Pointer(path.to_owned()))
        } else {
            Err(InvalidFieldPath(path.to_owned()))
        }
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key => formatter.write_str("key"),
            Self::Pointer(pointer) => formatter.write_str(pointer),
        }
    }
}

/// What an integer time counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeUnit {
    Seconds,
    #[default]
    Milliseconds,
    Microseconds,
}

impl TimeUnit {
    /// The time so many units after the beginning of 1970; `None` where no calendar reaches.
    pub fn since_epoch(self, count: i64) -> Option<DateTime<Utc>> {
        match self {
            Self::Seconds => DateTime::from_timestamp(count, 0),
            Self::Milliseconds => DateTime::from_timestamp_millis(count),
            Self::Microseconds => DateTime::from_timestamp_micros(count),
        }
    }
}

impl fmt::Display for TimeUnit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Seconds => "seconds",
            Self::Milliseconds => "milliseconds",
            Self::Microseconds => "microseconds",
        })
    }
}

/// Where a stream's fields lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldMapping {
    pub id: FieldPath,
    /// Joined with a blank line between them; at least one.
    pub text: Vec<FieldPath>,
    pub item: Option<FieldPath>,
    pub user: Option<FieldPath>,
    pub rating: Option<FieldPath>,
    pub occurred_at: Option<FieldPath>,
    pub occurred_at_unit: TimeUnit,
    /// Without it, or where nothing stands there, the language is detected.
    pub language: Option<FieldPath>,
}

impl FieldMapping {
    /// Whether a record without a value can name the document it deletes.
    pub fn supports_deletion(&self) -> bool {
        self.id == FieldPath::Key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_key_or_json_pointers() {
        assert_eq!(FieldPath::parse("key"), Ok(FieldPath::Key));
        assert_eq!(FieldPath::parse("/a/b~1c/0"), Ok(FieldPath::Pointer("/a/b~1c/0".into())));
        for wrong in ["", "text", "a/b", "/a~2", "/a~"] {
            assert_eq!(FieldPath::parse(wrong), Err(InvalidFieldPath(wrong.into())));
        }
    }
}
