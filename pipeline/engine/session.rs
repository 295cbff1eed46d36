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
use crate::{
    model::folder::{GraphBytes, Model},
    text::tokenize::Tokens,
};

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
    network: Network,
    labels: usize,
    times: PartTimes,
}

/// What inference has taken since it was last asked, by part of the network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PartTimes {
    pub embed: Duration,
    /// All passes together; of a network that is one graph, everything.
    pub layers: Duration,
    pub head: Duration,
    /// Making the inputs and taking the logits out.
    pub rest: Duration,
}

/// The sessions of a network's graphs.
enum Network {
    Stepped { embed: Session, layer: Session, head: Session, passes: usize },
    Unrolled(Session),
}

impl ModelSession {
    /// Opens the model's graphs and checks their inputs and outputs.
    ///
    /// # Errors
    /// [`SessionError`] with the model and the graph.
    pub fn open(runtime: &OnnxRuntime, model: &Model) -> Result<Self, SessionError> {
        Self::open_graphs(runtime, model, &model.graphs)
    }

    /// The same with other graphs of the same network, such as the unrolled one of a stepped model.
    ///
    /// # Errors
    /// [`SessionError`] with the model and the graph.
    pub fn open_graphs(runtime: &OnnxRuntime, model: &Model, graphs: &GraphBytes) -> Result<Self, SessionError> {
        let open = |graph, bytes: &[u8], inputs: &[(&str, TensorElementType)], output: &str| {
            open_graph(runtime, model, graph, bytes, (inputs, output))
        };
        let network = match graphs {
            GraphBytes::Stepped { embed, layer, head } => Network::Stepped {
                embed: open("embed", embed, &[("input_ids", Int64), ("token_type_ids", Int64)], "hidden")?,
                layer: open("layer", layer, &[("hidden", Float32), ("lengths", Int32)], "hidden_out")?,
                head: open("head", head, &[("hidden", Float32)], "logits")?,
                passes: model.passes,
            },
            GraphBytes::Unrolled { model: bytes } => {
                let inputs = [("input_ids", Int64), ("token_type_ids", Int64), ("lengths", Int32)];
                Network::Unrolled(open("model", bytes, &inputs, "logits")?)
            }
        };
        Ok(Self { network, labels: model.labels.len(), times: PartTimes::default() })
    }

    /// The logits of each window, in order. Windows are padded at the right to the longest of the group;
    /// the network masks what is beyond a window's own length.
    ///
    /// # Errors
    /// [`InferError`] where the runtime fails or answers in another shape.
    pub fn infer(&mut self, windows: &[Tokens<'_>]) -> Result<Vec<Vec<f32>>, InferError> {
        let (started, before) = (Instant::now(), self.times.of_graphs());
        let result = self.run(windows).map_err(|error| InferError(error.to_string()));
        self.times.rest += started.elapsed().saturating_sub(self.times.of_graphs().saturating_sub(before));
        result
    }

    /// Where the time went since this was last called.
    pub fn take_times(&mut self) -> PartTimes {
        std::mem::take(&mut self.times)
    }

    fn run(&mut self, windows: &[Tokens<'_>]) -> Result<Vec<Vec<f32>>, ort::Error> {
        let batch = windows.len();
        let logits = self.network.run(&Inputs::of(windows)?, &mut self.times)?;
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

/// A group as the graphs take it.
struct Inputs {
    /// `[batch, sequence]`, 0 where padded.
    ids: Tensor<i64>,
    /// `[batch, sequence]`
    token_types: Tensor<i64>,
    /// `[batch]`, in tokens.
    lengths: Tensor<i32>,
}

impl Inputs {
    fn of(windows: &[Tokens<'_>]) -> Result<Self, ort::Error> {
        let batch = windows.len();
        let longest = windows.iter().map(|window| window.ids.len()).max().unwrap_or_default();
        let mut ids = vec![0_i64; batch * longest];
        let mut token_types = ids.clone();
        let rows = ids.chunks_mut(longest.max(1)).zip(token_types.chunks_mut(longest.max(1)));
        for ((ids, token_types), window) in rows.zip(windows) {
            ids.iter_mut().zip(window.ids).for_each(|(slot, id)| *slot = i64::from(*id));
            token_types[window.second_from.min(window.ids.len())..window.ids.len()].fill(1);
        }
        let lengths = windows.iter().map(|window| i32::try_from(window.ids.len()).unwrap_or(i32::MAX));
        Ok(Self {
            ids: Tensor::from_array(([batch, longest], ids))?,
            token_types: Tensor::from_array(([batch, longest], token_types))?,
            lengths: Tensor::from_array(([batch], lengths.collect::<Vec<_>>()))?,
        })
    }
}

impl Network {
    fn run(&mut self, inputs: &Inputs, times: &mut PartTimes) -> Result<DynValue, ort::Error> {
        let Inputs { ids, token_types, lengths } = inputs;
        let started = Instant::now();
        match self {
            Self::Stepped { embed, layer, head, passes } => {
                let inputs = ort::inputs!["input_ids" => ids, "token_type_ids" => token_types];
                let mut hidden = take(embed.run(inputs)?, "hidden")?;
                let embedded = Instant::now();
                for _ in 0..*passes {
                    hidden = take(layer.run(ort::inputs!["hidden" => &hidden, "lengths" => lengths])?, "hidden_out")?;
                }
                let passed = Instant::now();
                let logits = take(head.run(ort::inputs!["hidden" => &hidden])?, "logits")?;
                times.embed += embedded - started;
                times.layers += passed - embedded;
                times.head += passed.elapsed();
                Ok(logits)
            }
            Self::Unrolled(model) => {
                let inputs = ort::inputs!["input_ids" => ids, "token_type_ids" => token_types, "lengths" => lengths];
                let logits = take(model.run(inputs)?, "logits")?;
                times.layers += started.elapsed();
                Ok(logits)
            }
        }
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
