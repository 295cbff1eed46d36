//! A backfill that publishes: each label once on the live topic, whatever dies.

use std::collections::BTreeMap;

use rdkafka::producer::{BaseRecord, Producer as _};

use super::Setup;
use crate::support::{
    DEADLINE,
    broker::{begin_transaction, create_topic},
    subscriber::Subscriber,
};

const DOCUMENTS: usize = 300;

/// A job of all documents that is published, and somebody who sees it.
struct Published {
    setup: Setup,
    subscriber: Subscriber,
}

impl Published {
    fn new() -> Self {
        let mut setup = Setup::new();
        setup.options.live = true;
        create_topic(&setup.stream.labels, 1);
        let subscriber = Subscriber::start(&[(setup.stream.labels.to_string(), 1)]);
        let file = setup.files.documents("a.jsonl", 0..DOCUMENTS);
        setup.run(&["start", "reviews", "--detach", "--name", "job", "--publish", &file]).expect(0);
        Self { setup, subscriber }
    }

    /// Lets a worker die at a failpoint.
    fn crash_at(&self, failpoint: &str) {
        let mut crashing = self.setup.work("job", failpoint);
        assert!(!crashing.wait().success(), "the failpoint `{failpoint}` was never reached");
    }

    /// Fails unless the job is done and every document was published once, in the order of its shard.
    fn assert_published_once(&self) {
        let Self { setup, subscriber } = self;
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
}

fn survives_a_crash_at(failpoint: &str) {
    let published = Published::new();
    if !failpoint.is_empty() {
        published.crash_at(failpoint);
    }
    published.setup.run(&["work", "job"]).expect(0);
    published.assert_published_once();
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

/// A subscriber sees nothing behind the first transaction that is open, whoever began it; and so would a worker that
/// looks how far its shard was published.
#[test]
fn what_was_published_behind_an_open_transaction_is_not_published_again() {
    let published = Published::new();
    let open = begin_transaction();
    open.send(BaseRecord::<(), str>::to(&published.setup.stream.labels).payload("never seen")).unwrap();
    open.flush(DEADLINE).unwrap();
    published.crash_at("before-end=return");
    let mut next = published.setup.work("job", "");
    next.wait_for_log("waiting until open transactions");
    open.abort_transaction(DEADLINE).unwrap();
    assert!(next.wait().success(), "{}", next.log());
    published.assert_published_once();
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
