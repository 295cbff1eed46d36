//! `albertine verify`: in order after a run and while one goes on; each kind of deviation, planted, is found by its
//! name and place; the sums can be rebuilt.

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
};
use serde_json::Value;

use super::Answer;
use crate::support::{
    block_on,
    broker::{self, produce_documents},
    eventually,
    pipeline::{Options, Stream},
};

/// A stream with a live topic.
fn live() -> Options {
    Options { live: true, ..Options::default() }
}

fn verify(stream: &Stream, arguments: &[&str]) -> Answer {
    Answer::of(stream.command(&live()).arg("verify").args(arguments), "")
}

/// Twenty documents, stored and published; nobody runs any more.
fn after_a_run() -> Stream {
    let stream = Stream::new(1);
    produce_documents(&stream.topic, 0..20);
    stream.run_until_labelled(&live(), 20);
    verify(&stream, &[]).expect(0);
    eventually("the group has no members", || broker::group_is_empty(&stream.topic).then_some(()));
    stream
}

/// Fails unless exactly this check fails, with a deviation that holds each of the texts.
fn assert_found(stream: &Stream, check: &str, texts: &[&str]) {
    let answer = verify(stream, &["--format", "json"]).expect(1);
    let found: Value = serde_json::from_str(&answer.stdout).unwrap();
    let failed: Vec<&Value> = found["checks"].as_array().unwrap().iter().filter(|check| check["ok"] == false).collect();
    assert_eq!(failed.iter().map(|failed| &failed["name"]).collect::<Vec<_>>(), [check], "{found:#}");
    let examples = failed[0]["examples"].to_string();
    for text in texts {
        assert!(examples.contains(text), "no deviation says `{text}`: {found:#}");
    }
}

/// Plants something, looks, and takes it away again.
fn assert_plant_found(stream: &Stream, plant: &str, check: &str, texts: &[&str]) {
    let tables = ["documents", "labels", "outbox", "checkpoints", "item_sums", "item_deltas"];
    let each = |statement: &str| tables.map(|table| statement.replace("{t}", table)).join(";");
    stream.database.script(&each("CREATE TABLE {s}.{t}_before AS TABLE {s}.{t}"));
    stream.database.script(plant);
    assert_found(stream, check, texts);
    stream
        .database
        .script(&each("TRUNCATE {s}.{t}; INSERT INTO {s}.{t} TABLE {s}.{t}_before; DROP TABLE {s}.{t}_before"));
}

#[test]
fn all_is_in_order_after_a_run_and_while_one_goes_on() {
    let stream = Stream::new(2);
    produce_documents(&stream.topic, 0..200);
    let process = stream.start_working(&Options { stream: "batch_documents_max = 5".into(), ..live() });
    while stream.database.current_labels() < 200 {
        verify(&stream, &[]).expect(0);
    }
    process.stop();
    let answer = verify(&stream, &["reviews"]).expect(0);
    let names: Vec<&str> = answer.stdout.lines().map(|line| &line[..line.find(':').unwrap()]).collect();
    let expected = ["sums", "labels", "outbox", "checkpoints", "publication"];
    assert_eq!(names, expected.map(|name| format!("ok      {name}")), "{answer:#?}");
}

#[test]
fn sums_that_differ_from_a_recount_are_found_and_rebuilt() {
    let stream = after_a_run();
    for plant in [
        "UPDATE {s}.item_sums SET documents = documents + 1 WHERE item = 'item-3'",
        "DELETE FROM {s}.item_sums WHERE item = 'item-3'; DELETE FROM {s}.item_deltas WHERE item = 'item-3'",
        "INSERT INTO {s}.item_deltas VALUES ('reviews', 'item-3', 'sentiment', 'albert-sentiment', 'positive', 0, 7)",
        "INSERT INTO {s}.item_sums VALUES ('reviews', 'item-3', 'sentiment', 'another', 'positive', 1, 7)",
    ] {
        // All sums are folded first, so that each statement finds what it changes.
        verify(&stream, &["--repair"]).expect(0);
        stream.database.script("INSERT INTO {s}.item_deltas VALUES ('reviews', 'x', 'sentiment', 'm', 'l', 1, 1)");
        verify(&stream, &["--repair"]).expect(0).prints("repaired  sums: ").prints("ok      sums: ");
        stream.database.script(plant);
        assert_found(&stream, "sums", &["stream `reviews`, item `item-3`"]);
        verify(&stream, &["reviews", "--repair"]).expect(0).prints("repaired  sums: ");
        verify(&stream, &[]).expect(0);
    }
}

