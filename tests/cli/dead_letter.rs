//! `albertine dead-letter`: what was rejected can be listed, looked at, tried again and let be.

use albertine::kafka::peek;
use serde_json::{Value, json};

use super::Answer;
use crate::support::{
    broker::{client, produce_documents, produce_to, recreate_topic},
    pipeline::{Options, Stream},
};

/// A good document, three that are rejected, and a good one again.
const BAD: [&str; 3] = [r#"{"id": "b1", "txet": "A fine kettle."}"#, "{not json", r#"{"id": "b3", "text": 7}"#];

fn options(rejections: &str) -> Options {
    Options { instant_model: true, extra: format!("[streams.reviews.rejections]\n{rejections}"), ..Options::default() }
}

fn rejected(options: &Options) -> Stream {
    let stream = Stream::new(1);
    produce_documents(&stream.topic, 0..1);
    for (index, bad) in BAD.iter().enumerate() {
        produce_to(&stream.topic, 0, Some(format!("k{index}").as_bytes()), Some(bad.as_bytes()));
    }
    produce_documents(&stream.topic, 1..2);
    let process = stream.start(options);
    stream.wait_for_positions(5);
    process.stop();
    stream
}

fn run(stream: &Stream, options: &Options, arguments: &[&str]) -> Answer {
    Answer::of(stream.command(options).arg("dead-letter").args(arguments), "")
}

fn listed(stream: &Stream, options: &Options, arguments: &[&str]) -> Value {
    let arguments = [&["list", "reviews", "--format", "json"], arguments].concat();
    serde_json::from_str(&run(stream, options, &arguments).expect(0).stdout).unwrap()
}

fn places(list: &Value) -> Vec<(i64, &str, &str)> {
    let place = |letter: &'_ Value| {
        let text = |name: &str| letter[name].as_str().unwrap().to_owned();
        (letter["offset"].as_i64().unwrap(), text("reason").leak() as &str, text("state").leak() as &str)
    };
    list["rejections"].as_array().unwrap().iter().map(place).collect()
}

#[test]
fn rejections_are_listed_with_their_places_and_counted_by_reason() {
    let options = options("");
    let stream = rejected(&options);
    let list = listed(&stream, &options, &[]);
    let expected = [(1, "text_missing", "open"), (2, "json_invalid", "open"), (3, "field_type", "open")];
    assert_eq!(places(&list), expected);
    assert_eq!(list["reasons"].as_array().unwrap().len(), 3);
    assert_eq!(places(&listed(&stream, &options, &["--reason", "json_invalid"])), [(2, "json_invalid", "open")]);
    assert_eq!(places(&listed(&stream, &options, &["0:1", "0:3", "0:9"])).len(), 2);
    assert_eq!(places(&listed(&stream, &options, &["--limit", "1"])).len(), 1);
    let text = run(&stream, &options, &["list", "reviews"]).expect(0);
    assert!(text.stdout.contains("3 of 3 open rejections of stream reviews"), "{text:#?}");
    assert!(text.stdout.contains(" 0:2 ") && text.stdout.contains("the value is not JSON"), "{text:#?}");
    run(&stream, &options, &["list", "reviews", "--state", "gone"])
        .expect(2)
        .says("open, replayed or discarded, or all");
    run(&stream, &options, &["list", "reviews", "here"]).expect(2).says("`here` is not a place");
    run(&stream, &options, &["list", "reviews", "--state", "discarded"])
        .expect(0)
        .prints("stream reviews has no discarded rejections");
}

#[test]
fn a_rejection_is_shown_and_its_record_only_when_asked_for() {
    let options = options("");
    let stream = rejected(&options);
    let shown = run(&stream, &options, &["show", "reviews", "0:1"]).expect(0).prints("reason       text_missing");
    assert!(!shown.stdout.contains("kettle"), "{shown:#?}");
    // From the topic: the stream keeps none.
    assert_eq!(stream.database.number("SELECT count(*) FROM {s}.rejected_records"), 0);
    let with_record = run(&stream, &options, &["show", "reviews", "0:1", "--record", "--format", "json"]).expect(0);
    let shown: Value = serde_json::from_str(&with_record.stdout).unwrap();
    assert_eq!(shown["record"], json!({"key": "k0", "value": BAD[0], "headers": []}));
    run(&stream, &options, &["show", "reviews", "0:0"]).expect(1).says("nothing was rejected at ");
}

#[test]
fn a_stream_that_keeps_records_shows_them_without_the_topic() {
    let options = options("keep_records = \"1h\"");
    let stream = rejected(&options);
    assert_eq!(stream.database.number("SELECT count(*) FROM {s}.rejected_records"), 3);
    recreate_topic(&stream.topic, 1);
    run(&stream, &options, &["show", "reviews", "0:2", "--record"]).expect(0).prints("value        {not json");
}

#[test]
fn what_is_discarded_is_closed_and_what_was_kept_of_it_removed() {
    let options = options("keep_records = \"1h\"");
    let stream = rejected(&options);
    run(&stream, &options, &["discard", "reviews"]).expect(2).says("--all");
    run(&stream, &options, &["discard", "reviews", "0:1"]).expect(0).prints("1 rejections of stream reviews discarded");
    run(&stream, &options, &["discard", "reviews", "0:1"]).expect(0).prints("0 rejections");
    assert_eq!(places(&listed(&stream, &options, &["--state", "discarded"])), [(1, "text_missing", "discarded")]);
    assert_eq!(stream.database.number("SELECT count(*) FROM {s}.rejected_records"), 2);
    run(&stream, &options, &["discard", "reviews", "--all"]).expect(0).prints("2 rejections");
    assert_eq!(stream.database.number("SELECT count(*) FROM {s}.rejected_records"), 0);
    assert_eq!(places(&listed(&stream, &options, &[])), []);
}

