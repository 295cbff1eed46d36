//! A backfill that publishes: each label once on the live topic, whatever dies.

use std::collections::BTreeMap;

use super::Setup;
use crate::support::{broker::create_topic, subscriber::Subscriber};

const DOCUMENTS: usize = 300;

fn survives_a_crash_at(failpoint: &str) {
    let mut setup = Setup::new();
    setup.options.live = true;
    create_topic(&setup.stream.labels, 1);
    let subscriber = Subscriber::start(&[(setup.stream.labels.to_string(), 1)]);
    let file = setup.files.documents("a.jsonl", 0..DOCUMENTS);
    setup.run(&["start", "reviews", "--detach", "--name", "job", "--publish", &file]).expect(0);
    if !failpoint.is_empty() {
        let mut crashing = setup.work("job", failpoint);
        assert!(!crashing.wait().success(), "the failpoint `{failpoint}` was never reached");
    }
    setup.run(&["work", "job"]).expect(0);
    setup.assert_stored_once(DOCUMENTS as i64, 0);
    subscriber.wait_for(DOCUMENTS);
    // Behind everything, so that what would come twice has come.
    let last = setup.files.documents("b.jsonl", DOCUMENTS..=DOCUMENTS);
    setup.run(&["start", "reviews", "--name", "last", "--publish", &last]).expect(0);
    let seen = subscriber.wait_for(DOCUMENTS + 1);
    let mut offsets: BTreeMap<(String, i32), Vec<i64>> = BTreeMap::new();
    for record in &seen {
        let place = (record.position.key.topic.to_string(), record.position.key.partition);
        offsets.entry(place).or_default().push(record.position.offset);
    }
    assert_eq!(seen.len(), DOCUMENTS + 1, "something was published twice");
    assert_eq!(offsets.values().map(Vec::len).sum::<usize>(), DOCUMENTS + 1);
    for (place, offsets) in &offsets {
        let expected: Vec<i64> = (0..offsets.len() as i64).collect();
        assert_eq!(offsets, &expected, "{place:?} is not published once and in order");
    }
    assert_eq!(setup.database().number("SELECT count(*) FROM {s}.outbox"), 0);
}

#[test]
fn labels_are_published_once_and_in_order() {
    survives_a_crash_at("");
}

#[test]
fn a_crash_in_the_transaction_publishes_nothing_twice() {
    survives_a_crash_at("after-produce=1*off->return");
}

#[test]
fn a_crash_between_commit_and_delete_publishes_nothing_twice() {
    survives_a_crash_at("after-commit=1*off->return");
}

#[test]
fn a_crash_before_published_rows_are_deleted_publishes_nothing_twice() {
    survives_a_crash_at("before-end=return");
}

#[test]
fn without_being_asked_nothing_is_published() {
    let mut setup = Setup::new();
    setup.options.live = true;
    create_topic(&setup.stream.labels, 1);
    let file = setup.files.documents("a.jsonl", 0..20);
    setup.run(&["start", "reviews", &file]).expect(0);
    setup.assert_stored_once(20, 0);
    assert_eq!(crate::support::broker::end_of(&setup.stream.labels, 1), 0);
    assert_eq!(setup.database().number("SELECT count(*) FROM {s}.outbox"), 0);
}
