//! The bundled model through the real ONNX Runtime: what it answers, and which model folders are refused.

mod acceptance;
mod documents;
mod duplicates;
mod early_exit;
mod engine;
mod folder;
mod golden;
mod graph;
mod grouping;
mod instant;
mod provider;

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use albertine::{
    engine::{runtime::OnnxRuntime, session::ModelSession},
    model::folder::Model,
};
use serde::Deserialize;

use crate::support::{environment, repository};

/// How far a logit may move for no other reason than rounding: another shape of the group rounds float32 otherwise between the
/// integer products, and a few activations fall into the next int8 step. The products themselves are equal everywhere, since
/// weights of 7 bits cannot saturate.
///
/// Measured with version 1 on one machine with its features masked: 0 with AVX-512 VNNI, 0 with AVX2 alone, 0.019 without.
const ROUNDING_TOLERANCE: f32 = 0.05;

/// A line of the golden file: a text, its ids, and what the exporter's own runs gave for it: nothing where it is longer than a
/// window.
#[derive(Deserialize)]
struct Golden {
    text: String,
    input_ids: Vec<u32>,
    #[serde(default)]
    logits_fp32: Vec<f32>,
    #[serde(default)]
    logits_int8: Vec<f32>,
}

impl Golden {
    fn fits_a_window(&self) -> bool {
        !self.logits_int8.is_empty()
    }
}

/// The models that ship. Tests that need any real model use the first.
const BUNDLED: [&str; 2] = ["albert-sentiment", "albert-topic"];

/// Those that fit a window.
fn goldens() -> Vec<Golden> {
    goldens_of(BUNDLED[0]).into_iter().filter(Golden::fits_a_window).collect()
}

fn goldens_of(model: &str) -> Vec<Golden> {
    let path = repository(&format!("tests/fixtures/golden-{model}.jsonl"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let goldens: Vec<Golden> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let with_logits = goldens.iter().filter(|golden| golden.fits_a_window()).count();
    assert!(with_logits >= 20, "{with_logits} golden texts with logits are too few to say anything");
    goldens
}

/// ONNX Runtime, which can be loaded once a process.
fn runtime() -> &'static OnnxRuntime {
    static RUNTIME: OnceLock<OnnxRuntime> = OnceLock::new();
    RUNTIME.get_or_init(|| OnnxRuntime::load(&PathBuf::from(environment("ORT_DYLIB_PATH"))).unwrap())
}

fn model_folder() -> PathBuf {
    folder_of(BUNDLED[0])
}

fn folder_of(model: &str) -> PathBuf {
    repository(&format!("models/{model}"))
}

fn model() -> Arc<Model> {
    static MODEL: OnceLock<Arc<Model>> = OnceLock::new();
    Arc::clone(MODEL.get_or_init(|| Arc::new(Model::open(&model_folder()).unwrap())))
}

fn session() -> ModelSession {
    ModelSession::open(runtime(), &model()).unwrap()
}

/// The largest difference between two windows' logits.
fn distance(left: &[f32], right: &[f32]) -> f32 {
    assert_eq!(left.len(), right.len(), "{left:?} and {right:?} are of different classes");
    // A plain maximum would overlook what is not a number.
    left.iter()
        .zip(right)
        .map(|(left, right)| (left - right).abs())
        .fold(0.0, |largest, distance| if distance.is_nan() { f32::INFINITY } else { distance.max(largest) })
}
