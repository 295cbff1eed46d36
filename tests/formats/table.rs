//! The table of records that somebody will send some day, and what has to become of each.

use serde_json::json;

use super::bad_input::Schemas;
use crate::support::registry::{avro, framed, protobuf};

/// The streams that the table feeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feed {
    /// JSON, the id at `/id`.
    Json,
    /// JSON, the key as id.
    Keyed,
    /// Plain text, the position as id, the key as item.
    Text,
    Avro,
    Protobuf,
}

pub const FEEDS: [Feed; 5] = [Feed::Json, Feed::Keyed, Feed::Text, Feed::Avro, Feed::Protobuf];

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// With the id that stands for `{id}` in the row, or with this one.
    Label,
    LabelOf(&'static str),
    /// With its position as id.
    LabelAtPosition,
    Deletion,
    Rejected(&'static str),
}

use Expected::{Deletion, Label, LabelAtPosition, LabelOf, Rejected};

/// One record. `{id}` in its value and key stands for an id of its own.
#[derive(Debug, Clone)]
pub struct Row {
    pub name: &'static str,
    pub feed: Feed,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(&'static str, Option<Vec<u8>>)>,
    pub timestamp_ms: Option<i64>,
    pub compression: &'static str,
    pub expected: Expected,
}

fn row(feed: Feed, name: &'static str, value: impl Into<Vec<u8>>, expected: Expected) -> Row {
    let value = Some(value.into());
    Row { name, feed, key: None, value, headers: Vec::new(), timestamp_ms: None, compression: "none", expected }
}

impl Row {
    fn key(self, key: impl Into<Vec<u8>>) -> Self {
        Self { key: Some(key.into()), ..self }
    }

    fn without_value(self) -> Self {
        Self { value: None, ..self }
    }

    fn at(self, timestamp_ms: i64) -> Self {
        Self { timestamp_ms: Some(timestamp_ms), ..self }
    }

    fn header(mut self, name: &'static str, value: Option<&[u8]>) -> Self {
        self.headers.push((name, value.map(<[u8]>::to_vec)));
        self
    }

    fn compressed(self, compression: &'static str) -> Self {
        Self { compression, ..self }
    }
}

pub fn rows(schemas: &Schemas) -> Vec<Row> {
    [
        json_syntax(),
        json_fields(),
        json_texts(),
        json_times(),
        records(),
        plain_texts(),
        avro_rows(schemas),
        protobuf_rows(schemas),
    ]
    .concat()
}

/// What may be wrong with the bytes of a JSON value.
fn json_syntax() -> Vec<Row> {
    let json = |name, value: &[u8], expected| row(Feed::Json, name, value, expected);
    let nested = |open: &str, close: &str, levels| {
        format!(r#"{{"id": "{{id}}", "text": "good", "deep": {}1{}}}"#, open.repeat(levels), close.repeat(levels))
    };
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    vec![
        json("empty value", b"", Rejected("json_invalid")),
        json("white space alone", b" \n\t", Rejected("json_invalid")),
        json("no JSON", b"good morning", Rejected("json_invalid")),
        json("cut off", br#"{"id": "{id}", "text": "goo"#, Rejected("json_invalid")),
        json("two values", br#"{"id": "{id}", "text": "good"} {"id": 2}"#, Rejected("json_invalid")),
        json("a comma too many", br#"{"id": "{id}", "text": "good",}"#, Rejected("json_invalid")),
        json("single quotes", br"{'id': '{id}', 'text': 'good'}", Rejected("json_invalid")),
        json("invalid UTF-8", b"{\"id\": \"{id}\", \"text\": \"caf\xe9\"}", Rejected("json_invalid")),
        json("UTF-8 of a surrogate", b"{\"id\": \"{id}\", \"text\": \"\xed\xa0\x80\"}", Rejected("json_invalid")),
        json("byte order mark", b"\xef\xbb\xbf{\"id\": \"{id}\", \"text\": \"good\"}", Label),
        json(
            "UTF-16 with a mark",
            &[&[0xff, 0xfe][..], &utf16(r#"{"text": "good"}"#)].concat(),
            Rejected("json_invalid"),
        ),
        json("UTF-16 without a mark", &utf16(r#"{"text": "good"}"#), Rejected("json_invalid")),
        json("escaped NUL in the text", br#"{"id": "{id}", "text": "good\u0000"}"#, Label),
        json("raw NUL in the text", b"{\"id\": \"{id}\", \"text\": \"good\0\"}", Rejected("json_invalid")),
        json("lone high surrogate", br#"{"id": "{id}", "text": "good \ud83d"}"#, Rejected("json_invalid")),
        json("lone low surrogate", br#"{"id": "{id}", "text": "good \udc00"}"#, Rejected("json_invalid")),
        json("surrogate pair", br#"{"id": "{id}", "text": "good \ud83d\ude00"}"#, Label),
        json("100 levels of arrays", nested("[", "]", 100).as_bytes(), Label),
        json("100,000 levels of arrays", nested("[", "]", 100_000).as_bytes(), Rejected("json_invalid")),
        json("100,000 levels of objects", nested("{\"a\":", "}", 100_000).as_bytes(), Rejected("json_invalid")),
        json("duplicate keys", br#"{"id": "other", "id": "{id}", "text": "bad", "text": "good"}"#, Label),
        json("number beyond f64", br#"{"id": "{id}", "text": "good", "rating": 1e400}"#, Rejected("json_invalid")),
        json(
            "number of a thousand digits",
            format!(r#"{{"id": "{{id}}", "text": "good", "n": {}}}"#, "9".repeat(1_000)).as_bytes(),
            Rejected("json_invalid"),
        ),
        json("NaN", br#"{"id": "{id}", "text": "good", "rating": NaN}"#, Rejected("json_invalid")),
        json("null", b"null", Rejected("id_missing")),
        json("an array", br#"[{"id": "{id}", "text": "good"}]"#, Rejected("id_missing")),
        json("a string", br#""good""#, Rejected("id_missing")),
        json("a number", b"5", Rejected("id_missing")),
        json("framed by a JSON Schema serializer", b"\0\0\0\0\x07{\"id\": \"{id}\", \"text\": \"good\"}", Label),
        json("framed Avro on a JSON stream", b"\0\0\0\0\x07\x02a\x08good", Rejected("json_invalid")),
        json("gzip as value", b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xabV\xcaLQ\xb2R\x02\0", Rejected("json_invalid")),
        json("Zstandard as value", b"\x28\xb5\x2f\xfd\x04\x00\x99\x00\x00{}", Rejected("json_invalid")),
        json(
            "many small values",
            format!(r#"{{"id": "{{id}}", "text": "good", "list": [{}0]}}"#, "0,".repeat(200_000)).as_bytes(),
            Label,
        ),
    ]
}

/// What may be wrong with each field.
fn json_fields() -> Vec<Row> {
    let json = |name, value: &str, expected| row(Feed::Json, name, value, expected);
    let with_id = |id: &str| format!(r#"{{"id": {id}, "text": "good"}}"#);
    let with = |field: &str, value: &str| format!(r#"{{"id": "{{id}}", "text": "good", "{field}": {value}}}"#);
    let long = |length: usize| format!("\"{}\"", "i".repeat(length));
    vec![
        json("empty object", "{}", Rejected("id_missing")),
        json("id missing", r#"{"text": "good"}"#, Rejected("id_missing")),
        json("id null", &with_id("null"), Rejected("id_missing")),
        json("id empty", &with_id("\"\""), Rejected("id_missing")),
        json("id an integer", &with_id("41001"), LabelOf("41001")),
        json("id a negative integer", &with_id("-41002"), LabelOf("-41002")),
        json("id the largest integer", &with_id("18446744073709551615"), LabelOf("18446744073709551615")),
        json("id an integer beyond 64 bits", &with_id("18446744073709551616"), Rejected("field_type")),
        json("id a float", &with_id("1.5"), Rejected("field_type")),
        json("id a boolean", &with_id("true"), Rejected("field_type")),
        json("id an array", &with_id("[1]"), Rejected("field_type")),
        json("id an object", &with_id("{\"a\": 1}"), Rejected("field_type")),
        json("id with NUL", &with_id("\"a\\u0000b\""), Rejected("identifier_with_nul")),
        json("id of 10 KB", &with_id(&long(10_000)), Rejected("identifier_too_long")),
        json("id with quotes and a slash", &with_id(r#""a\"'/\\;--""#), LabelOf("a\"'/\\;--")),
        json("id of emoji", &with_id("\"\u{1f600}\""), LabelOf("\u{1f600}")),
        json("text missing", r#"{"id": "{id}"}"#, Rejected("text_missing")),
        json("text null", r#"{"id": "{id}", "text": null}"#, Rejected("text_missing")),
        json("text a number", r#"{"id": "{id}", "text": 5}"#, Rejected("field_type")),
        json("text a boolean", r#"{"id": "{id}", "text": false}"#, Rejected("field_type")),
        json("text an object", r#"{"id": "{id}", "text": {"body": "good"}}"#, Rejected("field_type")),
        json("text an array of texts", r#"{"id": "{id}", "text": ["good", null, " "]}"#, Label),
        json("text an array with a number", r#"{"id": "{id}", "text": ["good", 5]}"#, Rejected("field_type")),
        json("text an empty array", r#"{"id": "{id}", "text": []}"#, Rejected("text_missing")),
        json("item null", &with("item", "null"), Label),
        json("item empty", &with("item", "\"\""), Label),
        json("item an object", &with("item", "{}"), Rejected("field_type")),
        json("item of 10 KB", &with("item", &long(10_000)), Rejected("identifier_too_long")),
        json("item with NUL", &with("item", "\"\\u0000\""), Rejected("identifier_with_nul")),
        json("user a boolean", &with("user", "true"), Rejected("field_type")),
        json("user with NUL", &with("user", "\"\\u0000\""), Rejected("identifier_with_nul")),
        json("rating a text that is a number", &with("rating", "\" 4.5 \""), Label),
        json("rating a text", &with("rating", "\"very good\""), Rejected("field_type")),
        json("rating NaN as text", &with("rating", "\"NaN\""), Rejected("field_type")),
        json("rating infinite as text", &with("rating", "\"inf\""), Rejected("field_type")),
        json("rating an array", &with("rating", "[5]"), Rejected("field_type")),
        json("rating the largest number", &with("rating", "1.7976931348623157e308"), Label),
        json("rating the smallest number", &with("rating", "5e-324"), Label),
        json("rating minus zero", &with("rating", "-0.0"), Label),
        json("language unknown", &with("language", "\"tlh-Klingon\""), Label),
        json("language with NUL", &with("language", "\"e\\u0000n\""), Rejected("identifier_with_nul")),
        json("language a number", &with("language", "5"), Label),
        json("language an array", &with("language", "[\"en\"]"), Rejected("field_type")),
        json(
            "field names that look like pointers",
            r#"{"/id": "x", "id": "{id}", "text": "good", "a/b": {"~": 1}}"#,
            Label,
        ),
    ]
}

/// Texts that look odd, and are texts.
fn json_texts() -> Vec<Row> {
    let text = |name, text: &str, expected| {
        row(Feed::Json, name, format!(r#"{{"id": "{{id}}", "text": {}}}"#, json!(text)), expected)
    };
    let log = "2026-01-31T00:00:00Z ERROR worker-3 [db] connection reset by peer (os error 104)\n".repeat(50);
    vec![
        text("empty text", "", Rejected("text_empty")),
        text("white space alone as text", " \t\r\n\u{a0}\u{3000}", Rejected("text_empty")),
        text("NUL alone as text", "\0\0", Rejected("text_empty")),
        text("characters without width alone", "\u{200b}\u{200d}\u{feff}\u{2060}", Rejected("text_empty")),
        text("marks of direction alone", "\u{202e}\u{202c}\u{200f}", Rejected("text_empty")),
        text("emoji alone", "\u{1f600}\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}", Label),
        text(
            "right to left",
            "\u{5d4}\u{5de}\u{5d5}\u{5e6}\u{5e8} \u{5de}\u{5e6}\u{5d5}\u{5d9}\u{5df} \u{202e}good",
            Label,
        ),
        text("one combining mark", "\u{301}", Label),
        text("a thousand combining marks on one letter", &format!("a{}", "\u{301}".repeat(1_000)), Label),
        text("private use and unassigned", "\u{e000}\u{10ffff}\u{fffe}", Label),
        text("one letter", "a", Label),
        text("one token of 50,000 letters", &"a".repeat(50_000), Label),
        text("ten thousand words", &"good bad ".repeat(5_000), Label),
        text("HTML", "<html><script>alert('bad')</script><p>good &amp; fine</p>", Label),
        text("Base64", &"SGVsbG8sIHdvcmxkIQ==".repeat(100), Label),
        text("a log", &log, Label),
        text("JSON in JSON", r#"{"id": "inner", "text": "{\"deep\": \"good\"}"}"#, Label),
        text("special tokens of the model", "[CLS] good [SEP] bad [PAD] [UNK]", Label),
        text("SQL", "'; DROP TABLE documents; --", Label),
        text("format strings", "{} {0} %s %n ${jndi:ldap://x}", Label),
        text("line separators", "good\u{2028}bad\u{2029}fine\u{85}\u{c}\u{b}", Label),
        text("a byte order mark in the middle", "good\u{feff}bad", Label),
        text("replacement characters", &"\u{fffd}".repeat(100), Label),
        text("control characters and a letter", "\u{1}\u{1b}[31mgood\u{7f}", Label),
        text("just below 1 MiB", &"good ".repeat(200_000), Label),
        text("just above 1 MiB", &"good ".repeat(210_000), Rejected("text_too_long")),
        text("10 MB", &"good ".repeat(2_000_000), Rejected("text_too_long")),
    ]
}

fn json_times() -> Vec<Row> {
    let time = |name, time: &str, expected| {
        row(Feed::Json, name, format!(r#"{{"id": "{{id}}", "text": "good", "time": {time}}}"#), expected)
    };
    vec![
        time("time before 1970", "-1", Label),
        time("time in the year 1", "-62135596800000", Label),
        time("time before the year 1", "-62135596800001", Rejected("time_out_of_range")),
        time("time in the year 9999", "\"9999-12-31T23:59:59.999999Z\"", Label),
        time("time after the year 9999", "253402300800000", Rejected("time_out_of_range")),
        time("time the largest integer", "9223372036854775807", Rejected("time_out_of_range")),
        time("time the smallest integer", "-9223372036854775808", Rejected("time_out_of_range")),
        time("time in microseconds", "1714557600000000", Rejected("time_out_of_range")),
        time("time a float", "1714557600000.5", Label),
        time("time a huge float", "1e300", Rejected("time_out_of_range")),
        time("time a word", "\"yesterday\"", Rejected("field_type")),
        time("time on 30 February", "\"2024-02-30T00:00:00Z\"", Rejected("field_type")),
        time("time in a leap second", "\"2016-12-31T23:59:60Z\"", Label),
        time("time with a large offset", "\"2024-05-01T00:00:00+23:59\"", Label),
        time("time a boolean", "true", Rejected("field_type")),
        time("time null", "null", Label),
    ]
}

/// What may be odd about a record around its value.
fn records() -> Vec<Row> {
    let good = r#"{"id": "{id}", "text": "good"}"#;
    let keyed = |name, expected| row(Feed::Keyed, name, r#"{"text": "good"}"#, expected);
    vec![
        row(Feed::Json, "no key", good, Label),
        row(Feed::Json, "empty key", good, Label).key(""),
        row(Feed::Json, "binary key", good, Label).key([0xff, 0, 0xfe]),
        row(Feed::Json, "null value with key", "", Rejected("deletion_without_id")).key("k").without_value(),
        row(Feed::Json, "null value without key", "", Rejected("deletion_without_id")).without_value(),
        row(Feed::Json, "headers without value", good, Label).header("a", None).header("", None),
        row(Feed::Json, "binary headers", good, Label).header("a", Some(&[0xff, 0, 1])).header("a", Some(b"\0")),
        row(Feed::Json, "a trace header that is none", good, Label).header("traceparent", Some(&[0xff, 0])),
        row(Feed::Json, "a header of 100 KB", good, Label).header("long", Some(&[b'x'; 100_000])),
        row(Feed::Json, "headers and no value", "", Rejected("deletion_without_id"))
            .header("a", Some(b"b"))
            .without_value(),
        row(Feed::Json, "timestamp of 1970", good, Label).at(1),
        row(Feed::Json, "timestamp before 1970", good, Label).at(-86_400_000),
        row(Feed::Json, "timestamp in the year 3000", good, Label).at(32_503_680_000_000),
        row(Feed::Json, "timestamp in the year 12000", good, Label).at(316_516_550_400_000),
        row(Feed::Json, "timestamp the largest", good, Label).at(i64::MAX),
        row(Feed::Json, "compressed with gzip", good, Label).compressed("gzip"),
        row(
            Feed::Json,
            "20 MB that compress to nothing",
            format!(r#"{{"id": "{{id}}", "text": "{}"}}"#, "a".repeat(20_000_000)),
            Rejected("text_too_long"),
        )
        .compressed("zstd"),
        keyed("key as id", Label).key("{id}"),
        keyed("key missing", Rejected("id_missing")),
        keyed("key empty", Rejected("id_missing")).key(""),
        keyed("key not UTF-8", Rejected("key_not_utf8")).key([b'k', 0xff]),
        keyed("key with NUL", Rejected("identifier_with_nul")).key([b'k', 0]),
        keyed("key framed by a registry's serializer", Rejected("identifier_with_nul")).key([0, 0, 0, 0, 1, 2, b'k']),
        keyed("key of 10 KB", Rejected("identifier_too_long")).key([b'k'; 10_000]),
        keyed("deletion", Deletion).key("{id}").without_value(),
        keyed("deletion without key", Rejected("id_missing")).without_value(),
        keyed("deletion with a key that is not UTF-8", Rejected("key_not_utf8")).key([0xff]).without_value(),
        row(Feed::Keyed, "an empty value is no deletion", "", Rejected("json_invalid")).key("{id}"),
        row(Feed::Keyed, "the JSON null is no deletion", "null", Rejected("text_missing")).key("{id}"),
    ]
}

fn plain_texts() -> Vec<Row> {
    let text = |name, value: &[u8], expected| row(Feed::Text, name, value, expected);
    vec![
        text("a text", b"good", LabelAtPosition),
        text("a text that looks like JSON", b"{\"text\": \"good\"}", LabelAtPosition),
        text("a text with a byte order mark", b"\xef\xbb\xbfgood", LabelAtPosition),
        text("a text in Latin-1", b"caf\xe9", Rejected("text_not_utf8")),
        text("a text in UTF-16", b"\xff\xfeg\0o\0", Rejected("text_not_utf8")),
        text("a picture", b"\x89PNG\r\n\x1a\n", Rejected("text_not_utf8")),
        text("an empty text", b"", Rejected("text_empty")),
        text("a byte order mark alone", b"\xef\xbb\xbf", Rejected("text_empty")),
        text("a text with NUL", b"good\0bad", LabelAtPosition),
        text("a text with a key that is not UTF-8", b"good", Rejected("key_not_utf8")).key([0xff]),
        text("a deletion of a text without id", b"", Rejected("deletion_without_id")).key("k").without_value(),
    ]
}

fn avro_rows(schemas: &Schemas) -> Vec<Row> {
    let row = |name, value: Vec<u8>, expected| row(Feed::Avro, name, value, expected);
    let good = schemas.avro_review("{id}", "good");
    let id = schemas.avro.id;
    let linked = |data: &[u8]| framed(schemas.linked.id, data);
    let evolved = avro(
        &schemas.evolved_schema,
        &[
            ("text", apache_avro::types::Value::String("good".into())),
            ("added", apache_avro::types::Value::Int(1)),
            ("id", apache_avro::types::Value::Long(52_001)),
        ],
    );
    vec![
        row("an Avro record", good.clone(), Label),
        row("its schema evolved", framed(schemas.evolved.id, &evolved), LabelOf("52001")),
        row("its schema unknown", framed(2_000_000_000, &good[5..]), Rejected("schema_unknown")),
        row("its schema of another format", framed(schemas.protobuf.id, &good[5..]), Rejected("schema_format")),
        row("its schema with other fields", framed(schemas.foreign.id, b"\x02\x04"), Rejected("id_missing")),
        row("Avro cut off in the framing", good[..3].to_vec(), Rejected("framing_invalid")),
        row("Avro cut off after the framing", good[..5].to_vec(), Rejected("avro_invalid")),
        row("Avro cut off in a text", good[..good.len() - 1].to_vec(), Rejected("avro_invalid")),
        row("Avro with bytes after the end", [good.clone(), vec![0]].concat(), Rejected("avro_invalid")),
        row("Avro with another magic byte", [&[1], &good[1..]].concat(), Rejected("framing_invalid")),
        row("Avro framed as AWS Glue does", [&[3, 0][..], &[7; 16], &good[5..]].concat(), Rejected("framing_invalid")),
        row("JSON on an Avro stream", br#"{"id": "{id}", "text": "good"}"#.to_vec(), Rejected("framing_invalid")),
        row("a whole Avro file", b"Obj\x01\x04\x14avro.codec".to_vec(), Rejected("framing_invalid")),
        row("an empty Avro value", Vec::new(), Rejected("framing_invalid")),
        row("an Avro text of gigabytes", framed(id, b"\x02a\x02\xfe\xff\xff\xff\x0f"), Rejected("avro_invalid")),
        row("an Avro text of negative length", framed(id, b"\x01"), Rejected("avro_invalid")),
        row("an Avro text that is not UTF-8", framed(id, b"\x02a\x02\x04\xff\xff"), Rejected("avro_invalid")),
        row("an Avro union without this branch", framed(id, b"\x02a\x08"), Rejected("avro_invalid")),
        row(
            "an Avro array of billions",
            linked(b"\x02a\x08good\x00\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
            Rejected("avro_invalid"),
        ),
        row(
            "an Avro array of negative size",
            linked(b"\x02a\x08good\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x02"),
            Rejected("avro_invalid"),
        ),
        row(
            "a million Avro records in each other",
            linked(&b"\x02a\x08good\x02".repeat(100_000)),
            Rejected("avro_invalid"),
        ),
        row("an Avro text that is null", framed(id, b"\x02a\x00"), Rejected("text_missing")),
        row("an Avro deletion without key", Vec::new(), Rejected("deletion_without_id")).without_value(),
    ]
}

fn protobuf_rows(schemas: &Schemas) -> Vec<Row> {
    let row = |name, value: Vec<u8>, expected| row(Feed::Protobuf, name, value, expected);
    let good = schemas.protobuf_review("{id}", "good");
    let id = schemas.protobuf.id;
    let message = protobuf(Schemas::PROTOBUF, "shop.Review", &json!({"id": "{id}", "text": "good"}));
    vec![
        row("a Protobuf record", good.clone(), Label),
        row("its indexes written out", framed(id, &[&[2, 0][..], &message].concat()), Label),
        row("a message declared in another", framed(id, b"\x04\x02\x00\x0a\x05inner\x12\x04good"), LabelOf("inner")),
        row(
            "its message missing in the schema",
            framed(id, &[&[2, 8][..], &message].concat()),
            Rejected("protobuf_invalid"),
        ),
        row("without message indexes", framed(id, &message), Rejected("protobuf_invalid")),
        row("a schema of Avro", framed(schemas.avro.id, &good[5..]), Rejected("schema_format")),
        row("a schema that is unknown", framed(2_000_000_001, &good[5..]), Rejected("schema_unknown")),
        row("Protobuf cut off", good[..good.len() - 1].to_vec(), Rejected("protobuf_invalid")),
        row("a Protobuf text of gigabytes", framed(id, b"\0\x0a\xff\xff\xff\xff\x0f"), Rejected("protobuf_invalid")),
        row("a Protobuf text that is not UTF-8", framed(id, b"\0\x0a\x01\xff"), Rejected("protobuf_invalid")),
        row("Protobuf fields of unknown numbers", [&good[..], b"\xfa\x06\x03xyz"].concat(), Label),
        row("a Protobuf field twice", [&good[..], b"\x12\x03bad"].concat(), Label),
        row("Protobuf without a text", framed(id, b"\0\x0a\x01a"), Rejected("text_empty")),
        row("Protobuf without anything", framed(id, b"\0"), Rejected("id_missing")),
        row("JSON on a Protobuf stream", b"[1]".to_vec(), Rejected("framing_invalid")),
    ]
}
