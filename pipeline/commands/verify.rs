//! `albertine verify`: recounts and compares, a line for each check; a deviation with its place.

use std::{collections::BTreeMap, io::Write, time::Duration};

use anyhow::bail;
use owo_colors::OwoColorize;
use serde_json::{Value, json};

use super::{GlobalOptions, find_stream, output::print_json, runtime, wants_colour};
use crate::{
    config::resolved::{Config, StreamConfig},
    domain::verification::{Deviations, checkpoint_deviations, publication_deviations},
    inspection::{GroupOffsets, Inspector},
    storage::verify::{Rebuilt, Snapshot},
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  albertine verify
  albertine verify reviews --format json
  albertine verify --repair                     rebuild the sums of items where they differ

Checks:
  sums         the view item_labels against a recount of documents and labels
  labels       labels against their documents, documents against the checkpoints
  outbox       ranges without gaps, none beyond its checkpoint
  checkpoints  against the topics: ids and offsets
  publication  the groups' offsets against checkpoints and outbox

It only reads, one state of the database, and workers may run meanwhile. Without a STREAM the first three cover all
streams of the schema, also those that are not configured. Exits with 0 if all is in order, else with 1.")]
pub struct VerifyArgs {
    /// The stream, by its name in the configuration [default: all]
    stream: Option<String>,
    /// How it is written
    #[arg(long, env = "ALBERTINE_VERIFY_FORMAT", value_enum, default_value_t = VerifyFormat::Text)]
    format: VerifyFormat,
    /// Rebuild the sums of items from the recount if they differ; batches are stored meanwhile, folding waits
    #[arg(long, env = "ALBERTINE_VERIFY_REPAIR")]
    repair: bool,
    /// Longest run time of one statement: a recount reads all documents
    #[arg(long, env = "ALBERTINE_VERIFY_TIMEOUT", default_value = "10min", value_name = "TIME", value_parser = humantime_serde::re::humantime::parse_duration)]
    timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum VerifyFormat {
    /// For people
    Text,
    /// For programs
    Json,
}

/// One check and what it found.
struct Check {
    name: &'static str,
    /// What is in order if nothing was found.
    holds: &'static str,
    found: Deviations,
    /// What was done about it, after which `found` was found.
    repaired: Option<Rebuilt>,
}

impl Check {
    fn new(name: &'static str, holds: &'static str, found: Deviations) -> Self {
        Self { name, holds, found, repaired: None }
    }
}

pub fn run(global: &GlobalOptions, args: &VerifyArgs) -> anyhow::Result<()> {
    let config = global.load_config()?.with_streams()?;
    let name = args.stream.as_deref();
    let streams: Vec<&StreamConfig> = match name {
        Some(name) => vec![find_stream(&config, name)?],
        None => config.streams.values().collect(),
    };
    let inspector = Inspector::connect(&config, runtime()?, Some(args.timeout))?;
    let mut checks = check(&inspector, &streams, name)?;
    if args.repair && checks[0].found.total > 0 {
        checks[0] = repair(&inspector, name)?;
    }
    match args.format {
        VerifyFormat::Text => print(&checks)?,
        VerifyFormat::Json => print_json(&as_json(&checks))?,
    }
    let failed = checks.iter().filter(|check| check.found.total > 0).count();
    if failed > 0 {
        bail!("{failed} check(s) found deviations{}", remedy(&config, &checks));
    }
    Ok(())
}

fn remedy(config: &Config, checks: &[Check]) -> String {
    if checks[0].found.total == 0 {
        return String::new();
    }
    format!("; `albertine verify --repair` rebuilds the sums in schema `{}` from the recount", config.postgres.schema)
}

const SUMS: (&str, &str) = ("sums", "item_labels equals a recount");

/// All checks; that of the sums first.
fn check(inspector: &Inspector<'_>, streams: &[&StreamConfig], name: Option<&str>) -> anyhow::Result<Vec<Check>> {
    // The offsets before the snapshot, and again after it: what is published then is at least what was stored and is
    // not in the outbox any more.
    let offsets = streams.iter().map(|stream| inspector.offsets(stream)).collect::<anyhow::Result<Vec<_>>>()?;
    let (runtime, store) = (&inspector.runtime, &inspector.store);
    // A snapshot is given back on the runtime, wherever this ends.
    let _entered = runtime.enter();
    let mut snapshot = runtime.block_on(store.snapshot())?;
    let (mut checkpoints, mut publication) = (Vec::new(), Vec::new());
    for (stream, offsets) in streams.iter().zip(offsets) {
        check_stream(inspector, stream, offsets, &mut snapshot, (&mut checkpoints, &mut publication))?;
    }
    let checks = runtime.block_on(async {
        anyhow::Ok(vec![
            Check::new(SUMS.0, SUMS.1, snapshot.sums(name).await?),
            Check::new("labels", "every label fits its document", snapshot.labels(name).await?),
            Check::new("outbox", "its ranges have no gaps and end at the checkpoints", snapshot.outbox(name).await?),
        ])
    })?;
    let beside_kafka = [
        Check::new("checkpoints", "each lies in its topic", checkpoints.into_iter().collect()),
        Check::new("publication", "what is stored is published or in the outbox", publication.into_iter().collect()),
    ];
    Ok(checks.into_iter().chain(beside_kafka).collect())
}

/// Compares a stream with Kafka.
fn check_stream(
    inspector: &Inspector<'_>,
    stream: &StreamConfig,
    offsets: GroupOffsets,
    snapshot: &mut Snapshot,
    (checkpoints, publication): (&mut Vec<String>, &mut Vec<String>),
) -> anyhow::Result<()> {
    let published = offsets.published();
    let stored = inspector.runtime.block_on(snapshot.standings(&stream.name, &stream.topic, &published))?;
    let later: BTreeMap<_, _> = inspector.offsets(stream)?.by_partition;
    let found = inspector.beside_topic(stream, offsets, stored)?;
    for standing in &found.partitions {
        checkpoints.extend(checkpoint_deviations(standing));
        let later = later.get(&standing.key.partition).and_then(Option::as_ref);
        publication.extend(publication_deviations(standing, inspector.publication(stream, standing)?, later));
    }
    Ok(())
}

/// Rebuilds the sums, and checks them again.
fn repair(inspector: &Inspector<'_>, name: Option<&str>) -> anyhow::Result<Check> {
    inspector.runtime.block_on(async {
        let rebuilt = inspector.store.rebuild_sums(name).await?;
        let found = inspector.store.snapshot().await?.sums(name).await?;
        Ok(Check { repaired: Some(rebuilt), ..Check::new(SUMS.0, SUMS.1, found) })
    })
}

fn print(checks: &[Check]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let colour = wants_colour(&out);
    for Check { name, holds, found, repaired } in checks {
        if let Some(Rebuilt { sums, deltas }) = repaired {
            writeln!(out, "repaired  {name}: {sums} row(s) from a recount, {deltas} change(s) not folded any more")?;
        }
        if found.total == 0 {
            let ok = if colour { "ok".green().to_string() } else { "ok".to_owned() };
            writeln!(out, "{ok}      {name}: {holds}")?;
            continue;
        }
        let failed = if colour { "failed".red().bold().to_string() } else { "failed".to_owned() };
        writeln!(out, "{failed}  {name}: {} deviation(s)", found.total)?;
        for deviation in &found.shown {
            writeln!(out, "        {deviation}")?;
        }
        if found.total > found.shown.len() {
            writeln!(out, "        and {} more", found.total - found.shown.len())?;
        }
    }
    Ok(())
}

fn as_json(checks: &[Check]) -> Value {
    let check = |Check { name, found, repaired, .. }: &Check| {
        json!({
            "name": name,
            "ok": found.total == 0,
            "deviations": found.total,
            "examples": found.shown,
            "repaired": repaired.map(|Rebuilt { sums, deltas }| json!({"sums": sums, "deltas": deltas})),
        })
    };
    json!({"ok": checks.iter().all(|check| check.found.total == 0), "checks": checks.iter().map(check).collect::<Vec<_>>()})
}
