//! Opens a model folder: reads the manifest, checks it and the hash of every file, builds the tokenizer.
//!
//! A folder is untrusted input: file names cannot leave it, sizes are bounded, and the bytes that were
//! hashed are the bytes that are used. It does not run the graphs; the engine's session checks their
//! inputs and shapes when it opens them.

use std::{
    collections::BTreeSet,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use sha2::{Digest, Sha256};

use super::manifest::{FORMAT, Manifest};
use crate::{
    domain::label::{Label, argmax, softmax, weighted_mean},
    text::{
        language,
        tokenize::{TextTokenizer, TokenizeError, TokenizerLimits},
    },
};

const MANIFEST_FILE: &str = "model.toml";
const TOKENIZER_FILE: &str = "tokenizer.json";

/// A manifest is a page of text; a larger file is not one.
const MANIFEST_BYTES_MAX: u64 = 1 << 20;
/// The largest published ALBERT (xxlarge, 223 M parameters in fp32) has 890 MB; a file above 2 GiB cannot
/// be one ONNX protobuf message.
const FILE_BYTES_MAX: u64 = 1 << 31;

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
    pub hidden_size: usize,
    /// How often the shared layer is applied.
    pub passes: usize,
    temperature: f32,
}

/// The three ONNX graphs, as hashed.
pub struct GraphBytes {
    pub embed: Vec<u8>,
    pub layer: Vec<u8>,
    pub head: Vec<u8>,
}

/// A model folder cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("model folder `{}`: {problem}", folder.display())]
pub struct ModelError {
    pub folder: PathBuf,
    pub problem: ModelProblem,
}

/// What is wrong with a model folder.
#[derive(Debug, thiserror::Error)]
pub enum ModelProblem {
    #[error("cannot read `{file}`: {source}")]
    Unreadable { file: String, source: std::io::Error },
    #[error("`{file}` has more than {limit} bytes")]
    TooLarge { file: String, limit: u64 },
    #[error("`{file}` is not a plain file name: files of a model lie in its own folder")]
    FileName { file: String },
    #[error("`model.toml` is not a manifest: {0}")]
    Manifest(String),
    #[error("`model.toml` has format `{0}`, and this program reads up to `{FORMAT}`: upgrade albertine")]
    NewerFormat(u32),
    #[error("`{field}` in `model.toml` {problem}")]
    Field { field: &'static str, problem: String },
    #[error("`{file}` is loaded but has no entry under `[sha256]` in `model.toml`")]
    HashMissing { file: String },
    #[error(
        "`{file}` has SHA-256 `{found}`, not `{expected}` as `model.toml` says: the file is damaged or was replaced; restore the folder"
    )]
    HashMismatch { file: String, expected: String, found: String },
    #[error("`tokenizer.json`: {0}")]
    Tokenizer(#[from] TokenizeError),
}

impl Model {
    /// Opens the folder at `folder`.
    ///
    /// # Errors
    /// [`ModelError`] with the folder and the first thing that is wrong with it.
    pub fn open(folder: &Path) -> Result<Self, ModelError> {
        open(folder).map_err(|problem| ModelError { folder: folder.to_owned(), problem })
    }

    /// The same model under the name a configuration gives it, which is the name its labels carry: two
    /// versions of a model can run side by side.
    pub fn named(self, name: &str) -> Self {
        Self { name: name.into(), ..self }
    }

    /// Whether it was trained for texts in this language.
    pub fn knows(&self, language: &str) -> bool {
        self.languages.is_empty() || self.languages.iter().any(|known| known == language)
    }

