//! A deletion takes back all that came of a document, for good, and leaves nothing of its text.

use albertine::kafka::peek;
use serde_json::json;

use crate::support::{
    broker::{self, produce_at, produce_to},
    eventually,
    pipeline::{Options, Stream},
};

/// A word that only the deleted texts hold.
const SECRET: &str = "Quarzsandstrand";

fn options() -> Options {
    Options {
        id: Some("key"),
        live: true,
        instant_model: true,
        extra: "[streams.reviews.rejections]\nkeep_records = \"30days\"".into(),
        ..Options::default()
    }
}

fn document(text: &str) -> Vec<u8> {
    json!({"text": text, "item": "kettle"}).to_string().into_bytes()
}

/// The tables of the schema in which something holds the word, as text or as bytes.
fn tables_with(stream: &Stream, word: &str) -> Vec<String> {
    let tables = stream.database.texts(
        "SELECT relname::text FROM pg_class WHERE relnamespace = '{s}'::regnamespace AND relkind = 'r' ORDER BY relname",
    );
    let hexadecimal = hex::encode(word);
    let holds = |table: &String| {
        let query = format!(
            "SELECT count(*) FROM {{s}}.\"{table}\" AS found WHERE found::text LIKE '%{word}%' OR found::text LIKE '%{hexadecimal}%'"
        );
        stream.database.number(&query) > 0
    };
    tables.into_iter().filter(holds).collect()
}

#[test]
fn nothing_of_a_deleted_text_stays_in_the_database_the_log_or_on_the_live_topic() {
    let stream = Stream::new(1);
    produce_to(&stream.topic, 0, Some(b"stays"), Some(&document("A fine kettle.")));
    produce_to(&stream.topic, 0, Some(b"goes"), Some(&document(&format!("{SECRET}, a fine kettle."))));
    // Rejected, and kept as it came.
    let bad = json!({"text": {"wrong": SECRET}}).to_string();
    produce_to(&stream.topic, 0, Some(b"goes"), Some(bad.as_bytes()));
    let process = stream.start(&options());
    stream.wait_for_positions(3);
    let wait_for_tables = |expected: &[&str]| {
        // What is published leaves the outbox within a second or two.
        eventually(&format!("the text is in {expected:?} only"), || {
            (tables_with(&stream, SECRET) == expected).then_some(())
        });
    };
    wait_for_tables(&["rejected_records"]);
    assert_eq!(stream.database.number("SELECT sum(documents)::bigint FROM {s}.item_labels"), 2);

    produce_to(&stream.topic, 0, Some(b"goes"), None);
    stream.wait_for_positions(4);
    // In one batch with its deletion, so that the statement cannot see its own row.
    for key in ["goes", "late"] {
        produce_to(&stream.topic, 0, Some(key.as_bytes()), Some(bad.as_bytes()));
        produce_to(&stream.topic, 0, Some(key.as_bytes()), None);
    }
    stream.wait_for_positions(8);
    assert_eq!(stream.database.texts("SELECT document_id FROM {s}.current_labels"), ["stays"]);
    assert_eq!(stream.database.texts("SELECT document_id FROM {s}.labels"), ["stays"]);
    assert_eq!(stream.database.number("SELECT sum(documents)::bigint FROM {s}.item_labels"), 1);
    assert_eq!(stream.database.differences_from_a_recount(), Vec::<String>::new());
    wait_for_tables(&[]);
    assert!(!process.log().contains(SECRET), "the log holds the text");
    process.stop();
    let live = peek::newest(&broker::client(), &stream.labels, 100).unwrap();
    let held = live
        .map(Result::unwrap)
        .any(|record| record.value.is_some_and(|value| String::from_utf8_lossy(&value).contains(SECRET)));
    assert!(!held, "the live topic holds the text");
}

#[test]
fn a_late_older_record_does_not_bring_a_deleted_document_back() {
    let stream = Stream::new(2);
    let now = chrono::Utc::now();
    let earlier = now - chrono::Duration::hours(1);
    produce_at(&stream.topic, 0, now, Some(b"goes"), Some(&document("A fine kettle.")));
    produce_at(&stream.topic, 0, now, Some(b"goes"), None);
    let process = stream.start(&options());
    stream.wait_for_positions(2);
    // As after partitions were added: the same key on another one, and older.
    produce_at(&stream.topic, 1, earlier, Some(b"goes"), Some(&document("An older kettle.")));
    stream.wait_for_positions(3);
    assert_eq!(stream.database.current_labels(), 0);
    assert_eq!(stream.database.number("SELECT count(*) FROM {s}.item_labels"), 0);
    process.stop();
}
