//! What becomes of single records: bad ones, deletions, updates, long ones.

use serde_json::json;

use crate::support::{
    broker::{produce_documents, produce_to},
    pipeline::{Options, Stream},
};

#[test]
fn a_bad_record_is_rejected_with_its_place_and_stops_nothing_else() {
    let stream = Stream::new(1);
    produce_documents(&stream.topic, 0..3);
    for bad in ["{", r#"{"id": "x"}"#, r#"{"id": "a\u0000b", "text": "x"}"#, r#"{"text": "x"}"#] {
        produce_to(&stream.topic, 0, Some(b"k"), Some(bad.as_bytes()));
    }
    produce_to(&stream.topic, 0, Some(b"d0"), None);
    produce_documents(&stream.topic, 3..6);
    let process = stream.start(&Options::default());
    stream.wait_for_labels(6);
    stream.wait_for_positions(11);
    let rejections = stream
        .database
        .texts("SELECT \"offset\" || ' ' || stage || ' ' || reason FROM {s}.rejections ORDER BY \"offset\"");
    assert_eq!(
        rejections,
        [
            "3 decode json_invalid",
            "4 decode text_missing",
            "5 decode identifier_with_nul",
            "6 decode id_missing",
            "7 decode deletion_without_id",
        ]
    );
    assert_eq!(process.metric("albertine_rejections_total"), 5.0);
}

#[test]
fn a_record_without_a_value_deletes_its_document_and_a_newer_one_brings_it_back() {
    let stream = Stream::new(1);
    let options = Options { id: Some("key"), ..Options::default() };
    let text = json!({"text": "A fine kettle."}).to_string();
    for key in [b"a", b"b"] {
        produce_to(&stream.topic, 0, Some(key), Some(text.as_bytes()));
    }
    produce_to(&stream.topic, 0, Some(b"a"), None);
    let process = stream.start(&options);
    stream.wait_for_positions(3);
    assert_eq!(stream.database.texts("SELECT document_id FROM {s}.current_labels"), ["b"]);
    assert_eq!(process.metric("albertine_documents_deleted_total"), 1.0);
    produce_to(&stream.topic, 0, Some(b"a"), Some(text.as_bytes()));
    stream.wait_for_labels(2);
}

#[test]
fn an_update_replaces_the_label_and_its_attributes() {
    let stream = Stream::new(1);
    let _process = stream.start(&Options::default());
    let record = |text: &str, item: &str| json!({"id": "a", "text": text, "item": item}).to_string();
    produce_to(&stream.topic, 0, Some(b"a"), Some(record("Wonderful, I love it!", "one").as_bytes()));
    produce_to(
        &stream.topic,
        0,
        Some(b"a"),
        Some(record("Horrible. It broke at once and they refused a refund.", "two").as_bytes()),
    );
    stream.wait_for_positions(2);
    assert_eq!(stream.database.texts("SELECT item || ' ' || label FROM {s}.current_labels"), ["two negative"]);
}

#[test]
fn a_long_document_is_read_whole_and_holds_up_only_its_own_partition() {
    let stream = Stream::new(2);
    let long = "The kettle works, and then again it does not work at all. ".repeat(600);
    produce_to(&stream.topic, 0, Some(b"long"), Some(json!({"id": "long", "text": long}).to_string().as_bytes()));
    for index in 0..20 {
        let record = json!({"id": format!("s{index}"), "text": format!("Short, {index}.")}).to_string();
        produce_to(&stream.topic, 1, Some(b"s"), Some(record.as_bytes()));
    }
    let process = stream.start(&Options::default());
    stream.wait_for_labels(21);
    assert!(process.metric("albertine_engine_windows_total") > 40.0, "the long document has some thirty windows");
}

#[test]
fn too_many_rejections_in_a_row_stop_the_stream_loudly_and_the_next_start_goes_on_behind_them() {
    let stream = Stream::new(1);
    let options = Options {
        instant_model: true,
        extra: "[streams.reviews.rejections]\nstreak_max = 3".into(),
        ..Options::default()
    };
    for bad in [&b"{1"[..], b"{2", b"{3"] {
        produce_to(&stream.topic, 0, None, Some(bad));
    }
    let mut process = stream.start(&options);
    assert_eq!(process.wait().code(), Some(1));
    for part in ["3 records in a row were rejected; the last one is offset 2 of ", "`albertine dead-letter replay`"] {
        assert!(process.log().contains(part), "no `{part}` in {}", process.log());
    }
    produce_documents(&stream.topic, 0..2);
    let process = stream.start(&options);
    stream.wait_for_labels(2);
    assert_eq!(stream.database.number("SELECT count(*) FROM {s}.rejections"), 3);
    process.stop();
}

#[test]
fn a_text_above_the_limit_is_rejected_with_both_sizes() {
    let stream = Stream::new(1);
    let record = json!({"id": "a", "text": "x".repeat(2000)}).to_string();
    produce_to(&stream.topic, 0, Some(b"a"), Some(record.as_bytes()));
    let _process = stream.start(&Options { stream: "text_bytes_max = \"1KiB\"".into(), ..Options::default() });
    stream.wait_for_positions(1);
    let message = stream.database.texts("SELECT reason || ': ' || message FROM {s}.rejections");
    assert_eq!(
        message,
        ["text_too_long: the text has 2000 bytes, more than the 1024 allowed; raise `text_bytes_max` of the stream"]
    );
}
