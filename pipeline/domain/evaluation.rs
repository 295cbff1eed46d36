//! How good labels are where the true ones are known: figures with intervals, and whether two models differ.
//!
//! Pure arithmetic over what was judged; it reads nothing and labels nothing.

use statrs::distribution::{Binomial, DiscreteCDF};

/// z for 95%.
const Z: f64 = 1.959_963_984_540_054;
/// Bins of confidence, as in Guo et al. 2017, "On Calibration of Modern Neural Networks".
const BINS: usize = 15;
/// Draws of the bootstrap. More change the interval's third digit only.
const RESAMPLES: usize = 1000;
/// Documents drawn in all draws together: about a second. Above it there are fewer draws, of an interval that is narrow.
const RESAMPLED_DOCUMENTS_MAX: usize = 200_000_000;
/// The bootstrap gives the same interval whenever it is run.
const SEED: u64 = 17;

/// One document with its true label. Classes are indices into the model's labels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judged {
    pub truth: usize,
    pub label: usize,
    /// The probability of `label`.
    pub confidence: f64,
    /// The probability of `truth`.
    pub truth_probability: f64,
}

impl Judged {
    fn pair(&self) -> (usize, usize) {
        (self.truth, self.label)
    }

    pub fn is_right(&self) -> bool {
        self.truth == self.label
    }
}

/// A figure and its 95% interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

/// One class. A share is 0 where there is nothing it could be a share of, as scikit-learn has it.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassFigures {
    /// Documents that truly are of the class, and those that were called so.
    pub documents: u64,
    pub called: u64,
    pub precision: f64,
    pub recall: f64,
    pub f1: f64,
}

/// Documents whose confidence lies in `(low, high]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Bin {
    pub low: f64,
    pub high: f64,
    pub documents: u64,
    pub mean_confidence: f64,
    pub accuracy: f64,
}

/// Whether a confidence of 0.8 is right in 8 of 10 cases.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// Expected calibration error: the mean distance of confidence and accuracy over the bins, by their documents.
    pub expected_error: f64,
    /// Mean negative log-likelihood of the true class, in nats.
    pub log_loss: f64,
    /// Without empty ones.
    pub bins: Vec<Bin>,
}

/// All figures of one model on one set.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    pub documents: u64,
    /// With Wilson's interval.
    pub accuracy: Estimate,
    /// The mean over the classes that occur, truly or as a label, with a percentile bootstrap interval over documents
    /// (Efron 1979).
    pub macro_f1: Estimate,
    /// In the order of the labels.
    pub classes: Vec<ClassFigures>,
    /// `[truth][label]`, in documents.
    pub confusion: Vec<Vec<u64>>,
    pub calibration: Calibration,
}

/// Two models on the same documents.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    pub documents: u64,
    pub only_first_right: u64,
    pub only_second_right: u64,
    /// Accuracy of the second less that of the first, with its 95% interval: adjusted Wald for paired proportions,
    /// Bonett and Price 2012, "Adjusted Wald confidence interval for a difference of binomial proportions based on
    /// paired data", equation 2.
    pub difference: Estimate,
    /// Two-sided exact test (`McNemar` 1947): how probable a difference at least as large is where both are equally good.
    pub p_value: f64,
}

/// Evaluates documents whose classes are below `classes`. `None` where there are none.
pub fn evaluate(judged: &[Judged], classes: usize) -> Option<Evaluation> {
    if judged.is_empty() {
        return None;
    }
    let confusion = confusion(judged.iter().map(Judged::pair), classes);
    let right = judged.iter().filter(|judged| judged.is_right()).count();
    let (low, high) = macro_f1_interval(judged, classes);
    Some(Evaluation {
        documents: judged.len() as u64,
        accuracy: wilson(right as u64, judged.len() as u64),
        macro_f1: Estimate { value: mean_f1(&confusion), low, high },
        classes: (0..classes).map(|class| class_figures(&confusion, class)).collect(),
        calibration: calibration(judged),
        confusion,
    })
}

/// Compares two models on the same documents, in the same order. `None` where there are none.
///
/// # Panics
/// Where the lists differ in length.
pub fn compare(first: &[Judged], second: &[Judged]) -> Option<Comparison> {
    assert_eq!(first.len(), second.len(), "both models judge the same documents");
    let count = |wanted: (bool, bool)| {
        let pairs = first.iter().zip(second);
        pairs.filter(|(first, second)| (first.is_right(), second.is_right()) == wanted).count() as u64
    };
    let (only_first, only_second) = (count((true, false)), count((false, true)));
    let documents = first.len() as f64;
    if first.is_empty() {
        return None;
    }
    let shares = [only_first, only_second].map(|count| (count as f64 + 1.0) / (documents + 2.0));
    let centre = shares[1] - shares[0];
    let error = ((shares[0] + shares[1] - centre * centre) / (documents + 2.0)).sqrt();
    Some(Comparison {
        documents: first.len() as u64,
        only_first_right: only_first,
        only_second_right: only_second,
        difference: Estimate {
            value: (only_second as f64 - only_first as f64) / documents,
            low: (centre - Z * error).max(-1.0),
            high: (centre + Z * error).min(1.0),
        },
        p_value: mcnemar(only_first, only_second),
    })
}

