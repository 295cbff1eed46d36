//! What an operator may decide of a partition's positions, where only a person can know: as the options of
//! `albertine position set`, as the messages that ask for it name it, and as what is then written.

use std::{fmt, str::FromStr};

use chrono::{DateTime, SecondsFormat, Utc};

use super::{
    checkpoint::{PartitionKey, Position},
    live::Published,
    publication::MarkerNote,
    standing::{Publication, Standing, TopicExtent},
};

/// How far a partition is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishedDecision {
    /// All that is stored; of a partition that is published ahead of the store all that was stored when that was
    /// found.
    Stored,
    /// Nothing of what the outbox holds.
    Outbox,
    /// As far as the group's offset says, though the store stands behind it.
    Keep,
    /// Up to this offset.
    At(Position),
}

/// How far a partition is stored: where reading goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredDecision {
    /// At the oldest record that the topic holds.
    Earliest,
    /// At its end.
    Latest,
    At(Position),
    /// At the first record of this time or later.
    Since(DateTime<Utc>),
}

/// What is committed to the group for a [`PublishedDecision`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commitment {
    pub position: Position,
    pub note: MarkerNote,
}

impl Commitment {
    pub fn published(&self) -> Published {
        Published { epoch: self.note.epoch, position: self.position }
    }
}

/// A decision that does not fit how the partition stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecisionError {
    #[error("{0} has no checkpoint: it was never claimed, and begins where `start` in the configuration says")]
    NoCheckpoint(PartitionKey),
    #[error(
        "the outbox holds nothing of {0}: nothing waits to be published; `--published stored` says so to the group"
    )]
    EmptyOutbox(PartitionKey),
    #[error("there is no offset of {0} in the group to keep; `--published stored` or `--published outbox` makes one")]
    NothingToKeep(PartitionKey),
    #[error("offset {offset} of {key} is not in its topic, which holds {low} to {end}")]
    OutOfRange { key: PartitionKey, offset: i64, low: i64, end: i64 },
    #[error(
        "offset {offset} of {key} lies before {first}, from where on the outbox holds what was stored: what is before it cannot be published again"
    )]
    NotInOutbox { key: PartitionKey, offset: i64, first: i64 },
    #[error("the topic has no such partition any more: {0}")]
    NoSuchPartition(PartitionKey),
}

impl PublishedDecision {
    /// The command that decides so.
    pub fn command(self, key: &PartitionKey) -> String {
        format!("albertine position set {} --partition {} --published {self}", key.stream, key.partition)
    }

    /// What is to be committed for it.
    ///
    /// # Errors
    /// [`DecisionError`] where it does not fit how the partition stands.
    pub fn decide(self, standing: &Standing) -> Result<Commitment, DecisionError> {
        let key = || standing.key.clone();
        let checkpoint = standing.store.checkpoint.as_ref().ok_or_else(|| DecisionError::NoCheckpoint(key()))?;
        let stored = checkpoint.stored;
        let first = standing.store.outbox.map(|outbox| outbox.first);
        // Confirmed in any case: a publisher compares it with where the store stood when its worker claimed the
        // partition, and would ask again.
        let commitment = |at: Published| Commitment {
            position: at.position,
            note: MarkerNote { confirmed: true, ..MarkerNote::of_epoch(at.epoch) },
        };
        Ok(match self {
            Self::Stored => match standing.publication() {
                // What was stored since then is in the outbox, and nobody has published it.
                Publication::Ahead { stored: then, .. } => commitment(then),
                _ => commitment(stored),
            },
            Self::Outbox => commitment(first.ok_or_else(|| DecisionError::EmptyOutbox(key()))?),
            Self::Keep => {
                let offset = standing.offset.as_ref().ok_or_else(|| DecisionError::NothingToKeep(key()))?;
                commitment(Published { position: offset.position, ..stored })
            }
            Self::At(position) => {
                let TopicExtent { low, end } = standing.topic.ok_or_else(|| DecisionError::NoSuchPartition(key()))?;
                let (offset, low, end) = (position.0, low.0, end.0);
                if !(0..=end.max(stored.position.0)).contains(&offset) {
                    return Err(DecisionError::OutOfRange { key: key(), offset, low, end });
                }
                let at = Published { position, ..stored };
                let oldest = first.unwrap_or(stored);
                if at < oldest {
                    return Err(DecisionError::NotInOutbox { key: key(), offset, first: oldest.position.0 });
                }
                commitment(at)
            }
        })
    }

