//! What the graphs answer, against the exporter's own logits, against each other, and alone against in a group.

use super::{
    Finding, Opened, Outcome,
    corpus::{Corpus, Row},
};
use crate::{
    domain::{evaluation::macro_f1, label::argmax},
    engine::{runtime::OnnxRuntime, session::ModelSession},
    model::manifest::{Manifest, Precision},
    text::tokenize::Tokens,
};

/// How far a logit of a float32 graph may be from the reference, relative to it where it is above one: two libraries
/// add up float32 in different orders, over some thousand terms in a dozen layers. A wrong weight moves it by tenths.
const FLOAT32_TOLERANCE: f32 = 1e-3;
/// The share of labels that an int8 graph may tell otherwise than the reference: what quantised models are accepted with.
const LABEL_DIFFERENCE_MAX: f64 = 0.01;
/// How much macro-F1 may fall below the reference's: half a point.
const MACRO_F1_LOSS_MAX: f64 = 0.005;
/// Rows with a true label from which on macro-F1 is compared: among fewer, one label moves it by more than it may fall.
const LABELLED_ROWS_MIN: usize = 200;
/// How far the stepped and the unrolled graphs may be apart on one core: they do the same sums, and only what ONNX Runtime
/// fuses across the steps rounds otherwise.
const UNROLLED_TOLERANCE: f32 = 1e-3;
/// How far a logit may move by the group it is computed in, where scales are static. Other shapes round float32 otherwise, so
/// that a few int8 activations fall into the next step: 0.019 at most was measured on cores without AVX2.
const GROUPING_TOLERANCE_INT8: f32 = 0.05;
/// Rows that are computed twice: enough lengths, also for the largest models within a minute.
const COMPARED_ROWS_MAX: usize = 64;
/// Rows of a group; of neighbours in the corpus, whose lengths have nothing to do with each other, so most are padded.
const GROUP_ROWS: usize = 8;

/// Why rows are not compared.
const NO_WINDOW: &str = "no row of the corpus fits a window";

/// Is told how many of a check's rows are done, of how many.
type Done<'a> = &'a mut dyn FnMut(usize, usize);

/// A model that runs, and what it is compared with.
pub struct Answers {
    manifest: Manifest,
    corpus: Corpus,
    session: ModelSession,
    unrolled: Option<ModelSession>,
    has_dynamic_scales: bool,
}

impl Answers {
    /// Opens the model's graphs, and the unrolled one where there is one.
    pub fn of(runtime: &OnnxRuntime, opened: Opened) -> Result<Self, String> {
        let Opened { manifest, model, unrolled, has_dynamic_scales, corpus } = opened;
        let session = ModelSession::open(runtime, &model).map_err(|error| error.to_string())?;
        let unrolled = unrolled
            .map(|graphs| ModelSession::open_graphs(runtime, &model, &graphs).map_err(|error| error.to_string()));
        Ok(Self { manifest, corpus, session, unrolled: unrolled.transpose()?, has_dynamic_scales })
    }

    /// A window of the greatest length, of tokens of the whole vocabulary.
    pub fn longest_window(&mut self) -> Finding {
        let max_length = self.max_length();
        let vocabulary = self.manifest.architecture.vocabulary_size.get();
        let ids: Vec<u32> = (0..max_length).filter_map(|index| u32::try_from(index * 7919 % vocabulary).ok()).collect();
        let logits = alone(&mut self.session, Tokens::single(&ids))
            .map_err(|error| format!("a window of `max_length`, {max_length} tokens, cannot be computed: {error}"))?;
        if logits.iter().any(|logit| !logit.is_finite()) {
            return Err(format!("the logits of a window of {max_length} tokens are no finite numbers"));
        }
        Ok(format!("{max_length} tokens"))
    }

    /// The logits of each row alone against the reference.
    pub fn reference_logits(&mut self, done: Done<'_>) -> Outcome {
        let rows: Vec<(&Row, &[f32])> =
            self.corpus.windows(self.max_length()).filter_map(|row| Some((row, row.logits.as_deref()?))).collect();
        if rows.is_empty() {
            return Outcome::Skipped("no row of the corpus has logits".into());
        }
        let mut found = Vec::with_capacity(rows.len());
        for (index, (row, _)) in rows.iter().enumerate() {
            done(index, rows.len());
            match alone(&mut self.session, row.tokens()) {
                Ok(logits) => found.push(logits),
                Err(error) => return Outcome::Failed(format!("{}: {error}", row.place)),
            }
        }
        outcome(match self.manifest.graphs.precision() {
            Precision::Float32 => near_reference(&rows, &found),
            Precision::Int8 => agrees_with_reference(&rows, &found, self.manifest.labels.len()),
        })
    }