    /// One label from the logits of a document's windows, each with the window's weight.
    ///
    /// `None` where a logit is not a number, or their count is not that of the labels.
    pub fn label(&self, windows: &[(usize, Vec<f32>)]) -> Option<Label> {
        let distributions: Vec<_> =
            windows.iter().map(|(weight, logits)| (*weight, softmax(logits, self.temperature))).collect();
        let probabilities = weighted_mean(&distributions);
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
            depth: u16::try_from(self.passes).unwrap_or(u16::MAX),
        })
    }
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
    let manifest = read_manifest(folder)?;
    let load = |file: &str| read_hashed(folder, file, &manifest);
    let graphs = GraphBytes {
        embed: load(&manifest.graphs.embed)?,
        layer: load(&manifest.graphs.layer)?,
        head: load(&manifest.graphs.head)?,
    };
    let limits = TokenizerLimits {
        max_length: manifest.input.max_length.get(),
        overlap: manifest.input.window_overlap,
        vocabulary_size: manifest.architecture.vocabulary_size.get(),
    };
    let tokenizer = TextTokenizer::from_bytes(&load(TOKENIZER_FILE)?, limits)?;
    Ok(Model {
        name: manifest.name.into(),
        version: manifest.version.into(),
        task: manifest.task.into(),
        labels: manifest.labels.into_iter().map(Into::into).collect(),
        languages: manifest.languages,
        tokenizer,
        graphs,
        hidden_size: manifest.architecture.hidden_size.get(),
        passes: manifest.architecture.passes.get(),
        temperature: manifest.calibration.temperature,
    })
}

fn read_manifest(folder: &Path) -> Result<Manifest, ModelProblem> {
    let bytes = read_bounded(folder, MANIFEST_FILE, MANIFEST_BYTES_MAX)?;
    let text = String::from_utf8(bytes).map_err(|error| ModelProblem::Manifest(error.to_string()))?;
    // The format is read by itself first: a newer manifest has fields this program cannot know.
    let format = text
        .parse::<toml::Table>()
        .map_err(|error| ModelProblem::Manifest(error.to_string()))?
        .get("format")
        .and_then(toml::Value::as_integer)
        .and_then(|format| u32::try_from(format).ok());
    if let Some(newer) = format.filter(|format| *format > FORMAT) {
        return Err(ModelProblem::NewerFormat(newer));
    }
    let manifest: Manifest = toml::from_str(&text).map_err(|error| ModelProblem::Manifest(error.to_string()))?;
    validate(&manifest)?;
    Ok(manifest)
}

fn validate(manifest: &Manifest) -> Result<(), ModelProblem> {
    let field = |field, problem: String| Err(ModelProblem::Field { field, problem });
    for (name, value) in [("name", &manifest.name), ("version", &manifest.version), ("task", &manifest.task)] {
        if value.is_empty() || value.contains('\0') || value.contains('/') {
            return field(name, "must not be empty, and must not hold a slash".into());
        }
    }
    let distinct: BTreeSet<_> = manifest.labels.iter().collect();
    if manifest.labels.len() < 2 || distinct.len() != manifest.labels.len() {
        return field("labels", format!("must name at least two different labels, not {:?}", manifest.labels));
    }
    if let Some(unknown) = manifest.languages.iter().find(|code| language::of_tag(code) != Some(code.as_str())) {
        return field(
            "languages",
            format!("must be ISO 639-1 codes such as `en`, not `{unknown}`; leave it empty for any"),
        );
    }
    let temperature = manifest.calibration.temperature;
    if !(temperature.is_finite() && temperature > 0.0) {
        return field("calibration.temperature", format!("must be above zero, not `{temperature}`"));
    }
    Ok(())
}

fn read_hashed(folder: &Path, file: &str, manifest: &Manifest) -> Result<Vec<u8>, ModelProblem> {
    let expected = manifest.sha256.get(file).ok_or_else(|| ModelProblem::HashMissing { file: file.to_owned() })?;
    let bytes = read_bounded(folder, file, FILE_BYTES_MAX)?;
    let found: String = hex::encode(Sha256::digest(&bytes));
    if found.eq_ignore_ascii_case(expected) {
        Ok(bytes)
    } else {
        Err(ModelProblem::HashMismatch { file: file.to_owned(), expected: expected.clone(), found })
    }
}

fn read_bounded(folder: &Path, file: &str, limit: u64) -> Result<Vec<u8>, ModelProblem> {
    let is_plain = Path::new(file).file_name().is_some_and(|name| name == file);
    if !is_plain {
        return Err(ModelProblem::FileName { file: file.to_owned() });
    }
    let unreadable = |source| ModelProblem::Unreadable { file: file.to_owned(), source };
    let mut bytes = Vec::new();
    let opened = File::open(folder.join(file)).map_err(unreadable)?;
    opened.take(limit + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > limit {
        return Err(ModelProblem::TooLarge { file: file.to_owned(), limit });
    }
    Ok(bytes)
}
