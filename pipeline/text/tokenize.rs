//! Turns a text, or a pair of texts, into the token ids a model was trained with.
//!
//! Guarantee: where special tokens stand, and which tokens have type 1, is what the tokenizer itself does with a
//! sample. Of a pair only one text is cut into windows; the other stands whole in each of them.

use std::ops::Range;

use serde::Deserialize;
use tokenizers::{EncodeInput, Encoding, Tokenizer};

use super::{
    window::{Window, windows},
    words::WordTokenizer,
};

/// What a model reads of one document.
#[derive(Debug, Clone, Copy)]
pub struct Texts<'a> {
    pub text: &'a str,
    /// The second text; models of single texts do not look at it.
    pub pair: Option<&'a str>,
}

impl<'a> From<&'a str> for Texts<'a> {
    fn from(text: &'a str) -> Self {
        Self { text, pair: None }
    }
}

/// A window ready for the model: special tokens included, no padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenWindow {
    pub ids: Vec<u32>,
    /// Tokens before this position have type 0, those from it on have type 1.
    pub second_from: usize,
    /// How many of the document's tokens this window covers first; its weight in the document's label.
    pub fresh: usize,
}

impl TokenWindow {
    pub fn tokens(&self) -> Tokens<'_> {
        Tokens { ids: &self.ids, second_from: self.second_from }
    }
}

/// What the network reads of a window.
#[derive(Debug, Clone, Copy)]
pub struct Tokens<'a> {
    pub ids: &'a [u32],
    /// As in [`TokenWindow`].
    pub second_from: usize,
}

impl<'a> Tokens<'a> {
    /// All tokens have type 0, as those of a single text.
    pub fn single(ids: &'a [u32]) -> Self {
        Self { ids, second_from: ids.len() }
    }
}

/// Which text of a pair is cut into windows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Windowed {
    #[default]
    Text,
    TextPair,
}

impl Windowed {
    /// The text that stands whole in each window, by the name of its field.
    fn whole(self) -> &'static str {
        match self {
            Self::Text => "text_pair",
            Self::TextPair => "text",
        }
    }

    fn cut(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::TextPair => "text_pair",
        }
    }
}

/// Where the whole text of a pair leaves less than this part of a window, the other is not cut into windows: they would
/// be many and nearly the same, and each would hold too little to be understood.
const ROOM_PART_MIN: usize = 4;

/// A model's tokenizer with the room its windows have.
pub struct TextTokenizer {
    tokenizer: WordTokenizer,
    layout: Layout,
    limits: TokenizerLimits,
}

/// The special tokens around the texts.
struct Layout {
    prefix: Vec<u32>,
    /// Between the texts of a pair.
    middle: Vec<u32>,
    suffix: Vec<u32>,
    /// Special tokens of type 0 behind the first text; of a pair. The second text and what follows has type 1.
    middle_of_first: usize,
}

/// The tokenizer file, or a text, does not work.
#[derive(Debug, thiserror::Error)]
pub enum TokenizeError {
    #[error("cannot read the tokenizer: {0}")]
    Invalid(String),
    #[error("the tokenizer puts no special token around a text: a model of the ALBERT family starts with [CLS]")]
    NoSpecialTokens,
    #[error(
        "the tokenizer gives a sample of {sample} the token types {types:?}: a model of the ALBERT family has 0 for the first text and 1 for the second"
    )]
    TokenTypes { sample: &'static str, types: Vec<u32> },
    #[error(
        "a window of `{max_length}` tokens with `{special}` special tokens and an overlap of `{overlap}` leaves no room for text"
    )]
    NoRoom { max_length: usize, special: usize, overlap: usize },
    #[error("token id `{id}` is not below the model's vocabulary size `{vocabulary_size}`")]
    VocabularyTooSmall { id: u32, vocabulary_size: usize },
    #[error("cannot tokenize the text: {0}")]
    Text(String),
    #[error("the model reads pairs of texts, and there is only one")]
    PairMissing,
    #[error(
        "`{whole}` has {tokens} tokens and leaves {room} of a window's {max_length} for `{cut}`, less than the {room_min} needed: shorten it, or convert the model with `--windowed {whole}`, which cuts it instead"
    )]
    PairTooLong {
        whole: &'static str,
        cut: &'static str,
        tokens: usize,
        room: usize,
        room_min: usize,
        max_length: usize,
    },
}