/// Wilson 1927, "Probable inference, the law of succession, and statistical inference".
pub fn wilson(right: u64, documents: u64) -> Estimate {
    let (n, value) = (documents as f64, right as f64 / documents as f64);
    let centre = (value + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
    let half = Z / (1.0 + Z * Z / n) * (value * (1.0 - value) / n + Z * Z / (4.0 * n * n)).sqrt();
    Estimate { value, low: (centre - half).max(0.0), high: (centre + half).min(1.0) }
}

fn mcnemar(only_first: u64, only_second: u64) -> f64 {
    match Binomial::new(0.5, only_first + only_second) {
        Ok(coin) => (2.0 * coin.cdf(only_first.min(only_second))).min(1.0),
        // One half is a probability.
        Err(_) => f64::NAN,
    }
}

/// The mean F1 over the classes that occur, of pairs of a true class and the one that was given; both below `classes`. 0
/// where there are no pairs.
pub fn macro_f1(pairs: impl Iterator<Item = (usize, usize)>, classes: usize) -> f64 {
    mean_f1(&confusion(pairs, classes))
}

fn confusion(pairs: impl Iterator<Item = (usize, usize)>, classes: usize) -> Vec<Vec<u64>> {
    let mut confusion = vec![vec![0; classes]; classes];
    for (truth, label) in pairs {
        confusion[truth][label] += 1;
    }
    confusion
}

fn class_figures(confusion: &[Vec<u64>], class: usize) -> ClassFigures {
    let right = confusion[class][class];
    let documents: u64 = confusion[class].iter().sum();
    let called: u64 = confusion.iter().map(|row| row[class]).sum();
    let share = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    ClassFigures {
        documents,
        called,
        precision: share(right, called),
        recall: share(right, documents),
        f1: share(2 * right, documents + called),
    }
}

fn mean_f1(confusion: &[Vec<u64>]) -> f64 {
    let figures = (0..confusion.len()).map(|class| class_figures(confusion, class));
    let f1: Vec<f64> =
        figures.filter(|figures| figures.documents + figures.called > 0).map(|figures| figures.f1).collect();
    if f1.is_empty() { 0.0 } else { f1.iter().sum::<f64>() / f1.len() as f64 }
}

fn macro_f1_interval(judged: &[Judged], classes: usize) -> (f64, f64) {
    let mut random = fastrand::Rng::with_seed(SEED);
    let resamples = RESAMPLES.min(RESAMPLED_DOCUMENTS_MAX / judged.len()).max(100);
    let mut values: Vec<f64> = (0..resamples)
        .map(|_| macro_f1((0..judged.len()).map(|_| judged[random.usize(..judged.len())].pair()), classes))
        .collect();
    values.sort_by(f64::total_cmp);
    let quantile = |share: f64| values[((resamples - 1) as f64 * share).round() as usize];
    (quantile(0.025), quantile(0.975))
}

fn calibration(judged: &[Judged]) -> Calibration {
    let mut sums = [(0_u64, 0.0_f64, 0_u64); BINS];
    for judged in judged {
        let index = (judged.confidence * BINS as f64).ceil() as usize;
        let (documents, confidence, right) = &mut sums[index.clamp(1, BINS) - 1];
        *documents += 1;
        *confidence += judged.confidence;
        *right += u64::from(judged.is_right());
    }
    let bins: Vec<Bin> = sums
        .into_iter()
        .enumerate()
        .filter(|(_, (documents, ..))| *documents > 0)
        .map(|(index, (documents, confidence, right))| Bin {
            low: index as f64 / BINS as f64,
            high: (index + 1) as f64 / BINS as f64,
            documents,
            mean_confidence: confidence / documents as f64,
            accuracy: right as f64 / documents as f64,
        })
        .collect();
    let total = judged.len() as f64;
    let distance = |bin: &Bin| (bin.mean_confidence - bin.accuracy).abs() * bin.documents as f64;
    Calibration {
        expected_error: bins.iter().map(distance).sum::<f64>() / total,
        // A probability that a `f32` rounds to zero still has a logarithm.
        log_loss: judged
            .iter()
            .map(|judged| -judged.truth_probability.max(f64::from(f32::MIN_POSITIVE)).ln())
            .sum::<f64>()
            / total,
        bins,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(truth: usize, label: usize, confidence: f64) -> Judged {
        let truth_probability = if truth == label { confidence } else { (1.0 - confidence) / 2.0 };
        Judged { truth, label, confidence, truth_probability }
    }

    fn many(counts: &[(usize, usize, usize)]) -> Vec<Judged> {
        counts.iter().flat_map(|(truth, label, count)| vec![judged(*truth, *label, 0.9); *count]).collect()
    }

    fn close(value: f64, expected: f64) {
        assert!((value - expected).abs() < 5e-5, "{value} is not {expected}");
    }

    #[test]
    fn figures_of_a_table_made_by_hand() {
        let evaluation = evaluate(&many(&[(0, 0, 6), (0, 1, 2), (1, 1, 3), (1, 0, 1), (2, 1, 4)]), 3).unwrap();
        assert_eq!(evaluation.confusion, [vec![6, 2, 0], vec![1, 3, 0], vec![0, 4, 0]]);
        close(evaluation.accuracy.value, 9.0 / 16.0);
        let f1: Vec<f64> = evaluation.classes.iter().map(|class| class.f1).collect();
        close(f1[0], 0.8);
        close(f1[1], 6.0 / 13.0);
        assert_eq!((f1[2], evaluation.classes[2].precision, evaluation.classes[2].recall), (0.0, 0.0, 0.0));
        close(evaluation.macro_f1.value, (0.8 + 6.0 / 13.0) / 3.0);
        assert!(
            evaluation.macro_f1.low < evaluation.macro_f1.value && evaluation.macro_f1.value < evaluation.macro_f1.high
        );
    }

    #[test]
    fn a_class_that_never_occurs_does_not_lower_the_mean() {
        let evaluation = evaluate(&many(&[(0, 0, 5), (1, 1, 5)]), 3).unwrap();
        assert_eq!(evaluation.macro_f1, Estimate { value: 1.0, low: 1.0, high: 1.0 });
        close(macro_f1(std::iter::empty(), 3), 0.0);
    }

    /// Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I: 81 of 263, 15 of 148, 0 of 20.
    #[test]
    fn the_interval_of_accuracy_is_wilsons() {
        for (right, documents, low, high) in
            [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]
        {
            let interval = wilson(right, documents);
            close(interval.low, low);
            close(interval.high, high);
        }
    }

    #[test]
    fn calibration_is_the_distance_of_confidence_and_accuracy() {
        let mut documents = vec![judged(0, 0, 0.95); 8];
        documents.extend(vec![judged(1, 0, 0.95); 2]);
        documents.extend(vec![judged(0, 0, 0.55); 10]);
        let calibration = evaluate(&documents, 2).unwrap().calibration;
        assert_eq!(calibration.bins.len(), 2);
        close(calibration.expected_error, (0.15 * 10.0 + 0.45 * 10.0) / 20.0);
        close(calibration.log_loss, -(8.0 * 0.95_f64.ln() + 2.0 * 0.025_f64.ln() + 10.0 * 0.55_f64.ln()) / 20.0);
    }

    #[test]
    fn bins_hold_their_upper_end() {
        for (confidence, high) in [(1.0, 1.0), (1.0 / 3.0, 1.0 / 3.0), (0.34, 0.4), (0.0, 1.0 / 15.0)] {
            let bins = evaluate(&[judged(0, 0, confidence)], 2).unwrap().calibration.bins;
            close(bins[0].high, high);
        }
    }

    /// 6 against 1, 12 against 5 and 20 against 20 discordant pairs, added up by hand from the binomial coefficients.
    #[test]
    fn the_test_of_mcnemar_is_exact() {
        close(mcnemar(6, 1), 2.0 * 8.0 / 128.0);
        close(mcnemar(5, 12), 2.0 * 9402.0 / 131_072.0);
        close(mcnemar(20, 20), 1.0);
        close(mcnemar(0, 0), 1.0);
    }

    #[test]
    fn two_models_are_compared_on_the_same_documents() {
        let first = many(&[(0, 0, 80), (0, 1, 15), (0, 1, 5)]);
        let second = many(&[(0, 0, 76), (0, 1, 4), (0, 0, 15), (0, 1, 5)]);
        let comparison = compare(&first, &second).unwrap();
        assert_eq!((comparison.only_first_right, comparison.only_second_right), (4, 15));
        close(comparison.difference.value, 0.11);
        // By hand: shares 5/102 and 16/102, their difference 0.10784, error sqrt((0.20588 - 0.01163) / 102) = 0.04364.
        close(comparison.difference.low, 0.10784 - 1.95996 * 0.04364);
        close(comparison.difference.high, 0.10784 + 1.95996 * 0.04364);
        close(comparison.p_value, 0.01921);
    }

    #[test]
    fn nothing_has_no_figures() {
        assert_eq!(evaluate(&[], 3), None);
        assert_eq!(compare(&[], &[]), None);
    }
}
