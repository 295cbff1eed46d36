//! `albertine model calibrate`: which rule is chosen, what is written, and that serving does as it says.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use super::{Answer, Setup};
use crate::support::repository;

/// A copy of the bundled model, and texts whose true labels it knows after few passes.
struct Calibration {
    setup: Setup,
    model: PathBuf,
}

impl Calibration {
    fn new() -> Self {
        let setup = Setup::with_config("");
        let model = setup.path().join("model");
        fs::create_dir(&model).unwrap();
        for file in fs::read_dir(repository("models/albert-sentiment")).unwrap().map(Result::unwrap) {
            fs::copy(file.path(), model.join(file.file_name())).unwrap();
        }
        // As it was before it was calibrated; the tables that were written stand at the end.
        let manifest = fs::read_to_string(model.join("model.toml")).unwrap();
        let before = manifest.split("\n[early_exit.").next().unwrap();
        fs::write(model.join("model.toml"), before).unwrap();
        Self { setup, model }
    }

    fn run(&self, arguments: &[&str]) -> Answer {
        self.run_on(&Self::short_rows(), arguments)
    }

    fn short_rows() -> Vec<Value> {
        let praise =
            ["I love this kettle", "Wonderful, works perfectly", "A great buy, I am happy", "Excellent quality"];
        let blame =
            ["Terrible, it broke at once", "A waste of money", "I hate it, it is awful", "Bad quality, very poor"];
        let rows = (0..60).map(|index| {
            let (text, label) =
                if index % 2 == 0 { (praise[index / 2 % 4], "positive") } else { (blame[index / 2 % 4], "negative") };
            json!({"text": format!("{text}, number {index}."), "label": label})
        });
        rows.collect()
    }

    fn run_on(&self, rows: &[Value], arguments: &[&str]) -> Answer {
        let file = self.setup.write("rows.jsonl", &rows.iter().map(Value::to_string).collect::<Vec<_>>().join("\n"));
        let command = ["model", "calibrate", self.model.to_str().unwrap(), file.to_str().unwrap()];
        self.setup.run(command.iter().chain(arguments), "")
    }

    fn manifest(&self) -> String {
        fs::read_to_string(self.model.join("model.toml")).unwrap()
    }

    /// The depths of labels that `classify` gives, and the labels.
    fn classified(&self, texts: &str) -> Vec<(u64, String)> {
        let config = format!("[models.mine]\npath = \"{}\"\n", self.model.display());
        fs::write(&self.setup.config, config).unwrap();
        let answer = self.setup.run(["classify", "--model", "mine", "--format", "lines", "-"], texts).expect(0);
        let labels = answer.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        labels.map(|row| (row["depth"].as_u64().unwrap(), row["label"].as_str().unwrap().to_owned())).collect()
    }
}

#[test]
fn what_is_written_is_served_and_the_rest_of_the_manifest_stays() {
    let calibration = Calibration::new();
    let before = calibration.manifest();
    let texts = "I love it, it is great.\nTerrible, a waste of money.\n";
    let full = calibration.classified(texts);
    assert!(full.iter().all(|(depth, _)| *depth == 8), "{full:?}");

    let answer = calibration.run(&["--json", "--write"]).expect(0).json();
    let groups = answer["groups"].as_array().unwrap();
    assert_eq!((groups.len(), &groups[0]["documents"]), (1, &json!("all")), "none has several windows");
    let chosen = groups[0]["chosen"].as_str().unwrap().to_owned();
    let rules = groups[0]["rules"].as_array().unwrap();
    assert_eq!(rules.len(), 4);
    let of_best = rules.iter().find(|rule| rule["rule"] == *chosen).unwrap();
    assert_eq!(answer["together"], of_best["figures"]);
    for rule in rules {
        let depths = rule["figures"]["windows_by_pass"].as_array().unwrap();
        let windows: u64 = depths.iter().map(|count| count.as_u64().unwrap()).sum();
        assert_eq!(windows, 60, "{rule}");
    }
    let after = calibration.manifest();
    assert!(after.starts_with(before.trim_end()), "everything else stays, in its place: {after}");
    let exit = after.parse::<toml::Table>().unwrap()["early_exit"].clone();
    for documents in ["one_window", "several_windows"] {
        assert_eq!(exit[documents]["rule"]["kind"].as_str(), Some(&*chosen));
        assert_eq!(exit[documents]["temperatures"].as_array().unwrap().len(), 8);
        assert_eq!(exit[documents]["rule_temperatures"].as_array().unwrap().len(), 7);
    }
    let early = calibration.classified(texts);
    assert!(early.iter().all(|(depth, _)| *depth < 8), "{early:?}");
    let labels = |found: &[(u64, String)]| found.iter().map(|(_, label)| label.clone()).collect::<Vec<_>>();
    assert_eq!(labels(&early), labels(&full));

    // Written again it stands there once.
    calibration.run(&["--write"]).expect(0).prints("[early_exit.one_window]\n").prints("best");
    assert_eq!(calibration.manifest().matches("[early_exit.one_window]").count(), 1);
}

