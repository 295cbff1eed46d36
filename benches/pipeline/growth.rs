//! Speed by the length of the documents, and by the number of partitions.

use std::time::{Duration, Instant};

use crate::{
    Arguments,
    backlog::records_a_second,
    corpus,
    measure::{Spread, wait_for_count},
    support::pipeline::{Options, Stream},
};

/// Words of a document.
const LENGTHS: [usize; 6] = [10, 50, 200, 1_000, 2_500, 5_000];
/// Words of all documents of a round together.
const WORDS: usize = 20_000;
const PARTITIONS: [i32; 5] = [1, 4, 16, 32, 64];
/// With more, all is stored by the time that every transactional producer is open, and what is published afterwards says nothing.
const PUBLISHED_PARTITIONS_MAX: i32 = 16;
/// Of one round of a number of partitions.
const RECORDS: usize = 60_000;
const LIMIT: Duration = Duration::from_mins(20);
const STORED: &str = "albertine_documents_stored_total";

pub fn measure(arguments: &Arguments) {
    by_length(arguments);
    println!();
    by_partitions(arguments);
}

fn by_length(arguments: &Arguments) {
    println!("Speed by length, two sessions of {}, every text through all passes", arguments.model);
    println!("\n| Words a document | Documents/s | Tokens/s |");
    println!("|---|---|---|");
    let mut random = fastrand::Rng::with_seed(1);
    let rounds: Vec<Vec<(f64, f64)>> = (0..arguments.rounds)
        .map(|_| LENGTHS.iter().map(|words| of_length(arguments, *words, &mut random)).collect())
        .collect();
    for (index, words) in LENGTHS.iter().enumerate() {
        let documents = Spread::of(rounds.iter().map(|round| round[index].0));
        let tokens = Spread::of(rounds.iter().map(|round| round[index].1));
        println!("| {words} | {documents:.1} | {tokens:.0} |");
    }
}

/// Documents and tokens a second.
fn of_length(arguments: &Arguments, words: usize, random: &mut fastrand::Rng) -> (f64, f64) {
    let (warm, measured) = (2, (WORDS / words).max(4));
    let stream = Stream::new(4);
    let options = Options {
        sessions: Some(2),
        model: Some(arguments.model.clone()),
        model_lines: "early_exit = false".into(),
        engine: "duplicate_cache_bytes = 0".into(),
        ..Options::default()
    };
    let records: Vec<(usize, String)> = (0..warm + measured)
        .map(|number| (number, corpus::record(number, &corpus::sentence(random, words..words + 1))))
        .collect();
    let process = stream.start_claimed(&options);
    corpus::produce(&stream.topic, 4, records[..warm].iter().cloned());
    wait_for_count(&process, STORED, warm, LIMIT);
    let tokens = "albertine_engine_tokens_total";
    let (began, before) = (Instant::now(), process.metric(tokens));
    corpus::produce(&stream.topic, 4, records[warm..].iter().cloned());
    wait_for_count(&process, STORED, warm + measured, LIMIT);
    let seconds = began.elapsed().as_secs_f64();
    let tokens = process.metric(tokens) - before;
    process.stop();
    (measured as f64 / seconds, tokens / seconds)
}

fn by_partitions(arguments: &Arguments) {
    println!("A backlog of {RECORDS} short records by partitions, the instant model, one session");
    println!("\n| Partitions | Stored, records/s | Of 4 partitions | Stored and published | Of 4 partitions |");
    println!("|---|---|---|---|---|");
    let speed = |partitions: i32, live: bool| {
        let options = Options { live, instant_model: true, ..Options::default() };
        records_a_second(&options, partitions, RECORDS, corpus::short_record)
    };
    let both = |partitions: &i32| {
        let published = (*partitions <= PUBLISHED_PARTITIONS_MAX).then(|| speed(*partitions, true));
        [Some(speed(*partitions, false)), published]
    };
    let rounds: Vec<Vec<[Option<f64>; 2]>> =
        (0..arguments.rounds).map(|_| PARTITIONS.iter().map(both).collect()).collect();
    for (index, partitions) in PARTITIONS.iter().enumerate() {
        let cells = [0, 1].map(|live| {
            let speeds: Option<Vec<f64>> = rounds.iter().map(|round| round[index][live]).collect();
            let ratios: Option<Vec<f64>> =
                rounds.iter().map(|round| Some(round[index][live]? / round[1][live]?)).collect();
            match (speeds, ratios) {
                (Some(speeds), Some(ratios)) => format!("{:.0} | {:.2}", Spread::of(speeds), Spread::of(ratios)),
                _ => " | ".into(),
            }
        });
        println!("| {partitions} | {} |", cells.join(" | "));
    }
}
