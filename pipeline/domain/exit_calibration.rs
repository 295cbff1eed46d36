//! Chooses a model's early exit: compares the rules of [`super::early_exit`] on texts with true labels.
//!
//! Each rule is fitted to lose at most what is allowed and to compute as little as it can, on four fifths of the texts, and
//! judged on the last; every text is judged once (cross-validation), by settings that did not see it. What is written down
//! in the end is fitted on all of them. Pure arithmetic; the logits after every pass come from outside.

use super::{
    early_exit::{EarlyExit, ExitRule, FEATURES, Trail, sureness},
    evaluation::{Comparison, Judged, compare},
    label::{argmax, softmax, weighted_mean},
};

/// Parts of the cross-validation.
const FOLDS: usize = 5;
/// Texts are dealt to the folds in the same order whenever it is run.
const SEED: u64 = 17;
/// Thresholds that are tried: from this one in such steps, up to one.
const THRESHOLD_MIN: f32 = 0.3;
const THRESHOLD_STEP: f32 = 0.005;
/// The share of the allowed loss that settings may lose on the texts they are fitted on: on others they lose more.
const FITTED_LOSS_SHARE: f64 = 0.5;
/// Between these the best temperature is looked for; outside, a pass's logits say nothing.
const TEMPERATURES: (f32, f32) = (0.05, 20.0);
/// Golden-section steps: the interval shrinks by 0.618 with each.
const TEMPERATURE_STEPS: usize = 40;
/// Gradient descent of the learned exit; its four features are of order one.
const LEARNING_STEPS: usize = 600;
const LEARNING_RATE: f32 = 0.5;

/// A text with its true label.
pub struct Sample {
    pub windows: Vec<SampleWindow>,
    pub truth: usize,
}

/// What the network said of one window.
pub struct SampleWindow {
    /// See [`weighted_mean`].
    pub weight: usize,
    /// A window costs its tokens times its passes.
    pub tokens: usize,
    /// After each pass, from the first on.
    pub logits: Vec<Vec<f32>>,
}

/// What is allowed, and what stays as it is.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// By how much the accuracy may fall, as a share.
    pub loss_max: f64,
    /// Of the last pass.
    pub temperature: f32,
    pub passes: usize,
}

/// One rule.
#[derive(Debug, Clone)]
pub struct Trial {
    pub name: &'static str,
    /// Fitted on all texts; `None` where no setting loses as little as allowed.
    pub exit: Option<EarlyExit>,
    /// Judged on texts that the settings did not see.
    pub figures: Figures,
}

/// What an exit loses and saves.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    /// The full depth first, the exit second.
    pub comparison: Comparison,
    /// Share of right labels at full depth, and with the exit.
    pub accuracy: (f64, f64),
    /// Mean over the tokens of the passes they go through.
    pub mean_passes: f64,
    /// Windows that leave after each pass.
    pub depths: Vec<u64>,
}

impl Figures {
    /// By how much the accuracy falls, as a share; below zero where it rises.
    pub fn loss(&self) -> f64 {
        self.accuracy.0 - self.accuracy.1
    }
}

impl Trial {
    /// Whether what it lost is allowed.
    pub fn is_allowed(&self, terms: &Terms) -> bool {
        self.exit.is_some() && self.figures.loss() <= terms.loss_max
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Confidence,
    Patience,
    Agreement,
    Learned,
}

/// Tries every rule. `None` where there are too few texts for as many folds, or not two passes.
pub fn calibrate(samples: &[Sample], terms: &Terms) -> Option<Vec<Trial>> {
    if samples.len() < FOLDS || terms.passes < 2 {
        return None;
    }
    let mut order: Vec<usize> = (0..samples.len()).collect();
    fastrand::Rng::with_seed(SEED).shuffle(&mut order);
    let kinds = [Kind::Confidence, Kind::Patience, Kind::Agreement, Kind::Learned];
    kinds.into_iter().map(|kind| trial(kind, samples, &order, terms)).collect()
}

/// The trial that computes least of those that lose no more than allowed.
pub fn best<'a>(trials: &'a [Trial], terms: &Terms) -> Option<&'a Trial> {
    let allowed = trials.iter().filter(|trial| trial.is_allowed(terms));
    allowed.min_by(|one, other| one.figures.mean_passes.total_cmp(&other.figures.mean_passes))
}

