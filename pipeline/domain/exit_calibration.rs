//! Chooses a model's early exit: compares the rules of [`super::early_exit`] on texts with true labels.
//!
//! Each rule is fitted to lose at most what is allowed and to compute as little as it can, on four fifths of the texts, and
//! judged on the last; every text is judged once (cross-validation), by settings that did not see it. What is written down
//! in the end is fitted on all of them. Pure arithmetic; the logits after every pass come from outside.

use super::{
    early_exit::{EarlyExit, ExitRule, FEATURES, Trail, sureness},
    evaluation::{Comparison, Judged, compare},
    label::{argmax, softmax},
    temperature_scaling::{Leaver, LeavingText, after_pass, of_leavers},
    window_pooling::{PooledDocument, PooledWindow, pooled},
};

/// Parts of the cross-validation.
const FOLDS: usize = 5;
/// Texts are dealt to the folds in the same order whenever it is run.
const SEED: u64 = 17;
/// Thresholds that are tried, by what they leave to one: from this on, each so many times the last, up to this.
const SLACKS: (f32, f32, f32) = (0.0005, 1.1, 0.7);
/// The share of the allowed loss that settings may lose on the texts they are fitted on; a smaller one where they lost more than is
/// allowed on others.
const FITTED_LOSS_SHARES: [f64; 5] = [1.0, 0.75, 0.5, 0.25, 0.0];
/// Gradient descent of the learned exit; its four features are of order one.
const LEARNING_STEPS: usize = 2000;
const LEARNING_RATE: f32 = 0.5;

/// A text with its true label.
pub struct Sample {
    pub windows: Vec<SampleWindow>,
    pub truth: usize,
}

/// What the network said of one window.
pub struct SampleWindow {
    /// See [`PooledWindow`].
    pub weight: usize,
    /// A window costs its tokens times its passes.
    pub tokens: usize,
    /// After each pass, from the first on.
    pub logits: Vec<Vec<f32>>,
}

impl Sample {
    /// At full depth.
    pub fn pooled_document(&self, temperature: f32) -> PooledDocument<'_> {
        let windows = self.windows.iter().map(|window| window.after(window.logits.len(), temperature));
        PooledDocument { windows: windows.collect(), truth: self.truth }
    }
}

impl SampleWindow {
    /// After pass `depth`, counted from 1.
    fn after(&self, depth: usize, temperature: f32) -> PooledWindow<'_> {
        PooledWindow { weight: self.weight, logits: &self.logits[depth - 1], temperature }
    }
}

/// What is allowed, and what stays as it is.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// By how much the accuracy may fall, as a share.
    pub loss_max: f64,
    /// Of the last pass.
    pub temperature: f32,
    /// Of a text's windows; see [`pooled`].
    pub window_independence: f32,
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

/// One rule with the first share with which it loses no more than allowed, or with the last. Several tries judge a little more
/// kindly than one.
fn trial(kind: Kind, samples: &[Sample], order: &[usize], terms: &Terms) -> Option<Trial> {
    let part = |fold: usize, inside: bool| -> Vec<&Sample> {
        let chosen = order.iter().enumerate().filter(|(position, _)| (position % FOLDS == fold) == inside);
        chosen.map(|(_, index)| &samples[*index]).collect()
    };
    let of_fold = |fold| (Candidates::of(kind, part(fold, false), terms), part(fold, true));
    let folds: Vec<(Candidates<'_>, Vec<&Sample>)> = (0..FOLDS).map(of_fold).collect();
    let whole = Candidates::of(kind, samples.iter().collect(), terms);
    let mut found = None;
    for share in FITTED_LOSS_SHARES {
        let loss_max = terms.loss_max * share;
        let mut tally = Tally::new(terms.passes);
        for (candidates, judged) in &folds {
            let exit = candidates.laxest(loss_max, terms);
            for sample in judged {
                tally.add(sample, exit.as_ref(), terms);
            }
        }
        let trial = Trial { name: kind.name(), exit: whole.laxest(loss_max, terms), figures: tally.figures()? };
        let is_allowed = trial.is_allowed(terms);
        found = Some(trial);
        if is_allowed {
            break;
        }
    }
    found
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
        let (first, growth, last) = SLACKS;
        let slacks = std::iter::successors(Some(first), |slack| Some(slack * growth));
        slacks.take_while(|slack| *slack <= last).map(|slack| 1.0 - slack).collect()
    }
}

