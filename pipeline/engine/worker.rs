//! The threads that compute: each takes the scheduler's next group and runs it, pass by pass, on sessions of its own.
//!
//! Between two passes a thread answers the windows that leave, lets others take their place, and, where the group is a
//! backfill's, first computes what has come live: a live window waits for one pass of a backfill, not for its end.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Instant,
};

use super::{
    job::{InferError, Job, ModelIndex, Priority, WindowTask, split},
    runtime::{OnnxRuntime, SessionError},
    scheduler::{Group, GroupLimits, Running, Scheduler},
    session::{Batch, ModelSession},
};
use crate::{
    crash::crash_point,
    model::folder::{Model, WindowLogits},
    telemetry::metrics as names,
};

/// How the engine uses the machine.
#[derive(Debug, Clone, Copy)]
pub struct EngineConfig {
    /// Worker threads, each with one session a model.
    pub sessions: NonZeroUsize,
    /// Whether each of these threads keeps to one core of those this process may use.
    pub pin_threads: bool,
    pub group: GroupLimits,
    /// Tokens of one live flow that may wait. Enough that a worker always finds companions of equal length; what is above
    /// only costs memory and latency.
    pub queue_tokens_max: usize,
    /// The same for a backfill beside live streams.
    pub backfill_queue_tokens_max: usize,
}

/// Accepts documents and answers them. Dropping it ends the workers after the group they are at.
pub struct Engine {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// Workers wait here for windows.
    work: Condvar,
    /// Submitters wait here for room.
    room: Condvar,
    config: EngineConfig,
}

struct Queue {
    scheduler: Scheduler<WindowTask>,
    closed: bool,
}

impl Engine {
    /// Opens the sessions of every worker, in parallel, and starts the threads.
    ///
    /// # Errors
    /// The first [`SessionError`]; then no thread is left running.
    pub fn start(runtime: &OnnxRuntime, models: &[Arc<Model>], config: EngineConfig) -> Result<Self, SessionError> {
        let open_all = || models.iter().map(|model| ModelSession::open(runtime, model)).collect::<Result<Vec<_>, _>>();
        let sessions: Vec<Vec<ModelSession>> = std::thread::scope(|scope| {
            let opening: Vec<_> = (0..config.sessions.get()).map(|_| scope.spawn(open_all)).collect();
            opening
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect::<Result<_, _>>()
        })?;
        metrics::gauge!(names::ENGINE_SESSIONS, "provider" => runtime.provider().to_string())
            .set(config.sessions.get() as f64);
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue { scheduler: Scheduler::new(config.group), closed: false }),
            work: Condvar::new(),
            room: Condvar::new(),
            config,
        });
        let names: Vec<Arc<str>> = models.iter().map(|model| model.name.clone()).collect();
        let cores = if config.pin_threads { core_affinity::get_core_ids().unwrap_or_default() } else { Vec::new() };
        let workers = sessions
            .into_iter()
            .enumerate()
            .map(|(index, sessions)| {
                let mut worker = Worker { shared: Arc::clone(&shared), sessions, names: names.clone() };
                let core = cores.get(index % cores.len().max(1)).copied();
                spawn_thread(&format!("engine-{index}"), move || {
                    if let Some(core) = core.filter(|core| !core_affinity::set_for_current(*core)) {
                        tracing::warn!(core = core.id, "the system does not let an engine thread keep to its core");
                    }
                    worker.run();
                })
            })
            .collect();
        Ok(Self { shared, workers })
    }

    /// Queues a document, blocking while the queue of its flow is full. A document larger than the whole queue is
    /// taken when the queue is empty.
    pub fn submit(&self, job: Job) {
        let (priority, flow) = (job.priority, job.flow);
        let queue_tokens_max = match priority {
            Priority::Live => self.shared.config.queue_tokens_max,
            Priority::Backfill => self.shared.config.backfill_queue_tokens_max,
        };
        let tasks = split(job);
        let tokens: usize = tasks.iter().map(|(_, task)| task.tokens.ids.len()).sum();
        let mut queue = self.shared.lock();
        let is_full = |queued: usize| queued > 0 && queued + tokens > queue_tokens_max;
        while !queue.closed && is_full(queue.scheduler.queued_tokens_of(priority, flow)) {
            queue = self.shared.room.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        if queue.closed {
            return;
        }
        for (model, task) in tasks {
            queue.scheduler.push(priority, flow, model, task.tokens.ids.len(), task);
        }
        drop(queue);
        self.shared.work.notify_all();
    }

    /// Ends the engine: groups in work are finished and answered, what waits is dropped unanswered.
    /// Returns at once; [`Drop`] waits for the threads.
    pub fn close(&self) {
        self.shared.lock().closed = true;
        self.shared.work.notify_all();
        self.shared.room.notify_all();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.close();
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                tracing::error!("an engine thread panicked");
            }
        }
    }
}

impl Shared {
    /// What has come live, without waiting; nothing once the engine is closed.
    fn next_live_group(&self) -> Option<Group<WindowTask>> {
        let mut queue = self.lock();
        if queue.closed {
            return None;
        }
        let group = queue.scheduler.next_group_of(Priority::Live)?;
        self.taken(queue);
        Some(group)
    }