fn trial(kind: Kind, samples: &[Sample], order: &[usize], terms: &Terms) -> Option<Trial> {
    let mut tally = Tally::new(terms.passes);
    for fold in 0..FOLDS {
        let part = |inside: bool| -> Vec<&Sample> {
            let chosen = order.iter().enumerate().filter(|(position, _)| (position % FOLDS == fold) == inside);
            chosen.map(|(_, index)| &samples[*index]).collect()
        };
        let exit = fit(kind, &part(false), terms);
        for sample in part(true) {
            tally.add(sample, exit.as_ref(), terms);
        }
    }
    let exit = fit(kind, &samples.iter().collect::<Vec<_>>(), terms);
    Some(Trial { name: kind.name(), exit, figures: tally.figures()? })
}

impl Kind {
    fn name(self) -> &'static str {
        // Any settings have the name of their rule.
        self.rule(0.0, &[]).name()
    }

    fn rule(self, threshold: f32, weights: &[[f32; FEATURES]]) -> ExitRule {
        match self {
            Self::Confidence => ExitRule::Confidence { threshold },
            Self::Patience => ExitRule::Patience { repeats: threshold as usize },
            Self::Agreement => ExitRule::Agreement { threshold },
            Self::Learned => ExitRule::Learned { threshold, weights: weights.to_vec() },
        }
    }

    /// Settings from the strictest on.
    fn thresholds(self, passes: usize) -> Vec<f32> {
        if let Self::Patience = self {
            // More can never be counted before the last pass.
            return (1..passes - 1).rev().map(|repeats| repeats as f32).collect();
        }
        let steps = ((1.0 - THRESHOLD_MIN) / THRESHOLD_STEP) as usize;
        (0..=steps).map(|step| 1.0 - step as f32 * THRESHOLD_STEP).collect()
    }
}

/// The settings that compute least, of those that lose no more than their share and of which every stricter one does so too: a
/// single lucky one is none.
fn fit(kind: Kind, samples: &[&Sample], terms: &Terms) -> Option<EarlyExit> {
    let temperatures: Vec<f32> = (0..terms.passes - 1).map(|pass| best_temperature(samples, pass)).collect();
    let weights = match kind {
        Kind::Learned => (0..terms.passes - 1).map(|pass| learn(samples, &temperatures, pass, terms)).collect(),
        _ => Vec::new(),
    };
    let mut found = None;
    for threshold in kind.thresholds(terms.passes) {
        let exit = EarlyExit { rule: kind.rule(threshold, &weights), temperatures: temperatures.clone() };
        let mut tally = Tally::new(terms.passes);
        for sample in samples {
            tally.add(sample, Some(&exit), terms);
        }
        if tally.loss() > terms.loss_max * FITTED_LOSS_SHARE {
            break;
        }
        found = Some(exit);
    }
    found
}

/// Counts what an exit does to texts.
struct Tally {
    full: Vec<Judged>,
    early: Vec<Judged>,
    tokens: usize,
    token_passes: usize,
    depths: Vec<u64>,
}

impl Tally {
    fn new(passes: usize) -> Self {
        Self { full: Vec::new(), early: Vec::new(), tokens: 0, token_passes: 0, depths: vec![0; passes] }
    }

    fn add(&mut self, sample: &Sample, exit: Option<&EarlyExit>, terms: &Terms) {
        let (mut full, mut early) = (Vec::new(), Vec::new());
        for window in &sample.windows {
            let depth = exit.map_or(terms.passes, |exit| depth(exit, window, terms.passes));
            let temperature = |depth: usize| {
                exit.and_then(|exit| exit.temperatures.get(depth - 1)).copied().unwrap_or(terms.temperature)
            };
            full.push((window.weight, softmax(&window.logits[terms.passes - 1], terms.temperature)));
            early.push((window.weight, softmax(&window.logits[depth - 1], temperature(depth))));
            self.tokens += window.tokens;
            self.token_passes += window.tokens * depth;
            self.depths[depth - 1] += 1;
        }
        self.full.push(judge(&full, sample.truth));
        self.early.push(judge(&early, sample.truth));
    }

