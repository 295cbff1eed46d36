//! What the files of a folder hold, by reading them: hashes, inputs and outputs, weights, tables.

use std::convert::Infallible;

use bytes::Bytes;

use super::Finding;
use crate::model::{
    files::{ModelFolder, ModelProblem},
    folder::GraphBytes,
    graph::{Axis, Element, Graph, Lookup, Signature},
    manifest::{Graphs, Manifest},
};

/// The part of a network that a graph is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Embed,
    Layer,
    Head,
    /// The whole network.
    Unrolled,
}

/// The bytes of a folder's files.
pub struct Files {
    /// What is served.
    pub graphs: GraphBytes,
    /// The same network as one graph, which is only compared with.
    pub unrolled: Option<GraphBytes>,
    pub tokenizer: Bytes,
    pub corpus: Bytes,
}

/// A graph that was looked into.
pub struct PartGraph {
    part: Part,
    file: String,
    graph: Graph,
}

/// The files of the network, each with its part: those that are served, in the order in which they run, and the one that
/// is only compared with.
fn parts(manifest: &Manifest) -> Vec<(Part, &str)> {
    let mut parts: Vec<(Part, &str)> = match &manifest.graphs {
        Graphs::Stepped { embed, layers, head, .. } => {
            let layers = layers.iter().map(|layer| (Part::Layer, layer.as_str()));
            [(Part::Embed, embed.as_str())].into_iter().chain(layers).chain([(Part::Head, head.as_str())]).collect()
        }
        Graphs::Unrolled { model, .. } => vec![(Part::Unrolled, model)],
    };
    parts.extend(manifest.verification.unrolled.as_deref().map(|file| (Part::Unrolled, file)));
    parts
}

/// Reads every file that the manifest names, and compares its hash.
pub fn read(folder: &ModelFolder) -> Result<(Files, String), String> {
    let mut problems = Vec::new();
    let mut take = |file: Result<Bytes, ModelProblem>| {
        file.unwrap_or_else(|problem| {
            problems.push(problem.to_string());
            Bytes::new()
        })
    };
    let manifest = &folder.manifest;
    let Ok(graphs) = GraphBytes::of(&manifest.graphs, |file| Ok::<_, Infallible>(take(folder.graph(file))));
    let unrolled = manifest.verification.unrolled.as_deref();
    let unrolled = unrolled.map(|file| GraphBytes::Unrolled { model: take(folder.graph(file)) });
    let (tokenizer, corpus) = (take(folder.tokenizer()), take(folder.corpus()));
    if !problems.is_empty() {
        return Err(problems.join("; "));
    }
    let detail = format!("{} files as their SHA-256 says", parts(manifest).len() + 2);
    Ok((Files { graphs, unrolled, tokenizer, corpus }, detail))
}

/// Looks into the graphs; see [`Graph::read`].
pub fn graphs(files: &Files, manifest: &Manifest) -> Result<(Vec<PartGraph>, String), String> {
    let mut problems = Vec::new();
    let mut graphs = Vec::new();
    let bytes = [Some(&files.graphs), files.unrolled.as_ref()].into_iter().flatten().flat_map(GraphBytes::all);
    for ((part, file), bytes) in parts(manifest).into_iter().zip(bytes) {
        match Graph::read(bytes) {
            Ok(graph) => graphs.push(PartGraph { part, file: file.to_owned(), graph }),
            Err(error) => problems.push(format!("`{file}`: {error}")),
        }
    }
    if !problems.is_empty() {
        return Err(problems.join("; "));
    }
    Ok((graphs, "readable, and whole without other files".into()))
}

/// Whether scales of a served graph follow what is computed together; see [`Graph::has_dynamic_scales`].
pub fn has_dynamic_scales(graphs: &[PartGraph], manifest: &Manifest) -> bool {
    let is_served = |graph: &PartGraph| manifest.verification.unrolled.as_ref() != Some(&graph.file);
    graphs.iter().any(|graph| is_served(graph) && graph.graph.has_dynamic_scales())
}

