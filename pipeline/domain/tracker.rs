//! Separates the order of computation from the order of commit.
//!
//! Records of a partition are registered in the order of their offsets and finished in any order; what
//! comes out is the contiguous finished prefix. Guarantee: a position never passes a record that is not
//! finished, however many later ones are. Not thread-safe, not bounded: the source bounds what is in
//! flight.

use std::collections::VecDeque;

use super::checkpoint::Position;

/// The records of one partition between arrival and commit.
#[derive(Debug)]
pub struct Tracker<T> {
    slots: VecDeque<Slot<T>>,
}

#[derive(Debug)]
struct Slot<T> {
    offset: i64,
    finished: Option<T>,
}

/// Finished records in the order of their offsets, and the position once they are committed.
#[derive(Debug, PartialEq, Eq)]
pub struct Prefix<T> {
    pub records: Vec<T>,
    pub end: Position,
}

/// A record was reported that the tracker does not wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TrackerError {
    #[error("offset {offset} is not above the last registered offset {last}")]
    NotAscending { offset: i64, last: i64 },
    #[error("offset {0} was not registered, or was finished before")]
    Unexpected(i64),
}

impl<T> Default for Tracker<T> {
    fn default() -> Self {
        Self { slots: VecDeque::new() }
    }
}

impl<T> Tracker<T> {
    /// A record arrived. Offsets ascend, with gaps.
    ///
    /// # Errors
    /// [`TrackerError::NotAscending`] if a record at or above `offset` is already here.
    pub fn register(&mut self, offset: i64) -> Result<(), TrackerError> {
        if let Some(last) = self.slots.back().filter(|last| last.offset >= offset) {
            return Err(TrackerError::NotAscending { offset, last: last.offset });
        }
        self.slots.push_back(Slot { offset, finished: None });
        Ok(())
    }

    /// The record at `offset` is done, with this result.
    ///
    /// # Errors
    /// [`TrackerError::Unexpected`] if it never arrived or was finished before.
    pub fn finish(&mut self, offset: i64, result: T) -> Result<(), TrackerError> {
        let slot = self
            .slots
            .binary_search_by_key(&offset, |slot| slot.offset)
            .ok()
            .map(|index| &mut self.slots[index])
            .filter(|slot| slot.finished.is_none())
            .ok_or(TrackerError::Unexpected(offset))?;
        slot.finished = Some(result);
        Ok(())
    }

    /// Takes the finished prefix, at most `limit` records of it; `None` where the first record is still
    /// in work.
    pub fn take_prefix(&mut self, limit: usize) -> Option<Prefix<T>> {
        let mut records = Vec::new();
        let mut end = None;
        while records.len() < limit {
            let Some(Slot { finished: Some(_), .. }) = self.slots.front() else { break };
            let Some(Slot { offset, finished: Some(record) }) = self.slots.pop_front() else { break };
            records.push(record);
            end = Some(Position::after(offset));
        }
        end.map(|end| Prefix { records, end })
    }

    /// Whether [`Self::take_prefix`] would give something.
    pub fn has_prefix(&self) -> bool {
        self.slots.front().is_some_and(|slot| slot.finished.is_some())
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_position_waits_for_the_slowest_earlier_record() {
        let mut tracker = Tracker::default();
        for offset in [3, 4, 7] {
            tracker.register(offset).unwrap();
        }
        tracker.finish(7, "c").unwrap();
        tracker.finish(4, "b").unwrap();
        assert_eq!(tracker.take_prefix(10), None);
        tracker.finish(3, "a").unwrap();
        assert_eq!(tracker.take_prefix(2), Some(Prefix { records: vec!["a", "b"], end: Position(5) }));
        assert_eq!(tracker.take_prefix(2), Some(Prefix { records: vec!["c"], end: Position(8) }));
        assert!(tracker.is_empty());
    }

    #[test]
    fn records_out_of_order_or_finished_twice_are_errors() {
        let mut tracker = Tracker::default();
        tracker.register(3).unwrap();
        assert_eq!(tracker.register(3), Err(TrackerError::NotAscending { offset: 3, last: 3 }));
        assert_eq!(tracker.finish(4, ()), Err(TrackerError::Unexpected(4)));
        tracker.finish(3, ()).unwrap();
        assert_eq!(tracker.finish(3, ()), Err(TrackerError::Unexpected(3)));
    }

    proptest! {
        #[test]
        fn any_order_of_finishing_gives_every_record_once_and_in_order(
            gaps in prop::collection::vec(1_i64..4, 1..60),
            shuffle in any::<u64>(),
            limit in 1_usize..9,
        ) {
            let offsets: Vec<i64> = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect();
            let mut tracker = Tracker::default();
            for &offset in &offsets {
                tracker.register(offset).unwrap();
            }
            let mut order = offsets.clone();
            order.sort_by_key(|offset| (*offset as u64).wrapping_mul(shuffle | 1).rotate_left(17));
            let mut out = Vec::new();
            let mut finished = std::collections::BTreeSet::new();
            for offset in order {
                tracker.finish(offset, offset).unwrap();
                finished.insert(offset);
                while let Some(prefix) = tracker.take_prefix(limit) {
                    prop_assert!(prefix.records.len() <= limit);
                    prop_assert!(prefix.records.iter().all(|record| finished.contains(record)));
                    prop_assert_eq!(prefix.end.0, prefix.records.last().unwrap() + 1);
                    out.extend(prefix.records);
                }
            }
            prop_assert_eq!(out, offsets);
            prop_assert!(tracker.is_empty());
        }
    }
}
