//! A document's way through its models: what a model said of its texts before is looked up, the rest is tokenized and
//! computed. The one way for streams, dry runs and files.
//!
//! Contract: [`Inference::infer`] calls `done` once, unless it is not wanted any more or the engine is closed before: then it
//! is dropped uncalled, as the engine does it. Which documents are rejected, and why, does not depend on what is kept: sizes are checked before
//! anything is looked up, and a text that cannot be tokenized is never kept.

use std::sync::{Arc, Mutex, PoisonError};

use super::duplicates::{Claim, Claimed, Duplicates, Key, Line, TextDigest, Waiter, Wanted};
use crate::{
    domain::rejection::{Rejection, Stage},
    engine::{
        Answer, Engine, InferError, Job, JobResult,
        job::{DocumentLogits, JobInput, ModelIndex},
    },
    model::folder::Model,
    telemetry::metrics as names,
    text::tokenize::{Texts, TokenWindow, TokenizeError},
};

/// What is needed of the engine.
pub trait Compute: Send + Sync {
    /// See [`Engine::submit`].
    fn submit(&self, job: Job);
}

impl Compute for Engine {
    fn submit(&self, job: Job) {
        Self::submit(self, job);
    }
}

/// What each model of a document said of it, in their order; or an error.
pub type DocumentResult = Result<Vec<Arc<DocumentLogits>>, InferError>;

/// See the module.
pub struct Inference {
    engine: Arc<dyn Compute>,
    /// `None`: every text is computed.
    duplicates: Option<Arc<Duplicates>>,
}

/// A document's texts as each of its models takes them.
pub struct Prepared {
    digest: Option<TextDigest>,
    inputs: Vec<Input>,
}

struct Input {
    model: ModelIndex,
    name: Arc<str>,
    content: InputContent,
}

enum InputContent {
    Known(Arc<DocumentLogits>),
    Windows(Vec<TokenWindow>),
}

impl Inference {
    /// `duplicate_cache_bytes`: what may be kept of what was computed; nothing where it is 0.
    pub fn new(engine: Arc<dyn Compute>, duplicate_cache_bytes: usize) -> Self {
        let duplicates = (duplicate_cache_bytes > 0).then(|| Arc::new(Duplicates::new(duplicate_cache_bytes)));
        Self { engine, duplicates }
    }

    /// Looks a text, or a pair of texts, up for each model, and cuts it into windows where it is not known.
    ///
    /// # Errors
    /// A [`Rejection`] where a text is too long or cannot be tokenized.
    pub fn prepare(
        &self,
        texts: Texts<'_>,
        text_bytes_max: usize,
        models: &[(ModelIndex, Arc<Model>)],
    ) -> Result<Prepared, Rejection> {
        check_sizes(texts, text_bytes_max)?;
        let digest = self.duplicates.is_some().then(|| TextDigest::of(texts));
        let input = |(index, model): &(ModelIndex, Arc<Model>)| {
            let content = match digest.and_then(|digest| self.find(&(digest, *index), &model.name)) {
                Some(known) => InputContent::Known(known),
                None => InputContent::Windows(tokenize(texts, model)?),
            };
            Ok(Input { model: *index, name: model.name.clone(), content })
        };
        Ok(Prepared { digest, inputs: models.iter().map(input).collect::<Result<_, _>>()? })
    }

    /// Finds out what the models say of a document, and calls `done` with it: at once, or on an engine's thread, unless
    /// `is_wanted` has denied it by then. Blocks while the engine's queue is full.
    pub fn infer(
        &self,
        prepared: Prepared,
        (priority, flow): Line,
        is_wanted: &Wanted,
        done: impl FnOnce(DocumentResult) + Send + 'static,
    ) {
        let gather = Gather::new(prepared.inputs.len(), Box::new(done));
        for (place, input) in prepared.inputs.into_iter().enumerate() {
            let waiter = Gather::waiter(&gather, place, Arc::clone(is_wanted));
            let windows = match input.content {
                InputContent::Known(known) => {
                    (waiter.give)(Ok(known));
                    continue;
                }
                InputContent::Windows(windows) => windows,
            };
            let key = prepared.digest.map(|digest| (digest, input.model));
            if let Some(answer) = self.claim(key, (priority, flow), &input.name, waiter) {
                let inputs = vec![JobInput { model: input.model, windows }];
                self.engine.submit(Job { priority, flow, inputs, answer });
            }
        }
    }

