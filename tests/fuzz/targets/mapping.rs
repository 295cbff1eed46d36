//! Any path of a field, into any JSON: what is accepted is written back as it was, and reading it never panics.
//!
//! The first line is the path, the rest the record's value.
#![no_main]

use albertine::decode::{
    Decoder, Format, Input, TopicPosition,
    mapping::{FieldMapping, FieldPath, TimeUnit},
    schema::NoSchemas,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let line = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (Ok(path), value) = (std::str::from_utf8(&data[..line]), data.get(line + 1..).unwrap_or_default()) else {
        return;
    };
    let Ok(parsed) = FieldPath::parse(path) else {
        assert!(!path.starts_with('/') || path.contains('~'), "`{path}` is a JSON Pointer");
        return;
    };
    assert_eq!(parsed.to_string(), path);
    let mapping = FieldMapping {
        id: parsed.clone(),
        text: vec![parsed.clone(), FieldPath::Pointer("/text".into())],
        text_pair: vec![parsed.clone()],
        item: Some(parsed.clone()),
        user: Some(parsed.clone()),
        rating: Some(parsed.clone()),
        occurred_at: Some(parsed.clone()),
        occurred_at_unit: TimeUnit::Microseconds,
        language: Some(parsed),
    };
    for mapping in [
        FieldMapping {
            id: FieldPath::Position,
            item: None,
            user: None,
            rating: None,
            occurred_at: None,
            ..mapping.clone()
        },
        mapping,
    ] {
        let position = TopicPosition { partition: 0, offset: 0 };
        let input = Input { key: Some(b"key"), value: Some(value), position: &position };
        let _ = Decoder { format: Format::Json, mapping }.decode(&input, &NoSchemas);
    }
});
