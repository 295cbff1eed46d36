//! Checks as lines for people: `ok`, `failed` with cause and remedy, or `skipped` with the reason.

use std::{fmt::Display, io::Write};

use owo_colors::OwoColorize;

use super::{message, wants_colour};

/// Writes the lines, and counts what failed.
#[derive(Default)]
pub struct Report {
    pub failures: usize,
}

impl Report {
    /// Writes a line. Returns whether all is well.
    pub fn line(&mut self, what: impl Display, result: anyhow::Result<String>) -> std::io::Result<bool> {
        match result {
            Ok(detail) => write_line("ok      ", &"ok".green(), what, detail)?,
            Err(error) => {
                self.failures += 1;
                write_line("failed  ", &"failed".red().bold(), what, message(&error))?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes a line for what an earlier failure leaves unchecked.
    #[expect(clippy::unused_self, reason = "every line is the report's")]
    pub fn skipped(&self, what: impl Display, reason: &str) -> std::io::Result<()> {
        write_line("skipped ", &"skipped".yellow(), what, reason)
    }
}

/// `word` begins the line; `coloured` is the same word for a terminal.
fn write_line(word: &str, coloured: &impl Display, what: impl Display, detail: impl Display) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if wants_colour(&out) {
        let width = word.trim_end().len();
        writeln!(out, "{coloured}{} {what}: {detail}", " ".repeat(7 - width))
    } else {
        writeln!(out, "{word}{what}: {detail}")
    }
}
