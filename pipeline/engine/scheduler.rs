//! Decides which windows are computed together, and when. Pure: no thread, no clock, no runtime.
//!
//! Rules:
//! 1. A window of a backfill waits as long as a live one does. Among those of one priority, the one that has waited
//!    longest is always part of the next group, so nothing live starves.
//! 2. A group holds windows of one model and one priority whose lengths differ by at most [`length_tolerance`], so that
//!    padding stays below about a tenth of the computed tokens; those of the very same length come first.
//! 3. A group's computed tokens (longest length times windows) stay within the budget, except for one
//!    window that alone exceeds it. A window of a backfill goes alone: a live one that comes while it is computed waits
//!    for its end, and on a CPU a window costs alone what it costs in a group.

use std::collections::{BTreeMap, VecDeque};

use super::job::{ModelIndex, Priority};

/// A window's place in line. Smaller came earlier.
type Ticket = u64;

/// The budget of a backfill's groups: no two windows are within it.
const BACKFILL_GROUP_TOKENS_MAX: usize = 0;

/// Windows that wait, by priority.
pub struct Scheduler<T> {
    next_ticket: Ticket,
    live: Waiting<T>,
    backfill: Waiting<T>,
}

/// Windows of one priority, by model and length.
struct Waiting<T> {
    group_tokens_max: usize,
    queued_tokens: usize,
    lines: BTreeMap<(ModelIndex, usize), VecDeque<(Ticket, T)>>,
}

/// What is computed in one call.
#[derive(Debug, PartialEq, Eq)]
pub struct Group<T> {
    pub model: ModelIndex,
    pub windows: Vec<T>,
}

/// How much shorter or longer than `length` a companion may be, in tokens.
pub fn length_tolerance(length: usize) -> usize {
    length / 16 + 1
}

impl<T> Scheduler<T> {
    /// `group_tokens_max`: computed tokens of one group. Larger groups amortise the cost of a call over
    /// more tokens; beyond a few hundred tokens nothing is gained on a CPU, and a group delays all of
    /// its documents to its end.
    pub fn new(group_tokens_max: usize) -> Self {
        let (live, backfill) = (Waiting::new(group_tokens_max), Waiting::new(BACKFILL_GROUP_TOKENS_MAX));
        Self { next_ticket: 0, live, backfill }
    }

    /// A window of `length` tokens joins the line.
    pub fn push(&mut self, priority: Priority, model: ModelIndex, length: usize, window: T) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        match priority {
            Priority::Live => self.live.push(model, length, (ticket, window)),
            Priority::Backfill => self.backfill.push(model, length, (ticket, window)),
        }
    }

    /// Tokens of all waiting windows of a priority.
    pub fn queued_tokens(&self, priority: Priority) -> usize {
        match priority {
            Priority::Live => self.live.queued_tokens,
            Priority::Backfill => self.backfill.queued_tokens,
        }
    }

    /// Takes the next group; `None` where nothing waits.
    pub fn next_group(&mut self) -> Option<Group<T>> {
        self.live.next_group().or_else(|| self.backfill.next_group())
    }
}

impl<T> Waiting<T> {
    fn new(group_tokens_max: usize) -> Self {
        Self { group_tokens_max, queued_tokens: 0, lines: BTreeMap::new() }
    }

    fn push(&mut self, model: ModelIndex, length: usize, window: (Ticket, T)) {
        self.lines.entry((model, length)).or_default().push_back(window);
        self.queued_tokens += length;
    }

    fn next_group(&mut self) -> Option<Group<T>> {
        let (&(model, length), _) =
            self.lines.iter().min_by_key(|(_, line)| line.front().map_or(Ticket::MAX, |(ticket, _)| *ticket))?;
        let mut windows = Vec::new();
        let mut longest = 0;
        for candidate in self.companions(model, length) {
            while (windows.len() + 1) * longest.max(candidate) <= self.group_tokens_max || windows.is_empty() {
                let Some(window) = self.pop(model, candidate) else { break };
                windows.push(window);
                longest = longest.max(candidate);
            }
        }
        Some(Group { model, windows })
    }

    /// Lengths that may join a window of `length`: the same, then the next nearest.
    fn companions(&self, model: ModelIndex, length: usize) -> Vec<usize> {
        let tolerance = length_tolerance(length);
        let range = (model, length.saturating_sub(tolerance))..=(model, length + tolerance);
        let mut lengths: Vec<usize> = self.lines.range(range).map(|((_, length), _)| *length).collect();
        lengths.sort_by_key(|candidate| candidate.abs_diff(length));
        lengths
    }