    fn accuracy(judged: &[Judged]) -> f64 {
        judged.iter().filter(|judged| judged.is_right()).count() as f64 / judged.len().max(1) as f64
    }

    fn loss(&self) -> f64 {
        Self::accuracy(&self.full) - Self::accuracy(&self.early)
    }

    fn figures(self) -> Option<Figures> {
        Some(Figures {
            comparison: compare(&self.full, &self.early)?,
            accuracy: (Self::accuracy(&self.full), Self::accuracy(&self.early)),
            mean_passes: self.token_passes as f64 / self.tokens.max(1) as f64,
            depths: self.depths,
        })
    }
}

fn judge(windows: &[(usize, Vec<f32>)], truth: usize) -> Judged {
    let probabilities = weighted_mean(windows);
    let label = argmax(&probabilities).unwrap_or_default();
    let probability = |class: usize| probabilities.get(class).map_or(0.0, |probability| f64::from(*probability));
    Judged { truth, label, confidence: probability(label), truth_probability: probability(truth) }
}

/// The pass after which a window leaves.
fn depth(exit: &EarlyExit, window: &SampleWindow, passes: usize) -> usize {
    let mut trail = Trail::default();
    (1..passes).find(|depth| exit.leaves(&mut trail, *depth, &window.logits[depth - 1])).unwrap_or(passes)
}

