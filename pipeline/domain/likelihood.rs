//! How improbable true labels are under what a model says, which is made small when temperatures or windows are fitted.
//!
//! One more label than are wrong is taken to be wrong, so that a few that are all right make nothing certain (after Platt 1999,
//! "Probabilistic Outputs for Support Vector Machines").

/// The share of labels that is taken to be wrong.
pub fn doubt(count: usize) -> f64 {
    1.0 / (count as f64 + 2.0)
}

/// The negative log-likelihood of a true label that is in doubt.
pub fn surprise(probabilities: &[f32], truth: usize, doubt: f64) -> f64 {
    let others = probabilities.len().saturating_sub(1).max(1) as f64;
    let weight = |class| if class == truth { 1.0 - doubt } else { doubt / others };
    let weighted = |(class, probability): (usize, &f32)| -weight(class) * f64::from(probability.max(1e-9)).ln();
    probabilities.iter().enumerate().map(weighted).sum()
}
