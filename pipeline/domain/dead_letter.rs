//! A rejection as it is kept, until somebody replays or discards it.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};

use super::{document::SourceRecord, version::Version};

/// Where a rejected record stood.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
}

/// What has become of a rejection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectionState {
    Open,
    Replayed,
    Discarded,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub place: Place,
    pub stage: String,
    pub reason: String,
    pub message: String,
    /// `None` for rejections from before it was recorded: they cannot be replayed.
    pub version: Option<Version>,
    pub produced_at: Option<DateTime<Utc>>,
    pub rejected_at: DateTime<Utc>,
    pub state: RejectionState,
    pub settled_at: Option<DateTime<Utc>>,
    /// The record as it came, where it is kept.
    pub record: Option<SourceRecord>,
}

/// Which dead letters of a stream are meant; everything that is not given is open.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeadLetterFilter {
    pub state: Option<RejectionState>,
    pub reason: Option<String>,
    /// Empty: all.
    pub places: Vec<Place>,
}

impl RejectionState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Replayed => "replayed",
            Self::Discarded => "discarded",
        }
    }
}

/// The text is no state of a rejection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a state of a rejection: open, replayed or discarded")]
pub struct InvalidState(String);

impl FromStr for RejectionState {
    type Err = InvalidState;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Open, Self::Replayed, Self::Discarded]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| InvalidState(text.to_owned()))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}:{}", self.topic, self.partition, self.offset)
    }
}

/// The text is no place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a place: write `PARTITION:OFFSET`, or `TOPIC:PARTITION:OFFSET` for a topic other than the stream's"
)]
pub struct InvalidPlace(String);

impl Place {
    /// Reads `PARTITION:OFFSET`, which is of this topic, or `TOPIC:PARTITION:OFFSET`.
    ///
    /// # Errors
    /// [`InvalidPlace`] where it is neither.
    pub fn parse(text: &str, topic: &str) -> Result<Self, InvalidPlace> {
        let mut parts = text.rsplitn(3, ':');
        let (offset, partition) = (parts.next(), parts.next());
        let topic = parts.next().unwrap_or(topic);
        let numbers = || Some((partition?.parse().ok()?, offset?.parse().ok()?));
        numbers()
            .filter(|_| !topic.is_empty())
            .map(|(partition, offset)| Self { topic: topic.to_owned(), partition, offset })
            .ok_or_else(|| InvalidPlace(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_they_are_written() {
        let place = |topic: &str| Place { topic: topic.into(), partition: 3, offset: 41 };
        assert_eq!(Place::parse("3:41", "reviews"), Ok(place("reviews")));
        assert_eq!(Place::parse("other:3:41", "reviews"), Ok(place("other")));
        assert_eq!(Place::parse(&place("backfill/a").to_string(), "reviews"), Ok(place("backfill/a")));
        for wrong in ["", "3", "3:", ":41", "a:b", ":3:41", "3:4:x"] {
            assert_eq!(Place::parse(wrong, "reviews"), Err(InvalidPlace(wrong.into())));
        }
    }

    #[test]
    fn states_read_back() {
        for state in [RejectionState::Open, RejectionState::Replayed, RejectionState::Discarded] {
            assert_eq!(state.as_str().parse(), Ok(state));
        }
        assert!("lost".parse::<RejectionState>().is_err());
    }
}
