//! Whether the tokenizer gives what the exporter's own gave, token by token.

use super::{Finding, corpus::Corpus};
use crate::{
    model::{folder::tokenizer_limits, manifest::Manifest},
    text::tokenize::TextTokenizer,
};

/// Reads the tokenizer, and compares its sizes with the manifest.
pub fn open(json: &[u8], manifest: &Manifest) -> Result<(TextTokenizer, String), String> {
    let tokenizer = TextTokenizer::from_bytes(json, tokenizer_limits(manifest));
    let tokenizer = tokenizer.map_err(|error| format!("`tokenizer.json`: {error}"))?;
    Ok((tokenizer, "fits the vocabulary and the window".into()))
}

/// Compares ids and token types of every row.
pub fn compare(tokenizer: &TextTokenizer, corpus: &Corpus) -> Finding {
    let mut first = None;
    let mut different = 0;
    for row in &corpus.rows {
        let found = tokenizer.whole(row.texts()).map_err(|error| format!("{}: {error}", row.place))?;
        if found.ids != row.input_ids || found.second_from != row.second_from() {
            different += 1;
            first.get_or_insert_with(|| format!("{}: {}", row.place, difference(&found.ids, &row.input_ids)));
        }
    }
    let rows = corpus.rows.len();
    match first {
        None => Ok(format!("those of the exporter in all {rows} rows")),
        Some(first) => Err(format!(
            "the tokenizer gives other ids than the exporter's in {different} of {rows} rows; first in {first}: `tokenizer.json` is not the one the model was trained with"
        )),
    }
}

/// Where two lists of ids part.
fn difference(found: &[u32], expected: &[u32]) -> String {
    let at = found.iter().zip(expected).position(|(found, expected)| found != expected);
    let Some(at) = at.or_else(|| (found.len() != expected.len()).then(|| found.len().min(expected.len()))) else {
        return "the token types differ".into();
    };
    let id = |ids: &[u32]| ids.get(at).map_or_else(|| "missing".into(), |id| format!("`{id}`"));
    format!("token {at} of {} is {}, the exporter's {} of {}", found.len(), id(found), id(expected), expected.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_part_where_they_differ_or_one_list_ends() {
        assert_eq!(difference(&[1, 2, 3], &[1, 4, 3]), "token 1 of 3 is `2`, the exporter's `4` of 3");
        assert_eq!(difference(&[1], &[1, 4]), "token 1 of 1 is missing, the exporter's `4` of 2");
        assert_eq!(difference(&[1, 2], &[1, 2]), "the token types differ");
    }
}
