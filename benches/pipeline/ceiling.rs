//! How fast records go through everything but the network, what each stage costs, and what bounds it.

use std::{collections::BTreeMap, time::Instant};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};

use crate::{
    Arguments, copy, corpus,
    measure::{Spread, seconds_of_processes, thread_seconds, wait_for_count},
    support::{
        block_on, broker,
        database::Database,
        pipeline::{Options, Stream},
    },
};

const RECORDS: usize = 100_000;
/// Done before the clock starts.
const WARM: usize = 10_000;
const PARTITIONS: i32 = 4;
const LIMIT: std::time::Duration = std::time::Duration::from_mins(10);
/// Rows of one transaction: what `batch_documents_max` is by default.
const BATCH: usize = 500;

/// Whose threads do what, by the beginning of their names.
const STAGES: [(&str, &str); 7] = [
    ("rdk:", "librdkafka: fetching, decompressing, sending"),
    ("source-", "reading: offsets, order, back-pressure"),
    ("intake-", "decoding, mapping, tokenizing"),
    ("engine-", "grouping, the instant network"),
    ("tokio-", "storing: rows into the statement, and its answer"),
    ("publish", "publishing: from the outbox to the live topic"),
    ("", "the rest"),
];

/// What a run of the program gave.
struct Run {
    records_a_second: f64,
    /// Microseconds of a core a record, by stage; then those of Postgres and of the broker.
    stages: Vec<f64>,
}

/// What took turns.
struct Round {
    consumed: f64,
    copied: f64,
    stored: Run,
    published: Run,
}

pub fn measure(arguments: &Arguments) {
    let mut rounds = Vec::new();
    for _ in 0..arguments.rounds {
        let (stored, copied, consumed) = run(false);
        let (published, ..) = run(true);
        rounds.push(Round { consumed, copied, stored, published });
    }
    println!("{RECORDS} records of a few words, {PARTITIONS} partitions, one label each, {} rounds", arguments.rounds);
    println!("\n| | Records/s | of the bare consumer | of the bare COPY |");
    println!("|---|---|---|---|");
    let print = |name: &str, value: fn(&Round) -> f64| {
        let speed = Spread::of(rounds.iter().map(value));
        let of_consumer = Spread::of(rounds.iter().map(|round| value(round) / round.consumed));
        let of_copy = Spread::of(rounds.iter().map(|round| value(round) / round.copied));
        println!("| {name} | {speed:.0} | {of_consumer:.3} | {of_copy:.2} |");
    };
    print("bare rdkafka consumer", |round| round.consumed);
    print("bare COPY of the same rows", |round| round.copied);
    print("`albertine run`, stored", |round| round.stored.records_a_second);
    print("`albertine run`, stored and published", |round| round.published.records_a_second);
    println!("\n| Stage | Stored: microseconds of a core a record | Stored and published |");
    println!("|---|---|---|");
    let names = STAGES.iter().map(|stage| stage.1).chain(["Postgres", "the broker"]);
    for (index, name) in names.enumerate() {
        let stored = Spread::of(rounds.iter().map(|round| round.stored.stages[index]));
        let published = Spread::of(rounds.iter().map(|round| round.published.stages[index]));
        println!("| {name} | {stored:.1} | {published:.1} |");
    }
}

/// The program on a backlog; then, of what it only stored, the bare COPY and the bare consumer.
fn run(live: bool) -> (Run, f64, f64) {
    let stream = Stream::new(PARTITIONS);
    let options = Options { live, instant_model: true, ..Options::default() };
    let done = if live { "albertine_records_published_total" } else { "albertine_documents_stored_total" };
    corpus::produce(&stream.topic, PARTITIONS, (0..RECORDS).map(numbered));
    let process = stream.start(&options);
    wait_for_count(&process, done, WARM, LIMIT);
    let servers = || [seconds_of_processes("postgres"), seconds_of_processes("java")];
    let (threads_before, servers_before) = (thread_seconds(&process), servers());
    let (began, before) = (Instant::now(), process.metric(done));
    wait_for_count(&process, done, RECORDS, LIMIT);
    let seconds = began.elapsed().as_secs_f64();
    let (threads, servers) = (thread_seconds(&process), servers());
    process.stop();
    let records = RECORDS as f64 - before;
    let mut stages = by_stage(&threads, &threads_before);
    stages.extend(servers.iter().zip(&servers_before).map(|(after, before)| after - before));
    for seconds in &mut stages {
        *seconds *= 1e6 / records;
    }
    let run = Run { records_a_second: records / seconds, stages };
    if live {
        return (run, 0.0, 0.0);
    }
    (run, block_on(copy_rows(&stream.database)), consume(&stream.topic))
}

fn numbered(number: usize) -> (usize, String) {
    (number, corpus::short_record(number))
}

fn by_stage(after: &BTreeMap<String, f64>, before: &BTreeMap<String, f64>) -> Vec<f64> {
    let mut stages = vec![0.0; STAGES.len()];
    for (thread, seconds) in after {
        let stage = STAGES.iter().position(|(prefix, _)| thread.starts_with(prefix)).unwrap();
        stages[stage] += seconds - before.get(thread).unwrap_or(&0.0);
    }
    stages
}

/// Rows of documents with their labels a second, copied from memory into tables of the same columns, keys and indexes, a
/// transaction a batch.
async fn copy_rows(database: &Database) -> f64 {
    let mut client = copy::connect(&database.url).await;
    let schema = &database.schema;
    let mut chunks = Vec::new();
    for table in ["documents", "labels"] {
        let make = format!("CREATE TABLE \"{schema}\".copied_{table} (LIKE \"{schema}\".{table} INCLUDING ALL)");
        client.batch_execute(&make).await.unwrap();
        let lines = copy::lines(&client, &format!("SELECT * FROM \"{schema}\".{table} ORDER BY document_id")).await;
        chunks.push(lines.chunks(BATCH).map(|lines| lines.join("\n") + "\n").collect::<Vec<_>>());
    }
    let began = Instant::now();
    for (documents, labels) in chunks[0].iter().zip(&chunks[1]) {
        let transaction = client.transaction().await.unwrap();
        for (table, lines) in [("documents", documents), ("labels", labels)] {
            copy::copy(&transaction, &format!("\"{schema}\".copied_{table}"), lines).await;
        }
        transaction.commit().await.unwrap();
    }
    RECORDS as f64 / began.elapsed().as_secs_f64()
}

/// Records a second of a consumer that does nothing with them.
fn consume(topic: &str) -> f64 {
    let consumer: BaseConsumer =
        broker::config().set("group.id", "bare").set("enable.auto.commit", "false").create().unwrap();
    let mut assignment = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        assignment.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    let began = Instant::now();
    consumer.assign(&assignment).unwrap();
    let mut count = 0;
    while count < RECORDS {
        if let Some(message) = consumer.poll(std::time::Duration::from_secs(10)) {
            message.unwrap();
            count += 1;
        }
    }
    RECORDS as f64 / began.elapsed().as_secs_f64()
}