/// The sizes a tokenizer has to fit.
#[derive(Debug, Clone, Copy)]
pub struct TokenizerLimits {
    /// Tokens of one window, special tokens included.
    pub max_length: usize,
    /// Tokens that neighbouring windows share.
    pub overlap: usize,
    pub vocabulary_size: usize,
    /// `None`: the model reads single texts.
    pub pair: Option<Windowed>,
}

impl TextTokenizer {
    /// Reads a `tokenizer.json`. Its own truncation and padding are switched off: windows replace the
    /// first, and groups of equal length the second.
    ///
    /// # Errors
    /// [`TokenizeError`] where the file is not a tokenizer or does not fit the limits.
    pub fn from_bytes(json: &[u8], limits: TokenizerLimits) -> Result<Self, TokenizeError> {
        let mut tokenizer = Tokenizer::from_bytes(json).map_err(|error| TokenizeError::Invalid(error.to_string()))?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| TokenizeError::Invalid(error.to_string()))?;
        let size = tokenizer.get_vocab_size(true);
        if size > limits.vocabulary_size {
            let id = u32::try_from(size - 1).unwrap_or(u32::MAX);
            return Err(TokenizeError::VocabularyTooSmall { id, vocabulary_size: limits.vocabulary_size });
        }
        let layout = match limits.pair {
            None => Layout::of_single(&tokenizer)?,
            Some(_) => Layout::of_pair(&tokenizer)?,
        };
        let TokenizerLimits { max_length, overlap, .. } = limits;
        let special = layout.special();
        if overlap >= max_length.saturating_sub(special) {
            return Err(TokenizeError::NoRoom { max_length, special, overlap });
        }
        Ok(Self { tokenizer: WordTokenizer::new(tokenizer, json), layout, limits })
    }

    /// Whether it reads pairs of texts.
    pub fn reads_pairs(&self) -> bool {
        self.limits.pair.is_some()
    }

    /// All windows of a text or a pair, in the order of the text that is cut; at least one.
    ///
    /// # Errors
    /// [`TokenizeError`] where the tokenizer cannot encode it, where a pair lacks its second text, or where the text
    /// that is not cut leaves no room for the other.
    pub fn windows<'a>(&self, texts: impl Into<Texts<'a>>) -> Result<Vec<TokenWindow>, TokenizeError> {
        let Texts { text, pair } = texts.into();
        let first = self.ids(text)?;
        let Some(windowed) = self.limits.pair else {
            let room = self.limits.max_length - self.layout.special();
            let windows = windows(first.len(), room, self.limits.overlap);
            return Ok(windows.into_iter().map(|window| self.layout.single(&first, window)).collect());
        };
        let second = self.ids(pair.ok_or(TokenizeError::PairMissing)?)?;
        let (cut, whole) = match windowed {
            Windowed::Text => (first.len(), second.len()),
            Windowed::TextPair => (second.len(), first.len()),
        };
        let room = self.room(windowed, cut, whole)?;
        // Where little room is left, neighbours share no more than half of it: each window goes on.
        let windows = windows(cut, room, self.limits.overlap.min(room / 2));
        let pair = |Window { tokens, fresh }| match windowed {
            Windowed::Text => self.layout.pair(&first[tokens], &second, fresh),
            Windowed::TextPair => self.layout.pair(&first, &second[tokens], fresh),
        };
        Ok(windows.into_iter().map(pair).collect())
    }

    /// The ids and token types of a text or a pair, whole: what an exporter's own tokenizer gives.
    ///
    /// # Errors
    /// [`TokenizeError`] where it cannot be encoded, or a pair lacks its second text.
    pub fn whole<'a>(&self, texts: impl Into<Texts<'a>>) -> Result<TokenWindow, TokenizeError> {
        let Texts { text, pair } = texts.into();
        let first = self.ids(text)?;
        if self.limits.pair.is_none() {
            let whole = Window { tokens: 0..first.len(), fresh: first.len() };
            return Ok(self.layout.single(&first, whole));
        }
        let second = self.ids(pair.ok_or(TokenizeError::PairMissing)?)?;
        Ok(self.layout.pair(&first, &second, first.len()))
    }

    /// Different words that are one token each, at most `count`, in the order of their ids: texts of a known number of
    /// tokens are made of them.
    pub fn single_token_words(&self, count: usize) -> Vec<String> {
        let is_single = |word: &String| {
            word.chars().all(char::is_alphabetic)
                && word.chars().count() > 2
                && self.tokenizer.ids(word).is_ok_and(|ids| ids.len() == 1)
        };
        let size = u32::try_from(self.tokenizer.vocabulary_size()).unwrap_or(u32::MAX);
        let words = (0..size).filter_map(|id| self.tokenizer.decode(id));
        words.map(|word| word.trim().to_owned()).filter(is_single).take(count).collect()
    }

    /// Tokens of one window, special tokens included.
    pub fn max_length(&self) -> usize {
        self.limits.max_length
    }

    /// How many tokens of a window are no text's.
    pub fn special_tokens(&self) -> usize {
        self.layout.special()
    }

    fn ids(&self, text: &str) -> Result<Vec<u32>, TokenizeError> {
        self.tokenizer.ids(text).map_err(|error| TokenizeError::Text(error.to_string()))
    }

    /// How many tokens of the text that is cut a window holds.
    fn room(&self, windowed: Windowed, cut: usize, whole: usize) -> Result<usize, TokenizeError> {
        let max_length = self.limits.max_length;
        let room = max_length.saturating_sub(self.layout.special() + whole);
        let room_min = (max_length / ROOM_PART_MIN).max(1);
        if room >= room_min || (room > 0 && cut <= room) {
            return Ok(room);
        }
        let (whole_name, cut_name) = (windowed.whole(), windowed.cut());
        Err(TokenizeError::PairTooLong { whole: whole_name, cut: cut_name, tokens: whole, room, room_min, max_length })
    }
}

