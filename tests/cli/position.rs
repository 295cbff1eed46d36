//! `albertine position`: every situation that asks for a decision is shown with its choices, and each choice heals
//! it, as a `read_committed` subscriber sees.

use std::collections::BTreeMap;

use albertine::kafka::peek;
use chrono::{TimeDelta, Utc};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
};
use serde_json::Value;

use super::Answer;
use crate::support::{
    block_on,
    broker::{self, produce_documents, produce_documents_at},
    eventually,
    pipeline::{Options, Process, Stream},
};

/// A stream with a live topic.
fn live() -> Options {
    Options { live: true, ..Options::default() }
}

fn run(stream: &Stream, arguments: &[&str]) -> Answer {
    Answer::of(stream.command(&live()).arg("position").args(arguments), "")
}

fn set(stream: &Stream, what: &str, position: &str) -> Answer {
    run(stream, &["set", "reviews", "--all", what, position, "--yes"])
}

/// What `position show` says of the one partition.
fn show(stream: &Stream) -> Value {
    let answer = run(stream, &["show", "reviews", "--format", "json"]).expect(0);
    serde_json::from_str::<Value>(&answer.stdout).unwrap()["partitions"][0].clone()
}

/// How often the live topic shows a label of each document, by the document's number.
fn labels(stream: &Stream) -> BTreeMap<usize, usize> {
    let mut labels = BTreeMap::new();
    // Until the program has made the topic there is none.
    for record in peek::newest(&broker::client(), &stream.labels, 10_000).into_iter().flatten().map(Result::unwrap) {
        let key = String::from_utf8(record.key.unwrap()).unwrap();
        let document = key.strip_suffix("/sentiment/albert-sentiment").unwrap();
        *labels.entry(document.strip_prefix('d').unwrap().parse().unwrap()).or_default() += 1;
    }
    labels
}

/// The documents of these numbers, so many times each.
fn expected(parts: &[(std::ops::Range<usize>, usize)]) -> BTreeMap<usize, usize> {
    parts.iter().flat_map(|(documents, times)| documents.clone().map(|document| (document, *times))).collect()
}

fn wait_for_labels(stream: &Stream, parts: &[(std::ops::Range<usize>, usize)]) {
    let wanted = expected(parts);
    let count: usize = wanted.values().sum();
    eventually(&format!("the live topic shows {count} labels"), || {
        let found = labels(stream);
        let enough = found.values().sum::<usize>() >= count;
        enough.then(|| assert_eq!(found, wanted))
    });
}

fn wait_until_no_worker_is_left(stream: &Stream) {
    eventually("the group has no members", || broker::group_is_empty(&stream.topic).then_some(()));
}

/// Documents 0 to 10 are stored and published, 10 to 20 are only stored; nobody runs.
fn with_an_outbox() -> Stream {
    let stream = Stream::new(1);
    produce_documents(&stream.topic, 0..10);
    stream.run_until_labelled(&live(), 10);
    produce_documents(&stream.topic, 10..20);
    let process = stream.start(&Options { failpoints: "before-begin=sleep(600000)".into(), ..live() });
    stream.wait_for_labels(20);
    process.kill();
    wait_until_no_worker_is_left(&stream);
    wait_for_labels(&stream, &[(0..10, 1)]);
    stream
}

/// As somebody does with Kafka's own tools.
fn overwrite_the_groups_offset(stream: &Stream) {
    let consumer: BaseConsumer = broker::config().set("group.id", &*stream.topic).create().unwrap();
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&stream.topic, 0, Offset::Offset(3)).unwrap();
    consumer.commit(&offsets, CommitMode::Sync).unwrap();
}

/// As retention does.
fn delete_the_live_records(stream: &Stream) {
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&stream.labels, 0, Offset::End).unwrap();
    block_on(broker::admin().delete_records(&offsets, &broker::request_options())).unwrap();
}

/// What is published cannot be found out; a worker runs and has said so.
fn with_an_unknown_publication() -> (Stream, Process) {
    let stream = with_an_outbox();
    overwrite_the_groups_offset(&stream);
    delete_the_live_records(&stream);
    let process = stream.start(&live());
    process.wait_for_log("cannot be found out");
    let shown = show(&stream);
    assert_eq!(shown["decision_needed"], true, "{shown:#}");
    for choice in shown["choices"].as_array().unwrap() {
        process.wait_for_log(choice["command"].as_str().unwrap());
    }
    assert_eq!(shown["group_offset"]["offset"], 3);
    assert_eq!(shown["group_offset"]["is_ours"], false);
    (stream, process)
}

