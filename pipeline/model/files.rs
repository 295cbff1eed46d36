//! The files of a model folder: the manifest, read and checked, and every other file with its hash.
//!
//! A folder is untrusted input: no file name and no link leads out of it, sizes are bounded, and the bytes that were
//! hashed are the bytes that are used.

use std::{
    collections::BTreeSet,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{
    graph::GraphError,
    manifest::{ARCHITECTURE, FORMAT, Graphs, Manifest},
};
use crate::text::{language, tokenize::TokenizeError};

pub const MANIFEST_FILE: &str = "model.toml";
pub const TOKENIZER_FILE: &str = "tokenizer.json";

/// A manifest is a page of text; a larger file is not one.
const MANIFEST_BYTES_MAX: u64 = 1 << 20;
/// The largest published ALBERT (xxlarge, 223 M parameters in fp32) has 890 MB; a file above 2 GiB cannot
/// be one ONNX protobuf message.
const GRAPH_BYTES_MAX: u64 = 1 << 31;
/// A vocabulary of a million pieces has less.
const TOKENIZER_BYTES_MAX: u64 = 256 << 20;
/// A hundred thousand texts with their ids and logits.
const CORPUS_BYTES_MAX: u64 = 64 << 20;

/// Attention takes memory by the square of a window's tokens. Every published ALBERT has 512 positions.
const WINDOW_TOKENS_MAX: usize = 8192;
/// The deepest published ALBERT has 12.
const PASSES_MAX: usize = 1024;

/// A folder whose manifest is in order.
#[derive(Debug)]
pub struct ModelFolder {
    pub path: PathBuf,
    pub manifest: Manifest,
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
    #[error("`{file}` is a link to `{}`, out of the folder: files of a model lie in its own folder", target.display())]
    Link { file: String, target: PathBuf },
    #[error("`model.toml` is not a manifest: {0}")]
    Manifest(String),
    #[error(
        "`model.toml` has format `{0}`, older than the `{FORMAT}` that this program reads: convert the model again with `albertine-models convert`"
    )]
    OlderFormat(u32),
    #[error(
        "`model.toml` has format `{0}`, newer than the `{FORMAT}` that this program reads: upgrade albertine, or convert the model again with the `albertine-models` of this version"
    )]
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
    #[error("`{file}`: {source}")]
    Graph { file: String, source: GraphError },
}

impl ModelFolder {
    /// Reads the manifest of the folder at `path`.
    ///
    /// # Errors
    /// [`ModelProblem`] with the first thing that is wrong with it.
    pub fn open(path: &Path) -> Result<Self, ModelProblem> {
        Ok(Self { path: path.to_owned(), manifest: read_manifest(path)? })
    }

    /// A graph, with its hash compared.
    ///
    /// # Errors
    /// [`ModelProblem`] where it cannot be read, or is not the file that the manifest speaks of.
    pub fn graph(&self, file: &str) -> Result<Bytes, ModelProblem> {
        self.hashed(file, GRAPH_BYTES_MAX)
    }

    /// The tokenizer, with its hash compared.
    ///
    /// # Errors
    /// As for [`Self::graph`].
    pub fn tokenizer(&self) -> Result<Bytes, ModelProblem> {
        self.hashed(TOKENIZER_FILE, TOKENIZER_BYTES_MAX)
    }

    /// The verification corpus, with its hash compared.
    ///
    /// # Errors
    /// As for [`Self::graph`].
    pub fn corpus(&self) -> Result<Bytes, ModelProblem> {
        self.hashed(&self.manifest.verification.corpus, CORPUS_BYTES_MAX)
    }

    /// The sizes of its files together, in bytes; those that cannot be looked at count nothing.
    pub fn size(&self) -> u64 {
        let files = [MANIFEST_FILE].into_iter().chain(self.manifest.sha256.keys().map(String::as_str));
        files.filter_map(|file| std::fs::metadata(self.path.join(file)).ok()).map(|metadata| metadata.len()).sum()
    }

    fn hashed(&self, file: &str, limit: u64) -> Result<Bytes, ModelProblem> {
        let expected =
            self.manifest.sha256.get(file).ok_or_else(|| ModelProblem::HashMissing { file: file.to_owned() })?;
        let bytes = read_bounded(&self.path, file, limit)?;
        let found: String = hex::encode(Sha256::digest(&bytes));
        if found.eq_ignore_ascii_case(expected) {
            Ok(bytes.into())
        } else {
            Err(ModelProblem::HashMismatch { file: file.to_owned(), expected: expected.clone(), found })
        }
    }
}

/// Rows from a file of the user's own, in the form of a verification corpus.
///
/// # Errors
/// [`ModelProblem`] where it cannot be read, or is too large.
pub fn read_corpus(path: &Path) -> Result<Bytes, ModelProblem> {
    Ok(read_open(path, &path.display().to_string(), CORPUS_BYTES_MAX)?.into())
}

