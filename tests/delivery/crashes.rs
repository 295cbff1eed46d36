//! Killed at each boundary, at any moment, and with the reply of a COMMIT lost.

use crate::support::{
    broker::produce_documents,
    eventually,
    pipeline::{Options, Stream},
    proxy::ReplyEater,
};

const DOCUMENTS: usize = 300;

/// What has to hold once everything is labelled, after whatever happened.
fn assert_stored_once(stream: &Stream, documents: usize) {
    stream.wait_for_labels(documents as i64);
    stream.wait_for_positions(documents as i64);
    let database = &stream.database;
    assert_eq!(database.number("SELECT count(*) FROM {s}.labels"), documents as i64);
    assert_eq!(database.number("SELECT count(*) FROM {s}.rejections"), 0);
}

/// Kills the pipeline at a failpoint, starts another, and compares.
fn survives_a_crash_at(failpoint: &str) {
    let stream = Stream::new(2);
    produce_documents(&stream.topic, 0..DOCUMENTS);
    // Small batches, so that the crash comes with work before it and after it.
    let options = Options { stream: "batch_documents_max = 20".into(), ..Options::default() };
    let mut crashing = stream.start(&Options { failpoints: failpoint.into(), ..options.clone() });
    assert!(!crashing.wait().success(), "the failpoint `{failpoint}` was never reached");
    let stored = stream.database.current_labels();
    assert!(stored < DOCUMENTS as i64, "the crash came after the work");
    let next = stream.start(&options);
    assert_stored_once(&stream, DOCUMENTS);
    let inferred = next.metric("albertine_documents_inferred_total");
    assert_eq!(inferred as i64, DOCUMENTS as i64 - stored, "what was stored before the crash was inferred again");
}

#[test]
fn a_crash_after_the_claim_loses_nothing() {
    survives_a_crash_at("after-claim=return");
}

#[test]
fn a_crash_before_a_batch_is_stored_loses_nothing() {
    survives_a_crash_at("before-store=3*off->return");
}

#[test]
fn a_crash_after_a_batch_is_stored_repeats_nothing() {
    survives_a_crash_at("after-store=3*off->return");
}

#[test]
fn a_kill_in_mid_work_loses_and_repeats_nothing() {
    let stream = Stream::new(3);
    let options = Options { stream: "batch_documents_max = 10".into(), ..Options::default() };
    produce_documents(&stream.topic, 0..DOCUMENTS);
    for share in 1..=3 {
        let process = stream.start(&options);
        eventually("another quarter is stored", || {
            (stream.database.current_labels() >= (DOCUMENTS * share / 4) as i64).then_some(())
        });
        process.kill();
    }
    let _last = stream.start(&options);
    assert_stored_once(&stream, DOCUMENTS);
}

#[test]
fn the_lost_reply_of_a_commit_stores_nothing_twice() {
    let stream = Stream::new(2);
    let target = url::Url::parse(&stream.database.url).unwrap();
    let eater = ReplyEater::new(&format!("{}:{}", target.host_str().unwrap(), target.port().unwrap()), "neutral");
    let mut url = target.clone();
    url.set_port(Some(eater.port())).unwrap();
    url.query_pairs_mut().append_pair("sslmode", "disable");
    let options = Options {
        stream: "batch_documents_max = 20".into(),
        database_url: Some(url.to_string()),
        ..Options::default()
    };
    let process = stream.start_claimed(&options);
    eater.arm(4);
    // Whatever the model says of them, these texts hold the marker in their ids, so every batch matches.
    produce_documents(&stream.topic, 0..DOCUMENTS);
    let marked: Vec<_> = (0..40).map(|index| format!("neutral-{index}")).collect();
    for id in &marked {
        let value = serde_json::json!({"id": id, "text": "It is what it is."}).to_string();
        crate::support::broker::produce_to(&stream.topic, 0, Some(id.as_bytes()), Some(value.as_bytes()));
    }
    assert_stored_once(&stream, DOCUMENTS + marked.len());
    eventually("the proxy ate a reply", || (eater.eaten() > 0).then_some(()));
    assert!(process.log().contains("storing failed; trying again"), "the program never noticed:\n{}", process.log());
}
