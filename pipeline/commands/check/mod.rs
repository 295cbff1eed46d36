//! `albertine check`: the configuration, the models, every connection and every right, a line each; a failure with its
//! remedy. Nothing is made or moved, and no running worker is disturbed.

mod database;
mod kafka;
mod models;
mod records;

use std::{fmt::Display, io::Write, time::Duration};

use anyhow::bail;
use owo_colors::OwoColorize;

use super::{GlobalOptions, message, runtime, wants_colour};
use crate::{
    config::resolved::Config,
    registry::{Registry, RegistryConfig},
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
    let mut report = Report { failures: 0 };
    report.line(format!("configuration `{}`", global.config.display()), Ok(summary(&config)))?;
    let models = models::check(&config, &mut report)?;
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

fn check_schema_registry(config: &RegistryConfig) -> anyhow::Result<String> {
    let config = RegistryConfig { timeout: config.timeout.min(CONNECT_TIMEOUT), ..config.clone() };
    let kinds = Registry::new(&config)?.check()?;
    Ok(format!("`{}` answers; schemas of {}", config.url, kinds.join(", ")))
}

fn summary(config: &Config) -> String {
    format!("{} stream(s), {} model(s)", config.streams.len(), config.models.len())
}

struct Report {
    failures: usize,
}

impl Report {
    /// Writes a line. Returns whether all is well.
    fn line(&mut self, what: impl Display, result: anyhow::Result<String>) -> std::io::Result<bool> {
        match result {
            Ok(detail) => write_line("ok      ", &"ok".green(), what, detail)?,
            Err(error) => {
                self.failures += 1;
                write_line("failed  ", &"failed".red().bold(), what, message(&error))?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes a line for what an earlier failure leaves unchecked.
    #[expect(clippy::unused_self, reason = "every line is the report's")]
    fn skipped(&self, what: impl Display, reason: &str) -> std::io::Result<()> {
        write_line("skipped ", &"skipped".yellow(), what, reason)
    }
}

/// `word` begins the line; `coloured` is the same word for a terminal.
fn write_line(word: &str, coloured: &impl Display, what: impl Display, detail: impl Display) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if wants_colour(&out) {
        let width = word.trim_end().len();
        writeln!(out, "{coloured}{} {what}: {detail}", " ".repeat(7 - width))
    } else {
        writeln!(out, "{word}{what}: {detail}")
    }
}
