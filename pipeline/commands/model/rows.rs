//! The rows of a file with true labels, for the commands that need them.

use std::path::PathBuf;

use super::truth::{Truth, word};
use crate::{
    commands::{labeller::TextFields, progress::FileProgress},
    source::file::{self, FileError, FileFormat, FileRecord, Place, Records},
};

#[derive(Debug, clap::Args)]
pub struct RowArgs {
    /// The file; `-` for the standard input
    file: PathBuf,
    /// How the records are written [default: by the file's name or content]
    #[arg(long, env = "ALBERTINE_MODEL_FORMAT", value_enum)]
    format: Option<FileFormat>,
    /// The field that holds the text
    #[arg(long, env = "ALBERTINE_MODEL_TEXT_FIELD", default_value = "text", value_name = "FIELD")]
    text_field: String,
    /// The field that holds the second text, for models that read pairs
    #[arg(long, env = "ALBERTINE_MODEL_TEXT_PAIR_FIELD", value_name = "FIELD")]
    text_pair_field: Option<String>,
    /// The field that holds the true label
    #[arg(long, env = "ALBERTINE_MODEL_LABEL_FIELD", default_value = "label", value_name = "FIELD")]
    pub label_field: String,
    /// What a value of the true label is called by the model; `VALUE=` leaves such rows out
    #[arg(long, value_name = "VALUE=LABEL", value_parser = parse_equation)]
    pub map: Vec<(String, String)>,
    /// Only rows whose field has this value
    #[arg(long = "where", value_name = "FIELD=VALUE", value_parser = parse_equation)]
    conditions: Vec<(String, String)>,
    /// Only so many rows, from the first on
    #[arg(long, value_name = "ROWS")]
    limit: Option<u64>,
}

impl RowArgs {
    /// Where the texts lie in a row.
    pub fn text_fields(&self) -> TextFields<'_> {
        TextFields { text: &self.text_field, text_pair: self.text_pair_field.as_deref() }
    }
}

/// What stands left and right of the first `=`. Of which form it has to be, clap says.
fn parse_equation(text: &str) -> Result<(String, String), &'static str> {
    let (left, right) = text.split_once('=').ok_or("there is no `=` in it")?;
    Ok((left.to_owned(), right.to_owned()))
}

/// Reads the rows, and counts those that cannot be used.
pub struct Rows<'a> {
    /// Of the file.
    pub name: String,
    /// Rows of classes that are not looked at.
    pub left_out: u64,
    /// Rows that could not be used.
    pub bad: u64,
    args: &'a RowArgs,
    truth: &'a Truth<'a>,
    records: Records,
    limit: u64,
    progress: FileProgress,
}

impl<'a> Rows<'a> {
    /// Opens the file.
    ///
    /// # Errors
    /// Where it cannot be read, or its format cannot be told.
    pub fn open(args: &'a RowArgs, truth: &'a Truth<'a>) -> anyhow::Result<Self> {
        let mut input = file::open(Some(&args.file))?;
        let name = input.name.clone();
        let format = input.format(args.format)?;
        let progress = FileProgress::new(&input);
        let (records, limit) = (input.records(format)?, args.limit.unwrap_or(u64::MAX));
        Ok(Self { name, left_out: 0, bad: 0, args, truth, records, limit, progress })
    }

    /// The next row that can be used, with the class it truly is of.
    ///
    /// # Errors
    /// Where the file cannot be read on.
    pub fn next(&mut self) -> anyhow::Result<Option<(FileRecord, usize)>> {
        while self.limit > 0 {
            let record = match self.records.next() {
                None => return Ok(None),
                Some(Ok(record)) if !self.fits(&record) => continue,
                Some(Ok(record)) => record,
                Some(Err(error)) if error.is_one_record() => {
                    self.limit -= 1;
                    self.report(&error);
                    continue;
                }
                Some(Err(error)) => return Err(error.into()),
            };
            self.limit -= 1;
            match self.truth.of(&record.fields) {
                Ok(Some(truth)) => return Ok(Some((record, truth))),
                Ok(None) => self.left_out += 1,
                Err(problem) => self.reject(record.place, problem),
            }
        }
        Ok(None)
    }

    /// A row that turned out not to be usable.
    pub fn reject(&mut self, place: Place, problem: String) {
        self.report(&FileError::Record { name: self.name.clone(), place, problem });
    }

    /// So many more rows are done with.
    pub fn done(&mut self, rows: usize) {
        self.progress.add(rows);
    }

    fn fits(&self, record: &FileRecord) -> bool {
        let mut conditions = self.args.conditions.iter();
        conditions.all(|(field, wanted)| record.fields.get(field).is_some_and(|value| word(value) == *wanted))
    }

    fn report(&mut self, error: &FileError) {
        self.bad += 1;
        self.progress.say(error);
    }
}
