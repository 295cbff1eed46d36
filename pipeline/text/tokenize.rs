//! Turns text into the token ids a model was trained with.

use tokenizers::Tokenizer;

use super::window::windows;

/// A window ready for the model: special tokens included, no padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenWindow {
    pub ids: Vec<u32>,
    /// How many of the document's tokens this window covers first; its weight in the document's label.
    pub fresh: usize,
}

/// A model's tokenizer with the room its windows have.
pub struct TextTokenizer {
    tokenizer: Tokenizer,
    prefix: Vec<u32>,
    suffix: Vec<u32>,
    capacity: usize,
    overlap: usize,
}

/// The tokenizer file, or a text, does not work.
#[derive(Debug, thiserror::Error)]
pub enum TokenizeError {
    #[error("cannot read the tokenizer: {0}")]
    Invalid(String),
    #[error("the tokenizer puts no special token around a text: a model of the ALBERT family starts with [CLS]")]
    NoSpecialTokens,
    #[error(
        "a window of `{max_length}` tokens with `{special}` special tokens and an overlap of `{overlap}` leaves no room for text"
    )]
    NoRoom { max_length: usize, special: usize, overlap: usize },
    #[error("token id `{id}` is not below the model's vocabulary size `{vocabulary_size}`")]
    VocabularyTooSmall { id: u32, vocabulary_size: usize },
    #[error("cannot tokenize the text: {0}")]
    Text(String),
}

/// The sizes a tokenizer has to fit.
#[derive(Debug, Clone, Copy)]
pub struct TokenizerLimits {
    /// Tokens of one window, special tokens included.
    pub max_length: usize,
    /// Tokens that neighbouring windows share.
    pub overlap: usize,
    pub vocabulary_size: usize,
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
        let empty = tokenizer.encode("", true).map_err(|error| TokenizeError::Invalid(error.to_string()))?;
        let (first, rest) = empty.get_ids().split_first().ok_or(TokenizeError::NoSpecialTokens)?;
        let special = empty.get_ids().len();
        let capacity = limits.max_length.saturating_sub(special);
        if limits.overlap >= capacity {
            return Err(TokenizeError::NoRoom { max_length: limits.max_length, special, overlap: limits.overlap });
        }
        let (prefix, suffix) = (vec![*first], rest.to_vec());
        Ok(Self { tokenizer, prefix, suffix, capacity, overlap: limits.overlap })
    }

    /// All windows of a text, in its order; at least one.
    ///
    /// # Errors
    /// [`TokenizeError::Text`] where the tokenizer cannot encode it.
    pub fn windows(&self, text: &str) -> Result<Vec<TokenWindow>, TokenizeError> {
        let encoding =
            self.tokenizer.encode_fast(text, false).map_err(|error| TokenizeError::Text(error.to_string()))?;
        let ids = encoding.get_ids();
        let window = |window: super::window::Window| TokenWindow {
            ids: [&self.prefix, &ids[window.tokens], &self.suffix].concat(),
            fresh: window.fresh,
        };
        Ok(windows(ids.len(), self.capacity, self.overlap).into_iter().map(window).collect())
    }

    /// Different words that are one token each, at most `count`, in the order of their ids: texts of a known number of
    /// tokens are made of them.
    pub fn single_token_words(&self, count: usize) -> Vec<String> {
        let is_single = |word: &String| {
            word.chars().all(char::is_alphabetic)
                && word.chars().count() > 2
                && self.tokenizer.encode_fast(word.as_str(), false).is_ok_and(|encoding| encoding.len() == 1)
        };
        let size = u32::try_from(self.tokenizer.get_vocab_size(true)).unwrap_or(u32::MAX);
        let words = (0..size).filter_map(|id| self.tokenizer.decode(&[id], true).ok());
        words.map(|word| word.trim().to_owned()).filter(is_single).take(count).collect()
    }

    /// How many tokens of a text fit into one window.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many tokens of a window are no text's.
    pub fn special_tokens(&self) -> usize {
        self.prefix.len() + self.suffix.len()
    }
}
