//! Loads ONNX Runtime, tells it what to compute with, and opens graphs. Beside [`super::session`] and
//! `device` the only importer of `ort`.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use ort::{
    environment::Environment,
    ep,
    session::{
        Session,
        builder::{GraphOptimizationLevel, SessionBuilder},
    },
    value::TensorElementType,
};

use super::{
    device::Device,
    provider::{Failure, Provider},
};
use crate::model::folder::Model;

/// ONNX Runtime, loaded once a process, and what it computes with.
#[derive(Clone)]
pub struct OnnxRuntime {
    environment: Environment,
    library: Arc<Path>,
    provider: Provider,
    states_stay: bool,
}

/// ONNX Runtime or a graph cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error(
        "cannot load ONNX Runtime from `{}`: {message}; set `engine.onnxruntime_library` or `ORT_DYLIB_PATH` to a libonnxruntime.so of version 1.23 or later",
        path.display()
    )]
    Library { path: PathBuf, message: String },
    #[error(
        "cannot compute on `{provider}` with the ONNX Runtime in `{}`: {message}; this needs an NVIDIA GPU with its driver, a libonnxruntime.so that was built with CUDA and lies beside its libonnxruntime_providers_cuda.so (the `onnxruntime-gpu` package has both), and the CUDA and cuDNN it was built for where libraries are looked for (`LD_LIBRARY_PATH`); or set `engine.execution_provider = \"cpu\"`",
        library.display()
    )]
    Provider { provider: Provider, library: PathBuf, message: String },
    #[error(
        "model `{model}`: `{provider}` cannot compute all operators of the `{graph}` graph, and none is left to the CPU unasked: {message}; int8 graphs are for the CPU alone: convert the model with `albertine-models convert --precision float32`, or set `engine.execution_provider = \"cpu\"`"
    )]
    Operators { model: String, graph: &'static str, provider: Provider, message: String },
    #[error("model `{model}`: cannot open the `{graph}` graph: {message}")]
    Open { model: String, graph: &'static str, message: String },
    #[error("model `{model}`: the `{graph}` graph has {kind} {found:?}, not {expected:?}")]
    Signature { model: String, graph: &'static str, kind: &'static str, expected: Vec<String>, found: Vec<String> },
}

impl OnnxRuntime {
    /// Loads the library at `path`, to compute on the CPU.
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
        Ok(Self { environment, library: path.into(), provider: Provider::Cpu, states_stay: false })
    }

    /// The same, to compute with `provider`.
    ///
    /// # Errors
    /// [`SessionError::Provider`] where the library was built without it, or finds no libraries of its own for it. That there
    /// is no such device shows when a graph is opened.
    pub fn on(self, provider: Provider) -> Result<Self, SessionError> {
        let runtime = Self { provider, states_stay: provider != Provider::Cpu, ..self };
        match runtime.builder() {
            Ok(_) => Ok(runtime),
            Err(error) => Err(runtime.unusable(&error)),
        }
    }

    /// With hidden states handed on as on a GPU, whatever computes: so that this can be tested without one.
    #[must_use]
    pub fn handing_on_states(self) -> Self {
        Self { states_stay: true, ..self }
    }

    pub fn provider(&self) -> Provider {
        self.provider
    }

    /// Of sessions with one thread, without spinning. The memory pattern is off: it keeps an arena for every shape it has
    /// seen, and lengths vary.
    fn builder(&self) -> Result<SessionBuilder, ort::Error> {
        let builder = Session::builder(&self.environment)?
            .with_intra_threads(1)?
            .with_inter_threads(1)?
            .with_intra_op_spinning(false)?
            .with_memory_pattern(false)?
            .with_optimization_level(GraphOptimizationLevel::All)?;
        let Provider::Cuda(device) = self.provider else { return Ok(builder) };
        // TensorFloat-32 has the mantissa of float16: logits would be further from the reference than `albertine model
        // verify` lets them be.
        let cuda = ep::CUDA::default().with_device_id(device.index.into()).with_tf32(false);
        let cuda = match device.memory_max {
            Some(bytes) => cuda.with_memory_limit(bytes.get()),
            None => cuda,
        };
        // ONNX Runtime leaves to the CPU whatever the provider has no kernel for, and says so in a log at most. It would also
        // place operators there that only reckon with shapes, which would be no harm; but the float32 graphs of
        // `albertine-models` have only one that takes a shape, and what takes its result also takes a weight, which keeps it
        // on the device. So nothing has to be let through.
        Ok(builder.with_execution_providers([cuda.build().error_on_failure()])?.with_disable_cpu_fallback()?)
    }

    /// Where hidden states stay between two passes; `None`: rows enter and leave them in this machine's memory.
    pub(super) fn device(&self) -> Result<Option<Device>, ort::Error> {
        self.states_stay.then(|| Device::of(self.provider, &self.builder()?)).transpose()
    }

    /// The provider cannot compute, for this reason.
    pub(super) fn unusable(&self, error: &impl ToString) -> SessionError {
        let library = self.library.to_path_buf();
        SessionError::Provider { provider: self.provider, library, message: sentence(error) }
    }
}

/// Names and elements of the inputs, and the name of the output.
pub(super) type Signature<'a> = (&'a [(&'a str, TensorElementType)], &'a str);

/// Opens a graph and checks its inputs and outputs.
///
/// # Errors
/// [`SessionError`] with the model and the graph.
pub(super) fn open_graph(
    runtime: &OnnxRuntime,
    model: &Model,
    graph: &'static str,
    bytes: &[u8],
    (inputs, output): Signature<'_>,
) -> Result<Session, SessionError> {
    let opened = runtime.builder().and_then(|mut builder| builder.commit_from_memory(bytes));
    let session = opened.map_err(|error| {
        let (model, message) = (model.name.to_string(), sentence(&error));
        match runtime.provider.failure(&message) {
            Failure::Provider => runtime.unusable(&error),
            Failure::Operators => SessionError::Operators { model, graph, provider: runtime.provider, message },
            Failure::Graph => SessionError::Open { model, graph, message },
        }
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

/// Without what ends it, to go on behind it.
fn sentence(error: &impl ToString) -> String {
    error.to_string().trim_end_matches(['.', ';', ' ', '\n']).to_owned()
}
