//! `albertine model`: which models are configured, whether each is what it says, how good and how fast it is.

mod bench;
mod calibrate;
mod evaluate;
mod evaluation_text;
mod groups;
mod list;
mod report;
mod rows;
mod truth;
mod verify;

use std::path::{Path, PathBuf};

use super::{GlobalOptions, UsageError};
use crate::{
    config::resolved::Config,
    model::{files::MANIFEST_FILE, folder::Model},
    topology,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  albertine model list
  albertine model verify ./my-model
  albertine model evaluate my-model reviews.jsonl --against albert-sentiment --report report.html
  albertine model calibrate my-model reviews.jsonl --write
  albertine model bench albert-sentiment

A model is named as in the configuration, or by its folder.")]
pub struct ModelArgs {
    #[command(subcommand)]
    command: ModelCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ModelCommand {
    /// Show the configured models
    List(list::ListArgs),
    /// Check a model folder against its own reference: files, graphs, token ids, logits
    Verify(verify::VerifyArgs),
    /// Measure how good labels are, on texts whose true labels are known
    Evaluate(Box<evaluate::EvaluateArgs>),
    /// Choose when texts may leave before the last pass, by what that loses and saves
    Calibrate(calibrate::CalibrateArgs),
    /// Measure how fast a model is here, by length, and where the time goes
    Bench(bench::BenchArgs),
}

pub fn run(global: &GlobalOptions, args: &ModelArgs) -> anyhow::Result<()> {
    match &args.command {
        ModelCommand::List(args) => list::run(global, args),
        ModelCommand::Verify(args) => verify::run(global, args),
        ModelCommand::Evaluate(args) => evaluate::run(global, args),
        ModelCommand::Calibrate(args) => calibrate::run(global, args),
        ModelCommand::Bench(args) => bench::run(global, args),
    }
}

/// A configured model's folder, or the folder itself.
fn folder(config: &Config, model: &str) -> Result<PathBuf, UsageError> {
    if let Some(configured) = config.models.get(model) {
        return Ok(configured.path.clone());
    }
    let path = Path::new(model);
    if path.is_dir() {
        return Ok(path.to_owned());
    }
    // The manifest itself is easily named instead of its folder.
    if let Some(folder) = path.parent().filter(|_| path.is_file() && path.ends_with(MANIFEST_FILE)) {
        return Ok(if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder.to_owned() });
    }
    let known: Vec<&str> = config.models.keys().map(String::as_str).collect();
    let known = if known.is_empty() { "none".into() } else { known.join(", ") };
    Err(UsageError(format!("`{model}` is no folder, and no such model is configured; there is: {known}")))
}

/// Opens a model, under its name in the configuration where it has one there.
fn open(config: &Config, model: &str) -> anyhow::Result<Model> {
    if config.models.contains_key(model) {
        return topology::open_model(config, model);
    }
    Ok(Model::open(&folder(config, model)?)?)
}
