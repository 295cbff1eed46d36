//! Chooses a model's early exits: compares the rules of [`super::early_exit`] on texts with true labels.
//!
//! Texts of one window and texts of several are calibrated apart, as [`EarlyExits`] has them. Each rule is fitted to lose at most what is
//! allowed and to compute as little as it can, on four fifths of the texts, and judged on the last; every text is judged once
//! (cross-validation), by settings that did not see it. What is written down in the end is fitted on all of them. Pure arithmetic; the
//! logits after every pass come from outside.

use nalgebra::{SMatrix, SVector};

use super::{
    early_exit::{EarlyExit, EarlyExits, ExitRule, FEATURES, Trail},
    evaluation::{Comparison, Judged, compare},
    label::{argmax, softmax},
    temperature_scaling::fit_temperature,
    window_pooling::{DOCUMENTS_MIN, PooledDocument, PooledWindow, pooled},
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
/// How far the true label has to be ahead of the next one, in log odds, to count as right by 0.73 and not by a half. See [`rightness`].
const SMOOTHNESS: f64 = 0.5;
/// What a window of a longer text says is near what it says in the end where no log odds move further.
const NEAR: f32 = 0.5;
/// From fewer texts that leave after a pass its temperature is chance.
const LEAVERS_MIN: usize = 50;
/// Of the learned exit: Newton's method is there after about ten steps.
const LEARNING_STEPS: usize = 30;
/// The penalty on its squared weights, as if each were drawn from a normal distribution of variance one: a few texts are no certainty.
const RIDGE: f64 = 1.0;

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
    pub fn at_full_depth(&self, temperature: f32) -> PooledDocument<'_> {
        self.leaving(self.windows.iter().map(|window| (window.logits.len(), temperature)))
    }

    /// Each window after the pass that it leaves after, counted from 1, and its temperature there.
    fn leaving(&self, exits: impl IntoIterator<Item = (usize, f32)>) -> PooledDocument<'_> {
        let windows =
            self.windows.iter().zip(exits).map(|(window, (depth, temperature))| window.after(depth, temperature));
        PooledDocument { windows: windows.collect(), truth: self.truth }
    }

    /// Each window after this pass, counted from 1, as if it were a document.
    fn each_window_after(&self, pass: usize) -> impl Iterator<Item = PooledDocument<'_>> {
        self.windows
            .iter()
            .map(move |window| PooledDocument { windows: vec![window.after(pass, 1.0)], truth: self.truth })
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
    /// How much may be lost on the mean, as a share; see [`Figures::loss`].
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

/// Texts that leave by an exit of their own.
#[derive(Debug)]
pub struct Group {
    pub texts: Texts,
    pub trials: Vec<Trial>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Texts {
    OneWindow,
    SeveralWindows,
    /// Where there are too few of one of them.
    All,
}

/// What an exit loses and saves, text by text.
#[derive(Debug, Clone)]
pub struct Figures {
    full: Vec<Judgement>,
    early: Vec<Judgement>,
    tokens: usize,
    token_passes: usize,
    /// Windows that leave after each pass.
    pub depths: Vec<u64>,
}

impl Figures {
    fn none(passes: usize) -> Self {
        Self { full: Vec::new(), early: Vec::new(), tokens: 0, token_passes: 0, depths: vec![0; passes] }
    }

    fn add(&mut self, text: &Text<'_>, exit: Option<&EarlyExit>, terms: &Terms) {
        let depth = |window| exit.map_or(terms.passes, |exit| depth(exit, window, terms.passes));
        let depths: Vec<usize> = text.sample.windows.iter().map(depth).collect();
        for (window, depth) in text.sample.windows.iter().zip(&depths) {
            self.tokens += window.tokens;
            self.token_passes += window.tokens * depth;
            self.depths[depth - 1] += 1;
        }
        let temperature = |depth: usize| exit.map_or(terms.temperature, |exit| exit.temperatures[depth - 1]);
        let left = text.sample.leaving(depths.into_iter().map(|depth| (depth, temperature(depth))));
        self.full.push(text.full);
        self.early.push(Judgement::of(&left, terms));
    }

