//! What models said of texts before, and who waits for what they are about to say: a text that comes again is not
//! computed again.
//!
//! Contract:
//! - What is kept is what the network said, by the SHA-256 of the texts and by model. Nothing else goes into it: a
//!   window's logits depend on its tokens and on its model alone. It takes no more than the bytes it is given.
//! - [`Duplicates::claim`] makes its caller the one who computes a text, or lets it wait for who does. A document waits
//!   only for one of its own [`Line`], which was before it there anyway: so none that is live waits for a backfill, and
//!   no stream for the backlog of another. Two lines that meet the same text at the same time compute it twice.
//! - Whoever waits is answered with what was computed, or with its error, on the thread that answers the computation. An
//!   error is not kept: the next one computes anew. To let each one compute on its own instead would mean to submit from
//!   an engine's thread, which must not block.
//! - A [`Claim`] that is dropped takes along who waits for it, uncalled: what the engine promises of its jobs. A computation
//!   is wanted as long as one of those who wait for it is.

use std::{
    collections::HashMap,
    mem::size_of,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use quick_cache::{Weighter, unsync::Cache};
use sha2::{Digest, Sha256};

use crate::{
    engine::{
        InferError, Priority,
        job::{DocumentLogits, ModelIndex},
        scheduler::Flow,
    },
    model::folder::WindowLogits,
    text::tokenize::Texts,
};

/// What an entry takes beside its windows: its key, its place in the cache, half a place of those the cache only
/// remembers, and the headers of its allocations.
const ENTRY_BYTES: usize = 192;
/// The least an entry takes: one window.
const ENTRY_BYTES_MIN: usize = ENTRY_BYTES + size_of::<(usize, WindowLogits)>();

/// Stands for a text, or a pair of them; nobody finds two that share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TextDigest([u8; 32]);

impl TextDigest {
    pub fn of(texts: Texts<'_>) -> Self {
        let mut hash = Sha256::new();
        // With its length ahead, where the first text ends is never in doubt.
        hash.update((texts.text.len() as u64).to_le_bytes());
        hash.update(texts.text);
        if let Some(pair) = texts.pair {
            hash.update([1]);
            hash.update(pair);
        }
        Self(hash.finalize().into())
    }
}

/// A text and the model that reads it.
pub type Key = (TextDigest, ModelIndex);

/// Those who wait for each other in the engine.
pub type Line = (Priority, Flow);

/// Whether somebody still waits; once it says no, it does so for good. It must not block.
pub type Wanted = Arc<dyn Fn() -> bool + Send + Sync>;

/// Of one who waits to the end.
pub fn always() -> Wanted {
    Arc::new(|| true)
}

/// Somebody who waits for what is computed.
pub struct Waiter {
    /// Called once, unless the computation is dropped. It must not block for long.
    pub give: Box<dyn FnOnce(Result<Arc<DocumentLogits>, InferError>) + Send>,
    pub is_wanted: Wanted,
}

/// See the module.
pub struct Duplicates {
    state: Mutex<State>,
}

struct State {
    computed: Cache<Key, Arc<DocumentLogits>, Bytes>,
    pending: HashMap<(Key, Line), Vec<Waiter>>,
}

/// What has become of a waiter.
pub enum Claimed {
    /// It was answered.
    Found,
    /// It waits for another one's computation.
    Joined,
    /// It waits for the computation that its caller owes.
    Missing(Claim),
}

/// A computation that is owed.
pub struct Claim {
    duplicates: Arc<Duplicates>,
    /// `None` once it is settled: by then somebody else may owe the same.
    owed: Option<(Key, Line)>,
}

impl Duplicates {
    /// Keeps at most so many bytes.
    pub fn new(bytes_max: usize) -> Self {
        let computed = Cache::with_weighter(bytes_max / ENTRY_BYTES_MIN, bytes_max as u64, Bytes);
        Self { state: Mutex::new(State { computed, pending: HashMap::new() }) }
    }

    /// What a model said of a text before.
    pub fn find(&self, key: &Key) -> Option<Arc<DocumentLogits>> {
        self.lock().computed.get(key).cloned()
    }

    /// Answers the waiter, or lets it wait.
    pub fn claim(self: &Arc<Self>, key: Key, line: Line, waiter: Waiter) -> Claimed {
        let mut state = self.lock();
        if let Some(waiters) = state.pending.get_mut(&(key, line)) {
            waiters.push(waiter);
            return Claimed::Joined;
        }
        if let Some(found) = state.computed.get(&key).cloned() {
            drop(state);
            (waiter.give)(Ok(found));
            return Claimed::Found;
        }
        state.pending.insert((key, line), vec![waiter]);
        Claimed::Missing(Claim { duplicates: Arc::clone(self), owed: Some((key, line)) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// Keeps what was computed, and answers all who wait for it.
    pub fn finish(mut self, result: Result<DocumentLogits, InferError>) {
        let result = result.map(Arc::new);
        for waiter in self.settle(result.as_ref().ok()) {
            (waiter.give)(result.clone());
        }
    }

    /// Whether any of those who wait still does. Where none does the claim is over, and who comes next owes the computation.
    pub fn is_wanted(&mut self) -> bool {
        let Some(owed) = self.owed else { return false };
        let mut state = self.duplicates.lock();
        let waiters = state.pending.get(&owed);
        let is_wanted = waiters.is_some_and(|waiters| waiters.iter().any(|waiter| (waiter.is_wanted)()));
        if !is_wanted {
            self.owed = None;
            // Under the same lock, or somebody could join meanwhile; dropped without it, as they may hold another claim.
            let unwanted = state.pending.remove(&owed);
            drop(state);
            drop(unwanted);
        }
        is_wanted
    }

    /// Those who wait. They are called, or dropped, without the lock: one of them may hold another claim.
    fn settle(&mut self, computed: Option<&Arc<DocumentLogits>>) -> Vec<Waiter> {
        let Some(owed) = self.owed.take() else { return Vec::new() };
        let mut state = self.duplicates.lock();
        if let Some(logits) = computed {
            state.computed.insert(owed.0, Arc::clone(logits));
        }
        state.pending.remove(&owed).unwrap_or_default()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        drop(self.settle(None));
    }
}

/// What an entry takes.
#[derive(Clone)]
struct Bytes;

impl Weighter<Key, Arc<DocumentLogits>> for Bytes {
    fn weight(&self, _: &Key, windows: &Arc<DocumentLogits>) -> u64 {
        let logits: usize = windows.iter().map(|(_, window)| window.logits.capacity() * size_of::<f32>()).sum();
        (ENTRY_BYTES + windows.capacity() * size_of::<(usize, WindowLogits)>() + logits) as u64
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const LIVE: Line = (Priority::Live, 0);

    fn key(text: &str) -> Key {
        (TextDigest::of(Texts { text, pair: None }), 0)
    }

    fn said(logit: f32) -> DocumentLogits {
        vec![(1, WindowLogits { logits: vec![logit; 3], depth: 4 })]
    }

    type Answer = Result<Arc<DocumentLogits>, InferError>;

    fn waiting(give: impl FnOnce(Answer) + Send + 'static) -> Waiter {
        Waiter { give: Box::new(give), is_wanted: always() }
    }

    fn waiter() -> (Waiter, mpsc::Receiver<Answer>) {
        let (sender, answers) = mpsc::channel();
        (waiting(move |answer| sender.send(answer).unwrap()), answers)
    }

    fn claim(duplicates: &Arc<Duplicates>, text: &str, line: Line) -> (Claimed, mpsc::Receiver<Answer>) {
        let (waiter, answers) = waiter();
        (duplicates.claim(key(text), line, waiter), answers)
    }

    fn missing(claimed: Claimed) -> Claim {
        let Claimed::Missing(claim) = claimed else { panic!("it is not to be computed") };
        claim
    }

    #[test]
    fn texts_and_pairs_are_never_taken_for_each_other() {
        let of = |text, pair| TextDigest::of(Texts { text, pair });
        assert_eq!(of("a", Some("b")), of("a", Some("b")));
        let all = [of("ab", None), of("a", Some("b")), of("ab", Some("")), of("", Some("ab")), of("a\u{1}b", None)];
        for (index, digest) in all.iter().enumerate() {
            assert!(!all[index + 1..].contains(digest), "{index}");
        }
    }

    #[test]
    fn what_was_computed_is_found_by_text_and_model() {
        let duplicates = Arc::new(Duplicates::new(10_000));
        assert_eq!(duplicates.find(&key("a")), None);
        let (claimed, answers) = claim(&duplicates, "a", LIVE);
        missing(claimed).finish(Ok(said(1.0)));
        assert_eq!(*answers.recv().unwrap().unwrap(), said(1.0));
        assert_eq!(*duplicates.find(&key("a")).unwrap(), said(1.0));
        assert_eq!(duplicates.find(&(key("a").0, 1)), None);
        assert_eq!(duplicates.find(&key("b")), None);
        let (claimed, answers) = claim(&duplicates, "a", (Priority::Backfill, 7));
        assert!(matches!(claimed, Claimed::Found));
        assert_eq!(*answers.recv().unwrap().unwrap(), said(1.0));
    }

    #[test]
    fn who_comes_while_it_is_computed_waits_for_that() {
        let duplicates = Arc::new(Duplicates::new(10_000));
        let (first, first_answers) = claim(&duplicates, "a", LIVE);
        let (second, second_answers) = claim(&duplicates, "a", LIVE);
        assert!(matches!(second, Claimed::Joined));
        assert!(second_answers.try_recv().is_err());
        missing(first).finish(Ok(said(2.0)));
        for answers in [first_answers, second_answers] {
            assert_eq!(*answers.try_recv().unwrap().unwrap(), said(2.0));
        }
        assert!(duplicates.lock().pending.is_empty());
    }

    #[test]
    fn nothing_waits_for_another_line() {
        let duplicates = Arc::new(Duplicates::new(10_000));
        let (backfill, backfill_answers) = claim(&duplicates, "a", (Priority::Backfill, 0));
        let (live, live_answers) = claim(&duplicates, "a", LIVE);
        let (other_stream, _) = claim(&duplicates, "a", (Priority::Live, 1));
        let _other_stream = missing(other_stream);
        missing(live).finish(Ok(said(1.0)));
        assert!(live_answers.try_recv().is_ok() && backfill_answers.try_recv().is_err());
        missing(backfill).finish(Ok(said(1.0)));
        assert!(backfill_answers.try_recv().is_ok());
    }

    #[test]
    fn an_error_is_answered_to_all_who_wait_and_not_kept() {
        let duplicates = Arc::new(Duplicates::new(10_000));
        let (first, first_answers) = claim(&duplicates, "a", LIVE);
        let (_, second_answers) = claim(&duplicates, "a", LIVE);
        missing(first).finish(Err(InferError("no memory".into())));
        for answers in [first_answers, second_answers] {
            assert_eq!(answers.try_recv().unwrap().unwrap_err().to_string(), "inference failed: no memory");
        }
        missing(claim(&duplicates, "a", LIVE).0);
    }

    #[test]
    fn a_claim_that_is_settled_leaves_alone_who_computes_anew() {
        let duplicates = Arc::new(Duplicates::new(10_000));
        let (sender, anew) = mpsc::channel();
        let again = Arc::clone(&duplicates);
        let waiter = waiting(move |_| sender.send(claim(&again, "a", LIVE)).unwrap());
        missing(duplicates.claim(key("a"), LIVE, waiter)).finish(Err(InferError("no memory".into())));
        let (claimed, answers) = anew.recv().unwrap();
        let (joined, joined_answers) = claim(&duplicates, "a", LIVE);
        assert!(matches!(joined, Claimed::Joined));
        missing(claimed).finish(Ok(said(1.0)));
        assert!(answers.recv().unwrap().is_ok() && joined_answers.recv().unwrap().is_ok());
    }

    #[test]
    fn who_waits_for_what_is_dropped_is_dropped_uncalled() {
        let duplicates = Arc::new(Duplicates::new(10_000));
        let (first, first_answers) = claim(&duplicates, "a", LIVE);
        let (_, second_answers) = claim(&duplicates, "a", LIVE);
        // A waiter that itself holds the last of another claim.
        let other = missing(claim(&duplicates, "b", LIVE).0);
        let holds = waiting(move |_| drop(other));
        assert!(matches!(duplicates.claim(key("a"), LIVE, holds), Claimed::Joined));
        drop(first);
        for answers in [first_answers, second_answers] {
            assert_eq!(answers.try_recv().unwrap_err(), mpsc::TryRecvError::Disconnected);
        }
        assert!(duplicates.lock().pending.is_empty());
        missing(claim(&duplicates, "a", LIVE).0);
    }

    #[test]
    fn it_takes_no_more_than_its_bytes() {
        let bytes_max = 10 * (ENTRY_BYTES_MIN + 3 * size_of::<f32>());
        let duplicates = Arc::new(Duplicates::new(bytes_max));
        for index in 0..100 {
            missing(claim(&duplicates, &index.to_string(), LIVE).0).finish(Ok(said(0.0)));
        }
        let kept = |duplicates: &Duplicates| {
            let state = duplicates.lock();
            assert!(state.computed.weight() <= bytes_max as u64, "{}", state.computed.weight());
            state.computed.len()
        };
        assert_eq!(kept(&duplicates), 10);
        // One that is larger than all is answered, and not kept.
        let (claimed, answers) = claim(&duplicates, "long", LIVE);
        missing(claimed).finish(Ok(vec![said(0.0).remove(0); 1000]));
        assert!(answers.try_recv().unwrap().is_ok());
        assert_eq!(duplicates.find(&key("long")), None);
        assert!(kept(&duplicates) > 0);
    }
}
