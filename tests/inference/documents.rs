//! Long documents: read whole, one label from all their windows.

use albertine::{
    domain::label::softmax,
    model::folder::{Model, WindowLogits},
    text::tokenize::TokenWindow,
};

use super::{distance, model, model_folder, session};

const PRAISE: &str = "I love this kettle, it is wonderful and works perfectly. ";
const BLAME: &str = "Terrible. It broke on the first day and nobody answers my mails. ";

/// The probabilities of a text, computed window by window.
fn probabilities(model: &Model, windows: &[TokenWindow]) -> Vec<f32> {
    let mut session = session();
    let logits = windows.iter().map(|window| {
        let logits = session.infer(&[window.tokens()]).unwrap().remove(0);
        (window.fresh, WindowLogits { logits, depth: model.passes })
    });
    model.label(&logits.collect::<Vec<_>>()).expect("logits that are numbers").probabilities
}

#[test]
fn a_document_of_several_windows_has_the_weighted_mean_of_their_logits() {
    let (model, mut session) = (Model::open(&model_folder()).unwrap().at_full_depth(), session());
    let windows = model.tokenizer.windows(&*format!("{}{}", PRAISE.repeat(30), BLAME.repeat(12))).unwrap();
    assert!(windows.len() >= 3, "{} windows are too few", windows.len());
    // As the manifest says it.
    let manifest: toml::Table = std::fs::read_to_string(model_folder().join("model.toml")).unwrap().parse().unwrap();
    let calibration = |name: &str| manifest["calibration"][name].as_float().unwrap() as f32;
    let (temperature, independence) = (calibration("temperature"), calibration("window_independence"));
    assert!(independence > 0.0);

    let weights: Vec<f32> = windows.iter().map(|window| window.fresh as f32).collect();
    let total: f32 = weights.iter().sum();
    let equal_windows = total * total / weights.iter().map(|weight| weight * weight).sum::<f32>();
    let mut mean = vec![0.0; model.labels.len()];
    for (window, weight) in windows.iter().zip(&weights) {
        let logits = session.infer(&[window.tokens()]).unwrap().remove(0);
        for (sum, logit) in mean.iter_mut().zip(logits) {
            *sum += logit / temperature * weight / total;
        }
    }
    let logits: Vec<f32> = mean.iter().map(|mean| mean * equal_windows.powf(independence)).collect();
    let (found, expected) = (probabilities(&model, &windows), softmax(&logits, 1.0));
    assert!(distance(&found, &expected) < 1e-5, "{found:?}, not {expected:?}");
    assert!((found.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{found:?} do not sum to one");
}

#[test]
fn the_end_of_a_long_document_counts() {
    let model = model();
    let negative = model.labels.iter().position(|label| &**label == "negative").unwrap();
    let of = |text: &str| probabilities(&model, &model.tokenizer.windows(text).unwrap())[negative];
    let (praise, then_blame) = (PRAISE.repeat(40), format!("{}{}", PRAISE.repeat(40), BLAME.repeat(60)));
    let (before, after) = (of(&praise), of(&then_blame));
    assert!(after > before + 0.3, "blame at the end moved `negative` only from {before} to {after}");
}

#[test]
fn what_overlaps_counts_once() {
    let model = model();
    let text = PRAISE.repeat(40);
    let windows = model.tokenizer.windows(&*text).unwrap();
    let counted: usize = windows.iter().map(|window| window.fresh).sum();
    let held: usize = windows.iter().map(|window| window.ids.len() - 2).sum();
    assert!(held > counted, "the windows of a long document overlap");
    let tokens_of_praise = model.tokenizer.windows(PRAISE).unwrap()[0].fresh;
    assert_eq!(counted, tokens_of_praise * 40, "every token counts once");
}
