//! Pairs of texts from record to label: through a stream, a backfill and `classify`; and what is said where models and
//! mapping do not agree on them.

use serde_json::{Value, json};

use crate::support::{
    answer::Answer,
    broker::produce_to,
    files::{Files, jsonl},
    models::small_model,
    pipeline::{Options, Stream},
};

const MODEL: &str = "tests/fixtures/models/pair-int8";
const LABELS: [&str; 3] = ["entailment", "neutral", "contradiction"];

fn options(fields: &str) -> Options {
    Options { model: Some(MODEL.into()), extra: fields.into(), ..Options::default() }
}

/// Documents with the pairs of the model's corpus, and `d0 entailment` and so on: their labels by the reference.
fn documents(count: usize) -> (Vec<Value>, Vec<String>) {
    let corpus = std::fs::read_to_string(small_model("pair-int8").join("verification.jsonl")).unwrap();
    let rows = corpus.lines().take(count).map(|line| serde_json::from_str::<Value>(line).unwrap()).enumerate();
    let document = |(index, row): (usize, Value)| {
        let logits: Vec<f64> = row["logits"].as_array().unwrap().iter().map(|logit| logit.as_f64().unwrap()).collect();
        let best = (0..3).max_by(|left, right| logits[*left].total_cmp(&logits[*right])).unwrap();
        let id = format!("d{index:02}");
        let expected = format!("{id} {}", LABELS[best]);
        (json!({"id": id, "item": "i", "text": row["text"], "reply": row["text_pair"]}), expected)
    };
    rows.map(document).unzip()
}

fn stored(stream: &Stream) -> Vec<String> {
    stream.database.texts("SELECT document_id || ' ' || label FROM {s}.current_labels ORDER BY document_id")
}

fn produce(stream: &Stream, document: &Value) {
    produce_to(&stream.topic, 0, document["id"].as_str().map(str::as_bytes), Some(document.to_string().as_bytes()));
}

#[test]
fn a_stream_labels_pairs_and_rejects_records_that_are_none() {
    let stream = Stream::new(1);
    let (documents, mut expected) = documents(20);
    for document in &documents {
        produce(&stream, document);
    }
    let words = |count: usize| "the lid ".repeat(count / 2);
    let others = [
        json!({"id": "absent", "text": "the lid is loose"}),
        json!({"id": "null", "text": "the lid is loose", "reply": null}),
        json!({"id": "empty", "text": "the lid is loose", "reply": " "}),
        json!({"id": "too-long", "text": words(20), "reply": words(24)}),
        // Several windows, each with the whole second text.
        json!({"id": "long", "text": words(80), "reply": words(8)}),
        json!({"id": "deleted", "text": "the lid is loose", "reply": "it is fine"}),
    ];
    for document in &others {
        produce(&stream, document);
    }
    produce_to(&stream.topic, 0, Some(b"deleted"), None);
    let fields = Options { id: Some("key"), ..options("text_pair = \"/reply\"") };
    let process = stream.start(&fields);
    stream.wait_for_positions(documents.len() as i64 + 7);
    process.stop();
    let mut found = stored(&stream);
    let long = found.pop().unwrap();
    assert!(long.starts_with("long "), "{long}");
    expected.sort();
    assert_eq!(found, expected);
    let rejections = stream
        .database
        .texts("SELECT stage || ' ' || reason || ' ' || message FROM {s}.rejections ORDER BY \"offset\"");
    let begin = [
        "decode text_pair_missing there is no text_pair at `/reply`; set `fields.text_pair` of the stream to where it lies",
        "decode text_pair_missing there is no text_pair at `/reply`; set `fields.text_pair` of the stream to where it lies",
        "decode text_pair_empty the text_pair at `/reply` is empty; nothing can be said about it",
        "tokenize text_pair_too_long model `albert-sentiment`: `text_pair` has 24 tokens and leaves 5 of a window's 32 for `text`, less than the 8 needed",
    ];
    assert_eq!(rejections.len(), begin.len(), "{rejections:#?}");
    for (rejection, begin) in rejections.iter().zip(begin) {
        assert!(rejection.starts_with(begin), "`{rejection}` does not begin with `{begin}`");
    }
}

#[test]
fn a_backfill_labels_pairs_also_where_the_second_text_lies_elsewhere() {
    let (stream, files) = (Stream::new(1), Files::new());
    let (documents, expected) = documents(20);
    let file = files.write("pairs.jsonl", jsonl(&documents));
    let options = options("text_pair = \"/answer\"");
    let mut command = stream.command(&options);
    command.args(["backfill", "start", "reviews", &file, "--field", "text_pair=/reply"]);
    Answer::of(&mut command, "").expect(0);
    assert_eq!(stored(&stream), expected);
}

#[test]
fn classify_reads_the_second_text_from_its_field() {
    let stream = Stream::new(1);
    let (documents, expected) = documents(20);
    let run = |options: &Options, arguments: &[&str]| {
        let mut command = stream.command(options);
        command.args(["classify", "--model", "albert-sentiment"]).args(arguments);
        Answer::of(&mut command, &jsonl(&documents))
    };
    let pairs = options("text_pair = \"/reply\"");
    let answer = run(&pairs, &["--text-pair-field", "reply"]).expect(0);
    let rows = answer.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let found: Vec<String> =
        rows.map(|row| format!("{} {}", row["id"].as_str().unwrap(), row["label"].as_str().unwrap())).collect();
    assert_eq!(found, expected);
    run(&pairs, &[]).expect(2).says("reads pairs of texts: name the second text's field with `--text-pair-field`");
    run(&pairs, &["--text-pair-field", "answer"]).expect(1).says("there is no field `answer`");
    let single = Options { instant_model: true, ..Options::default() };
    run(&single, &["--text-pair-field", "reply"]).expect(2).says("model `albert-sentiment` reads single texts");
}

#[test]
fn a_mapping_and_models_that_do_not_agree_on_pairs_are_a_wrong_configuration() {
    let stream = Stream::new(1);
    let missing = "`streams.reviews.fields.text_pair`: is missing: model `albert-sentiment` reads pairs of texts";
    let useless = "`streams.reviews.fields.text_pair`: is of no use: no model of the stream reads pairs of texts";
    let single = Options { instant_model: true, extra: "text_pair = \"/reply\"".into(), ..Options::default() };
    for (options, says) in [(options(""), missing), (single, useless)] {
        let run = |arguments: &[&str]| Answer::of(stream.command(&options).args(arguments), "");
        run(&["run"]).expect(78).says(says);
        run(&["run", "--dry-run"]).expect(78).says(says);
        let answer = run(&["check"]).expect(1);
        let line = answer.stdout.lines().find(|line| line.contains("pairs of `reviews`")).unwrap();
        assert!(line.starts_with("failed  pairs of `reviews`: "), "{line}");
    }
    let answer = Answer::of(stream.command(&options("text_pair = \"/reply\"")).arg("check"), "");
    answer.expect(0).prints("ok      pairs of `reviews`: read by albert-sentiment");
}
