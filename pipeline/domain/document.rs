//! A document on its way from a record to a stored label.

use std::{ops::RangeInclusive, sync::Arc};

use chrono::{DateTime, Datelike, Utc};

use super::{label::Label, live::Headers, rejection::Rejection, version::Version};

/// The years of times that are stored: those RFC 3339 can write. Postgres and subscribers have wider bounds, each its own.
pub const YEARS: RangeInclusive<i32> = 1..=9999;

/// Whether Postgres and every reader of the live topic can take the time.
pub fn is_storable(time: DateTime<Utc>) -> bool {
    YEARS.contains(&time.year())
}

/// What a record says, apart from its text.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Attributes {
    /// Unique within its stream; a newer record of the same id replaces the older.
    pub id: String,
    /// What the text is about: a product, a ticket, an article.
    pub item: Option<String>,
    pub user: Option<String>,
    /// A rating that came with the text, in whatever scale the source uses.
    pub rating: Option<f64>,
    /// When the text was written, where the record says so.
    pub occurred_at: Option<DateTime<Utc>>,
    /// The language of the text, as the record says or as detected: an ISO 639-1 code, or ISO 639-3 where there is
    /// none of two letters.
    pub language: Option<String>,
}

/// A decoded record.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    pub attributes: Attributes,
    pub text: String,
    /// The second text, where the stream has models that read pairs.
    pub text_pair: Option<String>,
}

/// What became of a record.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Labelled {
        attributes: Attributes,
        labels: Vec<Label>,
    },
    /// The record had no value: the document is withdrawn.
    Deleted {
        id: String,
    },
    Rejected(Rejection),
}

/// A record as it came, kept where a rejection would send it to the dead letters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceRecord {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Headers,
}

/// A record that is done and waits for its turn to be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    pub offset: i64,
    pub version: Version,
    /// The record's own timestamp, where the broker knows one that is a time.
    pub produced_at: Option<DateTime<Utc>>,
    pub labelled_at: DateTime<Utc>,
    /// The size of the record's value, for the bound on what is in flight.
    pub bytes: usize,
    /// The record's `traceparent` header.
    pub trace: Option<String>,
    /// Where it stands in a file it was read from.
    pub place: Option<String>,
    /// Only for streams with dead letters.
    pub record: Option<Arc<SourceRecord>>,
    pub outcome: Outcome,
}
