//! `albertine stream tail`: exactly what `read_committed` subscribers see, for people and for programs.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{Arc, mpsc},
    time::Duration,
};

use albertine::{
    domain::{
        checkpoint::PartitionKey,
        document::{Attributes, Finished, Outcome, SourceRecord},
        label::Label,
        live::{Destination, HeaderValue, LiveFormat, LiveRecord},
        rejection::{Rejection, Stage},
        version::Version,
    },
    kafka::subscribe::{Next, Since, Subscription, Until},
};
use chrono::{DateTime, Utc};
use rdkafka::{
    ClientConfig,
    admin::NewPartitions,
    consumer::{BaseConsumer, Consumer},
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
};
use serde_json::{Value, json};

use super::{Answer, Setup, unread};
use crate::support::{
    DEADLINE, block_on,
    broker::{self, Topic},
    environment, eventually,
    pipeline::{Options, Stream},
    repository,
};

const TAIL: [&str; 3] = ["stream", "tail", "reviews"];
/// All there is, and no more.
const ALL: [&str; 3] = ["--since", "beginning", "--no-follow"];
const ALL_AS_JSON: [&str; 5] = ["--since", "beginning", "--no-follow", "--format", "json"];

fn options() -> Options {
    Options { live: true, id: Some("key"), ..Options::default() }
}

/// A stream whose live topics were made by hand, so that the test decides what they hold.
struct Live {
    stream: Stream,
    /// Of the labels.
    partitions: i32,
    labels: Topic,
    dead_letters: Topic,
}

impl Live {
    fn new(partitions: i32) -> Self {
        Self {
            stream: Stream::new(1),
            partitions,
            labels: Topic::new("labels", partitions),
            dead_letters: Topic::new("dead_letters", 1),
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.stream.command(&options());
        command
            .args(TAIL)
            .args(arguments)
            .env("ALBERTINE_STREAMS__REVIEWS__LIVE__TOPIC", &*self.labels)
            .env("ALBERTINE_STREAMS__REVIEWS__LIVE__DEAD_LETTERS", &*self.dead_letters);
        command
    }

    fn tail(&self, arguments: &[&str]) -> Answer {
        Answer::of(&mut self.command(arguments), "")
    }

    fn lines(&self, arguments: &[&str]) -> Vec<String> {
        let answer = self.tail(arguments).expect(0);
        assert_eq!(answer.stderr, "", "nothing went wrong, so nothing is said");
        answer.stdout.lines().map(str::to_owned).collect()
    }

    /// Puts records on the live topics in one transaction.
    fn publish(&self, records: &[LiveRecord]) {
        let producer = self.begin(records);
        producer.commit_transaction(DEADLINE).unwrap();
        broker::wait_for_markers(&self.labels, self.partitions);
        broker::wait_for_markers(&self.dead_letters, 1);
    }

    /// Leaves the transaction open.
    fn begin(&self, records: &[LiveRecord]) -> BaseProducer {
        let producer = broker::begin_transaction();
        for record in records {
            let headers = record.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
                let HeaderValue::Text(text) = value else { panic!("the header `{key}` is no text") };
                headers.insert(Header { key, value: Some(text) })
            });
            let topic = if record.destination == Destination::Labels { &self.labels } else { &self.dead_letters };
            let mut outgoing = BaseRecord::<[u8], [u8]>::to(topic).headers(headers);
            outgoing.key = record.key.as_deref();
            outgoing.payload = record.value.as_deref();
            producer.send(outgoing).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(DEADLINE).unwrap();
        producer
    }
}

fn format() -> LiveFormat {
    LiveFormat { models: vec![("sentiment".into(), "small".into(), "1".into())], dead_letters: true }
}

/// The live records of a source record with this outcome, as the program makes them.
fn records(offset: i64, outcome: Outcome) -> Vec<LiveRecord> {
    let source = SourceRecord { key: Some(b"k".into()), value: Some(b"{not\n json".into()), headers: Vec::new() };
    let finished = Finished {
        offset,
        version: Version { generation: 1, timestamp_ms: 0, partition: 7, offset },
        produced_at: None,
        labelled_at: DateTime::UNIX_EPOCH,
        bytes: 0,
        trace: None,
        place: None,
        record: Some(Arc::new(source)),
        outcome,
    };
    let key = PartitionKey { stream: "reviews".into(), topic: "source".into(), partition: 7 };
    format().records(&key, 0, &finished)
}