    /// The stepped graphs against the unrolled one.
    pub fn unrolled(&mut self, done: Done<'_>) -> Outcome {
        let rows: Vec<&Row> = self.corpus.windows(self.max_length()).take(COMPARED_ROWS_MAX).collect();
        let Some(unrolled) = &mut self.unrolled else {
            return Outcome::Skipped("the folder has no graph to compare with".into());
        };
        if rows.is_empty() {
            return Outcome::Skipped(NO_WINDOW.into());
        }
        let mut largest = 0.0_f32;
        for (index, row) in rows.iter().enumerate() {
            done(index, rows.len());
            let both = alone(&mut self.session, row.tokens())
                .and_then(|stepped| Ok((stepped, alone(unrolled, row.tokens())?)));
            let distance = match both {
                Ok((stepped, unrolled)) => distance(&stepped, &unrolled),
                Err(error) => return Outcome::Failed(format!("{}: {error}", row.place)),
            };
            if distance > UNROLLED_TOLERANCE {
                return Outcome::Failed(format!(
                    "{}: the stepped and the unrolled graph are {distance} apart, more than {UNROLLED_TOLERANCE}: they are not the same network",
                    row.place
                ));
            }
            largest = largest.max(distance);
        }
        Outcome::Passed(format!("at most {largest} apart in {} rows", rows.len()))
    }

    /// Rows alone against rows in a padded group.
    pub fn grouping(&mut self, done: Done<'_>) -> Outcome {
        let rows: Vec<&Row> = self.corpus.windows(self.max_length()).take(COMPARED_ROWS_MAX).collect();
        if rows.is_empty() {
            return Outcome::Skipped(NO_WINDOW.into());
        }
        let tolerance = match self.manifest.graphs.precision() {
            Precision::Float32 => FLOAT32_TOLERANCE,
            Precision::Int8 => GROUPING_TOLERANCE_INT8,
        };
        let (mut largest, mut place) = (0.0_f32, "");
        for (index, group) in rows.chunks(GROUP_ROWS).enumerate() {
            done(index * GROUP_ROWS, rows.len());
            match moved_by_group(&mut self.session, group) {
                Ok(moved) => {
                    for (row, moved) in group.iter().zip(moved) {
                        if moved > largest {
                            (largest, place) = (moved, &row.place);
                        }
                    }
                }
                Err(error) => return Outcome::Failed(error),
            }
        }
        if self.has_dynamic_scales {
            return Outcome::Passed(format!(
                "scales are dynamic: a group moves a logit by up to {largest}; convert with static scales where labels must not depend on what is computed together"
            ));
        }
        if largest > tolerance {
            return Outcome::Failed(format!(
                "{place}: a logit moves by {largest} with the group it is computed in, more than {tolerance}: does every layer mask what is beyond `lengths`?"
            ));
        }
        Outcome::Passed(format!("a group moves no logit by more than {largest}"))
    }

    fn max_length(&self) -> usize {
        self.manifest.input.max_length.get()
    }
}

fn outcome(finding: Finding) -> Outcome {
    finding.map_or_else(Outcome::Failed, Outcome::Passed)
}

fn alone(session: &mut ModelSession, tokens: Tokens<'_>) -> Result<Vec<f32>, String> {
    session.infer(&[tokens]).map(|mut logits| logits.remove(0)).map_err(|error| error.to_string())
}

/// How far each row's logits in the group are from its own alone.
fn moved_by_group(session: &mut ModelSession, group: &[&Row]) -> Result<Vec<f32>, String> {
    let tokens: Vec<Tokens<'_>> = group.iter().map(|row| row.tokens()).collect();
    let together = session.infer(&tokens).map_err(|error| format!("a group of {} rows: {error}", group.len()))?;
    tokens
        .into_iter()
        .zip(together)
        .map(|(tokens, together)| Ok(distance(&alone(session, tokens)?, &together)))
        .collect()
}

/// The largest difference; infinite where one is no number.
fn distance(left: &[f32], right: &[f32]) -> f32 {
    largest_of(left.iter().zip(right).map(|(left, right)| (left - right).abs()))
}

/// The largest of these; infinite where one is no number, and 0 where there are none.
fn largest_of(distances: impl Iterator<Item = f32>) -> f32 {
    distances.fold(0.0, |largest, distance| if distance.is_nan() { f32::INFINITY } else { largest.max(distance) })
}

fn near_reference(rows: &[(&Row, &[f32])], found: &[Vec<f32>]) -> Finding {
    let excess = |(reference, found): (&f32, &f32)| (found - reference).abs() / reference.abs().max(1.0);
    let (mut largest, mut far, mut first) = (0.0_f32, 0, None);
    for ((row, reference), found) in rows.iter().zip(found) {
        let distance = largest_of(reference.iter().zip(found).map(excess));
        if distance > FLOAT32_TOLERANCE {
            far += 1;
            first.get_or_insert_with(|| format!("{}: {found:?}, the reference {reference:?}", row.place));
        }
        largest = largest.max(distance);
    }
    match first {
        None => Ok(format!("at most {largest} from float32's in {} rows", rows.len())),
        Some(first) => Err(format!(
            "{far} of {} rows are further than {FLOAT32_TOLERANCE} from the reference; first {first}: graphs and checkpoint are not the same network",
            rows.len()
        )),
    }
}

