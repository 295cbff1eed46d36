//! The engine's contract under many threads: every job is answered once, and closing leaves nobody waiting.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use albertine::{
    engine::{Answer, Engine, EngineConfig, Job, JobResult, Priority, job::JobInput, scheduler::GroupLimits},
    model::folder::Model,
    text::tokenize::{TokenWindow, Tokens},
};

use super::{ROUNDING_TOLERANCE, distance, goldens, model, model_folder, runtime, session};
use crate::support::DEADLINE;

pub(super) fn engine(sessions: usize, queue_tokens_max: usize) -> Engine {
    let config = EngineConfig {
        sessions: NonZeroUsize::new(sessions).unwrap(),
        pin_threads: true,
        group: GroupLimits { tokens_max: 256, length_part: 32 },
        queue_tokens_max,
        backfill_queue_tokens_max: queue_tokens_max,
    };
    // What is expected is asked of a session for itself, at full depth.
    let model = Model::open(&model_folder()).unwrap().at_full_depth();
    Engine::start(runtime(), &[Arc::new(model)], config).unwrap()
}

fn window(ids: &[u32]) -> TokenWindow {
    TokenWindow { ids: ids.to_vec(), second_from: ids.len(), fresh: ids.len() - 2 }
}

fn job(windows: Vec<TokenWindow>, done: impl FnOnce(JobResult) + Send + 'static) -> Job {
    Job { priority: Priority::Live, flow: 0, inputs: vec![JobInput { model: 0, windows }], answer: Box::new(done) }
}

#[test]
fn every_job_of_many_threads_is_answered_once_with_its_own_logits() {
    const THREADS: usize = 8;
    let goldens: Vec<Vec<u32>> =
        goldens().into_iter().map(|golden| golden.input_ids).filter(|ids| ids.len() <= 64).collect();
    let mut session = session();
    let expected: Vec<Vec<f32>> =
        goldens.iter().map(|ids| session.infer(&[Tokens::single(ids)]).unwrap().remove(0)).collect();
    // A queue of a few windows, so that submitters also wait for room.
    let engine = engine(2, 300);
    let (sender, answers) = mpsc::channel();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (sender, engine, goldens) = (sender.clone(), &engine, &goldens);
            scope.spawn(move || {
                for index in 0..goldens.len() {
                    // Two windows, one of them another text's, and every thread in another order.
                    let (first, second) = ((index + thread) % goldens.len(), index);
                    let (sender, windows) = (sender.clone(), vec![window(&goldens[first]), window(&goldens[second])]);
                    engine.submit(job(windows, move |result| sender.send((first, second, result)).unwrap()));
                }
            });
        }
    });
    drop(sender);
    let mut answered = 0;
    // Ends when every callback was called or dropped: a lost one is counted, not waited for.
    while let Ok((first, second, result)) = answers.recv_timeout(DEADLINE) {
        let windows = result.unwrap().remove(0);
        answered += 1;
        for (index, (weight, logits)) in [first, second].into_iter().zip(windows) {
            assert_eq!(weight, goldens[index].len() - 2, "the weight of text {index}");
            let distance = distance(&logits.logits, &expected[index]);
            assert!(
                distance <= ROUNDING_TOLERANCE,
                "text {index} was given logits that are {distance} off: another text's?"
            );
        }
    }
    assert_eq!(answered, THREADS * goldens.len());
}

#[test]
fn a_job_without_windows_is_answered_at_once() {
    let engine = engine(1, 100);
    let (sender, answers) = mpsc::channel();
    engine.submit(job(Vec::new(), move |result| sender.send(result.map(|answer| answer[0].len())).unwrap()));
    assert_eq!(answers.try_recv().unwrap().unwrap(), 0);
}

