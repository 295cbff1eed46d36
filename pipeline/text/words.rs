//! The ids of a text, put together from those of its words, which are kept: words repeat themselves, and a tokenizer takes
//! many times as long over one as a look into a table.
//!
//! Guarantee: the ids are those that the tokenizer gives the whole text. Where its file does not promise that of words,
//! each text goes through it whole.

use std::{iter, sync::Arc};

use quick_cache::sync::Cache;
use serde::Deserialize;
use tokenizers::Tokenizer;

/// Words that are kept, of all texts; some 5 MiB at most. Of English reviews that is the vocabulary but for names and
/// slips of the pen, which do not come again anyway.
const WORDS_MAX: usize = 32_768;
/// Longer ones, in bytes, are not kept: addresses, numbers, and languages that write without spaces.
const WORD_BYTES_MAX: usize = 32;

/// A tokenizer that remembers words.
pub(super) struct WordTokenizer {
    tokenizer: Tokenizer,
    /// `None` where a word's ids depend on what stands beside it.
    words: Option<Cache<Box<str>, Arc<[u32]>>>,
}

impl WordTokenizer {
    /// `json` is the file that the tokenizer was made of.
    pub(super) fn new(tokenizer: Tokenizer, json: &[u8]) -> Self {
        Self { tokenizer, words: reads_word_by_word(json).then(|| Cache::new(WORDS_MAX)) }
    }

    /// The ids of a text, without special tokens around it.
    pub(super) fn ids(&self, text: &str) -> tokenizers::Result<Vec<u32>> {
        let Some(words) = &self.words else { return self.whole(text) };
        let mut ids = Vec::with_capacity(text.len() / 4);
        for word in words_of(text) {
            if let Some(known) = words.get(word) {
                ids.extend_from_slice(&known);
                continue;
            }
            let of_word = self.whole(word)?;
            ids.extend_from_slice(&of_word);
            if word.len() <= WORD_BYTES_MAX {
                words.insert(word.into(), of_word.into());
            }
        }
        Ok(ids)
    }

    fn whole(&self, text: &str) -> tokenizers::Result<Vec<u32>> {
        Ok(self.tokenizer.encode_fast(text, false)?.get_ids().to_vec())
    }

    /// Tokens that it knows.
    pub(super) fn vocabulary_size(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// What a token stands for; `None` of an id that stands for nothing.
    pub(super) fn decode(&self, id: u32) -> Option<String> {
        self.tokenizer.decode(&[id], true).ok()
    }
}

/// The text cut at each space that stands alone between visible ASCII characters. No normalisation of Unicode joins a
/// character with those, so that none sees a difference between a space there and the end of the text.
fn words_of(text: &str) -> impl Iterator<Item = &str> {
    let bytes = text.as_bytes();
    let is_visible = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_graphic);
    let spaces = memchr::memchr_iter(b' ', bytes).filter(move |at| *at > 0 && is_visible(at - 1) && is_visible(at + 1));
    spaces.chain(iter::once(bytes.len())).scan(0, |start, end| {
        let word = &text[*start..end];
        *start = end + 1;
        Some(word)
    })
}

/// Whether a text's ids are those of its words, one after the other: all that a tokenizer does before its model has to
/// look at no more than a word, and to part words at spaces. A model looks at what was parted, and at nothing else.
fn reads_word_by_word(json: &[u8]) -> bool {
    let Ok(TokenizerFile { normalizer, pre_tokenizer, added_tokens }) = serde_json::from_slice(json) else {
        return false;
    };
    normalizer.is_none_or(|normalizer| normalizer.is_local())
        && pre_tokenizer.is_some_and(|pre_tokenizer| pre_tokenizer.is_local() && pre_tokenizer.parts_at_spaces())
        && added_tokens.iter().all(|token| !token.content.contains(' '))
}

/// What is looked at of a `tokenizer.json`.
#[derive(Deserialize)]
struct TokenizerFile {
    normalizer: Option<Normalizer>,
    pre_tokenizer: Option<PreTokenizer>,
    added_tokens: Vec<AddedToken>,
}