/// What a graph has to take and give: names, elements and axes; a name in an axis is only for messages.
fn expected(part: Part, manifest: &Manifest) -> (Vec<Signature<'static>>, Signature<'static>) {
    let (batch, sequence) = (Axis::Dynamic("batch"), Axis::Dynamic("sequence"));
    let of = |name, element, axes: &[Axis<'static>]| Signature { name, element, axes: Some(axes.to_vec()) };
    let size = |size: usize| Axis::Fixed(i64::try_from(size).unwrap_or(i64::MAX));
    let hidden = [batch, sequence, size(manifest.architecture.hidden_size.get())];
    let ids = |name| of(name, Element::Int64, &[batch, sequence]);
    let lengths = of("lengths", Element::Int32, &[batch]);
    let logits = of("logits", Element::Float32, &[batch, size(manifest.labels.len())]);
    let hidden_in = of("hidden", Element::Float32, &hidden);
    match part {
        Part::Embed => (vec![ids("input_ids"), ids("token_type_ids")], hidden_in),
        Part::Layer => (vec![hidden_in, lengths], of("hidden_out", Element::Float32, &hidden)),
        Part::Head => (vec![hidden_in], logits),
        Part::Unrolled => (vec![ids("input_ids"), ids("token_type_ids"), lengths], logits),
    }
}

/// Names, elements, ranks, and which axes are free.
pub fn signatures(graphs: &[PartGraph], manifest: &Manifest) -> Finding {
    let mut problems = Vec::new();
    for PartGraph { part, file, graph } in graphs {
        let (inputs, output) = expected(*part, manifest);
        let of_file = |problem: String| format!("`{file}`: {problem}");
        problems.extend(compared("input", &inputs, &graph.inputs()).into_iter().map(of_file));
        problems.extend(compared("output", &[output], &graph.outputs()).into_iter().map(of_file));
    }
    if problems.is_empty() { Ok("names, types, ranks and free axes".into()) } else { Err(problems.join("; ")) }
}

fn compared(what: &str, expected: &[Signature<'_>], found: &[Signature<'_>]) -> Vec<String> {
    let names = |values: &[Signature<'_>]| {
        let mut names: Vec<&str> = values.iter().map(|value| value.name).collect();
        names.sort_unstable();
        names.join(", ")
    };
    if names(expected) != names(found) {
        return vec![format!("the {what}s are {}, and must be {}", names(found), names(expected))];
    }
    let pairs = expected
        .iter()
        .filter_map(|expected| Some((expected, found.iter().find(|found| found.name == expected.name)?)));
    pairs.filter_map(|(expected, found)| mismatch(what, expected, found)).collect()
}

/// What is wrong with an input or output of the right name. The number of logits is the check of labels' own.
fn mismatch(what: &str, expected: &Signature<'_>, found: &Signature<'_>) -> Option<String> {
    let name = expected.name;
    if expected.element != found.element {
        return Some(format!("the {what} `{name}` is of {:?}, and must be of {:?}", found.element, expected.element));
    }
    let (wanted, axes) = (expected.axes.as_deref()?, found.axes.as_deref()?);
    if axes.len() != wanted.len() {
        return Some(format!("the {what} `{name}` has {} axes, and must have {}", axes.len(), wanted.len()));
    }
    wanted.iter().zip(axes).find_map(|(wanted, axis)| match (wanted, axis) {
        (Axis::Dynamic(wanted), Axis::Fixed(length)) => Some(format!(
            "the {what} `{name}` takes only {length} for its axis `{wanted}`: export it with dynamic axes"
        )),
        (Axis::Fixed(wanted), Axis::Fixed(length)) if wanted != length && name != "logits" => {
            Some(format!("the {what} `{name}` has hidden states of {length}, and `hidden_size` is {wanted}"))
        }
        _ => None,
    })
}

/// That every weight is a number.
pub fn weights(graphs: &[PartGraph]) -> Finding {
    let is_not = |graph: &PartGraph| {
        let weight = graph.graph.not_finite()?;
        Some(format!("`{}`: the weight `{weight}` holds values that are no finite numbers", graph.file))
    };
    let problems: Vec<String> = graphs.iter().filter_map(is_not).collect();
    if problems.is_empty() { Ok("all are finite".into()) } else { Err(problems.join("; ")) }
}

/// That there is a row for every token, and for every token type.
pub fn tables(graphs: &[PartGraph], manifest: &Manifest) -> Finding {
    let vocabulary = i64::try_from(manifest.architecture.vocabulary_size.get()).unwrap_or(i64::MAX);
    let types = if manifest.input.pair { 2 } else { 1 };
    let mut rows = Vec::new();
    for PartGraph { file, graph, .. } in
        graphs.iter().filter(|graph| matches!(graph.part, Part::Embed | Part::Unrolled))
    {
        let (words, kinds) = (graph.lookups("input_ids"), graph.lookups("token_type_ids"));
        let fewest = |lookups: &[Lookup<'_>]| lookups.iter().map(|lookup| lookup.rows).min();
        let smallest = |lookups: &[Lookup<'_>], rows| {
            lookups.iter().find(|lookup| lookup.rows < rows).map(|lookup| lookup.table.to_owned())
        };
        let Some(found) = fewest(&words) else {
            return Err(format!("`{file}`: `input_ids` chooses rows of no weight: where is the word table?"));
        };
        if found < vocabulary && fewest(&kinds).is_some_and(|rows| rows >= vocabulary) {
            return Err(format!(
                "`{file}`: its inputs are swapped: `input_ids` chooses among {found} rows, and `token_type_ids` among those of the vocabulary"
            ));
        }
        if let Some(table) = smallest(&words, vocabulary) {
            return Err(format!(
                "`{file}`: the word table `{table}` has {found} rows, fewer than the vocabulary's {vocabulary}"
            ));
        }
        if let Some(table) = smallest(&kinds, types) {
            return Err(format!("`{file}`: the table of token types `{table}` has fewer than {types} rows"));
        }
        rows.push(found);
    }
    let rows = rows.iter().min().copied().unwrap_or_default();
    Ok(format!("{rows} rows of words for a vocabulary of {vocabulary}"))
}

/// That there is a logit for every label, as far as the graphs say how many they give.
pub fn labels(graphs: &[PartGraph], manifest: &Manifest) -> Finding {
    let labels = manifest.labels.len();
    for PartGraph { file, graph, .. } in graphs {
        let outputs = graph.outputs();
        let Some(logits) = outputs.iter().find(|output| output.name == "logits") else { continue };
        if let Some(Axis::Fixed(count)) = logits.axes.as_deref().and_then(|axes| axes.last())
            && usize::try_from(*count) != Ok(labels)
        {
            return Err(format!(
                "`{file}` gives {count} logits, and `model.toml` names {labels} labels: {}",
                manifest.labels.join(", ")
            ));
        }
    }
    Ok(format!("one logit for each of {labels}"))
}
