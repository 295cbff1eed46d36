//! Who is computed next: the engine's scheduler, and two simple ways beside it.

use std::collections::{HashMap, VecDeque};

use albertine::engine::{
    Priority,
    provider::CPU_GROUP,
    scheduler::{Flow, Group, Running, Scheduler},
};

/// Windows of a batch in the simple way that pads.
const BATCH_WINDOWS: usize = 32;

/// A window on its way through the simulation.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Index of the stream it belongs to, and of the document in it.
    pub stream: usize,
    pub document: usize,
    pub priority: Priority,
    pub flow: Flow,
    /// Tokens.
    pub length: usize,
    /// Passes that are left.
    pub passes: usize,
    /// When it joined the line, in nanoseconds.
    pub joined: u64,
}

/// What a worker asks for, as `pipeline/engine/worker.rs` does.
pub trait Policy {
    fn push(&mut self, window: Window);

    /// Tokens of a flow that wait.
    fn queued_tokens_of(&self, priority: Priority, flow: Flow) -> usize;

    fn next_group(&mut self) -> Option<Group<Window>>;

    /// What a worker computes first between two passes of a backfill's group.
    fn next_live_group(&mut self) -> Option<Group<Window>> {
        None
    }

    /// What takes the place of windows that left a group.
    fn companions(&mut self, _running: &Running) -> Vec<Window> {
        Vec::new()
    }
}

/// The policies that are compared, each with nothing waiting.
pub fn all() -> Vec<(&'static str, Box<dyn Policy>)> {
    vec![
        ("scheduler", scheduler()),
        ("batches of 32", Box::new(InOrder::new(BATCH_WINDOWS))),
        ("one by one", Box::new(InOrder::new(1))),
    ]
}

/// The engine's own.
pub fn scheduler() -> Box<dyn Policy> {
    Box::new(Scheduler::new(CPU_GROUP))
}

impl Policy for Scheduler<Window> {
    fn push(&mut self, window: Window) {
        Self::push(self, window.priority, window.flow, 0, window.length, window);
    }

    fn queued_tokens_of(&self, priority: Priority, flow: Flow) -> usize {
        Self::queued_tokens_of(self, priority, flow)
    }

    fn next_group(&mut self) -> Option<Group<Window>> {
        Self::next_group(self)
    }

    fn next_live_group(&mut self) -> Option<Group<Window>> {
        self.next_group_of(Priority::Live)
    }

    fn companions(&mut self, running: &Running) -> Vec<Window> {
        Self::companions(self, running)
    }
}

/// One line in the order of arrival, and as many windows of it as wait, up to a number. It knows no priority, and
/// nothing joins what is being computed; but windows leave early, as they do with the scheduler.
struct InOrder {
    windows_max: usize,
    line: VecDeque<Window>,
    queued_tokens: HashMap<(Priority, Flow), usize>,
}

impl InOrder {
    fn new(windows_max: usize) -> Self {
        Self { windows_max, line: VecDeque::new(), queued_tokens: HashMap::new() }
    }
}

impl Policy for InOrder {
    fn push(&mut self, window: Window) {
        *self.queued_tokens.entry((window.priority, window.flow)).or_default() += window.length;
        self.line.push_back(window);
    }

    fn queued_tokens_of(&self, priority: Priority, flow: Flow) -> usize {
        self.queued_tokens.get(&(priority, flow)).copied().unwrap_or_default()
    }

    fn next_group(&mut self) -> Option<Group<Window>> {
        let windows: Vec<Window> = self.line.drain(..self.windows_max.min(self.line.len())).collect();
        for window in &windows {
            *self.queued_tokens.entry((window.priority, window.flow)).or_default() -= window.length;
        }
        // Live, so that the worker computes it to its end.
        (!windows.is_empty()).then_some(Group { priority: Priority::Live, model: 0, windows })
    }
}