#[derive(Deserialize)]
struct AddedToken {
    content: String,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Normalizer {
    #[serde(rename = "BertNormalizer")]
    Bert,
    #[serde(rename = "NFC")]
    Nfc,
    #[serde(rename = "NFD")]
    Nfd,
    #[serde(rename = "NFKC")]
    Nfkc,
    #[serde(rename = "NFKD")]
    Nfkd,
    Nmt,
    Lowercase,
    StripAccents,
    /// Of the text's ends.
    Strip,
    /// A table of characters.
    Precompiled,
    Replace {
        pattern: Pattern,
    },
    Sequence {
        normalizers: Vec<Self>,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
enum Pattern {
    String(String),
    Regex(String),
}

impl Normalizer {
    fn is_local(&self) -> bool {
        match self {
            Self::Replace { pattern: Pattern::String(pattern) } => !pattern.contains(' '),
            // What ALBERT's has: spaces that do not stand alone.
            Self::Replace { pattern: Pattern::Regex(pattern) } => pattern == " {2,}",
            Self::Sequence { normalizers } => normalizers.iter().all(Self::is_local),
            Self::Other => false,
            _ => true,
        }
    }
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum PreTokenizer {
    #[serde(rename = "BertPreTokenizer")]
    Bert,
    Whitespace,
    WhitespaceSplit,
    Punctuation,
    Metaspace {
        prepend_scheme: Option<String>,
    },
    Sequence {
        pretokenizers: Vec<Self>,
    },
    #[serde(other)]
    Other,
}

impl PreTokenizer {
    fn is_local(&self) -> bool {
        match self {
            // The mark of a word's beginning stands before a text's first word as well.
            Self::Metaspace { prepend_scheme } => prepend_scheme.as_deref().is_none_or(|scheme| scheme == "always"),
            Self::Sequence { pretokenizers } => pretokenizers.iter().all(Self::is_local),
            Self::Other => false,
            _ => true,
        }
    }

    /// Whether words are parted before anything else, and nothing is left of the spaces between them. `Metaspace` alone
    /// makes a token of a space that stands before an added token.
    fn parts_at_spaces(&self) -> bool {
        match self {
            Self::Bert | Self::Whitespace | Self::WhitespaceSplit => true,
            Self::Sequence { pretokenizers } => pretokenizers.first().is_some_and(Self::parts_at_spaces),
            Self::Punctuation | Self::Metaspace { .. } | Self::Other => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::{collection::vec, prelude::*};
    use serde_json::json;

    use super::*;

    fn word_tokenizer(json: &[u8]) -> WordTokenizer {
        WordTokenizer::new(Tokenizer::from_bytes(json).unwrap(), json)
    }

    /// That of the bundled model: its words are cut into known pieces.
    fn bundled() -> WordTokenizer {
        word_tokenizer(include_bytes!("../../models/albert-sentiment/tokenizer.json"))
    }

    fn parts_of_albert() -> serde_json::Value {
        json!({
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Replace", "pattern": {"String": "``"}, "content": "\""},
                {"type": "Replace", "pattern": {"String": "''"}, "content": "\""},
                {"type": "NFKD"}, {"type": "StripAccents"}, {"type": "Lowercase"},
                {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"},
                {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true}]},
            "added_tokens": [
                {"id": 2, "content": "[MASK]", "single_word": false, "lstrip": true, "rstrip": false,
                 "normalized": false, "special": true},
                {"id": 3, "content": "good", "single_word": true, "lstrip": false, "rstrip": true,
                 "normalized": true, "special": false}],
        })
    }

    /// The parts of ALBERT's own tokenizer in front of a small model of unigrams.
    fn unigrams() -> WordTokenizer {
        let mut file = parts_of_albert();
        let pieces = ["▁", "▁a", "a", "b", "▁b", "ab", "e", "▁e", ".", "\"", "'", "g", "o", "d", "1", "2"];
        let vocabulary: Vec<_> = [("<unk>", -9.0), ("[PAD]", 0.0)]
            .into_iter()
            .chain([("[MASK]", 0.0), ("good", 0.0)])
            .chain(pieces.iter().enumerate().map(|(index, piece)| (*piece, -1.0 - index as f64 / 10.0)))
            .collect();
        file["version"] = json!("1.0");
        file["model"] = json!({"type": "Unigram", "unk_id": 0, "vocab": vocabulary});
        word_tokenizer(&serde_json::to_vec(&file).unwrap())
    }

    /// Texts of what tokenizers treat in ways of their own.
    fn texts() -> impl Strategy<Value = String> {
        let spaces = [" ", " ", " ", " ", " ", " ", "  ", "   ", "\t", "\n", "\r\n", "\u{a0}", "\u{3000}", "▁"];
        let marks = ["\u{200b}", "\u{200d}", "\u{301}", "\u{600}", "\u{0}", "\u{7f}", "\u{fffd}", "\u{ad}", "\u{feff}"];
        let signs = ["''", "``", "\"", ".", "...", "!?", "12", "½", "🎉", "中文", "日本"];
        let words = ["a", "b", "Ab", "good", "it's", "don't", "e\u{301}", "é", "É", "ﬁ", "Σ", "ΑΣ", "ß", "İ", "x"];
        let long = ["[MASK]", "[CLS]", "[UNK]", "[MASK", "<br />", "👩\u{200d}👩", "1,000.50", "incomprehensibilities"];
        let pieces = [&spaces[..], &marks, &signs, &words, &long].concat();
        vec(prop::sample::select(pieces), 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn a_text_has_the_ids_it_has_as_a_whole(texts in vec(texts(), 1..8)) {
            static TOKENIZERS: LazyLock<[WordTokenizer; 2]> = LazyLock::new(|| [bundled(), unigrams()]);
            for tokenizer in &*TOKENIZERS {
                for text in &texts {
                    // The second time its words are known.
                    for _ in 0..2 {
                        prop_assert_eq!(tokenizer.ids(text).unwrap(), tokenizer.whole(text).unwrap(), "{:?}", text);
                    }
                }
            }
        }
    }

    #[test]
    fn words_part_at_spaces_that_stand_alone_between_visible_ascii() {
        let cases: [(&str, &[&str]); 7] = [
            ("", &[""]),
            ("one", &["one"]),
            ("It works. Well!", &["It", "works.", "Well!"]),
            ("two  spaces here", &["two  spaces", "here"]),
            (" before and after ", &[" before", "and", "after "]),
            ("a\nb c", &["a\nb", "c"]),
            ("à la carte é", &["à la", "carte é"]),
        ];
        for (text, expected) in cases {
            assert_eq!(words_of(text).collect::<Vec<_>>(), expected, "{text:?}");
        }
    }

    #[test]
    fn both_families_of_tokenizers_are_read_word_by_word() {
        assert!(bundled().words.is_some());
        assert!(unigrams().words.is_some());
    }

    #[test]
    fn a_word_is_kept_and_a_long_one_is_not() {
        let tokenizer = bundled();
        let long = "x".repeat(WORD_BYTES_MAX + 1);
        tokenizer.ids(&format!("fine {long} fine")).unwrap();
        let words = tokenizer.words.unwrap();
        assert_eq!((words.len(), words.get("fine").is_some()), (1, true));
    }

    #[test]
    fn a_tokenizer_that_looks_beyond_words_gets_each_text_whole() {
        let changed = |path: &str, value: serde_json::Value| {
            let mut file = parts_of_albert();
            *file.pointer_mut(path).unwrap() = value;
            reads_word_by_word(&serde_json::to_vec(&file).unwrap())
        };
        assert!(changed("/normalizer", json!(null)));
        let parts = [
            ("/normalizer", json!({"type": "Prepend", "prepend": "▁"})),
            ("/normalizer", json!({"type": "Replace", "pattern": {"Regex": "a b"}, "content": "c"})),
            ("/normalizer", json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"})),
            ("/normalizer/normalizers/2", json!({"type": "ByteLevel"})),
            ("/pre_tokenizer", json!(null)),
            ("/pre_tokenizer", json!({"type": "Punctuation", "behavior": "Isolated"})),
            ("/pre_tokenizer", json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true})),
            ("/pre_tokenizer", json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"})),
            ("/pre_tokenizer/pretokenizers/0", json!({"type": "Punctuation", "behavior": "Isolated"})),
            ("/pre_tokenizer/pretokenizers/1/prepend_scheme", json!("first")),
            ("/added_tokens/0/content", json!("New York")),
        ];
        for (path, value) in parts {
            assert!(!changed(path, value.clone()), "{path} {value}");
        }
    }
}
