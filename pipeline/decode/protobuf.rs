//! Decodes records written in Protocol Buffers, with the schema of their writer.
//!
//! Fields have the names of the `.proto` file. A field without presence that was not written has its default, others are
//! absent. `Timestamp` reads as a time, the wrappers and `Struct` as what they hold; what an `Any` holds stays bytes.

use std::{borrow::Cow, collections::HashMap};

use chrono::DateTime;
use prost_reflect::{DynamicMessage, FileDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage, Value as Field};
use protox::{
    Compiler, Error,
    file::{File, FileResolver, GoogleFileResolver},
};
use serde_json::{Map, Value};

use super::{convert, reject, schema::SchemaSource, varint};
use crate::domain::rejection::Rejection;

/// The name of the file among those it imports.
const FILE_NAME: &str = "record.proto";

/// Messages in messages, by their declarations. Nobody nests so deep; a larger number of indexes is no framing.
const INDEXES_MAX: i64 = 32;

/// A `.proto` file, with those it imports.
#[derive(Debug)]
pub struct ProtobufSchema(FileDescriptor);

struct Files(HashMap<String, String>);

impl FileResolver for Files {
    fn open_file(&self, name: &str) -> Result<File, Error> {
        match self.0.get(name) {
            Some(source) => File::from_source(name, source),
            None => GoogleFileResolver::new().open_file(name),
        }
    }
}

impl ProtobufSchema {
    /// # Errors
    /// What is wrong with it, as the compiler says.
    pub fn compile(source: &SchemaSource) -> Result<Self, String> {
        let mut files: HashMap<String, String> =
            source.references.iter().map(|reference| (reference.name.clone(), reference.text.clone())).collect();
        files.insert(FILE_NAME.into(), source.text.clone());
        let mut compiler = Compiler::with_file_resolver(Files(files));
        compiler.open_file(FILE_NAME).map_err(|error| error.to_string())?;
        let file = compiler.descriptor_pool().get_file_by_name(FILE_NAME);
        file.map(Self).ok_or_else(|| "the compiler gave no file".into())
    }

    /// Reads the indexes that say which message it is, then the message.
    ///
    /// # Errors
    /// A [`Rejection`] where either is not what the schema says.
    pub fn value(&self, data: &[u8]) -> Result<Value, Rejection> {
        let mut left = data;
        let indexes = indexes(&mut left).ok_or_else(|| {
            reject("protobuf_invalid", "the list of message indexes after the schema's id is cut off or not a list; was it written by a schema registry's serializer?")
        })?;
        let descriptor = self.message(&indexes).ok_or_else(|| {
            let message = format!(
                "the value is of the message at {indexes:?} of its schema, which has none there; was it written with the schema whose id it carries?"
            );
            reject("protobuf_invalid", message)
        })?;
        let name = descriptor.full_name().to_owned();
        let message = DynamicMessage::decode(descriptor, left).map_err(|error| {
            let message = format!(
                "the value is not a message `{name}`: {error}; was it written with the schema whose id it carries?"
            );
            reject("protobuf_invalid", message)
        })?;
        Ok(object(&message))
    }

    /// The message that this path of indexes names: one of the file's, then one declared in it, and so on. The entries
    /// of maps, which no file declares, do not count.
    fn message(&self, indexes: &[usize]) -> Option<MessageDescriptor> {
        let (first, rest) = indexes.split_first()?;
        let mut message = self.0.messages().nth(*first)?;
        for index in rest {
            let declared = message.child_messages().filter(|child| !child.is_map_entry()).nth(*index)?;
            message = declared;
        }
        Some(message)
    }
}

/// The number of indexes, then each; a zero alone stands for the first message.
fn indexes(left: &mut &[u8]) -> Option<Vec<usize>> {
    match varint::take(left)? {
        0 => Some(vec![0]),
        count if (1..=INDEXES_MAX).contains(&count) => {
            (0..count).map(|_| usize::try_from(varint::take(left)?).ok()).collect()
        }
        _ => None,
    }
}

