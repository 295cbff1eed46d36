//! Decides which windows are computed together, and when. Pure: no thread, no clock, no runtime.
//!
//! Rules:
//! 1. Nothing of a backfill is handed out while a live window waits.
//! 2. Flows of one priority share the engine equally, by tokens: a window's place in line is the number of tokens its flow
//!    was served before it (start-time fair queueing: Goyal, Vin and Cheng 1996). A flow that was idle begins at the place
//!    that is being served, so that it neither waits for the backlog of others nor saves up turns. The first in line is
//!    part of the next group, so nothing starves. Inside a flow windows of one model and one length keep their order;
//!    others are passed by those that keep the first in line company.
//! 3. A group holds windows of one model and one priority. Those of the same length as the first in line come first; others
//!    differ from it by at most a part of it ([`GroupLimits::length_part`]), so that padding stays below about that part of the
//!    computed tokens, or twice that where some are shorter and some longer. A call costs no more than one and a half
//!    tokens on a CPU, so company is not worth padding there; on a GPU it is. None stands further than [`GROUPS_AHEAD_MAX`] groups behind the place that is being
//!    served. Otherwise a flow with a long queue, which has company for every window, would be served with the turns of
//!    others. So of two flows that always have windows waiting, neither is served more than these tokens and one window
//!    before the other.
//! 4. A group's computed tokens (longest length times windows) stay within the budget, except for one
//!    window that alone exceeds it.
//! 5. Where windows have left a group early, others take their place by rules 3 and 4, as company of the longest that is
//!    left, during as many steps as the model has passes, which bounds how long the first in line may be passed over.

use std::collections::{BTreeMap, HashMap};

use super::job::{ModelIndex, Priority};

/// Whose work it is: a stream, or a job.
pub type Flow = u64;

/// A window's place in line: the tokens its flow was served before it, then its arrival. Smaller is first.
type Place = (u64, u64);

/// Windows that wait, by priority.
pub struct Scheduler<T> {
    arrivals: u64,
    limits: GroupLimits,
    live: Waiting<T>,
    backfill: Waiting<T>,
}

/// How large a group may be, and how unequal its windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupLimits {
    /// Computed tokens. Larger groups amortise the cost of a call over more tokens; beyond a hundred tokens nothing is gained on
    /// a CPU, and where they outgrow the cache, much is lost. A group delays all of its documents to the end of a pass.
    pub tokens_max: usize,
    /// A companion may be shorter or longer than the first by this part of its length: of 32, a 32nd, so below 32 tokens not at
    /// all. Not zero.
    pub length_part: usize,
}

impl GroupLimits {
    /// How much shorter or longer than `length` a companion may be, in tokens.
    pub fn length_tolerance(self, length: usize) -> usize {
        length / self.length_part
    }
}

/// Windows of one priority, by model and length.
struct Waiting<T> {
    queued_tokens: usize,
    /// The place that is being served.
    served: u64,
    flows: HashMap<Flow, FlowState>,
    lines: BTreeMap<(ModelIndex, usize), BTreeMap<Place, (Flow, T)>>,
}

/// What is known of a flow while it has windows here, or is ahead of what is served.
#[derive(Default)]
struct FlowState {
    queued_tokens: usize,
    /// Where its next window stands in line.
    next: u64,
}

/// What is computed together.
#[derive(Debug, PartialEq, Eq)]
pub struct Group<T> {
    pub priority: Priority,
    pub model: ModelIndex,
    pub windows: Vec<T>,
}

/// A group that is being computed and has room.
#[derive(Debug, Clone, Copy)]
pub struct Running {
    pub priority: Priority,
    pub model: ModelIndex,
    /// What is left in it.
    pub windows: usize,
    /// Tokens of the longest of these.
    pub longest: usize,
    /// Passes it has computed since it began.
    pub steps: usize,
    /// Passes of its model.
    pub passes: usize,
}

/// How far from the place that is being served a companion may stand, in groups of the most tokens. Fewer of them leave
/// groups without companions of their length: with 2,000 tokens in place of 4,000, a backlog of short texts took 0.3%
/// longer.
pub const GROUPS_AHEAD_MAX: u64 = 20;

impl<T> Scheduler<T> {
    pub fn new(limits: GroupLimits) -> Self {
        Self { arrivals: 0, limits, live: Waiting::new(), backfill: Waiting::new() }
    }

    /// A window of `length` tokens joins the line.
    pub fn push(&mut self, priority: Priority, flow: Flow, model: ModelIndex, length: usize, window: T) {
        let arrival = self.arrivals;
        self.arrivals += 1;
        self.waiting_mut(priority).push(arrival, flow, (model, length), window);
    }