fn read_manifest(folder: &Path) -> Result<Manifest, ModelProblem> {
    let bytes = read_bounded(folder, MANIFEST_FILE, MANIFEST_BYTES_MAX)?;
    let text = String::from_utf8(bytes).map_err(|error| ModelProblem::Manifest(error.to_string()))?;
    // The format is read by itself first: another one has fields this program cannot know.
    let format = text
        .parse::<toml::Table>()
        .map_err(|error| ModelProblem::Manifest(error.to_string()))?
        .get("format")
        .and_then(toml::Value::as_integer)
        .and_then(|format| u32::try_from(format).ok());
    match format {
        Some(older) if older < FORMAT => return Err(ModelProblem::OlderFormat(older)),
        Some(newer) if newer > FORMAT => return Err(ModelProblem::NewerFormat(newer)),
        _ => {}
    }
    let manifest: Manifest = toml::from_str(&text).map_err(|error| ModelProblem::Manifest(error.to_string()))?;
    validate(&manifest)?;
    Ok(manifest)
}

fn validate(manifest: &Manifest) -> Result<(), ModelProblem> {
    let field = |field, problem: String| Err(ModelProblem::Field { field, problem });
    for (name, value) in [("name", &manifest.name), ("version", &manifest.version), ("task", &manifest.task)] {
        if value.is_empty() || value.contains('\0') || value.contains('/') {
            return field(name, "must not be empty, and must not hold a slash or a zero byte".into());
        }
    }
    let distinct: BTreeSet<_> = manifest.labels.iter().collect();
    if manifest.labels.len() < 2 || distinct.len() != manifest.labels.len() {
        return field("labels", format!("must name at least two different labels, not {:?}", manifest.labels));
    }
    if manifest.labels.iter().any(|label| label.is_empty() || label.contains('\0')) {
        return field("labels", format!("must not be empty, and must not hold a zero byte: {:?}", manifest.labels));
    }
    if let Some(unknown) = manifest.languages.iter().find(|code| language::of_tag(code) != Some(code.as_str())) {
        return field(
            "languages",
            format!("must be ISO 639-1 codes such as `en`, not `{unknown}`; leave it empty for any"),
        );
    }
    let kind = &manifest.architecture.kind;
    if kind != ARCHITECTURE {
        return field("architecture.kind", format!("is `{kind}`, and this program runs `{ARCHITECTURE}` only"));
    }
    let (max_length, passes) = (manifest.input.max_length.get(), manifest.architecture.passes.get());
    if max_length > WINDOW_TOKENS_MAX {
        return field("input.max_length", format!("must be at most {WINDOW_TOKENS_MAX}, not `{max_length}`"));
    }
    if passes > PASSES_MAX {
        return field("architecture.passes", format!("must be at most {PASSES_MAX}, not `{passes}`"));
    }
    if let Graphs::Stepped { layers, .. } = &manifest.graphs
        && (layers.is_empty() || !passes.is_multiple_of(layers.len()))
    {
        let problem =
            format!("must be called in turn, each equally often: {passes} passes are no multiple of {}", layers.len());
        return field("graphs.layers", problem);
    }
    let temperature = manifest.calibration.temperature;
    if !(temperature.is_finite() && temperature > 0.0) {
        return field("calibration.temperature", format!("must be above zero, not `{temperature}`"));
    }
    let independence = manifest.calibration.window_independence;
    if !(0.0..=1.0).contains(&independence) {
        return field("calibration.window_independence", format!("must be from 0 to 1, not `{independence}`"));
    }
    if let Some(exit) = &manifest.early_exit {
        if matches!(manifest.graphs, Graphs::Unrolled { .. }) {
            return field("early_exit", "is for stepped graphs: a text can only leave between passes".into());
        }
        if let Some(problem) = exit.problem(passes) {
            return field("early_exit", problem);
        }
    }
    if manifest.input.windowed.is_some() && !manifest.input.pair {
        return field("input.windowed", "chooses between the texts of a pair, and `input.pair` is false".into());
    }
    if manifest.verification.unrolled.is_some() && matches!(manifest.graphs, Graphs::Unrolled { .. }) {
        return field("verification.unrolled", "is for stepped graphs: this one is unrolled already".into());
    }
    Ok(())
}

fn read_bounded(folder: &Path, file: &str, limit: u64) -> Result<Vec<u8>, ModelProblem> {
    let is_plain = Path::new(file).file_name().is_some_and(|name| name == file);
    if !is_plain {
        return Err(ModelProblem::FileName { file: file.to_owned() });
    }
    let unreadable = |source| ModelProblem::Unreadable { file: file.to_owned(), source };
    // A link inside the folder is fine: Kubernetes mounts files so.
    let (home, target) = (folder.canonicalize(), folder.join(file).canonicalize().map_err(unreadable)?);
    if !home.is_ok_and(|home| target.starts_with(home)) {
        return Err(ModelProblem::Link { file: file.to_owned(), target });
    }
    read_open(&target, file, limit)
}

fn read_open(path: &Path, name: &str, limit: u64) -> Result<Vec<u8>, ModelProblem> {
    let unreadable = |source| ModelProblem::Unreadable { file: name.to_owned(), source };
    let mut bytes = Vec::new();
    let opened = File::open(path).map_err(unreadable)?;
    opened.take(limit + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > limit {
        return Err(ModelProblem::TooLarge { file: name.to_owned(), limit });
    }
    Ok(bytes)
}
