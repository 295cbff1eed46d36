//! Schemas by their ids in a registry: what decoding needs of one, and where it gets them.

use std::sync::Arc;

use super::{Format, avro::AvroSchema, protobuf::ProtobufSchema};

/// Where schemas come from. Calls may block.
pub trait Schemas: Send + Sync {
    /// The schema with this id.
    ///
    /// # Errors
    /// [`SchemaError`].
    fn schema(&self, id: u32) -> Result<Arc<Schema>, SchemaError>;
}

/// Why there is no schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// The registry has none of this id.
    #[error("{0}")]
    Unknown(String),
    /// It has one that cannot be used.
    #[error("{0}")]
    Invalid(String),
    /// It does not tell. Asked again, it may.
    #[error("{0}")]
    Unavailable(String),
}

/// A schema as the registry holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaSource {
    pub kind: SchemaKind,
    pub text: String,
    /// The schemas it refers to, directly or not; each after those it refers to itself.
    pub references: Vec<Reference>,
}

/// A schema by the name under which others refer to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    pub name: String,
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaKind {
    Avro,
    Protobuf,
    Json,
}

/// A schema, ready to read records.
#[derive(Debug)]
pub enum Schema {
    Avro(AvroSchema),
    Protobuf(ProtobufSchema),
    /// JSON is read without its schema.
    Json,
}

impl Schema {
    /// # Errors
    /// What is wrong with the schema, in the words of its parser.
    pub fn compile(source: &SchemaSource) -> Result<Self, String> {
        match source.kind {
            SchemaKind::Avro => AvroSchema::compile(source).map(Self::Avro),
            SchemaKind::Protobuf => ProtobufSchema::compile(source).map(Self::Protobuf),
            SchemaKind::Json => Ok(Self::Json),
        }
    }

    /// The format of streams whose records have such a schema.
    pub fn format(&self) -> Format {
        match self {
            Self::Avro(_) => Format::Avro,
            Self::Protobuf(_) => Format::Protobuf,
            Self::Json => Format::Json,
        }
    }
}

/// In place of a registry where none is configured.
pub struct NoSchemas;

impl Schemas for NoSchemas {
    fn schema(&self, id: u32) -> Result<Arc<Schema>, SchemaError> {
        Err(SchemaError::Unavailable(format!(
            "the record is written with schema {id} of a registry, and none is configured: set `schema_registry.url`"
        )))
    }
}
