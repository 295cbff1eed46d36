//! Looks into an ONNX file before anything runs it: what it refers to, what it holds, what it takes and gives.
//!
//! Guarantee: a [`Graph`] needs no other file and only operators of ONNX and of ONNX Runtime, and reading it costs memory in
//! proportion to the file, whatever its bytes are: weights are not copied, and what would take more room in memory than
//! in the file is bounded. It does not run the graph, nor check that its operators fit each other: ONNX Runtime does.
//!
//! The messages are those of `onnx.proto`, with the fields that are looked at. Fields of which only the presence counts
//! are not repeated here, so that no number of them takes more memory than the last.

use bytes::{Buf, Bytes};
use prost::{
    Message,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};

/// Everything of a graph but the values of its weights. The largest ALBERT, unrolled to 12 layers, has some hundred operators and 64
/// KiB; a message of two bytes takes some hundred in memory.
const STRUCTURE_BYTES_MAX: usize = 4 << 20;
/// At least: an empty operator is a field too.
const FIELD_HEADER_BYTES: usize = 2;
/// Weights. An unrolled network has some hundred.
const TENSORS_MAX: usize = 16_384;
/// The operators of ONNX, by both of its names, and those that ONNX Runtime adds.
const DOMAINS: [&str; 3] = ["", "ai.onnx", "com.microsoft"];
/// Beside a domain's operators, quantised ones that take their scales from what they are given.
const DYNAMIC_OPERATORS: [&str; 3] = ["DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM"];

/// A graph that was looked into.
#[derive(Debug)]
pub struct Graph(GraphProto);

/// A graph cannot be served as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    #[error("it is no ONNX file, or was cut off: {0}")]
    Unreadable(String),
    #[error("it has no graph")]
    Empty,
    #[error("it has {found} bytes beside its weights, more than the {STRUCTURE_BYTES_MAX} allowed")]
    Structure { found: usize },
    #[error("it has more than the {TENSORS_MAX} tensors allowed")]
    Tensors,
    #[error("the weights `{0}` lie in another file: save the graph without external data")]
    ExternalData(String),
    #[error(
        "the operator `{operator}` is of the domain `{domain}`, which needs code of its own: only ONNX's and `com.microsoft` are run"
    )]
    Domain { operator: String, domain: String },
    #[error("it defines functions of its own: export it with them inlined")]
    Functions,
}

/// An input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature<'a> {
    pub name: &'a str,
    pub element: Element,
    /// `None`: of any rank.
    pub axes: Option<Vec<Axis<'a>>>,
}

/// The kinds of numbers that inputs and outputs may have, by the numbers of `onnx.proto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    Float32,
    Int32,
    Int64,
    Other(i32),
}

/// The length of one axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis<'a> {
    Fixed(i64),
    /// By its name, which may be empty.
    Dynamic(&'a str),
}

/// What looks up rows of a weight by an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup<'a> {
    pub table: &'a str,
    pub rows: i64,
}

impl Graph {
    /// Reads the bytes of a file, which are shared, not copied.
    ///
    /// # Errors
    /// [`GraphError`] with the first thing that is wrong.
    pub fn read(bytes: &Bytes) -> Result<Self, GraphError> {
        measure(bytes.clone())?;
        let model = ModelProto::decode(bytes.clone()).map_err(|error| GraphError::Unreadable(error.to_string()))?;
        if model.functions.is_some() {
            return Err(GraphError::Functions);
        }
        let graph = model.graph.ok_or(GraphError::Empty)?;
        check(&graph)?;
        Ok(Self(graph))
    }

    /// What it takes, without weights that older files list as inputs too.
    pub fn inputs(&self) -> Vec<Signature<'_>> {
        let is_weight = |value: &&ValueInfo| self.0.initializer.iter().any(|tensor| tensor.name == value.name);
        self.0.input.iter().filter(|value| !is_weight(value)).map(ValueInfo::signature).collect()
    }

    pub fn outputs(&self) -> Vec<Signature<'_>> {
        self.0.output.iter().map(ValueInfo::signature).collect()
    }

    /// Whether scales of activations follow what is computed together, so that a text's logits depend on its group.
    pub fn has_dynamic_scales(&self) -> bool {
        any_node(&self.0, &|node| DYNAMIC_OPERATORS.contains(&node.op_type.as_str()))
    }

    /// The first weight with a value that is no finite number.
    pub fn not_finite(&self) -> Option<&str> {
        let mut found = None;
        for_each_tensor(&self.0, &mut |tensor| {
            if found.is_none() && !tensor.is_finite() {
                found = Some(tensor.name.as_str());
            }
        });
        found
    }

    /// The weights whose rows an input chooses.
    pub fn lookups(&self, input: &str) -> Vec<Lookup<'_>> {
        let names = self.copies_of(input);
        let is_input = |name: Option<&String>| name.is_some_and(|name| names.contains(&name.as_str()));
        let tables = self.0.node.iter().filter_map(|node| match node.op_type.as_str() {
            "Gather" if is_input(node.input.get(1)) => node.input.first(),
            // Word and token types of the fused operator of ONNX Runtime.
            "EmbedLayerNormalization" if is_input(node.input.first()) => node.input.get(2),
            "EmbedLayerNormalization" if is_input(node.input.get(1)) => node.input.get(4),
            _ => None,
        });
        let lookup = |table: &String| {
            let tensor = self.0.initializer.iter().find(|tensor| tensor.name == *table)?;
            Some(Lookup { table: &tensor.name, rows: *tensor.dims.first()? })
        };
        tables.filter_map(lookup).collect()
    }

    /// The names under which an input goes on unchanged.
    fn copies_of<'a>(&'a self, input: &'a str) -> Vec<&'a str> {
        let mut names = vec![input];
        // Operators stand behind those whose results they take.
        for node in &self.0.node {
            let is_copy = matches!(node.op_type.as_str(), "Cast" | "Identity");
            let taken = node.input.first().is_some_and(|name| names.contains(&name.as_str()));
            if let Some(output) = node.output.first().filter(|_| is_copy && taken) {
                names.push(output);
            }
        }
        names
    }
}