    /// Of all these texts together.
    pub fn together<'a>(parts: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        parts.into_iter().cloned().reduce(|mut all, part| {
            all.full.extend(part.full);
            all.early.extend(part.early);
            all.tokens += part.tokens;
            all.token_passes += part.token_passes;
            all.depths.iter_mut().zip(part.depths).for_each(|(sum, count)| *sum += count);
            all
        })
    }

    pub fn texts(&self) -> usize {
        self.full.len()
    }

    /// The full depth first, the exit second.
    pub fn comparison(&self) -> Option<Comparison> {
        let judged = |all: &[Judgement]| all.iter().map(|judgement| judgement.judged).collect::<Vec<_>>();
        compare(&judged(&self.full), &judged(&self.early))
    }

    /// Share of right labels at full depth, and with the exit.
    pub fn accuracy(&self) -> (f64, f64) {
        let right = |judgement: &Judgement| f64::from(u8::from(judgement.judged.is_right()));
        (mean(self.full.iter().map(right)), mean(self.early.iter().map(right)))
    }

    /// By how much texts are less right on the mean, as a share; below zero where they are more. A text whose two best labels are nearly as
    /// probable counts about half, so that few texts tell a small loss too.
    pub fn loss(&self) -> f64 {
        mean(self.full.iter().map(|judgement| judgement.rightness))
            - mean(self.early.iter().map(|judgement| judgement.rightness))
    }

    /// Mean over the tokens of the passes they go through.
    pub fn mean_passes(&self) -> f64 {
        self.token_passes as f64 / self.tokens.max(1) as f64
    }
}

impl Trial {
    /// Whether what it lost is allowed.
    pub fn is_allowed(&self, terms: &Terms) -> bool {
        self.exit.is_some() && self.figures.loss() <= terms.loss_max
    }
}

impl Group {
    /// The trial that computes least of those that lose no more than allowed.
    pub fn best(&self, terms: &Terms) -> Option<&Trial> {
        let allowed = self.trials.iter().filter(|trial| trial.is_allowed(terms));
        allowed.min_by(|one, other| one.figures.mean_passes().total_cmp(&other.figures.mean_passes()))
    }
}

/// A sample, and what was made of it at full depth.
#[derive(Clone, Copy)]
struct Text<'a> {
    sample: &'a Sample,
    full: Judgement,
}

#[derive(Debug, Clone, Copy)]
struct Judgement {
    judged: Judged,
    rightness: f64,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Confidence,
    Patience,
    Agreement,
    Learned,
}

/// Tries every rule on each group of texts. `None` where there are too few texts for as many folds, or not two passes.
pub fn calibrate(samples: &[Sample], terms: &Terms) -> Option<Vec<Group>> {
    if samples.len() < FOLDS || terms.passes < 2 {
        return None;
    }
    let mut texts: Vec<Text<'_>> = samples.iter().map(|sample| Text::of(sample, terms)).collect();
    fastrand::Rng::with_seed(SEED).shuffle(&mut texts);
    let (one, several): (Vec<_>, Vec<_>) = texts.iter().copied().partition(|text| text.sample.windows.len() < 2);
    let groups = if one.len().min(several.len()) < DOCUMENTS_MIN {
        vec![(Texts::All, texts)]
    } else {
        vec![(Texts::OneWindow, one), (Texts::SeveralWindows, several)]
    };
    let kinds = [Kind::Confidence, Kind::Patience, Kind::Agreement, Kind::Learned];
    let group = |(name, texts): (Texts, Vec<Text<'_>>)| Group {
        texts: name,
        trials: kinds.into_iter().filter_map(|kind| trial(kind, &texts, terms)).collect(),
    };
    Some(groups.into_iter().map(group).collect())
}

/// The best exit of each group; `None` where none saves anything.
pub fn chosen(groups: &[Group], terms: &Terms) -> Option<EarlyExits> {
    let mut exits = EarlyExits::default();
    for group in groups {
        let exit = group.best(terms).and_then(|trial| trial.exit.clone());
        if group.texts != Texts::SeveralWindows {
            exits.one_window.clone_from(&exit);
        }
        if group.texts != Texts::OneWindow {
            exits.several_windows = exit;
        }
    }
    (exits != EarlyExits::default()).then_some(exits)
}

