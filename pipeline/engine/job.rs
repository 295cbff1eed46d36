//! A document's work for the engine: the windows it has for each model, gathered again when all are done.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use super::{scheduler::Flow, session::Tokenized};
use crate::{
    model::folder::WindowLogits,
    text::tokenize::{TokenWindow, Tokens},
};

/// Index of a model in the list the engine was started with.
pub type ModelIndex = usize;

/// A flow that nothing else in this process has.
pub fn new_flow() -> Flow {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Whose turn it is first. Ordered: what comes first is less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    Live,
    /// Only while nothing live waits.
    Backfill,
}

/// Who asked for a job.
pub trait Answer: Send {
    /// Whether anybody still waits. Once this was denied, the job is dropped, and its answer with it, uncalled. Asked
    /// before each window is computed, on an engine's thread.
    fn is_wanted(&mut self) -> bool;
    /// Called once, on an engine's thread, when every window is done. It must not block for long.
    fn give(self: Box<Self>, result: JobResult);
}

/// One that is always wanted.
impl<F: FnOnce(JobResult) + Send> Answer for F {
    fn is_wanted(&mut self) -> bool {
        true
    }

    fn give(self: Box<Self>, result: JobResult) {
        self(result);
    }
}

/// The windows of one document, for each model it goes through.
pub struct Job {
    pub priority: Priority,
    /// Jobs of one flow wait for each other, and share the engine with other flows.
    pub flow: Flow,
    pub inputs: Vec<JobInput>,
    pub answer: Box<dyn Answer>,
}

pub struct JobInput {
    pub model: ModelIndex,
    pub windows: Vec<TokenWindow>,
}

/// For each input of the job, what was said of its windows, in order; or an error.
pub type JobResult = Result<Vec<DocumentLogits>, InferError>;

/// Each window's weight, and what the network said of it.
pub type DocumentLogits = Vec<(usize, WindowLogits)>;

/// The runtime could not compute a window.
#[derive(Debug, Clone, thiserror::Error)]
#[error("inference failed: {0}")]
pub struct InferError(pub String);

/// One window on its way through the scheduler.
pub struct WindowTask {
    pub tokens: TokenWindow,
    /// Of its document, for the same model.
    windows: usize,
    gather: Arc<Gather>,
    input: usize,
    window: usize,
}

/// Collects the windows of a job; whoever delivers the last one answers.
struct Gather {
    remaining: AtomicUsize,
    state: Mutex<GatherState>,
}

struct GatherState {
    results: Vec<Vec<(usize, Option<WindowLogits>)>>,
    error: Option<InferError>,
    /// `None` once it was given, or is not wanted any more.
    answer: Option<Box<dyn Answer>>,
}

/// Splits a job into its windows, each with the model it is for. A job without windows is answered at once.
pub fn split(job: Job) -> Vec<(ModelIndex, WindowTask)> {
    let results: Vec<Vec<_>> =
        job.inputs.iter().map(|input| input.windows.iter().map(|window| (window.fresh, None)).collect()).collect();
    let count: usize = results.iter().map(Vec::len).sum();
    if count == 0 {
        job.answer.give(Ok(results.iter().map(|_| Vec::new()).collect()));
        return Vec::new();
    }
    let gather = Arc::new(Gather {
        remaining: AtomicUsize::new(count),
        state: Mutex::new(GatherState { results, error: None, answer: Some(job.answer) }),
    });
    let mut tasks = Vec::with_capacity(count);
    for (input, JobInput { model, windows }) in job.inputs.into_iter().enumerate() {
        let count = windows.len();
        for (window, tokens) in windows.into_iter().enumerate() {
            tasks.push((model, WindowTask { tokens, windows: count, gather: Arc::clone(&gather), input, window }));
        }
    }
    tasks
}

impl Tokenized for WindowTask {
    fn tokens(&self) -> Tokens<'_> {
        self.tokens.tokens()
    }

    fn windows(&self) -> usize {
        self.windows
    }
}

