//! `albertine check`: everything in order is said so, and everything that is not comes with its remedy.

use std::{fs, process::Command};

use rdkafka::admin::{NewTopic, TopicReplication};
use tempfile::TempDir;

use super::Answer;
use crate::support::{
    block_on,
    broker::{self, Topic, produce_documents, produce_to},
    environment,
    pipeline::{Options, Stream},
    repository, unique,
};

/// `check` on a pipeline in order, apart from what `change` does to its environment.
fn check(stream: &Stream, change: impl FnOnce(&mut Command)) -> Answer {
    let mut command = stream.command(&Options::default());
    command.arg("check");
    change(&mut command);
    Answer::of(&mut command, "")
}

/// One thing is wrong: it is said in a line of its own, with its remedy, and everything else is in order.
fn expect_only_failure(answer: Answer, what: &str, problem: &str, remedy: &str) {
    let answer = answer.expect(1).says("error: 1 check(s) failed\n");
    let is_in_order = |line: &&str| line.starts_with("ok      ") || line.starts_with("skipped ");
    let failed: Vec<&str> = answer.stdout.lines().filter(|line| !is_in_order(line)).collect();
    assert_eq!(failed.len(), 1, "one line a failure: {answer:#?}");
    assert!(failed[0].starts_with(&format!("failed  {what}: ")), "{answer:#?}");
    for part in [problem, remedy] {
        assert!(failed[0].contains(part), "`{}` does not say `{part}`", failed[0]);
    }
}

