//! The language of each text: from the record or detected, stored, published, counted; and what a stream does with
//! those its models were not trained for.

use albertine::kafka::peek;
use serde_json::{Value, json};

use crate::support::{
    broker::{client, produce_to},
    pipeline::{Options, Stream},
};

const ENGLISH: &str = "The kettle arrived on time and works exactly as the description says it should.";
const GERMAN: &str = "Der Wasserkocher kam pünktlich an und funktioniert genau so, wie es beschrieben ist.";

fn options(stream: &str) -> Options {
    Options {
        live: true,
        stream: stream.into(),
        // Just below `[streams.reviews.fields]`.
        extra: "language = \"/lang\"".into(),
        instant_model: true,
        ..Options::default()
    }
}

fn produced() -> Stream {
    let stream = Stream::new(1);
    for (id, text, language) in [
        ("detected", ENGLISH, Value::Null),
        ("foreign", GERMAN, Value::Null),
        ("told", "Gut.", json!("de-AT")),
        ("mistold", ENGLISH, json!("no language")),
        ("unknown", "🎉", Value::Null),
    ] {
        let record = json!({"id": id, "text": text, "lang": language}).to_string();
        produce_to(&stream.topic, 0, None, Some(record.as_bytes()));
    }
    stream
}

fn languages(stream: &Stream) -> Vec<String> {
    stream
        .database
        .texts("SELECT document_id || ' ' || coalesce(language, '-') FROM {s}.current_labels ORDER BY document_id")
}

#[test]
fn languages_are_stored_published_and_counted() {
    let stream = produced();
    let process = stream.start(&options(""));
    stream.wait_for_labels(5);
    assert_eq!(languages(&stream), ["detected en", "foreign de", "mistold en", "told de", "unknown -"]);
    assert_eq!(process.metric("albertine_document_languages_total"), 5.0);
    process.stop();
    let published: Vec<(Value, Value)> = peek::newest(&client(), &stream.labels, 10)
        .unwrap()
        .map(|record| serde_json::from_slice::<Value>(&record.unwrap().value.unwrap()).unwrap())
        .map(|mut label| (label["document_id"].take(), label["language"].take()))
        .collect();
    let expected = [
        (json!("detected"), json!("en")),
        (json!("foreign"), json!("de")),
        (json!("told"), json!("de")),
        (json!("mistold"), json!("en")),
        (json!("unknown"), Value::Null),
    ];
    assert_eq!(published, expected);
}

#[test]
fn a_stream_may_reject_languages_its_model_was_not_trained_for() {
    let stream = produced();
    let process = stream.start(&options("other_languages = \"reject\""));
    stream.wait_for_positions(5);
    process.stop();
    assert_eq!(languages(&stream), ["detected en", "mistold en", "unknown -"]);
    let rejected = stream.database.texts("SELECT \"offset\" || ' ' || message FROM {s}.rejections ORDER BY \"offset\"");
    let message = "the text is in `de`, and model `albert-sentiment` was trained for en; set `other_languages` of the stream to `label` to label it all the same";
    assert_eq!(rejected, [format!("1 {message}"), format!("2 {message}")]);
}