#[test]
fn an_offset_that_was_overwritten_is_found_again_in_the_live_topic() {
    let stream = with_an_outbox();
    overwrite_the_groups_offset(&stream);
    let shown = show(&stream);
    assert_eq!(shown["decision_needed"], false, "{shown:#}");
    assert_eq!(shown["publisher"], "finds in the live topic that it goes on from position 10 of epoch 1");
    let process = stream.start(&live());
    wait_for_labels(&stream, &[(0..20, 1)]);
    process.stop();
    assert_eq!(show(&stream)["publisher"], "goes on from position 20 of epoch 1");
}

#[test]
fn a_group_that_was_deleted_is_no_loss_either() {
    let stream = with_an_outbox();
    block_on(broker::admin().delete_groups(&[&stream.topic], &broker::request_options())).unwrap().remove(0).unwrap();
    let process = stream.start(&live());
    wait_for_labels(&stream, &[(0..20, 1)]);
    process.stop();
}

#[test]
fn an_outbox_that_was_not_published_is_published_once_that_is_decided() {
    let (stream, process) = with_an_unknown_publication();
    set(&stream, "--published", "outbox").expect(0).prints("range(s) of the outbox are published, 0 count as");
    wait_for_labels(&stream, &[(10..20, 1)]);
    produce_documents(&stream.topic, 20..25);
    wait_for_labels(&stream, &[(10..25, 1)]);
    process.stop();
}

#[test]
fn an_outbox_that_was_published_is_not_published_again_once_that_is_decided() {
    let (stream, process) = with_an_unknown_publication();
    set(&stream, "--published", "stored").expect(0).prints(" 0 range(s) of the outbox are published, ");
    produce_documents(&stream.topic, 20..25);
    wait_for_labels(&stream, &[(20..25, 1)]);
    process.stop();
}

#[test]
fn an_outbox_that_was_published_in_part_goes_on_from_the_offset_that_is_decided() {
    let (stream, process) = with_an_unknown_publication();
    set(&stream, "--published", "9").expect(1).says("nothing to change").says("lies before 10, from where on");
    set(&stream, "--published", "21").expect(1).says("is not in its topic, which holds 0 to 20");
    set(&stream, "--published", "15").expect(0);
    wait_for_labels(&stream, &[(15..20, 1)]);
    process.stop();
}

/// Documents 0 to 20 are published, and the database was restored to a state with 10 of them; a worker has stored
/// the others again meanwhile, and another one has taken over. Nothing more is published.
fn restored() -> (Stream, Process) {
    let stream = Stream::new(1);
    produce_documents(&stream.topic, 0..20);
    stream.run_until_labelled(&live(), 20);
    wait_for_labels(&stream, &[(0..20, 1)]);
    stream.database.script(
        "DELETE FROM {s}.labels WHERE version[4] >= 10;
         DELETE FROM {s}.documents WHERE version[4] >= 10;
         UPDATE {s}.checkpoints SET position = 10;",
    );
    let first = stream.start(&live());
    first.wait_for_log("but stored only up to position 10 of epoch 1");
    stream.wait_for_labels(20);
    first.stop();
    let second = stream.start(&live());
    produce_documents(&stream.topic, 20..25);
    stream.wait_for_labels(25);
    second.wait_for_log("but stored only up to position 10 of epoch 1");
    let shown = show(&stream);
    assert_eq!(shown["decision_needed"], true, "{shown:#}");
    for choice in shown["choices"].as_array().unwrap() {
        second.wait_for_log(choice["command"].as_str().unwrap());
    }
    assert_eq!(labels(&stream), expected(&[(0..20, 1)]));
    (stream, second)
}

#[test]
fn after_a_restore_nothing_appears_twice_where_the_published_position_is_kept() {
    let (stream, process) = restored();
    set(&stream, "--published", "keep").expect(0);
    wait_for_labels(&stream, &[(0..25, 1)]);
    produce_documents(&stream.topic, 25..30);
    wait_for_labels(&stream, &[(0..30, 1)]);
    process.stop();
}

#[test]
fn after_a_restore_what_is_stored_again_is_published_again_where_that_is_decided() {
    let (stream, process) = restored();
    set(&stream, "--published", "stored").expect(0);
    wait_for_labels(&stream, &[(0..10, 1), (10..20, 2), (20..25, 1)]);
    process.stop();
}

