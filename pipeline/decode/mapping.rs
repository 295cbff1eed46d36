//! Which part of a record is the id, the text and the rest: a stream's `fields` table, checked.

use std::fmt;

use chrono::{DateTime, Utc};

/// Where one field lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldPath {
    /// The record's key, as UTF-8.
    Key,
    /// The record's whole value.
    Value,
    /// Where the record stands in its topic: an id for records that have none.
    Position,
    /// A JSON Pointer (RFC 6901) into the record's value.
    Pointer(String),
    /// JSON Pointers, between which every element of an array is entered: `/comments/*/body`. On an object `*` is a
    /// field's name like any other, so no pointer loses its meaning.
    Elements(Vec<String>),
}

/// Why a path in the configuration is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a JSON Pointer: write `/name` or `/outer/inner` (`~1` for a slash in a name), or `key` or `value` for the record's key or its whole value"
)]
pub struct InvalidFieldPath(pub String);

impl FieldPath {
    /// Reads `key`, `value`, `position` or a JSON Pointer, in which `*` may stand for every element of an array.
    ///
    /// # Errors
    /// [`InvalidFieldPath`] where it is none of them.
    pub fn parse(path: &str) -> Result<Self, InvalidFieldPath> {
        match path {
            "key" => return Ok(Self::Key),
            "value" => return Ok(Self::Value),
            "position" => return Ok(Self::Position),
            _ => {}
        }
        let escapes_are_valid = path.split('~').skip(1).all(|after| after.starts_with('0') || after.starts_with('1'));
        let Some(names) = path.strip_prefix('/').filter(|_| escapes_are_valid) else {
            return Err(InvalidFieldPath(path.to_owned()));
        };
        let mut pointers = vec![String::new()];
        for name in names.split('/') {
            match pointers.last_mut() {
                Some(pointer) if name != "*" => {
                    pointer.push('/');
                    pointer.push_str(name);
                }
                _ => pointers.push(String::new()),
            }
        }
        Ok(if pointers.len() == 1 { Self::Pointer(path.to_owned()) } else { Self::Elements(pointers) })
    }

    /// Whether it looks into a value that has fields.
    pub fn needs_fields(&self) -> bool {
        matches!(self, Self::Pointer(_) | Self::Elements(_))
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key => formatter.write_str("key"),
            Self::Value => formatter.write_str("value"),
            Self::Position => formatter.write_str("position"),
            Self::Pointer(pointer) => formatter.write_str(pointer),
            Self::Elements(pointers) => formatter.write_str(&pointers.join("/*")),
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
    /// The unit of this name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Seconds, Self::Milliseconds, Self::Microseconds].into_iter().find(|unit| unit.to_string() == name)
    }

    /// The time so many units after the beginning of 1970; `None` where no calendar reaches.
    pub fn since_epoch(self, count: i64) -> Option<DateTime<Utc>> {
        match self {
            Self::Seconds => DateTime::from_timestamp(count, 0),
            Self::Milliseconds => DateTime::from_timestamp_millis(count),
            Self::Microseconds => DateTime::from_timestamp_micros(count),
        }
    }

    /// The same for a count with a fraction, to the microsecond.
    pub fn since_epoch_fractional(self, count: f64) -> Option<DateTime<Utc>> {
        let microseconds = match self {
            Self::Seconds => count * 1e6,
            Self::Milliseconds => count * 1e3,
            Self::Microseconds => count,
        };
        DateTime::from_timestamp_micros(microseconds.round() as i64)
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
    /// The second text of models that read pairs, joined as `text` is; empty where there are none.
    pub text_pair: Vec<FieldPath>,
    pub item: Option<FieldPath>,
    pub user: Option<FieldPath>,
    pub rating: Option<FieldPath>,
    pub occurred_at: Option<FieldPath>,
    pub occurred_at_unit: TimeUnit,
    /// Without it, or where nothing stands there, the language is detected.
    pub language: Option<FieldPath>,
}

/// A field that a job's files have elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOverride {
    #[error("`{0}` must be NAME=PATH, such as `text=/body`; NAME is one of {FIELD_NAMES}")]
    Form(String),
    #[error("`{name}={path}`: {source}")]
    Path { name: String, path: String, source: InvalidFieldPath },
    #[error("`text_pair={0}`: the stream reads no pairs of texts: its `fields` have no `text_pair`")]
    NoPair(String),
    #[error("`occurred_at_unit={0}`: must be `seconds`, `milliseconds` or `microseconds`")]
    Unit(String),
}

/// For messages.
const FIELD_NAMES: &str = "id, text, text_pair, item, user, rating, occurred_at, occurred_at_unit, language";

