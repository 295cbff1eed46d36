//! `albertine classify`: labels the texts of a file. No broker, no database.

use std::path::PathBuf;

use anyhow::bail;
use serde_json::{Map, Number, Value, json};

use super::{
    GlobalOptions,
    destination::Destination,
    labeller::{Labelled, Labeller, TextFields},
    progress::FileProgress,
};
use crate::{
    domain::label::Label,
    source::file::{self, FileError, FileFormat},
    topology::ModelHost,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  albertine classify --model albert-sentiment reviews.jsonl --output labelled.jsonl
  echo 'A wonderful kettle.' | albertine classify --model albert-sentiment
  albertine classify --model entailment claims.jsonl --text-field premise --text-pair-field hypothesis

Each record comes out as one JSON line with its fields and `label`, `confidence`, `probabilities`, `depth`, in the
order of the input. A record that cannot be labelled is reported with its line, and the exit code is 1.")]
pub struct ClassifyArgs {
    /// The model, by its name in the configuration
    #[arg(long, env = "ALBERTINE_CLASSIFY_MODEL", value_name = "NAME")]
    model: String,
    /// The file; `-` or nothing for the standard input
    file: Option<PathBuf>,
    /// How the records are written [default: by the file's name; lines from the standard input that start
    /// with `{` are JSON]
    #[arg(long, env = "ALBERTINE_CLASSIFY_FORMAT", value_enum)]
    format: Option<FileFormat>,
    /// The field that holds the text
    #[arg(long, env = "ALBERTINE_CLASSIFY_TEXT_FIELD", default_value = "text", value_name = "FIELD")]
    text_field: String,
    /// The field that holds the second text, for models that read pairs
    #[arg(long, env = "ALBERTINE_CLASSIFY_TEXT_PAIR_FIELD", value_name = "FIELD")]
    text_pair_field: Option<String>,
    /// Where to write [default: the standard output]
    #[arg(long, short, env = "ALBERTINE_CLASSIFY_OUTPUT", value_name = "FILE")]
    output: Option<PathBuf>,
}

pub fn run(global: &GlobalOptions, args: &ClassifyArgs) -> anyhow::Result<()> {
    let config = global.load_config()?;
    let host = ModelHost::start(&config, [&args.model])?;
    let fields = TextFields { text: &args.text_field, text_pair: args.text_pair_field.as_deref() };
    let mut labeller = Labeller::new(&host, fields)?;
    let mut input = file::open(args.file.as_deref())?;
    let format = input.format(args.format)?;
    let progress = if args.output.is_some() { FileProgress::new(&input) } else { FileProgress::hidden(&input) };
    let mut results = Results {
        name: input.name.clone(),
        output: Destination::open(args.output.as_deref())?,
        progress,
        written: 0,
        bad: 0,
    };
    for record in input.records(format)? {
        match record {
            Ok(record) => results.take(labeller.submit(record)?)?,
            Err(error) if error.is_one_record() => results.report(&error),
            Err(error) => return Err(error.into()),
        }
    }
    while let Some(ready) = labeller.wait()? {
        results.take(ready)?;
    }
    results.finish()
}

/// What comes out: rows, and complaints.
struct Results {
    /// The input's.
    name: String,
    output: Destination,
    progress: FileProgress,
    written: u64,
    bad: u64,
}

impl Results {
    fn take(&mut self, ready: Vec<Labelled>) -> anyhow::Result<()> {
        self.progress.add(ready.len());
        for Labelled { record, result } in ready {
            let label = match &result {
                Ok(labels) => labels.first(),
                Err(rejection) => {
                    let problem = rejection.message.clone();
                    self.report(&FileError::Record { name: self.name.clone(), place: record.place, problem });
                    None
                }
            };
            let Some(label) = label else { continue };
            let output = self.output.writer();
            serde_json::to_writer(&mut *output, &row(record.fields, label))?;
            output.write_all(b"\n")?;
            self.written += 1;
        }
        Ok(())
    }

    fn report(&mut self, error: &FileError) {
        self.bad += 1;
        self.progress.say(error);
    }

    fn finish(self) -> anyhow::Result<()> {
        let Self { output, written, bad, .. } = self;
        output.finish()?;
        if bad > 0 {
            bail!("{bad} of {} records could not be labelled", written + bad);
        }
        Ok(())
    }
}

fn row(mut fields: Map<String, Value>, label: &Label) -> Map<String, Value> {
    let probabilities: Map<String, Value> = label
        .classes
        .iter()
        .zip(&label.probabilities)
        .map(|(class, probability)| (class.to_string(), rounded(*probability)))
        .collect();
    fields.insert("label".into(), json!(&*label.label));
    fields.insert("confidence".into(), rounded(label.confidence));
    fields.insert("probabilities".into(), Value::Object(probabilities));
    fields.insert("depth".into(), label.depth.into());
    fields
}

/// Six decimals: what a `f32` softmax carries.
fn rounded(probability: f32) -> Value {
    Number::from_f64((f64::from(probability) * 1e6).round() / 1e6).map_or(Value::Null, Value::Number)
}
