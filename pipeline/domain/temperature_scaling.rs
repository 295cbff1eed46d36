//! Fits the temperatures that make probabilities say how often a label is right (Guo et al. 2017, "On Calibration of Modern Neural
//! Networks").
//!
//! A temperature is the best one where the true labels are most probable, with the doubt of [`super::likelihood`].

use super::{
    likelihood::{doubt, surprise},
    window_pooling::{PooledDocument, pooled},
};

/// Between these the best temperature is looked for; outside, a pass's logits say nothing.
const TEMPERATURES: (f32, f32) = (0.05, 20.0);
/// Golden-section steps: the interval shrinks by 0.618 with each.
const STEPS: usize = 40;

/// The best temperature of documents, all windows of which have it; `independence` is that of [`pooled`].
pub fn fit_temperature(documents: &[PooledDocument<'_>], independence: f32) -> f32 {
    let doubt = doubt(documents.len());
    lowest(|temperature| {
        let loss = |document: &PooledDocument<'_>| {
            surprise(&pooled(&document.at_temperature(temperature).windows, independence), document.truth, doubt)
        };
        documents.iter().map(loss).sum()
    })
}

/// The temperature with the lowest loss, by golden-section search: the loss is taken to have one minimum between the bounds.
fn lowest(loss: impl Fn(f32) -> f64) -> f32 {
    let ratio = (5.0_f32.sqrt() - 1.0) / 2.0;
    let loss = |logarithm: f32| loss(logarithm.exp());
    let (mut low, mut high) = (TEMPERATURES.0.ln(), TEMPERATURES.1.ln());
    let inner = |low: f32, high: f32| (high - ratio * (high - low), low + ratio * (high - low));
    let (mut left, mut right) = inner(low, high);
    let (mut at_left, mut at_right) = (loss(left), loss(right));
    for _ in 0..STEPS {
        if at_left <= at_right {
            high = right;
            (right, at_right) = (left, at_left);
            left = inner(low, high).0;
            at_left = loss(left);
        } else {
            low = left;
            (left, at_left) = (right, at_right);
            right = inner(low, high).1;
            at_right = loss(right);
        }
    }
    f32::midpoint(low, high).exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{label::softmax, window_pooling::PooledWindow};

    fn window(logits: &[f32; 2]) -> PooledWindow<'_> {
        PooledWindow { weight: 1, logits, temperature: 1.0 }
    }

    #[test]
    fn confidence_becomes_what_is_right_so_often() {
        // Right in three of four cases, whatever the logits: the best confidence is 0.75.
        let (right, wrong) = ([4.0, 0.0], [0.0, 4.0]);
        let document = |index: usize| PooledDocument {
            windows: vec![window(if index.is_multiple_of(4) { &wrong } else { &right })],
            truth: 0,
        };
        let temperature = fit_temperature(&(0..400).map(document).collect::<Vec<_>>(), 0.0);
        assert!((softmax(&right, temperature)[0] - 0.75).abs() < 0.005, "{temperature}");
    }

    #[test]
    fn whole_documents_are_judged_and_not_their_windows() {
        // Of each document one window is sure and one says nothing; the documents are right in three of four cases.
        let (right, wrong, nothing) = ([4.0, 0.0], [0.0, 4.0], [0.0, 0.0]);
        let document = |index: usize| PooledDocument {
            windows: vec![window(if index.is_multiple_of(4) { &wrong } else { &right }), window(&nothing)],
            truth: 0,
        };
        let documents: Vec<_> = (0..400).map(document).collect();
        let temperature = fit_temperature(&documents, 0.0);
        let confidence = pooled(&documents[1].at_temperature(temperature).windows, 0.0)[0];
        assert!((confidence - 0.75).abs() < 0.005, "{confidence}");
        let sure = softmax(&right, temperature)[0];
        // Odds of three from the mean of its log odds and zero are odds of nine of its own.
        assert!((sure - 0.9).abs() < 0.005, "{sure}");
    }
}