/// One rule, fitted on texts, with every threshold.
struct Candidates<'a> {
    samples: Vec<&'a Sample>,
    /// From the strictest on.
    exits: Vec<EarlyExit>,
    /// Of each exit: by how much the accuracy of the shorter half of the texts falls, or that of the longer one, whichever more. What
    /// short texts gain is no comfort to long ones.
    losses: Vec<f64>,
}

impl<'a> Candidates<'a> {
    fn of(kind: Kind, samples: Vec<&'a Sample>, terms: &Terms) -> Self {
        let windows_at = |pass: usize| -> Vec<(&[f32], usize)> {
            let of = |sample: &&'a Sample| sample.windows.iter().map(|it| (&*it.logits[pass], sample.truth));
            samples.iter().flat_map(of).collect()
        };
        let temperatures: Vec<f32> = (0..terms.passes).map(|pass| after_pass(&windows_at(pass))).collect();
        let weights = match kind {
            Kind::Learned => (0..terms.passes - 1).map(|pass| learn(&samples, &temperatures, pass, terms)).collect(),
            _ => Vec::new(),
        };
        let exit_with = |threshold| EarlyExit {
            rule: kind.rule(threshold, &weights),
            rule_temperatures: temperatures[..terms.passes - 1].to_vec(),
            temperatures: temperatures.clone(),
        };
        let exits: Vec<EarlyExit> = kind.thresholds(terms.passes).into_iter().map(exit_with).collect();
        let mut by_length = samples.clone();
        by_length.sort_by_key(|sample| sample.windows.iter().map(|window| window.tokens).sum::<usize>());
        let (shorter, longer) = by_length.split_at(by_length.len() / 2);
        let losses = |half: &[&Sample]| rising(&exits.iter().map(|exit| loss(half, exit, terms)).collect::<Vec<_>>());
        let losses = losses(shorter).into_iter().zip(losses(longer)).map(|(one, other)| one.max(other)).collect();
        Self { samples, exits, losses }
    }

    /// The exit that computes least, of those that lose no more, with temperatures for what leaves by it.
    fn laxest(&self, loss_max: f64, terms: &Terms) -> Option<EarlyExit> {
        let allowed = self.exits.iter().zip(&self.losses).take_while(|(_, loss)| **loss <= loss_max);
        let mut exit = allowed.last()?.0.clone();
        let leaver = |window: &'a SampleWindow| {
            let pass = depth(&exit, window, terms.passes) - 1;
            Leaver { weight: window.weight, pass, logits: &window.logits[pass] }
        };
        let text = |sample: &&'a Sample| LeavingText {
            windows: sample.windows.iter().map(leaver).collect(),
            truth: sample.truth,
        };
        let texts: Vec<_> = self.samples.iter().map(text).collect();
        exit.temperatures = of_leavers(&texts, exit.temperatures, terms.window_independence);
        Some(exit)
    }
}

/// The values that never fall and are nearest to these (isotonic regression, by its max-min formula): a laxer setting loses more, and
/// what says otherwise is chance.
fn rising(values: &[f64]) -> Vec<f64> {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let lowest_from = |first: usize, at: usize| {
        (at..values.len()).map(|last| mean(&values[first..=last])).fold(f64::INFINITY, f64::min)
    };
    let level = |at: usize| (0..=at).map(|first| lowest_from(first, at)).fold(f64::NEG_INFINITY, f64::max);
    (0..values.len()).map(level).collect()
}