fn object(message: &DynamicMessage) -> Value {
    let descriptor = message.descriptor();
    let field = |name: &str| message.get_field_by_name(name).map(Cow::into_owned);
    match descriptor.full_name() {
        "google.protobuf.Timestamp" => {
            let seconds = field("seconds").and_then(|seconds| seconds.as_i64()).unwrap_or_default();
            let nanos = field("nanos").and_then(|nanos| nanos.as_i32()).unwrap_or_default();
            convert::time(u32::try_from(nanos).ok().and_then(|nanos| DateTime::from_timestamp(seconds, nanos)))
        }
        "google.protobuf.Struct" => content(message, "fields"),
        "google.protobuf.ListValue" => content(message, "values"),
        "google.protobuf.Value" => {
            let set = descriptor.fields().find(|field| message.has_field(field));
            set.map_or(Value::Null, |set| match set.name() {
                "null_value" => Value::Null,
                name => content(message, name),
            })
        }
        "google.protobuf.DoubleValue"
        | "google.protobuf.FloatValue"
        | "google.protobuf.Int64Value"
        | "google.protobuf.UInt64Value"
        | "google.protobuf.Int32Value"
        | "google.protobuf.UInt32Value"
        | "google.protobuf.BoolValue"
        | "google.protobuf.StringValue"
        | "google.protobuf.BytesValue" => content(message, "value"),
        _ => {
            let present = descriptor.fields().filter(|field| !field.supports_presence() || message.has_field(field));
            let fields =
                present.map(|field| (field.name().to_owned(), value(&message.get_field(&field), &field.kind())));
            Value::Object(fields.collect())
        }
    }
}

/// A field of a well-known type, whose other fields say nothing.
fn content(message: &DynamicMessage, name: &str) -> Value {
    let field = message.descriptor().get_field_by_name(name);
    field.map_or(Value::Null, |field| value(&message.get_field(&field), &field.kind()))
}

fn value(field: &Field, kind: &Kind) -> Value {
    match field {
        Field::Bool(value) => Value::from(*value),
        Field::I32(value) => Value::from(*value),
        Field::I64(value) => Value::from(*value),
        Field::U32(value) => Value::from(*value),
        Field::U64(value) => Value::from(*value),
        Field::F32(value) => convert::float(*value),
        Field::F64(value) => convert::double(*value),
        Field::String(value) => Value::from(value.as_str()),
        Field::Bytes(value) => convert::bytes(value),
        Field::EnumNumber(number) => {
            let name = kind.as_enum().and_then(|kind| Some(kind.get_value(*number)?.name().to_owned()));
            name.map_or_else(|| Value::from(*number), Value::String)
        }
        Field::Message(message) => object(message),
        Field::List(items) => Value::Array(items.iter().map(|item| value(item, kind)).collect()),
        Field::Map(entries) => {
            let kind = kind.as_message().map_or_else(|| kind.clone(), |entry| entry.map_entry_value_field().kind());
            let entries = entries.iter().map(|(key, entry)| (key_text(key), value(entry, &kind)));
            Value::Object(entries.collect::<Map<_, _>>())
        }
    }
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}

#[cfg(test)]
mod tests {
    use protox::prost::Message;
    use serde_json::json;

    use super::*;
    use crate::decode::schema::{Reference, SchemaKind};

    const REVIEW: &str = r#"
        syntax = "proto3";
        package shop;
        import "people/author.proto";
        import "google/protobuf/timestamp.proto";
        import "google/protobuf/wrappers.proto";
        import "google/protobuf/struct.proto";
        import "google/protobuf/any.proto";
        message Other { string name = 1; }
        message Review {
            string id = 1;
            oneof body { string text = 2; bytes raw = 3; }
            float stars = 4;
            google.protobuf.Timestamp at = 5;
            google.protobuf.StringValue title = 6;
            people.Author author = 7;
            repeated string tags = 8;
            map<string, int64> counts = 9;
            State state = 10;
            optional int32 helpful = 11;
            google.protobuf.Struct extra = 12;
            google.protobuf.Any any = 13;
            Review next = 14;
            message Comment { string body = 1; }
            enum State { NEW = 0; OLD = 1; }
        }
    "#;
    const AUTHOR: &str = r#"syntax = "proto3"; package people; message Author { string name = 1; }"#;

    fn compile(text: &str) -> Result<ProtobufSchema, String> {
        let references = vec![Reference { name: "people/author.proto".into(), text: AUTHOR.into() }];
        ProtobufSchema::compile(&SchemaSource { kind: SchemaKind::Protobuf, text: text.into(), references })
    }