    /// Tokens of all waiting windows of a priority.
    pub fn queued_tokens(&self, priority: Priority) -> usize {
        self.waiting(priority).queued_tokens
    }

    /// Tokens of the waiting windows of one flow.
    pub fn queued_tokens_of(&self, priority: Priority, flow: Flow) -> usize {
        self.waiting(priority).flows.get(&flow).map_or(0, |flow| flow.queued_tokens)
    }

    /// Takes the next group; `None` where nothing waits.
    pub fn next_group(&mut self) -> Option<Group<T>> {
        self.next_group_of(Priority::Live).or_else(|| self.next_group_of(Priority::Backfill))
    }

    /// Takes the next group of one priority; `None` where nothing of it waits.
    pub fn next_group_of(&mut self, priority: Priority) -> Option<Group<T>> {
        let limits = self.limits;
        let waiting = self.waiting_mut(priority);
        let (model, length) = waiting.first()?;
        let mut windows: Vec<T> = waiting.pop((model, length)).into_iter().collect();
        waiting.fill(&mut windows, (model, length), (1, length), limits);
        Some(Group { priority, model, windows })
    }

    /// Takes windows that join a group which is being computed.
    pub fn companions(&mut self, running: &Running) -> Vec<T> {
        let mut windows = Vec::new();
        if running.steps < running.passes {
            let limits = self.limits;
            let waiting = self.waiting_mut(running.priority);
            let has = (running.windows, running.longest);
            waiting.fill(&mut windows, (running.model, running.longest), has, limits);
        }
        windows
    }

    fn waiting(&self, priority: Priority) -> &Waiting<T> {
        match priority {
            Priority::Live => &self.live,
            Priority::Backfill => &self.backfill,
        }
    }

    fn waiting_mut(&mut self, priority: Priority) -> &mut Waiting<T> {
        match priority {
            Priority::Live => &mut self.live,
            Priority::Backfill => &mut self.backfill,
        }
    }
}

impl<T> Waiting<T> {
    fn new() -> Self {
        Self { queued_tokens: 0, served: 0, flows: HashMap::new(), lines: BTreeMap::new() }
    }

    fn push(&mut self, arrival: u64, flow: Flow, (model, length): (ModelIndex, usize), window: T) {
        let state = self.flows.entry(flow).or_default();
        let place = state.next.max(self.served);
        state.next = place + length as u64;
        state.queued_tokens += length;
        self.queued_tokens += length;
        self.lines.entry((model, length)).or_default().insert((place, arrival), (flow, window));
    }

    /// The model and length of the first in line, whose place is being served from now on.
    fn first(&mut self) -> Option<(ModelIndex, usize)> {
        let fronts = self.lines.iter().filter_map(|(line, windows)| Some((windows.keys().next()?, line)));
        let (&(place, _), &line) = fronts.min()?;
        self.served = self.served.max(place);
        let served = self.served;
        self.flows.retain(|_, flow| flow.queued_tokens > 0 || flow.next > served);
        Some(line)
    }

    /// Adds windows to a group of so many windows, the longest of which has so many tokens.
    fn fill(
        &mut self,
        group: &mut Vec<T>,
        (model, length): (ModelIndex, usize),
        (mut windows, mut longest): (usize, usize),
        limits: GroupLimits,
    ) {
        let place_max = self.served.saturating_add((limits.tokens_max as u64).saturating_mul(GROUPS_AHEAD_MAX));
        for candidate in self.companions(model, length, limits.length_tolerance(length)) {
            while (windows + 1) * longest.max(candidate) <= limits.tokens_max {
                let Some(window) = self.pop_up_to((model, candidate), place_max) else { break };
                group.push(window);
                windows += 1;
                longest = longest.max(candidate);
            }
        }
    }

    /// Lengths that may join a window of `length`: the same, then the next nearest.
    fn companions(&self, model: ModelIndex, length: usize, tolerance: usize) -> Vec<usize> {
        let range = (model, length.saturating_sub(tolerance))..=(model, length + tolerance);
        let mut lengths: Vec<usize> = self.lines.range(range).map(|((_, length), _)| *length).collect();
        lengths.sort_by_key(|candidate| candidate.abs_diff(length));
        lengths
    }

    /// The first of a line, where it stands at this place or before it.
    fn pop_up_to(&mut self, line: (ModelIndex, usize), place_max: u64) -> Option<T> {
        let (&(place, _), _) = self.lines.get(&line)?.first_key_value()?;
        if place <= place_max { self.pop(line) } else { None }
    }

