//! `albertine model verify`: the checks of [`acceptance`] on a folder, a line each.

use std::path::PathBuf;

use anyhow::{anyhow, bail};
use serde_json::{Value, json};

use crate::{
    acceptance::{self, Outcome},
    commands::{GlobalOptions, message, output::print_json, progress::CheckProgress, report::Report},
    topology,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each line is `ok`, `failed` with what is wrong, or `skipped` with the reason. The folder's own corpus holds what the
exporter's library gave: token ids have to be equal, float32 logits nearly so, and int8 labels on 99 % of the texts. `--corpus` adds rows of the same form, such as those of `albertine-models tokens`.

Examples:
  albertine model verify albert-sentiment              a model of the configuration
  albertine model verify ./my-model                    a folder
  albertine model verify ./my-model --corpus ids.jsonl --json

Exits with 0 if everything is in order, else with 1.")]
pub struct VerifyArgs {
    /// The model, by its name in the configuration, or its folder
    #[arg(value_name = "FOLDER|NAME")]
    model: String,
    /// A file of more rows to compare with
    #[arg(long, env = "ALBERTINE_MODEL_VERIFY_CORPUS", value_name = "FILE")]
    corpus: Option<PathBuf>,
    /// Show the outcome for programs
    #[arg(long, env = "ALBERTINE_MODEL_VERIFY_JSON")]
    json: bool,
}

pub fn run(global: &GlobalOptions, args: &VerifyArgs) -> anyhow::Result<()> {
    let config = global.load_config_or_defaults()?;
    let folder = super::folder(&config, &args.model)?;
    let runtime = topology::load_runtime(&config).map_err(|error| message(&error));
    let progress = CheckProgress::new();
    let (mut report, mut checks) = (Report::default(), Vec::new());
    let mut tell = |name: &'static str, outcome: &Outcome| {
        progress.clear();
        if args.json {
            checks.push(as_json(name, outcome));
            return Ok(());
        }
        match outcome {
            Outcome::Passed(detail) => report.line(name, Ok(detail.clone()))?,
            Outcome::Failed(problem) => report.line(name, Err(anyhow!("{problem}")))?,
            Outcome::Skipped(reason) => report.skipped(name, reason).map(|()| true)?,
        };
        Ok(())
    };
    let mut tell_rows = |name: &'static str, done, rows| progress.rows(name, done, rows);
    let failed = acceptance::verify(&folder, runtime, args.corpus.as_deref(), &mut tell, &mut tell_rows)?;
    if args.json {
        print_json(&json!({"folder": folder, "checks": checks, "failed": failed}))?;
    }
    if failed > 0 {
        bail!("model folder `{}`: {failed} check(s) failed", folder.display());
    }
    Ok(())
}

fn as_json(name: &str, outcome: &Outcome) -> Value {
    let (word, detail) = match outcome {
        Outcome::Passed(detail) => ("ok", detail),
        Outcome::Failed(problem) => ("failed", problem),
        Outcome::Skipped(reason) => ("skipped", reason),
    };
    json!({"check": name, "outcome": word, "detail": detail})
}
