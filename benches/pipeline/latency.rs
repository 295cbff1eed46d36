//! How long a record takes to its committed row and to its live record at a low rate and beside a backfill, and what
//! publishing costs. With a model that answers at once, so that what is seen is the pipeline.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rdkafka::{
    Message,
    producer::{BaseRecord, Producer},
};
use serde_json::json;
use sqlx::Row;

use crate::{
    corpus,
    measure::{now_ms, percentile, wait, wait_for_count},
    subscribe::subscribe,
    support::{
        broker,
        database::Database,
        files::Files,
        pipeline::{Options, Stream, output},
    },
};

const PARTITIONS: i32 = 3;
const RATE: u32 = 200;
const RECORDS: usize = 4_000;
/// The first second warms up connections and code.
const WARM: usize = RATE as usize;
const LIMIT: Duration = Duration::from_mins(2);
const BACKLOG: usize = 20_000;
const ROUNDS: usize = 3;

fn options(live: bool) -> Options {
    Options { live, instant_model: true, ..Options::default() }
}

pub fn measure() {
    at_a_low_rate();
    beside_a_backfill();
    what_publishing_costs();
}

/// When each record, by its number, was first seen somewhere, in milliseconds since 1970.
type Times = Arc<Mutex<BTreeMap<usize, f64>>>;

fn note(times: &Times, seen: f64, numbers: impl Iterator<Item = f64>) {
    let mut times = times.lock().unwrap();
    for number in numbers {
        times.entry(number as usize).or_insert(seen);
    }
}

/// Looks at the table all the time for rows that other transactions can see.
fn watch_rows(database: &Database, times: &Times, stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    let (url, schema, times, stop) =
        (database.url.clone(), database.schema.clone(), Arc::clone(times), Arc::clone(stop));
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let pool = sqlx::postgres::PgPoolOptions::new().max_connections(1).connect(&url).await.unwrap();
            let query =
                format!("SELECT rating FROM \"{schema}\".documents WHERE stored_at > now() - interval '1 second'");
            while !stop.load(Ordering::Relaxed) {
                let rows = sqlx::query(sqlx::AssertSqlSafe(query.clone())).fetch_all(&pool).await.unwrap();
                let seen = now_ms();
                note(&times, seen, rows.iter().map(|row| row.get::<f64, _>(0)));
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
    })
}

/// A `read_committed` subscriber of the live topic.
fn watch_live(topic: &str, times: &Times, stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    let consumer = subscribe(topic, PARTITIONS);
    let (times, stop) = (Arc::clone(times), Arc::clone(stop));
    std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            if let Some(Ok(message)) = consumer.poll(Duration::from_millis(10)) {
                let seen = now_ms();
                let value: serde_json::Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
                note(&times, seen, value["rating"].as_f64().into_iter());
            }
        }
    })
}

/// Prints a row, and gives its median.
fn print_row(name: &str, sent: &[f64], times: &Times, warm: usize) -> f64 {
    let times = times.lock().unwrap();
    let mut latencies: Vec<f64> =
        times.iter().filter(|(number, _)| **number >= warm).map(|(number, seen)| seen - sent[*number]).collect();
    latencies.sort_by(f64::total_cmp);
    let [p50, p90, p99, max] = [0.5, 0.9, 0.99, 1.0].map(|share| percentile(&latencies, share));
    println!("| {name} | {} | {p50:.1} | {p90:.1} | {p99:.1} | {max:.1} |", latencies.len());
    p50
}

fn at_a_low_rate() {
    println!("\nLatency in ms at {RATE} records a second, {PARTITIONS} partitions");
    println!("| From sending to | Records | p50 | p90 | p99 | max |");
    println!("|---|---|---|---|---|---|");
    for live in [false, true] {
        let stream = Stream::new(PARTITIONS);
        if live {
            broker::create_topic(&stream.labels, PARTITIONS);
        }
        let process = stream.start_claimed(&options(live));
        let stop = Arc::new(AtomicBool::new(false));
        let (rows, records) = (Times::default(), Times::default());
        let mut watchers = vec![watch_rows(&stream.database, &rows, &stop)];
        if live {
            watchers.push(watch_live(&stream.labels, &records, &stop));
        }
        let sent = send(&stream.topic, RATE, RECORDS);
        wait("all rows are there", LIMIT, || (rows.lock().unwrap().len() == RECORDS).then_some(()));
        if live {
            wait("all live records are there", LIMIT, || (records.lock().unwrap().len() == RECORDS).then_some(()));
        }
        stop.store(true, Ordering::Relaxed);
        for watcher in watchers {
            watcher.join().unwrap();
        }
        process.stop();
        print_row(
            if live { "committed row, with a live topic" } else { "committed row, without a live topic" },
            &sent,
            &rows,
            WARM,
        );
        if live {
            print_row("visible live record", &sent, &records, WARM);
        }
    }
}