fn labelled(id: &str, label: &str, item: Option<&str>) -> LiveRecord {
    let attributes = Attributes { id: id.into(), item: item.map(str::to_owned), ..Attributes::default() };
    let label = Label {
        task: "sentiment".into(),
        model: "small".into(),
        model_version: "1".into(),
        label: label.into(),
        confidence: 0.75,
        classes: ["negative".into(), "positive".into()].into(),
        probabilities: vec![0.25, 0.75],
        depth: 1,
    };
    records(5, Outcome::Labelled { attributes, labels: vec![label] }).remove(0)
}

fn deleted(id: &str) -> LiveRecord {
    records(6, Outcome::Deleted { id: id.into() }).remove(0)
}

fn parsed(lines: &[String]) -> Vec<Value> {
    lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
}

/// The values of a field, sorted: partitions come in any order.
fn field(lines: &[String], name: &str) -> Vec<String> {
    let mut found: Vec<String> =
        parsed(lines).iter().map(|line| line[name].as_str().unwrap_or("-").to_owned()).collect();
    found.sort();
    found
}

/// A running `tail` whose lines are read as they come.
struct Following {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Following {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // Whoever drops the receiver has read enough: then the pipe is closed too.
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(DEADLINE).expect("a line")
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_streams_labels_deletions_and_dead_letters_are_shown_as_it_publishes_them() {
    let stream = Stream::new(2);
    let put = |partition, key: &str, value: Option<&str>| {
        broker::produce_to(&stream.topic, partition, Some(key.as_bytes()), value.map(str::as_bytes));
    };
    put(0, "d1", Some(r#"{"text": "A good kettle", "item": "kettle", "rating": 4}"#));
    put(1, "d2", Some(r#"{"text": "A bad lid"}"#));
    put(0, "d3", None);
    put(1, "d4", Some("{not json"));
    let instant = |command: &mut Command, arguments: &[&str]| {
        Answer::of(command.args(TAIL).args(arguments), "").expect(0).stdout.lines().map(str::to_owned).collect()
    };
    let options = Options {
        extra: format!("[models.instant]\npath = \"{}\"", repository("tests/fixtures/instant-model").display()),
        ..options()
    };
    let mut process = stream.command(&options);
    process.arg("run").env("ALBERTINE_STREAMS__REVIEWS__MODELS", "[\"instant\"]");
    let mut running = process.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    stream.wait_for_positions(4);
    let stopped = Command::new("kill").arg(running.id().to_string()).status().unwrap();
    assert!(stopped.success() && running.wait().unwrap().success());

    let lines: Vec<String> = instant(&mut stream.command(&options), &ALL_AS_JSON);
    assert_eq!(field(&lines, "document_id"), ["d1", "d2", "d3"]);
    for line in parsed(&lines) {
        assert_eq!((&line["model"], &line["task"]), (&json!("instant"), &json!("sentiment")), "{line}");
        match line["document_id"].as_str().unwrap() {
            "d1" => assert_eq!((&line["label"], &line["rating"]), (&json!("positive"), &json!(4.0)), "{line}"),
            "d2" => assert_eq!(line["label"], "negative", "{line}"),
            _ => assert_eq!((&line["deleted"], &line["key"]), (&json!(true), &json!("d3/sentiment/instant")), "{line}"),
        }
    }
    let arguments = [&ALL_AS_JSON[..], &["--dead-letters"]].concat();
    let lines: Vec<String> = instant(&mut stream.command(&options), &arguments);
    assert_eq!(field(&lines, "reason"), ["json_invalid"]);
    let _made_by_the_program = [".labels", ".dead-letters"].map(|end| Topic::named(format!("{}{end}", stream.topic)));
}

#[test]
fn a_label_is_its_records_value_and_other_records_are_told_apart() {
    let live = Live::new(1);
    let label = labelled("d/1", "positive", Some("kettle"));
    live.publish(&[label.clone(), deleted("d/1")]);
    broker::produce_to(&live.labels, 0, Some(b"k"), Some(b"\xff\n"));
    let lines = live.lines(&ALL_AS_JSON);
    assert_eq!(lines.len(), 3, "{lines:#?}");
    assert_eq!(lines[0].as_bytes(), label.value.unwrap());
    let rest = parsed(&lines[1..]);
    let deletion = json!({
        "key": "d/1/sentiment/small", "deleted": true, "document_id": "d/1", "task": "sentiment", "model": "small",
        "model_version": "1", "stream": "reviews", "source_topic": "source", "source_partition": 7, "source_offset": 6,
    });
    assert_eq!(rest[0], deletion);
    // After the two records stands the marker of their transaction.
    let unknown =
        json!({"key": "k", "problem": "has no header `schema`", "value": {"hex": "ff0a"}, "partition": 0, "offset": 3});
    assert_eq!(rest[1], unknown);
}

#[test]
fn the_table_has_a_line_a_record_that_cannot_steer_a_terminal() {
    let live = Live::new(1);
    let long = "x".repeat(500);
    live.publish(&[
        labelled("d\u{1b}[31m1\n", "positive", Some("ke\u{9b}ttle\r")),
        labelled(&long, "negative", None),
        deleted("d\u{7}2"),
    ]);
    broker::produce_to(&live.labels, 0, Some(b"\x1b[2J"), Some(b"\x1b[2J"));
    let answer = live.tail(&ALL).expect(0);
    let lines: Vec<&str> = answer.stdout.lines().collect();
    assert_eq!(lines.len(), 4, "{answer:#?}");
    assert!(!answer.stdout.chars().any(|character| character.is_control() && character != '\n'), "{answer:#?}");
    let ends = [
        "  positive   0.75  d [31m1   item ke ttle   sentiment/small".to_owned(),
        format!("  negative   0.75  {}…  sentiment/small", "x".repeat(70)),
        "  deleted          d 2  sentiment/small".to_owned(),
        "  unknown           [2J  partition 0 offset 4  has no header `schema`".to_owned(),
    ];
    for (line, end) in lines.iter().zip(ends) {
        assert!(line.starts_with("20") && line.ends_with(&end), "`{line}` does not end with `{end}`");
    }
    let json = live.lines(&ALL_AS_JSON);
    assert!(!json.concat().chars().any(char::is_control), "{json:#?}");
    assert_eq!(parsed(&json)[0]["document_id"], "d\u{1b}[31m1\n");
}

#[test]
fn filters_leave_out_what_they_do_not_name() {
    let live = Live::new(3);
    live.publish(&[
        labelled("d1", "positive", Some("kettle")),
        labelled("d2", "negative", Some("kettle")),
        labelled("d3", "negative", Some("lid")),
        labelled("d4", "neutral", None),
        deleted("d5"),
    ]);
    broker::produce_to(&live.labels, 0, Some(b"k"), Some(b"unknown"));
    let cases: [(&[&str], &[&str]); 6] = [
        (&[], &["-", "d1", "d2", "d3", "d4", "d5"]),
        (&["--label", "negative"], &["d2", "d3"]),
        (&["--label", "negative", "--label", "neutral"], &["d2", "d3", "d4"]),
        (&["--item", "kettle", "--label", "negative"], &["d2"]),
        (&["--task", "sentiment"], &["d1", "d2", "d3", "d4", "d5"]),
        (&["--task", "topic"], &[]),
    ];
    for (filter, expected) in cases {
        let lines = live.lines(&[&ALL_AS_JSON[..], filter].concat());
        assert_eq!(field(&lines, "document_id"), expected, "{filter:?}");
    }
}

#[test]
fn only_what_is_committed_is_shown() {
    let live = Live::new(1);
    live.publish(&[labelled("before", "positive", None)]);
    live.begin(&[labelled("aborted", "positive", None)]).abort_transaction(DEADLINE).unwrap();
    live.publish(&[labelled("after", "positive", None)]);
    let open = live.begin(&[labelled("open", "positive", None)]);
    assert_eq!(field(&live.lines(&ALL_AS_JSON), "document_id"), ["after", "before"]);
    open.commit_transaction(DEADLINE).unwrap();
    broker::wait_for_markers(&live.labels, live.partitions);
    assert_eq!(field(&live.lines(&ALL_AS_JSON), "document_id"), ["after", "before", "open"]);
}

#[test]
fn from_now_on_is_what_subscribers_are_given_from_now_on() {
    let live = Live::new(2);
    live.publish(&[labelled("old", "positive", None)]);
    let following = Following::start(live.command(&["--format", "json"]));
    // When it has begun cannot be told from outside: so it goes on until something is shown.
    let line = (0..)
        .find_map(|index| {
            live.publish(&[labelled(&format!("new{index}"), "positive", None)]);
            following.lines.recv_timeout(Duration::from_millis(200)).ok()
        })
        .unwrap();
    assert!(line.contains(r#""document_id":"new"#), "{line}");
}

#[test]
fn a_transaction_that_was_open_from_the_start_is_given_once_it_is_committed() {
    let live = Live::new(1);
    live.publish(&[labelled("old", "positive", None)]);
    let open = live.begin(&[labelled("open", "positive", None)]);
    // When the program has begun cannot be told from outside, so without it.
    let mut subscription =
        Subscription::open(&broker::client(), "none", &live.labels, Since::Newest(0), Until::Never).unwrap();
    open.commit_transaction(DEADLINE).unwrap();
    let record = eventually("a record is given", || match subscription.next(Duration::from_millis(50)).unwrap() {
        Next::Record(record) => Some(record),
        Next::Nothing => None,
        Next::End => panic!("it follows, and yet has ended"),
    });
    assert_eq!(record.key.unwrap(), b"open/sentiment/small");
}

#[test]
fn it_begins_at_the_time_that_is_named() {
    let live = Live::new(2);
    for (id, hours) in [("old", 2), ("new", 0)] {
        let time = Utc::now() - chrono::TimeDelta::hours(hours);
        broker::produce_documents_at(&live.labels, time, [id.len()]);
    }
    let offsets = |since: &str| live.lines(&["--since", since, "--no-follow", "--format", "json"]).len();
    let hour_ago = (Utc::now() - chrono::TimeDelta::hours(1)).to_rfc3339();
    assert_eq!((offsets("beginning"), offsets("3h"), offsets("1h 30m"), offsets(&hour_ago)), (2, 2, 1, 1));
    let tomorrow = (Utc::now() + chrono::TimeDelta::days(1)).to_rfc3339();
    assert_eq!(offsets(&tomorrow), 0);
}

#[test]
fn the_limit_ends_it() {
    let live = Live::new(2);
    let ids = (0..20).map(|index| labelled(&format!("d{index}"), "positive", None)).collect::<Vec<_>>();
    live.publish(&ids);
    assert_eq!(live.lines(&["--since", "beginning", "--limit", "3"]).len(), 3, "it does not follow");
    live.publish(&[labelled("last", "negative", None)]);
    let lines = live.lines(&["--since", "beginning", "--limit", "1", "--label", "negative", "--format", "json"]);
    assert_eq!(field(&lines, "document_id"), ["last"], "what a filter leaves out does not count");
    live.tail(&["--limit", "0"]).expect(2).says("--limit");
}

#[test]
fn it_ends_when_nobody_reads_also_while_nothing_comes() {
    let live = Live::new(1);
    let closed = unread(&mut live.command(&["--since", "beginning"]));
    assert_eq!((closed.code, closed.stderr.as_str()), (Some(0), ""), "{closed:#?}");
    live.publish(&[labelled("d1", "positive", None)]);
    let closed = unread(&mut live.command(&["--since", "beginning"]));
    assert_eq!((closed.code, closed.stderr.as_str()), (Some(0), ""), "{closed:#?}");

    let mut child = live
        .command(&["--since", "beginning"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    assert!(line.contains("d1"), "{line}");
    drop(stdout);
    let status = eventually("it has ended", || child.try_wait().unwrap());
    assert!(status.success(), "{status}");
    let said = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
    assert_eq!(said, "");
}

#[test]
fn dead_letters_are_shown_with_reason_and_place() {
    let live = Live::new(1);
    let rejection = Rejection::new(Stage::Decode, "json_invalid", "the value is not JSON: at line 1");
    live.publish(&records(8, Outcome::Rejected(rejection)));
    let lines = live.lines(&[&ALL[..], &["--dead-letters"]].concat());
    let end = "  json_invalid  decode  topic source partition 7 offset 8  key k  the value is not JSON: at line 1  {not  json";
    assert!(lines.len() == 1 && lines[0].ends_with(end), "{lines:#?}");
    let expected = json!({
        "key": "k", "reason": "json_invalid", "stage": "decode", "message": "the value is not JSON: at line 1",
        "value": "{not\n json", "stream": "reviews", "source_topic": "source", "source_partition": 7, "source_offset": 8,
    });
    assert_eq!(parsed(&live.lines(&[&ALL_AS_JSON[..], &["--dead-letters"]].concat())), [expected]);
    live.tail(&["--dead-letters", "--label", "negative"]).expect(2).says("--dead-letters");
}

#[test]
fn it_joins_no_group() {
    let live = Live::new(1);
    live.publish(&[labelled("d1", "positive", None)]);
    let following = Following::start(live.command(&["--since", "beginning"]));
    following.line();
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", environment("KAFKA_BOOTSTRAP_SERVERS")).create().unwrap();
    let groups = consumer.fetch_group_list(None, DEADLINE).unwrap();
    let group = groups.groups().iter().find(|group| group.name() == &*live.stream.topic);
    assert!(group.is_none(), "the group of the stream is there");
}

#[test]
fn what_cannot_be_shown_is_said_with_its_remedy() {
    let stream = Stream::new(1);
    let tail =
        |options: &Options, arguments: &[&str]| Answer::of(stream.command(options).args(TAIL).args(arguments), "");
    tail(&options(), &[])
        .expect(1)
        .says(&format!("error: topic `{}.labels` does not exist yet: `albertine run` makes it", stream.topic))
        .says("correct `streams.reviews.live.topic`");
    tail(&options(), &["--dead-letters"]).expect(1).says("correct `streams.reviews.live.dead_letters`");
    let off = Options { live: false, ..options() };
    tail(&off, &[]).expect(2).says("stream `reviews` has no live topic").says("`streams.reviews.live`");
    tail(&options(), &["--no-follow"]).expect(2).says("--since");
    for since in ["yesterday", "10", "", "99999999999999y"] {
        tail(&options(), &["--since", since]).expect(2).says("expected `beginning`, a duration such as `10m`");
    }
    let setup = Setup::new();
    setup.run([&TAIL[..], &["--dead-letters"]].concat(), "").expect(2).says("set `streams.reviews.live.dead_letters`");
    setup.run(TAIL, "").expect(1).says("cannot read topic `reviews.labels`: cannot ask the brokers at `127.0.0.1:1`");
}

#[test]
#[ignore = "waits until the topic is asked for new partitions: half a minute"]
fn partitions_that_are_added_are_shown_too() {
    let live = Live::new(1);
    live.publish(&[labelled("first", "positive", None)]);
    let following = Following::start(live.command(&["--since", "beginning"]));
    following.line();
    let more = NewPartitions::new(&live.labels, 2);
    block_on(broker::admin().create_partitions([&more], &broker::request_options())).unwrap().remove(0).unwrap();
    eventually("there is a partition 1", || {
        let consumer: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", environment("KAFKA_BOOTSTRAP_SERVERS")).create().unwrap();
        consumer.fetch_watermarks(&live.labels, 1, DEADLINE).ok()
    });
    broker::produce_to(&live.labels, 1, Some(b"added"), Some(b"{}"));
    assert!(following.line().contains("added  partition 1 offset 0"));
    live.publish(&[labelled("old", "positive", None)]);
    assert!(following.line().contains("old"), "the partitions from before are still read");
}
