//! Fits the temperatures that make probabilities say how often a label is right (Guo et al. 2017, "On Calibration of Modern Neural
//! Networks"), one for each pass.
//!
//! A temperature is the best one where the true labels are most probable, with the doubt of [`super::likelihood`].

use super::{
    label::softmax,
    likelihood::{doubt, surprise},
    window_pooling::{PooledWindow, pooled},
};

/// Between these the best temperature is looked for; outside, a pass's logits say nothing.
const TEMPERATURES: (f32, f32) = (0.05, 20.0);
/// Golden-section steps: the interval shrinks by 0.618 with each.
const STEPS: usize = 40;
/// From fewer texts a temperature is chance.
const TEXTS_MIN: usize = 50;
/// Temperatures of several passes are fitted one after the other, so often: a text's windows may leave after different ones.
const ROUNDS: usize = 2;

/// A window as it leaves.
pub struct Leaver<'a> {
    /// See [`PooledWindow`].
    pub weight: usize,
    /// After which it leaves, from 0.
    pub pass: usize,
    /// After that pass.
    pub logits: &'a [f32],
}

/// A text whose windows have left, with its true label.
pub struct LeavingText<'a> {
    pub windows: Vec<Leaver<'a>>,
    pub truth: usize,
}

/// The best temperature of windows after one pass: their logits and the true labels of their texts.
pub fn after_pass(windows: &[(&[f32], usize)]) -> f32 {
    let doubt = doubt(windows.len());
    lowest(|temperature| {
        windows.iter().map(|(logits, truth)| surprise(&softmax(logits, temperature), *truth, doubt)).sum()
    })
}

/// The best temperature of each pass for what leaves after it, judged by the probabilities of whole texts, which are what is
/// published. What leaves early is easy, and of it a label is right more often than of all texts that are as probable. A pass that few
/// texts leave after keeps its temperature of `before`; `independence` is that of [`pooled`].
pub fn of_leavers(texts: &[LeavingText<'_>], before: Vec<f32>, independence: f32) -> Vec<f32> {
    let mut temperatures = before;
    let leaving = |pass: usize| -> Vec<&LeavingText<'_>> {
        texts.iter().filter(|text| text.windows.iter().any(|window| window.pass == pass)).collect()
    };
    let of_passes: Vec<_> = (0..temperatures.len()).map(leaving).collect();
    for _ in 0..ROUNDS {
        for (pass, texts) in of_passes.iter().enumerate().filter(|(_, texts)| texts.len() >= TEXTS_MIN) {
            let doubt = doubt(texts.len());
            let loss = |temperature: f32| {
                let of_pass = |at: usize| if at == pass { temperature } else { temperatures[at] };
                texts.iter().map(|text| surprise(&text.probabilities(of_pass, independence), text.truth, doubt)).sum()
            };
            temperatures[pass] = lowest(loss);
        }
    }
    temperatures
}

impl LeavingText<'_> {
    fn probabilities(&self, temperature_of: impl Fn(usize) -> f32, independence: f32) -> Vec<f32> {
        let windows = self.windows.iter().map(|window| PooledWindow {
            weight: window.weight,
            logits: window.logits,
            temperature: temperature_of(window.pass),
        });
        pooled(&windows.collect::<Vec<_>>(), independence)
    }
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

    #[test]
    fn confidence_becomes_what_is_right_so_often() {
        // Right in three of four cases, whatever the logits: the best confidence is 0.75.
        let (right, wrong) = ([4.0, 0.0], [0.0, 4.0]);
        let windows: Vec<(&[f32], usize)> =
            (0..400_usize).map(|index| (if index.is_multiple_of(4) { &wrong[..] } else { &right[..] }, 0)).collect();
        let temperature = after_pass(&windows);
        assert!((softmax(&right, temperature)[0] - 0.75).abs() < 0.005, "{temperature}");
    }

    #[test]
    fn whole_texts_are_judged_and_not_their_windows() {
        // Of each text one window is sure and one says nothing; the texts are right in three of four cases.
        let (right, wrong, nothing) = ([4.0, 0.0], [0.0, 4.0], [0.0, 0.0]);
        let window = |pass, logits| Leaver { weight: 1, pass, logits };
        let text = |index: usize| LeavingText {
            windows: vec![window(0, if index.is_multiple_of(4) { &wrong } else { &right }), window(1, &nothing)],
            truth: 0,
        };
        let texts: Vec<_> = (0..400).map(text).collect();
        let temperatures = of_leavers(&texts, vec![1.0, 1.0], 0.0);
        let sure = softmax(&right, temperatures[0])[0];
        // Odds of three from the mean of its log odds and zero are odds of nine of its own.
        assert!((sure - 0.9).abs() < 0.005, "{sure}");
        let confidence = texts[1].probabilities(|pass| temperatures[pass], 0.0)[0];
        assert!((confidence - 0.75).abs() < 0.005, "{confidence}");
    }

    #[test]
    fn a_pass_that_few_leave_after_keeps_its_temperature() {
        let right = [4.0, 0.0];
        let text = |pass| LeavingText { windows: vec![Leaver { weight: 1, pass, logits: &right }], truth: 0 };
        let texts: Vec<_> = (0..TEXTS_MIN).map(|_| text(0)).chain([text(1)]).collect();
        let temperatures = of_leavers(&texts, vec![1.5, 1.5], 0.0);
        assert!(temperatures[0] < 1.5, "{temperatures:?}");
        assert!((temperatures[1] - 1.5).abs() < f32::EPSILON);
    }
}