    /// The decisions that fit, each with what it means, where one is needed.
    pub fn choices(publication: Publication) -> &'static [(Self, &'static str)] {
        match publication {
            Publication::Ahead { .. } => &[
                (Self::Keep, "what is stored again up to there is not published again"),
                (Self::Stored, "it is published again"),
            ],
            Publication::Unknown { .. } => {
                &[(Self::Stored, "what the outbox holds was published"), (Self::Outbox, "it was not")]
            }
            _ => &[],
        }
    }

    /// The choices as a sentence that names a command for each.
    pub fn advice(publication: Publication, key: &PartitionKey) -> String {
        let choices: Vec<String> = Self::choices(publication)
            .iter()
            .map(|(decision, meaning)| format!("`{}` ({meaning})", decision.command(key)))
            .collect();
        choices.join(" or ")
    }
}

impl fmt::Display for PublishedDecision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stored => formatter.write_str("stored"),
            Self::Outbox => formatter.write_str("outbox"),
            Self::Keep => formatter.write_str("keep"),
            Self::At(position) => write!(formatter, "{}", position.0),
        }
    }
}

impl FromStr for PublishedDecision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "stored" => Ok(Self::Stored),
            "outbox" => Ok(Self::Outbox),
            "keep" => Ok(Self::Keep),
            offset => offset_of(offset)
                .map(Self::At)
                .ok_or_else(|| "must be `stored`, `outbox`, `keep` or an offset of the topic".to_owned()),
        }
    }
}

impl fmt::Display for StoredDecision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Earliest => formatter.write_str("earliest"),
            Self::Latest => formatter.write_str("latest"),
            Self::At(position) => write!(formatter, "{}", position.0),
            Self::Since(time) => formatter.write_str(&time.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
        }
    }
}

impl FromStr for StoredDecision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            other => offset_of(other)
                .map(Self::At)
                .or_else(|| DateTime::parse_from_rfc3339(other).ok().map(|time| Self::Since(time.to_utc())))
                .ok_or_else(|| {
                    "must be `earliest`, `latest`, an offset of the topic or a time such as `2026-01-31T00:00:00Z`"
                        .to_owned()
                }),
        }
    }
}

fn offset_of(text: &str) -> Option<Position> {
    text.parse().ok().filter(|offset| *offset >= 0).map(Position)
}

