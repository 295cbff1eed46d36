//! `albertine classify`: labels the texts of a file. No broker, no database.

use std::{
    io::{BufWriter, IsTerminal, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use crossbeam_channel::{Receiver, Sender};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Number, Value, json};
use tempfile::NamedTempFile;

use super::GlobalOptions;
use crate::{
    domain::{label::Label, rejection::Rejection, tracker::Tracker},
    engine::{Job, JobResult, Priority},
    source::file::{self, FileError, FileFormat, FileRecord, Place},
    stream::intake,
    topology::ModelHost,
};

/// Records between reading and writing. Enough that texts of equal length meet; what is above only costs
/// memory.
const IN_FLIGHT_MAX: usize = 2048;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  albertine classify --model albert-sentiment reviews.jsonl --output labelled.jsonl
  echo 'A wonderful kettle.' | albertine classify --model albert-sentiment

Each record comes out as one JSON line with its fields and `label`, `confidence`, `probabilities`, in the
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
    /// Where to write [default: the standard output]
    #[arg(long, short, env = "ALBERTINE_CLASSIFY_OUTPUT", value_name = "FILE")]
    output: Option<PathBuf>,
}

pub fn run(global: &GlobalOptions, args: &ClassifyArgs) -> anyhow::Result<()> {
    let config = global.load_config()?;
    let host = ModelHost::start(&config, [&args.model])?;
    let mut input = file::open(args.file.as_deref())?;
    let name = input.name.clone();
    let output = Output::open(args.output.as_deref())?;
    let format = match args.format.or_else(|| file::format_of(args.file.as_deref())) {
        Some(format) => format,
        None => input.detect_format()?,
    };
    let mut classifier = Classifier::new(&host, args, output);
    let mut bad = 0_u64;
    for record in input.records(format)? {
        match record {
            Ok(record) => classifier.submit(record)?,
            Err(error) if error.is_one_record() => {
                bad += 1;
                eprintln!("{error}");
            }
            Err(error) => return Err(error.into()),
        }
    }
    let written = classifier.finish(&name, &mut bad)?;
    if bad > 0 {
        bail!("{bad} of {} records could not be labelled", written + bad);
    }
    Ok(())
}

/// The standard output, or a file that appears under its name once it is whole.
enum Output {
    Stdout(BufWriter<std::io::Stdout>),
    File { file: BufWriter<NamedTempFile>, path: PathBuf },
}

impl Output {
    fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self::Stdout(BufWriter::new(std::io::stdout()))) };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        // Like any new file: the umask decides who may read it.
        let file = tempfile::Builder::new()
            .permissions(std::fs::Permissions::from_mode(0o666))
            .tempfile_in(folder)
            .with_context(|| format!("cannot create `{}`", path.display()))?;
        Ok(Self::File { file: BufWriter::new(file), path: path.to_owned() })
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Stdout(stdout) => stdout,
            Self::File { file, .. } => file,
        }
    }

    fn finish(self) -> anyhow::Result<()> {
        match self {
            Self::Stdout(mut stdout) => stdout.flush()?,
            Self::File { file, path } => {
                let file = file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
                file.persist(&path).with_context(|| format!("cannot write `{}`", path.display()))?;
            }
        }
        Ok(())
    }
}

type Answer = (i64, JobResult);

struct Classifier<'a> {
    host: &'a ModelHost,
    args: &'a ClassifyArgs,
    models: Vec<(usize, std::sync::Arc<crate::model::folder::Model>)>,
    output: Output,
    tracker: Tracker<Row>,
    pending: std::collections::HashMap<i64, FileRecord>,
    next: i64,
    answers: (Sender<Answer>, Receiver<Answer>),
    rejected: Vec<(Place, Rejection)>,
    progress: ProgressBar,
    written: u64,
}

/// What is written for a record, or nothing where it was rejected.
type Row = Option<Map<String, Value>>;

