//! `albertine model evaluate`: labels texts whose true labels are known, through the engine that serves, and measures.

use std::{cmp::Ordering, collections::VecDeque, io::Write, path::PathBuf, sync::Arc};

use anyhow::{Context, bail};
use serde_json::{Map, Value};

use super::{
    evaluation_text, report,
    truth::{Truth, word},
};
use crate::{
    commands::{
        GlobalOptions, UsageError,
        destination::Destination,
        labeller::{Labelled, Labeller, TextFields},
        output::print_json,
        progress::FileProgress,
        terminal::excerpt,
    },
    domain::evaluation::{Comparison, Evaluation, Judged, compare, evaluate},
    model::folder::Model,
    source::file::{self, FileError, FileFormat, FileRecord, Place},
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

Texts take the way they take in a stream: windows, int8 graphs, calibrated probabilities. Intervals are of 95%.
Exits with 1 where a row could not be used; figures are of the others.")]
pub struct EvaluateArgs {
    /// The model, by its name in the configuration or by its folder
    model: String,
    /// The file; `-` for the standard input
    file: PathBuf,
    /// A second model, to be compared on the same texts
    #[arg(long, env = "ALBERTINE_EVALUATE_AGAINST", value_name = "MODEL")]
    against: Option<String>,
    /// How the records are written [default: by the file's name or content]
    #[arg(long, env = "ALBERTINE_EVALUATE_FORMAT", value_enum)]
    format: Option<FileFormat>,
    /// The field that holds the text
    #[arg(long, env = "ALBERTINE_EVALUATE_TEXT_FIELD", default_value = "text", value_name = "FIELD")]
    text_field: String,
    /// The field that holds the second text, for models that read pairs
    #[arg(long, env = "ALBERTINE_EVALUATE_TEXT_PAIR_FIELD", value_name = "FIELD")]
    text_pair_field: Option<String>,
    /// The field that holds the true label
    #[arg(long, env = "ALBERTINE_EVALUATE_LABEL_FIELD", default_value = "label", value_name = "FIELD")]
    label_field: String,
    /// What a value of the true label is called by the model; `VALUE=` leaves such rows out
    #[arg(long, value_name = "VALUE=LABEL", value_parser = parse_equation)]
    map: Vec<(String, String)>,
    /// Decide among these labels only, as for a set that has no others
    #[arg(long, value_delimiter = ',', value_name = "LABEL,…")]
    among: Vec<String>,
    /// Only rows whose field has this value
    #[arg(long = "where", value_name = "FIELD=VALUE", value_parser = parse_equation)]
    conditions: Vec<(String, String)>,
    /// Only so many rows, from the first on
    #[arg(long, value_name = "ROWS")]
    limit: Option<u64>,
    /// Write a page with charts and the surest mistakes, texts included
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Write JSON instead of tables
    #[arg(long)]
    json: bool,
}

/// What stands left and right of the first `=`. Of which form it has to be, clap says.
fn parse_equation(text: &str) -> Result<(String, String), &'static str> {
    let (left, right) = text.split_once('=').ok_or("there is no `=` in it")?;
    Ok((left.to_owned(), right.to_owned()))
}

pub fn run(global: &GlobalOptions, args: &EvaluateArgs) -> anyhow::Result<()> {
    let config = global.load_config_or_defaults()?;
    let names = [Some(&args.model), args.against.as_ref()];
    let models: Vec<Arc<Model>> =
        names.into_iter().flatten().map(|name| super::open(&config, name).map(Arc::new)).collect::<Result<_, _>>()?;
    check_comparable(&models)?;
    let truth = Truth::new(&models[0], &args.label_field, &args.among, &args.map)?;
    let page = args.report.as_deref().map(|path| Destination::open(Some(path))).transpose()?;
    let host = ModelHost::serve(&config, &models)?;
    let mut rows = Rows {
        truth,
        args,
        in_work: VecDeque::new(),
        judged: vec![Vec::new(); models.len()],
        mistakes: Vec::new(),
        left_out: 0,
        bad: 0,
    };
    let name = read(&host, &mut rows)?;
    let result = rows.measured(name, &models)?;
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
}

pub struct Mistake {
    pub place: Place,
    pub judged: Judged,
    pub text: String,
}

struct Rows<'a> {
    truth: Truth<'a>,
    args: &'a EvaluateArgs,
    /// The classes that records which are being labelled truly are, in their order.
    in_work: VecDeque<usize>,
    /// By model; all of the same documents.
    judged: Vec<Vec<Judged>>,
    mistakes: Vec<Mistake>,
    left_out: u64,
    bad: u64,
}

