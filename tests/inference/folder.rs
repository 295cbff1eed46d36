//! Model folders that are damaged or foreign: each is refused with its own message.

use std::{fs, path::Path};

use albertine::{engine::session::ModelSession, model::folder::Model};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::{model_folder, runtime};

/// A copy of the bundled model, to be broken.
struct Copy(TempDir);

impl Copy {
    fn new() -> Self {
        let copy = Self(TempDir::new().unwrap());
        for entry in fs::read_dir(model_folder()).unwrap().map(Result::unwrap) {
            fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
        copy
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Changes a line of the manifest.
    fn set(&self, section: &str, key: &str, value: impl Into<toml::Value>) -> &Self {
        let path = self.path().join("model.toml");
        let mut manifest: toml::Table = fs::read_to_string(&path).unwrap().parse().unwrap();
        let table = match section {
            "" => &mut manifest,
            section => manifest[section].as_table_mut().unwrap(),
        };
        assert!(table.insert(key.into(), value.into()).is_some(), "`{section}.{key}` was not there before");
        fs::write(&path, toml::to_string(&manifest).unwrap()).unwrap();
        self
    }

    /// Replaces a file and states its hash, as if it had been exported so.
    fn replace(&self, file: &str, bytes: &[u8]) -> &Self {
        fs::write(self.path().join(file), bytes).unwrap();
        let hash = hex::encode(Sha256::digest(bytes));
        self.set("sha256", file, hash)
    }

    /// Why it is refused, without the name of the folder.
    fn refusal(&self) -> String {
        let error = Model::open(self.path()).expect_err("the folder is broken").to_string();
        let prefix = format!("model folder `{}`: ", self.path().display());
        error.strip_prefix(&prefix).unwrap_or_else(|| panic!("`{error}` does not name the folder")).to_owned()
    }
}

#[test]
fn a_copy_that_is_whole_is_accepted() {
    let copy = Copy::new();
    let model = Model::open(copy.set("", "version", "copied").path()).unwrap();
    assert_eq!(&*model.version, "copied");
    ModelSession::open(runtime(), &model).unwrap().infer(&[&[101, 102]]).unwrap();
}

#[test]
fn a_file_that_was_changed_is_told_by_its_hash() {
    for file in ["embed.onnx", "layer.onnx", "head.onnx", "tokenizer.json"] {
        let copy = Copy::new();
        let mut bytes = fs::read(copy.path().join(file)).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(copy.path().join(file), bytes).unwrap();
        let refusal = copy.refusal();
        assert!(refusal.starts_with(&format!("`{file}` has SHA-256 `")), "{refusal}");
        assert!(refusal.ends_with("the file is damaged or was replaced; restore the folder"), "{refusal}");
    }
}

#[test]
fn a_missing_file_is_named() {
    for file in ["embed.onnx", "layer.onnx", "head.onnx", "tokenizer.json", "model.toml"] {
        let copy = Copy::new();
        fs::remove_file(copy.path().join(file)).unwrap();
        let refusal = copy.refusal();
        assert!(refusal.starts_with(&format!("cannot read `{file}`: ")), "{refusal}");
    }
    let nowhere = Model::open("nowhere".as_ref()).unwrap_err().to_string();
    assert!(nowhere.starts_with("model folder `nowhere`: cannot read `model.toml`: "), "{nowhere}");
}

#[test]
fn a_file_cannot_lie_outside_its_folder() {
    let outside = TempDir::new().unwrap();
    let elsewhere = outside.path().join("head.onnx");
    fs::write(&elsewhere, b"").unwrap();
    for name in ["../head.onnx", "deeper/head.onnx", "head.onnx/", "..", "", elsewhere.to_str().unwrap()] {
        let copy = Copy::new();
        let hash = toml::Value::from("00");
        copy.set("graphs", "head", name);
        let path = copy.path().join("model.toml");
        let mut manifest: toml::Table = fs::read_to_string(&path).unwrap().parse().unwrap();
        manifest["sha256"].as_table_mut().unwrap().insert(name.into(), hash);
        fs::write(&path, toml::to_string(&manifest).unwrap()).unwrap();
        let expected = format!("`{name}` is not a plain file name: files of a model lie in its own folder");
        assert_eq!(copy.refusal(), expected);
    }
}

#[test]
fn a_file_without_a_hash_is_not_loaded() {
    let copy = Copy::new();
    fs::copy(copy.path().join("head.onnx"), copy.path().join("other.onnx")).unwrap();
    copy.set("graphs", "head", "other.onnx");
    assert_eq!(copy.refusal(), "`other.onnx` is loaded but has no entry under `[sha256]` in `model.toml`");
}

#[test]
fn a_newer_format_asks_for_an_upgrade_also_where_it_has_keys_unknown_here() {
    let copy = Copy::new();
    copy.set("", "format", 2);
    let path = copy.path().join("model.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("new_key = true\n{text}")).unwrap();
    assert_eq!(copy.refusal(), "`model.toml` has format `2`, and this program reads up to `1`: upgrade albertine");
}

#[test]
fn a_manifest_is_told_which_key_is_wrong() {
    let labels = |labels: &[&str]| toml::Value::from(labels.to_vec());
    let cases: [(&str, &str, toml::Value, &str); 9] = [
        (
            "calibration",
            "temperature",
            0.0.into(),
            "`calibration.temperature` in `model.toml` must be above zero, not `0`",
        ),
        (
            "calibration",
            "temperature",
            (-1.5).into(),
            "`calibration.temperature` in `model.toml` must be above zero, not `-1.5`",
        ),
        (
            "calibration",
            "temperature",
            f64::NAN.into(),
            "`calibration.temperature` in `model.toml` must be above zero, not `NaN`",
        ),
        (
            "",
            "labels",
            labels(&["good", "good"]),
            "`labels` in `model.toml` must name at least two different labels, not [\"good\", \"good\"]",
        ),
        (
            "",
            "labels",
            labels(&["good"]),
            "`labels` in `model.toml` must name at least two different labels, not [\"good\"]",
        ),
        ("", "name", "".into(), "`name` in `model.toml` must not be empty, and must not hold a slash"),
        ("", "version", "".into(), "`version` in `model.toml` must not be empty, and must not hold a slash"),
        ("", "task", "".into(), "`task` in `model.toml` must not be empty, and must not hold a slash"),
        (
            "input",
            "window_overlap",
            254.into(),
            "`tokenizer.json`: a window of `256` tokens with `2` special tokens and an overlap of `254` leaves no room for text",
        ),
    ];
    for (section, key, value, expected) in cases {
        let copy = Copy::new();
        copy.set("input", "max_length", 256).set(section, key, value);
        assert_eq!(copy.refusal(), expected);
    }
}

#[test]
fn what_is_no_manifest_is_told_where() {
    let cases = [
        ("format = 1", "missing field `name`"),
        ("format = ", "TOML parse error at line 1"),
        ("\u{0}", "TOML parse error at line 1"),
    ];
    for (text, expected) in cases {
        let copy = Copy::new();
        fs::write(copy.path().join("model.toml"), text).unwrap();
        let refusal = copy.refusal();
        assert!(refusal.starts_with("`model.toml` is not a manifest: "), "{refusal}");
        assert!(refusal.contains(expected), "{refusal} does not say `{expected}`");
    }
    let copy = Copy::new();
    copy.set("architecture", "kind", "bert");
    assert!(copy.refusal().contains("unknown variant `bert`, expected `albert`"), "{}", copy.refusal());
    copy.set("architecture", "kind", "albert").set("architecture", "passes", 0);
    assert!(copy.refusal().contains("expected a nonzero usize"), "{}", copy.refusal());
}

#[test]
fn a_vocabulary_smaller_than_the_tokenizers_is_refused() {
    let copy = Copy::new();
    copy.set("architecture", "vocabulary_size", 1000);
    let refusal = copy.refusal();
    assert!(refusal.starts_with("`tokenizer.json`: token id `"), "{refusal}");
    assert!(refusal.ends_with("` is not below the model's vocabulary size `1000`"), "{refusal}");
}

#[test]
fn what_is_no_tokenizer_is_refused() {
    let copy = Copy::new();
    copy.replace("tokenizer.json", b"{}");
    let refusal = copy.refusal();
    assert!(refusal.starts_with("`tokenizer.json`: cannot read the tokenizer: "), "{refusal}");
}

#[test]
fn a_graph_that_was_cut_off_is_named() {
    for (graph, file) in [("embed", "embed.onnx"), ("layer", "layer.onnx"), ("head", "head.onnx")] {
        let copy = Copy::new();
        let bytes = fs::read(copy.path().join(file)).unwrap();
        copy.replace(file, &bytes[..bytes.len() / 2]);
        let model = Model::open(copy.path()).unwrap();
        let error = ModelSession::open(runtime(), &model).map(drop).unwrap_err().to_string();
        let expected = format!("model `{}`: cannot open the `{graph}` graph: ", model.name);
        assert!(error.starts_with(&expected), "{error}");
    }
}

#[test]
fn graphs_in_the_wrong_place_are_told_by_their_inputs() {
    let copy = Copy::new();
    let layer = fs::read(copy.path().join("layer.onnx")).unwrap();
    copy.replace("head.onnx", &layer);
    let model = Model::open(copy.path()).unwrap();
    let error = ModelSession::open(runtime(), &model).map(drop).unwrap_err().to_string();
    assert!(error.contains("the `head` graph has inputs"), "{error}");
    assert!(error.contains("lengths"), "{error} does not say which inputs it has");
}

#[test]
fn labels_of_another_number_than_the_logits_are_refused() {
    for labels in [vec!["negative", "positive"], vec!["a", "b", "c", "d"]] {
        let copy = Copy::new();
        copy.set("", "labels", labels.clone());
        let model = Model::open(copy.path()).unwrap();
        let error = ModelSession::open(runtime(), &model)
            .map_err(|error| error.to_string())
            .and_then(|mut session| session.infer(&[&[101, 102]]).map_err(|error| error.to_string()))
            .expect_err("the labels do not fit the graph");
        assert!(error.contains("the labels in `model.toml` do not fit the graph"), "{error}");
        assert!(error.contains(&format!("not [1, {}]", labels.len())), "{error}");
    }
}
