//! The first hour with a topic of one's own: look at it, take the mapping that is proposed, try it without storing
//! anything.

use serde_json::{Value, json};

use super::{Answer, Setup};
use crate::support::{
    broker::{self, produce_documents, produce_to},
    pipeline::{Options, Stream},
};

/// Reviews in a layout of somebody else's, whose ratings go with their texts.
fn produce_foreign(stream: &Stream, count: usize) {
    for index in 0..count {
        let (stars, text) = match index % 3 {
            0 => (1, "Horrible. It broke at once and they refused a refund."),
            1 => (3, "It boils water. The lid is loose, the colour is fine."),
            _ => (5, "Wonderful, I love it, the best kettle I ever had!"),
        };
        let record = json!({
            "event": "review.created",
            "payload": {"review_id": format!("R{index}"), "asin": format!("B{}", index % 4), "summary": "My kettle",
                        "reviewText": text, "overall": stars, "unixReviewTime": 1_700_000_000 + index},
        });
        produce_to(&stream.topic, 0, None, Some(record.to_string().as_bytes()));
    }
}

#[test]
fn a_foreign_topic_gets_a_mapping_that_works_as_it_is() {
    let stream = Stream::new(1);
    produce_foreign(&stream, 30);
    let mut peek = stream.command(&Options::default());
    let proposed = Answer::of(peek.args(["stream", "peek", &stream.topic]), "").expect(0).stdout;
    for line in [
        "id = \"/payload/review_id\" ",
        "text = [\"/payload/summary\", \"/payload/reviewText\"] ",
        "item = \"/payload/asin\" ",
        "rating = \"/payload/overall\" ",
        "occurred_at = \"/payload/unixReviewTime\" ",
        "occurred_at_unit = \"seconds\"",
    ] {
        assert!(proposed.lines().any(|found| found.starts_with(line.trim_end())), "no line `{line}` in:\n{proposed}");
    }
    assert!(proposed.contains("#   R10  item B2  rating 3  My kettle"), "{proposed}");

    let folder = Setup::new();
    let config = folder.write("proposed.toml", &proposed);
    let run = |arguments: &[&str]| {
        let mut command = stream.command(&Options::default());
        Answer::of(command.args(arguments).env("ALBERTINE_CONFIG", &config), "")
    };
    let answer = run(&["run", "--dry-run", "--limit", "30", "--format", "json"]).expect(0);
    let summary: Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!((&summary["records"], &summary["labelled"]), (&json!(30), &json!(30)), "{summary:#}");
    let agreement = &summary["models"][0]["agreement"];
    let ratings: Vec<&Value> = agreement["rows"].as_array().unwrap().iter().map(|row| &row["rating_low"]).collect();
    assert_eq!(ratings, [1.0, 3.0, 5.0]);
    assert_eq!(agreement["rows"][2]["documents"], json!([0, 0, 10]), "all ten are positive: {agreement:#}");
    assert!(agreement["rank_correlation"]["low"].as_f64().unwrap() > 0.5, "{agreement:#}");

    let text = run(&["run", "--dry-run"]).expect(0);
    assert!(text.stdout.contains("30 records: 30 labelled, 0 rejected, 0 deletions; nothing was stored"), "{text:#?}");
    assert!(text.stdout.contains("the labels follow the ratings"), "{text:#?}");
}

#[test]
fn a_dry_run_says_what_would_be_rejected_and_leaves_no_trace() {
    let stream = Stream::new(2);
    produce_documents(&stream.topic, 0..10);
    produce_to(&stream.topic, 0, Some(b"k"), Some(b"{not json"));
    let mut command = stream.command(&Options { instant_model: true, live: true, ..Options::default() });
    let answer = Answer::of(command.args(["run", "--dry-run", "reviews", "--format", "json"]), "").expect(0);
    let summary: Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!((&summary["records"], &summary["labelled"]), (&json!(11), &json!(10)), "{summary:#}");
    let rejected = &summary["rejected"][0];
    assert_eq!((&rejected["reason"], &rejected["records"]), (&json!("json_invalid"), &json!(1)));
    assert!(rejected["first"].as_str().unwrap().starts_with("partition 0 offset "), "{rejected}");
    for table in ["documents", "rejections", "checkpoints", "models"] {
        assert_eq!(stream.database.number(&format!("SELECT count(*) FROM {{s}}.{table}")), 0, "{table}");
    }
    assert!(broker::group_is_empty(&stream.topic));
    assert!(!broker::topic_exists(&stream.labels), "the live topic was made");
}

#[test]
fn peeking_needs_no_configuration_and_says_what_it_cannot_tell() {
    let stream = Stream::new(1);
    for index in 0..3 {
        let record = json!({"n": index, "same": "one"}).to_string();
        produce_to(&stream.topic, 0, None, Some(record.as_bytes()));
    }
    let empty = tempfile::TempDir::new().unwrap();
    let mut command = stream.command(&Options::default());
    command.args(["stream", "peek", &stream.topic]).env_remove("ALBERTINE_CONFIG").current_dir(&empty);
    Answer::of(&mut command, "")
        .expect(0)
        .prints("path = \"models/albert-sentiment\"")
        .prints("# id = ")
        .prints("# text = ");
}
