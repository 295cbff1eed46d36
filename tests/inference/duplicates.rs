//! A document's way through its models: what was computed before is not computed again, and nothing else changes.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
    mpsc,
};

use albertine::{
    engine::{
        Engine, InferError, Job, JobResult, Priority,
        job::{DocumentLogits, ModelIndex},
    },
    model::folder::{Model, WindowLogits},
    stream::{
        duplicates::{Wanted, always},
        inference::{Compute, DocumentResult, Inference},
        intake,
    },
    text::tokenize::Texts,
};

use super::{ROUNDING_TOLERANCE, distance, engine::engine, goldens, model};
use crate::support::{DEADLINE, models::small_model};

const TEXT_BYTES_MAX: usize = 1000;
const CACHE_BYTES: usize = 1 << 20;

type Models = Vec<(ModelIndex, Arc<Model>)>;

/// An engine whose jobs are counted.
struct Counted {
    engine: Engine,
    jobs: AtomicUsize,
}

impl Compute for Counted {
    fn submit(&self, job: Job) {
        self.jobs.fetch_add(1, Ordering::Relaxed);
        self.engine.submit(job);
    }
}

/// An engine that only holds what it was given.
#[derive(Default)]
struct Held(Mutex<Vec<Job>>);

impl Compute for Held {
    fn submit(&self, job: Job) {
        self.0.lock().unwrap().push(job);
    }
}

impl Held {
    fn take(&self) -> Vec<Job> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    /// Answers all it holds, and says which models were asked.
    fn answer(&self, answer: impl Fn(ModelIndex) -> JobResult) -> Vec<ModelIndex> {
        let asked = self.take().into_iter().map(|job| {
            assert_eq!(job.inputs.len(), 1);
            let model = job.inputs[0].model;
            job.answer.give(answer(model));
            model
        });
        asked.collect()
    }
}

fn held() -> (Arc<Held>, Inference) {
    let held = Arc::new(Held::default());
    let compute: Arc<dyn Compute> = held.clone();
    (held, Inference::new(compute, CACHE_BYTES))
}

fn infer(inference: &Inference, text: &str, models: &Models, priority: Priority) -> mpsc::Receiver<DocumentResult> {
    let (sender, answers) = mpsc::channel();
    let prepared = inference.prepare(Texts { text, pair: None }, TEXT_BYTES_MAX, models).unwrap();
    inference.infer(prepared, (priority, 0), &always(), move |result| sender.send(result).unwrap());
    answers
}

fn said(model: ModelIndex) -> DocumentLogits {
    vec![(1, WindowLogits { logits: vec![model as f32; 3], depth: 6 })]
}

fn answered(answers: &mpsc::Receiver<DocumentResult>) -> Vec<DocumentLogits> {
    answers.try_recv().unwrap().unwrap().iter().map(|logits| DocumentLogits::clone(logits)).collect()
}

#[test]
fn a_text_that_comes_again_is_computed_once_and_labelled_the_same() {
    const TIMES: usize = 3;
    let texts: Vec<String> = goldens().into_iter().map(|golden| golden.text).filter(|text| text.len() < 300).collect();
    let models: Models = vec![(0, model())];
    let counted = Arc::new(Counted { engine: engine(2, 2000), jobs: AtomicUsize::new(0) });
    let compute: Arc<dyn Compute> = counted.clone();
    let labels_of = |inference: &Inference| {
        // All at once, and then all again: some wait for what is being computed, and the others find it.
        let rounds = (0..2).map(|_| {
            let waiting: Vec<_> = texts
                .iter()
                .flat_map(|text| std::iter::repeat_n(text, TIMES))
                .map(|text| infer(inference, text, &models, Priority::Live))
                .collect();
            waiting
                .iter()
                .map(|answers| intake::labels(&models, answers.recv_timeout(DEADLINE).unwrap()).unwrap().remove(0))
                .collect::<Vec<_>>()
        });
        rounds.flatten().collect::<Vec<_>>()
    };
    let labels = labels_of(&Inference::new(Arc::clone(&compute), CACHE_BYTES));
    assert_eq!(counted.jobs.swap(0, Ordering::Relaxed), texts.len());
    let computed = labels_of(&Inference::new(compute, 0));
    assert_eq!(counted.jobs.load(Ordering::Relaxed), texts.len() * TIMES * 2);
    let all = labels.len();
    for (index, (label, computed)) in labels.iter().zip(&computed).enumerate() {
        let first = &labels[index % (all / 2) / TIMES * TIMES];
        assert_eq!((&label.probabilities, label.depth), (&first.probabilities, first.depth));
        let moved = distance(&label.probabilities, &computed.probabilities);
        assert!(moved < ROUNDING_TOLERANCE, "text {index}: probabilities differ by {moved}");
    }
}

#[test]
fn each_model_is_looked_up_by_itself_and_only_the_missing_ones_are_computed() {
    let (held, inference) = held();
    let models: Models = vec![(1, model()), (0, model())];
    let first = infer(&inference, "A kettle.", &models[..1].to_vec(), Priority::Live);
    assert_eq!(held.answer(|model| Ok(vec![said(model)])), [1]);
    assert_eq!(answered(&first), [said(1)]);
    let both = infer(&inference, "A kettle.", &models, Priority::Live);
    assert!(both.try_recv().is_err());
    assert_eq!(held.answer(|model| Ok(vec![said(model)])), [0]);
    assert_eq!(answered(&both), [said(1), said(0)]);
    assert_eq!(answered(&infer(&inference, "A kettle.", &models, Priority::Live)), [said(1), said(0)]);
    assert!(held.take().is_empty());
}