/// Documents whose text stood in another field, and a newer record of one of them.
fn misnamed(options: &Options) -> Stream {
    let stream = Stream::new(1);
    produce_documents(&stream.topic, 0..1);
    for record in [
        r#"{"id": "b1", "txet": "The first of two."}"#,
        r#"{"id": "b2", "txet": "The only one.", "item": "kettle"}"#,
        r#"{"id": "b1", "text": "The newer of two."}"#,
    ] {
        produce_to(&stream.topic, 0, Some(b"k"), Some(record.as_bytes()));
    }
    stream.run_until_labelled(options, 2);
    stream
}

/// With the mapping put right.
fn replay(stream: &Stream, options: &Options, arguments: &[&str]) -> Answer {
    let mut command = stream.command(options);
    command.args(["dead-letter", "replay", "reviews"]).args(arguments).env("FAILPOINTS", &options.failpoints);
    Answer::of(command.env("ALBERTINE_STREAMS__REVIEWS__FIELDS__TEXT", "/txet"), "")
}

/// The ids of the published labels, in their order.
fn published(stream: &Stream) -> Vec<String> {
    let records = peek::newest(&client(), &stream.labels, 100).unwrap();
    let id = |value: Vec<u8>| {
        let label: Value = serde_json::from_slice(&value).unwrap();
        label["document_id"].as_str().unwrap().to_owned()
    };
    records.map(|record| id(record.unwrap().value.unwrap())).collect()
}

#[test]
fn a_replay_labels_and_publishes_at_the_version_the_records_had() {
    let options = Options { live: true, ..options("") };
    let stream = misnamed(&options);
    replay(&stream, &options, &["--all"]).expect(0).prints("2 of 2 rejections of stream reviews replayed");
    let documents =
        stream.database.texts("SELECT document_id || ' ' || version[4] FROM {s}.documents ORDER BY document_id");
    assert_eq!(documents, ["b1 3", "b2 2", "d0 0"], "what is newer stays, what was missing is there");
    assert_eq!(stream.database.current_labels(), 3);
    assert_eq!(published(&stream), ["d0", "b1", "b2"], "only what was really stored is published");
    assert_eq!(stream.database.differences_from_a_recount(), Vec::<String>::new());
    let states = stream.database.texts("SELECT DISTINCT state || ' ' || (settled_at IS NOT NULL) FROM {s}.rejections");
    assert_eq!(states, ["replayed true"]);
    replay(&stream, &options, &["--all"]).expect(0).prints("stream reviews has no open rejections of these");
    Answer::of(stream.command(&options).arg("verify"), "").expect(0);
}

#[test]
fn a_replay_that_is_killed_goes_on_where_it_stood_and_publishes_nothing_twice() {
    for point in ["before-store", "after-store", "after-produce", "after-commit"] {
        let options = Options { live: true, ..options("keep_records = \"1h\"") };
        let stream = misnamed(&options);
        let dying = Options { failpoints: format!("{point}=return"), ..options.clone() };
        assert_eq!(replay(&stream, &dying, &["--all"]).code, None, "{point}: it was to be killed");
        // Also where nothing is left to replay there may be something left to publish.
        produce_to(&stream.topic, 0, Some(b"k"), Some(br#"{"id": "b3", "txet": "One more."}"#));
        let process = stream.start(&options);
        stream.wait_for_positions_of(&stream.topic, 5);
        process.stop();
        replay(&stream, &options, &["--all"]).expect(0);
        let mut ids = published(&stream);
        ids.sort();
        assert_eq!(ids, ["b1", "b2", "b3", "d0"], "{point}");
        assert_eq!(stream.database.current_labels(), 4, "{point}");
        assert_eq!(stream.database.number("SELECT count(*) FROM {s}.rejected_records"), 0, "{point}");
    }
}

#[test]
fn what_is_rejected_again_stays_open_with_its_new_reason() {
    let options = options("");
    let stream = rejected(&options);
    replay(&stream, &options, &["0:1", "0:3"])
        .expect(1)
        .prints("1 of 2 rejections of stream reviews replayed")
        .says("1 could not be labelled and stay open, such as 0:3");
    let list = listed(&stream, &options, &["--state", "all"]);
    let expected = [(1, "text_missing", "replayed"), (2, "json_invalid", "open"), (3, "text_missing", "open")];
    assert_eq!(places(&list), expected);
    assert_eq!(stream.database.number("SELECT count(*) FROM {s}.rejections"), 3, "no rejection was added");
}

#[test]
fn a_record_that_is_neither_kept_nor_in_the_topic_is_said_so() {
    let options = options("");
    let stream = misnamed(&options);
    recreate_topic(&stream.topic, 1);
    // The new topic has a record at that offset, which is not the one.
    produce_documents(&stream.topic, 0..5);
    let process = stream.start(&options);
    stream.wait_for_positions(5);
    process.stop();
    replay(&stream, &options, &["--all"])
        .expect(1)
        .prints("0 of 2 rejections")
        .says("the records of 2 are neither kept nor in the topic, such as 0:1");
    run(&stream, &options, &["show", "reviews", "0:1", "--record"])
        .expect(0)
        .prints("record       not kept, and no longer in the topic");
}
