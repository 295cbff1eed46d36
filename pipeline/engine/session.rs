//! Runs a group of windows through a model's graphs.
//!
//! A [`ModelSession`] belongs to one thread and uses one core: on a CPU a document costs alone what it
//! costs in a batch, so many single-threaded sessions beat one session of many threads. On a GPU a session computes
//! large groups, whose hidden states stay there between two passes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ort::{
    session::Session,
    value::{
        DynValue, Tensor,
        TensorElementType::{self, Float32, Int32, Int64},
    },
};

use super::{
    device::Device,
    job::InferError,
    provider::Provider,
    runtime::{OnnxRuntime, SessionError, open_graph},
};
use crate::{
    domain::early_exit::{EarlyExits, Trail},
    model::folder::{GraphBytes, Model, WindowLogits},
    text::tokenize::Tokens,
};

/// A model ready to compute, on the calling thread.
pub struct ModelSession {
    network: Network,
    labels: usize,
    passes: usize,
    early_exit: Option<Arc<EarlyExits>>,
    times: PartTimes,
}

/// What inference has taken since it was last asked, by part of the network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PartTimes {
    pub embed: Duration,
    /// All passes together; of a network that is one graph, everything.
    pub layers: Duration,
    pub head: Duration,
    /// Making the inputs, moving rows between groups, and taking the logits out.
    pub rest: Duration,
}

/// The sessions of a network's graphs.
enum Network {
    Stepped {
        embed: Session,
        layers: Vec<Session>,
        head: Session,
        /// Where hidden states are between two passes; `None`: in this machine's memory.
        device: Option<Device>,
    },
    Unrolled(Session),
}

impl Network {
    /// Distinct layers, which are called in turn.
    fn layers(&self) -> usize {
        match self {
            Self::Stepped { layers, .. } => layers.len(),
            Self::Unrolled(_) => 1,
        }
    }
}

/// What has tokens to compute.
pub trait Tokenized {
    fn tokens(&self) -> Tokens<'_>;
    /// Windows of its document, itself included.
    fn windows(&self) -> usize;
}

impl Tokenized for Tokens<'_> {
    fn tokens(&self) -> Tokens<'_> {
        *self
    }

    fn windows(&self) -> usize {
        1
    }
}

/// Windows on their way through a network, each at its own depth.
pub struct Batch<T> {
    /// In the order of the state's rows.
    rows: Vec<Row<T>>,
    state: State,
    leaves_early: bool,
}

struct Row<T> {
    task: T,
    /// In tokens.
    length: usize,
    /// Of its document.
    windows: usize,
    /// Passes it has gone through.
    depth: usize,
    trail: Trail,
}

enum State {
    /// No row.
    Empty,
    /// Of a network that is one graph.
    Inputs(Inputs),
    /// `hidden` is float32 `[batch, sequence, hidden]`, `lengths` int32 `[batch]` in tokens.
    Hidden { hidden: DynValue, lengths: DynValue },
}

impl<T> Batch<T> {
    /// One whose windows leave as the model's early exit says.
    pub fn new() -> Self {
        Self { rows: Vec::new(), state: State::Empty, leaves_early: true }
    }

