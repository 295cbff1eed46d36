//! `albertine stream`: records go on the topic with their key, and can be looked at as the mapping sees them.

use albertine::kafka::{peek, subscribe::TopicRecord};
use serde_json::Value;

use super::{Answer, Setup};
use crate::support::{
    broker::{self, Topic},
    pipeline::{Options, Stream},
    unique,
};

const PRODUCE: [&str; 3] = ["stream", "produce", "reviews"];
const PEEK: [&str; 3] = ["stream", "peek", "reviews"];

fn run(stream: &Stream, arguments: &[&str], input: &str) -> Answer {
    run_with(stream, &Options::default(), arguments, input)
}

fn run_with(stream: &Stream, options: &Options, arguments: &[&str], input: &str) -> Answer {
    Answer::of(stream.command(options).args(arguments), input)
}

/// What a topic holds, by partition and offset.
fn records(topic: &str) -> Vec<TopicRecord> {
    let mut records: Vec<TopicRecord> =
        peek::newest(&broker::client(), topic, 1000).unwrap().map(Result::unwrap).collect();
    records.sort_by_key(|record| (record.partition, record.offset));
    records
}

fn text(bytes: Option<&Vec<u8>>) -> &str {
    std::str::from_utf8(bytes.expect("a key or value")).unwrap()
}

fn keys(records: &[TopicRecord]) -> Vec<&str> {
    records.iter().map(|record| text(record.key.as_ref())).collect()
}