/// One rule with the first share with which it loses no more than allowed, or with the last. Several tries judge a little more
/// kindly than one.
fn trial(kind: Kind, texts: &[Text<'_>], terms: &Terms) -> Option<Trial> {
    let part = |fold: usize, inside: bool| -> Vec<Text<'_>> {
        let chosen = texts.iter().enumerate().filter(|(position, _)| (position % FOLDS == fold) == inside);
        chosen.map(|(_, text)| *text).collect()
    };
    let of_fold = |fold| (Candidates::of(kind, part(fold, false), terms), part(fold, true));
    let folds: Vec<(Candidates<'_>, Vec<Text<'_>>)> = (0..FOLDS).map(of_fold).collect();
    let whole = Candidates::of(kind, texts.to_vec(), terms);
    let mut found = None;
    for share in FITTED_LOSS_SHARES {
        let loss_max = terms.loss_max * share;
        let mut figures = Figures::none(terms.passes);
        for (candidates, judged) in &folds {
            let exit = candidates.laxest(loss_max, terms);
            for text in judged {
                figures.add(text, exit.as_ref(), terms);
            }
        }
        let trial = Trial { name: kind.name(), exit: whole.laxest(loss_max, terms), figures };
        let is_allowed = trial.is_allowed(terms);
        found = Some(trial);
        if is_allowed {
            break;
        }
    }
    found
}

impl<'a> Text<'a> {
    fn of(sample: &'a Sample, terms: &Terms) -> Self {
        Self { sample, full: Judgement::of(&sample.at_full_depth(terms.temperature), terms) }
    }
}

impl Judgement {
    fn of(document: &PooledDocument<'_>, terms: &Terms) -> Self {
        let probabilities = |document: &PooledDocument<'_>| pooled(&document.windows, terms.window_independence);
        let published = probabilities(document);
        let label = argmax(&published).unwrap_or_default();
        let probability = |class: usize| published.get(class).map_or(0.0, |probability| f64::from(*probability));
        let truth = document.truth;
        Self {
            judged: Judged { truth, label, confidence: probability(label), truth_probability: probability(truth) },
            // That temperatures differ is no loss, so this has one for all.
            rightness: rightness(&probabilities(&document.at_temperature(terms.temperature)), truth),
        }
    }
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
    texts: Vec<Text<'a>>,
    /// From the strictest on.
    exits: Vec<EarlyExit>,
    /// Of each exit: the loss of the shorter half of the texts, or that of the longer one, whichever more. What short texts gain is no
    /// comfort to long ones.
    losses: Vec<f64>,
}

impl<'a> Candidates<'a> {
    fn of(kind: Kind, texts: Vec<Text<'a>>, terms: &Terms) -> Self {
        let after = |pass: usize| -> Vec<PooledDocument<'_>> {
            let windows = texts.iter().flat_map(|text| text.sample.each_window_after(pass));
            windows.collect()
        };
        let temperatures: Vec<f32> = (1..terms.passes).map(|pass| fit_temperature(&after(pass), 0.0)).collect();
        let weights = match kind {
            Kind::Learned => (0..terms.passes - 1).map(|pass| learn(&texts, &temperatures, pass, terms)).collect(),
            _ => Vec::new(),
        };
        let exit_with = |threshold| EarlyExit {
            rule: kind.rule(threshold, &weights),
            rule_temperatures: temperatures.clone(),
            temperatures: vec![terms.temperature; terms.passes],
        };
        let exits: Vec<EarlyExit> = kind.thresholds(terms.passes).into_iter().map(exit_with).collect();
        let mut by_length = texts.clone();
        by_length.sort_by_key(|text| text.sample.windows.iter().map(|window| window.tokens).sum::<usize>());
        let (shorter, longer) = by_length.split_at(by_length.len() / 2);
        let losses = |half: &[Text<'_>]| rising(&exits.iter().map(|exit| loss(half, exit, terms)).collect::<Vec<_>>());
        let losses = losses(shorter).into_iter().zip(losses(longer)).map(|(one, other)| one.max(other)).collect();
        Self { texts, exits, losses }
    }