#[test]
fn closing_answers_what_is_in_work_and_drops_what_waits() {
    let (engine, ids) = (Arc::new(engine(1, 1_000_000)), vec![101; 256]);
    let (started, in_work) = mpsc::channel();
    let (go_on, gate) = mpsc::channel::<()>();
    let (sender, answers) = mpsc::channel::<&str>();
    let first = sender.clone();
    // The only worker is held in the first job's callback, so the others have to wait.
    engine.submit(job(vec![window(&ids)], move |_| {
        started.send(()).unwrap();
        gate.recv_timeout(DEADLINE).unwrap();
        first.send("in work").unwrap();
    }));
    in_work.recv_timeout(DEADLINE).expect("the first job is under way");
    for _ in 0..50 {
        let sender = sender.clone();
        engine.submit(job(vec![window(&ids)], move |_| sender.send("waiting").unwrap()));
    }
    drop(sender);
    engine.close();
    go_on.send(()).unwrap();
    let (dropping, dropped) = mpsc::channel();
    std::thread::spawn(move || {
        drop(engine);
        dropping.send(()).unwrap();
    });
    dropped.recv_timeout(DEADLINE).expect("the engine ends although jobs wait");
    assert_eq!(answers.iter().collect::<Vec<_>>(), ["in work"]);
}

#[test]
fn closing_lets_a_thread_go_that_waits_for_room() {
    let engine = Arc::new(engine(1, 1));
    let (started, in_work) = mpsc::channel();
    let (go_on, gate) = mpsc::channel::<()>();
    engine.submit(job(vec![window(&[101; 16])], move |_| {
        started.send(()).unwrap();
        let _ = gate.recv_timeout(DEADLINE);
    }));
    in_work.recv_timeout(DEADLINE).expect("the first job is under way");
    // One is taken into the empty queue; the next has no room.
    let submitted = Arc::new(AtomicUsize::new(0));
    let (returning, returned) = mpsc::channel();
    let (submitter, count) = (Arc::clone(&engine), Arc::clone(&submitted));
    std::thread::spawn(move || {
        for _ in 0..2 {
            submitter.submit(job(vec![window(&[101; 16])], |_| {}));
            count.fetch_add(1, Ordering::SeqCst);
        }
        returning.send(()).unwrap();
    });
    let still_waiting = returned.recv_timeout(Duration::from_millis(300));
    assert!(still_waiting.is_err(), "the queue is full: the second job has to wait for room");
    assert_eq!(submitted.load(Ordering::SeqCst), 1, "the first job has room");
    engine.close();
    returned.recv_timeout(DEADLINE).expect("a closed engine lets the submitter go");
    drop(go_on);
}

#[test]
fn a_group_that_fails_is_answered_with_an_error_and_the_next_is_computed() {
    let engine = engine(1, 10_000);
    let (sender, answers) = mpsc::channel();
    for ids in [vec![101, 4_000_000, 102], vec![101, 2204, 102]] {
        let sender = sender.clone();
        engine.submit(job(vec![window(&ids)], move |result| {
            sender.send(result.map_err(|error| error.to_string())).unwrap();
        }));
        // One after the other: both have three tokens, and would share a group and its fate.
        if ids[1] == 4_000_000 {
            let error = answers.recv_timeout(DEADLINE).unwrap().expect_err("an id that no vocabulary has");
            assert!(error.starts_with("inference failed: "), "{error}");
        }
    }
    let answer: Result<_, String> = answers.recv_timeout(DEADLINE).unwrap();
    assert_eq!(answer.unwrap()[0][0].1.logits.len(), model().labels.len(), "the worker goes on");
}

#[test]
fn a_job_that_nobody_wants_any_more_is_not_computed_and_the_next_one_is() {
    struct Unwanted(mpsc::Sender<JobResult>);
    impl Answer for Unwanted {
        fn is_wanted(&mut self) -> bool {
            false
        }

        fn give(self: Box<Self>, result: JobResult) {
            self.0.send(result).unwrap();
        }
    }
    let engine = engine(1, 2000);
    let ids = goldens().remove(0).input_ids;
    let (sender, unwanted) = mpsc::channel();
    let (wanted_sender, wanted) = mpsc::channel();
    engine.submit(Job { answer: Box::new(Unwanted(sender)), ..job(vec![window(&ids), window(&ids)], drop) });
    engine.submit(job(vec![window(&ids)], move |result| wanted_sender.send(result).unwrap()));
    assert_eq!(wanted.recv_timeout(DEADLINE).unwrap().unwrap()[0].len(), 1);
    assert_eq!(unwanted.recv_timeout(DEADLINE).unwrap_err(), mpsc::RecvTimeoutError::Disconnected);
}
