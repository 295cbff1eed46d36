//! Where a partition stands by all who know something of it (topic, checkpoint, outbox, group), side by side.
//!
//! Guarantee: what is said of the publisher here is what [`super::publication::resolve`] tells the publisher. The
//! facts are read one after the other while workers go on; read in the order group, store, topic they never show a
//! partition ahead that is not.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{
    checkpoint::{PartitionKey, Position},
    live::Published,
    publication::{GroupOffset, Resolution, resolve},
};

/// What a `read_committed` reader finds in a partition of the topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicExtent {
    /// The oldest offset that is there.
    pub low: Position,
    /// The last stable offset: the next record's, or that of the oldest transaction that is still open.
    pub end: Position,
}

/// The checkpoint of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointState {
    pub owner: Option<Uuid>,
    pub stored: Published,
    pub generation: i64,
    /// `None` where it was written before topic ids were.
    pub topic_id: Option<String>,
    pub claimed_at: Option<DateTime<Utc>>,
    /// `None`: nothing was ever stored.
    pub stored_at: Option<DateTime<Utc>>,
}

/// All that the outbox holds of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxExtent {
    pub ranges: u64,
    pub bytes: u64,
    /// Where the first range begins.
    pub first: Published,
    /// Where the last range ends.
    pub last: Published,
    /// When the first range was stored.
    pub first_stored_at: DateTime<Utc>,
}

/// What the outbox holds of a partition behind the published position.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    pub ranges: u64,
    /// In offsets of the source: records that were rejected or overtaken count, though nothing is published of them.
    pub records: u64,
    pub bytes: u64,
    pub oldest: Option<DateTime<Utc>>,
}

/// What the store knows of a partition, from one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreStanding {
    pub checkpoint: Option<CheckpointState>,
    pub outbox: Option<OutboxExtent>,
    /// All of the outbox where the group's offset does not tell.
    pub backlog: Backlog,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub key: PartitionKey,
    /// Whether the stream has a live topic.
    pub live: bool,
    /// Of the topic that is there now.
    pub topic_id: Option<String>,
    /// `None`: the topic has no such partition.
    pub topic: Option<TopicExtent>,
    pub offset: Option<GroupOffset>,
    pub store: StoreStanding,
}

/// How far a partition is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publication {
    /// The stream has no live topic.
    Off,
    /// Nothing was ever claimed.
    NotBegun,
    /// Up to here.
    At(Published),
    /// An operator said that it is published up to here, beyond what is stored.
    Confirmed(Published),
    /// Further than is stored, and nobody said that this is right.
    Ahead { published: Published, stored: Published },
    /// The group's offset does not tell; the outbox begins here.
    Unknown { first: Published },
}

impl Standing {
    pub fn publication(&self) -> Publication {
        let Some(checkpoint) = &self.store.checkpoint else { return Publication::NotBegun };
        if !self.live {
            return Publication::Off;
        }
        let stored = checkpoint.stored;
        let fresh = checkpoint.stored_at.is_none().then_some(stored);
        let marker = self.offset.as_ref().map(GroupOffset::marker);
        let first = self.store.outbox.map(|outbox| outbox.first);
        match resolve(marker.as_ref(), stored, first, fresh) {
            Resolution::From(published) if published > stored => Publication::Confirmed(published),
            Resolution::From(published) => Publication::At(published),
            Resolution::Ahead { published, stored } => Publication::Ahead { published, stored },
            Resolution::Search { first } => Publication::Unknown { first },
        }
    }

    /// Whether the topic was deleted and made again since the checkpoint was written.
    pub fn is_recreated(&self) -> bool {
        let before = self.store.checkpoint.as_ref().and_then(|checkpoint| checkpoint.topic_id.as_ref());
        matches!((before, &self.topic_id), (Some(before), Some(now)) if before != now)
    }

    /// Records between the stored position and the topic's end, in offsets: markers of transactions and compaction
    /// leave gaps, so that it may rest above 0. `None` where the two do not belong together.
    pub fn lag_stored(&self) -> Option<u64> {
        self.behind_end(self.store.checkpoint.as_ref()?.stored.position)
    }

    /// Records between the published position and the topic's end, in offsets. Where that position is not known all
    /// of the outbox counts.
    pub fn lag_published(&self) -> Option<u64> {
        match self.publication() {
            Publication::At(_) | Publication::Unknown { .. } => Some(self.lag_stored()? + self.store.backlog.records),
            Publication::Confirmed(published) | Publication::Ahead { published, .. } => {
                self.behind_end(published.position)
            }
            Publication::Off | Publication::NotBegun => None,
        }
    }

    fn behind_end(&self, position: Position) -> Option<u64> {
        let end = self.topic.filter(|_| !self.is_recreated())?.end;
        Some(u64::try_from(end.0 - position.0).unwrap_or(0))
    }