/// Holds the bounds of the module's guarantee, without keeping anything.
fn measure(model: Bytes) -> Result<(), GraphError> {
    let unreadable = |error: prost::DecodeError| GraphError::Unreadable(error.to_string());
    let (mut structure, mut tensors) = (0, 0);
    for graph in fields(model).filter_map(|field| field.map(|field| field.is(7)).transpose()) {
        for field in fields(graph.map_err(unreadable)?) {
            let field = field.map_err(unreadable)?;
            if field.tag == 5 {
                tensors += 1;
                for field in fields(field.bytes) {
                    let field = field.map_err(unreadable)?;
                    // The axes and the name.
                    structure += if matches!(field.tag, 1 | 8) { field.size() } else { 0 };
                }
            } else {
                structure += field.size();
            }
        }
    }
    if structure > STRUCTURE_BYTES_MAX {
        return Err(GraphError::Structure { found: structure });
    }
    if tensors > TENSORS_MAX { Err(GraphError::Tensors) } else { Ok(()) }
}

/// A field of a message, as it is written.
struct Field {
    tag: u32,
    bytes: Bytes,
}

impl Field {
    fn size(&self) -> usize {
        FIELD_HEADER_BYTES + self.bytes.len()
    }

    fn is(self, tag: u32) -> Option<Bytes> {
        (self.tag == tag).then_some(self.bytes)
    }
}

/// The fields of a message, in their order. It ends behind the first that cannot be read.
fn fields(mut message: Bytes) -> impl Iterator<Item = Result<Field, prost::DecodeError>> {
    let mut next = move || {
        if !message.has_remaining() {
            return Ok(None);
        }
        let (tag, wire) = decode_key(&mut message)?;
        if wire == WireType::LengthDelimited {
            let length = usize::try_from(decode_varint(&mut message)?).unwrap_or(usize::MAX);
            let available = length.min(message.remaining());
            let bytes = message.split_to(available);
            return Ok(Some(Field { tag, bytes }));
        }
        let before = message.clone();
        skip_field(wire, tag, &mut message, DecodeContext::default())?;
        let length = before.remaining() - message.remaining();
        Ok(Some(Field { tag, bytes: before.slice(..length) }))
    };
    std::iter::from_fn(move || next().transpose())
}

fn check(graph: &GraphProto) -> Result<(), GraphError> {
    let mut external = None;
    for_each_tensor(graph, &mut |tensor| {
        if external.is_none() && tensor.is_external() {
            external = Some(tensor.name.clone());
        }
    });
    if let Some(name) = external {
        return Err(GraphError::ExternalData(name));
    }
    let mut foreign = None;
    for_each_node(graph, &mut |node| {
        if foreign.is_none() && !DOMAINS.contains(&node.domain.as_str()) {
            foreign = Some(GraphError::Domain { operator: node.op_type.clone(), domain: node.domain.clone() });
        }
    });
    foreign.map_or(Ok(()), Err)
}

fn any_node(graph: &GraphProto, is: &dyn Fn(&NodeProto) -> bool) -> bool {
    let mut any = false;
    for_each_node(graph, &mut |node| any |= is(node));
    any
}

/// The operators of a graph and of those inside it; reading bounds their depth.
fn for_each_node<'a>(graph: &'a GraphProto, see: &mut dyn FnMut(&'a NodeProto)) {
    for node in &graph.node {
        see(node);
        for inner in node.attribute.iter().flat_map(Attribute::graphs) {
            for_each_node(inner, see);
        }
    }
}

/// The weights of a graph, its operators' constants, and those of the graphs inside it.
fn for_each_tensor<'a>(graph: &'a GraphProto, see: &mut dyn FnMut(&'a Tensor)) {
    let sparse = graph.sparse_initializer.iter().flat_map(SparseTensor::tensors);
    graph.initializer.iter().chain(sparse).for_each(&mut *see);
    for attribute in graph.node.iter().flat_map(|node| &node.attribute) {
        attribute.tensors().for_each(&mut *see);
        attribute.graphs().for_each(|inner| for_each_tensor(inner, see));
    }
}

