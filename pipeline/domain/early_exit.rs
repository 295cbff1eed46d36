//! When a text leaves a network before the last pass.
//!
//! The head is asked after every pass, and a rule decides from its answers so far. Rules compared on real models in the
//! literature: confidence (Teerapittayanon et al. 2016, "`BranchyNet`"), patience (Zhou et al. 2020, "BERT Loses Patience"),
//! and a learned exit (Xin et al. 2021, "`BERxiT`"). Which one serves a model is measured by `albertine model calibrate`.

use serde::{Deserialize, Serialize};

use super::label::{argmax, softmax};

/// A model's calibrated exits, as the table `early_exit` of its manifest. A window whose exit is missing goes through all passes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlyExits {
    /// Of a document of one window, of which only the label has to stay.
    pub one_window: Option<EarlyExit>,
    /// Of each window of a longer document: how sure it is weighs against the others, so this has to stay as well.
    pub several_windows: Option<EarlyExit>,
}

impl EarlyExits {
    /// The exit of a window of a document of so many.
    pub fn of(&self, windows: usize) -> Option<&EarlyExit> {
        if windows > 1 { self.several_windows.as_ref() } else { self.one_window.as_ref() }
    }

    /// What is wrong with it for a network of so many passes, in words that follow its name.
    pub fn problem(&self, passes: usize) -> Option<String> {
        let named = |name: &str, exit: &Option<EarlyExit>| {
            exit.as_ref()?.problem(passes).map(|problem| format!("for documents of {name} {problem}"))
        };
        named("one window", &self.one_window).or_else(|| named("several windows", &self.several_windows))
    }
}

/// When a window leaves, and how sure it is then.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlyExit {
    pub rule: ExitRule,
    /// The rule looks at logits divided by these; one for each pass but the last. They fit all texts, since any may be asked about.
    #[serde(default)]
    pub rule_temperatures: Vec<f32>,
    /// Divides the logits of what leaves after this pass, or goes through all; one for each pass.
    pub temperatures: Vec<f32>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum ExitRule {
    /// The label is at least this probable.
    Confidence { threshold: f32 },
    /// The label has been the same after so many passes before this one.
    Patience { repeats: usize },
    /// The label is that of the pass before, and at least this probable.
    Agreement { threshold: f32 },
    /// A logistic regression, one for each pass but the last, is this sure that going on would change nothing that counts.
    Learned { threshold: f32, weights: Vec<[f32; FEATURES]> },
}

/// See [`Trail::features`].
pub const FEATURES: usize = 4;
/// More passes with the same label make nothing surer.
const REPEATS_COUNTED: usize = 3;

/// What the head has said of one text so far.
#[derive(Debug, Clone, Default)]
pub struct Trail {
    /// After the last pass that was observed.
    probabilities: Vec<f32>,
    /// After the one before it.
    before: Vec<f32>,
    /// Passes before the last one with the same label, without a gap.
    repeats: usize,
}

impl EarlyExit {
    /// What is wrong with it for a network of so many passes, in words that follow its name.
    pub fn problem(&self, passes: usize) -> Option<String> {
        let wanted = passes.saturating_sub(1);
        let found = (self.rule_temperatures.len(), self.temperatures.len());
        if found != (wanted, passes) {
            return Some(format!(
                "has {} rule temperatures and {} temperatures, not {wanted} and {passes}: take it out, and fit it anew with `albertine model calibrate`",
                found.0, found.1
            ));
        }
        let mut temperatures = self.rule_temperatures.iter().chain(&self.temperatures);
        if let Some(bad) = temperatures.find(|value| !(value.is_finite() && **value > 0.0)) {
            return Some(format!("has the temperature `{bad}`, which must be above zero"));
        }
        match &self.rule {
            ExitRule::Patience { repeats } => {
                (*repeats == 0).then(|| "has `repeats` 0, which waits for nothing".into())
            }
            ExitRule::Learned { weights, .. }
                if weights.len() != wanted || weights.iter().flatten().any(|weight| !weight.is_finite()) =>
            {
                Some(format!("has weights for {} passes, or some that are no numbers, not {wanted}", weights.len()))
            }
            ExitRule::Confidence { threshold }
            | ExitRule::Agreement { threshold }
            | ExitRule::Learned { threshold, .. } => (!(*threshold > 0.0 && *threshold <= 1.0))
                .then(|| format!("has the threshold `{threshold}`, which must be above 0 and at most 1")),
        }
    }

