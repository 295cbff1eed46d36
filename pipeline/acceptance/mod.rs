//! Whether a model folder is what it says: a list of named checks, each passed, failed with its own message, or skipped
//! with the reason.
//!
//! Contract: every name of [`CHECKS`] is told once, in this order. What the checks compare with is the folder's corpus:
//! token ids and float32 logits that the exporter's own library gave. They look at files first (`contents.rs`), then at what
//! the tokenizer gives (`tokens.rs`), and run the graphs only where that is in order (`answers.rs`). Serving does not need any of it:
//! `model::folder` refuses by itself what could harm.

mod answers;
mod contents;
mod corpus;
mod tokens;

use std::{io, path::Path};

use self::{answers::Answers, corpus::Corpus};
use crate::{
    engine::runtime::OnnxRuntime,
    model::{
        files::ModelFolder,
        folder::{GraphBytes, Model},
        manifest::Manifest,
    },
};

/// The checks, in their order.
pub const CHECKS: [&str; 14] = [
    "manifest",
    "files",
    "graphs",
    "signatures",
    "weights",
    "tables",
    "labels",
    "tokenizer",
    "corpus",
    "token ids",
    "longest window",
    "reference logits",
    "unrolled graph",
    "grouping",
];

/// What became of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// With what was found.
    Passed(String),
    Failed(String),
    Skipped(String),
}

/// What a check that could be made found: what is in order, or what is not.
type Finding = Result<String, String>;

/// Where outcomes go as they are found; the first argument is the check's name.
pub type Tell<'a> = &'a mut dyn FnMut(&'static str, &Outcome) -> io::Result<()>;

/// Where the progress goes of a check that runs the graphs: its name, how many of its rows are done, and how many there are.
/// Each such check begins with none done.
pub type TellRows<'a> = &'a mut dyn FnMut(&'static str, usize, usize);

/// Makes all checks of the folder at `path`. `runtime` is ONNX Runtime, or why there is none; `extra` a file of more rows
/// for the corpus. Returns how many checks failed.
///
/// # Errors
/// What `tell` fails with.
pub fn verify(
    path: &Path,
    runtime: Result<OnnxRuntime, String>,
    extra: Option<&Path>,
    tell: Tell<'_>,
    tell_rows: TellRows<'_>,
) -> io::Result<usize> {
    let mut checks = Checks { tell, tell_rows, next: 0, failed: 0 };
    if let Some(opened) = look_at_files(path, extra, &mut checks)? {
        run_graphs(opened, runtime, &mut checks)?;
    }
    while checks.next < CHECKS.len() {
        checks.tell(&Outcome::Skipped("an earlier check failed".into()))?;
    }
    Ok(checks.failed)
}

/// Tells the outcomes in the order of [`CHECKS`].
struct Checks<'a> {
    tell: Tell<'a>,
    tell_rows: TellRows<'a>,
    next: usize,
    failed: usize,
}

impl Checks<'_> {
    fn tell(&mut self, outcome: &Outcome) -> io::Result<()> {
        let name = CHECKS[self.next];
        self.next += 1;
        self.failed += usize::from(matches!(outcome, Outcome::Failed(_)));
        (self.tell)(name, outcome)
    }

    /// Tells what the check `name` found; what was in order.
    fn found<T>(&mut self, name: &str, result: Result<(T, String), String>) -> io::Result<Option<T>> {
        debug_assert_eq!(name, CHECKS[self.next], "checks are told in their order");
        match result {
            Ok((value, detail)) => {
                self.tell(&Outcome::Passed(detail))?;
                Ok(Some(value))
            }
            Err(problem) => {
                self.tell(&Outcome::Failed(problem))?;
                Ok(None)
            }
        }
    }

    fn check(&mut self, name: &str, finding: Finding) -> io::Result<()> {
        self.found(name, finding.map(|detail| ((), detail)))?;
        Ok(())
    }

    /// Makes the next check, which says how many of its rows are done.
    fn by_rows(&mut self, check: impl FnOnce(&mut dyn FnMut(usize, usize)) -> Outcome) -> io::Result<()> {
        let name = CHECKS[self.next];
        let outcome = check(&mut |done, rows| (self.tell_rows)(name, done, rows));
        self.tell(&outcome)
    }
}

/// A model whose files are in order, and what it is compared with.
struct Opened {
    manifest: Manifest,
    model: Model,
    unrolled: Option<GraphBytes>,
    has_dynamic_scales: bool,
    corpus: Corpus,
}

/// All that needs no ONNX Runtime. `None` where something failed.
fn look_at_files(path: &Path, extra: Option<&Path>, checks: &mut Checks<'_>) -> io::Result<Option<Opened>> {
    let folder = ModelFolder::open(path).map_err(|problem| problem.to_string());
    let folder = folder.map(|folder| {
        let detail = described(&folder.manifest);
        (folder, detail)
    });
    let Some(folder) = checks.found("manifest", folder)? else { return Ok(None) };
    let Some(files) = checks.found("files", contents::read(&folder))? else { return Ok(None) };
    let Some(graphs) = checks.found("graphs", contents::graphs(&files, &folder.manifest))? else {
        return Ok(None);
    };
    let manifest = &folder.manifest;
    checks.check("signatures", contents::signatures(&graphs, manifest))?;
    checks.check("weights", contents::weights(&graphs))?;
    checks.check("tables", contents::tables(&graphs, manifest))?;
    checks.check("labels", contents::labels(&graphs, manifest))?;
    if checks.failed > 0 {
        return Ok(None);
    }
    let Some(tokenizer) = checks.found("tokenizer", tokens::open(&files.tokenizer, manifest))? else { return Ok(None) };
    let Some(corpus) = checks.found("corpus", corpus::read(&files.corpus, extra, manifest))? else { return Ok(None) };
    checks.check("token ids", tokens::compare(&tokenizer, &corpus))?;
    let model = Model::of(manifest, files.graphs, tokenizer);
    let has_dynamic_scales = contents::has_dynamic_scales(&graphs, manifest);
    let opened = Opened { manifest: folder.manifest, model, unrolled: files.unrolled, has_dynamic_scales, corpus };
    Ok((checks.failed == 0).then_some(opened))
}

fn run_graphs(opened: Opened, runtime: Result<OnnxRuntime, String>, checks: &mut Checks<'_>) -> io::Result<()> {
    let mut answers = match runtime.and_then(|runtime| Answers::of(&runtime, opened)) {
        Ok(answers) => answers,
        Err(problem) => return checks.check("longest window", Err(problem)),
    };
    checks.check("longest window", answers.longest_window())?;
    if checks.failed > 0 {
        return Ok(());
    }
    checks.by_rows(|done| answers.reference_logits(done))?;
    checks.by_rows(|done| answers.unrolled(done))?;
    checks.by_rows(|done| answers.grouping(done))
}

/// The model in a line.
fn described(manifest: &Manifest) -> String {
    let input = if manifest.input.pair { "pairs of texts" } else { "single texts" };
    format!(
        "`{}` version {}, task `{}`, labels {}; {input}, {} {}, {} passes",
        manifest.name,
        manifest.version,
        manifest.task,
        manifest.labels.join(", "),
        manifest.graphs.kind(),
        manifest.graphs.precision().as_str(),
        manifest.architecture.passes
    )
}
