//! Opens a model folder: the manifest, the graphs, looked into, and the tokenizer.
//!
//! It does not run the graphs; the engine's session checks their inputs and shapes when it opens them. What only
//! `albertine model verify` needs is not read.

use std::{path::Path, sync::Arc};

use bytes::Bytes;

use super::{
    files::{ModelError, ModelFolder, ModelProblem},
    graph::Graph,
    manifest::{Graphs, Manifest},
};
use crate::{
    domain::{
        early_exit::EarlyExits,
        label::{Label, argmax},
        window_pooling::{PooledWindow, pooled},
    },
    text::tokenize::{TextTokenizer, TokenizerLimits},
};

/// A model that was checked and can be served. Cheap to share, expensive to open.
pub struct Model {
    pub name: Arc<str>,
    pub version: Arc<str>,
    pub task: Arc<str>,
    /// In the order of the logits.
    pub labels: Arc<[Arc<str>]>,
    /// ISO 639-1 codes of the languages it was trained for; empty where it takes any.
    pub languages: Vec<String>,
    pub tokenizer: TextTokenizer,
    pub graphs: GraphBytes,
    /// How often the network applies a layer.
    pub passes: usize,
    /// When a text leaves before the last pass; `None` where every text goes all the way.
    pub early_exit: Option<Arc<EarlyExits>>,
    /// Divides the logits of the last pass where every text goes all the way.
    pub temperature: f32,
    /// How far the windows of a document count as independent; see [`pooled`].
    pub window_independence: f32,
}

/// What the network said of one window.
#[derive(Debug, Clone, PartialEq)]
pub struct WindowLogits {
    /// One for each label.
    pub logits: Vec<f32>,
    /// The pass after which they were taken, counted from 1.
    pub depth: usize,
}

/// The ONNX graphs, as hashed.
#[derive(Clone)]
pub enum GraphBytes {
    /// A layer is called once a pass, each in turn.
    Stepped {
        embed: Bytes,
        layers: Vec<Bytes>,
        head: Bytes,
    },
    Unrolled {
        model: Bytes,
    },
}

impl GraphBytes {
    /// The graphs whose files a manifest names, each as `load` gives it, in the order in which they run.
    ///
    /// # Errors
    /// The first one of `load`.
    pub fn of<E>(graphs: &Graphs, mut load: impl FnMut(&str) -> Result<Bytes, E>) -> Result<Self, E> {
        Ok(match graphs {
            Graphs::Stepped { embed, layers, head, .. } => Self::Stepped {
                embed: load(embed)?,
                layers: layers.iter().map(|layer| load(layer)).collect::<Result<_, _>>()?,
                head: load(head)?,
            },
            Graphs::Unrolled { model, .. } => Self::Unrolled { model: load(model)? },
        })
    }

    /// Every graph, in the order in which they run.
    pub fn all(&self) -> Vec<&Bytes> {
        match self {
            Self::Stepped { embed, layers, head } => [embed].into_iter().chain(layers).chain([head]).collect(),
            Self::Unrolled { model } => vec![model],
        }
    }
}

impl Model {
    /// Opens the folder at `folder`.
    ///
    /// # Errors
    /// [`ModelError`] with the folder and the first thing that is wrong with it.
    pub fn open(folder: &Path) -> Result<Self, ModelError> {
        open(folder).map_err(|problem| ModelError { folder: folder.to_owned(), problem })
    }

    /// A model of parts that were read and checked.
    pub fn of(manifest: &Manifest, graphs: GraphBytes, tokenizer: TextTokenizer) -> Self {
        Self {
            name: manifest.name.as_str().into(),
            version: manifest.version.as_str().into(),
            task: manifest.task.as_str().into(),
            labels: manifest.labels.iter().map(|label| label.as_str().into()).collect(),
            languages: manifest.languages.clone(),
            tokenizer,
            graphs,
            passes: manifest.architecture.passes.get(),
            early_exit: manifest.early_exit.clone().map(Arc::new),
            temperature: manifest.calibration.temperature,
            window_independence: manifest.calibration.window_independence,
        }
    }

    /// The same model under the name a configuration gives it, which is the name its labels carry: two
    /// versions of a model can run side by side.
    pub fn named(self, name: &str) -> Self {
        Self { name: name.into(), ..self }
    }

    /// The same model, every text of which goes all the way.
    pub fn at_full_depth(self) -> Self {
        Self { early_exit: None, ..self }
    }

    /// Whether it was trained for texts in this language.
    pub fn knows(&self, language: &str) -> bool {
        self.languages.is_empty() || self.languages.iter().any(|known| known == language)
    }

    /// One label from what the network said of a document's windows, each with the window's weight.
    ///
    /// `None` where a logit is not a number, or their count is not that of the labels.
    pub fn label(&self, windows: &[(usize, WindowLogits)]) -> Option<Label> {
        let of_document = windows.iter().map(|(weight, window)| PooledWindow {
            weight: *weight,
            logits: &window.logits,
            temperature: self.temperature_at(window.depth, windows.len()),
        });
        let probabilities = pooled(&of_document.collect::<Vec<_>>(), self.window_independence);
        let best = argmax(&probabilities)?;
        if probabilities.len() != self.labels.len() || probabilities.iter().any(|probability| !probability.is_finite())
        {
            return None;
        }
        Some(Label {
            task: self.task.clone(),
            model: self.name.clone(),
            model_version: self.version.clone(),
            label: self.labels[best].clone(),
            classes: Arc::clone(&self.labels),
            confidence: probabilities[best],
            probabilities,
            depth: windows.iter().map(|(_, window)| window.depth).max().map_or(0, saturated),
        })
    }

    /// Of a window of a document of so many, which left after pass `depth`.
    fn temperature_at(&self, depth: usize, windows: usize) -> f32 {
        let exit = self.early_exit.as_ref().and_then(|exits| exits.of(windows));
        let of_pass = exit.and_then(|exit| exit.temperatures.get(depth.checked_sub(1)?));
        of_pass.copied().unwrap_or(self.temperature)
    }
}

fn saturated(depth: usize) -> u16 {
    u16::try_from(depth).unwrap_or(u16::MAX)
}

impl std::fmt::Debug for Model {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Model")
            .field("name", &self.name)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

fn open(folder: &Path) -> Result<Model, ModelProblem> {
    let folder = ModelFolder::open(folder)?;
    let graphs = GraphBytes::of(&folder.manifest.graphs, |file| {
        let bytes = folder.graph(file)?;
        let looked_into = Graph::read(&bytes);
        looked_into.map_err(|source| ModelProblem::Graph { file: file.to_owned(), source })?;
        Ok::<_, ModelProblem>(bytes)
    })?;
    let tokenizer = TextTokenizer::from_bytes(&folder.tokenizer()?, tokenizer_limits(&folder.manifest))?;
    Ok(Model::of(&folder.manifest, graphs, tokenizer))
}

/// What a tokenizer has to fit, by the manifest.
pub fn tokenizer_limits(manifest: &Manifest) -> TokenizerLimits {
    TokenizerLimits {
        max_length: manifest.input.max_length.get(),
        overlap: manifest.input.window_overlap,
        vocabulary_size: manifest.architecture.vocabulary_size.get(),
        pair: manifest.input.pair(),
    }
}