/// The temperature at which the true labels are most probable after a pass, by golden-section search: the negative
/// log-likelihood has one minimum in it.
fn best_temperature(samples: &[&Sample], pass: usize) -> f32 {
    let loss = |logarithm: f32| -> f64 {
        let windows = samples.iter().flat_map(|sample| sample.windows.iter().map(|window| (window, sample.truth)));
        let surprise = |(window, truth): (&SampleWindow, usize)| {
            -f64::from(softmax(&window.logits[pass], logarithm.exp()).get(truth).copied().unwrap_or(0.0).max(1e-9)).ln()
        };
        windows.map(surprise).sum()
    };
    let ratio = (5.0_f32.sqrt() - 1.0) / 2.0;
    let (mut low, mut high) = (TEMPERATURES.0.ln(), TEMPERATURES.1.ln());
    let inner = |low: f32, high: f32| (high - ratio * (high - low), low + ratio * (high - low));
    let (mut left, mut right) = inner(low, high);
    let (mut at_left, mut at_right) = (loss(left), loss(right));
    for _ in 0..TEMPERATURE_STEPS {
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

/// A logistic regression on whether the label after a pass is the last one's, by gradient descent.
fn learn(samples: &[&Sample], temperatures: &[f32], pass: usize, terms: &Terms) -> [f32; FEATURES] {
    let examples: Vec<([f32; FEATURES], f32)> = samples
        .iter()
        .flat_map(|sample| &sample.windows)
        .map(|window| {
            let mut trail = Trail::default();
            for (logits, temperature) in window.logits.iter().zip(temperatures).take(pass + 1) {
                trail.observe(softmax(logits, *temperature));
            }
            let stays = argmax(&window.logits[pass]) == argmax(&window.logits[terms.passes - 1]);
            (trail.features(), f32::from(u8::from(stays)))
        })
        .collect();
    let mut weights = [0.0; FEATURES];
    for _ in 0..LEARNING_STEPS {
        let mut gradient = [0.0; FEATURES];
        for (features, stays) in &examples {
            let error = sureness(&weights, features) - stays;
            gradient.iter_mut().zip(features).for_each(|(sum, feature)| *sum += error * feature);
        }
        let rate = LEARNING_RATE / examples.len().max(1) as f32;
        weights.iter_mut().zip(gradient).for_each(|(weight, gradient)| *weight -= rate * gradient);
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSES: usize = 4;

    /// Texts of two classes. Easy ones are right from the first pass on and say so; hard ones are wrong, unsure, until the
    /// last. Tokens: 10 each.
    fn samples(easy: usize, hard: usize) -> Vec<Sample> {
        let mut random = fastrand::Rng::with_seed(3);
        let mut sample = |is_easy: bool, truth: usize| {
            let logits = |strength: f32| if truth == 0 { vec![strength, 0.0] } else { vec![0.0, strength] };
            let mut noise = || random.f32() * 0.4;
            let windows = (0..PASSES).map(|pass| match (is_easy, pass) {
                (true, _) => logits(3.0 + noise()),
                (false, pass) if pass + 1 < PASSES => logits(-0.3 - noise()),
                (false, _) => logits(1.0 + noise()),
            });
            let logits = windows.collect();
            Sample { windows: vec![SampleWindow { weight: 1, tokens: 10, logits }], truth }
        };
        (0..easy)
            .map(|index| (true, index))
            .chain((0..hard).map(|index| (false, index)))
            .map(|(easy, index)| sample(easy, index % 2))
            .collect()
    }

    fn terms(loss_max: f64) -> Terms {
        Terms { loss_max, temperature: 1.0, passes: PASSES }
    }

    #[test]
    fn what_is_sure_leaves_at_once_and_what_is_not_goes_all_the_way() {
        let (samples, terms) = (samples(150, 50), terms(0.002));
        let trials = calibrate(&samples, &terms).unwrap();
        let best = best(&trials, &terms).unwrap();
        assert_eq!(best.name, "confidence");
        assert_eq!(best.figures.accuracy, (1.0, 1.0));
        assert_eq!(best.figures.depths, [150, 0, 0, 50]);
        assert!((best.figures.mean_passes - (150.0 + 50.0 * 4.0) / 200.0).abs() < 1e-9);
        let exit = best.exit.as_ref().unwrap();
        assert_eq!(exit.problem(PASSES), None);
        assert!(matches!(exit.rule, ExitRule::Confidence { threshold } if threshold < 0.95), "{exit:?}");
    }

    #[test]
    fn a_rule_that_can_only_lose_too_much_is_not_allowed() {
        let (samples, terms) = (samples(150, 50), terms(0.002));
        let trials = calibrate(&samples, &terms).unwrap();
        // Hard texts have the same wrong label pass after pass.
        let patience = trials.iter().find(|trial| trial.name == "patience").unwrap();
        assert!(!patience.is_allowed(&terms) && patience.exit.is_none());
        assert!((patience.figures.mean_passes - 4.0).abs() < 1e-9, "without a setting every text goes all the way");
    }

    #[test]
    fn more_may_be_lost_where_more_is_allowed() {
        let samples = samples(150, 50);
        let passes = |loss_max: f64| {
            let trials = calibrate(&samples, &terms(loss_max)).unwrap();
            best(&trials, &terms(loss_max)).unwrap().figures.mean_passes
        };
        assert!(passes(0.7) < passes(0.002));
        assert!((passes(0.7) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn the_temperature_makes_confidence_what_is_right_so_often() {
        // Right in three of four cases, whatever the logits: the best confidence is 0.75.
        let window = |right: bool| {
            let logits = if right { vec![4.0, 0.0] } else { vec![0.0, 4.0] };
            SampleWindow { weight: 1, tokens: 1, logits: vec![logits] }
        };
        let samples: Vec<Sample> =
            (0..400).map(|index| Sample { windows: vec![window(index % 4 > 0)], truth: 0 }).collect();
        let temperature = best_temperature(&samples.iter().collect::<Vec<_>>(), 0);
        assert!((softmax(&[4.0, 0.0], temperature)[0] - 0.75).abs() < 0.005, "{temperature}");
    }

    #[test]
    fn too_little_to_compare_is_told() {
        assert!(calibrate(&samples(4, 0), &terms(0.1)).is_none());
        assert!(calibrate(&samples(10, 0), &Terms { passes: 1, ..terms(0.1) }).is_none());
    }
}
