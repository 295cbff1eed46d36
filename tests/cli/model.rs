//! `albertine model`: what is listed, and what is said of folders that are in order and of folders that are not.

use std::{collections::BTreeMap, fs};

use serde_json::Value;

use super::{Answer, CONFIG, Setup};
use crate::support::{
    models::{ModelCopy, shipped_version, small_model},
    repository,
};

const SMALL: [&str; 8] = [
    "stepped-float32",
    "stepped-int8",
    "in-turn-float32",
    "in-turn-int8",
    "two-groups-float32",
    "two-groups-int8",
    "pair-float32",
    "pair-int8",
];

fn verify(folder: &str) -> Answer {
    Setup::new().run(["model", "verify", "--json", folder], "")
}

/// The outcomes by the checks' names, each as `outcome: detail`.
fn checks(answer: &Answer) -> BTreeMap<String, String> {
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    let check =
        |check: &Value| (word(&check["check"]), format!("{}: {}", word(&check["outcome"]), word(&check["detail"])));
    answer.json()["checks"].as_array().unwrap().iter().map(check).collect()
}

/// Fails unless the copy fails at this check, with this message, and at no other.
fn assert_refused(copy: &ModelCopy, name: &str, says: &str) {
    let answer = verify(copy.path().to_str().unwrap()).expect(1).says("1 check(s) failed");
    let checks = checks(&answer);
    let failed: Vec<_> = checks.iter().filter(|(_, outcome)| outcome.starts_with("failed: ")).collect();
    assert_eq!(failed.len(), 1, "{failed:#?}");
    let (check, problem) = failed[0];
    assert_eq!(check, name, "{problem}");
    assert!(problem.contains(says), "`{problem}` does not say `{says}`");
}

#[test]
fn folders_that_are_what_they_say_pass_every_check() {
    let folders = SMALL.iter().map(|name| small_model(name));
    let others = ["models/albert-sentiment", "tests/fixtures/instant-model"].map(repository);
    for folder in folders.chain(others) {
        let answer = verify(folder.to_str().unwrap()).expect(0);
        let checks = checks(&answer);
        assert_eq!(checks.len(), 14, "{checks:#?}");
        let unexpected: Vec<_> =
            checks.iter().filter(|(name, outcome)| !outcome.starts_with("ok: ") && *name != "unrolled graph").collect();
        assert!(unexpected.is_empty(), "{}: {unexpected:#?}", folder.display());
        let has_unrolled = folder.join("unrolled.onnx").exists();
        assert_eq!(checks["unrolled graph"].starts_with("ok: "), has_unrolled, "{}", folder.display());
    }
}

#[test]
fn a_configured_model_is_named_and_checks_are_lines_for_people() {
    let setup = Setup::with_config(&CONFIG.replace("models/albert-sentiment", "tests/fixtures/models/stepped-int8"));
    let answer = setup.run(["model", "verify", "albert-sentiment"], "").expect(0);
    let lines: Vec<&str> = answer.stdout.lines().collect();
    assert_eq!(lines.len(), 14, "{answer:#?}");
    assert!(lines[0].starts_with("ok      manifest: `stepped-int8` version 1, task `sentiment`"), "{answer:#?}");
    answer.prints("ok      reference logits: 100.00 % of the labels in 70 rows are float32's");
    setup.run(["model", "verify", "nothing"], "").expect(2).says("there is: albert-sentiment");
    let manifest = small_model("stepped-int8").join("model.toml");
    setup.run(["model", "verify", manifest.to_str().unwrap()], "").expect(0);
}

