//! How long a record takes to its committed row and to its live record, by how busy the pipeline is.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use albertine::{
    domain::live::{LivePosition, POSITION_HEADER},
    engine::{
        runtime::OnnxRuntime,
        session::{Batch, ModelSession},
    },
    model::folder::Model,
};
use rdkafka::{Message, message::Headers, producer::Producer};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use crate::{
    Arguments,
    backlog::records_a_second,
    corpus,
    measure::{now_ms, percentile, wait},
    plot,
    subscribe::subscribe,
    support::{
        broker, environment,
        pipeline::{Options, Process, Stream},
        repository,
    },
};

const PARTITIONS: i32 = 4;
const LOADS: [f64; 3] = [0.2, 0.5, 0.8];
/// Of each load; the first tenth is left out.
const SECONDS: f64 = 20.0;
const WARM_SHARE: f64 = 0.1;
/// How often the checkpoints are looked at, which is part of a row's figure.
const LOOK_INTERVAL: Duration = Duration::from_millis(4);
const LIMIT: Duration = Duration::from_mins(10);
const SHARES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

/// Milliseconds since 1970 at which each record, by its number, was first seen somewhere.
type Seen = Arc<Mutex<Vec<Option<f64>>>>;

pub fn measure(arguments: &Arguments) {
    let texts = corpus::texts(arguments.corpus.as_deref(), 2_000);
    let alone = own_time(arguments, &texts);
    let short = |number: usize| corpus::short_record(number);
    let real = |number: usize| corpus::record(number, &format!("{} {number}", texts[number % texts.len()]));
    let interval = |value: &String| format!("transaction_interval = \"{value}\"");
    let live_lines = arguments.transaction_interval.as_ref().map(interval).unwrap_or_default();
    let instant = Options { live: true, instant_model: true, live_lines, ..Options::default() };
    let model =
        Options { model: Some(arguments.model.clone()), instant_model: false, sessions: Some(2), ..instant.clone() };
    println!(
        "Milliseconds from sending to the committed row and to the live record, {PARTITIONS} partitions, {SECONDS} s each"
    );
    println!("\n| Model | Load | Records/s | Row p50 | p99 | p99.9 | Live p50 | p99 | p99.9 |");
    println!("|---|---|---|---|---|---|---|---|---|");
    let mut lines = Vec::new();
    for (name, options, record, backlog) in [
        ("instant", &instant, &short as &dyn Fn(usize) -> String, 40_000),
        (arguments.model.as_str(), &model, &real, 1_000),
    ] {
        // What a backlog gives, and then what is left of it beside a sender and a subscriber.
        let offered = records_a_second(options, PARTITIONS, backlog, record);
        let most = at_rate(options, record, offered).records_a_second;
        println!("| {name} | a backlog | {offered:.0} | | | | | | |");
        println!("| {name} | the most | {most:.0} | | | | | | |");
        let mut points = Vec::new();
        for load in LOADS {
            let rate = most * load;
            let run = at_rate(options, record, rate);
            print_line(name, &format!("{:.0}%", load * 100.0), rate, &run);
            points.push((load * 100.0, percentile(&run.rows, 0.5)));
            if name != "instant" {
                // The same rate with the instant model: what the contract takes, whatever the network.
                let floor = at_rate(&instant, &short, rate);
                print_line("instant", &format!("at {rate:.0}/s"), rate, &floor);
            }
        }
        lines.push((format!("{name}, row, p50"), points));
    }
    println!("\nA document's own inference with {}, alone on a core, in ms: {}", arguments.model, shares(&alone));
    if let Some(folder) = &arguments.plots {
        plot::lines(&folder.join("latency.svg"), ("percent of the most", "ms"), &lines);
    }
}

fn shares(sorted: &[f64]) -> String {
    SHARES.map(|(name, share)| format!("{name} {:.1}", percentile(sorted, share))).join(", ")
}

fn print_line(name: &str, load: &str, rate: f64, run: &Run) {
    let sorted = [&run.rows, &run.live].into_iter();
    let figures = sorted.flat_map(|sorted| SHARES.map(|(_, share)| format!("{:.1}", percentile(sorted, share))));
    println!("| {name} | {load} | {rate:.0} | {} |", figures.collect::<Vec<_>>().join(" | "));
}