    /// The exit that computes least, of those that lose no more, with temperatures for what leaves by it.
    fn laxest(&self, loss_max: f64, terms: &Terms) -> Option<EarlyExit> {
        let allowed = self.exits.iter().zip(&self.losses).take_while(|(_, loss)| **loss <= loss_max);
        let mut exit = allowed.last()?.0.clone();
        exit.temperatures = self.temperatures(&exit, terms);
        Some(exit)
    }

    /// What leaves early is easy, and of it a label is right more often than of all texts that are as probable: so of texts of one window
    /// each pass has a temperature of its own, where enough leave after it. Those of several windows have one for all passes: what weighs the
    /// windows of a text against each other, which leave after different passes, would be chance otherwise.
    fn temperatures(&self, exit: &EarlyExit, terms: &Terms) -> Vec<f32> {
        let depth = |window| depth(exit, window, terms.passes);
        let depths_of = |text: &Text<'a>| text.sample.windows.iter().map(depth).collect();
        let depths: Vec<Vec<usize>> = self.texts.iter().map(depths_of).collect();
        let left =
            |(text, depths): (&Text<'a>, &Vec<usize>)| text.sample.leaving(depths.iter().map(|depth| (*depth, 1.0)));
        let all: Vec<_> = self.texts.iter().zip(&depths).map(left).collect();
        let of_all = fit_temperature(&all, terms.window_independence);
        if self.texts.iter().any(|text| text.sample.windows.len() > 1) {
            return vec![of_all; terms.passes];
        }
        let after = |pass: usize| {
            let there = self.texts.iter().zip(&depths).filter(|(_, depths)| depths.contains(&pass));
            let leavers: Vec<_> = there.map(left).collect();
            if leavers.len() < LEAVERS_MIN { of_all } else { fit_temperature(&leavers, terms.window_independence) }
        };
        (1..=terms.passes).map(after).collect()
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

fn loss(texts: &[Text<'_>], exit: &EarlyExit, terms: &Terms) -> f64 {
    let mut figures = Figures::none(terms.passes);
    for text in texts {
        figures.add(text, Some(exit), terms);
    }
    figures.loss()
}

/// Zero where there is none.
fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len().max(1);
    values.sum::<f64>() / count as f64
}

/// How far a text counts as right: a half where the true label is as probable as the best other one, nearly one or zero where it is far
/// ahead or behind. Of a few hundred texts a handful lie at the edge and fall to either side by chance; counted so, they hide what an
/// exit loses much less than whole texts would.
fn rightness(probabilities: &[f32], truth: usize) -> f64 {
    let others = probabilities.iter().enumerate().filter(|(class, _)| *class != truth).map(|(_, other)| *other);
    let other = f64::from(others.fold(f32::MIN_POSITIVE, f32::max));
    let odds = probabilities.get(truth).map_or(0.0, |truth| f64::from(*truth)) / other;
    1.0 / (1.0 + odds.powf(-1.0 / SMOOTHNESS))
}

/// The pass after which a window leaves.
fn depth(exit: &EarlyExit, window: &SampleWindow, passes: usize) -> usize {
    let mut trail = Trail::default();
    (1..passes).find(|depth| exit.leaves(&mut trail, *depth, &window.logits[depth - 1])).unwrap_or(passes)
}

/// A logistic regression on whether going on changes what a text is told: where it has one window, its label; where it has several,
/// whose logits are pooled, the window's log odds by more than [`NEAR`]. By Newton's method.
fn learn(texts: &[Text<'_>], temperatures: &[f32], pass: usize, terms: &Terms) -> [f32; FEATURES] {
    let windows = texts.iter().flat_map(|text| text.sample.windows.iter().map(move |window| (text, window)));
    let example = |(text, window): (&Text<'_>, &SampleWindow)| {
        let mut trail = Trail::default();
        for (logits, temperature) in window.logits.iter().zip(temperatures).take(pass + 1) {
            trail.observe(softmax(logits, *temperature));
        }
        let (now, last) = (&window.logits[pass], &window.logits[terms.passes - 1]);
        let stays = if text.sample.windows.len() > 1 {
            moved(now, last) <= NEAR * terms.temperature
        } else {
            argmax(now) == argmax(last)
        };
        (SVector::from(trail.features().map(f64::from)), f64::from(u8::from(stays)))
    };
    let examples: Vec<(SVector<f64, FEATURES>, f64)> = windows.map(example).collect();
    let mut weights = SVector::<f64, FEATURES>::zeros();
    for _ in 0..LEARNING_STEPS {
        let mut gradient = weights * RIDGE;
        let mut hessian = SMatrix::<f64, FEATURES, FEATURES>::identity() * RIDGE;
        for (features, stays) in &examples {
            let sure = 1.0 / (1.0 + (-weights.dot(features)).exp());
            gradient += features * (sure - stays);
            hessian += features * features.transpose() * (sure * (1.0 - sure));
        }
        let Some(step) = hessian.cholesky().map(|hessian| hessian.solve(&gradient)) else { break };
        weights -= step;
    }
    weights.map(|weight| weight as f32).into()
}

/// The farthest that a label's log odds against the mean of all have moved.
fn moved(before: &[f32], after: &[f32]) -> f32 {
    let mean = |logits: &[f32]| logits.iter().sum::<f32>() / logits.len() as f32;
    let (before_mean, after_mean) = (mean(before), mean(after));
    let distance = |(before, after): (&f32, &f32)| ((before - before_mean) - (after - after_mean)).abs();
    before.iter().zip(after).map(distance).fold(0.0, f32::max)
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

    fn all_of(samples: &[Sample], terms: &Terms) -> Group {
        let mut groups = calibrate(samples, terms).unwrap();
        assert_eq!(groups.len(), 1);
        groups.remove(0)
    }

    #[test]
    fn what_is_sure_leaves_at_once_and_what_is_not_goes_all_the_way() {
        let (samples, terms) = (samples(150, 50), terms(0.002));
        let group = all_of(&samples, &terms);
        let best = group.best(&terms).unwrap();
        assert_eq!(best.name, "confidence");
        assert_eq!(best.figures.accuracy(), (1.0, 1.0));
        assert_eq!(best.figures.depths, [150, 0, 0, 50]);
        assert!((best.figures.mean_passes() - (150.0 + 50.0 * 4.0) / 200.0).abs() < 1e-9);
        let exit = best.exit.as_ref().unwrap();
        assert_eq!(exit.problem(PASSES), None);
        assert!(matches!(exit.rule, ExitRule::Confidence { threshold } if threshold < 0.95), "{exit:?}");
    }

    #[test]
    fn a_rule_that_can_only_lose_too_much_is_not_allowed() {
        let (samples, terms) = (samples(150, 50), terms(0.002));
        let group = all_of(&samples, &terms);
        // Hard texts have the same wrong label pass after pass.
        let patience = group.trials.iter().find(|trial| trial.name == "patience").unwrap();
        assert!(!patience.is_allowed(&terms) && patience.exit.is_none());
        assert!((patience.figures.mean_passes() - 4.0).abs() < 1e-9, "without a setting every text goes all the way");
    }

    #[test]
    fn more_may_be_lost_where_more_is_allowed() {
        let samples = samples(150, 50);
        let passes = |loss_max: f64| {
            let terms = terms(loss_max);
            all_of(&samples, &terms).best(&terms).unwrap().figures.mean_passes()
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
        for trial in all_of(&samples, &terms(0.002)).trials {
            assert!((trial.figures.mean_passes() - PASSES as f64).abs() < 1e-9, "{trial:?}");
        }
    }

    #[test]
    fn what_leaves_has_the_temperature_of_what_leaves() {
        // What is easy is right and leaves first; the others are wrong there.
        let terms = terms(0.002);
        let group = all_of(&samples(150, 50), &terms);
        let exit = group.best(&terms).unwrap().exit.as_ref().unwrap();
        assert_eq!(exit.temperatures.len(), PASSES);
        // One in 152 wrong, at logits of 3.0 to 3.4.
        assert!((0.6..0.68).contains(&exit.temperatures[0]), "{exit:?}");
        assert!(exit.rule_temperatures[0] > exit.temperatures[0], "one in four of all is wrong there: {exit:?}");
        // At 1.0 to 1.4 as many go all the way and are right.
        assert!(exit.temperatures[3] < 0.4, "{exit:?}");
        // Few leave after the second pass: what all have.
        assert!((exit.temperatures[0] - exit.temperatures[1]).abs() > 0.01, "{exit:?}");
        assert!((exit.temperatures[1] - exit.temperatures[2]).abs() < f32::EPSILON, "{exit:?}");
    }

    /// Two classes, so many windows. All are right from the first pass on; their log odds double with each pass where they grow.
    fn settled(count: usize, windows: usize, grows: bool) -> Vec<Sample> {
        let text = |index: usize| {
            let truth = index % 2;
            let logits = |pass: usize| {
                let strength = if grows { 0.5 * 2.0_f32.powf(pass as f32) } else { 4.0 };
                if truth == 0 { vec![strength, 0.0] } else { vec![0.0, strength] }
            };
            let window = || SampleWindow { weight: 1, tokens: 10, logits: (0..PASSES).map(logits).collect() };
            Sample { windows: (0..windows).map(|_| window()).collect(), truth }
        };
        (0..count).map(text).collect()
    }

    #[test]
    fn texts_of_one_window_and_of_several_have_exits_of_their_own() {
        let terms = terms(0.002);
        let mut samples = samples(150, 50);
        samples.extend(settled(DOCUMENTS_MIN, 3, false));
        let groups = calibrate(&samples, &terms).unwrap();
        let names: Vec<Texts> = groups.iter().map(|group| group.texts).collect();
        assert_eq!(names, [Texts::OneWindow, Texts::SeveralWindows]);
        let best: Vec<&Figures> = groups.iter().map(|group| &group.best(&terms).unwrap().figures).collect();
        assert!((best[0].mean_passes() - 1.75).abs() < 1e-9 && (best[1].mean_passes() - 1.0).abs() < 1e-9);
        let exits = chosen(&groups, &terms).unwrap();
        assert_eq!(exits.problem(PASSES), None);
        assert_ne!(exits.one_window, exits.several_windows);
        let of_several = exits.several_windows.unwrap().temperatures;
        assert!(
            of_several.iter().all(|temperature| (temperature - of_several[0]).abs() < f32::EPSILON),
            "{of_several:?}"
        );
        let together = Figures::together(best).unwrap();
        assert_eq!((together.texts(), &*together.depths), (250, &[300, 0, 0, 50][..]));
        assert!((together.mean_passes() - 500.0 / 350.0).abs() < 1e-9);
    }

    #[test]
    fn where_few_have_several_windows_all_texts_have_the_same_exit() {
        let terms = terms(0.002);
        let mut samples = samples(150, 50);
        samples.extend(settled(DOCUMENTS_MIN - 1, 3, false));
        let exits = chosen(&calibrate(&samples, &terms).unwrap(), &terms).unwrap();
        assert!(exits.one_window.is_some());
        assert_eq!(exits.one_window, exits.several_windows);
    }

    #[test]
    fn a_window_of_several_stays_while_its_log_odds_move() {
        let terms = terms(0.002);
        let depth_of = |windows: usize| {
            let samples = settled(200, windows, true);
            let texts = samples.iter().map(|sample| Text::of(sample, &terms)).collect();
            let exit = Candidates::of(Kind::Learned, texts, &terms).exits.pop().unwrap();
            depth(&exit, &samples[0].windows[0], PASSES)
        };
        // From the first pass on the label is the last one's, and before the last one no log odds are near those.
        assert_eq!((depth_of(1), depth_of(2)), (1, PASSES));
    }

    #[test]
    fn a_text_is_half_right_where_two_labels_are_as_probable() {
        let odds = |odds: f32| rightness(&[odds / (1.0 + odds), 1.0 / (1.0 + odds), 0.001], 0);
        assert!((odds(1.0) - 0.5).abs() < 1e-6);
        assert!((odds(0.5_f32.exp()) - 0.731).abs() < 1e-3);
        assert!(odds(100.0) > 0.999 && odds(0.1) < 0.01);
        assert!(rightness(&[1.0, 0.0], 0) > 0.999_999 && rightness(&[1.0, 0.0], 1) < 1e-6);
    }

    #[test]
    fn too_little_to_compare_is_told() {
        assert!(calibrate(&samples(4, 0), &terms(0.1)).is_none());
        assert!(calibrate(&samples(10, 0), &Terms { passes: 1, ..terms(0.1) }).is_none());
    }
}