#[test]
fn how_independent_windows_are_is_fitted_on_long_texts_and_stays_where_there_are_none() {
    let calibration = Calibration::new();
    let stated = |value: &str| {
        let manifest = calibration.manifest();
        let line = manifest.lines().find(|line| line.starts_with("window_independence")).unwrap().to_owned();
        fs::write(
            calibration.model.join("model.toml"),
            manifest.replace(&line, &format!("window_independence = {value}")),
        )
    };
    stated("0.45").unwrap();
    calibration.run(&["--write"]).expect(0).prints("Fewer than 50 documents").prints("window_independence stays 0.45");
    assert!(calibration.manifest().contains("\nwindow_independence = 0.45\n"));

    // Two windows each, of which neither is ever wrong, so two say more than one.
    let long = |index: usize| {
        let (text, label) = if index.is_multiple_of(2) {
            ("I love this kettle, it is wonderful. ", "positive")
        } else {
            ("Terrible, it broke on the first day. ", "negative")
        };
        json!({"text": text.repeat(30), "label": label})
    };
    let rows: Vec<Value> = (0..50).map(long).chain(Calibration::short_rows()).collect();
    let answer = calibration.run_on(&rows, &["--write", "--json"]).expect(0).json();
    let groups = answer["groups"].as_array().unwrap();
    let documents = |group: &Value| (group["documents"].clone(), group["rules"][0]["figures"]["documents"].clone());
    let found: Vec<_> = groups.iter().map(documents).collect();
    assert_eq!(found, [(json!("one_window"), json!(60)), (json!("several_windows"), json!(50))]);
    assert_eq!(answer["together"]["documents"], 110, "{answer}");
    assert_eq!(answer["window_independence_fitted"]["documents"], 50, "{answer}");
    let fitted = answer["window_independence"].as_f64().unwrap();
    assert!(fitted > 0.0 && (fitted - 0.45).abs() > 0.01, "{answer}");
    let log_loss = |name: &str| answer["window_independence_fitted"][name].as_f64().unwrap();
    assert!(log_loss("log_loss") < log_loss("log_loss_at_zero"), "{answer}");
    let manifest: toml::Table = calibration.manifest().parse().unwrap();
    let written = manifest["calibration"]["window_independence"].as_float().unwrap();
    assert!((written - fitted).abs() < 1e-6, "{written}");
    let exits = &manifest["early_exit"];
    for group in groups {
        let exit = &exits[group["documents"].as_str().unwrap()];
        assert_eq!(exit["rule"]["kind"].as_str(), group["chosen"].as_str());
    }
    assert_ne!(exits["one_window"], exits["several_windows"]);
}

#[test]
fn nothing_is_written_unless_asked_and_a_model_without_passes_is_refused() {
    let calibration = Calibration::new();
    let before = calibration.manifest();
    calibration.run(&[]).expect(0).prints("rows.jsonl: 60 documents in 60 windows").prints("mean passes");
    assert_eq!(calibration.manifest(), before);
    let unrolled = repository("tests/fixtures/models/two-groups-int8");
    let file = calibration.setup.write("one.jsonl", "{\"text\": \"a\", \"label\": \"b\"}");
    let command = ["model", "calibrate", unrolled.to_str().unwrap(), file.to_str().unwrap()];
    calibration.setup.run(command, "").expect(1).says("is one graph: its texts cannot leave between passes");
}

#[test]
fn a_configuration_can_ask_for_full_depth() {
    let calibration = Calibration::new();
    calibration.run(&["--write"]).expect(0);
    let config = format!("[models.mine]\npath = \"{}\"\nearly_exit = false\n", calibration.model.display());
    fs::write(&calibration.setup.config, config).unwrap();
    let answer =
        calibration.setup.run(["classify", "--model", "mine", "--format", "lines", "-"], "I love it.\n").expect(0);
    let row: Value = serde_json::from_str(answer.stdout.lines().next().unwrap()).unwrap();
    assert_eq!(row["depth"], 8);
}
