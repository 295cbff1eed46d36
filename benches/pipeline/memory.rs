//! Resident size and speed over many records: neither may depend on how many there were, nor on how many wait.

use std::time::{Duration, Instant};

use crate::{
    Arguments, corpus,
    measure::{resident_mib, resident_peak_mib, wait_for_count},
    plot,
    support::pipeline::{Options, Stream},
};

const PARTITIONS: i32 = 4;
/// Lines of the table.
const LOOKS: usize = 20;
const LIMIT: Duration = Duration::from_hours(2);
const STORED: &str = "albertine_documents_stored_total";

/// A backlog that is there before the program starts, through a model that answers at once.
pub fn measure(arguments: &Arguments) {
    let stream = Stream::new(PARTITIONS);
    let total = arguments.records;
    corpus::produce(&stream.topic, PARTITIONS, (0..total).map(|number| (number, corpus::short_record(number))));
    let process = stream.start(&Options { instant_model: true, sessions: Some(2), ..Options::default() });
    println!("A backlog of {total} short records, stored by one worker with two sessions of the instant model");
    println!("\n| Rows stored | Records/s since the line before | Resident, MiB | At most, MiB |");
    println!("|---|---|---|---|");
    wait_for_count(&process, STORED, 1, LIMIT);
    let (mut began, mut before) = (Instant::now(), process.metric(STORED));
    let (mut speeds, mut sizes) = (Vec::new(), Vec::new());
    for look in 1..=LOOKS {
        wait_for_count(&process, STORED, total / LOOKS * look, LIMIT);
        let stored = process.metric(STORED);
        let speed = (stored - before) / began.elapsed().as_secs_f64();
        (began, before) = (Instant::now(), stored);
        let resident = resident_mib(&process);
        println!("| {stored:.0} | {speed:.0} | {resident:.0} | {:.0} |", resident_peak_mib(&process));
        speeds.push((stored / 1e6, speed));
        sizes.push((stored / 1e6, resident));
    }
    process.stop();
    println!("\nspeed at the end over the beginning {:.2}", speeds[LOOKS - 1].1 / speeds[0].1);
    println!("resident size at the end over the first line {:.3}", sizes[LOOKS - 1].1 / sizes[0].1);
    if let Some(folder) = &arguments.plots {
        plot::lines(&folder.join("rows.svg"), ("million rows stored", "records/s"), &[("records/s".into(), speeds)]);
        plot::lines(&folder.join("memory.svg"), ("million rows stored", "MiB"), &[("resident".into(), sizes)]);
    }
}

/// A real model on texts of all lengths, which go round and round.
pub fn measure_model(arguments: &Arguments) {
    let texts = corpus::texts(arguments.corpus.as_deref(), 1_000);
    let total = arguments.records;
    let stream = Stream::new(PARTITIONS);
    let record = |number: usize| corpus::record(number, &format!("{} {number}", texts[number % texts.len()]));
    corpus::produce(&stream.topic, PARTITIONS, (0..total).map(|number| (number, record(number))));
    let options = Options { model: Some(arguments.model.clone()), sessions: Some(2), live: true, ..Options::default() };
    let process = stream.start(&options);
    println!("{total} documents, stored and published by one worker with two sessions of {}", arguments.model);
    println!("\n| Documents stored | Documents/s since the line before | Resident, MiB | At most, MiB |");
    println!("|---|---|---|---|");
    wait_for_count(&process, STORED, 1, LIMIT);
    let (mut began, mut before) = (Instant::now(), process.metric(STORED));
    for look in 1..=LOOKS {
        wait_for_count(&process, STORED, total / LOOKS * look, LIMIT);
        let stored = process.metric(STORED);
        let speed = (stored - before) / began.elapsed().as_secs_f64();
        (began, before) = (Instant::now(), stored);
        println!("| {stored:.0} | {speed:.1} | {:.0} | {:.0} |", resident_mib(&process), resident_peak_mib(&process));
    }
    process.stop();
}