#[test]
fn sums_are_rebuilt_while_batches_are_stored() {
    let stream = Stream::new(2);
    produce_documents(&stream.topic, 0..200);
    let process = stream.start_working(&Options { stream: "batch_documents_max = 5".into(), ..live() });
    let mut rebuilt = 0;
    while stream.database.current_labels() < 200 {
        stream.database.script("INSERT INTO {s}.item_deltas VALUES ('reviews', 'x', 'sentiment', 'm', 'l', 1, 1)");
        verify(&stream, &["--repair"]).expect(0).prints("repaired  sums: ");
        rebuilt += 1;
    }
    assert!(rebuilt > 0, "all was stored before the first repair");
    process.stop();
    verify(&stream, &[]).expect(0);
}

#[test]
fn labels_that_do_not_fit_their_documents_are_found() {
    let stream = after_a_run();
    let find = |plant: &str, texts: &[&str]| assert_plant_found(&stream, plant, "labels", texts);
    // Not on items, whose sums would differ too.
    stream.database.script("UPDATE {s}.documents SET item = NULL");
    verify(&stream, &["--repair"]).expect(0);
    find(
        "DELETE FROM {s}.documents WHERE document_id = 'd7'",
        &["`d7`: the label of model `albert-sentiment` has no document"],
    );
    find("DELETE FROM {s}.labels WHERE document_id = 'd7'", &["`d7`: has no label of its version"]);
    find("UPDATE {s}.documents SET deleted = true WHERE document_id = 'd7'", &["`d7`: is deleted, and has a label"]);
    find(
        "UPDATE {s}.labels SET version[2] = version[2] + 1 WHERE document_id = 'd7'",
        &["`d7`: the label of model", "is newer"],
    );
    find(
        "UPDATE {s}.labels SET version[2] = version[2] - 1 WHERE document_id = 'd7'",
        &["`d7`: has no label of its version"],
    );
    find("UPDATE {s}.labels SET model_version = 'x' WHERE document_id = 'd7'", &["version `x` is not registered"]);
    find(
        "UPDATE {s}.labels SET probabilities = '{1}' WHERE document_id = 'd7'",
        &["has 1 probabilities for 3 classes"],
    );
    find(
        "UPDATE {s}.documents SET version[4] = 99 WHERE document_id = 'd7'; UPDATE {s}.labels SET version[4] = 99 WHERE document_id = 'd7'",
        &["`d7`: its version {1,", "lies beyond what the checkpoint says"],
    );
    find("DELETE FROM {s}.labels", &["`d0`: has no label"]);
    verify(&stream, &[]).expect(0);
}

#[test]
fn at_most_twenty_deviations_of_a_check_are_named() {
    let stream = Stream::new(1);
    produce_documents(&stream.topic, 0..30);
    stream.run_until_labelled(&live(), 30);
    stream.database.script("UPDATE {s}.documents SET item = NULL; DELETE FROM {s}.labels; DELETE FROM {s}.item_sums; DELETE FROM {s}.item_deltas");
    let answer = verify(&stream, &[]).expect(1).prints("failed  labels: 30 deviation(s)").prints("        and 10 more");
    assert_eq!(answer.stdout.matches("has no label").count(), 20, "{answer:#?}");
    answer.says("error: 1 check(s) found deviations\n");
}