impl FieldMapping {
    /// The same with these fields, as `name=path`, in other places. Several of `text`, and of `text_pair`, are joined.
    ///
    /// # Errors
    /// [`InvalidOverride`] with the first that is none.
    pub fn overridden(&self, overrides: &[String]) -> Result<Self, InvalidOverride> {
        let mut mapping = self.clone();
        let (mut text, mut text_pair) = (Vec::new(), Vec::new());
        for written in overrides {
            let (name, path) = written.split_once('=').ok_or_else(|| InvalidOverride::Form(written.clone()))?;
            let parsed = || {
                FieldPath::parse(path).map_err(|source| InvalidOverride::Path {
                    name: name.into(),
                    path: path.into(),
                    source,
                })
            };
            match name {
                "id" => mapping.id = parsed()?,
                "text" => text.push(parsed()?),
                "text_pair" if self.text_pair.is_empty() => return Err(InvalidOverride::NoPair(path.to_owned())),
                "text_pair" => text_pair.push(parsed()?),
                "item" => mapping.item = Some(parsed()?),
                "user" => mapping.user = Some(parsed()?),
                "rating" => mapping.rating = Some(parsed()?),
                "occurred_at" => mapping.occurred_at = Some(parsed()?),
                "occurred_at_unit" => {
                    mapping.occurred_at_unit =
                        TimeUnit::named(path).ok_or_else(|| InvalidOverride::Unit(path.to_owned()))?;
                }
                "language" => mapping.language = Some(parsed()?),
                _ => return Err(InvalidOverride::Form(written.clone())),
            }
        }
        if !text.is_empty() {
            mapping.text = text;
        }
        if !text_pair.is_empty() {
            mapping.text_pair = text_pair;
        }
        Ok(mapping)
    }

    /// Whether a record without a value can name the document it deletes.
    pub fn supports_deletion(&self) -> bool {
        self.id == FieldPath::Key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_words_or_json_pointers() {
        assert_eq!(FieldPath::parse("key"), Ok(FieldPath::Key));
        assert_eq!(FieldPath::parse("value"), Ok(FieldPath::Value));
        assert_eq!(FieldPath::parse("position"), Ok(FieldPath::Position));
        assert_eq!(FieldPath::parse("/a/b~1c/0"), Ok(FieldPath::Pointer("/a/b~1c/0".into())));
        for (path, pointers) in [
            ("/comments/*/body", vec!["/comments", "/body"]),
            ("/*", vec!["", ""]),
            ("/a/*/*/b/c", vec!["/a", "", "/b/c"]),
        ] {
            let parsed = FieldPath::parse(path).unwrap();
            assert_eq!(parsed, FieldPath::Elements(pointers.into_iter().map(str::to_owned).collect()));
            assert_eq!(parsed.to_string(), path);
        }
        for wrong in ["", "text", "a/b", "/a~2", "/a~"] {
            assert_eq!(FieldPath::parse(wrong), Err(InvalidFieldPath(wrong.into())));
        }
    }

    #[test]
    fn fields_lie_elsewhere_where_it_is_said() {
        let pointer = |path: &str| FieldPath::Pointer(path.into());
        let mapping = FieldMapping {
            id: FieldPath::Key,
            text: vec![pointer("/text")],
            text_pair: vec![pointer("/answer")],
            item: Some(pointer("/item")),
            user: None,
            rating: None,
            occurred_at: None,
            occurred_at_unit: TimeUnit::Milliseconds,
            language: None,
        };
        let written = |overrides: &[&str]| overrides.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(mapping.overridden(&[]), Ok(mapping.clone()));
        let overrides =
            ["id=/review_id", "text=/title", "text=/body", "text_pair=/reply", "user=key", "occurred_at_unit=seconds"];
        let expected = FieldMapping {
            id: pointer("/review_id"),
            text: vec![pointer("/title"), pointer("/body")],
            text_pair: vec![pointer("/reply")],
            user: Some(FieldPath::Key),
            occurred_at_unit: TimeUnit::Seconds,
            ..mapping.clone()
        };
        assert_eq!(mapping.overridden(&written(&overrides)), Ok(expected));
        for (wrong, says) in [
            ("id", "`id` must be NAME=PATH"),
            ("name=/x", "NAME is one of id, text"),
            ("id=x", "`id=x`: `x` is not a JSON Pointer"),
            ("occurred_at_unit=days", "must be `seconds`"),
        ] {
            let error = mapping.overridden(&written(&[wrong])).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        let single = FieldMapping { text_pair: Vec::new(), ..mapping };
        let error = single.overridden(&written(&["text_pair=/reply"])).unwrap_err().to_string();
        assert!(error.contains("the stream reads no pairs of texts"), "{error}");
    }
}