/// Milliseconds of each text alone on a thread, with early exit, sorted.
fn own_time(arguments: &Arguments, texts: &[String]) -> Vec<f64> {
    let model = Model::open(&repository(&arguments.model)).unwrap();
    let runtime = OnnxRuntime::load(std::path::Path::new(&environment("ORT_DYLIB_PATH"))).unwrap();
    let mut session = ModelSession::open(&runtime, &model).unwrap();
    let mut times: Vec<f64> = texts
        .iter()
        .map(|text| {
            let windows = model.tokenizer.windows(text.as_str()).unwrap();
            let began = Instant::now();
            for window in &windows {
                let mut batch = Batch::new();
                session.enter(&mut batch, vec![window.tokens()]).map_err(|(_, error)| error).unwrap();
                while !batch.is_empty() {
                    session.step(&mut batch).unwrap();
                }
            }
            began.elapsed().as_secs_f64() * 1000.0
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times
}

/// What was seen of records that were sent at a rate.
struct Run {
    /// Sorted latencies to the row, in milliseconds.
    rows: Vec<f64>,
    /// To the live record.
    live: Vec<f64>,
    /// From the first that was sent to the last live record.
    records_a_second: f64,
}

fn at_rate(options: &Options, record: &dyn Fn(usize) -> String, rate: f64) -> Run {
    let stream = Stream::new(PARTITIONS);
    broker::create_topic(&stream.labels, PARTITIONS);
    let process = stream.start_claimed(options);
    let records = (rate * SECONDS) as usize;
    let stop = Arc::new(AtomicBool::new(false));
    let seen: [Seen; 2] = std::array::from_fn(|_| Arc::new(Mutex::new(vec![None; records])));
    let watchers = [watch_rows(&stream, &seen[0], &stop), watch_live(&stream.labels, &seen[1], &stop)];
    let sent = send(&stream.topic, record, rate, records, &process);
    wait("every record is seen", LIMIT, || {
        seen.iter().all(|seen| seen.lock().unwrap().iter().all(Option::is_some)).then_some(())
    });
    stop.store(true, Ordering::Relaxed);
    for watcher in watchers {
        watcher.join().unwrap();
    }
    process.stop();
    let last = seen[1].lock().unwrap().iter().flatten().copied().fold(sent[0], f64::max);
    let [rows, live] = seen.map(|seen| {
        let seen = seen.lock().unwrap();
        let warm = (records as f64 * WARM_SHARE) as usize;
        let mut latencies: Vec<f64> = (warm..records).map(|number| seen[number].unwrap() - sent[number]).collect();
        latencies.sort_by(f64::total_cmp);
        latencies
    });
    Run { rows, live, records_a_second: records as f64 / (last - sent[0]) * 1000.0 }
}

/// Sends at the rate, each record at once; the times of sending.
fn send(topic: &str, record: &dyn Fn(usize) -> String, rate: f64, records: usize, process: &Process) -> Vec<f64> {
    let values: Vec<String> = (0..records).map(record).collect();
    let producer = corpus::usual_producer();
    let began = Instant::now();
    let mut sent = Vec::with_capacity(records);
    for (number, value) in values.iter().enumerate() {
        let due = began + Duration::from_secs_f64(number as f64 / rate);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        sent.push(now_ms());
        corpus::send(&producer, topic, PARTITIONS, number, value);
    }
    producer.flush(Duration::from_secs(30)).unwrap();
    let late = began.elapsed().as_secs_f64() - records as f64 / rate;
    if late > 1.0 {
        eprintln!("the sender was {late:.1} s late; the program's log ends with {:?}", process.log().lines().last());
    }
    sent
}

/// Looks at the checkpoints all the time: a record's row is there once its partition stands behind it, since one
/// transaction writes both.
fn watch_rows(stream: &Stream, seen: &Seen, stop: &Arc<AtomicBool>) -> JoinHandle<()> {
    let (seen, stop) = (Arc::clone(seen), Arc::clone(stop));
    let (url, schema, topic) = (stream.database.url.clone(), stream.database.schema.clone(), stream.topic.to_string());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut connection = PgConnection::connect(&url).await.unwrap();
            let query = format!("SELECT partition, position FROM \"{schema}\".checkpoints WHERE topic = $1");
            let mut noted = vec![0_i64; PARTITIONS as usize];
            while !stop.load(Ordering::Relaxed) {
                let query = sqlx::query(AssertSqlSafe(query.as_str())).bind(&topic);
                let rows = query.fetch_all(&mut connection).await.unwrap();
                let now = now_ms();
                for row in rows {
                    let (partition, position): (i32, i64) = (row.get(0), row.get(1));
                    let from = std::mem::replace(&mut noted[partition as usize], position);
                    note(&seen, now, (from..position).map(|offset| number(partition, offset)));
                }
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        });
    })
}

/// A `read_committed` subscriber of the live topic.
fn watch_live(topic: &str, seen: &Seen, stop: &Arc<AtomicBool>) -> JoinHandle<()> {
    let consumer = subscribe(topic, PARTITIONS);
    let (seen, stop) = (Arc::clone(seen), Arc::clone(stop));
    std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            let Some(Ok(message)) = consumer.poll(Duration::from_millis(10)) else { continue };
            let now = now_ms();
            let headers = message.headers().unwrap();
            let position = headers.iter().find(|header| header.key == POSITION_HEADER).unwrap();
            let position: LivePosition = std::str::from_utf8(position.value.unwrap()).unwrap().parse().unwrap();
            note(&seen, now, std::iter::once(number(position.key.partition, position.offset)));
        }
    })
}

/// The number of the record at a place of the source topic.
fn number(partition: i32, offset: i64) -> usize {
    offset as usize * PARTITIONS as usize + partition as usize
}

fn note(seen: &Seen, now: f64, numbers: impl Iterator<Item = usize>) {
    let mut seen = seen.lock().unwrap();
    for number in numbers {
        seen[number].get_or_insert(now);
    }
}