/// A position to go on reading from, checked against the topic.
///
/// # Errors
/// [`DecisionError::OutOfRange`].
pub fn check_readable(key: &PartitionKey, position: Position, extent: TopicExtent) -> Result<Position, DecisionError> {
    let TopicExtent { low, end } = extent;
    if (low..=end).contains(&position) {
        return Ok(position);
    }
    Err(DecisionError::OutOfRange { key: key.clone(), offset: position.0, low: low.0, end: end.0 })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::{
        publication::GroupOffset,
        standing::{CheckpointState, OutboxExtent, StoreStanding},
    };

    fn at(epoch: i64, position: i64) -> Published {
        Published { epoch, position: Position(position) }
    }

    /// Stored up to 90 of epoch 2 of a topic that holds 0 to 100.
    fn standing(offset: Option<i64>, first: Option<Published>) -> Standing {
        let checkpoint = CheckpointState {
            owner: Some(Uuid::from_u128(1)),
            stored: at(2, 90),
            generation: 1,
            topic_id: None,
            claimed_at: None,
            stored_at: Some(DateTime::UNIX_EPOCH),
        };
        let outbox = first.map(|first| OutboxExtent {
            ranges: 1,
            bytes: 1,
            first,
            last: at(2, 90),
            first_stored_at: DateTime::UNIX_EPOCH,
        });
        Standing {
            key: PartitionKey { stream: "reviews".into(), topic: "reviews".into(), partition: 3 },
            live: true,
            topic_id: None,
            topic: Some(TopicExtent { low: Position(0), end: Position(100) }),
            offset: offset.map(|offset| GroupOffset { position: Position(offset), metadata: String::new() }),
            store: StoreStanding { checkpoint: Some(checkpoint), outbox, ..StoreStanding::default() },
        }
    }

    fn decided(decision: &str, standing: &Standing) -> Result<(i64, i64), String> {
        decision
            .parse::<PublishedDecision>()?
            .decide(standing)
            .map(|Commitment { position, note }| {
                assert!(note.confirmed && note.ahead_of.is_none());
                (note.epoch, position.0)
            })
            .map_err(|error| error.to_string())
    }

    #[test]
    fn each_decision_has_its_offset_and_note() {
        let standing = standing(Some(95), Some(at(1, 50)));
        assert_eq!(decided("stored", &standing), Ok((2, 90)));
        assert_eq!(decided("outbox", &standing), Ok((1, 50)));
        assert_eq!(decided("keep", &standing), Ok((2, 95)));
        assert_eq!(decided("80", &standing), Ok((2, 80)));
        assert_eq!(decided("97", &standing), Ok((2, 97)));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_why() {
        let says = |decision: &str, standing: &Standing, text: &str| {
            let error = decided(decision, standing).unwrap_err();
            assert!(error.contains(text), "{error}");
        };
        says("101", &standing(None, None), "is not in its topic, which holds 0 to 100");
        says("80", &standing(None, None), "lies before 90");
        says("70", &standing(None, Some(at(2, 80))), "lies before 80");
        says("keep", &standing(None, None), "no offset of");
        says("outbox", &standing(None, None), "holds nothing of");
        says("sometime", &standing(None, None), "must be `stored`, `outbox`, `keep` or an offset");
        let unclaimed = Standing { store: StoreStanding::default(), ..standing(None, None) };
        says("stored", &unclaimed, "has no checkpoint");
    }

    #[test]
    fn the_advice_names_commands_that_are_understood() {
        let standing = standing(Some(95), None);
        let ahead = Publication::Ahead { published: at(2, 95), stored: at(2, 90) };
        let advice = PublishedDecision::advice(ahead, &standing.key);
        assert!(advice.starts_with("`albertine position set reviews --partition 3 --published keep` ("), "{advice}");
        for publication in [ahead, Publication::Unknown { first: at(2, 80) }] {
            for (decision, _) in PublishedDecision::choices(publication) {
                assert_eq!(decision.to_string().parse(), Ok(*decision));
            }
        }
    }

    #[test]
    fn a_stored_position_is_a_word_an_offset_or_a_time() {
        let parse = |text: &str| text.parse::<StoredDecision>();
        assert_eq!(parse("earliest"), Ok(StoredDecision::Earliest));
        assert_eq!(parse("17"), Ok(StoredDecision::At(Position(17))));
        assert!(matches!(parse("2026-01-31T00:00:00Z"), Ok(StoredDecision::Since(_))));
        for wrong in ["", "-1", "yesterday", "2026-01-31"] {
            assert!(parse(wrong).unwrap_err().contains("2026-01-31T00:00:00Z"), "{wrong}");
        }
    }

    #[test]
    fn reading_goes_on_only_from_where_the_topic_has_records() {
        let (key, extent) = (standing(None, None).key, TopicExtent { low: Position(10), end: Position(20) });
        for (offset, readable) in [(9, false), (10, true), (20, true), (21, false)] {
            assert_eq!(check_readable(&key, Position(offset), extent).is_ok(), readable, "{offset}");
        }
    }
}