impl WindowTask {
    /// Whether anybody waits for its document. Where nobody does, neither will anybody later.
    pub fn is_wanted(&self) -> bool {
        let mut state = self.gather.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_wanted = state.answer.as_mut().is_some_and(|answer| answer.is_wanted());
        let unwanted = if is_wanted { None } else { state.answer.take() };
        drop(state);
        drop(unwanted);
        is_wanted
    }

    /// Delivers this window's logits, or why there are none.
    pub fn finish(self, result: Result<WindowLogits, InferError>) {
        let mut state = self.gather.state.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(logits) => state.results[self.input][self.window].1 = Some(logits),
            Err(error) => state.error = Some(error),
        }
        if self.gather.remaining.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        let whole = |windows: Vec<(usize, Option<WindowLogits>)>| {
            windows.into_iter().filter_map(|(weight, logits)| Some((weight, logits?))).collect()
        };
        let results = std::mem::take(&mut state.results).into_iter().map(whole).collect();
        let result = state.error.take().map_or(Ok(results), Err);
        let answer = state.answer.take();
        drop(state);
        if let Some(answer) = answer {
            answer.give(result);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn window(fresh: usize) -> TokenWindow {
        TokenWindow { ids: vec![1; fresh + 2], second_from: fresh + 2, fresh }
    }

    fn logits(values: &[f32]) -> WindowLogits {
        WindowLogits { logits: values.to_vec(), depth: 6 }
    }

    fn job(windows: Vec<Vec<TokenWindow>>) -> (Job, mpsc::Receiver<JobResult>) {
        let (sender, receiver) = mpsc::channel();
        let inputs = windows.into_iter().enumerate().map(|(model, windows)| JobInput { model, windows }).collect();
        (
            Job {
                priority: Priority::Live,
                flow: 0,
                inputs,
                answer: Box::new(move |result| sender.send(result).unwrap()),
            },
            receiver,
        )
    }

    #[test]
    fn a_job_is_answered_once_all_its_windows_are_done_in_any_order() {
        let (job, answers) = job(vec![vec![window(5), window(3)], vec![window(5)]]);
        let mut tasks = split(job);
        tasks.reverse();
        for (index, (model, task)) in tasks.into_iter().enumerate() {
            assert!(answers.try_recv().is_err());
            task.finish(Ok(logits(&[model as f32, index as f32])));
        }
        let answer = answers.try_recv().unwrap().unwrap();
        let wanted = vec![vec![(5, logits(&[0.0, 2.0])), (3, logits(&[0.0, 1.0]))], vec![(5, logits(&[1.0, 0.0]))]];
        assert_eq!(answer, wanted);
        assert!(answers.try_recv().is_err());
    }

    #[test]
    fn an_answer_that_is_not_wanted_any_more_is_dropped_and_never_given() {
        struct WantedOnce(usize, mpsc::Sender<JobResult>);
        impl Answer for WantedOnce {
            fn is_wanted(&mut self) -> bool {
                self.0 += 1;
                self.0 == 1
            }

            fn give(self: Box<Self>, result: JobResult) {
                self.1.send(result).unwrap();
            }
        }
        let (mut job, _) = job(vec![vec![window(5), window(3)]]);
        let (sender, answers) = mpsc::channel();
        job.answer = Box::new(WantedOnce(0, sender));
        let tasks = split(job);
        assert!(tasks[0].1.is_wanted());
        assert!(!tasks[1].1.is_wanted());
        assert!(!tasks[0].1.is_wanted(), "nor is it asked again");
        assert_eq!(answers.try_recv().unwrap_err(), mpsc::TryRecvError::Disconnected);
        for (_, task) in tasks {
            task.finish(Ok(logits(&[0.0])));
        }
    }

    #[test]
    fn one_failed_window_fails_the_document() {
        let (job, answers) = job(vec![vec![window(5), window(3)]]);
        let mut tasks = split(job).into_iter();
        tasks.next().unwrap().1.finish(Err(InferError("no memory".into())));
        tasks.next().unwrap().1.finish(Ok(logits(&[0.0])));
        assert_eq!(answers.try_recv().unwrap().unwrap_err().to_string(), "inference failed: no memory");
    }
}