impl<'a> Classifier<'a> {
    fn new(host: &'a ModelHost, args: &'a ClassifyArgs, output: Output) -> Self {
        let to_file = args.output.is_some() && std::io::stderr().is_terminal();
        let progress = if to_file { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {human_pos} records, {per_sec}") {
            progress.set_style(style);
        }
        Self {
            host,
            args,
            models: host.models.values().cloned().collect(),
            output,
            tracker: Tracker::default(),
            pending: std::collections::HashMap::new(),
            next: 0,
            answers: crossbeam_channel::bounded(IN_FLIGHT_MAX),
            rejected: Vec::new(),
            progress,
            written: 0,
        }
    }

    fn submit(&mut self, record: FileRecord) -> anyhow::Result<()> {
        let ticket = self.next;
        self.next += 1;
        self.tracker.register(ticket)?;
        match self.prepare(&record) {
            Err(rejection) => {
                self.rejected.push((record.place, rejection));
                self.tracker.finish(ticket, None)?;
            }
            Ok(inputs) => {
                self.pending.insert(ticket, record);
                let answers = self.answers.0.clone();
                let done = move |result| {
                    let _ = answers.send((ticket, result));
                };
                self.host.engine.submit(Job { priority: Priority::Live, inputs, done: Box::new(done) });
            }
        }
        while let Ok(answer) = self.answers.1.try_recv() {
            self.take(answer)?;
        }
        while self.pending.len() >= IN_FLIGHT_MAX {
            let answer = self.answers.1.recv()?;
            self.take(answer)?;
        }
        self.write()
    }

    fn prepare(&self, record: &FileRecord) -> Result<Vec<crate::engine::job::JobInput>, Rejection> {
        let field = &self.args.text_field;
        let reject = |reason, message: String| Rejection::new(crate::domain::rejection::Stage::Decode, reason, message);
        match record.fields.get(field) {
            Some(Value::String(text)) if !text.trim().is_empty() => {
                intake::tokenize(text, file::RECORD_BYTES_MAX, &self.models)
            }
            Some(Value::String(_)) => Err(reject("text_empty", format!("the text in `{field}` is empty"))),
            Some(_) => Err(reject("field_type", format!("`{field}` must be a string"))),
            None => {
                Err(reject("text_missing", format!("there is no field `{field}`; name the text's with `--text-field`")))
            }
        }
    }

    fn take(&mut self, (ticket, result): Answer) -> anyhow::Result<()> {
        let Some(record) = self.pending.remove(&ticket) else { return Ok(()) };
        let row = match intake::labels(&self.models, result) {
            Ok(labels) => labels.first().map(|label| Self::row(record.fields, label)),
            Err(rejection) => {
                self.rejected.push((record.place, rejection));
                None
            }
        };
        self.tracker.finish(ticket, row)?;
        Ok(())
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
        fields
    }

    fn write(&mut self) -> anyhow::Result<()> {
        let Some(prefix) = self.tracker.take_prefix(usize::MAX) else { return Ok(()) };
        for row in prefix.records.into_iter().flatten() {
            let output = self.output.writer();
            serde_json::to_writer(&mut *output, &row)?;
            output.write_all(b"\n")?;
            self.written += 1;
        }
        self.progress.set_position(self.written);
        Ok(())
    }

    fn finish(mut self, name: &str, bad: &mut u64) -> anyhow::Result<u64> {
        while !self.pending.is_empty() {
            let answer = self.answers.1.recv()?;
            self.take(answer)?;
            self.write()?;
        }
        self.write()?;
        self.output.finish()?;
        self.progress.finish_and_clear();
        for (place, rejection) in &self.rejected {
            *bad += 1;
            let error = FileError::Record { name: name.into(), place: *place, problem: rejection.message.clone() };
            eprintln!("{error}");
        }
        Ok(self.written)
    }
}

/// Six decimals: what a `f32` softmax carries.
fn rounded(probability: f32) -> Value {
    Number::from_f64((f64::from(probability) * 1e6).round() / 1e6).map_or(Value::Null, Value::Number)
}