    fn pop(&mut self, line: (ModelIndex, usize)) -> Option<T> {
        let windows = self.lines.get_mut(&line)?;
        let (_, (flow, window)) = windows.pop_first()?;
        if windows.is_empty() {
            self.lines.remove(&line);
        }
        self.queued_tokens -= line.1;
        if let Some(state) = self.flows.get_mut(&flow) {
            state.queued_tokens -= line.1;
        }
        Some(window)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn limits(tokens_max: usize) -> GroupLimits {
        GroupLimits { tokens_max, length_part: 32 }
    }

    fn scheduler(lengths: &[(ModelIndex, usize)]) -> Scheduler<usize> {
        let mut scheduler = Scheduler::new(limits(100));
        for (index, &(model, length)) in lengths.iter().enumerate() {
            scheduler.push(Priority::Live, 0, model, length, index);
        }
        scheduler
    }

    fn windows(scheduler: &mut Scheduler<usize>) -> Option<Vec<usize>> {
        scheduler.next_group().map(|group| group.windows)
    }

    #[test]
    fn the_oldest_window_goes_first_with_companions_of_its_length() {
        let mut scheduler = scheduler(&[(0, 32), (0, 50), (0, 32), (1, 32), (0, 33)]);
        let group = Group { priority: Priority::Live, model: 0, windows: vec![0, 2, 4] };
        assert_eq!(scheduler.next_group(), Some(group));
        assert_eq!(windows(&mut scheduler), Some(vec![1]));
        assert_eq!(windows(&mut scheduler), Some(vec![3]));
        assert_eq!(windows(&mut scheduler), None);
    }

    #[test]
    fn short_windows_have_company_of_their_length_only() {
        let mut scheduler = scheduler(&[(0, 31), (0, 30), (0, 31), (0, 32)]);
        assert_eq!(windows(&mut scheduler), Some(vec![0, 2]));
        assert_eq!(windows(&mut scheduler), Some(vec![1]));
        assert_eq!(windows(&mut scheduler), Some(vec![3]));
    }

    #[test]
    fn a_group_stays_within_its_tokens() {
        let mut scheduler = scheduler(&[(0, 40), (0, 40), (0, 40)]);
        assert_eq!(windows(&mut scheduler), Some(vec![0, 1]));
        assert_eq!(windows(&mut scheduler), Some(vec![2]));
    }

    #[test]
    fn a_window_above_the_budget_goes_alone() {
        let mut scheduler = scheduler(&[(0, 400), (0, 400)]);
        assert_eq!(windows(&mut scheduler), Some(vec![0]));
    }

    #[test]
    fn a_backfill_waits_for_what_is_live() {
        let mut scheduler = Scheduler::new(limits(20));
        for index in 0..4 {
            scheduler.push(Priority::Backfill, 0, 0, 10, index);
        }
        scheduler.push(Priority::Live, 1, 0, 10, 4);
        assert_eq!(windows(&mut scheduler), Some(vec![4]));
        assert_eq!(windows(&mut scheduler), Some(vec![0, 1]));
        scheduler.push(Priority::Live, 1, 0, 10, 5);
        assert_eq!(scheduler.next_group_of(Priority::Live).map(|group| group.windows), Some(vec![5]));
        assert_eq!(scheduler.next_group_of(Priority::Live), None);
        assert_eq!(windows(&mut scheduler), Some(vec![2, 3]));
    }

    #[test]
    fn a_flow_does_not_wait_for_the_backlog_of_another() {
        let mut scheduler = Scheduler::new(limits(10));
        for index in 0..100 {
            scheduler.push(Priority::Live, 0, 0, 10, index);
        }
        for _ in 0..50 {
            scheduler.next_group();
        }
        // One that was idle did not save up turns: it is served next, and then they alternate.
        for index in 100..103 {
            scheduler.push(Priority::Live, 1, 0, 10, index);
        }
        let order: Vec<usize> = (0..6).filter_map(|_| windows(&mut scheduler)).flatten().collect();
        assert_eq!(order, [100, 50, 101, 51, 102, 52]);
        assert_eq!(scheduler.queued_tokens_of(Priority::Live, 1), 0);
        assert_eq!(scheduler.queued_tokens_of(Priority::Live, 0), 470);
    }

    #[test]
    fn long_windows_use_up_the_turn_of_their_flow() {
        let mut scheduler = Scheduler::new(limits(1));
        for index in 0..2 {
            scheduler.push(Priority::Live, 0, 0, 40, index);
        }
        for index in 2..8 {
            scheduler.push(Priority::Live, 1, 0, 10, index);
        }
        let order: Vec<usize> = (0..8).filter_map(|_| windows(&mut scheduler)).flatten().collect();
        assert_eq!(order, [0, 2, 3, 4, 5, 1, 6, 7]);
    }

    #[test]
    fn a_long_queue_is_not_served_with_the_turns_of_others() {
        const BUDGET: usize = 80;
        let mut scheduler = Scheduler::new(limits(BUDGET));
        let mut served = [0_usize; 3];
        // The first flow has company for each length that the others need.
        for index in 0..4_000 {
            let length = [10, 40][index % 2];
            scheduler.push(Priority::Live, 0, 0, length, (0, length));
        }
        for _ in 0..1_000 {
            for (flow, length) in [(1, 10), (2, 40)] {
                while scheduler.queued_tokens_of(Priority::Live, flow) < 2 * length {
                    scheduler.push(Priority::Live, flow, 0, length, (flow as usize, length));
                }
            }
            for (flow, length) in scheduler.next_group().unwrap().windows {
                served[flow] += length;
            }
            let difference = served.iter().max().unwrap() - served.iter().min().unwrap();
            assert!(difference <= GROUPS_AHEAD_MAX as usize * BUDGET + 40, "{served:?}");
        }
    }

    #[test]
    fn what_left_a_group_early_is_replaced_for_as_many_steps_as_there_are_passes() {
        let mut scheduler = scheduler(&[(0, 33), (0, 60), (0, 33), (0, 34), (1, 33)]);
        let running = Running { priority: Priority::Live, model: 0, windows: 1, longest: 33, steps: 5, passes: 6 };
        assert_eq!(scheduler.companions(&Running { steps: 6, ..running }), Vec::<usize>::new());
        assert_eq!(scheduler.companions(&Running { priority: Priority::Backfill, ..running }), Vec::<usize>::new());
        assert_eq!(scheduler.companions(&Running { windows: 3, ..running }), Vec::<usize>::new());
        assert_eq!(scheduler.companions(&running), [0, 2]);
        assert_eq!(windows(&mut scheduler), Some(vec![1]));
    }

    proptest! {
        #[test]
        fn every_window_leaves_once_and_no_rule_is_broken(
            windows in prop::collection::vec((any::<bool>(), 0_u64..3, 0_usize..3, 1_usize..150), 0..200),
            budget in 1_usize..400,
            refills in any::<u64>(),
        ) {
            let priority = |index: usize| if windows[index].0 { Priority::Live } else { Priority::Backfill };
            let mut scheduler = Scheduler::new(limits(budget));
            // The places by rule 2: all come while nothing has been served.
            let mut served: BTreeMap<(Priority, Flow), usize> = BTreeMap::new();
            let mut waiting: BTreeSet<(Priority, usize, usize)> = BTreeSet::new();
            let mut places = Vec::new();
            for (index, &(_, flow, model, length)) in windows.iter().enumerate() {
                scheduler.push(priority(index), flow, model, length, index);
                let place = served.entry((priority(index), flow)).or_default();
                places.push((priority(index), *place, index));
                waiting.insert((priority(index), *place, index));
                *place += length;
            }
            let mut round = 0;
            let ahead_max = GROUPS_AHEAD_MAX as usize * budget;
            while let Some(group) = scheduler.next_group() {
                let (_, first, _) = places[group.windows[0]];
                prop_assert_eq!(group.windows.first(), waiting.first().map(|(_, _, index)| index));
                let mut members = group.windows.clone();
                // Now and then half of a group leaves early, and others come.
                if refills >> (round % 64) & 1 == 1 {
                    members.truncate(members.len().div_ceil(2));
                    let longest = members.iter().map(|&index| windows[index].3).max().unwrap();
                    let (priority, model, windows) = (group.priority, group.model, members.len());
                    let running = Running { priority, model, windows, longest, steps: 1, passes: 6 };
                    let joined = scheduler.companions(&running);
                    members.extend(&joined);
                    for index in joined {
                        prop_assert!(waiting.remove(&places[index]));
                    }
                }
                round += 1;
                let lengths: Vec<usize> = members.iter().map(|&index| windows[index].3).collect();
                let longest = *lengths.iter().max().unwrap();
                prop_assert!(lengths.len() == 1 || longest * lengths.len() <= budget);
                for &index in &members {
                    prop_assert!(places[index].1 <= first + ahead_max);
                    prop_assert_eq!(windows[index].2, group.model);
                    prop_assert_eq!(priority(index), group.priority);
                }
                for &index in &group.windows {
                    prop_assert!(windows[index].3.abs_diff(windows[group.windows[0]].3) <= limits(budget).length_tolerance(windows[group.windows[0]].3));
                    prop_assert!(waiting.remove(&places[index]));
                }
            }
            prop_assert!(waiting.is_empty());
            prop_assert_eq!(scheduler.queued_tokens(Priority::Live), 0);
            prop_assert_eq!(scheduler.queued_tokens(Priority::Backfill), 0);
        }
    }
}
