//! Measures the program on a real broker and a real database: `cargo bench --bench pipeline -- ceiling latency`, with
//! `.local/env` sourced; `make bench` runs what takes minutes. Prints Markdown for `benches/README.md`.
//!
//! Nothing here asserts a time, since machines differ: what is compared is measured in one run, in turns, and given as
//! ratios. Nothing else may run meanwhile.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a measurement that fails ends")]
#![allow(clippy::similar_names, reason = "figures are named after what they count")]

mod backlog;
mod ceiling;
mod copy;
mod corpus;
mod efficiency;
mod growth;
mod latency;
mod latency_at_load;
mod measure;
mod memory;
mod plot;
mod scale_out;
mod start;
mod subscribe;
mod write;

#[allow(dead_code, unreachable_pub, reason = "shared with the tests, which need more of it")]
#[path = "../../tests/support/mod.rs"]
mod support;

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Measurements of the pipeline; without a name, those that take a few minutes each
#[derive(Debug, Parser)]
struct Arguments {
    /// What is measured
    #[arg(value_enum)]
    measurements: Vec<Measurement>,
    /// Texts to label, as JSON lines with a field `text`; otherwise sentences that are made up
    #[arg(long, env = "ALBERTINE_BENCH_CORPUS")]
    corpus: Option<PathBuf>,
    /// A model folder in place of albert-sentiment, where a real model is measured
    #[arg(long, default_value = "models/albert-sentiment")]
    model: String,
    /// Records of `memory`; a million takes some minutes
    #[arg(long, default_value_t = 1_000_000)]
    records: usize,
    /// How often what is compared takes turns
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Live topics' `transaction_interval` in `latency-at-load`; otherwise the default
    #[arg(long)]
    transaction_interval: Option<String>,
    /// A folder for charts
    #[arg(long)]
    plots: Option<PathBuf>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Measurement {
    /// Documents a second beside the bare ONNX Runtime
    Efficiency,
    /// Records a second with a model that answers at once, by stage, beside a bare consumer and a bare COPY
    Ceiling,
    /// UNNEST and COPY beside each other
    Write,
    /// From sending to row and live record, at 200 records a second and beside a backfill; what publishing costs
    Latency,
    /// The same at 20, 50 and 80 percent of the most that was measured
    LatencyAtLoad,
    /// Resident size and speed over many records (long)
    Memory,
    /// The resident size with a real model
    MemoryOfModel,
    /// By length of the documents, and by partitions
    Growth,
    /// 1 to 16 workers whose model waits instead of computing
    ScaleOut,
    /// From the start of `run` to the first label
    Start,
}

/// Those that a run without names takes.
const USUAL: [Measurement; 8] = [
    Measurement::Start,
    Measurement::Efficiency,
    Measurement::Ceiling,
    Measurement::Write,
    Measurement::Latency,
    Measurement::LatencyAtLoad,
    Measurement::Growth,
    Measurement::ScaleOut,
];

fn main() {
    let arguments = Arguments::parse();
    let named = !arguments.measurements.is_empty();
    let measurements = if named { &arguments.measurements[..] } else { &USUAL[..] };
    if let Some(folder) = &arguments.plots {
        std::fs::create_dir_all(folder).unwrap();
    }
    println!("Core: {}", measure::core());
    for measurement in measurements {
        println!();
        match measurement {
            Measurement::Efficiency => efficiency::measure(&arguments),
            Measurement::Ceiling => ceiling::measure(&arguments),
            Measurement::Write => write::measure(&arguments),
            Measurement::Latency => latency::measure(),
            Measurement::LatencyAtLoad => latency_at_load::measure(&arguments),
            Measurement::Memory => memory::measure(&arguments),
            Measurement::MemoryOfModel => memory::measure_model(&arguments),
            Measurement::Growth => growth::measure(&arguments),
            Measurement::ScaleOut => scale_out::measure(&arguments),
            Measurement::Start => start::measure(&arguments),
        }
    }
}
