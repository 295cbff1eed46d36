//! Partitions that change hands: workers joining and leaving, and one that was frozen and comes back.

use std::time::{Duration, Instant};

use crate::support::{
    broker::produce_documents,
    eventually,
    pipeline::{Options, Process, Stream},
};

const DOCUMENTS: usize = 400;

fn small_batches() -> Options {
    Options { stream: "batch_documents_max = 10".into(), ..Options::default() }
}

#[test]
fn a_rebalance_in_mid_work_loses_and_repeats_nothing() {
    let stream = Stream::new(4);
    produce_documents(&stream.topic, 0..DOCUMENTS);
    let first = stream.start_working(&small_batches());
    let second = stream.start_claimed(&small_batches());
    first.wait_for_log("handed back");
    // More work for both, while one of them leaves.
    produce_documents(&stream.topic, DOCUMENTS..2 * DOCUMENTS);
    eventually("both have stored something", || {
        let stored = |process: &Process| process.metric("albertine_documents_stored_total") > 0.0;
        (stored(&first) && stored(&second)).then_some(())
    });
    first.stop();
    stream.wait_for_labels(2 * DOCUMENTS as i64);
    stream.wait_for_positions(2 * DOCUMENTS as i64);
    assert_eq!(stream.database.number("SELECT count(*) FROM {s}.labels"), 2 * DOCUMENTS as i64);
}

#[test]
fn what_waits_for_the_engine_is_left_to_the_worker_that_took_its_partition() {
    let stream = Stream::new(4);
    produce_documents(&stream.topic, 0..DOCUMENTS);
    // A document a pass, and each pass takes its time: what waits would keep it for half a minute.
    let slow = Options {
        failpoints: "engine-pass=sleep(30)".into(),
        engine: "group_tokens_max = 1".into(),
        ..small_batches()
    };
    let first = stream.start_working(&slow);
    let second = stream.start_claimed(&small_batches());
    first.wait_for_log("handed back");
    eventually("the first worker has left some to the second", || {
        (first.metric("albertine_engine_windows_abandoned_total") > 0.0).then_some(())
    });
    stream.wait_for_labels(DOCUMENTS as i64);
    stream.wait_for_positions(DOCUMENTS as i64);
    let computed = |process: &Process| process.metric("albertine_engine_windows_total");
    let [computed, abandoned] =
        [computed(&first) + computed(&second), first.metric("albertine_engine_windows_abandoned_total")];
    // Computed twice is what the first worker had in hand, or had computed and not stored yet.
    assert!(computed < DOCUMENTS as f64 * 1.3, "{computed} computed, {abandoned} abandoned");
}

#[test]
fn a_frozen_worker_that_wakes_after_its_takeover_writes_nothing() {
    let stream = Stream::new(1);
    produce_documents(&stream.topic, 0..DOCUMENTS);
    // It holds a finished batch in its hands while it is frozen, and sends it once it wakes.
    let failpoints = "before-store=1*sleep(5000)->off".to_owned();
    let zombie = stream.start(&Options { failpoints, ..small_batches() });
    eventually("it has results to store", || (zombie.metric("albertine_documents_inferred_total") > 1.0).then_some(()));
    zombie.signal("STOP");
    assert_eq!(stream.database.current_labels(), 0, "it stored something before the freeze");
    let successor = stream.start(&small_batches());
    stream.wait_for_labels(DOCUMENTS as i64);
    let owner = || stream.database.texts("SELECT owner::text FROM {s}.checkpoints");
    let written = || stream.database.texts("SELECT document_id || stored_at FROM {s}.documents ORDER BY 1");
    let (owner_before, written_before) = (owner(), written());
    zombie.signal("CONT");
    zombie.wait_for_log("another worker claimed the partition");
    assert_eq!(written(), written_before, "the zombie wrote");
    assert_eq!(owner(), owner_before, "the zombie took the partition back from its living owner");
    // Both go on: what comes now is stored once, by whoever has the partition.
    produce_documents(&stream.topic, DOCUMENTS..DOCUMENTS + 50);
    stream.wait_for_labels(DOCUMENTS as i64 + 50);
    successor.stop();
    produce_documents(&stream.topic, DOCUMENTS + 50..DOCUMENTS + 100);
    stream.wait_for_labels(DOCUMENTS as i64 + 100);
    zombie.stop();
}

#[test]
fn a_claim_that_somebody_moved_is_taken_up_again_where_the_checkpoint_stands() {
    let stream = Stream::new(1);
    let process = stream.start_claimed(&small_batches());
    produce_documents(&stream.topic, 0..20);
    stream.wait_for_labels(20);
    // As an operator would who wants the records again.
    stream.database.rows("UPDATE {s}.checkpoints SET position = 5");
    produce_documents(&stream.topic, 20..40);
    process.wait_for_log("the checkpoint was moved");
    stream.wait_for_labels(40);
    stream.wait_for_positions(40);
    process.stop();
}

#[test]
fn a_graceful_stop_stores_what_is_in_flight() {
    let stream = Stream::new(2);
    produce_documents(&stream.topic, 0..DOCUMENTS);
    let first = stream.start_working(&small_batches());
    first.stop();
    let stored = stream.database.current_labels();
    let second = stream.start(&small_batches());
    stream.wait_for_labels(DOCUMENTS as i64);
    assert_eq!(second.metric("albertine_documents_inferred_total") as i64, DOCUMENTS as i64 - stored);
    second.stop();
}

#[test]
fn a_stop_whose_deadline_passes_leaves_the_rest_to_the_next_process() {
    const DEADLINE: Duration = Duration::from_secs(1);
    let stream = Stream::new(1);
    produce_documents(&stream.topic, 0..DOCUMENTS);
    // Forty batches of half a second each: what is in hand would take far longer than the deadline.
    let slow = Options {
        extra: format!("[shutdown]\ndeadline = \"{}s\"", DEADLINE.as_secs()),
        failpoints: "before-store=sleep(500)".into(),
        ..small_batches()
    };
    let mut first = stream.start_working(&slow);
    eventually("everything is in hand", || {
        (first.metric("albertine_records_received_total") as usize == DOCUMENTS).then_some(())
    });
    let asked = Instant::now();
    first.signal("TERM");
    assert!(first.wait().success());
    let took = asked.elapsed();
    assert!((DEADLINE..DEADLINE + Duration::from_secs(7)).contains(&took), "it ended after {took:?}");
    first.wait_for_log("not everything in flight was stored by the deadline");
    let second = stream.start(&small_batches());
    stream.wait_for_labels(DOCUMENTS as i64);
    stream.wait_for_positions(DOCUMENTS as i64);
    assert_eq!(stream.database.number("SELECT count(*) FROM {s}.labels"), DOCUMENTS as i64);
    let by_first = stream
        .database
        .number("SELECT count(*) FROM {s}.documents d, {s}.checkpoints c WHERE d.stored_at < c.claimed_at");
    assert!((1..DOCUMENTS as i64).contains(&by_first), "{by_first} of {DOCUMENTS} were stored before the second claim");
    let inferred = second.metric("albertine_documents_inferred_total");
    assert_eq!(inferred as i64, DOCUMENTS as i64 - by_first, "the second process did not go on where the first ended");
    second.stop();
}