#[test]
fn everything_in_order_is_listed_and_ends_with_0() {
    let stream = Stream::new(3);
    produce_documents(&stream.topic, 1..8);
    let answer = check(&stream, |command| {
        command.env("ALBERTINE_STREAMS__reviews__LIVE__ENABLED", "true");
    })
    .expect(0);
    let expected = [
        "ok      configuration `".to_owned(),
        "ok      ONNX Runtime: ".into(),
        "ok      model `albert-sentiment`: version ".into(),
        "ok      Postgres: reachable".into(),
        format!("ok      schema `{}`: up to date", stream.database.schema),
        format!("ok      rights in schema `{}`: `albertine` reads, writes", stream.database.schema),
        "ok      commits: survive a crash of the server".into(),
        format!("ok      Kafka at `{}`: reachable by PLAINTEXT", environment("KAFKA_BOOTSTRAP_SERVERS")),
        "ok      Kafka user: none".into(),
        format!("ok      stream `reviews`: topic `{}` with 3 partition(s)", stream.topic),
        format!("ok      grants of `reviews`: Read on topic `{0}` and on group `{0}`", stream.topic),
        "ok      records of `reviews`: all of the 7 newest decode".into(),
        "ok      languages of `reviews`: en ".into(),
        format!("ok      live labels of `reviews`: topic `{}` (made at the first run)", stream.labels),
        format!("ok      transactions of `reviews`: begin, with transactional ids of `{}.`", stream.topic),
    ];
    let lines: Vec<&str> = answer.stdout.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{answer:#?}");
    for (line, expected) in lines.iter().zip(&expected) {
        assert!(line.starts_with(expected), "`{line}` does not begin with `{expected}`");
    }
    assert_eq!(answer.stderr, "");
}

#[test]
fn a_database_that_is_down() {
    let answer = check(&Stream::new(1), |command| {
        command.env("DATABASE_URL", "postgres://albertine@127.0.0.1:1/albertine");
    });
    expect_only_failure(
        answer,
        "Postgres",
        "cannot connect to Postgres at 127.0.0.1:1/albertine: ",
        "start it, or correct `postgres.url` or `DATABASE_URL`",
    );
}

#[test]
fn a_wrong_password() {
    let stream = Stream::new(1);
    let mut url = url::Url::parse(&stream.database.url).unwrap();
    url.set_password(Some("hunter2")).unwrap();
    let answer = check(&stream, |command| {
        command.env("DATABASE_URL", url.as_str());
    });
    expect_only_failure(
        answer,
        "Postgres",
        "password authentication failed",
        "correct the user and password in `postgres.url` or `DATABASE_URL`",
    );
}

#[test]
fn a_database_that_does_not_exist() {
    let stream = Stream::new(1);
    let mut url = url::Url::parse(&stream.database.url).unwrap();
    url.set_path("nowhere");
    let answer = check(&stream, |command| {
        command.env("DATABASE_URL", url.as_str());
    });
    expect_only_failure(answer, "Postgres", "database \"nowhere\" does not exist", "create the database");
}

#[test]
fn a_schema_that_was_not_migrated() {
    let schema = unique("empty");
    let answer = check(&Stream::new(1), |command| {
        command.env("ALBERTINE_POSTGRES__SCHEMA", &schema);
    });
    let what = format!("schema `{schema}`");
    expect_only_failure(answer, &what, "is not set up", "run `albertine database migrate`");
}

#[test]
fn a_schema_of_a_newer_program() {
    let stream = Stream::new(1);
    stream.database.rows(
        "INSERT INTO {s}._sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (999999, 'from the future', true, '', 0)",
    );
    let what = format!("schema `{}`", stream.database.schema);
    let answer = check(&stream, |_| ());
    expect_only_failure(answer, &what, "has migration 999999, which this program does not know", "upgrade this one");
}

#[test]
fn a_broker_that_is_down() {
    let answer = check(&Stream::new(1), |command| {
        command.env("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1");
    });
    // Whoever reads it has to see which address was tried, and where it is set.
    expect_only_failure(answer, "Kafka at `127.0.0.1:1`", "Connection refused", "`kafka.bootstrap_servers`");
}

#[test]
fn a_topic_that_is_missing() {
    let topic = unique("missing");
    let answer = check(&Stream::new(1), |command| {
        command.env("ALBERTINE_STREAMS__REVIEWS__TOPIC", &topic);
    });
    let problem = format!("topic `{topic}` does not exist");
    expect_only_failure(answer, "stream `reviews`", &problem, "create it, or correct `streams.reviews.topic`");
}

#[test]
fn checking_for_a_missing_topic_does_not_make_it() {
    let (stream, topic) = (Stream::new(1), unique("missing"));
    for _ in 0..2 {
        let answer = check(&stream, |command| {
            command.env("ALBERTINE_STREAMS__REVIEWS__TOPIC", &topic);
        });
        answer.expect(1).prints(&format!("topic `{topic}` does not exist"));
    }
}

#[test]
fn a_compacted_topic_whose_id_is_not_its_key() {
    let stream = Stream::new(1);
    let topic = Topic::unmade("compacted");
    let new = NewTopic::new(&topic, 1, TopicReplication::Fixed(1)).set("cleanup.policy", "compact");
    block_on(broker::admin().create_topics([&new], &broker::request_options())).unwrap().remove(0).unwrap();
    let mut command = stream.command(&Options::default());
    command.arg("check").env("ALBERTINE_STREAMS__REVIEWS__TOPIC", &*topic);
    expect_only_failure(
        Answer::of(&mut command, ""),
        "stream `reviews`",
        "is compacted, so records without a value delete documents, but the id comes from `/id`",
        "set `streams.reviews.fields.id` to `key`",
    );
    let mut keyed = stream.command(&Options { id: Some("key"), ..Options::default() });
    keyed.arg("check").env("ALBERTINE_STREAMS__REVIEWS__TOPIC", &*topic);
    Answer::of(&mut keyed, "").expect(0);
}

#[test]
fn a_model_folder_that_is_missing_or_damaged() {
    let stream = Stream::new(1);
    let with_folder = |folder: &str| {
        check(&stream, |command| {
            command.env("ALBERTINE_MODELS__ALBERT-SENTIMENT__PATH", folder);
        })
    };
    let model = "model `albert-sentiment`";
    expect_only_failure(with_folder("nowhere"), model, "model folder `nowhere`: ", "cannot read `model.toml`");

    let copy = TempDir::new().unwrap();
    for entry in fs::read_dir(repository("models/albert-sentiment")).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    fs::write(copy.path().join("head.onnx"), "damaged").unwrap();
    let folder = copy.path().to_str().unwrap();
    expect_only_failure(with_folder(folder), model, "`head.onnx` has SHA-256 `", "restore the folder");

    // The hashes are right, the labels are not those of the graph: only running it shows that.
    fs::copy(repository("models/albert-sentiment/head.onnx"), copy.path().join("head.onnx")).unwrap();
    let manifest = fs::read_to_string(copy.path().join("model.toml")).unwrap();
    let mut manifest: toml::Table = manifest.parse().unwrap();
    manifest.insert("labels".into(), vec!["bad", "good"].into());
    fs::write(copy.path().join("model.toml"), manifest.to_string()).unwrap();
    expect_only_failure(with_folder(folder), model, "shape", "the labels in `model.toml` do not fit the graph");
}

#[test]
fn a_runtime_that_is_missing_or_is_none() {
    let stream = Stream::new(1);
    let file = TempDir::new().unwrap();
    let text = super::write(file.path(), "libonnxruntime.so", "not a library");
    for (library, problem) in [("nowhere.so", "there is no such file"), (text.to_str().unwrap(), "cannot load")] {
        let answer = check(&stream, |command| {
            command.env("ORT_DYLIB_PATH", library);
        });
        let remedy = "set `engine.onnxruntime_library` or `ORT_DYLIB_PATH` to a libonnxruntime.so";
        assert!(
            answer.stdout.contains("not run, for want of ONNX Runtime"),
            "the folder is still checked: {answer:#?}"
        );
        expect_only_failure(answer, "ONNX Runtime", problem, remedy);
    }
    let answer = check(&stream, |command| {
        command.env_remove("ORT_DYLIB_PATH");
    });
    expect_only_failure(answer, "ONNX Runtime", "where is ONNX Runtime?", "`ORT_DYLIB_PATH`");
}

#[test]
fn a_runtime_that_cannot_compute_on_what_is_configured() {
    let answer = check(&Stream::new(1), |command| {
        command.env("ALBERTINE_ENGINE__EXECUTION_PROVIDER", "cuda");
    });
    assert!(answer.stdout.contains("not run, for want of ONNX Runtime"), "the folder is still checked: {answer:#?}");
    let remedy = "or set `engine.execution_provider = \"cpu\"`";
    expect_only_failure(answer, "ONNX Runtime", "cannot compute on `cuda:0` with the ONNX Runtime in", remedy);
}

#[test]
fn every_failure_is_found_in_one_go() {
    let answer = check(&Stream::new(1), |command| {
        command
            .env("ORT_DYLIB_PATH", "nowhere.so")
            .env("ALBERTINE_MODELS__ALBERT-SENTIMENT__PATH", "nowhere")
            .env("ALBERTINE_POSTGRES__SCHEMA", unique("empty"))
            .env("ALBERTINE_STREAMS__REVIEWS__TOPIC", unique("missing"));
    });
    let answer = answer.expect(1).says("error: 4 check(s) failed\n");
    assert_eq!(answer.stdout.lines().filter(|line| line.starts_with("failed  ")).count(), 4, "{answer:#?}");
}

#[test]
fn records_that_the_mapping_cannot_read_are_told_with_their_places() {
    let stream = Stream::new(1);
    let record = |value: &str| produce_to(&stream.topic, 0, None, Some(value.as_bytes()));
    record(r#"{"id": "a", "text": "Good.", "rating": "many"}"#);
    record("not json");
    let what = "records of `reviews`";
    let none = "none of the 2 newest decodes: partition 0 offset 0: ";
    expect_only_failure(check(&stream, |_| ()), what, none, "the rating at `/rating` must be a number");
    expect_only_failure(check(&stream, |_| ()), what, "partition 0 offset 1: ", "correct `streams.reviews.fields`");
    record(r#"{"id": "a", "text": "Der Wasserkocher kam an und funktioniert genau so, wie es beschrieben ist."}"#);
    check(&stream, |_| ())
        .expect(0)
        .prints("ok      records of `reviews`: 1 of the 3 newest decode; the others would be rejected: partition 0 offset 0: ")
        .prints("ok      languages of `reviews`: de 1; `albert-sentiment` was trained for en: 1 record(s) in other languages are labelled all the same");
}

#[test]
fn what_an_earlier_failure_leaves_unchecked_is_said_to_be_skipped() {
    let answer = check(&Stream::new(1), |command| {
        command
            .env("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
            .env("DATABASE_URL", "postgres://albertine@127.0.0.1:1/albertine");
    });
    let answer = answer.expect(1).says("error: 2 check(s) failed\n");
    for skipped in [
        "skipped commits: there is no connection to Postgres",
        "skipped Kafka user: there is no connection to Kafka",
        "skipped stream `reviews`: there is no connection to Kafka",
    ] {
        assert!(answer.stdout.lines().any(|line| line == skipped), "no line `{skipped}`: {answer:#?}");
    }
    let topic = unique("missing");
    let answer = check(&Stream::new(1), |command| {
        command.env("ALBERTINE_STREAMS__REVIEWS__TOPIC", &topic);
    });
    answer.prints("skipped grants of `reviews`: ").prints("skipped records of `reviews`: the topic cannot be read");
    check(&Stream::new(1), |_| ()).expect(0).prints("skipped records of `reviews`: the topic holds none yet");
}
