//! The only importer of `ort`: loads ONNX Runtime, opens a model's graphs, runs a group through them.
//!
//! A [`ModelSession`] belongs to one thread and uses one core: on a CPU a document costs alone what it
//! costs in a batch, so many single-threaded sessions beat one session of many threads.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use ort::{
    environment::Environment,
    session::{Session, builder::GraphOptimizationLevel},
    value::{
        DynValue, Tensor,
        TensorElementType::{self, Float32, Int32, Int64},
    },
};

use super::job::InferError;
use crate::model::folder::Model;

/// ONNX Runtime, loaded once a process.
#[derive(Clone)]
pub struct OnnxRuntime {
    environment: Environment,
}

/// ONNX Runtime or a graph cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error(
        "cannot load ONNX Runtime from `{}`: {message}; set `engine.onnxruntime_library` or `ORT_DYLIB_PATH` to a libonnxruntime.so of version 1.23 or later",
        path.display()
    )]
    Library { path: PathBuf, message: String },
    #[error("model `{model}`: cannot open the `{graph}` graph: {message}")]
    Open { model: String, graph: &'static str, message: String },
    #[error("model `{model}`: the `{graph}` graph has {kind} {found:?}, not {expected:?}")]
    Signature { model: String, graph: &'static str, kind: &'static str, expected: Vec<String>, found: Vec<String> },
}

impl OnnxRuntime {
    /// Loads the library at `path`.
    ///
    /// # Errors
    /// [`SessionError::Library`] where there is none, or one that is too old.
    pub fn load(path: &Path) -> Result<Self, SessionError> {
        let failed = |message: String| SessionError::Library { path: path.to_owned(), message };
        if !path.is_file() {
            return Err(failed("there is no such file".into()));
        }
        let environment = ort::init_from(path)
            .map_err(|error| failed(error.to_string()))?
            .with_name("albertine")
            .with_telemetry(false)
            .build()
            .map_err(|error| failed(error.to_string()))?;
        Ok(Self { environment })
    }
}

/// A model ready to compute, on the calling thread.
pub struct ModelSession {
    embed: Session,
    layer: Session,
    head: Session,
    passes: usize,
    labels: usize,
    times: PartTimes,
}

/// What inference has taken since it was last asked, by part of the network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PartTimes {
    pub embed: Duration,
    /// All passes together.
    pub layers: Duration,
    pub head: Duration,
    /// Making the inputs and taking the logits out.
    pub rest: Duration,
}

impl ModelSession {
    /// Opens the three graphs and checks their inputs and outputs.
    ///
    /// # Errors
    /// [`SessionError`] with the model and the graph.
    pub fn open(runtime: &OnnxRuntime, model: &Model) -> Result<Self, SessionError> {
        let open = |graph, bytes: &[u8], inputs: &[(&str, TensorElementType)], output: &str| {
            open_graph(runtime, model, graph, bytes, (inputs, output))
        };
        let graphs = &model.graphs;
        Ok(Self {
            embed: open("embed", &graphs.embed, &[("input_ids", Int64), ("token_type_ids", Int64)], "hidden")?,
            layer: open("layer", &graphs.layer, &[("hidden", Float32), ("lengths", Int32)], "hidden_out")?,
            head: open("head", &graphs.head, &[("hidden", Float32)], "logits")?,
            passes: model.passes,
            labels: model.labels.len(),
            times: PartTimes::default(),
        })
    }

    /// The logits of each window, in order. Windows are padded at the right to the longest of the group;
    /// the layer masks what is beyond a window's own length.
    ///
    /// # Errors
    /// [`InferError`] where the runtime fails or answers in another shape.
    pub fn infer(&mut self, windows: &[&[u32]]) -> Result<Vec<Vec<f32>>, InferError> {
        let (started, before) = (Instant::now(), self.times.of_graphs());
        let result = self.run(windows).map_err(|error| InferError(error.to_string()));
        self.times.rest += started.elapsed().saturating_sub(self.times.of_graphs().saturating_sub(before));
        result
    }

    /// Where the time went since this was last called.
    pub fn take_times(&mut self) -> PartTimes {
        std::mem::take(&mut self.times)
    }