fn beside_a_backfill() {
    const RATE: u32 = 10;
    const RECORDS: usize = 400;
    /// More than is labelled meanwhile.
    const OLD: usize = 60_000;
    println!("\nLatency in ms from sending to the committed row at {RATE} records a second, with albert-sentiment");
    println!("| `run --backfill` | Records | p50 | p90 | p99 | max |");
    println!("|---|---|---|---|---|---|");
    let medians = [false, true].map(|beside| {
        let (stream, files, options) = (Stream::new(PARTITIONS), Files::new(), Options::default());
        if beside {
            let old = files.documents("old.jsonl", RECORDS..RECORDS + OLD);
            let mut start = stream.command(&options);
            let (code, _, errors) = output(start.args(["backfill", "start", "reviews", "--detach", &old]), "");
            assert_eq!(code, Some(0), "{errors}");
        }
        let process = stream.start_command(&options, &["run", "--backfill"]);
        process.wait_for_log("claimed");
        if beside {
            process.wait_for_log("shard taken");
        }
        let (rows, stop) = (Times::default(), Arc::new(AtomicBool::new(false)));
        let watcher = watch_rows(&stream.database, &rows, &stop);
        let began = Instant::now();
        let sent = send(&stream.topic, RATE, RECORDS);
        wait("all rows are there", LIMIT, || {
            (stream.database.number("SELECT count(*) FROM {s}.documents WHERE (version)[1] = 1") == RECORDS as i64)
                .then_some(())
        });
        let old = stream.database.number("SELECT count(*) FROM {s}.documents WHERE (version)[1] = 0");
        stop.store(true, Ordering::Relaxed);
        watcher.join().unwrap();
        let rate = old as f64 / began.elapsed().as_secs_f64();
        process.kill();
        let name = if beside { format!("beside a backfill of {rate:.0} documents a second") } else { "alone".into() };
        // Old documents have ratings up to 4, which are not to be taken for numbers.
        print_row(&name, &sent, &rows, RATE as usize)
    });
    println!("ratio of the medians {:.2}", medians[1] / medians[0]);
}

/// Sends at the rate, each record at once; the times of sending.
fn send(topic: &str, rate: u32, records: usize) -> Vec<f64> {
    let producer = corpus::usual_producer();
    let began = Instant::now();
    let mut sent = Vec::with_capacity(records);
    for number in 0..records {
        std::thread::sleep(
            (began + Duration::from_secs(1) * number as u32 / rate).saturating_duration_since(Instant::now()),
        );
        let id = format!("d{number}");
        let value = json!({"id": id, "text": format!("good {number}"), "rating": number}).to_string();
        sent.push(now_ms());
        producer.send(BaseRecord::to(topic).key(&id).payload(&value)).map_err(|(error, _)| error).unwrap();
        producer.poll(Duration::ZERO);
    }
    producer.flush(Duration::from_secs(30)).unwrap();
    sent
}

fn what_publishing_costs() {
    println!("\nA backlog of {BACKLOG} records, {PARTITIONS} partitions, documents a second");
    println!("| Round | Stored only | Stored and published | Ratio |");
    println!("|---|---|---|---|");
    let mut ratios = Vec::new();
    for round in 1..=ROUNDS {
        let [without, with] = [false, true].map(documents_a_second);
        ratios.push(with / without);
        println!("| {round} | {without:.0} | {with:.0} | {:.2} |", with / without);
    }
    ratios.sort_by(f64::total_cmp);
    println!("median ratio {:.2}", ratios[ROUNDS / 2]);
}

/// From the first stored batch until all is stored, and published where it is.
fn documents_a_second(live: bool) -> f64 {
    let stream = Stream::new(PARTITIONS);
    broker::produce_documents(&stream.topic, 0..BACKLOG);
    let process = stream.start_claimed(&options(live));
    let began = Instant::now();
    let count = if live { "albertine_records_published_total" } else { "albertine_documents_stored_total" };
    wait_for_count(&process, count, BACKLOG, LIMIT);
    let seconds = began.elapsed().as_secs_f64();
    process.stop();
    BACKLOG as f64 / seconds
}
