//! The threads that compute: each takes the scheduler's next group and runs it on sessions of its own.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Instant,
};

use super::{
    job::{Job, Priority, WindowTask, split},
    scheduler::{Group, Scheduler},
    session::{ModelSession, OnnxRuntime, SessionError},
};
use crate::{model::folder::Model, telemetry::metrics as names, text::tokenize::Tokens};

/// How the engine uses the machine.
#[derive(Debug, Clone, Copy)]
pub struct EngineConfig {
    /// Worker threads, each with one session a model.
    pub sessions: NonZeroUsize,
    /// See [`Scheduler::new`].
    pub group_tokens_max: usize,
    /// Tokens that may wait. Enough that a worker always finds companions of equal length; what is above
    /// only costs memory and latency.
    pub queue_tokens_max: usize,
    /// The same for what waits of backfills beside live streams.
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
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue { scheduler: Scheduler::new(config.group_tokens_max), closed: false }),
            work: Condvar::new(),
            room: Condvar::new(),
            config,
        });
        let names: Vec<Arc<str>> = models.iter().map(|model| model.name.clone()).collect();
        let workers = sessions
            .into_iter()
            .enumerate()
            .map(|(index, mut sessions)| {
                let (shared, names) = (Arc::clone(&shared), names.clone());
                spawn_thread(&format!("engine-{index}"), move || {
                    while let Some(group) = shared.next_group() {
                        run_group(&mut sessions[group.model], &names[group.model], group);
                    }
                })
            })
            .collect();
        Ok(Self { shared, workers })
    }

    /// Queues a document, blocking while the queue is full. A document larger than the whole queue is
    /// taken when the queue is empty.
    pub fn submit(&self, job: Job) {
        let priority = job.priority;
        let queue_tokens_max = match priority {
            Priority::Live => self.shared.config.queue_tokens_max,
            Priority::Backfill => self.shared.config.backfill_queue_tokens_max,
        };
        let tasks = split(job);
        let tokens: usize = tasks.iter().map(|(_, task)| task.tokens.ids.len()).sum();
        let mut queue = self.shared.lock();
        while !queue.closed
            && queue.scheduler.queued_tokens(priority) > 0
            && queue.scheduler.queued_tokens(priority) + tokens > queue_tokens_max
        {
            queue = self.shared.room.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        if queue.closed {
            return;
        }
        for (model, task) in tasks {
            queue.scheduler.push(priority, model, task.tokens.ids.len(), task);
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
                for (priority, name) in [(Priority::Live, "live"), (Priority::Backfill, "backfill")] {
                    metrics::gauge!(names::ENGINE_QUEUED_TOKENS, "priority" => name)
                        .set(queue.scheduler.queued_tokens(priority) as f64);
                }
                drop(queue);
                self.room.notify_all();
                return Some(group);
            }
            queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn run_group(session: &mut ModelSession, model: &Arc<str>, group: Group<WindowTask>) {
    let windows: Vec<Tokens<'_>> = group.windows.iter().map(|task| task.tokens.tokens()).collect();
    let tokens: usize = windows.iter().map(|window| window.ids.len()).sum();
    let padded = windows.len() * windows.iter().map(|window| window.ids.len()).max().unwrap_or_default();
    let started = Instant::now();
    let result = session.infer(&windows);
    let label = model.to_string();
    metrics::histogram!(names::ENGINE_GROUP_SECONDS, "model" => label.clone()).record(started.elapsed());
    metrics::counter!(names::ENGINE_WINDOWS, "model" => label.clone()).increment(windows.len() as u64);
    metrics::counter!(names::ENGINE_TOKENS, "model" => label.clone()).increment(tokens as u64);
    metrics::counter!(names::ENGINE_PADDING_TOKENS, "model" => label).increment((padded - tokens) as u64);
    match result {
        Ok(logits) => group.windows.into_iter().zip(logits).for_each(|(task, logits)| task.finish(Ok(logits))),
        Err(error) => {
            tracing::error!(model = %model, windows = group.windows.len(), %error, "a group could not be computed");
            group.windows.into_iter().for_each(|task| task.finish(Err(error.clone())));
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
