//! How long `albertine run` takes from its start to the first label of a record that waits.

use std::time::{Duration, Instant};

use crate::{
    Arguments, corpus,
    measure::{Spread, wait},
    support::pipeline::{Options, Stream},
};

const ROUNDS: usize = 10;
const LIMIT: Duration = Duration::from_mins(1);
/// Lines of the log that say how far the start has come.
const STEPS: [(&str, &str); 3] = [
    ("the models are open", "models are ready"),
    ("partitions are assigned", "assigned"),
    ("the first claim", "claimed"),
];

pub fn measure(arguments: &Arguments) {
    let rounds: Vec<(Vec<Option<f64>>, f64)> = (0..ROUNDS).map(|_| round(arguments)).collect();
    println!(
        "Seconds from the start of `albertine run`, {}, {ROUNDS} rounds, the files in the page cache",
        arguments.model
    );
    println!("\n| Until | Seconds |");
    println!("|---|---|");
    for (index, (name, _)) in STEPS.iter().enumerate() {
        let times: Option<Vec<f64>> = rounds.iter().map(|round| round.0[index]).collect();
        if let Some(times) = times {
            println!("| {name} | {:.2} |", Spread::of(times));
        }
    }
    println!("| the first label is committed | {:.2} |", Spread::of(rounds.iter().map(|round| round.1)));
}

/// Of one start: when each step was logged, and when the row was there.
fn round(arguments: &Arguments) -> (Vec<Option<f64>>, f64) {
    let stream = Stream::new(1);
    corpus::produce(&stream.topic, 1, [(0, corpus::short_record(0))]);
    let options = Options { model: Some(arguments.model.clone()), sessions: Some(2), ..Options::default() };
    let began = Instant::now();
    let process = stream.start(&options);
    let mut steps = vec![None; STEPS.len()];
    let seconds = wait("the first label", LIMIT, || {
        let log = process.log();
        for ((_, line), step) in STEPS.iter().zip(&mut steps) {
            if step.is_none() && log.contains(line) {
                *step = Some(began.elapsed().as_secs_f64());
            }
        }
        (stream.database.current_labels() == 1).then(|| began.elapsed().as_secs_f64())
    });
    process.stop();
    (steps, seconds)
}
