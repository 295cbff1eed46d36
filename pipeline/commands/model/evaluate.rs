//! `albertine model evaluate`: labels texts whose true labels are known, through the engine that serves, and measures.

use std::{cmp::Ordering, collections::VecDeque, io::Write, path::PathBuf, sync::Arc};

use anyhow::{Context, bail};
use serde_json::Value;

use super::{
    evaluation_text,
    groups::{Group, Groups},
    report,
    rows::{RowArgs, Rows},
    truth::Truth,
};
use crate::{
    commands::{
        GlobalOptions, UsageError,
        destination::Destination,
        labeller::{Labelled, Labeller},
        output::print_json,
        terminal::excerpt,
    },
    domain::evaluation::{Comparison, Evaluation, Judged, compare, evaluate},
    model::folder::Model,
    source::file::{FileRecord, Place},
    topology::ModelHost,
};

/// Mistakes kept for the report: a page of them.
const MISTAKES_MAX: usize = 50;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  albertine model evaluate albert-sentiment reviews.jsonl
  albertine model evaluate albert-sentiment reviews.csv --text-field body --label-field stars \\
      --map 1=negative --map 2=negative --map 3=neutral --map 4=positive --map 5=positive
  albertine model evaluate albert-sentiment sst2.jsonl --where split=dev --among negative,positive
  albertine model evaluate new-model reviews.jsonl --against albert-sentiment --report report.html
  albertine model evaluate albert-sentiment behaviour.jsonl --by kind

Texts take the way they take in a stream: windows, int8 graphs, calibrated probabilities. Intervals are of 95%.
Exits with 1 where a row could not be used; figures are of the others.")]
pub struct EvaluateArgs {
    /// The model, by its name in the configuration or by its folder
    model: String,
    #[command(flatten)]
    rows: RowArgs,
    /// A second model, to be compared on the same texts
    #[arg(long, env = "ALBERTINE_EVALUATE_AGAINST", value_name = "MODEL")]
    against: Option<String>,
    /// Decide among these labels only, as for a set that has no others
    #[arg(long, value_delimiter = ',', value_name = "LABEL,…")]
    among: Vec<String>,
    /// Figures of each value of this field, beside those of all rows
    #[arg(long, env = "ALBERTINE_EVALUATE_BY", value_name = "FIELD")]
    by: Option<String>,
    /// Write a page with charts and the surest mistakes, texts included
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Write JSON instead of tables
    #[arg(long)]
    json: bool,
}

pub fn run(global: &GlobalOptions, args: &EvaluateArgs) -> anyhow::Result<()> {
    let config = global.load_config_or_defaults()?;
    let names = [Some(&args.model), args.against.as_ref()];
    let models: Vec<Arc<Model>> =
        names.into_iter().flatten().map(|name| super::open(&config, name).map(Arc::new)).collect::<Result<_, _>>()?;
    check_comparable(&models)?;
    let truth = Truth::new(&models[0], &args.rows.label_field, &args.among, &args.rows.map)?;
    let page = args.report.as_deref().map(|path| Destination::open(Some(path))).transpose()?;
    let host = ModelHost::serve(&config, &models)?;
    let result = measure(&host, &models, &truth, args)?;
    if let Some(mut page) = page {
        page.writer().write_all(report::page(&result)?.as_bytes())?;
        page.finish()?;
    }
    if args.json {
        print_json(&evaluation_text::as_json(&result))?;
    } else {
        std::io::stdout().lock().write_all(evaluation_text::as_text(&result).as_bytes())?;
    }
    if result.bad > 0 {
        bail!("{} rows could not be used; the figures are of the others", result.bad);
    }
    Ok(())
}

fn check_comparable(models: &[Arc<Model>]) -> Result<(), UsageError> {
    let [first, second] = models else { return Ok(()) };
    let sorted = |model: &Model| {
        let mut labels = model.labels.to_vec();
        labels.sort();
        labels
    };
    if sorted(first) != sorted(second) {
        let (ours, theirs) = (first.labels.join(", "), second.labels.join(", "));
        return Err(UsageError(format!("only models of the same labels can be compared, not {ours} and {theirs}")));
    }
    if first.name == second.name {
        let name = &first.name;
        return Err(UsageError(format!(
            "both models are called `{name}`; name one of them otherwise under `[models]`"
        )));
    }
    Ok(())
}

/// Everything that is shown.
pub struct Measured {
    /// Of the file.
    pub name: String,
    pub models: Vec<MeasuredModel>,
    pub classes: Vec<Arc<str>>,
    pub comparison: Option<Comparison>,
    /// The surest mistakes of the first model, surest first.
    pub mistakes: Vec<Mistake>,
    /// Rows of classes that are not looked at.
    pub left_out: u64,
    /// Rows that could not be used.
    pub bad: u64,
}