/// A text that every tokenizer makes at least one token of, be it the unknown one.
const SAMPLE: &str = "a";

impl Layout {
    fn of_single(tokenizer: &Tokenizer) -> Result<Self, TokenizeError> {
        let encoding = encode_sample(tokenizer, SAMPLE.into())?;
        let text = tokens_of(&encoding, 0);
        let (ids, types) = (encoding.get_ids(), encoding.get_type_ids());
        if types.iter().any(|token_type| *token_type != 0) {
            return Err(TokenizeError::TokenTypes { sample: "one text", types: types.to_vec() });
        }
        let (prefix, suffix) = (ids[..text.start].to_vec(), ids[text.end..].to_vec());
        Self { prefix, middle: Vec::new(), suffix, middle_of_first: 0 }.checked()
    }

    fn of_pair(tokenizer: &Tokenizer) -> Result<Self, TokenizeError> {
        let encoding = encode_sample(tokenizer, (SAMPLE, SAMPLE).into())?;
        let (first, second) = (tokens_of(&encoding, 0), tokens_of(&encoding, 1));
        let (ids, types) = (encoding.get_ids(), encoding.get_type_ids());
        let second_from = types.iter().position(|token_type| *token_type != 0).unwrap_or(types.len());
        let is_one = types[second_from..].iter().all(|token_type| *token_type == 1);
        if !is_one || first.is_empty() || second_from < first.end || second_from > second.start {
            return Err(TokenizeError::TokenTypes { sample: "two texts", types: types.to_vec() });
        }
        Self {
            prefix: ids[..first.start].to_vec(),
            middle: ids[first.end..second.start].to_vec(),
            suffix: ids[second.end..].to_vec(),
            middle_of_first: second_from - first.end,
        }
        .checked()
    }

