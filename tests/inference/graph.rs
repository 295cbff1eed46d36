//! ONNX files that are not what a converter writes: none is served, and none takes more memory than its bytes allow.

use std::time::Instant;

use albertine::model::graph::{Graph, GraphError};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::model_folder;
use crate::support::models::small_model;

/// A field of a Protobuf message that holds bytes.
fn field(tag: u32, bytes: &[u8]) -> Vec<u8> {
    let mut field = Vec::new();
    for mut number in [u64::from(tag << 3 | 2), bytes.len() as u64] {
        while number >= 128 {
            field.push((number % 128 + 128) as u8);
            number /= 128;
        }
        field.push(number as u8);
    }
    field.extend(bytes);
    field
}

/// A file with a graph of these fields.
fn read(fields: &[Vec<u8>]) -> Result<Graph, GraphError> {
    Graph::read(&field(7, &fields.concat()).into())
}

const NODE: u32 = 1;
const INITIALIZER: u32 = 5;

/// An operator with an attribute.
fn node(attribute: &[u8]) -> Vec<u8> {
    field(NODE, &[field(4, b"Constant"), field(5, attribute)].concat())
}

#[test]
fn what_takes_more_memory_than_bytes_is_bounded() {
    let large = read(&[field(NODE, &field(3, &vec![b'n'; 5 << 20]))]).unwrap_err();
    assert!(matches!(large, GraphError::Structure { found } if found > 5 << 20), "{large}");
    // Empty operators: two bytes in the file, a hundred in memory.
    let many = read(&[field(NODE, b"").repeat(3 << 20)]).unwrap_err();
    assert!(matches!(many, GraphError::Structure { .. }), "{many}");
    assert_eq!(read(&[field(INITIALIZER, b"").repeat(20_000)]).unwrap_err(), GraphError::Tensors);
    // The axes of a weight: a byte each in the file, eight in memory.
    let axes = read(&[field(INITIALIZER, &field(1, &vec![1; 5 << 20]))]).unwrap_err();
    assert!(matches!(axes, GraphError::Structure { found } if found > 5 << 20), "{axes}");
    read(&[field(INITIALIZER, &field(9, &vec![0; 8 << 20]))]).expect("weights may be large");
}

#[test]
fn graphs_inside_each_other_have_a_largest_depth() {
    let mut inner = Vec::new();
    for _ in 0..200 {
        inner = node(&field(6, &inner));
    }
    assert!(matches!(read(&[inner]).unwrap_err(), GraphError::Unreadable(_)));
}

#[test]
fn other_files_are_found_wherever_a_graph_refers_to_them() {
    let external = [field(8, b"w"), field(13, b"")].concat();
    let by_location = [field(8, b"w"), vec![14 << 3, 1]].concat();
    let inner = field(INITIALIZER, &external);
    let places = [
        field(INITIALIZER, &external),
        field(INITIALIZER, &by_location),
        field(15, &field(1, &external)),
        field(15, &field(2, &external)),
        node(&field(5, &external)),
        node(&field(10, &external)),
        node(&field(22, &field(1, &external))),
        node(&field(23, &field(2, &external))),
        node(&field(6, &inner)),
        node(&field(11, &node(&field(6, &inner)))),
    ];
    for place in places {
        assert_eq!(read(std::slice::from_ref(&place)).unwrap_err(), GraphError::ExternalData("w".into()), "{place:?}");
    }
}

#[test]
fn foreign_operators_and_functions_are_found_also_inside() {
    let foreign = field(NODE, &[field(4, b"Run"), field(7, b"example.com")].concat());
    let expected = GraphError::Domain { operator: "Run".into(), domain: "example.com".into() };
    assert_eq!(read(std::slice::from_ref(&foreign)).unwrap_err(), expected);
    assert_eq!(read(&[node(&field(6, &foreign))]).unwrap_err(), expected);
    let with_function = [field(7, &node(b"")), field(25, b"")].concat();
    assert_eq!(Graph::read(&with_function.into()).unwrap_err(), GraphError::Functions);
    assert_eq!(Graph::read(&Vec::new().into()).unwrap_err(), GraphError::Empty);
}

#[test]
fn whatever_is_cut_off_or_changed_never_panics() {
    let bytes = std::fs::read(small_model("stepped-int8").join("layer.onnx")).unwrap();
    for length in (0..bytes.len()).step_by(7) {
        let _ = Graph::read(&bytes[..length].to_vec().into());
    }
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..2_000 {
        let mut changed = bytes.clone();
        for _ in 0..4 {
            let at = random.usize(..changed.len());
            changed[at] = random.u8(..);
        }
        if let Ok(graph) = Graph::read(&changed.into()) {
            let _ = (graph.inputs(), graph.outputs(), graph.not_finite(), graph.lookups("input_ids"));
        }
    }
}

#[test]
fn looking_into_a_graph_takes_less_than_its_hash() {
    let time = |work: &mut dyn FnMut()| {
        let started = Instant::now();
        work();
        started.elapsed()
    };
    let bytes: Bytes = std::fs::read(model_folder().join("embed.onnx")).unwrap().into();
    let hashing = time(&mut || assert_eq!(Sha256::digest(&bytes).len(), 32));
    let looking = time(&mut || drop(Graph::read(&bytes).unwrap()));
    println!("{} bytes: {looking:?}, the hash {hashing:?}", bytes.len());
    assert!(looking < hashing, "{looking:?}, and the hash {hashing:?}");
    assert_eq!(Graph::read(&bytes).unwrap().not_finite(), None);
}
