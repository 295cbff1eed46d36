//! From where a partition's labels are published, decided from what the group's offset, the outbox and the
//! checkpoint say.
//!
//! Guarantee: as long as the group's offset is the one that was committed with the published records,
//! publishing goes on exactly behind them. Where it is not (deleted, overwritten, or newer than a restored
//! database), [`resolve`] says what has to be found out or decided; it never guesses.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{checkpoint::Position, live::Published};

/// What is written beside the group's offset, as JSON: it tells our offsets from anybody else's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkerNote {
    /// Of the checkpoint that the offset belongs to.
    pub epoch: i64,
    /// An operator said that the offset is right although the store stands before it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub confirmed: bool,
    /// The offset was found ahead of the store, which stood here, and nobody has decided yet. Kept with the offset
    /// since the store goes on meanwhile, and what is ahead of it now would pass for published later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead_of: Option<Published>,
}

impl MarkerNote {
    /// An offset that needs no further word.
    pub fn of_epoch(epoch: i64) -> Self {
        Self { epoch, confirmed: false, ahead_of: None }
    }
}

/// The group's committed offset of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    pub position: Position,
    /// `None` where it was not albertine that committed it.
    pub note: Option<MarkerNote>,
}

impl Marker {
    /// Reads the note of an offset as the broker keeps it.
    pub fn of(position: Position, metadata: &str) -> Self {
        Self { position, note: serde_json::from_str(metadata).ok() }
    }
}

/// The group's committed offset as the broker keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupOffset {
    pub position: Position,
    /// What was written beside it.
    pub metadata: String,
}

impl GroupOffset {
    pub fn marker(&self) -> Marker {
        Marker::of(self.position, &self.metadata)
    }
}

/// What the store knows of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredState {
    /// Whose claim holds the partition.
    pub owner: Option<Uuid>,
    /// Epoch and position of the checkpoint.
    pub stored: Published,
}

/// How to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// Everything below is published; what follows is not.
    From(Published),
    /// Whether the outbox was published cannot be told from the offset: look at the live topic, from this range
    /// on. What was found goes through [`resolve_found`].
    Search { first: Published },
    /// More is published than the store knows: the database was restored from an older state, or the offset was
    /// moved. An operator has to say which is right.
    Ahead { published: Published, stored: Published },
}

/// Decides from the group's offset, the checkpoint (`stored`) and where the oldest range of the outbox begins
/// (`first`). `fresh` is where the partition began, if nothing had been stored before the present claim.
pub fn resolve(
    marker: Option<&Marker>,
    stored: Published,
    first: Option<Published>,
    fresh: Option<Published>,
) -> Resolution {
    match (marker, first) {
        (Some(Marker { position, note: Some(note) }), _) => {
            let published = Published { epoch: note.epoch, position: *position };
            match note.ahead_of {
                Some(stored) => Resolution::Ahead { published, stored },
                None if published > stored && !note.confirmed => Resolution::Ahead { published, stored },
                None => Resolution::From(published),
            }
        }
        // A range leaves the outbox only after it was published: nothing is left to publish.
        (_, None) => Resolution::From(stored),
        (_, Some(first)) => {
            // What is there was stored under the present claim, and nobody has published any of it yet.
            if fresh.is_some_and(|fresh| fresh <= first) {
                Resolution::From(first)
            } else {
                Resolution::Search { first }
            }
        }
    }
}

/// Decides from the newest record of the partition that the live topic holds, where there is one.
pub fn resolve_found(found: Option<Published>, first: Published, stored: Published) -> Resolution {
    match found {
        Some(published) if published > stored => Resolution::Ahead { published, stored },
        Some(published) => Resolution::From(published.max(first)),
        None => Resolution::From(first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: i64, position: i64) -> Published {
        Published { epoch, position: Position(position) }
    }

    fn marker(epoch: i64, position: i64, confirmed: bool) -> Marker {
        Marker { position: Position(position), note: Some(MarkerNote { confirmed, ..MarkerNote::of_epoch(epoch) }) }
    }

    #[test]
    fn our_own_offset_is_where_it_goes_on() {
        assert_eq!(resolve(Some(&marker(1, 60, false)), at(1, 90), Some(at(1, 50)), None), Resolution::From(at(1, 60)));
        assert_eq!(resolve(Some(&marker(1, 90, false)), at(1, 90), None, None), Resolution::From(at(1, 90)));
        assert_eq!(resolve(Some(&marker(1, 900, false)), at(2, 10), None, None), Resolution::From(at(1, 900)));
    }

    #[test]
    fn an_offset_ahead_of_the_store_needs_an_operator_unless_one_confirmed_it() {
        let ahead = Resolution::Ahead { published: at(1, 95), stored: at(1, 90) };
        assert_eq!(resolve(Some(&marker(1, 95, false)), at(1, 90), Some(at(1, 80)), None), ahead);
        assert_eq!(resolve(Some(&marker(1, 95, true)), at(1, 90), None, None), Resolution::From(at(1, 95)));
        assert_eq!(resolve_found(Some(at(1, 95)), at(1, 80), at(1, 90)), ahead);
    }

    #[test]
    fn an_offset_that_was_found_ahead_stays_so_however_far_the_store_goes_on() {
        let note = MarkerNote { ahead_of: Some(at(1, 90)), ..MarkerNote::of_epoch(1) };
        let undecided = Marker { position: Position(95), note: Some(note) };
        let ahead = Resolution::Ahead { published: at(1, 95), stored: at(1, 90) };
        assert_eq!(resolve(Some(&undecided), at(1, 99), Some(at(1, 90)), None), ahead);
    }

    #[test]
    fn without_our_offset_an_empty_outbox_means_all_is_published_and_a_full_one_is_searched() {
        let foreign = Marker::of(Position(7), "somebody else's");
        for missing in [None, Some(&foreign)] {
            assert_eq!(resolve(missing, at(1, 90), None, None), Resolution::From(at(1, 90)));
            let search = Resolution::Search { first: at(1, 80) };
            assert_eq!(resolve(missing, at(1, 90), Some(at(1, 80)), None), search);
            assert_eq!(resolve(missing, at(1, 90), Some(at(1, 80)), Some(at(1, 85))), search);
            let from = Resolution::From(at(1, 80));
            assert_eq!(resolve(missing, at(1, 90), Some(at(1, 80)), Some(at(1, 80))), from);
        }
        assert_eq!(resolve_found(None, at(1, 80), at(1, 90)), Resolution::From(at(1, 80)));
        assert_eq!(resolve_found(Some(at(1, 85)), at(1, 80), at(1, 90)), Resolution::From(at(1, 85)));
        assert_eq!(resolve_found(Some(at(1, 70)), at(1, 80), at(1, 90)), Resolution::From(at(1, 80)));
    }

    #[test]
    fn a_note_reads_back_and_nothing_else_does() {
        let plain = MarkerNote::of_epoch(3);
        let confirmed = MarkerNote { confirmed: true, ..plain.clone() };
        let undecided = MarkerNote { ahead_of: Some(at(3, 5)), ..plain.clone() };
        assert_eq!(serde_json::to_string(&plain).unwrap(), r#"{"epoch":3}"#);
        for note in [plain, confirmed, undecided] {
            let written = serde_json::to_string(&note).unwrap();
            assert_eq!(Marker::of(Position(1), &written).note, Some(note));
        }
        for foreign in ["", "x", "{}", "3"] {
            assert_eq!(Marker::of(Position(1), foreign).note, None, "{foreign}");
        }
    }
}