#[test]
fn more_rows_are_compared_and_a_wrong_one_is_told_by_its_line_and_not_by_its_text() {
    let setup = Setup::new();
    let folder = small_model("stepped-float32");
    let corpus = fs::read_to_string(folder.join("verification.jsonl")).unwrap();
    let verify = |rows: &str| {
        let file = setup.write("rows.jsonl", rows);
        setup.run(["model", "verify", folder.to_str().unwrap(), "--corpus", file.to_str().unwrap()], "")
    };
    verify(&corpus).expect(0).prints("152 rows, 140 with logits");
    let answer = verify("\n{\"text\": \"the lid\", \"input_ids\": [2, 4, 5, 3]}\n").expect(1);
    let answer = answer.prints("in 1 of 77 rows; first in `").prints("rows.jsonl` line 2: token 2 of 4 is `6`");
    assert!(!answer.stdout.contains("the lid"), "{answer:#?}");
    for (row, says) in [
        ("{}", "line 1: is no row: missing field `text`"),
        (r#"{"text": "a", "input_ids": [99]}"#, "line 1: token id `99` is not below the vocabulary size"),
        (r#"{"text": "a", "input_ids": [2], "logits": [1]}"#, "`logits` must be 3 finite numbers"),
        (r#"{"text": "a", "input_ids": [2], "label": "great"}"#, "`great` is no label of the model"),
        (r#"{"text": "a", "text_pair": "b", "input_ids": [2]}"#, "the row must have a single text"),
    ] {
        verify(row).expect(1).prints(says);
    }
}

#[test]
fn twelve_kinds_of_broken_folders_are_told_apart() {
    let float32 = || ModelCopy::of(&small_model("stepped-float32"));
    let refused = |copy: &ModelCopy, name, says| assert_refused(copy, name, says);

    let embed = float32().read("embed.onnx");
    refused(float32().write("embed.onnx", &[&embed[..], b"\0"].concat()), "files", "`embed.onnx` has SHA-256 `");
    refused(
        float32().set("", "labels", vec!["negative", "positive"]),
        "labels",
        "gives 3 logits, and `model.toml` names 2 labels: negative, positive",
    );
    refused(
        float32().replace_by("embed.onnx", "embed-swapped.onnx"),
        "tables",
        "its inputs are swapped: `input_ids` chooses among 2 rows",
    );
    refused(
        float32().replace_by("tokenizer.json", "tokenizer-foreign.json"),
        "token ids",
        "`tokenizer.json` is not the one the model was trained with",
    );
    refused(
        float32().replace_by("layer.onnx", "layer-not-a-number.onnx"),
        "weights",
        "`layer.onnx`: the weight `ffn` holds values that are no finite numbers",
    );
    refused(float32().replace("layer.onnx", &embed[..embed.len() / 2]), "graphs", "it is no ONNX file, or was cut off");
    refused(
        float32().replace_by("embed.onnx", "embed-static.onnx"),
        "signatures",
        "the input `input_ids` takes only 1 for its axis `batch`: export it with dynamic axes",
    );
    refused(
        float32().set("architecture", "vocabulary_size", 20),
        "tokenizer",
        "is not below the model's vocabulary size `20`",
    );
    refused(
        float32().replace_by("embed.onnx", "embed-small-table.onnx"),
        "tables",
        "the word table `words` has 29 rows, fewer than the vocabulary's 34",
    );
    refused(
        float32().replace_by("layer.onnx", "layer-rank.onnx"),
        "signatures",
        "the input `lengths` has 2 axes, and must have 1",
    );
    let int8 = ModelCopy::of(&small_model("stepped-int8"));
    refused(
        int8.replace_by("layer.onnx", "layer-spoilt.onnx").without_unrolled(),
        "reference logits",
        "% agreement, less than 99 %: int8 lost the model's accuracy",
    );
    refused(
        float32().set("architecture", "kind", "bert"),
        "manifest",
        "is `bert`, and this program runs `albert` only",
    );
    refused(float32().set("", "format", 4), "manifest", "convert the model again");
}

#[test]
fn what_does_not_fit_together_is_told_too() {
    let float32 = || ModelCopy::of(&small_model("stepped-float32"));
    assert_refused(
        float32().replace_by("head.onnx", "head-external.onnx"),
        "graphs",
        "the weights `pooler` lie in another file",
    );
    assert_refused(float32().replace_by("head.onnx", "head-domain.onnx"), "graphs", "of the domain `example.com`");
    assert_refused(
        float32().set("architecture", "hidden_size", 9),
        "signatures",
        "hidden states of 8, and `hidden_size` is 9",
    );
    assert_refused(
        float32().set("input", "max_length", 40),
        "longest window",
        "a window of `max_length`, 40 tokens, cannot be computed",
    );
    let other = fs::read(small_model("pair-float32").join("layer.onnx")).unwrap();
    assert_refused(
        float32().replace("layer.onnx", &other).without_unrolled(),
        "reference logits",
        "are further than 0.001 from the reference",
    );
    let other = fs::read(small_model("pair-float32").join("unrolled.onnx")).unwrap();
    assert_refused(float32().replace("unrolled.onnx", &other), "unrolled graph", "they are not the same network");
    let outside = fs::canonicalize(small_model("pair-float32").join("head.onnx")).unwrap();
    let copy = float32();
    fs::remove_file(copy.path().join("head.onnx")).unwrap();
    std::os::unix::fs::symlink(outside, copy.path().join("head.onnx")).unwrap();
    assert_refused(&copy, "files", "`head.onnx` is a link to `");
    assert_refused(float32().set("graphs", "head", "../head.onnx"), "files", "`../head.onnx`");
    let copy = float32();
    fs::File::create(copy.path().join("verification.jsonl")).unwrap().set_len((64 << 20) + 1).unwrap();
    assert_refused(&copy, "files", "`verification.jsonl` has more than 67108864 bytes");
}

#[test]
fn rows_that_fit_no_window_leave_nothing_to_compare() {
    let copy = ModelCopy::of(&small_model("stepped-float32"));
    let corpus = String::from_utf8(copy.read("verification.jsonl")).unwrap();
    let ids = |row: &str| serde_json::from_str::<Value>(row).unwrap()["input_ids"].as_array().unwrap().len();
    let long: Vec<&str> = corpus.lines().filter(|row| ids(row) > 32).collect();
    assert!(!long.is_empty(), "every row fits a window of 32 tokens");
    copy.replace("verification.jsonl", long.join("\n").as_bytes());
    let checks = checks(&verify(copy.path().to_str().unwrap()).expect(0));
    assert_eq!(checks["reference logits"], "skipped: no row of the corpus has logits");
    for name in ["unrolled graph", "grouping"] {
        assert_eq!(checks[name], "skipped: no row of the corpus fits a window");
    }
}

#[test]
fn dynamic_scales_are_reported_and_no_failure() {
    let copy = ModelCopy::of(&small_model("stepped-int8"));
    copy.replace_by("layer.onnx", "layer-dynamic.onnx").without_unrolled();
    let answer = verify(copy.path().to_str().unwrap()).expect(0);
    let checks = checks(&answer);
    assert!(checks["grouping"].starts_with("ok: scales are dynamic: a group moves a logit by up to "), "{checks:#?}");
    assert!(checks["unrolled graph"].starts_with("skipped: "), "{checks:#?}");
}

#[test]
fn configured_models_are_listed_with_what_their_folders_say() {
    let setup = Setup::with_config(&format!(
        "{CONFIG}\n[models.answers]\npath = \"tests/fixtures/models/pair-int8\"\n[models.groups]\npath = \"tests/fixtures/models/two-groups-float32\"\n"
    ));
    let answer = setup.run(["model", "list"], "").expect(0);
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let rows: Vec<Vec<String>> = answer.stdout.lines().map(words).collect();
    assert_eq!(rows.len(), 4, "{answer:#?}");
    assert_eq!(rows[1][..3], ["albert-sentiment", &shipped_version("albert-sentiment"), "sentiment"]);
    let expected = [
        "answers",
        "1",
        "entailment",
        "entailment,",
        "neutral,",
        "contradiction",
        "en",
        "pair",
        "stepped",
        "int8",
        "2",
    ];
    assert_eq!(rows[2][..expected.len()], expected);
    let groups = setup.run(["model", "list", "--json"], "").expect(0).json()[2].clone();
    let fields = ["model", "version", "pair", "graphs", "precision", "passes", "max_length"]
        .map(|field| groups[field].to_string());
    assert_eq!(fields, ["\"groups\"", "\"1\"", "false", "\"unrolled\"", "\"float32\"", "2", "32"]);
    assert!(groups["bytes"].as_u64().unwrap() > 10_000, "{groups:#}");
}

#[test]
fn a_folder_that_cannot_be_opened_is_listed_with_its_problem() {
    let setup = Setup::with_config(&format!("{CONFIG}\n[models.gone]\npath = \"nowhere\"\n"));
    let answer = setup.run(["model", "list"], "").expect(1).says("1 of 2 model(s) cannot be served");
    let answer = answer.prints("cannot read `model.toml`").prints("albert-sentiment");
    assert_eq!(answer.stdout.lines().count(), 3, "{answer:#?}");
    let listed = setup.run(["model", "list", "--json"], "").expect(1).json();
    assert!(listed[1]["problem"].as_str().unwrap().starts_with("cannot read `model.toml`: "), "{listed:#}");
}
