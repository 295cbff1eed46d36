//! What a model is: a folder with a manifest, a tokenizer and ONNX graphs, checked before it serves.

pub mod files;
pub mod folder;
pub mod graph;
pub mod manifest;
