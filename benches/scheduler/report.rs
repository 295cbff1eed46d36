//! The cases that are simulated, and the tables of what came out.

use albertine::engine::{Priority, provider::CPU_GROUP, scheduler::GROUPS_AHEAD_MAX};

use crate::{
    lengths::{self, Document, Set},
    policies,
    simulation::{CALL_NANOSECONDS, Outcome, Stream, TOKEN_PASS_NANOSECONDS, simulate},
};

/// Documents of a case: each set several times over.
const DOCUMENTS: usize = 20_000;

/// Of the moments of arrival and the flows that documents belong to.
const SEED: u64 = 1;

/// How documents come.
#[derive(Debug, Clone, Copy)]
enum Load {
    /// One by one, at random moments, at this share of what the workers could compute without padding and calls.
    Steady(f64),
    /// The same, while a backfill takes what is left.
    BesideBackfill(f64),
    /// The same, while one more flow has a backlog; it is not measured.
    BesideBacklog(f64),
    /// All of them wait from the beginning.
    Backlog,
}

const LOADS: [Load; 5] =
    [Load::Steady(0.5), Load::Steady(0.9), Load::BesideBackfill(0.5), Load::BesideBacklog(0.8), Load::Backlog];

/// Prints all tables.
pub fn print() {
    let sets = lengths::sets();
    println!("A core takes {TOKEN_PASS_NANOSECONDS} ns for a token in a pass, and {CALL_NANOSECONDS} ns for a call.\n");
    println!("Beside simple policies, with 2 workers and 16 flows; times in milliseconds.\n");
    print_head("Set | Documents | Policy");
    for set in &sets {
        for load in LOADS {
            for (name, mut policy) in policies::all() {
                let outcome = simulate(&mut *policy, 2, &streams(set, load, 2, 16));
                print_row(&format!("{} | {} | {name}", set.name, load.name()), load, &outcome);
            }
        }
    }
    println!("\nThe scheduler by workers and flows, on reviews.\n");
    print_head("Documents | Workers | Flows");
    for load in LOADS {
        for workers in [1, 2, 8] {
            for flows in [1, 16] {
                // One of two flows is served half: at 80% it would wait longer and longer.
                if flows == 1 && matches!(load, Load::BesideBacklog(_)) {
                    continue;
                }
                let streams = streams(&sets[1], load, workers, flows);
                let outcome = simulate(&mut *policies::scheduler(), workers, &streams);
                print_row(&format!("{} | {workers} | {flows}", load.name()), load, &outcome);
            }
        }
    }
    print_fairness(&sets);
}

fn print_head(first: &str) {
    println!(
        "| {first} | Documents/s | Padding | Windows a call | Busy | Latency p50 | p99 | Wait p50 | longest |\n|{}",
        "---|".repeat(first.split('|').count() + 8)
    );
}

fn print_row(first: &str, load: Load, outcome: &Outcome) {
    let latency = |share| match load {
        Load::Backlog => "–".to_owned(),
        _ => milliseconds(quantile(&outcome.latencies, share)),
    };
    println!(
        "| {first} | {:.1} | {:.1}% | {:.1} | {:.1}% | {} | {} | {} | {} |",
        outcome.answered as f64 * 1e9 / outcome.duration as f64,
        100.0 * (outcome.computed - outcome.tokens) as f64 / outcome.computed as f64,
        outcome.windows as f64 / outcome.calls as f64,
        100.0 * outcome.busy as f64 / (outcome.duration * outcome.workers) as f64,
        latency(0.5),
        latency(0.99),
        milliseconds(quantile(&outcome.waits, 0.5)),
        milliseconds(quantile(&outcome.waits, 1.0)),
    );
}

/// Backlogs of 16 flows: of one set, and of flows with texts of different sets.
fn print_fairness(sets: &[Set]) {
    let mut cases: Vec<(&str, Vec<Stream>)> =
        sets.iter().map(|set| (set.name, streams(set, Load::Backlog, 1, 16))).collect();
    let mixed = (0..16).map(|flow| Stream {
        priority: Priority::Live,
        flow: flow as u64,
        is_measured: true,
        documents: documents(&sets[flow % sets.len()])
            .skip(flow * 100)
            .take(2_000)
            .map(|document| (0, document))
            .collect(),
    });
    cases.push(("of each flow another", mixed.collect()));
    let longest = sets.iter().flat_map(|set| set.documents.iter().flatten()).map(|window| window.length).max();
    let bound = GROUPS_AHEAD_MAX * CPU_GROUP.tokens_max as u64 + longest.unwrap_or_default() as u64;
    println!(
        "\n16 flows that all have windows waiting; the scheduler's rules promise a difference of at most {bound} tokens.\n"
    );
    println!("| Set | Workers | Policy | Served least, tokens | Largest difference, tokens |\n|---|---|---|---|---|");
    for (name, streams) in &cases {
        for workers in [1, 8] {
            for (policy_name, mut policy) in policies::all() {
                let Outcome { served_least, unfairness, .. } = simulate(&mut *policy, workers, streams);
                println!("| {name} | {workers} | {policy_name} | {served_least} | {unfairness} |");
            }
        }
    }
}

fn streams(set: &Set, load: Load, workers: usize, flows: usize) -> Vec<Stream> {
    let mut random = fastrand::Rng::with_seed(SEED);
    let live = |flow| Stream { priority: Priority::Live, flow: flow as u64, is_measured: true, documents: Vec::new() };
    let mut streams: Vec<Stream> = (0..flows).map(live).collect();
    let mut now = 0.0;
    for (index, document) in documents(set).enumerate() {
        let (arrives, flow) = match load {
            Load::Backlog => (0, index % flows),
            Load::Steady(share) | Load::BesideBackfill(share) | Load::BesideBacklog(share) => {
                let gap = set.token_passes() * TOKEN_PASS_NANOSECONDS as f64 / (workers as f64 * share);
                now += -(1.0 - random.f64()).ln() * gap;
                (now as u64, random.usize(..flows))
            }
        };
        streams[flow].documents.push((arrives, document));
    }
    let beside = match load {
        Load::BesideBackfill(_) => Priority::Backfill,
        Load::BesideBacklog(_) => Priority::Live,
        Load::Steady(_) | Load::Backlog => return streams,
    };
    let endless = documents(set).chain(documents(set)).chain(documents(set)).map(|document| (0, document));
    let (flow, documents) = (flows as u64, endless.collect());
    streams.push(Stream { priority: beside, flow, is_measured: false, documents });
    streams
}

fn documents(set: &Set) -> impl Iterator<Item = Document> {
    set.documents.iter().cycle().take(DOCUMENTS).cloned()
}

impl Load {
    fn name(self) -> String {
        match self {
            Self::Steady(share) => format!("{:.0}% of capacity", 100.0 * share),
            Self::BesideBackfill(share) => format!("{:.0}%, beside a backfill", 100.0 * share),
            Self::BesideBacklog(share) => format!("{:.0}%, beside a flow with a backlog", 100.0 * share),
            Self::Backlog => "backlog".to_owned(),
        }
    }
}

/// Of values that are sorted; zero where there are none.
fn quantile(sorted: &[u64], share: f64) -> u64 {
    let index = (share * sorted.len() as f64) as usize;
    sorted.get(index.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

fn milliseconds(nanoseconds: u64) -> String {
    format!("{:.1}", nanoseconds as f64 / 1e6)
}