    /// One whose windows go through all passes.
    pub fn at_full_depth() -> Self {
        Self { leaves_early: false, ..Self::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Windows in it.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Tokens of its longest window; zero where it is empty.
    pub fn longest(&self) -> usize {
        self.rows.iter().map(|row| row.length).max().unwrap_or_default()
    }

    /// Tokens of all its windows.
    pub fn tokens(&self) -> usize {
        self.rows.iter().map(|row| row.length).sum()
    }

    /// Which of so many layers is called next: of all rows the same one, since none joins in between.
    fn turn(&self, layers: usize) -> usize {
        self.rows.first().map_or(0, |row| row.depth % layers)
    }

    /// Everything that is in it, given up.
    pub fn into_tasks(self) -> Vec<T> {
        self.rows.into_iter().map(|row| row.task).collect()
    }
}

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Self::new()
    }
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
            GraphBytes::Stepped { embed, layers, head } => Network::Stepped {
                embed: open("embed", embed, &[("input_ids", Int64), ("token_type_ids", Int64)], "hidden")?,
                layers: layers
                    .iter()
                    .map(|layer| open("layer", layer, &[("hidden", Float32), ("lengths", Int32)], "hidden_out"))
                    .collect::<Result<_, _>>()?,
                head: open("head", head, &[("hidden", Float32)], "logits")?,
                device: runtime.device().map_err(|error| runtime.unusable(&error))?,
            },
            GraphBytes::Unrolled { model: bytes } => {
                let inputs = [("input_ids", Int64), ("token_type_ids", Int64), ("lengths", Int32)];
                Network::Unrolled(open("model", bytes, &inputs, "logits")?)
            }
        };
        let mut session = Self {
            network,
            labels: model.labels.len(),
            passes: model.passes,
            early_exit: model.early_exit.clone(),
            times: PartTimes::default(),
        };
        if runtime.provider() != Provider::Cpu {
            session.warm_up().map_err(|error| runtime.unusable(&error))?;
        }
        Ok(session)
    }

    /// Computes two tokens. A provider loads some of its libraries only when an operator needs them, such as cuDNN: what is
    /// missing is missed before the first record.
    fn warm_up(&mut self) -> Result<(), ort::Error> {
        let state = self.embed(Inputs::of(&[Tokens::single(&[0, 0])])?)?;
        let mut batch: Batch<Tokens<'_>> = Batch { state, ..Batch::at_full_depth() };
        self.pass(&mut batch)?;
        self.logits(&batch.state)?;
        self.take_times();
        Ok(())
    }

    /// How often the network applies a layer.
    pub fn passes(&self) -> usize {
        self.passes
    }

    /// Whether windows may join: where layers are called in turn, only before the first of them; where hidden states stay on
    /// a device, only while there are none.
    pub fn is_open<T>(&self, batch: &Batch<T>) -> bool {
        let joins = !matches!(self.network, Network::Stepped { device: Some(_), .. });
        batch.is_empty() || (joins && batch.turn(self.network.layers()) == 0)
    }

    /// The logits of each window after the last pass, in order. Windows are padded at the right to the longest of the
    /// group; the network masks what is beyond a window's own length.
    ///
    /// # Errors
    /// [`InferError`] where the runtime fails or answers in another shape.
    pub fn infer(&mut self, windows: &[Tokens<'_>]) -> Result<Vec<Vec<f32>>, InferError> {
        if windows.is_empty() {
            return Ok(Vec::new());
        }
        let mut batch = Batch::at_full_depth();
        self.enter(&mut batch, windows.to_vec()).map_err(|(_, error)| error)?;
        // All go the same way, so all leave with the last step, in their order.
        loop {
            let left = self.step(&mut batch)?;
            if batch.is_empty() {
                return Ok(left.into_iter().map(|(_, window)| window.logits).collect());
            }
        }
    }

    /// The logits of one window after every pass; of a network that is one graph, after the last.
    ///
    /// # Errors
    /// As for [`Self::infer`].
    pub fn infer_every_depth(&mut self, window: Tokens<'_>) -> Result<Vec<Vec<f32>>, InferError> {
        let Network::Stepped { .. } = self.network else { return self.infer(&[window]) };
        let mut batch = Batch::at_full_depth();
        self.enter(&mut batch, vec![window]).map_err(|(_, error)| error)?;
        let mut logits = Vec::with_capacity(self.passes);
        while logits.len() + 1 < self.passes {
            self.step(&mut batch)?;
            logits.extend(self.timed(|session| session.heads(&batch))?);
        }
        logits.extend(self.step(&mut batch)?.into_iter().map(|(_, window)| window.logits));
        Ok(logits)
    }

    /// Windows join a batch before their first pass, where it [`Self::is_open`]. Where this fails, they are given back and the
    /// batch is as it was.
    ///
    /// # Errors
    /// As for [`Self::infer`].
    pub fn enter<T: Tokenized>(&mut self, batch: &mut Batch<T>, tasks: Vec<T>) -> Result<(), (Vec<T>, InferError)> {
        let entered = self.timed(|session| {
            let inputs = Inputs::of(&tasks.iter().map(T::tokens).collect::<Vec<_>>())?;
            let entering = session.embed(inputs)?;
            let lengths: Vec<usize> = batch.rows.iter().map(|row| row.length).chain(tasks.iter().map(length)).collect();
            match &batch.state {
                State::Empty => Ok(entering),
                State::Hidden { .. } if !session.is_open(batch) => {
                    Err(ort::Error::new("windows join only before the first layer, and none on a device"))
                }
                State::Hidden { hidden, .. } => State::joined(hidden, &entering, &lengths),
                State::Inputs(_) => Err(ort::Error::new("nothing can join a network that is one graph")),
            }
        });
        match entered {
            Ok(state) => {
                batch.state = state;
                let row = |task: T| Row {
                    length: length(&task),
                    windows: task.windows(),
                    task,
                    depth: 0,
                    trail: Trail::default(),
                };
                batch.rows.extend(tasks.into_iter().map(row));
                Ok(())
            }
            Err(error) => Err((tasks, error)),
        }
    }

    /// One more pass of every window in the batch; gives back those that leave it. Where this fails, the batch cannot be
    /// computed any more.
    ///
    /// # Errors
    /// As for [`Self::infer`].
    pub fn step<T>(&mut self, batch: &mut Batch<T>) -> Result<Vec<(T, WindowLogits)>, InferError> {
        self.timed(|session| {
            session.pass(batch)?;
            let (passes, early_exit) = (session.passes, session.early_exit.clone().filter(|_| batch.leaves_early));
            if early_exit.is_none() && batch.rows.iter().all(|row| row.depth < passes) {
                return Ok(Vec::new());
            }
            let logits = session.heads(batch)?;
            let mut leaving = Vec::new();
            for (row, logits) in batch.rows.iter_mut().zip(&logits) {
                let early = early_exit.as_ref().and_then(|exits| exits.of(row.windows)).filter(|_| row.depth < passes);
                let is_sure = early.is_some_and(|exit| exit.leaves(&mut row.trail, row.depth, logits));
                leaving.push(is_sure || row.depth == passes);
            }
            session.leave(batch, &leaving, logits)
        })
    }

    /// Where the time went since this was last called.
    pub fn take_times(&mut self) -> PartTimes {
        std::mem::take(&mut self.times)
    }

    /// Whatever the graphs did not take is the rest.
    fn timed<R>(&mut self, run: impl FnOnce(&mut Self) -> Result<R, ort::Error>) -> Result<R, InferError> {
        let (started, before) = (Instant::now(), self.times.of_graphs());
        let result = run(self).map_err(|error| InferError(error.to_string()));
        self.times.rest += started.elapsed().saturating_sub(self.times.of_graphs().saturating_sub(before));
        result
    }

    fn embed(&mut self, inputs: Inputs) -> Result<State, ort::Error> {
        let Network::Stepped { embed, device, .. } = &mut self.network else { return Ok(State::Inputs(inputs)) };
        let started = Instant::now();
        let Inputs { ids, token_types, lengths } = inputs;
        let hidden = run(embed, device.as_ref(), [("input_ids", &ids), ("token_type_ids", &token_types)], "hidden")?;
        self.times.embed += started.elapsed();
        Ok(State::Hidden { hidden, lengths })
    }

    /// One pass, through the layer whose turn it is; of a network that is one graph, everything but what [`Self::heads`]
    /// takes out.
    fn pass<T>(&mut self, batch: &mut Batch<T>) -> Result<(), ort::Error> {
        let started = Instant::now();
        let turn = batch.turn(self.network.layers());
        let passed = match (&mut self.network, &mut batch.state) {
            (Network::Stepped { layers, device, .. }, State::Hidden { hidden, lengths }) => {
                let inputs = [("hidden", &*hidden), ("lengths", &*lengths)];
                *hidden = run(&mut layers[turn], device.as_ref(), inputs, "hidden_out")?;
                1
            }
            _ => self.passes,
        };
        batch.rows.iter_mut().for_each(|row| row.depth += passed);
        self.times.layers += started.elapsed();
        Ok(())
    }

    /// The logits of every row as it stands.
    fn heads<T>(&mut self, batch: &Batch<T>) -> Result<Vec<Vec<f32>>, ort::Error> {
        let Some(logits) = self.logits(&batch.state)? else { return Ok(Vec::new()) };
        let (shape, values) = logits.try_extract_tensor::<f32>()?;
        if **shape != [batch.rows.len() as i64, self.labels as i64] {
            return Err(ort::Error::new(format!(
                "the logits have shape {shape}, not [{}, {}]: the labels in `model.toml` do not fit the graph",
                batch.rows.len(),
                self.labels
            )));
        }
        Ok(values.chunks(self.labels).map(<[f32]>::to_vec).collect())
    }

    /// As the graph gives them; `None` of a state without rows.
    fn logits(&mut self, state: &State) -> Result<Option<DynValue>, ort::Error> {
        let started = Instant::now();
        let (logits, time) = match (&mut self.network, state) {
            (Network::Stepped { head, .. }, State::Hidden { hidden, .. }) => {
                (take(head.run(ort::inputs!["hidden" => hidden])?, "logits")?, &mut self.times.head)
            }
            (Network::Unrolled(model), State::Inputs(Inputs { ids, token_types, lengths })) => {
                let inputs = ort::inputs!["input_ids" => ids, "token_type_ids" => token_types, "lengths" => lengths];
                (take(model.run(inputs)?, "logits")?, &mut self.times.layers)
            }
            _ => return Ok(None),
        };
        *time += started.elapsed();
        Ok(Some(logits))
    }

    /// Takes out the rows that leave, with their logits.
    fn leave<T>(
        &mut self,
        batch: &mut Batch<T>,
        leaving: &[bool],
        logits: Vec<Vec<f32>>,
    ) -> Result<Vec<(T, WindowLogits)>, ort::Error> {
        if !leaving.contains(&true) {
            return Ok(Vec::new());
        }
        let staying: Vec<usize> = (0..leaving.len()).filter(|row| !leaving[*row]).collect();
        let state = std::mem::replace(&mut batch.state, State::Empty);
        let mut left = Vec::new();
        for ((row, logits), leaves) in std::mem::take(&mut batch.rows).into_iter().zip(logits).zip(leaving) {
            if *leaves {
                left.push((row.task, WindowLogits { logits, depth: row.depth }));
            } else {
                batch.rows.push(row);
            }
        }
        if let (State::Hidden { hidden, .. }, false) = (&state, staying.is_empty()) {
            let lengths: Vec<usize> = batch.rows.iter().map(|row| row.length).collect();
            batch.state = match &mut self.network {
                Network::Stepped { device: Some(device), .. } => State::Hidden {
                    hidden: device.rows(hidden, &staying)?,
                    lengths: lengths_tensor(lengths.iter().copied())?,
                },
                _ => State::gathered(&[(hidden, &staying)], &lengths)?,
            };
        }
        Ok(left)
    }
}