    /// What an operator should know, in words.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let mut note = |applies: bool, text: String| notes.extend(applies.then_some(text));
        let Some(checkpoint) = &self.store.checkpoint else { return vec!["never claimed".into()] };
        let position = checkpoint.stored.position.0;
        note(checkpoint.owner.is_none(), "not claimed".into());
        note(self.topic.is_none(), "the topic has no such partition".into());
        note(self.is_recreated(), "the topic was recreated".into());
        if let Some(TopicExtent { low, end }) = self.topic.filter(|_| !self.is_recreated()) {
            note(position < low.0, format!("offsets {position} to {} were deleted before they were read", low.0));
            note(position > end.0, "the stored position is beyond the topic's end".into());
        }
        match self.publication() {
            Publication::Off if self.store.outbox.is_some() => note(true, "live topic off, its outbox is kept".into()),
            Publication::Off => note(true, "live topic off".into()),
            Publication::Confirmed(_) => note(true, "confirmed ahead of the store".into()),
            Publication::Ahead { .. } => note(true, "ahead of the store: decide".into()),
            Publication::Unknown { .. } if self.offset.is_none() => note(true, "no published offset yet".into()),
            Publication::Unknown { .. } => note(true, "publication unknown: the group's offset is foreign".into()),
            Publication::At(_) | Publication::NotBegun => {}
        }
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: i64, position: i64) -> Published {
        Published { epoch, position: Position(position) }
    }

    fn standing(stored: Published, end: i64, offset: Option<(i64, &str)>) -> Standing {
        let offset = offset
            .map(|(position, metadata)| GroupOffset { position: Position(position), metadata: metadata.to_owned() });
        let checkpoint = CheckpointState {
            owner: Some(Uuid::from_u128(1)),
            stored,
            generation: 1,
            topic_id: Some("a".into()),
            claimed_at: None,
            stored_at: Some(DateTime::UNIX_EPOCH),
        };
        Standing {
            key: PartitionKey { stream: "reviews".into(), topic: "reviews".into(), partition: 0 },
            live: true,
            topic_id: Some("a".into()),
            topic: Some(TopicExtent { low: Position(0), end: Position(end) }),
            offset,
            store: StoreStanding { checkpoint: Some(checkpoint), ..StoreStanding::default() },
        }
    }

    fn outbox(first: Published, last: Published) -> OutboxExtent {
        OutboxExtent { ranges: 1, bytes: 10, first, last, first_stored_at: DateTime::UNIX_EPOCH }
    }

    #[test]
    fn lag_is_counted_from_the_stored_and_from_the_published_position() {
        let mut standing = standing(at(1, 90), 100, Some((60, r#"{"epoch":1}"#)));
        standing.store.outbox = Some(outbox(at(1, 50), at(1, 90)));
        standing.store.backlog.records = 30;
        assert_eq!((standing.lag_stored(), standing.lag_published()), (Some(10), Some(40)));
        assert_eq!(standing.notes(), Vec::<String>::new());
    }

    #[test]
    fn what_needs_an_operator_is_said_in_words() {
        let ahead = standing(at(1, 90), 100, Some((95, r#"{"epoch":1}"#)));
        assert_eq!(ahead.publication(), Publication::Ahead { published: at(1, 95), stored: at(1, 90) });
        assert_eq!(ahead.notes(), ["ahead of the store: decide"]);
        assert_eq!(ahead.lag_published(), Some(5));
        let confirmed = standing(at(1, 90), 100, Some((95, r#"{"epoch":1,"confirmed":true}"#)));
        assert_eq!(confirmed.notes(), ["confirmed ahead of the store"]);
        let mut unknown = standing(at(1, 90), 100, Some((95, "somebody else's")));
        unknown.store.outbox = Some(outbox(at(1, 50), at(1, 90)));
        unknown.store.backlog.records = 40;
        assert_eq!(unknown.notes(), ["publication unknown: the group's offset is foreign"]);
        assert_eq!(unknown.lag_published(), Some(50));
        unknown.offset = None;
        assert_eq!(unknown.notes(), ["no published offset yet"]);
    }

    #[test]
    fn a_checkpoint_that_does_not_fit_its_topic_is_said_so() {
        let mut standing = standing(at(1, 90), 80, None);
        assert_eq!(standing.notes(), ["the stored position is beyond the topic's end"]);
        standing.topic = Some(TopicExtent { low: Position(95), end: Position(99) });
        assert_eq!(standing.notes(), ["offsets 90 to 95 were deleted before they were read"]);
        standing.topic_id = Some("b".into());
        assert_eq!(standing.notes(), ["the topic was recreated"]);
        assert_eq!(standing.lag_stored(), None);
        (standing.topic, standing.topic_id) = (None, None);
        assert_eq!(standing.notes(), ["the topic has no such partition"]);
        standing.store.checkpoint = None;
        assert_eq!(standing.notes(), ["never claimed"]);
    }
}
