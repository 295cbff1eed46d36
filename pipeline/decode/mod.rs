//! From the bytes of a record to a document: where each field lies, and what a bad record is told.
//!
//! Guarantee: whatever the bytes are, the result is a document, a deletion or a rejection that names the
//! field; never a panic, and never a guess at a missing field. It knows no broker: a record is a key and
//! a value. Avro and Protobuf will stand beside [`json`].

pub mod json;
pub mod mapping;

use crate::domain::document::Document;

/// What a record asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded {
    Document(Document),
    /// A record without a value withdraws the document its key names.
    Deletion {
        id: String,
    },
}
