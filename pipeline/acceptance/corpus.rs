//! The rows of a verification corpus: texts with the exporter's token ids and, where they fit a window, its logits.

use std::path::Path;

use serde::Deserialize;

use crate::{
    model::{files, manifest::Manifest},
    text::tokenize::{Texts, Tokens},
};

/// See the module.
pub struct Corpus {
    pub rows: Vec<Row>,
}

/// One text, or a pair.
#[derive(Debug, Deserialize)]
pub struct Row {
    text: String,
    text_pair: Option<String>,
    /// Special tokens included, neither cut nor padded.
    pub input_ids: Vec<u32>,
    /// Only of pairs.
    token_type_ids: Option<Vec<u8>>,
    /// Float32, in the order of the labels.
    pub logits: Option<Vec<f32>>,
    /// The true one.
    label: Option<String>,
    /// `label` by its index.
    #[serde(skip)]
    pub label_index: Option<usize>,
    /// The file and the line: for messages, which never hold the text.
    #[serde(skip)]
    pub place: String,
}

impl Row {
    pub fn texts(&self) -> Texts<'_> {
        Texts { text: &self.text, pair: self.text_pair.as_deref() }
    }

    /// What the network reads, as the exporter gave it.
    pub fn tokens(&self) -> Tokens<'_> {
        Tokens { ids: &self.input_ids, second_from: self.second_from() }
    }

    /// From which token on they have type 1.
    pub fn second_from(&self) -> usize {
        let types = self.token_type_ids.as_deref().unwrap_or_default();
        types.iter().position(|token_type| *token_type != 0).unwrap_or(self.input_ids.len())
    }
}

impl Corpus {
    /// Those that fit one window.
    pub fn windows(&self, max_length: usize) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.input_ids.len() <= max_length)
    }
}

/// Reads the folder's corpus, and the rows of `extra` after them.
pub fn read(corpus: &[u8], extra: Option<&Path>, manifest: &Manifest) -> Result<(Corpus, String), String> {
    let mut rows = parse(corpus, &manifest.verification.corpus, manifest)?;
    if let Some(path) = extra {
        let bytes = files::read_corpus(path).map_err(|problem| problem.to_string())?;
        rows.extend(parse(&bytes, &path.display().to_string(), manifest)?);
    }
    if rows.is_empty() {
        return Err(format!("`{}` holds no rows: convert the model again", manifest.verification.corpus));
    }
    let with_logits = rows.iter().filter(|row| row.logits.is_some()).count();
    let detail = format!("{} rows, {with_logits} with logits", rows.len());
    Ok((Corpus { rows }, detail))
}

fn parse(bytes: &[u8], file: &str, manifest: &Manifest) -> Result<Vec<Row>, String> {
    let lines = bytes.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.trim_ascii().is_empty());
    let row = |(index, line): (usize, &[u8])| {
        let place = format!("`{file}` line {}", index + 1);
        let row: Row = serde_json::from_slice(line).map_err(|error| format!("{place}: is no row: {error}"))?;
        checked(row, manifest)
            .map(|row| Row { place: place.clone(), ..row })
            .map_err(|error| format!("{place}: {error}"))
    };
    lines.map(row).collect()
}

fn checked(mut row: Row, manifest: &Manifest) -> Result<Row, String> {
    let pair = manifest.input.pair;
    if row.text_pair.is_some() != pair || row.token_type_ids.is_some() != pair {
        let needs = if pair { "needs `text_pair` and `token_type_ids`" } else { "must have a single text" };
        return Err(format!("the row {needs}, as `input.pair` is {pair}"));
    }
    let vocabulary = manifest.architecture.vocabulary_size.get();
    if let Some(id) = row.input_ids.iter().find(|id| **id as usize >= vocabulary) {
        return Err(format!("token id `{id}` is not below the vocabulary size `{vocabulary}`"));
    }
    if let Some(types) = &row.token_type_ids
        && (types.len() != row.input_ids.len() || !types.is_sorted() || types.iter().any(|token_type| *token_type > 1))
    {
        return Err("`token_type_ids` must be zeros, then ones, one for each token".into());
    }
    if let Some(logits) = &row.logits
        && (logits.len() != manifest.labels.len() || logits.iter().any(|logit| !logit.is_finite()))
    {
        return Err(format!("`logits` must be {} finite numbers, one for each label", manifest.labels.len()));
    }
    if let Some(label) = &row.label {
        let index = manifest.labels.iter().position(|known| known == label);
        row.label_index = Some(index.ok_or_else(|| format!("`{label}` is no label of the model"))?);
    }
    Ok(row)
}
