//! From logits to a label by calibrated probabilities.

use std::sync::Arc;

/// What a model said of a document.
#[derive(Debug, Clone, PartialEq)]
pub struct Label {
    pub task: Arc<str>,
    pub model: Arc<str>,
    pub model_version: Arc<str>,
    /// The most probable class.
    pub label: Arc<str>,
    /// The probability of `label`, in (0, 1].
    pub confidence: f32,
    /// The model's labels, in its order.
    pub classes: Arc<[Arc<str>]>,
    /// One for each class; they sum to one.
    pub probabilities: Vec<f32>,
    /// How many times the shared layer was applied; where a document has several windows, the most of them.
    pub depth: u16,
}

/// Probabilities of one window's logits, softened (above 1) or sharpened (below 1) by `temperature`.
///
/// Temperature scaling: Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2. The
/// maximum is subtracted before the exponential, so large logits cannot overflow.
pub fn softmax(logits: &[f32], temperature: f32) -> Vec<f32> {
    let maximum = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials: Vec<f32> = logits.iter().map(|logit| ((logit - maximum) / temperature).exp()).collect();
    let sum: f32 = exponentials.iter().sum();
    exponentials.iter().map(|exponential| exponential / sum).collect()
}

/// The index of the largest value; the first one where several are equal. `None` where there is none.
pub fn argmax(values: &[f32]) -> Option<usize> {
    values
        .iter()
        .enumerate()
        .reduce(|best, candidate| if candidate.1 > best.1 { candidate } else { best })
        .map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one_also_for_large_and_negative_logits() {
        for logits in [vec![1.0, 2.0, 3.0], vec![1e30, 1e30], vec![-1e30, -2e30, -1e30], vec![500.0, -500.0]] {
            let probabilities = softmax(&logits, 1.0);
            assert!((probabilities.iter().sum::<f32>() - 1.0).abs() < 1e-6, "{logits:?} gave {probabilities:?}");
        }
    }

    #[test]
    fn a_higher_temperature_lowers_the_confidence_and_keeps_the_label() {
        let sharp = softmax(&[0.0, 2.0], 1.0);
        let soft = softmax(&[0.0, 2.0], 4.0);
        assert_eq!(argmax(&sharp), argmax(&soft));
        assert!(soft[1] < sharp[1]);
    }

    #[test]
    fn ties_go_to_the_first_class() {
        assert_eq!(argmax(&[0.2, 0.4, 0.4]), Some(1));
        assert_eq!(argmax(&[]), None);
    }
}
