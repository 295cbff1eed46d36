//! Who may write a partition's labels, from which position on, and how a worker finds out what became
//! of a transaction whose reply it did not get.
//!
//! Guarantee: [`resolve`] never calls a batch committed that may not be, and never lets a worker write
//! after another one claimed the partition. It decides; it does not read or write anything.

use std::sync::Arc;

use uuid::Uuid;

/// The partition of a topic as one stream reads it. Two streams on one topic have a checkpoint each. Of a job, whose
/// records come from elsewhere, `topic` is its name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionKey {
    pub stream: Arc<str>,
    pub topic: Arc<str>,
    pub partition: i32,
}

impl PartitionKey {
    /// Whether the records are those of a job. Its name has a slash, which no topic's has, so Kafka keeps no offset of
    /// it.
    pub fn is_of_job(&self) -> bool {
        self.topic.contains('/')
    }
}

impl std::fmt::Display for PartitionKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "stream `{}`, topic `{}`, partition {}", self.stream, self.topic, self.partition)
    }
}

/// The next offset to read: everything below it is done. Offsets have gaps (compaction, transaction
/// markers), so the record at a position need not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Position(pub i64);

impl Position {
    /// The position once the record at `offset` is done.
    pub fn after(offset: i64) -> Self {
        Self(offset + 1)
    }
}

/// Where partitions of a topic begin that were never read, or belonged to a topic that was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicStart {
    /// Kafka's id of the topic: another one under the same name means that it was recreated.
    pub topic_id: Option<String>,
    pub positions: Vec<(i32, Position)>,
}

/// A worker's exclusive right to write a partition's labels, until somebody else claims it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub key: PartitionKey,
    /// Fresh for every claim, so that a worker which comes back is told apart from its former self.
    pub owner: Uuid,
    pub position: Position,
    /// Grows whenever the position is moved other than by storing.
    pub epoch: i64,
    pub generation: i64,
    pub timestamp_ms_max: i64,
    /// Nothing was ever stored from this partition since it began, at `position`.
    pub is_fresh: bool,
}

/// The step a batch takes: it is only written where the checkpoint stands at `from`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advance {
    pub from: Position,
    pub to: Position,
    pub timestamp_ms_max: i64,
}

/// What the checkpoint says when it is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observed {
    pub owner: Option<Uuid>,
    pub position: Position,
}

/// What to do with a batch whose transaction moved no row, or whose reply was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// It was committed: go on with the next batch.
    Committed,
    /// It was not: send it again.
    Retry,
    /// The checkpoint is ours but stands somewhere else: drop what is in hand and read from there.
    Rewind(Position),
    /// Somebody else claimed the partition: stop it.
    Fenced,
}

/// Decides by the checkpoint as read after the fact. `None`: the row is gone, so nobody may write.
pub fn resolve(observed: Option<Observed>, owner: Uuid, advance: Advance) -> Resolution {
    match observed {
        Some(Observed { owner: Some(holder), position }) if holder == owner => {
            if position == advance.to {
                Resolution::Committed
            } else if position == advance.from {
                Resolution::Retry
            } else {
                Resolution::Rewind(position)
            }
        }
        _ => Resolution::Fenced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_of_the_checkpoint_has_its_resolution() {
        let mine = Uuid::from_u128(1);
        let other = Uuid::from_u128(2);
        let advance = Advance { from: Position(10), to: Position(20), timestamp_ms_max: 0 };
        let cases = [
            (Some(mine), 20, Resolution::Committed),
            (Some(mine), 10, Resolution::Retry),
            (Some(mine), 15, Resolution::Rewind(Position(15))),
            (Some(mine), 5, Resolution::Rewind(Position(5))),
            (Some(mine), 30, Resolution::Rewind(Position(30))),
            (Some(other), 10, Resolution::Fenced),
            (Some(other), 20, Resolution::Fenced),
            (None, 10, Resolution::Fenced),
        ];
        for (owner, position, expected) in cases {
            let observed = Observed { owner, position: Position(position) };
            assert_eq!(resolve(Some(observed), mine, advance), expected, "{observed:?}");
        }
        assert_eq!(resolve(None, mine, advance), Resolution::Fenced);
    }
}
