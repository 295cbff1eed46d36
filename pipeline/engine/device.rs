//! Hidden states that stay on a GPU between two passes: fetched and brought back, they would take longer than a pass.

use ort::{
    editor::{Graph, Model, Node, ONNX_DOMAIN, Opset},
    memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType},
    session::{Session, builder::SessionBuilder},
    value::{DynValue, Outlet, Shape, SymbolicDimensions, Tensor, TensorElementType, ValueType},
};

use super::{provider::Provider, session::take};

/// Of ONNX's own operators, as the graphs of models have it.
const OPSET: u32 = 17;

/// The memory of a GPU, and what rows are picked with there.
pub struct Device {
    memory: MemoryInfo<'static>,
    /// `hidden` float32 `[batch, sequence, hidden]` and `rows` int64 `[kept]` to `kept` `[kept, sequence, hidden]`.
    pick: Session,
}

impl Device {
    /// The memory that a provider computes in.
    ///
    /// # Errors
    /// What ONNX Runtime says.
    pub fn of(provider: Provider, builder: &SessionBuilder) -> Result<Self, ort::Error> {
        let (of, index) = match provider {
            Provider::Cpu => (AllocationDevice::CPU, 0),
            Provider::Cuda(device) => (AllocationDevice::CUDA, device.index.into()),
        };
        let memory = MemoryInfo::new(of, index, AllocatorType::Device, MemoryType::Default)?;
        Ok(Self { memory, pick: pick_graph()?.into_session(builder)? })
    }

    /// Runs a graph whose output stays on the device.
    ///
    /// # Errors
    /// What ONNX Runtime says.
    pub fn run(
        &self,
        session: &mut Session,
        inputs: &[(&str, &DynValue)],
        output: &str,
    ) -> Result<DynValue, ort::Error> {
        run_to(&self.memory, session, inputs, output)
    }

    /// Some rows of hidden states, in this order. None is cut: what lies behind a window's own tokens, the network masks.
    ///
    /// # Errors
    /// What ONNX Runtime says.
    pub fn rows(&mut self, hidden: &DynValue, rows: &[usize]) -> Result<DynValue, ort::Error> {
        let rows: Vec<i64> = rows.iter().map(|row| *row as i64).collect();
        let rows = Tensor::from_array(([rows.len()], rows))?.into_dyn();
        run_to(&self.memory, &mut self.pick, &[("hidden", hidden), ("rows", &rows)], "kept")
    }
}

/// A binding of its own for each run: a binding that is used again writes where its last output still is.
fn run_to(
    memory: &MemoryInfo<'_>,
    session: &mut Session,
    inputs: &[(&str, &DynValue)],
    output: &str,
) -> Result<DynValue, ort::Error> {
    let mut binding = session.create_binding()?;
    for (name, value) in inputs {
        binding.bind_input(*name, value)?;
    }
    binding.bind_output_to_device(output, memory)?;
    take(session.run_binding(&binding)?, output)
}

/// ONNX's `Gather` along the first axis.
fn pick_graph() -> Result<Model, ort::Error> {
    let tensor = |name: &str, ty, axes: usize| {
        let shape = Shape::new(vec![-1; axes]);
        Outlet::new(name, ValueType::Tensor { ty, shape, dimension_symbols: SymbolicDimensions::empty(axes) })
    };
    let mut graph = Graph::new()?;
    graph.set_inputs([tensor("hidden", TensorElementType::Float32, 3), tensor("rows", TensorElementType::Int64, 1)])?;
    graph.set_outputs([tensor("kept", TensorElementType::Float32, 3)])?;
    graph.add_node(Node::new("Gather", ONNX_DOMAIN, "pick", ["hidden", "rows"], ["kept"], [])?)?;
    let mut model = Model::new([Opset::new(ONNX_DOMAIN, OPSET)?])?;
    model.set_graph(graph)?;
    Ok(model)
}
