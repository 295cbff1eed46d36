//! Copies of model folders, to be broken.

use std::{
    fs,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::repository;

/// The folder of a small model, such as `stepped-float32`.
pub fn small_model(name: &str) -> PathBuf {
    repository("tests/fixtures/models").join(name)
}

/// The version that the manifest of a model that ships says it has.
pub fn shipped_version(name: &str) -> String {
    let path = repository("models").join(name).join("model.toml");
    let manifest: toml::Table = fs::read_to_string(path).unwrap().parse().unwrap();
    manifest["version"].as_str().unwrap().to_owned()
}

/// A copy of a model folder.
pub struct ModelCopy(TempDir);

impl ModelCopy {
    pub fn of(folder: &Path) -> Self {
        let copy = Self(TempDir::new().unwrap());
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
        copy
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn read(&self, file: &str) -> Vec<u8> {
        fs::read(self.path().join(file)).unwrap()
    }

    /// Changes a line of the manifest; an empty `section` is its beginning.
    pub fn set(&self, section: &str, key: &str, value: impl Into<toml::Value>) -> &Self {
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

    /// Takes the unrolled graph away, which would tell of a layer that was replaced.
    pub fn without_unrolled(&self) -> &Self {
        let manifest = String::from_utf8(self.read("model.toml")).unwrap();
        let without = manifest.lines().filter(|line| *line != "unrolled = \"unrolled.onnx\"");
        let without: Vec<&str> = without.collect();
        assert_eq!(without.len() + 1, manifest.lines().count(), "the folder has an unrolled graph");
        self.write("model.toml", without.join("\n").as_bytes())
    }

    /// Writes a file without stating its hash.
    pub fn write(&self, file: &str, bytes: &[u8]) -> &Self {
        fs::write(self.path().join(file), bytes).unwrap();
        self
    }

    /// Replaces a file and states its hash, as if it had been exported so.
    pub fn replace(&self, file: &str, bytes: &[u8]) -> &Self {
        self.write(file, bytes).set("sha256", file, hex::encode(Sha256::digest(bytes)))
    }

    /// Replaces a file by a variant that the small models come with.
    pub fn replace_by(&self, file: &str, variant: &str) -> &Self {
        self.replace(file, &fs::read(small_model("variants").join(variant)).unwrap())
    }
}
