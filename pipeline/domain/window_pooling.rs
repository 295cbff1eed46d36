//! One answer for a document of many windows.
//!
//! A logarithmic opinion pool (Genest and Zidek 1986, "Combining Probability Distributions: A Critique and an Annotated
//! Bibliography"): the mean of the windows' logits, each weighted by how many of the document's tokens only it or it first covers.
//! A mean of probabilities is less sure than its windows wherever these differ, and lets a window that says little weigh as much as
//! one that is certain; the recipes' `EXPERIMENTS.md` compares the two.

use super::{
    label::softmax,
    likelihood::{doubt, surprise},
};

/// Fewer documents of several windows say too little of how independent windows are.
pub const DOCUMENTS_MIN: usize = 50;
/// So many steps from 0 to 1 are tried.
const STEPS: usize = 20;

/// What the network said of one window of a document.
#[derive(Debug, Clone, Copy)]
pub struct PooledWindow<'a> {
    /// How many of the document's tokens only it or it first covers.
    pub weight: usize,
    pub logits: &'a [f32],
    /// Divides the logits.
    pub temperature: f32,
}

/// One distribution for a document from its windows; empty where there is none.
///
/// The mean logits are multiplied by `n` to the power of `independence`, where `n` is how many windows of equal weight would say as much
/// (Kish 1965, "Survey Sampling": the squared sum of the weights over the sum of their squares). At 0 a document is as sure as its windows
/// are on the mean, at 1 as if each of them were a document that knows nothing of the others. Of one window this is the softmax of its
/// logits.
pub fn pooled(windows: &[PooledWindow<'_>], independence: f32) -> Vec<f32> {
    let classes = windows.first().map_or(0, |window| window.logits.len());
    // Overlapping text counts once, and a window that only repeats text still counts a little.
    let weights: Vec<f64> = windows.iter().map(|window| window.weight.max(1) as f64).collect();
    let (total, squares): (f64, f64) = (weights.iter().sum(), weights.iter().map(|weight| weight * weight).sum());
    let sureness = (total * total / squares).powf(f64::from(independence)) / total;
    let mut sums = vec![0.0_f64; classes];
    for (weight, window) in weights.iter().zip(windows) {
        let factor = weight * sureness / f64::from(window.temperature);
        for (sum, logit) in sums.iter_mut().zip(window.logits) {
            *sum += f64::from(*logit) * factor;
        }
    }
    softmax(&sums.into_iter().map(|sum| sum as f32).collect::<Vec<_>>(), 1.0)
}

/// A document with its true label.
pub struct PooledDocument<'a> {
    pub windows: Vec<PooledWindow<'a>>,
    pub truth: usize,
}

impl PooledDocument<'_> {
    /// The same, with one temperature for all windows.
    pub fn at_temperature(&self, temperature: f32) -> Self {
        let windows = self.windows.iter().map(|window| PooledWindow { temperature, ..*window });
        Self { windows: windows.collect(), truth: self.truth }
    }
}

/// What was found by [`fit_independence`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Independence {
    pub value: f32,
    /// Documents of several windows.
    pub documents: usize,
    /// Their mean negative log-likelihood, and what it would be at zero.
    pub log_loss: f64,
    pub log_loss_at_zero: f64,
}

