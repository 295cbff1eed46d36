//! What does not fit together: deviations from what the delivery contract promises, each in words.
//!
//! Guarantee: workers that run meanwhile make no deviation, as long as the facts are read in the order that
//! [`super::standing`] demands.

use super::{
    decision::PublishedDecision,
    live::Published,
    publication::GroupOffset,
    standing::{Publication, Standing},
};

/// What one check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deviations {
    pub total: usize,
    /// The first of them.
    pub shown: Vec<String>,
}

impl Deviations {
    /// How many are named: enough to see what they have in common.
    pub const SHOWN_MAX: usize = 20;

    /// `total` deviations, of which these are the first.
    pub fn of(total: usize, first: impl Iterator<Item = String>) -> Self {
        // Ids come from records; they must not steer a terminal.
        let harmless = |text: String| text.replace(char::is_control, "\u{fffd}");
        Self { total, shown: first.take(Self::SHOWN_MAX).map(harmless).collect() }
    }
}

impl FromIterator<String> for Deviations {
    fn from_iter<I: IntoIterator<Item = String>>(all: I) -> Self {
        let all: Vec<String> = all.into_iter().collect();
        Self::of(all.len(), all.into_iter())
    }
}

/// How a checkpoint differs from its topic.
pub fn checkpoint_deviations(standing: &Standing) -> Vec<String> {
    let Some(checkpoint) = &standing.store.checkpoint else { return Vec::new() };
    let (key, position) = (&standing.key, checkpoint.stored.position);
    let Some(extent) = standing.topic else { return vec![format!("{key}: the topic has no such partition")] };
    if standing.is_recreated() {
        let id = |id: &Option<String>| id.clone().unwrap_or_default();
        let (before, now) = (id(&checkpoint.topic_id), id(&standing.topic_id));
        return vec![format!("{key}: the checkpoint belongs to the topic of id {before}, and the topic has id {now}")];
    }
    if position < extent.low || position > extent.end {
        let (position, low, end) = (position.0, extent.low.0, extent.end.0);
        return vec![format!("{key}: the checkpoint stands at {position}, and the topic holds {low} to {end}")];
    }
    Vec::new()
}

/// How what is published differs from what is stored and from the outbox. `publication` is what was found out from
/// the facts in `standing`; `later` is the group's offset as read after the store.
pub fn publication_deviations(
    standing: &Standing,
    publication: Publication,
    later: Option<&GroupOffset>,
) -> Vec<String> {
    let key = &standing.key;
    let advice = || PublishedDecision::advice(publication, key);
    match publication {
        Publication::Off | Publication::NotBegun | Publication::Confirmed(_) => Vec::new(),
        Publication::Ahead { published, stored } => {
            vec![format!("{key}: published up to {published}, but stored only up to {stored}: decide {}", advice())]
        }
        Publication::Unknown { .. } => {
            vec![format!(
                "{key}: neither the group's offset nor the live topic tells how far it is published: decide {}",
                advice()
            )]
        }
        Publication::At(_) => missing(standing, later).into_iter().collect(),
    }
}

/// What is stored, not published, and not in the outbox. Only told within an epoch: one may begin anywhere.
fn missing(standing: &Standing, later: Option<&GroupOffset>) -> Option<String> {
    let stored = standing.store.checkpoint.as_ref()?.stored;
    let marker = later?.marker();
    let published = Published { epoch: marker.note?.epoch, position: marker.position };
    let gap = |from: Published, to: Published| {
        (from.epoch == to.epoch && from < to).then(|| {
            format!(
                "{}: offsets {} to {} of epoch {} are stored, but neither published nor in the outbox",
                standing.key, from.position.0, to.position.0, from.epoch
            )
        })
    };
    match standing.store.outbox {
        None => gap(published, stored),
        Some(outbox) => gap(published, outbox.first).or_else(|| gap(outbox.last.max(published), stored)),
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::domain::{
        checkpoint::{PartitionKey, Position},
        standing::{CheckpointState, OutboxExtent, StoreStanding, TopicExtent},
    };

    fn at(epoch: i64, position: i64) -> Published {
        Published { epoch, position: Position(position) }
    }

    fn standing(stored: Published, outbox: Option<(Published, Published)>) -> Standing {
        let checkpoint = CheckpointState {
            owner: None,
            stored,
            generation: 1,
            topic_id: Some("a".into()),
            claimed_at: None,
            stored_at: Some(DateTime::UNIX_EPOCH),
        };
        let outbox = outbox.map(|(first, last)| OutboxExtent {
            ranges: 1,
            bytes: 1,
            first,
            last,
            first_stored_at: DateTime::UNIX_EPOCH,
        });
        Standing {
            key: PartitionKey { stream: "reviews".into(), topic: "reviews".into(), partition: 0 },
            live: true,
            topic_id: Some("a".into()),
            topic: Some(TopicExtent { low: Position(10), end: Position(100) }),
            offset: None,
            store: StoreStanding { checkpoint: Some(checkpoint), outbox, ..StoreStanding::default() },
        }
    }

    fn gaps(standing: &Standing, published: Published) -> usize {
        let metadata = format!("{{\"epoch\":{}}}", published.epoch);
        let later = GroupOffset { position: published.position, metadata };
        publication_deviations(standing, Publication::At(published), Some(&later)).len()
    }

    #[test]
    fn what_is_stored_is_published_or_in_the_outbox() {
        assert_eq!(gaps(&standing(at(1, 90), None), at(1, 90)), 0);
        assert_eq!(gaps(&standing(at(1, 90), None), at(1, 80)), 1);
        assert_eq!(gaps(&standing(at(2, 20), None), at(1, 80)), 0, "an epoch that just began");
        let outbox = Some((at(1, 50), at(1, 90)));
        assert_eq!(gaps(&standing(at(1, 90), outbox), at(1, 50)), 0);
        assert_eq!(gaps(&standing(at(1, 90), outbox), at(1, 70)), 0);
        assert_eq!(gaps(&standing(at(1, 90), outbox), at(1, 95)), 0, "published since the store was read");
        assert_eq!(gaps(&standing(at(1, 90), outbox), at(1, 40)), 1);
        assert_eq!(gaps(&standing(at(1, 95), outbox), at(1, 50)), 1);
        assert_eq!(gaps(&standing(at(2, 20), Some((at(2, 10), at(2, 20)))), at(1, 80)), 0);
    }

    #[test]
    fn a_checkpoint_lies_in_its_topic() {
        let deviations = |stored, change: fn(&mut Standing)| {
            let mut standing = standing(stored, None);
            change(&mut standing);
            checkpoint_deviations(&standing).join("")
        };
        assert_eq!(deviations(at(1, 10), |_| ()), "");
        assert_eq!(deviations(at(1, 100), |_| ()), "");
        assert!(deviations(at(1, 9), |_| ()).contains("stands at 9, and the topic holds 10 to 100"));
        assert!(deviations(at(1, 101), |_| ()).contains("stands at 101"));
        assert!(deviations(at(1, 50), |standing| standing.topic_id = Some("b".into())).contains("has id b"));
        assert!(deviations(at(1, 50), |standing| standing.topic = None).contains("no such partition"));
    }

    #[test]
    fn only_the_first_deviations_are_named_and_none_steers_a_terminal() {
        let many: Deviations = (0..50).map(|index| format!("{index}\u{1b}[31m")).collect();
        assert_eq!((many.total, many.shown.len()), (50, Deviations::SHOWN_MAX));
        assert_eq!(many.shown[7], "7\u{fffd}[31m");
    }
}
