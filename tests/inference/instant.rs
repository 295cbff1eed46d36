//! The model of tests that are not about models: instant, and its label stands in the text.

use std::sync::Arc;

use albertine::{
    engine::session::ModelSession,
    model::{
        files::ModelError,
        folder::{Model, WindowLogits},
    },
    text::tokenize::TokenWindow,
};

use super::runtime;
use crate::support::repository;

fn open() -> Result<Arc<Model>, ModelError> {
    Model::open(&repository("tests/fixtures/instant-model")).map(Arc::new)
}

#[test]
fn the_word_in_the_text_decides_alone_and_in_a_group() {
    let model = open().unwrap();
    assert_eq!(model.labels.iter().map(|label| &**label).collect::<Vec<_>>(), ["negative", "neutral", "positive"]);
    assert_eq!(&*model.task, "sentiment");
    let mut session = ModelSession::open(runtime(), &model).unwrap();
    let texts = [
        ("good", "positive"),
        ("bad", "negative"),
        ("fine", "neutral"),
        ("A Good kettle, really good; the lid is bad.", "positive"),
        ("Neither word is known", "neutral"),
        ("", "neutral"),
    ];
    let windows: Vec<TokenWindow> =
        texts.iter().map(|(text, _)| model.tokenizer.windows(*text).unwrap().remove(0)).collect();
    let together = session.infer(&windows.iter().map(TokenWindow::tokens).collect::<Vec<_>>()).unwrap();
    for (((text, expected), window), in_group) in texts.iter().zip(&windows).zip(together) {
        let alone = session.infer(&[window.tokens()]).unwrap().remove(0);
        assert_eq!(alone, in_group, "the group changes nothing for `{text}`");
        let label = model.label(&[(1, WindowLogits { logits: alone, depth: model.passes })]).unwrap();
        assert_eq!(&*label.label, *expected, "`{text}`");
    }
}
