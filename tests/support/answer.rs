//! What the program answered, as a process that has ended.

use std::process::Command;

use serde_json::Value;

use super::pipeline::output;

/// What a command answered.
#[derive(Debug)]
pub struct Answer {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Answer {
    pub fn of(command: &mut Command, input: &str) -> Self {
        let (code, stdout, stderr) = output(command, input);
        Self { code, stdout, stderr }
    }

    /// Fails unless it ended with this exit code.
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// Fails unless the standard error holds the text.
    pub fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "the standard error does not say `{text}`: {self:#?}");
        self
    }

    /// Fails unless the standard output holds the text.
    pub fn prints(self, text: &str) -> Self {
        assert!(self.stdout.contains(text), "the standard output does not hold `{text}`: {self:#?}");
        self
    }

    /// The standard output as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}
