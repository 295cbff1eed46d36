//! `albertine model evaluate`: figures on texts whose true labels are known, with a model that counts the words good,
//! bad and fine, so that every label is known beforehand.

use std::fs;

use serde_json::json;

use super::{Answer, Setup};
use crate::support::repository;

/// Two models of the same graphs; the second calls every good text bad, and the other way round.
struct Models(Setup);

impl Models {
    fn new() -> Self {
        let setup = Setup::with_config("");
        let (instant, contrary) = (repository("tests/fixtures/instant-model"), setup.path().join("contrary"));
        fs::create_dir(&contrary).unwrap();
        for file in fs::read_dir(&instant).unwrap().map(Result::unwrap) {
            fs::copy(file.path(), contrary.join(file.file_name())).unwrap();
        }
        let manifest = fs::read_to_string(instant.join("model.toml")).unwrap();
        let labels = r#"labels = ["negative", "neutral", "positive"]"#;
        assert!(manifest.contains(labels), "{manifest}");
        let manifest = manifest.replace(labels, r#"labels = ["positive", "neutral", "negative"]"#);
        fs::write(contrary.join("model.toml"), manifest).unwrap();
        let (instant, contrary) = (instant.display(), contrary.display());
        let config = format!("[models.instant]\npath = \"{instant}\"\n[models.contrary]\npath = \"{contrary}\"\n");
        fs::write(&setup.config, config).unwrap();
        Self(setup)
    }

    fn evaluate(&self, rows: &[(&str, &str)], arguments: &[&str]) -> Answer {
        let rows = rows.iter().map(|(text, label)| json!({"text": text, "label": label, "part": "a"}).to_string());
        let file = self.0.write("rows.jsonl", &rows.collect::<Vec<_>>().join("\n"));
        let command = ["model", "evaluate", "instant", file.to_str().unwrap()];
        self.0.run(command.iter().chain(arguments), "")
    }
}

const ROWS: [(&str, &str); 10] = [
    ("good", "positive"),
    ("good good", "positive"),
    ("good", "positive"),
    ("bad", "positive"),
    ("bad", "negative"),
    ("bad bad", "negative"),
    ("good", "negative"),
    ("fine", "neutral"),
    ("fine fine", "neutral"),
    ("bad", "neutral"),
];

#[test]
fn figures_are_those_of_the_labels_that_were_given() {
    let answer = Models::new().evaluate(&ROWS, &["--json"]).expect(0).json();
    let model = &answer["models"][0];
    assert_eq!(answer["labels"], json!(["negative", "neutral", "positive"]));
    assert_eq!(model["confusion"], json!([[2, 0, 1], [1, 2, 0], [1, 0, 3]]));
    assert_eq!((&model["documents"], &model["accuracy"]["value"]), (&json!(10), &json!(0.7)));
    let recall: Vec<f64> = (0..3).map(|class| model["classes"][class]["recall"].as_f64().unwrap()).collect();
    assert_eq!(recall, [2.0 / 3.0, 2.0 / 3.0, 0.75]);
    let binned = model["calibration"].as_array().unwrap().iter().map(|bin| bin["documents"].as_u64().unwrap());
    assert_eq!(binned.sum::<u64>(), 10, "every document is in one bin");
    assert_eq!(answer["comparison"], json!(null));
    assert_eq!(model["mean_depth"], json!(1.0), "the model has one pass");
}

#[test]
fn tables_show_the_same_to_people() {
    Models::new()
        .evaluate(&ROWS, &[])
        .expect(0)
        .prints("rows.jsonl: 10 documents, 0 rows left out, 0 rows that could not be used\n")
        .prints("Model instant 1, task sentiment\n")
        .prints("accuracy")
        .prints("0.7000  0.3968 to 0.8922")
        .prints("True labels in rows, given labels in columns\n");
}

#[test]
fn a_set_with_other_words_and_fewer_classes_is_mapped() {
    let rows = [("good", "5"), ("bad", "1"), ("bad", "5"), ("fine", "5"), ("fine", "3"), ("bad", "?")];
    let arguments = ["--map", "5=positive", "--map", "1=negative", "--map", "3=neutral", "--map", "?=", "--json"];
    let among = ["--among", "negative,positive"];
    let answer = Models::new().evaluate(&rows, &[&arguments[..], &among].concat()).expect(0).json();
    assert_eq!(answer["labels"], json!(["negative", "positive"]));
    let model = &answer["models"][0];
    assert_eq!((&model["documents"], &answer["left_out"]), (&json!(4), &json!(2)));
    // "fine" has no side, and the first class wins a tie.
    assert_eq!(model["confusion"], json!([[1, 0], [2, 1]]));
}

#[test]
fn rows_are_chosen_by_a_field_and_a_limit() {
    let models = Models::new();
    let count = |arguments: &[&str]| {
        let answer = models.evaluate(&ROWS, &[arguments, &["--json"]].concat()).expect(0).json();
        answer["models"][0]["documents"].as_u64().unwrap()
    };
    assert_eq!(count(&["--where", "label=positive"]), 4);
    assert_eq!(count(&["--where", "label=positive", "--where", "part=a", "--limit", "3"]), 3);
    models.evaluate(&ROWS, &["--where", "part=b"]).expect(1).says("no row of `").says("could be used");
}

#[test]
fn each_value_of_a_field_has_figures_of_its_own() {
    let models = Models::new();
    let rows = [
        json!({"text": "good", "label": "positive", "kind": "plain"}),
        json!({"text": "bad", "label": "negative", "kind": "plain"}),
        json!({"text": "fine", "label": "positive", "kind": 7}),
        json!({"text": "good", "label": "positive"}),
    ];
    let lines: Vec<String> = rows.iter().map(ToString::to_string).collect();
    let file = models.0.write("kinds.jsonl", &lines.join("\n"));
    let run = |arguments: &[&str]| {
        let command = ["model", "evaluate", "instant", file.to_str().unwrap()];
        models.0.run(command.iter().chain(arguments), "")
    };
    let answer = run(&["--by", "kind", "--json"]).expect(0).json();
    let groups = answer["models"][0]["groups"].as_array().unwrap().iter();
    let shown: Vec<_> =
        groups.map(|group| (&group["value"], &group["documents"], &group["accuracy"]["value"])).collect();
    assert_eq!(
        shown,
        [
            (&json!(null), &json!(1), &json!(1.0)),
            (&json!("7"), &json!(1), &json!(0.0)),
            (&json!("plain"), &json!(2), &json!(1.0)),
        ]
    );
    run(&["--by", "kind"]).expect(0).prints("Groups\n").prints("plain");
    assert_eq!(run(&["--json"]).expect(0).json()["models"][0]["groups"], json!([]));
    let many: Vec<String> =
        (0..=200).map(|id| json!({"text": "good", "label": "positive", "id": id}).to_string()).collect();
    let file = models.0.write("many.jsonl", &many.join("\n"));
    models
        .0
        .run(["model", "evaluate", "instant", file.to_str().unwrap(), "--by", "id"], "")
        .expect(2)
        .says("`--by id`: the field has more than 200 values");
}

#[test]
fn a_row_that_cannot_be_used_is_told_with_its_place_and_the_others_count() {
    let rows = [("good", "positive"), ("good", "excellent"), (" ", "positive"), ("bad", "negative")];
    let answer = Models::new().evaluate(&rows, &[]).expect(1);
    answer
        .says("rows.jsonl` line 2: the true label `excellent` is none of negative, neutral, positive; say what it is with `--map excellent=LABEL`")
        .says("rows.jsonl` line 3: the text in `text` is empty")
        .says("error: 2 rows could not be used; the figures are of the others")
        .prints("2 documents, 0 rows left out, 2 rows that could not be used\n");
}

#[test]
fn two_models_are_compared_document_by_document() {
    let models = Models::new();
    let rows = [("good", "positive"); 7];
    let answer = models.evaluate(&rows, &["--against", "contrary", "--json"]).expect(0).json();
    let comparison = &answer["comparison"];
    assert_eq!((&comparison["only_first_right"], &comparison["only_second_right"]), (&json!(7), &json!(0)));
    assert_eq!(comparison["accuracy_difference"]["value"], json!(1.0));
    assert!((comparison["mcnemar_p"].as_f64().unwrap() - 2.0 / 128.0).abs() < 1e-12, "{comparison}");
    models
        .evaluate(&rows, &["--against", "contrary"])
        .expect(0)
        .prints("instant against contrary: accuracy +1.0000")
        .prints("it is better");
    models.evaluate(&rows[..3], &["--against", "contrary"]).expect(0).prints("the difference may be chance");
    models.evaluate(&rows, &["--against", "instant"]).expect(2).says("both models are called `instant`");
    models
        .evaluate(&rows, &["--against", "nothing"])
        .expect(2)
        .says("`nothing` is no folder, and no such model is configured; there is: contrary, instant");
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let models = Models::new();
    let refused = |arguments: &[&str]| models.evaluate(&ROWS, arguments).expect(2);
    refused(&["--among", "positive,joyful"]).says("has no label `joyful`; it has: negative");
    for among in ["positive", "positive,positive"] {
        let says = format!("`--among` must name at least two different labels, not {}", among.replace(',', ", "));
        refused(&["--among", among]).says(&says);
    }
    refused(&["--map", "5"]).says("invalid value '5' for '--map <VALUE=LABEL>': there is no `=` in it");
    refused(&["--where", "part"]).says("invalid value 'part' for '--where <FIELD=VALUE>': there is no `=` in it");
}

#[test]
fn labels_that_have_no_probability_left_are_equally_probable() {
    let models = Models::new();
    let folder = models.0.path().join("contrary");
    let manifest = fs::read_to_string(folder.join("model.toml")).unwrap();
    let certain = manifest.replace("temperature = 1.0", "temperature = 0.001");
    assert_ne!(manifest, certain, "{manifest}");
    fs::write(folder.join("model.toml"), certain).unwrap();
    let file = models.0.write("row.jsonl", &json!({"text": "bad", "label": "neutral"}).to_string());
    let command = ["model", "evaluate", "contrary", file.to_str().unwrap(), "--among", "neutral,negative", "--json"];
    let model = models.0.run(command, "").expect(0).json()["models"][0].clone();
    assert_eq!(model["calibration"][0]["mean_confidence"], json!(0.5), "{model:#}");
    assert_eq!(model["expected_calibration_error"], json!(0.5), "{model:#}");
}

#[test]
fn a_report_that_cannot_be_written_is_said_before_anything_is_computed() {
    let models = Models::new();
    // A true label that is not known would be told while the rows are read.
    let rows = [("good", "excellent")];
    let folder = models.0.path().to_str().unwrap();
    for (path, says) in [
        ("nowhere/report.html", "cannot create `nowhere/report.html`: ".to_owned()),
        (folder, format!("cannot create `{folder}`: it is a folder; name a file")),
    ] {
        let answer = models.evaluate(&rows, &["--report", path]).expect(1).says(&says);
        assert!(!answer.stderr.contains("excellent"), "{answer:#?}");
    }
}

#[test]
fn the_report_is_one_page_with_charts_and_harmless_texts() {
    let models = Models::new();
    let report = models.0.path().join("report.html");
    let rows = [("good", "positive"), ("bad <script>alert(1)</script>", "positive")];
    models.evaluate(&rows, &["--report", report.to_str().unwrap()]).expect(0);
    let page = fs::read_to_string(report).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>"), "{page}");
    assert_eq!(page.matches("<svg ").count(), 2, "two charts: {page}");
    assert!(!page.contains("<script"), "{page}");
    assert!(page.contains("bad &lt;script&gt;alert(1)&lt;/script&gt;") && page.contains("line 2"), "{page}");
}

#[test]
fn a_folder_can_be_evaluated_without_a_configuration() {
    let models = Models::new();
    let file = models.0.write("rows.jsonl", &json!({"text": "good", "label": "positive"}).to_string());
    let folder = repository("tests/fixtures/instant-model");
    let mut command = models.0.command(["model", "evaluate", folder.to_str().unwrap(), file.to_str().unwrap()]);
    Answer::of(command.current_dir(models.0.path()).env_remove("ALBERTINE_CONFIG"), "")
        .expect(0)
        .prints("Model instant 1");
}
