//! `albertine status`: how far each partition is stored and published, whoever runs meanwhile.

use serde_json::Value;

use super::{Answer, Setup, with_servers};
use crate::support::{
    broker::produce_documents,
    eventually,
    pipeline::{Options, Stream},
};

/// A stream with a live topic.
fn live() -> Options {
    Options { live: true, ..Options::default() }
}

fn status(stream: &Stream, options: &Options) -> Value {
    let answer = Answer::of(stream.command(options).args(["status", "--format", "json"]), "").expect(0);
    serde_json::from_str(&answer.stdout).unwrap()
}

/// The field of each partition.
fn each<'a>(status: &'a Value, field: &str) -> Vec<&'a Value> {
    status["streams"][0]["partitions"].as_array().unwrap().iter().map(|partition| &partition[field]).collect()
}

fn lags(status: &Value) -> (u64, u64) {
    let total = |name: &str| status["totals"][name].as_u64().unwrap();
    (total("lag_stored"), total("lag_published"))
}

#[test]
fn a_running_stream_reaches_lag_0_and_what_comes_after_its_end_is_lag() {
    let stream = Stream::new(2);
    produce_documents(&stream.topic, 0..40);
    let process = stream.start(&live());
    let status_then = eventually("everything is stored and published", || {
        let status = status(&stream, &live());
        (lags(&status) == (0, 0) && stream.database.current_labels() == 40).then_some(status)
    });
    assert_eq!(each(&status_then, "claimed"), [true, true]);
    assert_eq!(each(&status_then, "stored"), each(&status_then, "end"));
    assert_eq!(each(&status_then, "published"), each(&status_then, "end"));
    assert_eq!(status_then["streams"][0]["workers"], 1);
    assert_eq!(each(&status_then, "notes"), [&serde_json::json!([]), &serde_json::json!([])]);
    // Looking has taken nothing from the worker.
    produce_documents(&stream.topic, 40..50);
    stream.wait_for_labels(50);
    assert!(!process.log().contains("publishing failed"), "looking fenced the publisher:\n{}", process.log());
    assert!(!process.log().contains("handed back"), "looking began a rebalance:\n{}", process.log());
    process.stop();
    produce_documents(&stream.topic, 50..57);
    let status = status(&stream, &live());
    assert_eq!(lags(&status), (7, 7));
    assert_eq!(status["streams"][0]["workers"], 0);
    assert_eq!(
        each(&status, "notes"),
        [&serde_json::json!(["no worker runs"]), &serde_json::json!(["no worker runs"])]
    );
}

#[test]
fn what_is_stored_and_not_published_is_counted_with_its_size_and_age() {
    let stream = Stream::new(1);
    produce_documents(&stream.topic, 0..10);
    // The broker takes no transaction meanwhile.
    let process = stream.start(&Options { failpoints: "before-begin=sleep(600000)".into(), ..live() });
    stream.wait_for_labels(10);
    let now = status(&stream, &live());
    assert_eq!(lags(&now), (0, 10));
    assert_eq!(each(&now, "notes"), [&serde_json::json!(["no published offset yet"])]);
    assert!(now["totals"]["unpublished_bytes"].as_u64().unwrap() > 100, "{now:#}");
    assert!(now["totals"]["oldest_unpublished_at"].is_string(), "{now:#}");
    process.kill();
}

#[test]
fn the_table_has_a_line_for_each_partition_and_the_totals() {
    let stream = Stream::new(2);
    produce_documents(&stream.topic, 0..5);
    let answer = Answer::of(stream.command(&live()).arg("status"), "").expect(0);
    let lines: Vec<&str> = answer.stdout.lines().collect();
    assert_eq!(lines.len(), 4, "{answer:#?}");
    assert!(lines[0].trim_start().starts_with("STREAM") && lines[0].ends_with("NOTE"), "{answer:#?}");
    assert!(lines[1].trim_start().starts_with("reviews"), "{answer:#?}");
    assert!(lines[2].ends_with("never claimed, no worker runs"), "{answer:#?}");
    assert!(
        lines[3].starts_with("2 partition(s): 0 record(s) to store, 0 to publish, 0 B unpublished; 2 "),
        "{answer:#?}"
    );
}

#[test]
fn without_a_live_topic_nothing_is_said_of_publishing() {
    let stream = Stream::new(1);
    produce_documents(&stream.topic, 0..5);
    stream.run_until_labelled(&Options::default(), 5);
    let status = status(&stream, &Options::default());
    assert_eq!(each(&status, "notes"), [&serde_json::json!(["live topic off", "no worker runs"])]);
    assert_eq!(each(&status, "published"), [&Value::Null]);
    assert_eq!(status["totals"]["partitions_not_counted"], 0);
}

#[test]
fn servers_that_are_away_are_named_with_the_remedy() {
    let setup = Setup::new();
    setup.run(["status"], "").expect(1).says("error: cannot connect to Postgres at 127.0.0.1:1/nobody: ");
    let stream = Stream::new(1);
    let answer = Answer::of(stream.command(&live()).arg("status").env("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1"), "");
    answer.expect(1).says("error: stream `reviews`: cannot ask the brokers at `127.0.0.1:1` about topic");
    let unmade = Answer::of(with_servers(&mut setup.command(["status"])), "");
    unmade.expect(1).says("run `albertine database migrate`");
}

#[test]
fn a_topic_that_is_missing_is_a_line_and_no_failure() {
    let stream = Stream::new(1);
    let mut command = stream.command(&live());
    command.arg("status").env("ALBERTINE_STREAMS__REVIEWS__TOPIC", "nowhere_at_all");
    Answer::of(&mut command, "").expect(0).prints("stream `reviews`: topic `nowhere_at_all` does not exist\n");
}