    /// Whether a text leaves after pass `depth`, counted from 1, whose logits these are. Every pass has to be asked about
    /// in order; a text never leaves on logits that are not numbers, and after the last pass this is not asked.
    pub fn leaves(&self, trail: &mut Trail, depth: usize, logits: &[f32]) -> bool {
        let Some(temperature) = depth.checked_sub(1).and_then(|index| self.rule_temperatures.get(index)) else {
            return false;
        };
        trail.observe(softmax(logits, *temperature));
        self.rule.holds(trail, depth)
    }
}

impl ExitRule {
    /// As the manifest names it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Confidence { .. } => "confidence",
            Self::Patience { .. } => "patience",
            Self::Agreement { .. } => "agreement",
            Self::Learned { .. } => "learned",
        }
    }

    /// Whether it lets a text go after pass `depth`, counted from 1.
    pub fn holds(&self, trail: &Trail, depth: usize) -> bool {
        match self {
            Self::Confidence { threshold } => trail.confidence() >= *threshold,
            Self::Patience { repeats } => trail.repeats >= *repeats,
            Self::Agreement { threshold } => trail.repeats >= 1 && trail.confidence() >= *threshold,
            Self::Learned { threshold, weights } => {
                weights.get(depth - 1).is_some_and(|weights| sureness(weights, &trail.features()) >= *threshold)
            }
        }
    }
}

impl Trail {
    /// Takes in the probabilities after one more pass.
    pub fn observe(&mut self, probabilities: Vec<f32>) {
        let same = self.label().is_some() && argmax(&probabilities) == self.label();
        self.repeats = if same { self.repeats + 1 } else { 0 };
        self.before = std::mem::replace(&mut self.probabilities, probabilities);
    }

    /// The probability of the label; not a number where the logits were none, which is below every threshold.
    fn confidence(&self) -> f32 {
        self.label().map_or(f32::NAN, |label| self.probabilities[label])
    }

    fn label(&self) -> Option<usize> {
        argmax(&self.probabilities).filter(|_| self.probabilities.iter().all(|probability| probability.is_finite()))
    }

    /// One, the label's log odds, how many passes before had it without a gap (three at most), and how far the distribution moved since
    /// the last one (total variation; 1 after the first pass).
    pub fn features(&self) -> [f32; FEATURES] {
        let confidence = self.confidence().clamp(1e-6, 1.0 - 1e-6);
        let moved: f32 = self.probabilities.iter().zip(&self.before).map(|(now, before)| (now - before).abs()).sum();
        let moved = if self.before.is_empty() { 1.0 } else { moved / 2.0 };
        [1.0, (confidence / (1.0 - confidence)).ln(), self.repeats.min(REPEATS_COUNTED) as f32, moved]
    }
}