    fn checked(self) -> Result<Self, TokenizeError> {
        if self.prefix.is_empty() { Err(TokenizeError::NoSpecialTokens) } else { Ok(self) }
    }

    /// How many special tokens a window has.
    fn special(&self) -> usize {
        self.prefix.len() + self.middle.len() + self.suffix.len()
    }

    fn single(&self, ids: &[u32], window: Window) -> TokenWindow {
        let ids = [&self.prefix, &ids[window.tokens], &self.suffix].concat();
        TokenWindow { second_from: ids.len(), ids, fresh: window.fresh }
    }

    fn pair(&self, first: &[u32], second: &[u32], fresh: usize) -> TokenWindow {
        let ids = [&self.prefix, first, &self.middle, second, &self.suffix].concat();
        TokenWindow { ids, second_from: self.prefix.len() + first.len() + self.middle_of_first, fresh }
    }
}

fn encode_sample(tokenizer: &Tokenizer, sample: EncodeInput<'_>) -> Result<Encoding, TokenizeError> {
    tokenizer.encode(sample, true).map_err(|error| TokenizeError::Invalid(error.to_string()))
}

/// Where the tokens of one of the sample's texts stand.
fn tokens_of(encoding: &Encoding, text: usize) -> Range<usize> {
    let sequences = encoding.get_sequence_ids();
    let is_of_text = |sequence: &Option<usize>| *sequence == Some(text);
    let start = sequences.iter().position(is_of_text).unwrap_or(sequences.len());
    let end = sequences.iter().rposition(is_of_text).map_or(start, |last| last + 1);
    start..end
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words `a` to `f` are 5 to 10; [CLS], [SEP] and [UNK] are 2, 3 and 1. `pair` is the template of two texts.
    fn tokenizer_json(pair: &str) -> String {
        format!(
            r#"{{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": {{"type": "WhitespaceSplit"}},
            "post_processor": {{"type": "TemplateProcessing",
                "single": [{{"SpecialToken": {{"id": "[CLS]", "type_id": 0}}}}, {{"Sequence": {{"id": "A", "type_id": 0}}}},
                    {{"SpecialToken": {{"id": "[SEP]", "type_id": 0}}}}],
                "pair": [{pair}],
                "special_tokens": {{"[CLS]": {{"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]}},
                    "[SEP]": {{"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}}}}}},
            "decoder": null,
            "model": {{"type": "WordLevel", "unk_token": "[UNK]", "vocab": {{"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3,
                "-": 4, "a": 5, "b": 6, "c": 7, "d": 8, "e": 9, "f": 10}}}}}}"#
        )
    }

    const ALBERT: &str = r#"{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "[SEP]", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}},
        {"SpecialToken": {"id": "[SEP]", "type_id": 1}}"#;

    fn limits(max_length: usize, pair: Option<Windowed>) -> TokenizerLimits {
        TokenizerLimits { max_length, overlap: 2, vocabulary_size: 11, pair }
    }

    fn tokenizer(max_length: usize, pair: Option<Windowed>) -> TextTokenizer {
        TextTokenizer::from_bytes(tokenizer_json(ALBERT).as_bytes(), limits(max_length, pair)).unwrap()
    }

    fn pair<'a>(text: &'a str, pair: &'a str) -> Texts<'a> {
        Texts { text, pair: Some(pair) }
    }

    #[test]
    fn a_single_text_stands_between_the_special_tokens_and_has_type_0() {
        let windows = tokenizer(16, None).windows("a b c").unwrap();
        assert_eq!(windows, [TokenWindow { ids: vec![2, 5, 6, 7, 3], second_from: 5, fresh: 3 }]);
    }

    #[test]
    fn the_second_text_of_a_pair_has_type_1_with_what_follows_it() {
        let expected = TokenWindow { ids: vec![2, 5, 6, 3, 7, 3], second_from: 4, fresh: 2 };
        assert_eq!(
            tokenizer(16, Some(Windowed::Text)).windows(pair("a b", "c")).unwrap(),
            std::slice::from_ref(&expected)
        );
        assert_eq!(tokenizer(16, Some(Windowed::Text)).whole(pair("a b", "c")).unwrap(), expected);
        let by_the_other = TokenWindow { fresh: 1, ..expected };
        assert_eq!(tokenizer(16, Some(Windowed::TextPair)).windows(pair("a b", "c")).unwrap(), [by_the_other]);
    }

    #[test]
    fn one_text_is_cut_and_the_other_stands_whole_in_each_window() {
        let texts = pair("a b c d e f a b c d e f", "f");
        let windows = tokenizer(12, Some(Windowed::Text)).windows(texts).unwrap();
        assert_eq!(windows.len(), 2, "{windows:?}");
        assert_eq!(windows.iter().map(|window| window.fresh).sum::<usize>(), 12);
        for window in &windows {
            assert_eq!(window.ids.len(), 11);
            assert_eq!(window.ids[window.second_from..], [10, 3]);
            assert_eq!(window.ids[window.second_from - 1], 3);
        }
        let swapped = tokenizer(12, Some(Windowed::TextPair)).windows(pair("f", texts.text)).unwrap();
        for window in &swapped {
            assert_eq!((&window.ids[..3], window.second_from, window.ids.len()), (&[2, 10, 3][..], 3, 11));
        }
    }

    #[test]
    fn a_whole_text_that_leaves_too_little_room_is_told_unless_the_other_fits() {
        let tokenizer = tokenizer(12, Some(Windowed::Text));
        // Two of twelve tokens are left: enough for what has two, too little to cut into.
        let whole = "a b c d e f a";
        assert_eq!(tokenizer.windows(pair("a b", whole)).unwrap().len(), 1);
        let error = tokenizer.windows(pair("a b c", whole)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`text_pair` has 7 tokens and leaves 2 of a window's 12 for `text`, less than the 3 needed: shorten it, or convert the model with `--windowed text_pair`, which cuts it instead"
        );
        assert!(matches!(
            tokenizer.windows(pair("", &"a ".repeat(40))),
            Err(TokenizeError::PairTooLong { room: 0, .. })
        ));
        // Three are left: neighbours share one of them, so that each goes on.
        assert_eq!(tokenizer.windows(pair("a b c d e", "a b c d e f")).unwrap().len(), 2);
    }

    #[test]
    fn a_pair_needs_both_texts_and_a_single_text_ignores_the_second() {
        assert!(matches!(tokenizer(12, Some(Windowed::Text)).windows("a"), Err(TokenizeError::PairMissing)));
        assert_eq!(tokenizer(12, None).windows(pair("a", "b")).unwrap()[0].ids, [2, 5, 3]);
    }

    #[test]
    fn token_types_of_another_family_are_refused() {
        for template in
            [ALBERT.replace("\"type_id\": 1", "\"type_id\": 0"), ALBERT.replace("\"type_id\": 1", "\"type_id\": 2")]
        {
            let json = tokenizer_json(&template);
            let error = TextTokenizer::from_bytes(json.as_bytes(), limits(12, Some(Windowed::Text))).map(drop);
            assert!(matches!(error, Err(TokenizeError::TokenTypes { sample: "two texts", .. })), "{error:?}");
            assert!(TextTokenizer::from_bytes(json.as_bytes(), limits(12, None)).is_ok());
        }
    }
}