    fn find(&self, key: &Key, model: &Arc<str>) -> Option<Arc<DocumentLogits>> {
        let found = self.duplicates.as_ref()?.find(key)?;
        count(names::DUPLICATE_HITS, model);
        Some(found)
    }

    /// What to do with the answer of the engine, where it has to be asked.
    fn claim(&self, key: Option<Key>, line: Line, model: &Arc<str>, waiter: Waiter) -> Option<Box<dyn Answer>> {
        let (Some(duplicates), Some(key)) = (&self.duplicates, key) else {
            return Some(Box::new(waiter));
        };
        match duplicates.claim(key, line, waiter) {
            Claimed::Found => count(names::DUPLICATE_HITS, model),
            Claimed::Joined => count(names::DUPLICATES_COALESCED, model),
            Claimed::Missing(claim) => {
                count(names::DUPLICATE_MISSES, model);
                return Some(Box::new(claim));
            }
        }
        None
    }
}

fn count(name: &'static str, model: &Arc<str>) {
    metrics::counter!(name, "model" => model.clone()).increment(1);
}

/// Of a job that computes for one document only.
impl Answer for Waiter {
    fn is_wanted(&mut self) -> bool {
        (self.is_wanted)()
    }

    fn give(self: Box<Self>, result: JobResult) {
        (self.give)(only(result).map(Arc::new));
    }
}

/// Of a job that computes for all that have the same texts.
impl Answer for Claim {
    fn is_wanted(&mut self) -> bool {
        Self::is_wanted(self)
    }

    fn give(self: Box<Self>, result: JobResult) {
        self.finish(only(result));
    }
}

/// The answer to a job of one input.
fn only(result: JobResult) -> Result<DocumentLogits, InferError> {
    result.map(|mut inputs| inputs.pop().unwrap_or_default())
}

fn check_sizes(texts: Texts<'_>, text_bytes_max: usize) -> Result<(), Rejection> {
    for (name, text) in [("text", Some(texts.text)), ("text_pair", texts.pair)] {
        let bytes = text.map_or(0, str::len);
        if bytes > text_bytes_max {
            let message = format!(
                "the {name} has {bytes} bytes, more than the {text_bytes_max} allowed; raise `text_bytes_max` of the stream"
            );
            return Err(Rejection::new(Stage::Tokenize, "text_too_long", message));
        }
    }
    Ok(())
}

/// The windows of a text, or a pair of texts, for a model.
///
/// # Errors
/// A [`Rejection`] where a text is too long or cannot be tokenized.
pub fn windows(texts: Texts<'_>, text_bytes_max: usize, model: &Model) -> Result<Vec<TokenWindow>, Rejection> {
    check_sizes(texts, text_bytes_max)?;
    tokenize(texts, model)
}

fn tokenize(texts: Texts<'_>, model: &Model) -> Result<Vec<TokenWindow>, Rejection> {
    model.tokenizer.windows(texts).map_err(|error| {
        let reason = match error {
            TokenizeError::PairTooLong { .. } => "text_pair_too_long",
            _ => "tokenizer_failed",
        };
        Rejection::new(Stage::Tokenize, reason, format!("model `{}`: {error}", model.name))
    })
}

/// Collects what the models of a document say; whoever brings the last one answers.
struct Gather {
    state: Mutex<GatherState>,
}

struct GatherState {
    remaining: usize,
    answers: Vec<Option<Arc<DocumentLogits>>>,
    error: Option<InferError>,
    done: Option<Box<dyn FnOnce(DocumentResult) + Send>>,
}

impl Gather {
    fn new(models: usize, done: Box<dyn FnOnce(DocumentResult) + Send>) -> Arc<Self> {
        let state = GatherState { remaining: models, answers: vec![None; models], error: None, done: Some(done) };
        Arc::new(Self { state: Mutex::new(state) })
    }

    fn waiter(gather: &Arc<Self>, place: usize, is_wanted: Wanted) -> Waiter {
        let gather = Arc::clone(gather);
        Waiter { give: Box::new(move |result| gather.finish(place, result)), is_wanted }
    }

    fn finish(&self, place: usize, result: Result<Arc<DocumentLogits>, InferError>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(logits) => state.answers[place] = Some(logits),
            Err(error) => state.error = Some(error),
        }
        state.remaining -= 1;
        if state.remaining > 0 {
            return;
        }
        let answers = std::mem::take(&mut state.answers).into_iter().flatten().collect();
        let answer = state.error.take().map_or(Ok(answers), Err);
        let done = state.done.take();
        drop(state);
        if let Some(done) = done {
            done(answer);
        }
    }
}
