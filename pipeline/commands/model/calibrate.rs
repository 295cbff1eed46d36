//! `albertine model calibrate`: when texts may leave before the last pass, measured on texts whose true labels are known.

use std::{collections::BTreeMap, io::Write, path::Path, sync::Arc};

use anyhow::{Context, bail};
use serde_json::{Value, json};
use toml_edit::{DocumentMut, value};

use super::{
    rows::{RowArgs, Rows},
    truth::Truth,
};
use crate::{
    commands::{
        GlobalOptions,
        destination::Destination,
        output::{Shown, number, print_json, table},
    },
    domain::{
        early_exit::EarlyExit,
        exit_calibration::{Figures, Sample, SampleWindow, Terms, Trial, best, calibrate},
        window_pooling::{DOCUMENTS_MIN, Independence, fit_independence},
    },
    engine::{runtime::OnnxRuntime, session::ModelSession},
    model::{
        files::MANIFEST_FILE,
        folder::{GraphBytes, Model},
    },
    source::file,
    stream::inference,
    topology,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  albertine model calibrate albert-sentiment reviews.jsonl
  albertine model calibrate albert-sentiment reviews.csv --label-field stars --map 1=negative --map 5=positive
  albertine model calibrate models/my-model reviews.jsonl --loss 0.1 --write

Every text goes through all passes. Each rule is fitted so that the shorter and the longer half of the texts both keep
their accuracy, and judged on texts that its settings did not see. The rule that computes least, of those that lose no
more than allowed, is written into the model's model.toml with `--write`, and with it a temperature for the texts that
leave after each pass, and how far the windows of a long document count as independent. A few thousand texts like
those to come are needed to tell such small losses.")]
pub struct CalibrateArgs {
    /// The model, by its name in the configuration or by its folder
    model: String,
    #[command(flatten)]
    rows: RowArgs,
    /// By how many points the accuracy may fall: 0.2 are two texts in a thousand
    #[arg(long, default_value = "0.2", value_name = "POINTS")]
    loss: f64,
    /// Write what was found into the model's folder
    #[arg(long)]
    write: bool,
    /// Write JSON instead of a table
    #[arg(long)]
    json: bool,
}

pub fn run(global: &GlobalOptions, args: &CalibrateArgs) -> anyhow::Result<()> {
    let config = global.load_config_or_defaults()?;
    let model = Arc::new(super::open(&config, &args.model)?);
    if let GraphBytes::Unrolled { .. } = model.graphs {
        bail!("model `{}` is one graph: its texts cannot leave between passes", model.name);
    }
    let truth = Truth::new(&model, &args.rows.label_field, &[], &args.rows.map)?;
    let mut rows = Rows::open(&args.rows, &truth)?;
    let samples = read(&mut rows, &model, &topology::load_runtime(&config)?, &args.rows)?;
    let documents: Vec<_> = samples.iter().map(|sample| sample.pooled_document(model.temperature)).collect();
    let fitted = fit_independence(&documents);
    let terms = Terms {
        loss_max: args.loss / 100.0,
        temperature: model.temperature,
        window_independence: fitted.map_or(model.window_independence, |fitted| fitted.value),
        passes: model.passes,
    };
    let trials = calibrate(&samples, &terms).with_context(|| {
        format!("{} usable rows and {} passes are too few to choose an exit by", samples.len(), model.passes)
    })?;
    let chosen = best(&trials, &terms);
    if args.json {
        print_json(&as_json(&model, fitted, (&trials, chosen), &terms))?;
    } else {
        std::io::stdout()
            .lock()
            .write_all(as_text((&model, &rows), &samples, fitted, (&trials, chosen), &terms)?.as_bytes())?;
    }
    if args.write {
        let exit = chosen.and_then(|trial| trial.exit.as_ref());
        write(&super::folder(&config, &args.model)?.join(MANIFEST_FILE), terms.window_independence, exit)?;
    }
    if rows.bad > 0 {
        bail!("{} rows could not be used; the figures are of the others", rows.bad);
    }
    Ok(())
}

/// What the network says of every row after every pass.
fn read(rows: &mut Rows<'_>, model: &Arc<Model>, runtime: &OnnxRuntime, args: &RowArgs) -> anyhow::Result<Vec<Sample>> {
    let mut session = ModelSession::open(runtime, model)?;
    let fields = args.text_fields();
    fields.check(&[(0, Arc::clone(model))])?;
    let mut samples = Vec::new();
    while let Some((record, truth)) = rows.next()? {
        let windows = fields.texts(&record).and_then(|texts| inference::windows(texts, file::RECORD_BYTES_MAX, model));
        rows.done(1);
        let windows = match windows {
            Ok(windows) => windows.into_iter(),
            Err(rejection) => {
                rows.reject(record.place, rejection.message);
                continue;
            }
        };
        let windows = windows.map(|window| {
            let logits = session.infer_every_depth(window.tokens())?;
            Ok(SampleWindow { weight: window.fresh, tokens: window.ids.len(), logits })
        });
        samples.push(Sample { windows: windows.collect::<anyhow::Result<_>>()?, truth });
    }
    Ok(samples)
}

fn as_text(
    (model, rows): (&Model, &Rows<'_>),
    samples: &[Sample],
    fitted: Option<Independence>,
    (trials, chosen): (&[Trial], Option<&Trial>),
    terms: &Terms,
) -> anyhow::Result<String> {
    let windows: usize = samples.iter().map(|sample| sample.windows.len()).sum();
    let points = |share: f64| Shown::Number(format!("{:+.2}", 100.0 * share));
    let trial_row = |trial: &Trial| {
        let figures = &trial.figures;
        let difference = &figures.comparison.difference;
        let passes = trial.exit.as_ref().map(|_| format!("{:.2}", figures.mean_passes));
        let verdict = match &trial.exit {
            None => "every setting loses too much",
            Some(_) if !trial.is_allowed(terms) => "loses too much",
            Some(_) if chosen.is_some_and(|chosen| chosen.name == trial.name) => "best",
            Some(_) => "",
        };
        vec![
            trial.name.into(),
            number(passes),
            points(-figures.loss()),
            Shown::Text(format!("{:+.2} to {:+.2}", 100.0 * difference.low, 100.0 * difference.high)),
            Shown::Text(figures.depths.iter().map(u64::to_string).collect::<Vec<_>>().join(" ")),
            verdict.into(),
        ]
    };
    let heads = ["rule", "mean passes", "accuracy", "95% interval", "windows by pass", ""];
    let end = match chosen.and_then(|trial| trial.exit.as_ref()) {
        Some(exit) => as_toml(exit)?,
        None => "No rule saves anything at that loss: every text goes all the way.\n".into(),
    };
    Ok(format!(
        "{}: {} documents in {windows} windows, {} rows left out, {} rows that could not be used\n{}\nModel {} {}: {} passes, accuracy {:.4} at full depth; {} points may be lost\n{}\n{end}",
        rows.name,
        samples.len(),
        rows.left_out,
        rows.bad,
        independence_line(fitted, terms),
        model.name,
        model.version,
        terms.passes,
        trials.first().map_or(0.0, |trial| trial.figures.accuracy.0),
        100.0 * terms.loss_max,
        table(&heads, trials.iter().map(trial_row)),
    ))
}

/// What was found of documents of several windows.
fn independence_line(fitted: Option<Independence>, terms: &Terms) -> String {
    let value = terms.window_independence;
    match fitted {
        Some(Independence { documents, log_loss, log_loss_at_zero, .. }) => format!(
            "{documents} documents have several windows: window_independence = {value}, log loss {log_loss:.4}; it would be {log_loss_at_zero:.4} at 0"
        ),
        None => format!(
            "Fewer than {DOCUMENTS_MIN} documents have several windows, too few to fit how independent these are: window_independence stays {value}"
        ),
    }
}

fn as_json(
    model: &Model,
    fitted: Option<Independence>,
    (trials, chosen): (&[Trial], Option<&Trial>),
    terms: &Terms,
) -> Value {
    let trial_value = |trial: &Trial| {
        let Figures { comparison, accuracy, mean_passes, depths } = &trial.figures;
        json!({
            "rule": trial.name,
            "early_exit": trial.exit,
            "mean_passes": mean_passes,
            "accuracy_full_depth": accuracy.0,
            "accuracy": accuracy.1,
            "difference": { "low": comparison.difference.low, "high": comparison.difference.high },
            "windows_by_pass": depths,
            "allowed": trial.is_allowed(terms),
        })
    };
    json!({
        "model": &*model.name,
        "version": &*model.version,
        "passes": terms.passes,
        "loss_max": terms.loss_max,
        "window_independence": terms.window_independence,
        "window_independence_fitted": fitted.map(|fitted| json!({
            "documents": fitted.documents,
            "log_loss": fitted.log_loss,
            "log_loss_at_zero": fitted.log_loss_at_zero,
        })),
        "chosen": chosen.map(|trial| trial.name),
        "rules": trials.iter().map(trial_value).collect::<Vec<_>>(),
    })
}

/// The exit as a manifest has it.
fn as_toml(exit: &EarlyExit) -> anyhow::Result<String> {
    Ok(toml::to_string(&BTreeMap::from([("early_exit", exit)]))?)
}

/// Puts the exit at the end of a manifest, or takes it out, and the independence among its calibration; leaves everything else as it stands.
fn write(path: &Path, window_independence: f32, exit: Option<&EarlyExit>) -> anyhow::Result<()> {
    let failed = || format!("cannot write the exit into `{}`", path.display());
    let mut manifest: DocumentMut = std::fs::read_to_string(path).with_context(failed)?.parse().with_context(failed)?;
    manifest.remove("early_exit");
    // In twentieths: as a float64 of few digits.
    manifest["calibration"]["window_independence"] = value(f64::from(window_independence * 100.0).round() / 100.0);
    let mut text = format!("{}\n", manifest.to_string().trim_end());
    if let Some(exit) = exit {
        // As text: among the tables of another document, toml_edit would put these where they stood in their own.
        text = format!("{text}\n{}", as_toml(exit)?);
    }
    let mut file = Destination::open(Some(path))?;
    file.writer().write_all(text.as_bytes()).with_context(failed)?;
    file.finish()
}
