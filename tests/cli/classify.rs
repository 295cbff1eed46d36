//! `albertine classify`: every record comes out with its label, in order, without any server.

use std::{fs, io::Write, os::unix::fs::symlink, path::Path, process::Stdio};

use serde_json::Value;

use super::{Answer, CONFIG, Setup};
use crate::support::eventually;

const CLASSIFY: [&str; 3] = ["classify", "--model", "albert-sentiment"];
const LABELS: [&str; 3] = ["negative", "neutral", "positive"];

/// The rows of an answer, each checked for what every row has.
fn rows(text: &str) -> Vec<Value> {
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for row in &rows {
        let label = row["label"].as_str().unwrap_or_else(|| panic!("no label in {row}"));
        let probabilities = row["probabilities"].as_object().unwrap_or_else(|| panic!("no probabilities in {row}"));
        assert_eq!(probabilities.keys().collect::<Vec<_>>(), LABELS, "one for each class, in the model's order");
        let values = || probabilities.values().map(|probability| probability.as_f64().unwrap());
        assert!((values().sum::<f64>() - 1.0).abs() < 1e-5, "the probabilities of {row} do not sum to one");
        assert_eq!(row["confidence"], probabilities[label], "the confidence is the label's probability");
        assert_eq!(row["confidence"].as_f64(), values().max_by(f64::total_cmp), "the label is the most probable class");
    }
    rows
}

fn texts<'a>(rows: &'a [Value], field: &str) -> Vec<&'a str> {
    rows.iter().map(|row| row[field].as_str().unwrap_or_default()).collect()
}

#[test]
fn lines_from_the_standard_input_are_labelled_in_order() {
    let input = "I love this kettle, it is wonderful.\n\nTerrible. It broke on the first day.\r\n";
    let answer = Setup::new().run(CLASSIFY, input).expect(0);
    let rows = rows(&answer.stdout);
    assert_eq!(texts(&rows, "text"), ["I love this kettle, it is wonderful.", "Terrible. It broke on the first day."]);
    assert_eq!(texts(&rows, "label"), ["positive", "negative"]);
    assert_eq!(answer.stderr, "", "nothing went wrong, so nothing is said");
}

