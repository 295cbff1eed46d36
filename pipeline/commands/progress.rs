//! How far a command is, as a bar on a terminal.

use std::{fmt::Display, io::IsTerminal};

use indicatif::{ProgressBar, ProgressStyle};

use crate::source::file::{Consumed, Input};

/// A bar on standard error, or a spinner where the length is not known; nothing where that is no terminal.
pub fn bar(length: Option<u64>, template: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = length.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// How far the reading of a file is: a bar where the file's size is known, else a count.
pub struct FileProgress {
    bar: ProgressBar,
    consumed: Consumed,
    records: u64,
}

impl FileProgress {
    /// For an input that is about to be read.
    pub fn new(input: &Input) -> Self {
        let template = match input.size {
            Some(_) => "{wide_bar} {percent}%  {msg}, {eta} left",
            None => "{spinner} {msg}",
        };
        Self { bar: bar(input.size, template), consumed: input.consumed.clone(), records: 0 }
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

/// How far a check is that takes row after row, of several checks that follow each other.
pub struct CheckProgress(ProgressBar);

impl CheckProgress {
    /// Shows nothing yet.
    pub fn new() -> Self {
        Self(bar(Some(1), "{wide_bar} {percent}%  {msg}, {eta} left"))
    }

    /// So many of the rows of `check` are done; none of them where it begins.
    pub fn rows(&self, check: &'static str, done: usize, rows: usize) {
        if done == 0 {
            self.0.set_length(rows as u64);
            self.0.set_message(check);
            self.0.reset();
        }
        self.0.set_position(done as u64);
    }

    /// Takes the bar away, so that a line can be written.
    pub fn clear(&self) {
        self.0.finish_and_clear();
    }
}