#[test]
fn ranges_of_the_outbox_that_do_not_fit_are_found() {
    let stream = after_a_run();
    let range = |epoch: i64, start: i64, end: i64, offsets: &str| {
        format!(
            "INSERT INTO {{s}}.outbox SELECT 'reviews', topic, 0, {epoch}, {start}, {end}, '{offsets}', '{{f}}', '{{k}}', '{{v}}', '{{[]}}', 2
             FROM {{s}}.checkpoints;"
        )
    };
    let find = |plant: &str, texts: &[&str]| assert_plant_found(&stream, plant, "outbox", texts);
    stream.database.script("DELETE FROM {s}.outbox");
    let (first, last) = (range(1, 8, 12, "{10}"), range(1, 14, 20, "{15}"));
    find(&format!("{first}{last}"), &["partition 0, epoch 1: offsets 12 to 14 are missing between two ranges"]);
    find(
        &format!("{}{}", range(1, 8, 16, "{10}"), last),
        &["the range from 14 overlaps the one before it, which ends at 16"],
    );
    find(&range(1, 18, 21, "{18}"), &["the range from 18 to 21 lies beyond the checkpoint at 20 of epoch 1"]);
    find(&range(2, 18, 20, "{18}"), &["epoch 2: the range from 18 to 20 lies beyond the checkpoint at 20 of epoch 1"]);
    find(&range(1, 18, 20, "{20}"), &["the range from 18 to 20 holds records of other offsets"]);
    find(&range(1, 18, 20, "{18,19}"), &["the columns of the range from 18 differ in length"]);
    verify(&stream, &[]).expect(0);
}

#[test]
fn a_checkpoint_that_does_not_fit_its_topic_is_found() {
    let stream = after_a_run();
    let find = |plant: &str, texts: &[&str]| assert_plant_found(&stream, plant, "checkpoints", texts);
    find("UPDATE {s}.checkpoints SET topic_id = 'another'", &["the checkpoint belongs to the topic of id another"]);
    // A new epoch, so that only the topic is compared.
    find(
        "UPDATE {s}.checkpoints SET position = 21, epoch = 2",
        &["the checkpoint stands at 21, and the topic holds 0 to 20"],
    );
    find(
        "INSERT INTO {s}.checkpoints (stream, topic, partition, position) SELECT stream, topic, 7, 0 FROM {s}.checkpoints",
        &["partition 7: the topic has no such partition"],
    );
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&stream.topic, 0, Offset::Offset(10)).unwrap();
    block_on(broker::admin().delete_records(&offsets, &broker::request_options())).unwrap();
    find(
        "UPDATE {s}.checkpoints SET position = 5, epoch = 2",
        &["the checkpoint stands at 5, and the topic holds 10 to 20"],
    );
    verify(&stream, &[]).expect(0);
}

/// Commits an offset as albertine notes it.
fn commit(stream: &Stream, offset: i64, note: &str) {
    let consumer: BaseConsumer = broker::config().set("group.id", &*stream.topic).create().unwrap();
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&stream.topic, 0, Offset::Offset(offset)).unwrap();
    offsets.find_partition(&stream.topic, 0).unwrap().set_metadata(note);
    consumer.commit(&offsets, CommitMode::Sync).unwrap();
}

#[test]
fn what_is_published_and_does_not_fit_what_is_stored_is_found() {
    let stream = after_a_run();
    commit(&stream, 15, r#"{"epoch":1}"#);
    assert_found(
        &stream,
        "publication",
        &["offsets 15 to 20 of epoch 1 are stored, but neither published nor in the outbox"],
    );
    commit(&stream, 21, r#"{"epoch":1}"#);
    let decide = format!(
        "published up to position 21 of epoch 1, but stored only up to position 20 of epoch 1: decide `{}`",
        "albertine position set reviews --partition 0 --published keep"
    );
    assert_found(&stream, "publication", &[&decide]);
    commit(&stream, 21, r#"{"epoch":1,"confirmed":true}"#);
    verify(&stream, &[]).expect(0);
    // With nothing in the outbox, it does not matter who committed what.
    commit(&stream, 3, "");
    verify(&stream, &[]).expect(0);
}

#[test]
fn servers_that_are_away_are_named() {
    let stream = Stream::new(1);
    let mut command = stream.command(&live());
    Answer::of(command.arg("verify").env("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1"), "")
        .expect(1)
        .says("cannot ask the brokers at `127.0.0.1:1`");
    verify(&stream, &["--timeout", "soon"]).expect(2).says("--timeout");
    verify(&stream, &["nothing"]).expect(2).says("no stream `nothing` is configured");
}