#[test]
fn an_error_of_one_model_is_the_documents_and_what_the_other_said_is_kept() {
    let (held, inference) = held();
    let models: Models = vec![(0, model()), (1, model())];
    let documents = [(); 2].map(|()| infer(&inference, "A kettle.", &models, Priority::Live));
    let failing = |model| if model == 0 { Err(InferError("no memory".into())) } else { Ok(vec![said(model)]) };
    assert_eq!(held.answer(failing), [0, 1]);
    for document in documents {
        assert_eq!(document.try_recv().unwrap().unwrap_err().to_string(), "inference failed: no memory");
    }
    let anew = infer(&inference, "A kettle.", &models, Priority::Live);
    assert_eq!(held.answer(|model| Ok(vec![said(model)])), [0]);
    assert_eq!(answered(&anew), [said(0), said(1)]);
}

#[test]
fn a_live_document_does_not_wait_for_a_backfill_that_computes_the_same() {
    let (held, inference) = held();
    let models: Models = vec![(0, model())];
    let backfill = infer(&inference, "A kettle.", &models, Priority::Backfill);
    let live = infer(&inference, "A kettle.", &models, Priority::Live);
    let mut jobs = held.take();
    let priorities: Vec<Priority> = jobs.iter().map(|job| job.priority).collect();
    assert_eq!(priorities, [Priority::Backfill, Priority::Live]);
    jobs.remove(1).answer.give(Ok(vec![said(0)]));
    assert_eq!(answered(&live), [said(0)]);
    assert!(backfill.try_recv().is_err());
    jobs.remove(0).answer.give(Ok(vec![said(0)]));
    assert_eq!(answered(&backfill), [said(0)]);
}

#[test]
fn an_engine_that_is_closed_leaves_all_who_wait_unanswered() {
    let (held, inference) = held();
    let models: Models = vec![(0, model()), (1, model())];
    let documents = [(); 3].map(|()| infer(&inference, "A kettle.", &models, Priority::Live));
    let mut jobs = held.take();
    assert_eq!(jobs.len(), 2);
    jobs.remove(0).answer.give(Ok(vec![said(0)]));
    drop(jobs);
    for document in documents {
        assert_eq!(document.try_recv().unwrap_err(), mpsc::TryRecvError::Disconnected);
    }

    let engine = Arc::new(engine(1, 2000));
    let compute: Arc<dyn Compute> = engine.clone();
    let inference = Inference::new(compute, CACHE_BYTES);
    engine.close();
    for _ in 0..2 {
        let document = infer(&inference, "A kettle.", &models[..1].to_vec(), Priority::Live);
        assert_eq!(document.recv_timeout(DEADLINE).unwrap_err(), mpsc::RecvTimeoutError::Disconnected);
    }
}

#[test]
fn what_is_rejected_is_rejected_again_also_where_one_model_knows_the_text() {
    let (held, inference) = held();
    let pairs = Arc::new(Model::open(&small_model("pair-int8")).unwrap());
    let words = "the lid ".repeat(20);
    let texts = Texts { text: &words, pair: Some(&words) };
    let prepare = |models: &Models, bytes_max| inference.prepare(texts, bytes_max, models);
    let (single, both): (Models, Models) = (vec![(0, model())], vec![(0, model()), (1, pairs)]);
    let prepared = prepare(&single, TEXT_BYTES_MAX).unwrap();
    inference.infer(prepared, (Priority::Live, 0), &always(), |result| drop(result.unwrap()));
    assert_eq!(held.answer(|model| Ok(vec![said(model)])), [0]);
    for _ in 0..2 {
        assert_eq!(prepare(&both, TEXT_BYTES_MAX).err().unwrap().reason, "text_pair_too_long");
        assert_eq!(prepare(&single, 100).err().unwrap().reason, "text_too_long");
    }
    assert!(held.take().is_empty());
}

#[test]
fn a_text_is_computed_while_one_of_its_documents_is_wanted() {
    let (held, inference) = held();
    let models: Models = vec![(0, model())];
    let ask = |is_held: &Arc<AtomicBool>| {
        let (sender, answers) = mpsc::channel();
        let prepared = inference.prepare(Texts { text: "A kettle.", pair: None }, TEXT_BYTES_MAX, &models).unwrap();
        let is_held = Arc::clone(is_held);
        let is_wanted: Wanted = Arc::new(move || is_held.load(Ordering::Relaxed));
        inference.infer(prepared, (Priority::Live, 0), &is_wanted, move |result| sender.send(result).unwrap());
        answers
    };
    let [one, other]: [Arc<AtomicBool>; 2] = std::array::from_fn(|_| Arc::new(AtomicBool::new(true)));
    let (first, second) = (ask(&one), ask(&other));
    let mut job = held.take().remove(0);
    one.store(false, Ordering::Relaxed);
    assert!(job.answer.is_wanted(), "the second document waits for it");
    other.store(false, Ordering::Relaxed);
    assert!(!job.answer.is_wanted());
    for answers in [first, second] {
        assert_eq!(answers.try_recv().unwrap_err(), mpsc::TryRecvError::Disconnected);
    }
    // Who comes now does not wait for what will never be computed, also while the engine still holds it.
    let third = ask(&Arc::new(AtomicBool::new(true)));
    drop(job);
    assert_eq!(held.answer(|model| Ok(vec![said(model)])), [0]);
    assert_eq!(answered(&third), [said(0)]);
}
