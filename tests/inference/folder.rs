//! Model folders that are damaged or foreign: each is refused with its own message.

use std::fs;

use albertine::{engine::session::ModelSession, model::folder::Model, text::tokenize::Tokens};
use tempfile::TempDir;

use super::{model_folder, runtime};
use crate::support::models::{ModelCopy, small_model};

/// A copy of the bundled model.
fn copy_of_bundled() -> ModelCopy {
    ModelCopy::of(&model_folder())
}

impl ModelCopy {
    /// Why it is refused, without the name of the folder.
    fn refusal(&self) -> String {
        let error = Model::open(self.path()).expect_err("the folder is broken").to_string();
        let prefix = format!("model folder `{}`: ", self.path().display());
        error.strip_prefix(&prefix).unwrap_or_else(|| panic!("`{error}` does not name the folder")).to_owned()
    }
}

#[test]
fn a_copy_that_is_whole_is_accepted() {
    let copy = copy_of_bundled();
    let model = Model::open(copy.set("", "version", "copied").path()).unwrap();
    assert_eq!(&*model.version, "copied");
    ModelSession::open(runtime(), &model).unwrap().infer(&[Tokens::single(&[101, 102])]).unwrap();
}

#[test]
fn a_file_that_was_changed_is_told_by_its_hash() {
    for file in ["embed.onnx", "layer1.onnx", "layer4.onnx", "head.onnx", "tokenizer.json"] {
        let copy = copy_of_bundled();
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
    for file in ["embed.onnx", "layer1.onnx", "layer4.onnx", "head.onnx", "tokenizer.json", "model.toml"] {
        let copy = copy_of_bundled();
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
        let copy = copy_of_bundled();
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
    let copy = copy_of_bundled();
    fs::copy(copy.path().join("head.onnx"), copy.path().join("other.onnx")).unwrap();
    copy.set("graphs", "head", "other.onnx");
    assert_eq!(copy.refusal(), "`other.onnx` is loaded but has no entry under `[sha256]` in `model.toml`");
}

#[test]
fn another_format_is_told_apart_also_where_it_has_keys_unknown_here() {
    let cases = [
        (
            2,
            "`model.toml` has format `2`, older than the `3` that this program reads: convert the model again with `albertine-models convert`",
        ),
        (
            4,
            "`model.toml` has format `4`, newer than the `3` that this program reads: upgrade albertine, or convert the model again with the `albertine-models` of this version",
        ),
    ];
    for (format, expected) in cases {
        let copy = copy_of_bundled();
        copy.set("", "format", format);
        let text = String::from_utf8(copy.read("model.toml")).unwrap();
        copy.write("model.toml", format!("new_key = true\n{text}").as_bytes());
        assert_eq!(copy.refusal(), expected);
    }
}

#[test]
fn a_link_leads_to_files_of_the_folder_only() {
    let outside = TempDir::new().unwrap();
    let copy = copy_of_bundled();
    let (inside, moved) = (copy.path().join("head.onnx"), copy.path().join("moved.onnx"));
    fs::rename(&inside, &moved).unwrap();
    std::os::unix::fs::symlink("moved.onnx", &inside).unwrap();
    Model::open(copy.path()).expect("a link inside the folder is followed");
    let elsewhere = outside.path().join("head.onnx");
    fs::rename(&moved, &elsewhere).unwrap();
    fs::remove_file(&inside).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &inside).unwrap();
    let expected = format!(
        "`head.onnx` is a link to `{}`, out of the folder: files of a model lie in its own folder",
        elsewhere.canonicalize().unwrap().display()
    );
    assert_eq!(copy.refusal(), expected);
}

#[test]
fn a_file_has_a_largest_size() {
    let copy = copy_of_bundled();
    copy.write("model.toml", &vec![b'#'; (1 << 20) + 1]);
    assert_eq!(copy.refusal(), "`model.toml` has more than 1048576 bytes");
    let copy = copy_of_bundled();
    // Without content: it takes no room on the disk.
    fs::File::create(copy.path().join("tokenizer.json")).unwrap().set_len((256 << 20) + 1).unwrap();
    assert_eq!(copy.refusal(), "`tokenizer.json` has more than 268435456 bytes");
}

#[test]
fn a_graph_is_served_only_if_it_is_whole_and_of_known_operators() {
    let copy = ModelCopy::of(&small_model("stepped-float32"));
    Model::open(copy.path()).unwrap();
    copy.replace_by("head.onnx", "head-external.onnx");
    assert_eq!(
        copy.refusal(),
        "`head.onnx`: the weights `pooler` lie in another file: save the graph without external data"
    );
    copy.replace_by("head.onnx", "head-domain.onnx");
    assert_eq!(
        copy.refusal(),
        "`head.onnx`: the operator `Tanh` is of the domain `example.com`, which needs code of its own: only ONNX's and `com.microsoft` are run"
    );
}

#[test]
fn only_a_pair_has_a_text_to_choose() {
    let copy = ModelCopy::of(&small_model("pair-float32"));
    copy.set("input", "windowed", "text_pair");
    assert!(Model::open(copy.path()).unwrap().tokenizer.reads_pairs());
    copy.set("input", "pair", false);
    assert_eq!(
        copy.refusal(),
        "`input.windowed` in `model.toml` chooses between the texts of a pair, and `input.pair` is false"
    );
}

#[test]
fn a_manifest_is_told_which_key_is_wrong() {
    let labels = |labels: &[&str]| toml::Value::from(labels.to_vec());
    let cases: [(&str, &str, toml::Value, &str); 12] = [
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
            "calibration",
            "window_independence",
            1.5.into(),
            "`calibration.window_independence` in `model.toml` must be from 0 to 1, not `1.5`",
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
        ("", "name", "".into(), "`name` in `model.toml` must not be empty, and must not hold a slash or a zero byte"),
        (
            "",
            "version",
            "".into(),
            "`version` in `model.toml` must not be empty, and must not hold a slash or a zero byte",
        ),
        ("", "task", "".into(), "`task` in `model.toml` must not be empty, and must not hold a slash or a zero byte"),
        (
            "graphs",
            "layers",
            toml::Value::Array(Vec::new()),
            "`graphs.layers` in `model.toml` must be called in turn, each equally often: 8 passes are no multiple of 0",
        ),
        (
            "graphs",
            "layers",
            vec!["layer1.onnx"; 3].into(),
            "`graphs.layers` in `model.toml` must be called in turn, each equally often: 8 passes are no multiple of 3",
        ),
        (
            "input",
            "window_overlap",
            254.into(),
            "`tokenizer.json`: a window of `256` tokens with `2` special tokens and an overlap of `254` leaves no room for text",
        ),
    ];
    for (section, key, value, expected) in cases {
        let copy = copy_of_bundled();
        copy.set("input", "max_length", 256).set(section, key, value);
        assert_eq!(copy.refusal(), expected);
    }
}

#[test]
fn a_manifest_asks_for_nothing_that_cannot_be_stored_or_computed() {
    let cases: [(&str, &str, toml::Value, &str); 4] = [
        (
            "",
            "task",
            "a\0".into(),
            "`task` in `model.toml` must not be empty, and must not hold a slash or a zero byte",
        ),
        (
            "",
            "labels",
            vec!["good", "\0"].into(),
            "`labels` in `model.toml` must not be empty, and must not hold a zero byte: [\"good\", \"\\0\"]",
        ),
        ("input", "max_length", 8193.into(), "`input.max_length` in `model.toml` must be at most 8192, not `8193`"),
        (
            "architecture",
            "passes",
            1025.into(),
            "`architecture.passes` in `model.toml` must be at most 1024, not `1025`",
        ),
    ];
    for (section, key, value, expected) in cases {
        assert_eq!(copy_of_bundled().set(section, key, value).refusal(), expected);
    }
}

#[test]
fn what_is_no_manifest_is_told_where() {
    let cases = [
        ("format = 3", "missing field `name`"),
        ("format = ", "TOML parse error at line 1"),
        ("\u{0}", "TOML parse error at line 1"),
    ];
    for (text, expected) in cases {
        let copy = copy_of_bundled();
        fs::write(copy.path().join("model.toml"), text).unwrap();
        let refusal = copy.refusal();
        assert!(refusal.starts_with("`model.toml` is not a manifest: "), "{refusal}");
        assert!(refusal.contains(expected), "{refusal} does not say `{expected}`");
    }
    let copy = copy_of_bundled();
    copy.set("architecture", "kind", "bert");
    assert_eq!(copy.refusal(), "`architecture.kind` in `model.toml` is `bert`, and this program runs `albert` only");
    copy.set("architecture", "kind", "albert").set("architecture", "passes", 0);
    assert!(copy.refusal().contains("expected a nonzero usize"), "{}", copy.refusal());
}

#[test]
fn a_vocabulary_smaller_than_the_tokenizers_is_refused() {
    let copy = copy_of_bundled();
    copy.set("architecture", "vocabulary_size", 1000);
    let refusal = copy.refusal();
    assert!(refusal.starts_with("`tokenizer.json`: token id `"), "{refusal}");
    assert!(refusal.ends_with("` is not below the model's vocabulary size `1000`"), "{refusal}");
}

#[test]
fn what_is_no_tokenizer_is_refused() {
    let copy = copy_of_bundled();
    copy.replace("tokenizer.json", b"{}");
    let refusal = copy.refusal();
    assert!(refusal.starts_with("`tokenizer.json`: cannot read the tokenizer: "), "{refusal}");
}

#[test]
fn a_graph_that_was_cut_off_is_named() {
    for file in ["embed.onnx", "layer1.onnx", "layer4.onnx", "head.onnx"] {
        let copy = copy_of_bundled();
        let bytes = copy.read(file);
        copy.replace(file, &bytes[..bytes.len() / 2]);
        let refusal = copy.refusal();
        assert!(refusal.starts_with(&format!("`{file}`: it is no ONNX file, or was cut off: ")), "{refusal}");
    }
}

#[test]
fn graphs_in_the_wrong_place_are_told_by_their_inputs() {
    let copy = copy_of_bundled();
    let layer = fs::read(copy.path().join("layer1.onnx")).unwrap();
    copy.replace("head.onnx", &layer);
    let model = Model::open(copy.path()).unwrap();
    let error = ModelSession::open(runtime(), &model).map(drop).unwrap_err().to_string();
    assert!(error.contains("the `head` graph has inputs"), "{error}");
    assert!(error.contains("lengths"), "{error} does not say which inputs it has");
}

#[test]
fn labels_of_another_number_than_the_logits_are_refused() {
    for labels in [vec!["negative", "positive"], vec!["a", "b", "c", "d"]] {
        let copy = copy_of_bundled();
        copy.set("", "labels", labels.clone());
        let model = Model::open(copy.path()).unwrap();
        let error = ModelSession::open(runtime(), &model)
            .map_err(|error| error.to_string())
            .and_then(|mut session| session.infer(&[Tokens::single(&[101, 102])]).map_err(|error| error.to_string()))
            .expect_err("the labels do not fit the graph");
        assert!(error.contains("the labels in `model.toml` do not fit the graph"), "{error}");
        assert!(error.contains(&format!("not [1, {}]", labels.len())), "{error}");
    }
}