/// By how much the accuracy of texts falls, as a share.
fn loss(samples: &[&Sample], exit: &EarlyExit, terms: &Terms) -> f64 {
    let mut tally = Tally::new(terms.passes);
    for sample in samples {
        tally.add(sample, Some(exit), terms);
    }
    tally.loss()
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
            let temperature = exit.map_or(terms.temperature, |exit| exit.temperatures[depth - 1]);
            full.push(window.after(terms.passes, terms.temperature));
            early.push(window.after(depth, temperature));
            self.tokens += window.tokens;
            self.token_passes += window.tokens * depth;
            self.depths[depth - 1] += 1;
        }
        self.full.push(judge(&pooled(&full, terms.window_independence), sample.truth));
        self.early.push(judge(&pooled(&early, terms.window_independence), sample.truth));
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

fn judge(probabilities: &[f32], truth: usize) -> Judged {
    let label = argmax(probabilities).unwrap_or_default();
    let probability = |class: usize| probabilities.get(class).map_or(0.0, |probability| f64::from(*probability));
    Judged { truth, label, confidence: probability(label), truth_probability: probability(truth) }
}

/// The pass after which a window leaves.
fn depth(exit: &EarlyExit, window: &SampleWindow, passes: usize) -> usize {
    let mut trail = Trail::default();
    (1..passes).find(|depth| exit.leaves(&mut trail, *depth, &window.logits[depth - 1])).unwrap_or(passes)
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
        Terms { loss_max, temperature: 1.0, window_independence: 0.0, passes: PASSES }
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
    fn what_falls_is_levelled_and_what_rises_stays() {
        assert_eq!(rising(&[3.0, 1.0, 2.0, 4.0, 5.0, 0.0]), [2.0, 2.0, 2.0, 3.0, 3.0, 3.0]);
        assert_eq!(rising(&[-1.0, 0.0, 2.0]), [-1.0, 0.0, 2.0]);
    }

    #[test]
    fn what_short_texts_gain_is_no_comfort_to_long_ones() {
        // Short ones are right early and wrong at the end, long ones the other way round.
        let text = |index: usize, tokens: usize| {
            let logits = |right: bool| if right == (index % 4 < 2) { vec![2.0, 0.0] } else { vec![0.0, 2.0] };
            let logits = (0..PASSES).map(|pass| logits((tokens == 10) == (pass + 1 < PASSES))).collect();
            Sample { windows: vec![SampleWindow { weight: 1, tokens, logits }], truth: usize::from(index % 4 >= 2) }
        };
        let samples: Vec<Sample> = (0..200).map(|index| text(index, if index % 2 == 0 { 10 } else { 100 })).collect();
        for trial in calibrate(&samples, &terms(0.002)).unwrap() {
            assert!((trial.figures.mean_passes - PASSES as f64).abs() < 1e-9, "{trial:?}");
        }
    }

    #[test]
    fn what_leaves_has_the_temperature_of_what_leaves() {
        // What is easy is right and leaves first; the others are wrong there.
        let trials = calibrate(&samples(150, 50), &terms(0.002)).unwrap();
        let exit = best(&trials, &terms(0.002)).unwrap().exit.as_ref().unwrap();
        assert_eq!(exit.temperatures.len(), PASSES);
        // One in 152 wrong, at logits of 3.0 to 3.4.
        assert!((0.6..0.68).contains(&exit.temperatures[0]), "{exit:?}");
        assert!(exit.rule_temperatures[0] > exit.temperatures[0], "one in four of all is wrong there: {exit:?}");
    }

    #[test]
    fn too_little_to_compare_is_told() {
        assert!(calibrate(&samples(4, 0), &terms(0.1)).is_none());
        assert!(calibrate(&samples(10, 0), &Terms { passes: 1, ..terms(0.1) }).is_none());
    }
}