#[test]
fn a_position_that_is_kept_before_anybody_runs_holds_until_the_store_has_caught_up() {
    let stream = Stream::new(1);
    produce_documents(&stream.topic, 0..20);
    stream.run_until_labelled(&live(), 20);
    wait_for_labels(&stream, &[(0..20, 1)]);
    stream.database.script(
        "DELETE FROM {s}.labels WHERE version[4] >= 10;
         DELETE FROM {s}.documents WHERE version[4] >= 10;
         UPDATE {s}.checkpoints SET position = 10;",
    );
    set(&stream, "--published", "keep").expect(0).prints("what is stored up to 20 is not published");
    assert_eq!(show(&stream)["group_offset"]["note"], r#"{"epoch":1,"confirmed":true}"#);
    produce_documents(&stream.topic, 20..25);
    let process = stream.start(&live());
    wait_for_labels(&stream, &[(0..25, 1)]);
    process.stop();
}

#[test]
fn an_idle_worker_reads_again_from_a_position_that_was_moved_back_and_stores_nothing_twice() {
    let stream = Stream::new(1);
    // Each later than the one before, so that what is read again would be newer if the clock went on.
    for index in 0..20 {
        produce_documents_at(&stream.topic, Utc::now() - TimeDelta::minutes(60 - index as i64), index..=index);
    }
    let process = stream.start(&live());
    wait_for_labels(&stream, &[(0..20, 1)]);
    let rows =
        || stream.database.texts("SELECT document_id || version::text || stored_at FROM {s}.documents ORDER BY 1");
    let before = rows();
    set(&stream, "--stored", "5").expect(0).prints("reads 15 record(s) again; what is stored already is not");
    eventually("it reads again", || {
        (process.metric("albertine_documents_inferred_total") as usize == 35).then_some(())
    });
    stream.wait_for_positions(20);
    assert_eq!(rows(), before);
    produce_documents(&stream.topic, 20..25);
    wait_for_labels(&stream, &[(0..25, 1)]);
    assert_eq!(show(&stream)["checkpoint"]["epoch"], 2);
    process.stop();
}

#[test]
fn what_is_skipped_is_never_read() {
    let stream = Stream::new(1);
    produce_documents(&stream.topic, 0..10);
    stream.run_until_labelled(&live(), 10);
    produce_documents_at(&stream.topic, Utc::now() + TimeDelta::seconds(1), 10..15);
    let time = Utc::now() + TimeDelta::minutes(1);
    produce_documents_at(&stream.topic, time, 15..20);
    set(&stream, "--stored", "21").expect(1).says("is not in its topic, which holds 0 to 20");
    set(&stream, "--stored", &time.to_rfc3339()).expect(0).prints("skips 5 record(s): they are never read");
    let process = stream.start(&live());
    wait_for_labels(&stream, &[(0..10, 1), (15..20, 1)]);
    process.stop();
    produce_documents(&stream.topic, 20..25);
    set(&stream, "--stored", "latest").expect(0).prints("skips 5 record(s)");
    set(&stream, "--stored", "earliest").expect(0).prints("reads 25 record(s) again");
}

#[test]
fn nothing_is_changed_unasked() {
    let stream = Stream::new(2);
    produce_documents(&stream.topic, 0..10);
    stream.run_until_labelled(&live(), 10);
    let before = stream.database.texts("SELECT checkpoints::text FROM {s}.checkpoints ORDER BY 1");
    let unasked = run(&stream, &["set", "reviews", "--all", "--stored", "earliest"]).expect(2);
    unasked.prints("PARTITION").says("nothing was changed: say `--yes`");
    run(&stream, &["set", "reviews", "--partition", "2", "--stored", "earliest", "--yes"])
        .expect(2)
        .says("stream `reviews` has no partition 2; there is: 0, 1");
    assert_eq!(stream.database.texts("SELECT checkpoints::text FROM {s}.checkpoints ORDER BY 1"), before);
    run(&stream, &["set", "reviews", "--partition", "1", "--stored", "earliest", "--yes"]).expect(0);
    assert_eq!(stream.database.texts("SELECT epoch::text FROM {s}.checkpoints ORDER BY partition"), ["1", "2"]);
}

#[test]
fn without_a_live_topic_there_is_nothing_published_to_set() {
    let stream = Stream::new(1);
    let mut command = stream.command(&Options::default());
    command.args(["position", "set", "reviews", "--all", "--published", "stored", "--yes"]);
    Answer::of(&mut command, "").expect(1).says("stream `reviews` has no live topic");
}

#[test]
fn a_stream_that_never_ran_is_shown_as_such() {
    let stream = Stream::new(1);
    run(&stream, &["show", "reviews"]).expect(0).prints("begins with the first claim").prints("never claimed");
    set(&stream, "--stored", "latest").expect(1).says("has no checkpoint: it was never claimed");
}