/// Sends the file's rows through the models. The file's name.
fn read(host: &ModelHost, rows: &mut Rows<'_>) -> anyhow::Result<String> {
    let args = rows.args;
    let fields = TextFields { text: &args.text_field, text_pair: args.text_pair_field.as_deref() };
    let mut labeller = Labeller::new(host, fields)?;
    let mut input = file::open(Some(&args.file))?;
    let name = input.name.clone();
    let format = input.format(args.format)?;
    let mut progress = FileProgress::new(&input);
    let limit = args.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let chosen =
        input.records(format)?.filter(|record| record.as_ref().map_or(true, |record| rows_fit(args, &record.fields)));
    for record in chosen.take(limit) {
        match record {
            Ok(record) => {
                if let Some(record) = rows.of_interest(&name, record, &progress) {
                    let ready = labeller.submit(record)?;
                    rows.take(&name, ready, &mut progress)?;
                }
            }
            Err(error) if error.is_one_record() => rows.report(&error, &progress),
            Err(error) => return Err(error.into()),
        }
    }
    while let Some(ready) = labeller.wait()? {
        rows.take(&name, ready, &mut progress)?;
    }
    Ok(name)
}

fn rows_fit(args: &EvaluateArgs, fields: &Map<String, Value>) -> bool {
    args.conditions.iter().all(|(field, wanted)| fields.get(field).is_some_and(|value| word(value) == *wanted))
}

impl Rows<'_> {
    /// The record, where its true label is one that is decided about.
    fn of_interest(&mut self, name: &str, record: FileRecord, progress: &FileProgress) -> Option<FileRecord> {
        match self.truth.of(&record.fields) {
            Ok(Some(truth)) => {
                self.in_work.push_back(truth);
                return Some(record);
            }
            Ok(None) => self.left_out += 1,
            Err(problem) => {
                self.report(&FileError::Record { name: name.to_owned(), place: record.place, problem }, progress);
            }
        }
        None
    }

    fn take(&mut self, name: &str, ready: Vec<Labelled>, progress: &mut FileProgress) -> anyhow::Result<()> {
        progress.add(ready.len());
        let truths: Vec<usize> = self.in_work.drain(..ready.len()).collect();
        for (Labelled { record, result }, truth) in ready.into_iter().zip(truths) {
            let labels = match result {
                Ok(labels) => labels,
                Err(rejection) => {
                    let problem = rejection.message;
                    self.report(&FileError::Record { name: name.to_owned(), place: record.place, problem }, progress);
                    continue;
                }
            };
            let judged: Vec<Judged> = labels
                .iter()
                .map(|label| self.truth.judge(label, truth).context("a model gave no probability of a class"))
                .collect::<Result<_, _>>()?;
            self.remember(&record, judged[0]);
            self.judged.iter_mut().zip(judged).for_each(|(all, judged)| all.push(judged));
        }
        Ok(())
    }

    fn remember(&mut self, record: &FileRecord, judged: Judged) {
        let is_surer = |other: &Mistake| judged.confidence > other.judged.confidence;
        if judged.is_right() || self.mistakes.len() == MISTAKES_MAX && !self.mistakes.last().is_some_and(is_surer) {
            return;
        }
        let text = record.fields.get(&self.args.text_field).and_then(Value::as_str).unwrap_or_default();
        let by_confidence = |other: &Mistake| other.judged.confidence.total_cmp(&judged.confidence);
        let at = self.mistakes.partition_point(|other| by_confidence(other) != Ordering::Less);
        self.mistakes.insert(at, Mistake { place: record.place, judged, text: excerpt(text) });
        self.mistakes.truncate(MISTAKES_MAX);
    }

    fn report(&mut self, error: &FileError, progress: &FileProgress) {
        self.bad += 1;
        progress.say(error);
    }

    fn measured(self, name: String, models: &[Arc<Model>]) -> anyhow::Result<Measured> {
        let Self { truth, judged, mistakes, left_out, bad, .. } = self;
        let comparison = match &judged[..] {
            [first, second] => compare(second, first),
            _ => None,
        };
        let measured = models.iter().zip(&judged).map(|(model, judged)| {
            let evaluation = evaluate(judged, truth.classes().len())
                .with_context(|| format!("no row of `{name}` could be used ({bad} bad, {left_out} left out)"))?;
            let (name, version, task) = (model.name.clone(), model.version.clone(), model.task.clone());
            Ok(MeasuredModel { name, version, task, evaluation })
        });
        let models = measured.collect::<anyhow::Result<_>>()?;
        Ok(Measured { name, models, classes: truth.classes().to_vec(), comparison, mistakes, left_out, bad })
    }
}