#[test]
fn json_lines_keep_their_fields_and_their_order() {
    let setup = Setup::new();
    // Lengths differ, so the engine finishes them in another order than they came.
    let lines: Vec<String> = (0..40)
        .map(|index| {
            let text = "A wonderful kettle. ".repeat(1 + (index * 7) % 40);
            format!(r#"{{"z":{index},"price":19.90,"text":"{text}","nested":{{"b":[1,null],"a":"ü"}},"id":12345678901234567890}}"#)
        })
        .collect();
    let input = lines.join("\n");
    let piped = setup.run(CLASSIFY, &input).expect(0).stdout;
    let file = setup.write("reviews.jsonl", &input);
    assert_eq!(setup.run(CLASSIFY.map(Into::into).iter().chain([&file.into_os_string()]), "").expect(0).stdout, piped);
    let rows = rows(&piped);
    assert_eq!(rows.len(), lines.len());
    for (row, line) in piped.lines().zip(&lines) {
        let fields = line.strip_suffix('}').unwrap().replace("19.90", "19.9");
        assert!(row.starts_with(&format!("{fields},\"label\":")), "{row} does not begin with the fields of {line}");
    }
}

#[test]
fn csv_takes_its_fields_from_the_header() {
    let setup = Setup::new();
    let input = "id,review\n7,\"Good, \"\"really\"\" good\"\n8,\"Two\nlines\"\n";
    let file = setup.write("reviews.csv", input);
    let from_file =
        setup.run(CLASSIFY.iter().chain(&["--text-field", "review", file.to_str().unwrap()]), "").expect(0).stdout;
    let rows = rows(&from_file);
    assert_eq!(texts(&rows, "id"), ["7", "8"]);
    assert_eq!(texts(&rows, "review"), ["Good, \"really\" good", "Two\nlines"]);
    let piped = setup.run(CLASSIFY.iter().chain(&["--text-field", "review", "--format", "csv", "-"]), input).expect(0);
    assert_eq!(piped.stdout, from_file, "`-` with a format is the same as the file");
}

#[test]
fn a_bad_record_is_reported_with_its_line_and_the_rest_is_labelled() {
    let input = [
        r#"{"id": "a", "text": "A fine kettle."}"#,
        "{not json",
        r#"{"id": "b"}"#,
        "",
        r#"{"id": "c", "text": " "}"#,
        r#"{"id": "d", "text": 5}"#,
        "[1]",
        r#"{"id": "e", "text": "Another fine kettle."}"#,
    ];
    let answer = Setup::new().run(CLASSIFY, &input.join("\n")).expect(1);
    assert_eq!(texts(&rows(&answer.stdout), "id"), ["a", "e"]);
    let answer = answer
        .says("`standard input` line 2: is not JSON: ")
        .says("`standard input` line 3: there is no field `text`; name the text's with `--text-field`\n")
        .says("`standard input` line 5: the text in `text` is empty\n")
        .says("`standard input` line 6: `text` must be a string\n")
        .says("`standard input` line 7: must be a JSON object\n")
        .says("error: 5 of 7 records could not be labelled\n");
    assert_eq!(answer.stderr.lines().count(), 6, "one line for each bad record, and the sum: {answer:#?}");
}

#[test]
fn nothing_to_label_is_no_failure() {
    let answer = Setup::new().run(CLASSIFY, "").expect(0);
    assert_eq!((answer.stdout.as_str(), answer.stderr.as_str()), ("", ""));
}

#[test]
fn an_unknown_model_is_told_which_there_are() {
    let answer = Setup::new().run(["classify", "--model", "nothing"], "A fine kettle.\n");
    assert_ne!(answer.code, Some(0), "{answer:#?}");
    answer.says("no model `nothing` is configured; there is: albert-sentiment");
}

#[test]
fn the_output_file_appears_when_it_is_whole() {
    const RECORDS: usize = 3000;
    let setup = Setup::new();
    let folder = setup.path().join("out");
    fs::create_dir(&folder).unwrap();
    let path = folder.join("labelled.jsonl");
    let mut child = setup
        .command(CLASSIFY.iter().chain(&["--output", path.to_str().unwrap()]))
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    for index in 0..RECORDS {
        writeln!(input, r#"{{"id": {index}, "text": "Good."}}"#).unwrap();
    }
    input.flush().unwrap();
    // The input is still open, so it is not done, and some rows are on the disk already.
    eventually("rows are written beside the output's name", || {
        assert!(child.try_wait().unwrap().is_none(), "it ended before its input did");
        let mut files = fs::read_dir(&folder).unwrap().map(Result::unwrap);
        files.any(|file| file.metadata().is_ok_and(|metadata| metadata.len() > 0)).then_some(())
    });
    assert!(!path.exists(), "the output has its name before it is whole");
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let rows = rows(&fs::read_to_string(&path).unwrap());
    assert!(rows.iter().enumerate().all(|(index, row)| row["id"] == index), "the rows are not in order");
    assert_eq!((rows.len(), fs::read_dir(&folder).unwrap().count()), (RECORDS, 1), "whole, and nothing left beside it");
}

#[test]
fn a_failed_run_leaves_the_earlier_output_as_it_was() {
    let setup = Setup::new();
    let folder = setup.path().join("out");
    fs::create_dir(&folder).unwrap();
    let path = super::write(&folder, "labelled.jsonl", "earlier\n");
    // A folder opens like a file, and fails when it is read.
    let input = setup.path().to_str().unwrap().to_owned();
    let arguments = CLASSIFY.iter().copied().chain(["--output", path.to_str().unwrap(), "--format", "jsonl", &input]);
    setup.run(arguments, "").expect(1).says("cannot read");
    assert_eq!(fs::read_to_string(&path).unwrap(), "earlier\n");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "something was left beside the output");
}

#[test]
fn an_output_that_cannot_be_made_is_said_before_anything_is_computed() {
    let arguments = CLASSIFY.iter().chain(&["--output", "nowhere/labelled.jsonl"]);
    Setup::new().run(arguments, "Good.\n").expect(1).says("cannot create `nowhere/labelled.jsonl`");
}

#[test]
fn what_is_no_file_is_written_to_and_never_replaced() {
    let setup = Setup::new();
    // By way of links, so that a mistake replaces these.
    for (name, target) in [("sink", Path::new("/dev/null")), ("link", &setup.write("labelled.jsonl", "earlier"))] {
        let link = setup.path().join(name);
        symlink(target, &link).unwrap();
        let arguments = CLASSIFY.iter().copied().chain(["--output", link.to_str().unwrap()]);
        setup.run(arguments, "Good.\n").expect(0);
        assert!(link.is_symlink(), "`{name}` was replaced");
    }
    assert_eq!(rows(&fs::read_to_string(setup.path().join("labelled.jsonl")).unwrap()).len(), 1);
    assert!(!fs::metadata("/dev/null").unwrap().is_file(), "the device was replaced");
}

#[test]
fn a_long_text_is_read_to_its_end() {
    let praise = "I love this kettle, it is wonderful and works perfectly. ".repeat(40);
    let blame = "Terrible. It broke on the first day and nobody answers my mails. ".repeat(120);
    let answer = Setup::new().run(CLASSIFY, &format!("{praise}\n{praise}{blame}\n")).expect(0);
    assert_eq!(texts(&rows(&answer.stdout), "label"), ["positive", "negative"]);
}

#[test]
fn neither_kafka_nor_postgres_is_configured_or_asked() {
    let without = CONFIG
        .replace("[kafka]\nbootstrap_servers = \"127.0.0.1:1\"\n", "")
        .replace("[postgres]\nurl = \"postgres://127.0.0.1:1/nobody\"\n", "");
    assert!(!without.contains("127.0.0.1"), "{without}");
    let setup = Setup::with_config(&without);
    setup.run(CLASSIFY, "A fine kettle.\n").expect(0);
    // Where addresses are given they are not contacted: these would hang or fail.
    let mut command = setup.command(CLASSIFY);
    command.env("DATABASE_URL", "postgres://127.0.0.1:1/nobody").env("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1");
    let answer = Answer::of(&mut command, "A fine kettle.\n").expect(0);
    assert_eq!(answer.stderr, "");
}