/// The probability a logistic regression gives.
fn sureness(weights: &[f32; FEATURES], features: &[f32; FEATURES]) -> f32 {
    let score: f32 = weights.iter().zip(features).map(|(weight, feature)| weight * feature).sum();
    1.0 / (1.0 + (-score).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pass after which a text with these logits leaves; the last one where no rule lets it go earlier.
    fn depth(rule: ExitRule, logits: &[[f32; 2]]) -> usize {
        let passes = logits.len();
        let exit = EarlyExit { rule, rule_temperatures: vec![1.0; passes - 1], temperatures: vec![1.0; passes] };
        let mut trail = Trail::default();
        (1..logits.len()).find(|depth| exit.leaves(&mut trail, *depth, &logits[depth - 1])).unwrap_or(logits.len())
    }

    const UNSURE: [f32; 2] = [0.0, 0.1];
    const SURE: [f32; 2] = [0.0, 4.0];
    const OTHER: [f32; 2] = [4.0, 0.0];

    #[test]
    fn confidence_lets_go_what_is_sure() {
        let rule = ExitRule::Confidence { threshold: 0.9 };
        assert_eq!(depth(rule.clone(), &[UNSURE, SURE, OTHER, SURE]), 2);
        assert_eq!(depth(rule, &[UNSURE; 4]), 4);
    }

    #[test]
    fn patience_counts_equal_labels_in_a_row() {
        let rule = ExitRule::Patience { repeats: 2 };
        assert_eq!(depth(rule.clone(), &[UNSURE, OTHER, UNSURE, SURE, UNSURE, OTHER]), 5);
        assert_eq!(depth(rule, &[UNSURE, OTHER, UNSURE, OTHER]), 4);
    }

    #[test]
    fn agreement_wants_the_label_of_the_pass_before_as_well() {
        let rule = ExitRule::Agreement { threshold: 0.9 };
        assert_eq!(depth(rule.clone(), &[SURE, OTHER, OTHER, SURE]), 3);
        assert_eq!(depth(rule, &[SURE, UNSURE, SURE, SURE, OTHER]), 3);
    }

    #[test]
    fn a_learned_exit_has_weights_of_its_own_for_every_pass() {
        // Never after the first pass; after the second where the label's odds are above e.
        let weights = vec![[-100.0, 0.0, 0.0, 0.0], [-1.0, 1.0, 0.0, 0.0]];
        let rule = ExitRule::Learned { threshold: 0.5, weights };
        assert_eq!(depth(rule.clone(), &[SURE, SURE, SURE]), 2);
        assert_eq!(depth(rule, &[SURE, UNSURE, SURE]), 3);
    }

    #[test]
    fn what_does_not_fit_the_network_is_told() {
        let exit = |rule, rule_temperatures: &[f32]| EarlyExit {
            rule,
            rule_temperatures: rule_temperatures.to_vec(),
            temperatures: vec![1.1; 3],
        };
        let sure = ExitRule::Confidence { threshold: 0.9 };
        assert_eq!(exit(sure.clone(), &[1.0, 1.2]).problem(3), None);
        let problems = [
            (exit(sure.clone(), &[1.0]), "1 rule temperatures and 3 temperatures, not 2 and 3: take it out"),
            (exit(sure.clone(), &[-1.0, 1.0]), "temperature `-1`"),
            (EarlyExit { temperatures: vec![1.0, 0.0, 1.0], ..exit(sure.clone(), &[1.0; 2]) }, "temperature `0`"),
            (exit(ExitRule::Confidence { threshold: f32::NAN }, &[1.0; 2]), "threshold `NaN`"),
            (exit(ExitRule::Agreement { threshold: 1.5 }, &[1.0; 2]), "threshold `1.5`"),
            (exit(ExitRule::Patience { repeats: 0 }, &[1.0; 2]), "`repeats` 0"),
            (exit(ExitRule::Learned { threshold: 0.5, weights: vec![[1.0; FEATURES]] }, &[1.0; 2]), "weights for 1"),
        ];
        for (bad, wanted) in problems {
            let problem = bad.problem(3).unwrap();
            assert!(problem.contains(wanted), "{problem}");
            let exits = EarlyExits { one_window: Some(exit(sure.clone(), &[1.0; 2])), several_windows: Some(bad) };
            assert_eq!(exits.problem(3), Some(format!("for documents of several windows {problem}")));
        }
    }

    #[test]
    fn a_window_leaves_by_the_exit_of_documents_of_as_many() {
        let exit = |threshold| EarlyExit {
            rule: ExitRule::Confidence { threshold },
            rule_temperatures: vec![1.0],
            temperatures: vec![1.0; 2],
        };
        let exits = EarlyExits { one_window: Some(exit(0.7)), several_windows: Some(exit(0.8)) };
        let found = [1, 2, 3].map(|windows| exits.of(windows).unwrap().rule.clone());
        assert_eq!(found, [0.7, 0.8, 0.8].map(|threshold| ExitRule::Confidence { threshold }));
        assert_eq!(EarlyExits { one_window: Some(exit(0.7)), several_windows: None }.of(2), None);
    }

    #[test]
    fn the_rule_looks_with_the_temperature_of_the_pass() {
        let rule = ExitRule::Confidence { threshold: 0.9 };
        let exit = EarlyExit { rule, rule_temperatures: vec![10.0, 1.0], temperatures: vec![1.0; 3] };
        let mut trail = Trail::default();
        assert!(!exit.leaves(&mut trail, 1, &SURE));
        assert!(exit.leaves(&mut trail, 2, &SURE));
    }

    #[test]
    fn nothing_leaves_on_logits_that_are_not_numbers() {
        let rules = [
            ExitRule::Confidence { threshold: 0.0 },
            ExitRule::Patience { repeats: 1 },
            ExitRule::Agreement { threshold: 0.0 },
        ];
        for rule in rules {
            assert_eq!(depth(rule, &[[f32::NAN, 1.0]; 4]), 4);
        }
    }
}
