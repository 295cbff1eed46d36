//! The example configurations, each on records of its kind through the whole pipeline.

use std::collections::BTreeSet;

use apache_avro::types::Value as Avro;
use serde_json::{Value, json};

use crate::support::{
    broker::{Topic, produce_to},
    models::small_model,
    pipeline::{Options, Process, Stream},
    registry::{self, avro, framed, protobuf},
    repository,
};

/// A record of a stream, by its key and value.
type Record = (&'static str, Option<&'static str>, Option<Vec<u8>>);

fn record(stream: &'static str, key: Option<&'static str>, value: &Value) -> Record {
    (stream, key, Some(value.to_string().into_bytes()))
}

/// Sends the records through the example's configuration, and compares what is stored of them.
fn assert_example(name: &str, records: &[Record], expected: &[&str]) {
    let stream = Stream::new(1);
    let mut command = stream.command(&Options::default());
    command
        .env("ALBERTINE_CONFIG", repository(&format!("config/examples/{name}.toml")))
        .env("ALBERTINE_POSTGRES__SCHEMA", &stream.database.schema)
        .env("ALBERTINE_ENGINE__SESSIONS", "1");
    let names: BTreeSet<&str> = records.iter().map(|(stream, _, _)| *stream).collect();
    let topics: Vec<(&str, Topic)> = names.into_iter().map(|stream| (stream, Topic::new("example", 1))).collect();
    for (stream, topic) in &topics {
        let variable = |key: &str| format!("ALBERTINE_STREAMS__{}__{key}", stream.to_uppercase());
        command
            .env(variable("TOPIC"), &**topic)
            .env(variable("GROUP"), &**topic)
            .env(variable("LIVE__ENABLED"), "false");
        for (_, key, value) in records.iter().filter(|(name, _, _)| name == stream) {
            produce_to(topic, 0, key.map(str::as_bytes), value.as_deref());
        }
    }
    if name == "pairs" {
        command.env("ALBERTINE_MODELS__ENTAILMENT__PATH", small_model("pair-int8"));
    }
    if name == "avro" || name == "protobuf" {
        command.env("ALBERTINE_SCHEMA_REGISTRY__URL", registry::url());
    }
    command.arg("run");
    let process = Process::start(command);
    stream.wait_for_positions(records.len() as i64);
    let mut stored = stream.database.texts(
        "SELECT stream || ' ' || document_id || ' ' || CASE WHEN deleted THEN 'deleted' ELSE label END
             || coalesce(' item ' || item, '') || coalesce(' user ' || \"user\", '') || coalesce(' rating ' || rating, '')
             || coalesce(' at ' || to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'), '')
         FROM {s}.documents LEFT JOIN {s}.labels USING (stream, document_id, version)
         UNION ALL SELECT stream || ' rejected ' || reason FROM {s}.rejections",
    );
    stored.sort();
    assert_eq!(stored, expected, "{name}");
    process.stop();
}

#[test]
fn every_example_has_a_test() {
    let files = std::fs::read_dir(repository("config/examples")).unwrap();
    let names: BTreeSet<String> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    let here =
        ["avro", "debezium", "multilingual", "pairs", "plain-text", "protobuf", "reviews-json", "tickets-nested-json"];
    // Those of secured connections have theirs in `cli/security`.
    let others = ["kafka-mtls", "kafka-oauthbearer", "kafka-sasl-ssl", "postgres-verify-full"];
    assert_eq!(names, here.iter().chain(&others).map(|name| format!("{name}.toml")).collect());
}

#[test]
fn reviews_json() {
    let review = json!({
        "review_id": "R1", "headline": "Wonderful", "body": "I love it, it is excellent.", "asin": "B01", "customer": "c7",
        "stars": 5, "written_at": "2026-01-31T10:00:00+01:00",
    });
    assert_example(
        "reviews-json",
        &[record("reviews", None, &review)],
        &["reviews R1 positive item B01 user c7 rating 5 at 2026-01-31 09:00:00"],
    );
}

#[test]
fn tickets_nested_json() {
    let ticket = json!({
        "ticket": {"subject": "Broken again", "product": {"sku": "K-1"}},
        "messages": [
            {"from": {"id": 7}, "body": "This is terrible, it broke again and nobody answers."},
            {"from": {"id": 1}},
            {"from": {"id": 7}, "body": "I am very disappointed. Awful."},
        ],
        "opened": 1_714_557_600,
    });
    let withdrawn = ("tickets", Some("t2"), None);
    assert_example(
        "tickets-nested-json",
        &[record("tickets", Some("t1"), &ticket), record("tickets", Some("t2"), &ticket), withdrawn],
        &["tickets t1 negative item K-1 user 7 at 2024-05-01 10:00:00", "tickets t2 deleted"],
    );
}

#[test]
fn debezium() {
    let (first, second) = (r#"{"id":1001}"#, r#"{"id":1002}"#);
    let row = json!({"id": 1001, "comment": "I love this kettle, it is wonderful.", "product_id": 7, "stars": 5, "created_at": 1_714_557_600_000_000_i64});
    let created = json!({"before": null, "after": row, "source": {"table": "reviews"}, "op": "c", "ts_ms": 1_714_557_600_000_i64});
    let deleted = json!({"before": row, "after": null, "source": {"table": "reviews"}, "op": "d", "ts_ms": 1_714_557_700_000_i64});
    let with_schema =
        |payload: &Value| json!({"schema": {"type": "struct", "name": "Envelope", "fields": []}, "payload": payload});
    let mut records = vec![record("unwrapped", Some(first), &row), record("unwrapped", Some(second), &row)];
    records.push(("unwrapped", Some(second), None));
    for (stream, wrap) in [
        ("envelope", &(|payload: &Value| payload.clone()) as &dyn Fn(&Value) -> Value),
        ("envelope_with_schema", &with_schema),
    ] {
        records.extend([first, second].map(|key| record(stream, Some(key), &wrap(&created))));
        records.push(record(stream, Some(second), &wrap(&deleted)));
        records.push((stream, Some(second), None));
    }
    let expected = [
        "envelope rejected text_missing",
        "envelope {\"id\":1001} positive item 7 rating 5 at 2024-05-01 10:00:00",
        "envelope {\"id\":1002} deleted",
        "envelope_with_schema rejected text_missing",
        "envelope_with_schema {\"id\":1001} positive item 7 rating 5 at 2024-05-01 10:00:00",
        "envelope_with_schema {\"id\":1002} deleted",
        "unwrapped {\"id\":1001} positive item 7 rating 5 at 2024-05-01 10:00:00",
        "unwrapped {\"id\":1002} deleted",
    ];
    assert_example("debezium", &records, &expected);
}

#[test]
fn avro_example() {
    let schema = json!({"type": "record", "name": "Review", "namespace": "shop", "fields": [
        {"name": "review_id", "type": "string"},
        {"name": "title", "type": ["null", "string"]},
        {"name": "body", "type": "string"},
        {"name": "product", "type": {"type": "record", "name": "Product", "fields": [{"name": "sku", "type": "string"}]}},
        {"name": "stars", "type": ["null", "float"]},
        {"name": "created_at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    ]});
    let text = |text: &str| Avro::String(text.into());
    let review = avro(
        &schema,
        &[
            ("review_id", text("R1")),
            ("title", Avro::Union(0, Box::new(Avro::Null))),
            ("body", text("A wonderful kettle, I love it.")),
            ("product", Avro::Record(vec![("sku".into(), text("K-1"))])),
            ("stars", Avro::Union(1, Box::new(Avro::Float(4.5)))),
            ("created_at", Avro::TimestampMicros(1_714_557_600_000_000)),
        ],
    );
    let value = framed(registry::register_avro(&schema, &[]).id, &review);
    let expected = ["reviews R1 positive item K-1 rating 4.5 at 2024-05-01 10:00:00"];
    assert_example("avro", &[("reviews", None, Some(value))], &expected);
}

#[test]
fn protobuf_example() {
    let schema = r#"
        syntax = "proto3";
        package shop;
        import "google/protobuf/timestamp.proto";
        message Product { string sku = 1; }
        message Review {
            string review_id = 1;
            string body = 2;
            Product product = 3;
            optional float stars = 4;
            google.protobuf.Timestamp created_at = 5;
        }
    "#;
    let id = registry::register_protobuf(schema, &[]).id;
    let review = |fields: Value| {
        let message = protobuf(schema, "shop.Review", &fields);
        ("reviews", None, Some(framed(id, &[&[2, 2], &message[..]].concat())))
    };
    let rated = json!({"review_id": "R1", "body": "A wonderful kettle, I love it.", "product": {"sku": "K-1"}, "stars": 4.5, "created_at": "2024-05-01T10:00:00Z"});
    let unrated = json!({"review_id": "R2", "body": "Horrible, it broke at once."});
    assert_example(
        "protobuf",
        &[review(rated), review(unrated)],
        &["reviews R1 positive item K-1 rating 4.5 at 2024-05-01 10:00:00", "reviews R2 negative"],
    );
}

#[test]
fn plain_text() {
    let text = |text: &str| ("comments", None, Some(text.as_bytes().to_vec()));
    assert_example(
        "plain-text",
        &[text("I love it, wonderful!"), text("Horrible. It broke at once.")],
        &["comments 0-0 positive", "comments 0-1 negative"],
    );
}

#[test]
fn pairs() {
    let question = |id: &str, answer: &Value| {
        let question = json!({"title": "bad was", "body": "again loose"});
        record("answers", None, &json!({"id": id, "question": question, "answer": answer, "asked_by": "c7"}))
    };
    // A pair of the model's own corpus; the other model reads the question alone.
    assert_example(
        "pairs",
        &[question("q1", &"price box loose fits again".into()), question("q2", &Value::Null)],
        &["answers q1 entailment user c7", "answers q1 negative user c7", "answers rejected text_pair_missing"],
    );
}

#[test]
fn multilingual() {
    let post = |id: &str, content: &str, lang: Option<&str>| {
        record("posts", None, &json!({"id": id, "content": content, "author": "a1", "lang": lang}))
    };
    let german = "Das ist ein wunderbarer Wasserkocher, ich bin sehr zufrieden damit.";
    assert_example(
        "multilingual",
        &[
            post("p1", "What a wonderful day, I love this place and everyone here.", None),
            post("p2", "I love it, wonderful!", Some("en-GB")),
            post("p3", german, None),
            post("p4", german, Some("de")),
        ],
        &[
            "posts p1 positive user a1",
            "posts p2 positive user a1",
            "posts rejected language_unsupported",
            "posts rejected language_unsupported",
        ],
    );
}