#[test]
fn json_lines_go_on_the_topic_unchanged_with_their_id_as_key() {
    let stream = Stream::new(1);
    let lines = [r#"{"id":"r1","text":"Fine.","deep":{"z":1,"a":[null]}}"#, r#"{"text":"Ünsafe.","id":17}"#];
    let answer = run(&stream, &[&PRODUCE[..], &["-"]].concat(), &lines.join("\n")).expect(0);
    assert!(answer.stderr.starts_with(&format!("2 records on topic `{}` in ", stream.topic)), "{answer:#?}");
    let records = records(&stream.topic);
    assert_eq!(keys(&records), ["r1", "17"]);
    assert_eq!(records.iter().map(|record| text(record.value.as_ref())).collect::<Vec<_>>(), lines);
}

#[test]
fn a_csv_file_is_told_by_its_name_and_the_standard_input_by_an_option() {
    let stream = Stream::new(1);
    let csv = "id,text,rating\nr1,\"Good, really\",5\nr2,Bad,1\n";
    let folder = Setup::new();
    let file = folder.write("reviews.csv", csv);
    run(&stream, &[&PRODUCE[..], &[file.to_str().unwrap()]].concat(), "").expect(0);
    run(&stream, &[&PRODUCE[..], &["-", "--format", "csv"]].concat(), csv).expect(0);
    let records = records(&stream.topic);
    assert_eq!(keys(&records), ["r1", "r2", "r1", "r2"]);
    let first: Value = serde_json::from_str(text(records[0].value.as_ref())).unwrap();
    assert_eq!(first, serde_json::json!({"id": "r1", "text": "Good, really", "rating": "5"}));
    assert_eq!(records[0].value, records[2].value, "the same record, whichever way it came");
}

#[test]
fn a_jsonl_file_is_read_as_json_lines() {
    let stream = Stream::new(1);
    let folder = Setup::new();
    let file = folder.write("reviews.jsonl", "{\"id\":\"r1\",\"text\":\"Fine.\"}\n");
    run(&stream, &[&PRODUCE[..], &[file.to_str().unwrap()]].concat(), "").expect(0);
    assert_eq!(keys(&records(&stream.topic)), ["r1"]);
}

#[test]
fn where_the_id_is_the_key_a_field_becomes_it() {
    let stream = Stream::new(1);
    let keyed = Options { id: Some("key"), ..Options::default() };
    let line = r#"{"id":"from-id","asin":"from-asin","text":"Fine."}"#;
    run_with(&stream, &keyed, &[&PRODUCE[..], &["-"]].concat(), line).expect(0);
    run_with(&stream, &keyed, &[&PRODUCE[..], &["-", "--key-field", "asin"]].concat(), line).expect(0);
    assert_eq!(keys(&records(&stream.topic)), ["from-id", "from-asin"]);
}

#[test]
fn records_of_one_document_go_to_one_partition() {
    let stream = Stream::new(4);
    let line = |index| format!("{{\"id\":\"d{}\",\"text\":\"Fine.\"}}\n", index % 20);
    let lines = (0..200).fold(String::new(), |lines, index| lines + &line(index));
    run(&stream, &[&PRODUCE[..], &["-"]].concat(), &lines).expect(0);
    let records = records(&stream.topic);
    assert_eq!(records.len(), 200);
    let places: std::collections::BTreeSet<(&str, i32)> =
        records.iter().map(|record| (text(record.key.as_ref()), record.partition)).collect();
    assert_eq!(places.len(), 20, "a document is in more than one partition: {places:?}");
    let partitions: std::collections::BTreeSet<i32> = places.iter().map(|(_, partition)| *partition).collect();
    assert!(partitions.len() > 1, "all documents are in one partition");
}

#[test]
fn the_topic_is_made_with_its_partitions_unless_it_is_there() {
    let (stream, topic) = (Stream::new(1), Topic::unmade("made"));
    let produce = |partitions: &str| {
        let mut command = stream.command(&Options::default());
        command.args(PRODUCE).args(["-", "--partitions", partitions]).env("ALBERTINE_STREAMS__REVIEWS__TOPIC", &*topic);
        Answer::of(&mut command, r#"{"id":"r1","text":"Fine."}"#)
    };
    produce("3").expect(0);
    produce("5").expect(0);
    assert_eq!(records(&topic).len(), 2);
    let mut check = stream.command(&Options::default());
    check.arg("check").env("ALBERTINE_STREAMS__REVIEWS__TOPIC", &*topic);
    Answer::of(&mut check, "").expect(0).prints(&format!("topic `{topic}` with 3 partition(s)"));
    produce("0").expect(2).says("--partitions");
}

#[test]
fn bad_lines_are_reported_and_the_rest_is_produced() {
    let stream = Stream::new(1);
    let input = "{\"id\":\"r1\",\"text\":\"Fine.\"}\nnope\n[1]\n{\"id\":\"r2\",\"text\":\"Fine.\"}\n";
    let answer = run(&stream, &[&PRODUCE[..], &["-"]].concat(), input)
        .expect(1)
        .says("`standard input` line 2: is not JSON: ")
        .says("`standard input` line 3: must be a JSON object\n")
        .says("error: 2 records could not be read and 0 were not acknowledged\n");
    assert!(answer.stderr.contains("2 records on topic"), "{answer:#?}");
    assert_eq!(keys(&records(&stream.topic)), ["r1", "r2"]);
}

#[test]
fn peeking_shows_what_the_mapping_sees_and_what_would_be_rejected() {
    let stream = Stream::new(1);
    let put = |key: Option<&str>, value: Option<&str>| {
        broker::produce_to(&stream.topic, 0, key.map(str::as_bytes), value.map(str::as_bytes));
    };
    put(Some("k1"), Some(r#"{"id": "r1", "text": "A fine\nkettle.", "item": "kettle", "rating": 4.5}"#));
    put(Some("k2"), Some(r#"{"id": "r2", "text": 5}"#));
    put(Some("k3"), Some("{not json"));
    put(Some("k4"), None);
    let answer = run(&stream, &PEEK, "").expect(0);
    let lines: Vec<&str> = answer.stdout.lines().collect();
    assert_eq!(lines.len(), 4, "one line a record: {answer:#?}");
    assert!(lines[0].starts_with("  0         0  2"), "partition, offset and time: {}", lines[0]);
    assert!(lines[0].ends_with("  r1  item kettle  rating 4.5  A fine kettle."), "{}", lines[0]);
    for (line, reason) in
        lines[1..].iter().zip(["the text at `/text` must be a string", "not JSON", "deletes the document"])
    {
        assert!(line.contains("would be rejected: ") && line.contains(reason), "{line} does not say `{reason}`");
    }
    let keyed = run_with(&stream, &Options { id: Some("key"), ..Options::default() }, &PEEK, "").expect(0);
    let last = keyed.stdout.lines().last().unwrap();
    assert!(last.ends_with("  k4  deletes the document"), "{last}");
}

#[test]
fn peeking_shows_the_newest_records_and_moves_nothing() {
    let stream = Stream::new(1);
    broker::produce_documents(&stream.topic, 0..30);
    let first = run(&stream, &[&PEEK[..], &["--limit", "3"]].concat(), "").expect(0).stdout;
    let ids: Vec<&str> = first.lines().filter_map(|line| line.split_whitespace().nth(4)).collect();
    assert_eq!(ids, ["d27", "d28", "d29"], "{first}");
    assert_eq!(run(&stream, &[&PEEK[..], &["--limit", "3"]].concat(), "").expect(0).stdout, first);
}

#[test]
fn peeking_at_an_empty_topic_says_that_it_is() {
    let stream = Stream::new(2);
    let expected = format!("topic `{}` holds no records\n", stream.topic);
    assert_eq!(run(&stream, &PEEK, "").expect(0).stdout, expected);
}

#[test]
fn a_topic_that_is_missing_is_said_so() {
    let (stream, topic) = (Stream::new(1), unique("missing"));
    let mut command = stream.command(&Options::default());
    command.args(PEEK).env("ALBERTINE_STREAMS__REVIEWS__TOPIC", &topic);
    Answer::of(&mut command, "").expect(1).says(&format!("topic `{topic}`"));
}

#[test]
fn a_broker_that_is_down_is_said_with_the_topic() {
    Setup::new().run(PEEK, "").expect(1).says("error: cannot read topic `reviews`: ");
}
