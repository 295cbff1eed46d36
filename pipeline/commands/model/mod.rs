//! `albertine model`: what one does with models before they serve.

mod bench;
mod evaluate;
mod evaluation_text;
mod report;
mod truth;

use super::GlobalOptions;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  albertine model evaluate albert-sentiment reviews.jsonl
  albertine model evaluate new-model reviews.jsonl --against albert-sentiment --report report.html
  albertine model bench albert-sentiment

A model is named as in the configuration, or by its folder.")]
pub struct ModelArgs {
    #[command(subcommand)]
    command: ModelCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ModelCommand {
    /// Measure how good labels are, on texts whose true labels are known
    Evaluate(evaluate::EvaluateArgs),
    /// Measure how fast a model is here, by length, and where the time goes
    Bench(bench::BenchArgs),
}

pub fn run(global: &GlobalOptions, args: &ModelArgs) -> anyhow::Result<()> {
    match &args.command {
        ModelCommand::Evaluate(args) => evaluate::run(global, args),
        ModelCommand::Bench(args) => bench::run(global, args),
    }
}