    /// Windows that take the place of those that left a group.
    fn companions(&self, running: &Running) -> Vec<WindowTask> {
        let mut queue = self.lock();
        if queue.closed {
            return Vec::new();
        }
        let windows = queue.scheduler.companions(running);
        if !windows.is_empty() {
            self.taken(queue);
        }
        windows
    }

    /// There is room in the queue again.
    fn taken(&self, queue: MutexGuard<'_, Queue>) {
        for (priority, name) in [(Priority::Live, "live"), (Priority::Backfill, "backfill")] {
            metrics::gauge!(names::ENGINE_QUEUED_TOKENS, "priority" => name)
                .set(queue.scheduler.queued_tokens(priority) as f64);
        }
        drop(queue);
        self.room.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for windows; `None` once the engine is closed.
    fn next_group(&self) -> Option<Group<WindowTask>> {
        let mut queue = self.lock();
        loop {
            if queue.closed {
                return None;
            }
            if let Some(group) = queue.scheduler.next_group() {
                self.taken(queue);
                return Some(group);
            }
            queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// One thread's part.
struct Worker {
    shared: Arc<Shared>,
    /// One a model.
    sessions: Vec<ModelSession>,
    names: Vec<Arc<str>>,
}

impl Worker {
    fn run(&mut self) {
        while let Some(group) = self.shared.next_group() {
            self.compute(group);
        }
    }

    /// Computes a group, and what takes the place of its windows, to the end.
    fn compute(&mut self, group: Group<WindowTask>) {
        let started = Instant::now();
        let Group { priority, model, windows } = group;
        let mut batch = Batch::new();
        let mut entering = self.wanted(model, windows);
        if entering.is_empty() {
            return;
        }
        let mut steps = 0;
        loop {
            let computed = self.step(model, &mut batch, entering);
            steps += 1;
            match computed {
                Ok(left) => left.into_iter().for_each(|(task, logits)| task.finish(Ok(logits))),
                Err(error) => return self.give_up(model, batch.into_tasks(), &error),
            }
            if batch.is_empty() {
                break;
            }
            if priority == Priority::Backfill {
                while let Some(live) = self.shared.next_live_group() {
                    self.compute(live);
                }
            }
            if !self.sessions[model].is_open(&batch) {
                entering = Vec::new();
                continue;
            }
            let (windows, longest, passes) = (batch.len(), batch.longest(), self.sessions[model].passes());
            let running = Running { priority, model, windows, longest, steps, passes };
            entering = self.wanted(model, self.shared.companions(&running));
        }
        metrics::histogram!(names::ENGINE_GROUP_SECONDS, "model" => self.names[model].to_string())
            .record(started.elapsed());
    }

    /// Those whose documents somebody waits for. The others' partitions went to another worker, which reads them again.
    fn wanted(&self, model: ModelIndex, windows: Vec<WindowTask>) -> Vec<WindowTask> {
        let (wanted, unwanted): (Vec<_>, Vec<_>) = windows.into_iter().partition(WindowTask::is_wanted);
        if !unwanted.is_empty() {
            metrics::counter!(names::ENGINE_WINDOWS_ABANDONED, "model" => self.names[model].to_string())
                .increment(unwanted.len() as u64);
        }
        wanted
    }

    /// One pass, with windows that enter before it.
    fn step(
        &mut self,
        model: ModelIndex,
        batch: &mut Batch<WindowTask>,
        entering: Vec<WindowTask>,
    ) -> Result<Vec<(WindowTask, WindowLogits)>, InferError> {
        let label = self.names[model].to_string();
        if !entering.is_empty() {
            let tokens: usize = entering.iter().map(|task| task.tokens.ids.len()).sum();
            metrics::counter!(names::ENGINE_WINDOWS, "model" => label.clone()).increment(entering.len() as u64);
            metrics::counter!(names::ENGINE_TOKENS, "model" => label.clone()).increment(tokens as u64);
            if let Err((tasks, error)) = self.sessions[model].enter(batch, entering) {
                self.give_up(model, tasks, &error);
            }
        }
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        crash_point("engine-pass");
        let (tokens, computed) = (batch.tokens(), batch.len() * batch.longest());
        let left = self.sessions[model].step(batch)?;
        metrics::counter!(names::ENGINE_TOKEN_PASSES, "model" => label.clone()).increment(tokens as u64);
        metrics::counter!(names::ENGINE_PADDING_TOKEN_PASSES, "model" => label.clone())
            .increment((computed - tokens) as u64);
        for (_, logits) in &left {
            metrics::histogram!(names::ENGINE_EXIT_DEPTH, "model" => label.clone()).record(logits.depth as f64);
        }
        Ok(left)
    }

    fn give_up(&self, model: ModelIndex, tasks: Vec<WindowTask>, error: &InferError) {
        tracing::error!(model = %self.names[model], windows = tasks.len(), %error, "a group could not be computed");
        for task in tasks {
            task.finish(Err(error.clone()));
        }
    }
}

/// A named thread; the operating system refusing one at start is not something to go on from.
fn spawn_thread(name: &str, run: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    match std::thread::Builder::new().name(name.to_owned()).spawn(run) {
        Ok(handle) => handle,
        Err(error) => panic!("cannot start thread `{name}`: {error}"),
    }
}