pub struct MeasuredModel {
    pub name: Arc<str>,
    pub version: Arc<str>,
    pub task: Arc<str>,
    pub evaluation: Evaluation,
    /// Passes through a layer, on average.
    pub mean_depth: f64,
    /// By the field that was asked for.
    pub groups: Vec<Group>,
}

pub struct Mistake {
    pub place: Place,
    pub judged: Judged,
    pub text: String,
}

/// What is known of the rows so far.
struct Judgement<'a> {
    truth: &'a Truth<'a>,
    text_field: &'a str,
    /// The classes that records which are being labelled truly are, in their order.
    in_work: VecDeque<usize>,
    /// By model; all of the same documents.
    judged: Vec<Vec<Judged>>,
    /// By model, of all documents together.
    depths: Vec<u64>,
    groups: Option<Groups<'a>>,
    mistakes: Vec<Mistake>,
}

/// Sends the file's rows through the models.
fn measure(
    host: &ModelHost,
    models: &[Arc<Model>],
    truth: &Truth<'_>,
    EvaluateArgs { rows: args, by, .. }: &EvaluateArgs,
) -> anyhow::Result<Measured> {
    let mut labeller = Labeller::new(host, args.text_fields())?;
    let mut rows = Rows::open(args, truth)?;
    let mut judgement = Judgement {
        truth,
        text_field: args.text_fields().text,
        in_work: VecDeque::new(),
        judged: vec![Vec::new(); models.len()],
        depths: vec![0; models.len()],
        groups: by.as_deref().map(Groups::new),
        mistakes: Vec::new(),
    };
    while let Some((record, truth)) = rows.next()? {
        judgement.in_work.push_back(truth);
        judgement.take(labeller.submit(record)?, &mut rows)?;
    }
    while let Some(ready) = labeller.wait()? {
        judgement.take(ready, &mut rows)?;
    }
    judgement.measured(rows, models)
}

impl Judgement<'_> {
    fn take(&mut self, ready: Vec<Labelled>, rows: &mut Rows<'_>) -> anyhow::Result<()> {
        rows.done(ready.len());
        let truths: Vec<usize> = self.in_work.drain(..ready.len()).collect();
        for (Labelled { record, result }, truth) in ready.into_iter().zip(truths) {
            let labels = match result {
                Ok(labels) => labels,
                Err(rejection) => {
                    rows.reject(record.place, rejection.message);
                    continue;
                }
            };
            let judged: Vec<Judged> = labels
                .iter()
                .map(|label| self.truth.judge(label, truth).context("a model gave no probability of a class"))
                .collect::<Result<_, _>>()?;
            self.remember(&record, judged[0]);
            if let Some(groups) = &mut self.groups {
                groups.add(&record.fields)?;
            }
            self.depths.iter_mut().zip(&labels).for_each(|(sum, label)| *sum += u64::from(label.depth));
            self.judged.iter_mut().zip(judged).for_each(|(all, judged)| all.push(judged));
        }
        Ok(())
    }

    fn remember(&mut self, record: &FileRecord, judged: Judged) {
        let is_surer = |other: &Mistake| judged.confidence > other.judged.confidence;
        if judged.is_right() || self.mistakes.len() == MISTAKES_MAX && !self.mistakes.last().is_some_and(is_surer) {
            return;
        }
        let text = record.fields.get(self.text_field).and_then(Value::as_str).unwrap_or_default();
        let by_confidence = |other: &Mistake| other.judged.confidence.total_cmp(&judged.confidence);
        let at = self.mistakes.partition_point(|other| by_confidence(other) != Ordering::Less);
        self.mistakes.insert(at, Mistake { place: record.place, judged, text: excerpt(text) });
        self.mistakes.truncate(MISTAKES_MAX);
    }

    fn measured(self, rows: Rows<'_>, models: &[Arc<Model>]) -> anyhow::Result<Measured> {
        let Self { truth, judged, depths, groups, mistakes, .. } = self;
        let Rows { name, left_out, bad, .. } = rows;
        let comparison = match &judged[..] {
            [first, second] => compare(second, first),
            _ => None,
        };
        let measured = models.iter().zip(&judged).zip(depths).map(|((model, judged), depths)| {
            let classes = truth.classes().len();
            let evaluation = evaluate(judged, classes)
                .with_context(|| format!("no row of `{name}` could be used ({bad} bad, {left_out} left out)"))?;
            let (name, version, task) = (model.name.clone(), model.version.clone(), model.task.clone());
            let groups = groups.as_ref().map(|groups| groups.figures(judged, classes)).unwrap_or_default();
            let mean_depth = depths as f64 / judged.len() as f64;
            Ok(MeasuredModel { name, version, task, evaluation, mean_depth, groups })
        });
        let models = measured.collect::<anyhow::Result<_>>()?;
        Ok(Measured { name, models, classes: truth.classes().to_vec(), comparison, mistakes, left_out, bad })
    }
}
