//! Workers on a clock that is only a number: no thread, no time, the same result every time.
//!
//! Each worker does what `pipeline/engine/worker.rs` does: it takes the next group and computes it pass by pass; after a
//! pass windows leave, a backfill's group lets what has come live go first, and others take the place of those that left.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use albertine::engine::{
    Priority,
    scheduler::{Flow, Group, Running},
};

use crate::{
    lengths::{Document, PASSES},
    policies::{Policy, Window},
};

/// `engine.queue_tokens_max` and `engine.backfill_queue_tokens_max` where the configuration says nothing: tokens of one
/// flow that may wait.
const QUEUE_TOKENS_MAX: usize = 65_536;
const BACKFILL_QUEUE_TOKENS_MAX: usize = 16_384;

/// What a call costs whatever it computes, in nanoseconds: `albertine model bench albert-sentiment` with texts of 8 to 32
/// tokens takes 40 to 60 us a pass less for each text where 16 of them are computed at once, on an AMD EPYC with AVX2.
pub const CALL_NANOSECONDS: u64 = 60_000;

/// What one token costs in one pass, in nanoseconds: at full depth albertine labels 37.2 documents of 110 tokens a
/// core-second, with 6 passes each (benches/README.md), on the same machine.
pub const TOKEN_PASS_NANOSECONDS: u64 = 40_700;

/// Documents of one flow, in the order in which they arrive.
pub struct Stream {
    pub priority: Priority,
    pub flow: Flow,
    /// Whether the simulation lasts until its documents are answered, and says how long they took.
    pub is_measured: bool,
    /// When each arrives, in nanoseconds, and what it is.
    pub documents: Vec<(u64, Document)>,
}

/// What was seen until the last measured document was answered.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Nanoseconds.
    pub duration: u64,
    pub workers: u64,
    /// Nanoseconds that workers computed, all of them together.
    pub busy: u64,
    /// Token-passes with padding, and without.
    pub computed: u64,
    pub tokens: u64,
    /// Passes of groups, and windows in them.
    pub calls: u64,
    pub windows: u64,
    /// Documents that were answered, measured or not.
    pub answered: u64,
    /// Of measured documents, from arrival to answer, sorted, in nanoseconds.
    pub latencies: Vec<u64>,
    /// Of measured windows, from joining the line to the first pass, sorted, in nanoseconds.
    pub waits: Vec<u64>,
    /// Largest difference between the tokens served of two flows, while every flow had windows waiting; and what the
    /// flow with the least of them was served until then.
    pub unfairness: u64,
    pub served_least: u64,
}

/// Computes all measured documents of these streams.
pub fn simulate(policy: &mut dyn Policy, workers: usize, streams: &[Stream]) -> Outcome {
    let mut simulation = Simulation::new(policy, workers, streams);
    simulation.run();
    let duration = simulation.now;
    // What is still being computed has been counted to its end.
    let after = |(end, _, event): (u64, u64, Event)| if matches!(event, Event::Pass(_)) { end - duration } else { 0 };
    let unfinished: u64 = simulation.events.into_iter().map(|Reverse(event)| after(event)).sum();
    let mut outcome = simulation.outcome;
    outcome.busy -= unfinished;
    outcome.duration = duration;
    outcome.workers = workers as u64;
    outcome.latencies.sort_unstable();
    outcome.waits.sort_unstable();
    outcome
}

/// What happens at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// The next document of a stream arrives.
    Arrival(usize),
    /// A worker is done with a pass.
    Pass(usize),
}

struct Simulation<'a> {
    policy: &'a mut dyn Policy,
    streams: &'a [Stream],
    progress: Vec<Progress>,
    /// What each worker computes: the group at the end of its list, which the ones before it wait for.
    workers: Vec<Vec<Batch>>,
    /// By time, then in the order in which they were foreseen.
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    foreseen: u64,
    now: u64,
    /// Measured documents that are not answered.
    open: usize,
    served: BTreeMap<(Priority, Flow), u64>,
    /// Every flow has had windows waiting so far.
    all_wait: bool,
    outcome: Outcome,
}

/// How far a stream is.
struct Progress {
    /// Index of the document that is submitted next.
    next: usize,
    /// It has arrived, and there was no room for it.
    is_blocked: bool,
    /// Windows of each document that are not computed.
    open: Vec<usize>,
}

/// A group that is being computed.
struct Batch {
    priority: Priority,
    windows: Vec<Window>,
    steps: usize,
}

impl<'a> Simulation<'a> {
    fn new(policy: &'a mut dyn Policy, workers: usize, streams: &'a [Stream]) -> Self {
        let progress = |stream: &Stream| Progress {
            next: 0,
            is_blocked: false,
            open: stream.documents.iter().map(|(_, windows)| windows.len()).collect(),
        };
        let measured = streams.iter().filter(|stream| stream.is_measured);
        let mut simulation = Self {
            policy,
            streams,
            progress: streams.iter().map(progress).collect(),
            workers: (0..workers).map(|_| Vec::new()).collect(),
            events: BinaryHeap::new(),
            foreseen: 0,
            now: 0,
            open: measured.map(|stream| stream.documents.len()).sum(),
            served: streams.iter().map(|stream| ((stream.priority, stream.flow), 0)).collect(),
            all_wait: true,
            outcome: Outcome::default(),
        };
        for (index, stream) in streams.iter().enumerate() {
            if let Some((arrives, _)) = stream.documents.first() {
                simulation.foresee(*arrives, Event::Arrival(index));
            }
        }
        simulation
    }

