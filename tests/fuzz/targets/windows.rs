//! Any text through the tokenizer of the tests' model: its windows cover each token once, and none is too long.
#![no_main]

use std::sync::LazyLock;

use albertine::text::{
    tokenize::{TextTokenizer, Texts, TokenizeError, TokenizerLimits, Windowed},
    window,
};
use libfuzzer_sys::fuzz_target;

const LIMITS: TokenizerLimits = TokenizerLimits { max_length: 64, overlap: 8, vocabulary_size: 7, pair: None };

static TOKENIZER: LazyLock<TextTokenizer> = LazyLock::new(|| tokenizer(LIMITS));

static PAIRS: LazyLock<TextTokenizer> =
    LazyLock::new(|| tokenizer(TokenizerLimits { pair: Some(Windowed::Text), ..LIMITS }));

fn tokenizer(limits: TokenizerLimits) -> TextTokenizer {
    let json = include_bytes!("../../fixtures/instant-model/tokenizer.json");
    TextTokenizer::from_bytes(json, limits).expect("the tokenizer of the tests' model")
}

fuzz_target!(|data: &[u8]| {
    if let [length, capacity, overlap, ..] = *data
        && overlap < capacity
    {
        let windows = window::windows(usize::from(length) * 7, usize::from(capacity), usize::from(overlap));
        assert_eq!(windows.iter().map(|window| window.fresh).sum::<usize>(), usize::from(length) * 7);
    }
    let text = String::from_utf8_lossy(data);
    let windows = TOKENIZER.windows(&*text).expect("every text has tokens");
    assert!(!windows.is_empty());
    for window in &windows {
        assert!((2..=LIMITS.max_length).contains(&window.ids.len()));
        assert!(window.fresh <= window.ids.len() - 2);
        assert!(window.ids.iter().all(|id| (*id as usize) < LIMITS.vocabulary_size));
    }
    assert!(windows.iter().all(|window| window.ids.len() == windows[0].ids.len()));
    let middle = text.floor_char_boundary(text.len() / 2);
    let texts = Texts { text: &text[..middle], pair: Some(&text[middle..]) };
    match PAIRS.windows(texts) {
        Ok(windows) => {
            assert!(windows.iter().all(|window| window.second_from < window.ids.len()));
            assert!(windows.iter().all(|window| window.ids.len() <= LIMITS.max_length));
        }
        Err(error) => assert!(matches!(error, TokenizeError::PairTooLong { .. }), "{error}"),
    }
});
