//! A record that cannot be labelled: where it stood, at which stage it failed, and why.
//!
//! A rejected record is a finished record. It takes its place in the tracker like any other, so it never
//! moves a position early and never blocks its partition.

/// The stage that gave up on the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    Decode,
    Tokenize,
    Infer,
    Store,
}

impl Stage {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Tokenize => "tokenize",
            Self::Infer => "infer",
            Self::Store => "store",
        }
    }
}

/// Why a record was rejected. The message never holds the record's text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Rejection {
    pub stage: Stage,
    /// A stable word to group by, such as `text_missing`.
    pub reason: &'static str,
    /// What was expected and what was found, with the field.
    pub message: String,
}

impl Rejection {
    pub fn new(stage: Stage, reason: &'static str, message: impl Into<String>) -> Self {
        Self { stage, reason, message: message.into() }
    }
}