    fn run(&mut self, windows: &[&[u32]]) -> Result<Vec<Vec<f32>>, ort::Error> {
        let batch = windows.len();
        let longest = windows.iter().map(|ids| ids.len()).max().unwrap_or_default();
        let mut input_ids = vec![0_i64; batch * longest];
        for (row, ids) in input_ids.chunks_mut(longest.max(1)).zip(windows) {
            row.iter_mut().zip(*ids).for_each(|(slot, id)| *slot = i64::from(*id));
        }
        let lengths: Vec<i32> = windows.iter().map(|ids| i32::try_from(ids.len()).unwrap_or(i32::MAX)).collect();
        let lengths = Tensor::from_array(([batch], lengths))?;
        let token_types = Tensor::from_array(([batch, longest], vec![0_i64; batch * longest]))?;
        let input_ids = Tensor::from_array(([batch, longest], input_ids))?;
        let started = Instant::now();
        let mut hidden =
            take(self.embed.run(ort::inputs!["input_ids" => &input_ids, "token_type_ids" => &token_types])?, "hidden")?;
        let embedded = Instant::now();
        for _ in 0..self.passes {
            hidden = take(self.layer.run(ort::inputs!["hidden" => &hidden, "lengths" => &lengths])?, "hidden_out")?;
        }
        let passed = Instant::now();
        let logits = take(self.head.run(ort::inputs!["hidden" => &hidden])?, "logits")?;
        self.times.embed += embedded - started;
        self.times.layers += passed - embedded;
        self.times.head += passed.elapsed();
        let (shape, values) = logits.try_extract_tensor::<f32>()?;
        if **shape != [batch as i64, self.labels as i64] {
            return Err(ort::Error::new(format!(
                "the logits have shape {shape}, not [{batch}, {}]: the labels in `model.toml` do not fit the graph",
                self.labels
            )));
        }
        Ok(values.chunks(self.labels).map(<[f32]>::to_vec).collect())
    }
}

impl PartTimes {
    fn of_graphs(&self) -> Duration {
        self.embed + self.layers + self.head
    }
}

fn take(mut outputs: ort::session::SessionOutputs<'_>, name: &str) -> Result<DynValue, ort::Error> {
    outputs.remove(name).ok_or_else(|| ort::Error::new(format!("the graph gave no output `{name}`")))
}

type Signature<'a> = (&'a [(&'a str, TensorElementType)], &'a str);

fn open_graph(
    runtime: &OnnxRuntime,
    model: &Model,
    graph: &'static str,
    bytes: &[u8],
    (inputs, output): Signature<'_>,
) -> Result<Session, SessionError> {
    let session = build_session(runtime, bytes).map_err(|error| SessionError::Open {
        model: model.name.to_string(),
        graph,
        message: error.to_string(),
    })?;
    let mismatch =
        |kind, expected, found| SessionError::Signature { model: model.name.to_string(), graph, kind, expected, found };
    let mut expected: Vec<String> = inputs.iter().map(|(name, element)| format!("{name}: {element}")).collect();
    let mut found: Vec<String> = session
        .inputs()
        .iter()
        .map(|input| {
            let element =
                input.dtype().tensor_type().map_or_else(|| "not a tensor".into(), |element| element.to_string());
            format!("{}: {element}", input.name())
        })
        .collect();
    expected.sort();
    found.sort();
    if expected != found {
        return Err(mismatch("inputs", expected, found));
    }
    let found: Vec<String> = session.outputs().iter().map(|output| output.name().to_owned()).collect();
    if found != [output] {
        return Err(mismatch("outputs", vec![output.to_owned()], found));
    }
    Ok(session)
}

/// One thread, no spinning. The memory pattern is off: it keeps an arena for every shape it has seen, and
/// lengths vary.
fn build_session(runtime: &OnnxRuntime, bytes: &[u8]) -> Result<Session, ort::Error> {
    let mut builder = Session::builder(&runtime.environment)?
        .with_intra_threads(1)?
        .with_inter_threads(1)?
        .with_intra_op_spinning(false)?
        .with_memory_pattern(false)?
        .with_optimization_level(GraphOptimizationLevel::All)?;
    builder.commit_from_memory(bytes)
}
