//! `model.toml`: what a model folder says of itself.

use std::{collections::BTreeMap, num::NonZeroUsize};

use serde::Deserialize;

use crate::{domain::early_exit::EarlyExits, text::tokenize::Windowed};

/// The manifest format this program reads.
pub const FORMAT: u32 = 3;

/// The architecture this program runs.
pub const ARCHITECTURE: &str = "albert";

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub format: u32,
    pub name: String,
    /// Changes whenever what it says of a text does; stored with every label.
    pub version: String,
    /// What the model decides, such as `sentiment`.
    pub task: String,
    /// In the order of the logits.
    pub labels: Vec<String>,
    /// ISO 639-1 codes of the languages it was trained for; empty where it takes any.
    pub languages: Vec<String>,
    pub description: String,
    /// SPDX expression, or `unknown`.
    pub license: String,
    pub architecture: Architecture,
    pub input: Input,
    pub graphs: Graphs,
    pub calibration: Calibration,
    /// Only of stepped graphs; written by `albertine model calibrate`.
    pub early_exit: Option<EarlyExits>,
    pub verification: Verification,
    /// SHA-256 of every other file of the folder that the program reads, in hexadecimal.
    pub sha256: BTreeMap<String, String>,
    pub provenance: Provenance,
    /// Measured figures, by name.
    pub accuracy: BTreeMap<String, f64>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Architecture {
    pub kind: String,
    pub hidden_size: NonZeroUsize,
    /// How often the network applies a layer: where it is stepped, each of its layers equally often.
    pub passes: NonZeroUsize,
    pub vocabulary_size: NonZeroUsize,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Whether it reads `text` and `text_pair`, in this order.
    pub pair: bool,
    /// Only of pairs; `text` unless given.
    pub windowed: Option<Windowed>,
    /// Tokens of one window, special tokens included.
    pub max_length: NonZeroUsize,
    /// Tokens shared by neighbouring windows of a long document.
    pub window_overlap: usize,
}

impl Input {
    /// Which text of a pair is cut; `None` for single texts.
    pub fn pair(&self) -> Option<Windowed> {
        self.pair.then(|| self.windowed.unwrap_or_default())
    }
}

/// The network as ONNX files.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Graphs {
    /// In parts. A pass is a call of one layer: of the one that all share, or of each in turn, the first behind the last.
    Stepped { embed: String, layers: Vec<String>, head: String, precision: Precision },
    /// As a whole: networks that apply their layers in another order.
    Unrolled { model: String, precision: Precision },
}

impl Graphs {
    pub fn precision(&self) -> Precision {
        match self {
            Self::Stepped { precision, .. } | Self::Unrolled { precision, .. } => *precision,
        }
    }

    /// As the manifest names it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Stepped { .. } => "stepped",
            Self::Unrolled { .. } => "unrolled",
        }
    }
}

/// In what the weights of the layers are multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    Float32,
    Int8,
}

impl Precision {
    /// As the manifest names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Int8 => "int8",
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Divides the logits before the softmax; above zero.
    pub temperature: f32,
    /// How far the windows of a document count as independent, from 0 to 1; written by `albertine model calibrate`.
    #[serde(default)]
    pub window_independence: f32,
}

/// What only `albertine model verify` reads.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verification {
    /// Texts with the exporter's token ids and logits.
    pub corpus: String,
    /// The stepped network once more, as one graph.
    pub unrolled: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    pub recipe: String,
    /// Empty where there was none.
    pub teacher: String,
    pub data: Vec<String>,
    /// The checkpoint it was converted from.
    pub source: String,
}