fn length<T: Tokenized>(task: &T) -> usize {
    task.tokens().ids.len()
}

impl State {
    /// The rows of `hidden`, then those of a state that enters.
    fn joined(hidden: &DynValue, entering: &Self, lengths: &[usize]) -> Result<Self, ort::Error> {
        let Self::Hidden { hidden: entered, .. } = entering else { return Err(ort::Error::new("no hidden states")) };
        let rows = |hidden: &DynValue| Ok::<_, ort::Error>((0..hidden_shape(hidden)?[0]).collect::<Vec<_>>());
        let (old, new) = (rows(hidden)?, rows(entered)?);
        Self::gathered(&[(hidden, &old), (entered, &new)], lengths)
    }

    /// Copies rows of hidden states into one tensor, padded with zeros to the longest. `lengths` has one for each row, in
    /// tokens.
    fn gathered(parts: &[(&DynValue, &[usize])], lengths: &[usize]) -> Result<Self, ort::Error> {
        let longest = lengths.iter().copied().max().unwrap_or_default();
        let (mut values, mut width) = (Vec::new(), 0);
        let mut lengths_left = lengths.iter();
        for (hidden, chosen) in parts {
            let [_, sequence, hidden_size] = hidden_shape(hidden)?;
            let (_, from) = hidden.try_extract_tensor::<f32>()?;
            width = hidden_size;
            values.reserve_exact(chosen.len() * longest * width);
            for (row, length) in chosen.iter().zip(&mut lengths_left) {
                let start = row * sequence * width;
                values.extend_from_slice(&from[start..start + length * width]);
                values.resize(values.len() + (longest - length) * width, 0.0);
            }
        }
        Ok(Self::Hidden {
            hidden: Tensor::from_array(([lengths.len(), longest, width], values))?.into_dyn(),
            lengths: lengths_tensor(lengths.iter().copied())?,
        })
    }
}

