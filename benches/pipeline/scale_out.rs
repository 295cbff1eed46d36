//! 1 to 16 workers of one group. Their model waits instead of computing, so that two cores can show what sixteen machines
//! would: what coordination, the broker and the database cost.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::{
    Arguments, corpus,
    measure::{Spread, wait},
    plot,
    support::pipeline::{Options, Process, Stream},
};

const PARTITIONS: i32 = 16;
const WORKERS: [usize; 5] = [1, 2, 4, 8, 16];
/// What the network takes for a document, one at a time: a hundred tokens of albert-base in int8 take 60 ms on a core with
/// VNNI, and 140 ms on one without.
const DOCUMENT_MS: u64 = 50;
/// Measured at a time, once all workers hold their partitions.
const WINDOW: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_mins(2);
const STORED: &str = "albertine_documents_stored_total";
/// Of the speed before a worker joined, times the new number of workers by the old one.
const FULL: f64 = 0.95;
/// How often the count is looked at after a worker joined.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Speed is what was stored in so long: workers store a batch at a time.
const SLICE: Duration = Duration::from_secs(3);

fn options() -> Options {
    Options {
        instant_model: true,
        // One window a call, whatever waits.
        engine: "group_tokens_max = 1\nduplicate_cache_bytes = 0".into(),
        failpoints: format!("engine-pass=sleep({DOCUMENT_MS})"),
        ..Options::default()
    }
}

pub fn measure(arguments: &Arguments) {
    println!("{PARTITIONS} partitions, a model that waits {DOCUMENT_MS} ms for each document, one session a worker");
    println!("\n| Workers | Documents/s | Of as many times one worker |");
    println!("|---|---|---|");
    let rounds: Vec<Vec<f64>> =
        (0..arguments.rounds.min(3)).map(|_| WORKERS.iter().map(|workers| speed(*workers)).collect()).collect();
    let mut points = Vec::new();
    for (index, workers) in WORKERS.iter().enumerate() {
        let speed = Spread::of(rounds.iter().map(|round| round[index]));
        let efficiency = Spread::of(rounds.iter().map(|round| round[index] / round[0] / *workers as f64));
        println!("| {workers} | {speed:.1} | {efficiency:.3} |");
        points.push((*workers as f64, speed.median));
    }
    if let Some(folder) = &arguments.plots {
        let ideal = WORKERS.iter().map(|workers| (*workers as f64, points[0].1 * *workers as f64)).collect();
        let lines = [("measured".into(), points), ("as many times one worker".into(), ideal)];
        plot::lines(&folder.join("scale-out.svg"), ("workers", "documents/s"), &lines);
    }
    let joined = Spread::of((0..arguments.rounds).map(|_| joining()));
    println!(
        "\nFrom the start of a fifth worker's process beside four until {FULL} of five workers' speed: {joined:.1} s"
    );
}

/// A backlog that lasts, spread evenly.
fn backlog(workers: usize, seconds: u64) -> Stream {
    let stream = Stream::new(PARTITIONS);
    let records = workers * (seconds * 1000 / DOCUMENT_MS) as usize;
    let records = records.next_multiple_of(PARTITIONS as usize);
    corpus::produce(&stream.topic, PARTITIONS, (0..records).map(|number| (number, corpus::short_record(number))));
    stream
}

fn stored(workers: &[Process]) -> f64 {
    workers.iter().map(|worker| worker.metric(STORED)).sum()
}

/// Starts workers, and waits until each has stored something since all are there.
fn start(stream: &Stream, workers: usize) -> Vec<Process> {
    let workers: Vec<Process> = (0..workers).map(|_| stream.start(&options())).collect();
    wait("all workers work", LIMIT, || workers.iter().all(|worker| worker.metric(STORED) > 0.0).then_some(()));
    // The last to join took its partitions from others, which claim again what they keep.
    let before: Vec<f64> = workers.iter().map(|worker| worker.metric(STORED)).collect();
    wait("all workers go on", LIMIT, || {
        workers.iter().zip(&before).all(|(worker, before)| worker.metric(STORED) > before + 40.0).then_some(())
    });
    workers
}

/// Asked to stop, they would first finish what they hold, at their model's speed.
fn kill(workers: Vec<Process>) {
    for worker in workers {
        worker.kill();
    }
}

/// Documents a second of so many workers.
fn speed(workers: usize) -> f64 {
    let stream = backlog(workers, 60);
    let workers = start(&stream, workers);
    let (began, before) = (Instant::now(), stored(&workers));
    std::thread::sleep(WINDOW);
    let speed = (stored(&workers) - before) / began.elapsed().as_secs_f64();
    kill(workers);
    speed
}

/// Seconds until a worker that joins four has brought the group to its new speed, and keeps it for a slice of time.
fn joining() -> f64 {
    let stream = backlog(5, 90);
    let mut workers = start(&stream, 4);
    let (began, before) = (Instant::now(), stored(&workers));
    std::thread::sleep(2 * SLICE);
    let full = (stored(&workers) - before) / began.elapsed().as_secs_f64() / 4.0 * 5.0 * FULL;
    let began = Instant::now();
    workers.push(stream.start(&options()));
    let mut looks: VecDeque<(Instant, f64)> = VecDeque::new();
    let seconds = wait("the group has its new speed", LIMIT, || {
        std::thread::sleep(LOOK_INTERVAL);
        looks.push_back((Instant::now(), stored(&workers)));
        while looks.len() > 1 && looks[1].0.elapsed() >= SLICE {
            looks.pop_front();
        }
        let (from, before) = looks[0];
        let speed = (looks[looks.len() - 1].1 - before) / from.elapsed().as_secs_f64();
        (from.elapsed() >= SLICE && speed >= full).then(|| (from - began).as_secs_f64())
    });
    kill(workers);
    seconds
}
