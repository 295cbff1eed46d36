//! Several processes under a seeded plan of faults, and a comparison record by record of what was sent, what was
//! stored and what a subscriber saw.
//!
//! It restarts the broker and the database, so it runs alone: `make chaos` for many runs, a slice of it at the
//! end of `make test`. A run follows from its seed, which is printed; `ALBERTINE_CHAOS_SEED` begins with one.

mod comparison;
mod fault;
mod ledger;
mod run;
mod server;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use self::{fault::Fault, run::Report};

/// What is known of the runs so far.
#[derive(Default)]
struct Table {
    faults: BTreeMap<String, Row>,
    runs: usize,
    updates: usize,
    live_records: usize,
}

/// A fault; what a run lost or saw twice counts for each of its faults.
#[derive(Default)]
struct Row {
    recoveries: Vec<Duration>,
    lost: usize,
    twice: usize,
    other: usize,
}

impl Table {
    fn add(&mut self, report: &Report) {
        self.runs += 1;
        self.updates += report.sent;
        self.live_records += report.live_records;
        for (fault, recovery) in &report.faults {
            let row = self.faults.entry(fault.to_string()).or_default();
            row.recoveries.push(*recovery);
            row.lost += report.count("LOST");
            row.twice += report.count("TWICE");
            row.other += report.wrong.len() - report.count("LOST") - report.count("TWICE");
        }
    }

    fn print(&mut self) {
        println!("\n{} runs, {} records sent, {} live records compared", self.runs, self.updates, self.live_records);
        println!("| Fault | Times | Lost | Twice | Otherwise wrong | Recovery p50 | Recovery max |");
        println!("|---|---|---|---|---|---|---|");
        for (fault, row) in &mut self.faults {
            row.recoveries.sort_unstable();
            let seconds = |index: usize| row.recoveries[index].as_secs_f64();
            let last = row.recoveries.len() - 1;
            let (p50, max) = (seconds(last / 2), seconds(last));
            println!(
                "| {fault} | {} | {} | {} | {} | {p50:.2} s | {max:.2} s |",
                last + 1,
                row.lost,
                row.twice,
                row.other
            );
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("`{name}` is not a number")))
}

#[test]
#[ignore = "restarts the servers: runs alone, by `make test` and `make chaos`"]
fn nothing_is_lost_or_seen_twice_whatever_dies() {
    let runs = number("ALBERTINE_CHAOS_RUNS").unwrap_or(u64::MAX);
    let limit = Duration::from_secs(number("ALBERTINE_CHAOS_SECONDS").unwrap_or(u64::MAX));
    let first = number("ALBERTINE_CHAOS_SEED").unwrap_or_else(|| u64::from(std::process::id()) << 16);
    let started = Instant::now();
    let mut table = Table::default();
    let mut failed = Vec::new();
    for seed in first..first.saturating_add(runs) {
        if table.runs > 0 && started.elapsed() >= limit {
            break;
        }
        let faults = Fault::of_seed(seed);
        let names: Vec<String> = faults.iter().map(ToString::to_string).collect();
        println!("seed {seed}: {}", names.join(", "));
        let report = run::run(faults, fastrand::Rng::with_seed(seed));
        if !report.wrong.is_empty() {
            println!("seed {seed} FAILED, {} differences:\n{}", report.wrong.len(), report.wrong.join("\n"));
            failed.push(seed);
        }
        table.add(&report);
    }
    table.print();
    assert!(failed.is_empty(), "records were lost, seen twice or out of order with the seeds {failed:?}");
}
