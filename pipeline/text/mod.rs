//! From text to windows of token ids, and to the language it is in. The only importer of `tokenizers`.
//!
//! Guarantee: a long document is read whole, in overlapping windows; nothing is truncated. It does not
//! know models or batches.

pub mod language;
pub mod tokenize;
pub mod window;
mod words;
