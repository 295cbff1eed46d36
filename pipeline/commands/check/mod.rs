//! `albertine check`: the configuration, the models, every connection and every right, a line each; a failure with its
//! remedy. Nothing is made or moved, and no running worker is disturbed.

mod database;
mod kafka;
mod models;
mod records;

use std::{collections::BTreeMap, time::Duration};

use anyhow::bail;

use super::{GlobalOptions, report::Report, runtime};
use crate::{
    config::resolved::{Config, StreamConfig},
    model::folder::Model,
    registry::{Registry, RegistryConfig},
    topology,
};

/// How long a server may take to answer here: an operator is waiting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each line is `ok`, `failed` with cause and remedy, or `skipped` where an earlier failure leaves nothing to check.
Of each stream it reads the newest records, as `albertine stream peek` does, and says how many the mapping can read.

Examples:
  albertine check
  albertine --config tickets.toml check

Exits with 0 if everything is in order, with 78 if the configuration is wrong, else with 1.")]
pub struct CheckArgs {}

pub fn run(global: &GlobalOptions, _: &CheckArgs) -> anyhow::Result<()> {
    let config = global.load_config()?.with_streams()?;
    let mut report = Report::default();
    report.line(format!("configuration `{}`", global.config.display()), Ok(summary(&config)))?;
    let models = models::check(&config, &mut report)?;
    for stream in config.streams.values() {
        check_pairs(stream, &models, &mut report)?;
    }
    if let Some(registry) = &config.schema_registry {
        report.line("schema registry", check_schema_registry(registry))?;
    }
    let runtime = runtime()?;
    runtime.block_on(database::check(&config, &mut report))?;
    kafka::check(&config, &models, &runtime, &mut report)?;
    if report.failures > 0 {
        bail!("{} check(s) failed", report.failures);
    }
    Ok(())
}

/// Whether the stream's mapping and models agree on pairs of texts; a line only where one of them speaks of pairs.
fn check_pairs(stream: &StreamConfig, models: &BTreeMap<String, Model>, report: &mut Report) -> std::io::Result<()> {
    let what = format!("pairs of `{}`", stream.name);
    let opened: Vec<&Model> = stream.models.iter().filter_map(|name| models.get(name)).collect();
    let pairs: Vec<&str> =
        opened.iter().filter(|model| model.tokenizer.reads_pairs()).map(|model| &*model.name).collect();
    if pairs.is_empty() && stream.decoder.mapping.text_pair.is_empty() {
        return Ok(());
    }
    if opened.len() < stream.models.len() {
        return report.skipped(what, "not all models of the stream can be opened");
    }
    let result = topology::check_pairs(stream, opened).map(|()| format!("read by {}", pairs.join(", ")));
    report.line(what, result.map_err(Into::into))?;
    Ok(())
}

fn check_schema_registry(config: &RegistryConfig) -> anyhow::Result<String> {
    let config = RegistryConfig { timeout: config.timeout.min(CONNECT_TIMEOUT), ..config.clone() };
    let kinds = Registry::new(&config)?.check()?;
    Ok(format!("`{}` answers; schemas of {}", config.url, kinds.join(", ")))
}

fn summary(config: &Config) -> String {
    format!("{} stream(s), {} model(s)", config.streams.len(), config.models.len())
}
