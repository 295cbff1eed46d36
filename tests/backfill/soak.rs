//! A large file with three kills in between: counts, memory and speed, printed for whoever runs it.
//!
//! `ALBERTINE_SOAK_FILE=reviews.parquet ALBERTINE_SOAK_FIELDS='id=/review_id text=/body' cargo test --release
//! --test integration -- --ignored --nocapture backfill::soak`

use std::time::{Duration, Instant};

use super::Setup;
use crate::support::pipeline::{Options, Process};

/// How often the memory is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
const KILLS: i64 = 3;

#[test]
#[ignore = "takes long: needs a large file in ALBERTINE_SOAK_FILE"]
fn soak() {
    let file = std::env::var("ALBERTINE_SOAK_FILE").expect("ALBERTINE_SOAK_FILE names the file");
    let fields = std::env::var("ALBERTINE_SOAK_FIELDS").unwrap_or_default();
    let mut setup = Setup::new();
    setup.options = Options { extra: "[backfill]\nlease = \"5s\"".into(), stream: String::new(), ..Options::default() };
    setup.options.instant_model = std::env::var("ALBERTINE_SOAK_INSTANT").is_ok();
    let mut arguments = vec!["start", "reviews", "--detach", "--name", "soak"];
    arguments.extend(fields.split_whitespace().flat_map(|field| ["--field", field]));
    arguments.push(&file);
    setup.run(&arguments).expect(0);
    let total = setup.run(&["status", "soak", "--json"]).expect(0).json()["records"].as_i64();

    let began = Instant::now();
    let position = || {
        setup
            .database()
            .number("SELECT coalesce(sum(position), 0)::bigint FROM {s}.checkpoints WHERE topic = 'backfill/soak'")
    };
    println!("seconds  stored  a second  memory (MiB)  peak (MiB)");
    let mut worker = setup.work("soak", "");
    let (mut kills, mut before) = (0, (Instant::now(), 0));
    loop {
        let ended = waited(&mut worker);
        let stored = position();
        let [now, peak] = ["VmRSS", "VmHWM"].map(|field| memory_mib(&worker, field));
        let rate = (stored - before.1) as f64 / before.0.elapsed().as_secs_f64();
        before = (Instant::now(), stored);
        println!("{:7.0}  {stored:6}  {rate:8.1}  {now:12.0}  {peak:10.0}", began.elapsed().as_secs_f64());
        if ended {
            break;
        }
        if kills < KILLS && total.is_some_and(|total| stored > total * (kills + 1) / (KILLS + 1)) {
            kills += 1;
            println!("kill -9");
            worker.kill();
            worker = setup.work("soak", "");
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    assert!(worker.wait().success(), "{}", worker.log());
    let count = |query: &str| setup.database().number(query);
    let (stored, rejected) = (position(), count("SELECT count(*) FROM {s}.rejections"));
    let rejected_places = count("SELECT count(DISTINCT (partition, \"offset\")) FROM {s}.rejections");
    let documents = count("SELECT count(*) FROM {s}.documents");
    let versions = count("SELECT count(DISTINCT version) FROM {s}.documents");
    let labels = count("SELECT count(*) FROM {s}.current_labels");
    println!("records {} in the file, {stored} stored", total.map_or_else(|| "?".into(), |total| total.to_string()));
    println!("rows {documents} documents, {versions} versions, {labels} labels, {rejected} rejections");
    println!("lost {}", total.map_or(0, |total| total - stored));
    println!("twice {}", rejected - rejected_places + documents - versions);
    println!("same document in several records {}", stored - rejected - documents);
    println!("documents a second {:.1}, with {KILLS} kills and the waits after them", stored as f64 / seconds);
    assert_eq!(total.unwrap_or(stored), stored);
    assert_eq!((documents, rejected), (labels, rejected_places));
    assert_eq!(setup.database().differences_from_a_recount(), [] as [String; 0]);
}

/// Waits for the next look; whether the worker has ended.
fn waited(worker: &mut Process) -> bool {
    let began = Instant::now();
    while began.elapsed() < LOOK_INTERVAL {
        if worker.has_ended() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    false
}

/// A field of what the operating system says of a process; 0 once it is gone.
fn memory_mib(worker: &Process, field: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", worker.id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}