/// Batch, sequence and hidden size.
fn hidden_shape(hidden: &DynValue) -> Result<[usize; 3], ort::Error> {
    let (shape, _) = hidden.try_extract_tensor::<f32>()?;
    match **shape {
        [batch, sequence, hidden_size] => Ok([batch, sequence, hidden_size].map(|size| size as usize)),
        _ => Err(ort::Error::new(format!("the hidden states have shape {shape}, not three axes"))),
    }
}

impl PartTimes {
    fn of_graphs(&self) -> Duration {
        self.embed + self.layers + self.head
    }
}

/// A group as the graphs take it.
struct Inputs {
    /// int64 `[batch, sequence]`, 0 where padded.
    ids: DynValue,
    /// int64 `[batch, sequence]`
    token_types: DynValue,
    /// int32 `[batch]`, in tokens.
    lengths: DynValue,
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
        Ok(Self {
            ids: Tensor::from_array(([batch, longest], ids))?.into_dyn(),
            token_types: Tensor::from_array(([batch, longest], token_types))?.into_dyn(),
            lengths: lengths_tensor(windows.iter().map(|window| window.ids.len()))?,
        })
    }
}

fn lengths_tensor(lengths: impl Iterator<Item = usize>) -> Result<DynValue, ort::Error> {
    let lengths: Vec<i32> = lengths.map(|length| i32::try_from(length).unwrap_or(i32::MAX)).collect();
    Ok(Tensor::from_array(([lengths.len()], lengths))?.into_dyn())
}

/// Runs a graph of hidden states, which stay on the device where there is one.
fn run(
    session: &mut Session,
    device: Option<&Device>,
    inputs: [(&str, &DynValue); 2],
    output: &str,
) -> Result<DynValue, ort::Error> {
    if let Some(device) = device {
        return device.run(session, &inputs, output);
    }
    let [(first, one), (second, other)] = inputs;
    take(session.run(ort::inputs![first => one, second => other])?, output)
}

/// An output that a graph was promised to give.
pub(super) fn take(mut outputs: ort::session::SessionOutputs<'_>, name: &str) -> Result<DynValue, ort::Error> {
    outputs.remove(name).ok_or_else(|| ort::Error::new(format!("the graph gave no output `{name}`")))
}
