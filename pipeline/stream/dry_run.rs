//! Labels records and stores nothing: what would come of them, summed up.
//!
//! Records take the way of [`intake`], so that a dry run says what a run would do.

use std::{
    collections::BTreeMap,
    fmt::Display,
    sync::{Arc, mpsc},
};

use super::{
    duplicates,
    inference::Inference,
    intake::{self, IntakeConfig, Prepared},
};
use crate::{
    decode::Undecoded,
    domain::{
        agreement::{AgreementTable, Rated, agreement, score},
        document::{Attributes, Outcome},
        label::Label,
    },
    source::Content,
};

/// Examples shown; as many as one sees at once.
const EXAMPLES_MAX: usize = 5;
/// Characters of a text kept for an example.
const EXAMPLE_CHARACTERS: usize = 200;
/// Ratings kept for the table of agreement. More change no figure, and would take memory in a dry run over a large file.
const RATED_MAX: usize = 100_000;

/// What became of the records.
#[derive(Debug, Default)]
pub struct Summary {
    pub records: u64,
    pub labelled: u64,
    pub deletions: u64,
    /// By reason.
    pub rejected: BTreeMap<&'static str, Rejected>,
    /// Documents by language; `unknown` where it could not be told.
    pub languages: BTreeMap<String, u64>,
    /// In the stream's order.
    pub models: Vec<ModelSummary>,
    /// The first documents.
    pub examples: Vec<Example>,
}

/// Rejections for one reason.
#[derive(Debug)]
pub struct Rejected {
    pub count: u64,
    /// The first one, with its place.
    pub first: String,
    number: u64,
}

/// What one model said.
#[derive(Debug)]
pub struct ModelSummary {
    pub model: Arc<str>,
    pub version: Arc<str>,
    pub task: Arc<str>,
    /// Documents by label, in the model's order.
    pub labels: Vec<(Arc<str>, u64)>,
    confidence_sum: f64,
    rated: Vec<Rated>,
}

impl ModelSummary {
    /// `None` where nothing was labelled.
    pub fn mean_confidence(&self) -> Option<f64> {
        let count: u64 = self.labels.iter().map(|(_, count)| count).sum();
        (count > 0).then(|| self.confidence_sum / count as f64)
    }

    /// `None` where no document has a rating.
    pub fn agreement(&self) -> Option<AgreementTable> {
        let labels: Vec<String> = self.labels.iter().map(|(label, _)| label.to_string()).collect();
        (!self.rated.is_empty()).then(|| agreement(&labels, &self.rated))
    }
}

/// A document as it would be labelled.
#[derive(Debug)]
pub struct Example {
    pub place: String,
    pub attributes: Attributes,
    /// The beginning of its text.
    pub text: String,
    pub labels: Vec<Label>,
    number: u64,
}

/// See the module.
pub struct DryRun {
    config: Arc<IntakeConfig>,
    summary: Summary,
    next: u64,
    in_flight: usize,
    in_flight_max: usize,
    answers: (mpsc::Sender<Answer>, mpsc::Receiver<Answer>),
}

struct Answer {
    number: u64,
    place: String,
    text: Option<String>,
    outcome: Outcome,
}

impl DryRun {
    /// At most `in_flight_max` records are with the engine at once.
    pub fn new(config: Arc<IntakeConfig>, in_flight_max: usize) -> Self {
        let models = config.models.iter().map(|(_, model)| ModelSummary {
            model: model.name.clone(),
            version: model.version.clone(),
            task: model.task.clone(),
            labels: model.labels.iter().map(|label| (label.clone(), 0)).collect(),
            confidence_sum: 0.0,
            rated: Vec::new(),
        });
        let summary = Summary { models: models.collect(), ..Summary::default() };
        Self { config, summary, next: 0, in_flight: 0, in_flight_max: in_flight_max.max(1), answers: mpsc::channel() }
    }

    /// Takes a record on; `place` is where it stands, for people, and `position` as in [`intake::prepare`]. Blocks while
    /// too many are in flight.
    ///
    /// # Errors
    /// Where the record's schema cannot be read, and so nothing is known of it.
    pub fn submit(
        &mut self,
        inference: &Inference,
        place: String,
        key: Option<&[u8]>,
        content: &Content,
        position: &dyn Display,
    ) -> Result<(), Undecoded> {
        let prepared = match intake::prepare(&self.config, inference, key, content, position) {
            Ok(prepared) => Ok(prepared),
            Err(Undecoded::Rejected(rejection)) => Err(rejection),
            Err(unavailable @ Undecoded::SchemaUnavailable(_)) => return Err(unavailable),
        };
        while self.in_flight >= self.in_flight_max {
            self.take();
        }
        let number = self.next;
        self.next += 1;
        self.in_flight += 1;
        let text = match &prepared {
            Ok(Prepared::Document(document, _)) if number < EXAMPLES_MAX as u64 * 10 => {
                Some(document.text.chars().take(EXAMPLE_CHARACTERS).collect())
            }
            _ => None,
        };
        let answers = self.answers.0.clone();
        intake::infer(&self.config, inference, prepared, &duplicates::always(), move |outcome| {
            let _ = answers.send(Answer { number, place, text, outcome });
        });
        Ok(())
    }

    /// Waits for what is in flight.
    pub fn finish(mut self) -> Summary {
        while self.in_flight > 0 {
            self.take();
        }
        self.summary
    }

    fn take(&mut self) {
        let Ok(answer) = self.answers.1.recv() else { return };
        self.in_flight -= 1;
        self.summary.add(answer);
    }
}

impl Summary {
    fn add(&mut self, answer: Answer) {
        let Answer { number, place, text, outcome } = answer;
        self.records += 1;
        match outcome {
            Outcome::Deleted { .. } => self.deletions += 1,
            Outcome::Rejected(rejection) => {
                let first = format!("{place}: {rejection}");
                let rejected = self.rejected.entry(rejection.reason).or_insert_with(|| Rejected {
                    count: 0,
                    first: String::new(),
                    number: u64::MAX,
                });
                rejected.count += 1;
                if number < rejected.number {
                    (rejected.first, rejected.number) = (first, number);
                }
            }
            Outcome::Labelled { attributes, labels } => {
                self.labelled += 1;
                let language = attributes.language.clone().unwrap_or_else(|| "unknown".into());
                *self.languages.entry(language).or_default() += 1;
                for (summary, label) in self.models.iter_mut().zip(&labels) {
                    summary.add(attributes.rating, label);
                }
                if let Some(text) = text {
                    self.examples.push(Example { place, attributes, text, labels, number });
                    self.examples.sort_by_key(|example| example.number);
                    self.examples.truncate(EXAMPLES_MAX);
                }
            }
        }
    }
}

impl ModelSummary {
    fn add(&mut self, rating: Option<f64>, label: &Label) {
        self.confidence_sum += f64::from(label.confidence);
        if let Some((_, count)) = self.labels.iter_mut().find(|(name, _)| *name == label.label) {
            *count += 1;
        }
        if let Some(rating) = rating.filter(|_| self.rated.len() < RATED_MAX) {
            self.rated.push(Rated { rating, label: label.label.to_string(), score: score(label) });
        }
    }
}
