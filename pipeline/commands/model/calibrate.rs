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
        early_exit::EarlyExits,
        exit_calibration::{Figures, Group, Sample, SampleWindow, Terms, Texts, Trial, calibrate, chosen},
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

Every text goes through all passes. Documents of one window and of several are looked at apart. Each rule is fitted so
that the shorter and the longer half of them both keep their accuracy, and judged on texts that its settings did not
see. What is allowed to be lost is smoothed: a text whose best two labels are nearly as probable counts half. The rule
that computes least, of those that lose no more than allowed, is written into the model's model.toml with `--write`,
and with it a temperature for the texts that leave after each pass, and how far the windows of a long document count as
independent. A few thousand texts like those to come are needed to tell such small losses.")]
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
    let documents: Vec<_> = samples.iter().map(|sample| sample.at_full_depth(model.temperature)).collect();
    let fitted = fit_independence(&documents);
    let terms = Terms {
        loss_max: args.loss / 100.0,
        temperature: model.temperature,
        window_independence: fitted.map_or(model.window_independence, |fitted| fitted.value),
        passes: model.passes,
    };
    let groups = calibrate(&samples, &terms).with_context(|| {
        format!("{} usable rows and {} passes are too few to choose an exit by", samples.len(), model.passes)
    })?;
    let exits = chosen(&groups, &terms);
    if args.json {
        print_json(&as_json(&model, fitted, &groups, &terms))?;
    } else {
        let text = as_text((&model, &rows), &samples, fitted, (&groups, exits.as_ref()), &terms)?;
        std::io::stdout().lock().write_all(text.as_bytes())?;
    }
    if args.write {
        let manifest = super::folder(&config, &args.model)?.join(MANIFEST_FILE);
        write(&manifest, terms.window_independence, exits.as_ref())?;
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
    (groups, exits): (&[Group], Option<&EarlyExits>),
    terms: &Terms,
) -> anyhow::Result<String> {
    let windows: usize = samples.iter().map(|sample| sample.windows.len()).sum();
    let end = match exits {
        Some(exits) => as_toml(exits)?,
        None => "No rule saves anything at that loss: every text goes all the way.\n".into(),
    };
    Ok(format!(
        "{}: {} documents in {windows} windows, {} rows left out, {} rows that could not be used\n{}\nModel {} {}: {} passes; {} points may be lost\n\n{}\n{}\n{end}",
        rows.name,
        samples.len(),
        rows.left_out,
        rows.bad,
        independence_line(fitted, terms),
        model.name,
        model.version,
        terms.passes,
        100.0 * terms.loss_max,
        groups.iter().map(|group| group_text(group, terms)).collect::<Vec<_>>().join("\n"),
        together_line(groups, terms),
    ))
}

fn group_text(group: &Group, terms: &Terms) -> String {
    let best = group.best(terms).map(|trial| trial.name);
    let row = |trial: &Trial| {
        let figures = &trial.figures;
        let passes = trial.exit.as_ref().map(|_| format!("{:.2}", figures.mean_passes()));
        let verdict = match &trial.exit {
            None => "every setting loses too much",
            Some(_) if !trial.is_allowed(terms) => "loses too much",
            Some(_) if best == Some(trial.name) => "best",
            Some(_) => "",
        };
        let [accuracy, interval] = accuracy_change(figures);
        vec![
            trial.name.into(),
            number(passes),
            Shown::Number(points(-figures.loss())),
            Shown::Number(accuracy),
            Shown::Text(interval),
            Shown::Text(figures.depths.iter().map(u64::to_string).collect::<Vec<_>>().join(" ")),
            verdict.into(),
        ]
    };
    let heads = ["rule", "mean passes", "smoothed", "accuracy", "95% interval", "windows by pass", ""];
    let (texts, accuracy) =
        group.trials.first().map_or((0, 0.0), |trial| (trial.figures.texts(), trial.figures.accuracy().0));
    let of = match group.texts {
        Texts::OneWindow => " of one window",
        Texts::SeveralWindows => " of several windows",
        Texts::All => "",
    };
    format!(
        "{texts} documents{of}, accuracy {accuracy:.4} at full depth\n{}",
        table(&heads, group.trials.iter().map(row))
    )
}

