//! Texts that come again and again: each record gets its own label, whether its text was computed or not.

use std::collections::BTreeMap;

use serde_json::json;

use crate::support::{
    broker::produce_to,
    pipeline::{Options, Stream},
};

const TEXTS: [&str; 4] = [
    "Wonderful, I love it!",
    "Horrible. It broke at once and they refused a refund.",
    "The parcel holds one kettle and one lid.",
    "Great product, works perfectly.",
];
const DOCUMENTS: usize = 60;

/// What is stored of each document.
fn stored(stream: &Stream) -> BTreeMap<String, String> {
    let rows = stream.database.texts(
        "SELECT document_id || '|' || label || ' ' || round(confidence::numeric, 3) || ' ' || rating || ' ' || item
         FROM {s}.current_labels",
    );
    rows.iter().map(|row| row.split_once('|').unwrap()).map(|(id, label)| (id.to_owned(), label.to_owned())).collect()
}

#[test]
fn every_document_of_a_repetitive_topic_gets_one_label_as_if_it_were_the_only_one() {
    let labels = [16 << 20, 0].map(|bytes: usize| {
        let stream = Stream::new(2);
        for index in 0..DOCUMENTS {
            // What comes with a text is the document's own.
            let (id, rating) = (format!("d{index:02}"), index % 5 + 1);
            let text = TEXTS[index % 7 % TEXTS.len()];
            let record = json!({"id": id, "text": text, "rating": rating, "item": format!("i{index}")}).to_string();
            produce_to(&stream.topic, (index % 2) as i32, Some(id.as_bytes()), Some(record.as_bytes()));
        }
        let process =
            stream.start(&Options { engine: format!("duplicate_cache_bytes = {bytes}"), ..Options::default() });
        stream.wait_for_positions(DOCUMENTS as i64);
        stream.wait_for_labels(DOCUMENTS as i64);
        assert_eq!(stream.database.number("SELECT count(*) FROM {s}.labels"), DOCUMENTS as i64);
        let [computed, coalesced, found, windows] = [
            "albertine_duplicate_misses_total",
            "albertine_duplicates_coalesced_total",
            "albertine_duplicate_hits_total",
            "albertine_engine_windows_total",
        ]
        .map(|name| process.metric(name) as usize);
        if bytes == 0 {
            assert_eq!((computed, coalesced, found, windows), (0, 0, 0, DOCUMENTS));
        } else {
            assert_eq!((computed, windows), (TEXTS.len(), TEXTS.len()));
            assert_eq!(coalesced + found, DOCUMENTS - TEXTS.len());
        }
        process.stop();
        stored(&stream)
    });
    let [found, computed] = labels;
    assert_eq!(found.len(), DOCUMENTS);
    assert!(found["d00"].starts_with("positive ") && found["d00"].ends_with(" 1 i0"), "{}", found["d00"]);
    assert!(found["d01"].starts_with("negative ") && found["d01"].ends_with(" 2 i1"), "{}", found["d01"]);
    let wrong: Vec<_> = found.iter().filter(|(id, label)| computed[*id] != **label).take(3).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}