    fn run(&mut self) {
        while self.open > 0 {
            let Some(Reverse((time, _, event))) = self.events.pop() else {
                panic!("documents wait and no worker computes")
            };
            self.now = time;
            match event {
                Event::Arrival(stream) => self.submit(stream),
                Event::Pass(worker) => self.pass_is_done(worker),
            }
            // What happens at the same moment comes first.
            if self.events.peek().is_none_or(|Reverse((next, ..))| *next > time) {
                self.start_idle_workers();
            }
        }
    }

    fn foresee(&mut self, time: u64, event: Event) {
        self.events.push(Reverse((time, self.foreseen, event)));
        self.foreseen += 1;
    }

    /// Puts a stream's documents in line that have arrived, as far as there is room.
    fn submit(&mut self, index: usize) {
        let stream = &self.streams[index];
        self.progress[index].is_blocked = false;
        let queue_tokens_max = match stream.priority {
            Priority::Live => QUEUE_TOKENS_MAX,
            Priority::Backfill => BACKFILL_QUEUE_TOKENS_MAX,
        };
        while let Some((arrives, windows)) = stream.documents.get(self.progress[index].next) {
            if *arrives > self.now {
                self.foresee(*arrives, Event::Arrival(index));
                return;
            }
            let queued = self.policy.queued_tokens_of(stream.priority, stream.flow);
            let tokens: usize = windows.iter().map(|window| window.length).sum();
            if queued > 0 && queued + tokens > queue_tokens_max {
                self.progress[index].is_blocked = true;
                return;
            }
            for window in windows {
                self.policy.push(Window {
                    stream: index,
                    document: self.progress[index].next,
                    priority: stream.priority,
                    flow: stream.flow,
                    length: window.length,
                    passes: window.passes,
                    joined: self.now,
                });
            }
            self.progress[index].next += 1;
        }
    }

    fn start_idle_workers(&mut self) {
        for worker in 0..self.workers.len() {
            if self.workers[worker].is_empty() {
                let Some(group) = self.policy.next_group() else { return };
                self.begin(worker, group);
            }
        }
    }

    /// A worker computes a group, before whatever else it computes.
    fn begin(&mut self, worker: usize, group: Group<Window>) {
        self.were_taken(&group.windows);
        self.workers[worker].push(Batch { priority: group.priority, windows: group.windows, steps: 0 });
        self.start_pass(worker);
    }

    fn start_pass(&mut self, worker: usize) {
        let Some(batch) = self.workers[worker].last() else { return };
        let tokens: usize = batch.windows.iter().map(|window| window.length).sum();
        let computed = (batch.windows.len() * batch.longest()) as u64;
        let cost = CALL_NANOSECONDS + computed * TOKEN_PASS_NANOSECONDS;
        self.outcome.computed += computed;
        self.outcome.tokens += tokens as u64;
        self.outcome.calls += 1;
        self.outcome.windows += batch.windows.len() as u64;
        self.outcome.busy += cost;
        self.foresee(self.now + cost, Event::Pass(worker));
    }

    fn pass_is_done(&mut self, worker: usize) {
        let Some(batch) = self.workers[worker].last_mut() else { return };
        batch.steps += 1;
        batch.windows.iter_mut().for_each(|window| window.passes -= 1);
        let left: Vec<Window> = batch.windows.extract_if(.., |window| window.passes == 0).collect();
        let is_over = batch.windows.is_empty();
        for window in &left {
            self.answer(window);
        }
        if is_over {
            self.workers[worker].pop();
        }
        if self.workers[worker].last().is_some_and(|batch| batch.priority == Priority::Backfill)
            && let Some(live) = self.policy.next_live_group()
        {
            return self.begin(worker, live);
        }
        let Some(batch) = self.workers[worker].last() else { return };
        let (windows, longest, steps) = (batch.windows.len(), batch.longest(), batch.steps);
        let running = Running { priority: batch.priority, model: 0, windows, longest, steps, passes: PASSES };
        let entering = self.policy.companions(&running);
        self.were_taken(&entering);
        if let Some(batch) = self.workers[worker].last_mut() {
            batch.windows.extend(entering);
        }
        self.start_pass(worker);
    }

    fn answer(&mut self, window: &Window) {
        let open = &mut self.progress[window.stream].open[window.document];
        *open -= 1;
        if *open > 0 {
            return;
        }
        self.outcome.answered += 1;
        let stream = &self.streams[window.stream];
        if stream.is_measured {
            self.open -= 1;
            let (arrived, _) = &stream.documents[window.document];
            self.outcome.latencies.push(self.now - arrived);
        }
    }

    /// Counts what left the line, and lets others join it.
    fn were_taken(&mut self, windows: &[Window]) {
        if windows.is_empty() {
            return;
        }
        for window in windows {
            *self.served.entry((window.priority, window.flow)).or_default() += window.length as u64;
            if self.streams[window.stream].is_measured {
                self.outcome.waits.push(self.now - window.joined);
            }
        }
        self.all_wait &=
            self.streams.iter().all(|stream| self.policy.queued_tokens_of(stream.priority, stream.flow) > 0);
        if self.all_wait {
            let least = self.served.values().min().copied().unwrap_or_default();
            let most = self.served.values().max().copied().unwrap_or_default();
            self.outcome.served_least = least;
            self.outcome.unfairness = self.outcome.unfairness.max(most - least);
        }
        for stream in 0..self.streams.len() {
            if self.progress[stream].is_blocked {
                self.submit(stream);
            }
        }
    }
}

impl Batch {
    fn longest(&self) -> usize {
        self.windows.iter().map(|window| window.length).max().unwrap_or_default()
    }
}