/// A share in percent points.
fn points(share: f64) -> String {
    format!("{:+.2}", 100.0 * share)
}

/// By how much the exit changes the accuracy, and the interval of that.
fn accuracy_change(figures: &Figures) -> [String; 2] {
    let (full, early) = figures.accuracy();
    let interval = figures.comparison().map_or_else(String::new, |comparison| {
        format!("{} to {}", points(comparison.difference.low), points(comparison.difference.high))
    });
    [points(early - full), interval]
}

fn together_line(groups: &[Group], terms: &Terms) -> String {
    together(groups, terms).map_or_else(String::new, |figures| {
        let [accuracy, interval] = accuracy_change(&figures);
        format!("The best together: {:.2} mean passes, accuracy {accuracy} ({interval})\n", figures.mean_passes())
    })
}

/// Of all texts, where each group has an exit.
fn together(groups: &[Group], terms: &Terms) -> Option<Figures> {
    let best: Option<Vec<&Figures>> = groups.iter().map(|group| Some(&group.best(terms)?.figures)).collect();
    Figures::together(best?)
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

fn as_json(model: &Model, fitted: Option<Independence>, groups: &[Group], terms: &Terms) -> Value {
    let figures_value = |figures: &Figures| {
        let difference = figures.comparison().map(|comparison| comparison.difference);
        json!({
            "documents": figures.texts(),
            "mean_passes": figures.mean_passes(),
            "loss": figures.loss(),
            "accuracy_full_depth": figures.accuracy().0,
            "accuracy": figures.accuracy().1,
            "difference": difference.map(|difference| json!({ "low": difference.low, "high": difference.high })),
            "windows_by_pass": figures.depths,
        })
    };
    let trial_value = |trial: &Trial| {
        json!({
            "rule": trial.name,
            "early_exit": trial.exit,
            "allowed": trial.is_allowed(terms),
            "figures": figures_value(&trial.figures),
        })
    };
    let group_value = |group: &Group| {
        json!({
            "documents": match group.texts {
                Texts::OneWindow => "one_window",
                Texts::SeveralWindows => "several_windows",
                Texts::All => "all",
            },
            "chosen": group.best(terms).map(|trial| trial.name),
            "rules": group.trials.iter().map(trial_value).collect::<Vec<_>>(),
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
        "groups": groups.iter().map(group_value).collect::<Vec<_>>(),
        "together": together(groups, terms).as_ref().map(figures_value),
    })
}

/// The exits as a manifest has them.
fn as_toml(exits: &EarlyExits) -> anyhow::Result<String> {
    Ok(toml::to_string(&BTreeMap::from([("early_exit", exits)]))?)
}

/// Puts the exits at the end of a manifest, or takes them out, and the independence among its calibration; leaves everything else as it stands.
fn write(path: &Path, window_independence: f32, exits: Option<&EarlyExits>) -> anyhow::Result<()> {
    let failed = || format!("cannot write the early exit into `{}`", path.display());
    let mut manifest: DocumentMut = std::fs::read_to_string(path).with_context(failed)?.parse().with_context(failed)?;
    manifest.remove("early_exit");
    // In twentieths: as a float64 of few digits.
    manifest["calibration"]["window_independence"] = value(f64::from(window_independence * 100.0).round() / 100.0);
    let mut text = format!("{}\n", manifest.to_string().trim_end());
    if let Some(exits) = exits {
        // As text: among the tables of another document, toml_edit would put these where they stood in their own.
        text = format!("{text}\n{}", as_toml(exits)?);
    }
    let mut file = Destination::open(Some(path))?;
    file.writer().write_all(text.as_bytes()).with_context(failed)?;
    file.finish()
}