    fn pop(&mut self, model: ModelIndex, length: usize) -> Option<T> {
        let line = self.lines.get_mut(&(model, length))?;
        let (_, window) = line.pop_front()?;
        if line.is_empty() {
            self.lines.remove(&(model, length));
        }
        self.queued_tokens -= length;
        Some(window)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scheduler(lengths: &[(ModelIndex, usize)]) -> Scheduler<usize> {
        let mut scheduler = Scheduler::new(100);
        for (index, &(model, length)) in lengths.iter().enumerate() {
            scheduler.push(Priority::Live, model, length, index);
        }
        scheduler
    }

    #[test]
    fn the_oldest_window_goes_first_with_companions_of_its_length() {
        let mut scheduler = scheduler(&[(0, 20), (0, 50), (0, 20), (1, 20), (0, 21)]);
        assert_eq!(scheduler.next_group(), Some(Group { model: 0, windows: vec![0, 2, 4] }));
        assert_eq!(scheduler.next_group(), Some(Group { model: 0, windows: vec![1] }));
        assert_eq!(scheduler.next_group(), Some(Group { model: 1, windows: vec![3] }));
        assert_eq!(scheduler.next_group(), None);
    }

    #[test]
    fn a_group_stays_within_its_tokens() {
        let mut scheduler = scheduler(&[(0, 40), (0, 40), (0, 40)]);
        assert_eq!(scheduler.next_group().unwrap().windows, [0, 1]);
        assert_eq!(scheduler.next_group().unwrap().windows, [2]);
    }

    #[test]
    fn a_window_above_the_budget_goes_alone() {
        let mut scheduler = scheduler(&[(0, 400), (0, 400)]);
        assert_eq!(scheduler.next_group().unwrap().windows, [0]);
    }

    #[test]
    fn a_backfill_waits_for_what_is_live_and_computes_one_window_at_a_time() {
        let mut scheduler = Scheduler::new(100);
        for index in 0..3 {
            scheduler.push(Priority::Backfill, 0, 10, index);
        }
        scheduler.push(Priority::Live, 0, 10, 3);
        assert_eq!(scheduler.next_group().unwrap().windows, [3]);
        assert_eq!(scheduler.next_group().unwrap().windows, [0]);
        assert_eq!(scheduler.next_group().unwrap().windows, [1]);
        scheduler.push(Priority::Live, 0, 10, 4);
        assert_eq!(scheduler.next_group().unwrap().windows, [4]);
        assert_eq!(scheduler.next_group().unwrap().windows, [2]);
        assert_eq!(scheduler.next_group(), None);
    }

    proptest! {
        #[test]
        fn every_window_leaves_once_and_no_rule_is_broken(
            windows in prop::collection::vec((any::<bool>(), 0_usize..3, 1_usize..150), 0..200),
            budget in 1_usize..400,
        ) {
            let priority = |index: usize| if windows[index].0 { Priority::Live } else { Priority::Backfill };
            let mut scheduler = Scheduler::new(budget);
            for (index, &(_, model, length)) in windows.iter().enumerate() {
                scheduler.push(priority(index), model, length, index);
            }
            // Live before backfill, then as they came.
            let mut waiting: std::collections::BTreeSet<(Priority, usize)> =
                (0..windows.len()).map(|index| (priority(index), index)).collect();
            while let Some(group) = scheduler.next_group() {
                let (first, oldest) = waiting.first().copied().unwrap();
                prop_assert_eq!(group.windows.first(), Some(&oldest));
                let lengths: Vec<usize> = group.windows.iter().map(|&index| windows[index].2).collect();
                let longest = *lengths.iter().max().unwrap();
                let budget = if first == Priority::Live { budget } else { BACKFILL_GROUP_TOKENS_MAX };
                prop_assert!(lengths.len() == 1 || longest * lengths.len() <= budget);
                let tolerance = length_tolerance(windows[oldest].2);
                for &index in &group.windows {
                    prop_assert_eq!(windows[index].1, group.model);
                    prop_assert!(windows[index].2.abs_diff(windows[oldest].2) <= tolerance);
                    prop_assert!(waiting.remove(&(first, index)), "a group has two priorities, or a window left twice");
                }
            }
            prop_assert!(waiting.is_empty());
            prop_assert_eq!(scheduler.queued_tokens(Priority::Live) + scheduler.queued_tokens(Priority::Backfill), 0);
        }
    }
}