#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphProto>,
    /// Only whether there are any.
    #[prost(bytes = "bytes", optional, tag = "25")]
    functions: Option<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    node: Vec<NodeProto>,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<Tensor>,
    #[prost(message, repeated, tag = "15")]
    sparse_initializer: Vec<SparseTensor>,
    #[prost(message, repeated, tag = "11")]
    input: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<ValueInfo>,
}

#[derive(Clone, PartialEq, Message)]
struct NodeProto {
    #[prost(string, repeated, tag = "1")]
    input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    output: Vec<String>,
    #[prost(string, tag = "4")]
    op_type: String,
    #[prost(string, tag = "7")]
    domain: String,
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(message, optional, tag = "5")]
    t: Option<Tensor>,
    #[prost(message, optional, tag = "6")]
    g: Option<GraphProto>,
    #[prost(message, optional, tag = "22")]
    sparse_tensor: Option<SparseTensor>,
    #[prost(message, repeated, tag = "10")]
    tensors: Vec<Tensor>,
    #[prost(message, repeated, tag = "11")]
    graphs: Vec<GraphProto>,
    #[prost(message, repeated, tag = "23")]
    sparse_tensors: Vec<SparseTensor>,
}

impl Attribute {
    fn graphs(&self) -> impl Iterator<Item = &GraphProto> {
        self.g.iter().chain(&self.graphs)
    }

    fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        let sparse = self.sparse_tensor.iter().chain(&self.sparse_tensors).flat_map(SparseTensor::tensors);
        self.t.iter().chain(&self.tensors).chain(sparse)
    }
}

#[derive(Clone, PartialEq, Message)]
struct SparseTensor {
    #[prost(message, optional, tag = "1")]
    values: Option<Tensor>,
    #[prost(message, optional, tag = "2")]
    indices: Option<Tensor>,
}

impl SparseTensor {
    fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.values.iter().chain(&self.indices)
    }
}

#[derive(Clone, PartialEq, Message)]
struct Tensor {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(float, repeated, tag = "4")]
    float_data: Vec<f32>,
    #[prost(double, repeated, tag = "10")]
    double_data: Vec<f64>,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "bytes", tag = "9")]
    raw_data: Bytes,
    /// Only whether there is any.
    #[prost(bytes = "bytes", optional, tag = "13")]
    external_data: Option<Bytes>,
    #[prost(int32, tag = "14")]
    data_location: i32,
}

impl Tensor {
    fn is_external(&self) -> bool {
        self.external_data.is_some() || self.data_location != 0
    }

    /// Whether all values are finite; of those that can be otherwise.
    fn is_finite(&self) -> bool {
        // A value whose exponent has all bits set is no finite number (IEEE 754).
        let raw_halves = |exponent: u16| {
            self.raw_data.chunks_exact(2).all(|half| u16::from_le_bytes([half[0], half[1]]) & exponent != exponent)
        };
        let raw = match self.data_type {
            1 => self
                .raw_data
                .chunks_exact(4)
                .all(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]]).is_finite()),
            // float16 and bfloat16.
            10 => raw_halves(0x7c00),
            16 => raw_halves(0x7f80),
            11 => self.raw_data.chunks_exact(8).all(|mut word| word.get_f64_le().is_finite()),
            _ => true,
        };
        raw && self.float_data.iter().all(|value| value.is_finite())
            && self.double_data.iter().all(|value| value.is_finite())
    }
}

#[derive(Clone, PartialEq, Message)]
struct ValueInfo {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    r#type: Option<TypeProto>,
}

impl ValueInfo {
    fn signature(&self) -> Signature<'_> {
        let tensor = self.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref());
        let shape = tensor.and_then(|tensor| tensor.shape.as_ref());
        Signature {
            name: &self.name,
            element: tensor.map_or(Element::Other(0), |tensor| Element::of(tensor.elem_type)),
            axes: shape.map(|shape| shape.dim.iter().map(Dimension::axis).collect()),
        }
    }
}

impl Element {
    fn of(number: i32) -> Self {
        match number {
            1 => Self::Float32,
            6 => Self::Int32,
            7 => Self::Int64,
            other => Self::Other(other),
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct TypeProto {
    #[prost(message, optional, tag = "1")]
    tensor_type: Option<TensorType>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorType {
    #[prost(int32, tag = "1")]
    elem_type: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<Shape>,
}

#[derive(Clone, PartialEq, Message)]
struct Shape {
    #[prost(message, repeated, tag = "1")]
    dim: Vec<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
struct Dimension {
    #[prost(int64, optional, tag = "1")]
    dim_value: Option<i64>,
    #[prost(string, tag = "2")]
    dim_param: String,
}

impl Dimension {
    fn axis(&self) -> Axis<'_> {
        self.dim_value.map_or(Axis::Dynamic(&self.dim_param), Axis::Fixed)
    }
}
