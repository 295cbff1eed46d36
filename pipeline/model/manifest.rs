//! `model.toml`: what a model folder says of itself.

use std::{collections::BTreeMap, num::NonZeroUsize};

use serde::Deserialize;

/// The newest manifest format this program reads.
pub const FORMAT: u32 = 1;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub format: u32,
    pub name: String,
    /// Changes whenever the weights do; stored with every label.
    pub version: String,
    /// What the model decides, such as `sentiment`.
    pub task: String,
    /// In the order of the logits.
    pub labels: Vec<String>,
    /// ISO 639-1 codes of the languages it was trained for; empty where it takes any.
    pub languages: Vec<String>,
    pub description: String,
    /// SPDX expression.
    pub license: String,
    pub architecture: Architecture,
    pub input: Input,
    pub graphs: Graphs,
    pub calibration: Calibration,
    /// SHA-256 of every file the program loads, in hexadecimal.
    pub sha256: BTreeMap<String, String>,
    pub provenance: Provenance,
    /// Measured figures, by name.
    pub accuracy: BTreeMap<String, f64>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Architecture {
    pub kind: Kind,
    pub hidden_size: NonZeroUsize,
    /// How often the shared layer is applied.
    pub passes: NonZeroUsize,
    pub vocabulary_size: NonZeroUsize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Albert,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Tokens of one window, special tokens included.
    pub max_length: NonZeroUsize,
    /// Tokens shared by neighbouring windows of a long document.
    pub window_overlap: usize,
}

/// The network in three parts, so that the shared layer can be called once a pass.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Graphs {
    pub embed: String,
    pub layer: String,
    pub head: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Divides the logits before the softmax; above zero.
    pub temperature: f32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    pub recipe: String,
    pub teacher: String,
    pub data: Vec<String>,
}
