//! How far the reading of a file is, on a terminal: a bar where the file's size is known, else a count.

use std::{fmt::Display, io::IsTerminal};

use indicatif::{ProgressBar, ProgressStyle};

use crate::source::file::{Consumed, Input};

/// A bar on standard error; nothing where that is no terminal.
pub struct FileProgress {
    bar: ProgressBar,
    consumed: Consumed,
    records: u64,
}

impl FileProgress {
    /// For an input that is about to be read.
    pub fn new(input: &Input) -> Self {
        let template = match input.size {
            _ if !std::io::stderr().is_terminal() => None,
            Some(_) => Some("{wide_bar} {percent}%  {msg}, {eta} left"),
            None => Some("{spinner} {msg}"),
        };
        let bar = template.map_or_else(ProgressBar::hidden, |template| {
            let bar = input.size.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
            ProgressStyle::with_template(template).map(|style| bar.clone().with_style(style)).unwrap_or(bar)
        });
        Self { bar, consumed: input.consumed.clone(), records: 0 }
    }

    /// Shows nothing.
    pub fn hidden(input: &Input) -> Self {
        Self { bar: ProgressBar::hidden(), consumed: input.consumed.clone(), records: 0 }
    }

    /// More records are done.
    pub fn add(&mut self, records: usize) {
        self.records += records as u64;
        self.bar.set_position(self.consumed.bytes());
        let rate = self.records as f64 / self.bar.elapsed().as_secs_f64().max(0.001);
        self.bar.set_message(format!("{} records, {rate:.0} a second", self.records));
    }

    /// Writes a line on standard error, above the bar.
    pub fn say(&self, line: &dyn Display) {
        self.bar.suspend(|| eprintln!("{line}"));
    }
}

impl Drop for FileProgress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
