//! How commands show what they found: as a table for people, as JSON for programs.

use std::{io::Write, time::Duration};

use bytesize::ByteSize;
use chrono::{DateTime, Utc};
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use indicatif::HumanDuration;
use serde_json::Value;

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputFormat {
    /// For people
    Table,
    /// For programs
    Json,
}

/// One cell: numbers stand to the right, so that they can be compared.
pub enum Shown {
    Text(String),
    Number(String),
}

impl From<&str> for Shown {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Shown {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// A number, or a dash where there is none.
pub fn number<T: ToString>(number: Option<T>) -> Shown {
    Shown::Number(number.map_or_else(|| "-".into(), |number| number.to_string()))
}

/// A size in bytes, for people.
pub fn size(bytes: u64) -> Shown {
    Shown::Number(ByteSize(bytes).to_string())
}

/// How long ago, in its largest unit; a dash where it never was.
pub fn age(time: Option<DateTime<Utc>>) -> Shown {
    let since = |time: DateTime<Utc>| (Utc::now() - time).to_std().unwrap_or(Duration::ZERO);
    Shown::Number(time.map_or_else(|| "-".into(), |time| HumanDuration(since(time)).to_string()))
}

/// Rows below their heads, without lines, so that they can be cut and searched.
pub fn table(heads: &[&str], rows: impl IntoIterator<Item = Vec<Shown>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(heads);
    for row in rows {
        table.add_row(row.into_iter().map(|shown| match shown {
            Shown::Text(text) => Cell::new(text),
            Shown::Number(number) => Cell::new(number).set_alignment(CellAlignment::Right),
        }));
    }
    table.lines().fold(String::new(), |text, line| text + line.trim_end() + "\n")
}

/// Writes a JSON value on the standard output.
pub fn print_json(value: &Value) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{value:#}")?;
    Ok(())
}