/// The independence, in twentieths, under which the true labels of documents of several windows are most probable. `None` where there are
/// fewer than [`DOCUMENTS_MIN`] of these.
pub fn fit_independence(documents: &[PooledDocument<'_>]) -> Option<Independence> {
    let several: Vec<_> = documents.iter().filter(|document| document.windows.len() > 1).collect();
    if several.len() < DOCUMENTS_MIN {
        return None;
    }
    let doubt = doubt(several.len());
    let log_loss = |value: f32| -> f64 {
        let loss = |document: &&PooledDocument<'_>| surprise(&pooled(&document.windows, value), document.truth, doubt);
        several.iter().map(loss).sum::<f64>() / several.len() as f64
    };
    let tried = (0..=STEPS).map(|step| step as f32 / STEPS as f32).map(|value| (value, log_loss(value)));
    let tried: Vec<_> = tried.collect();
    let (value, log_loss) = *tried.iter().min_by(|one, other| one.1.total_cmp(&other.1))?;
    Some(Independence { value, documents: several.len(), log_loss, log_loss_at_zero: tried[0].1 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::label::argmax;

    fn window(weight: usize, logits: &[f32]) -> PooledWindow<'_> {
        PooledWindow { weight, logits, temperature: 1.0 }
    }

    fn is_near(found: &[f32], expected: &[f32]) -> bool {
        found.len() == expected.len() && found.iter().zip(expected).all(|(one, other)| (one - other).abs() < 1e-5)
    }

    #[test]
    fn one_window_is_its_own_softmax_however_independent_windows_are() {
        for independence in [0.0, 0.3, 1.0] {
            let found = pooled(&[window(7, &[1.0, -0.5, 0.2])], independence);
            assert!(is_near(&found, &softmax(&[1.0, -0.5, 0.2], 1.0)), "{found:?}");
        }
    }

    #[test]
    fn a_window_counts_by_the_tokens_it_adds() {
        let found = pooled(&[window(30, &[2.0, 0.0]), window(10, &[0.0, 4.0])], 0.0);
        assert!(is_near(&found, &softmax(&[1.5, 1.0], 1.0)), "{found:?}");
    }

    #[test]
    fn what_is_common_to_the_logits_of_a_window_changes_nothing() {
        let found = pooled(&[window(1, &[101.0, 100.0]), window(1, &[-50.0, -49.5])], 0.4);
        let expected = pooled(&[window(1, &[1.0, 0.0]), window(1, &[0.0, 0.5])], 0.4);
        assert!(is_near(&found, &expected), "{found:?}, not {expected:?}");
    }

    #[test]
    fn equal_windows_are_as_sure_as_one_or_as_many_by_their_independence() {
        let windows = [window(5, &[0.0, 1.0]); 4];
        assert!(is_near(&pooled(&windows, 0.0), &softmax(&[0.0, 1.0], 1.0)));
        assert!(is_near(&pooled(&windows, 0.5), &softmax(&[0.0, 2.0], 1.0)));
        assert!(is_near(&pooled(&windows, 1.0), &softmax(&[0.0, 4.0], 1.0)));
    }

    #[test]
    fn a_window_that_is_certain_outweighs_one_that_says_little() {
        let windows = [window(1, &[6.0, 0.0]), window(1, &[0.0, 1.5])];
        assert_eq!(argmax(&pooled(&windows, 0.0)), Some(0));
    }

    #[test]
    fn logits_that_are_not_numbers_give_no_numbers() {
        assert!(pooled(&[window(1, &[1.0, 0.0]), window(1, &[f32::NAN, 0.0])], 0.2).iter().any(|value| value.is_nan()));
    }

    /// Log odds of 1.0, a probability of 0.731.
    const LOGITS: [f32; 2] = [1.0, 0.0];

    /// Documents of four equal windows, right in so many of a hundred cases.
    fn documents(count: usize, right: usize) -> Vec<PooledDocument<'static>> {
        let document = |index: usize| PooledDocument {
            windows: vec![window(1, &LOGITS); 4],
            truth: usize::from(index % 100 >= right),
        };
        (0..count).map(document).collect()
    }

    #[test]
    fn windows_are_as_independent_as_the_truth_says() {
        // Right as often as one window is, all say the same; log odds twice as large are 0.881, four times 0.982.
        for (right, expected) in [(73, 0.0), (88, 0.5), (98, 1.0)] {
            let found = fit_independence(&documents(1000, right)).unwrap();
            assert!((found.value - expected).abs() < 0.051, "{found:?}, not {expected}");
            assert!(found.log_loss <= found.log_loss_at_zero);
            assert_eq!(found.documents, 1000);
        }
    }

    #[test]
    fn from_few_documents_of_several_windows_nothing_is_fitted() {
        let mut few = documents(DOCUMENTS_MIN - 1, 73);
        few.extend((0..100).map(|_| PooledDocument { windows: vec![window(1, &LOGITS)], truth: 0 }));
        assert_eq!(fit_independence(&few), None);
    }
}