fn agrees_with_reference(rows: &[(&Row, &[f32])], found: &[Vec<f32>], classes: usize) -> Finding {
    // What is no number tells no label.
    let told_by = |logits: &[f32]| argmax(logits).filter(|_| logits.iter().all(|logit| logit.is_finite()));
    let told: Vec<(Option<usize>, Option<usize>)> =
        rows.iter().zip(found).map(|((_, reference), found)| (told_by(reference), told_by(found))).collect();
    let different = told.iter().filter(|(reference, found)| reference != found).count();
    let agreement = 100.0 * (rows.len() - different) as f64 / rows.len() as f64;
    // Rounded up: one among few is no evidence.
    let allowed = (rows.len() as f64 * LABEL_DIFFERENCE_MAX).ceil() as usize;
    if different > allowed {
        return Err(format!(
            "{different} of {} labels differ from float32's, which is {agreement:.2} % agreement, less than 99 %: int8 lost the model's accuracy; convert it again with other ranges or `--precision float32`",
            rows.len()
        ));
    }
    let labelled: Vec<(usize, usize, usize)> = rows
        .iter()
        .zip(&told)
        .filter_map(|((row, _), (reference, found))| Some((row.label_index?, (*reference)?, (*found)?)))
        .collect();
    let detail = format!("{agreement:.2} % of the labels in {} rows are float32's", rows.len());
    if labelled.len() < LABELLED_ROWS_MIN {
        return Ok(format!("{detail}; too few rows have a true label to compare macro-F1"));
    }
    let score =
        |told: fn(&(usize, usize, usize)) -> usize| macro_f1(labelled.iter().map(|row| (row.0, told(row))), classes);
    let (reference, int8) = (score(|row| row.1), score(|row| row.2));
    if reference - int8 > MACRO_F1_LOSS_MAX {
        return Err(format!(
            "macro-F1 is {int8:.4}, and float32's {reference:.4}: it fell by more than {MACRO_F1_LOSS_MAX}; convert the model again with other ranges or `--precision float32`"
        ));
    }
    Ok(format!("{detail}; macro-F1 {int8:.4}, float32's {reference:.4}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_tells_no_label() {
        let row: Row = serde_json::from_str(r#"{"text": "a", "input_ids": [1], "logits": [2.0, 1.0]}"#).unwrap();
        let rows: Vec<(&Row, &[f32])> = vec![(&row, row.logits.as_deref().unwrap()); 2];
        let agrees = |logits: [f32; 2]| agrees_with_reference(&rows, &[logits.to_vec(), logits.to_vec()], 2);
        assert!(agrees([0.2, 0.1]).is_ok());
        let problem = agrees([f32::NAN, 0.1]).unwrap_err();
        assert!(problem.starts_with("2 of 2 labels differ from float32's"), "{problem}");
    }

    #[test]
    fn macro_f1_may_fall_by_half_a_point_and_no_more() {
        // 20 of a small class among 1000; float32 tells all of them.
        let row = |label: usize| {
            let logits = if label == 0 { "[2.0, 1.0]" } else { "[1.0, 2.0]" };
            let mut row: Row =
                serde_json::from_str(&format!(r#"{{"text": "a", "input_ids": [1], "logits": {logits}}}"#)).unwrap();
            row.label_index = Some(label);
            row
        };
        let rows: Vec<Row> = (0..1000).map(|index| row(usize::from(index >= 20))).collect();
        let compared: Vec<(&Row, &[f32])> = rows.iter().map(|row| (row, row.logits.as_deref().unwrap())).collect();
        let agrees = |lost: usize| {
            let told = |(index, (_, reference)): (usize, &(&Row, &[f32]))| {
                if index < lost { vec![1.0, 2.0] } else { reference.to_vec() }
            };
            agrees_with_reference(&compared, &compared.iter().enumerate().map(told).collect::<Vec<_>>(), 2)
        };
        assert_eq!(
            agrees(0).unwrap(),
            "100.00 % of the labels in 1000 rows are float32's; macro-F1 1.0000, float32's 1.0000"
        );
        // 5 of 1000 labels differ, well below one in a hundred, but they are a quarter of their class.
        let problem = agrees(5).unwrap_err();
        assert!(problem.starts_with("macro-F1 is 0.92"), "{problem}");
        let problem = agrees(11).unwrap_err();
        assert!(problem.starts_with("11 of 1000 labels differ"), "{problem}");
    }
}