    /// A message from its JSON form, after its indexes.
    fn written(schema: &ProtobufSchema, indexes: &[u8], message: &[usize], json: &str) -> Vec<u8> {
        let descriptor = schema.message(message).unwrap();
        let mut json = serde_json::Deserializer::from_str(json);
        [indexes, &DynamicMessage::deserialize(descriptor, &mut json).unwrap().encode_to_vec()].concat()
    }

    #[test]
    fn every_type_becomes_what_a_mapping_expects() {
        let schema = compile(REVIEW).unwrap();
        let data = written(
            &schema,
            &[2, 2],
            &[1],
            r#"{"id": "r1", "text": "Good.", "stars": 4.1, "at": "2024-05-01T10:00:00Z", "title": "Kettle",
                "author": {"name": "Ada"}, "tags": ["a", "b"], "counts": {"k": -3}, "state": "OLD",
                "extra": {"a": [1, null, "x", {"b": true}]},
                "any": {"@type": "type.googleapis.com/shop.Other", "name": "inner"}}"#,
        );
        let value = schema.value(&data).unwrap();
        assert_eq!(
            value,
            json!({
                "id": "r1", "text": "Good.", "stars": 4.1, "at": "2024-05-01T10:00:00Z", "title": "Kettle",
                "author": {"name": "Ada"}, "tags": ["a", "b"], "counts": {"k": -3}, "state": "OLD",
                "extra": {"a": [1.0, null, "x", {"b": true}]},
                "any": {"type_url": "type.googleapis.com/shop.Other", "value": "\n\u{5}inner"},
            })
        );
        let empty = schema.value(&[2, 2]).unwrap();
        assert_eq!(empty, json!({"id": "", "stars": 0.0, "tags": [], "counts": {}, "state": "NEW"}));
    }

    #[test]
    fn indexes_name_the_message() {
        let schema = compile(REVIEW).unwrap();
        assert_eq!(schema.value(&[0, 0x0a, 1, b'x']).unwrap(), json!({"name": "x"}));
        assert_eq!(schema.value(&[2, 0, 0x0a, 1, b'x']).unwrap(), json!({"name": "x"}));
        assert_eq!(schema.value(&[4, 2, 0, 0x0a, 1, b'x']).unwrap(), json!({"body": "x"}));
        for wrong in [&[][..], &[2], &[2, 1], &[2, 4], &[4, 2, 2], &[1], &[0xff; 12], &[0x80, 0x01]] {
            assert_eq!(schema.value(wrong).unwrap_err().reason, "protobuf_invalid", "{wrong:?}");
        }
    }

    #[test]
    fn hostile_data_are_rejected() {
        let schema = compile(REVIEW).unwrap();
        let whole = written(&schema, &[2, 2], &[1], r#"{"id": "r1", "text": "Good.", "tags": ["a"]}"#);
        for length in 3..whole.len() {
            // A message has no end of its own: what is cut between two fields is a shorter message.
            let _ = schema.value(&whole[..length]);
        }
        let inner = |depth: usize| {
            let mut data = Vec::new();
            for _ in 0..depth {
                let mut outer = vec![0x72];
                prost::encoding::encode_varint(data.len() as u64, &mut outer);
                outer.extend_from_slice(&data);
                data = outer;
            }
            [&[2, 2][..], &data].concat()
        };
        assert!(schema.value(&inner(50)).is_ok());
        for (name, data) in [
            ("a string that ends early", vec![2, 2, 0x0a, 5, b'x']),
            ("a length of gigabytes", vec![2, 2, 0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f]),
            ("a string that is not UTF-8", vec![2, 2, 0x0a, 1, 0xff]),
            ("a field of another type", vec![2, 2, 0x08, 1]),
            ("a field number of zero", vec![2, 2, 0x02, 0]),
            ("a thousand levels", inner(1_000)),
        ] {
            assert_eq!(schema.value(&data).unwrap_err().reason, "protobuf_invalid", "{name}");
        }
    }

    #[test]
    fn a_schema_that_does_not_compile_says_why() {
        let missing = compile("syntax = \"proto3\"; import \"nowhere.proto\"; message A {}").unwrap_err();
        assert!(missing.contains("nowhere.proto"), "{missing}");
        let wrong = compile("syntax = \"proto3\"; message A { Nothing a = 1; }").unwrap_err();
        assert!(wrong.contains("Nothing"), "{wrong}");
        assert!(compile("{\"type\": \"string\"}").is_err());
    }
}
