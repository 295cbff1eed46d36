//! The true label of a record, in the words of the model, and how a label given by a model is held against it.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::{Map, Value};

use crate::{
    commands::{UsageError, terminal::excerpt},
    domain::{evaluation::Judged, label::Label},
    model::folder::Model,
};

/// A value as it is written on the command line.
pub fn word(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => text.into(),
        other => other.to_string().into(),
    }
}

/// Knows the classes that are decided among, and which of them a record truly is.
pub struct Truth<'a> {
    field: &'a str,
    classes: Vec<Arc<str>>,
    /// Values of the data, with their class; `None` for those that are left out.
    values: BTreeMap<String, Option<usize>>,
}

impl<'a> Truth<'a> {
    /// Among all labels of `model`, or those in `among`. `mapped` says what a value of the data is called by the model;
    /// where that is nothing, such rows are left out.
    ///
    /// # Errors
    /// Where one is named that the model does not have, or `among` leaves nothing to decide.
    pub fn new(
        model: &Model,
        field: &'a str,
        among: &[String],
        mapped: &[(String, String)],
    ) -> Result<Self, UsageError> {
        let of_model = |label: &String| {
            model.labels.iter().find(|known| ***known == **label).cloned().ok_or_else(|| {
                UsageError(format!(
                    "model `{}` has no label `{label}`; it has: {}",
                    model.name,
                    model.labels.join(", ")
                ))
            })
        };
        let classes: Vec<Arc<str>> = match among {
            [] => model.labels.to_vec(),
            among => among.iter().map(of_model).collect::<Result<_, _>>()?,
        };
        let distinct: BTreeSet<_> = classes.iter().collect();
        if classes.len() < 2 || distinct.len() != classes.len() {
            return Err(UsageError(format!(
                "`--among` must name at least two different labels, not {}",
                classes.join(", ")
            )));
        }
        let class = |label: &Arc<str>| classes.iter().position(|class| class == label);
        // Of itself a label is called what it is, and one that is not decided among is left out.
        let mut values: BTreeMap<String, Option<usize>> =
            model.labels.iter().map(|label| (label.to_string(), class(label))).collect();
        for (value, label) in mapped {
            let label = if label.is_empty() { None } else { Some(of_model(label)?) };
            values.insert(value.clone(), label.and_then(|label| class(&label)));
        }
        Ok(Self { field, classes, values })
    }

    /// What is decided among, in the order of [`Judged`]'s indices.
    pub fn classes(&self) -> &[Arc<str>] {
        &self.classes
    }

    /// The class of a record; `None` where such records are left out.
    ///
    /// # Errors
    /// Where there is no true label, or one that nothing is known of.
    pub fn of(&self, fields: &Map<String, Value>) -> Result<Option<usize>, String> {
        let value = match fields.get(self.field) {
            Some(value @ (Value::String(_) | Value::Number(_) | Value::Bool(_))) => word(value),
            Some(_) => return Err(format!("`{}` must be a string, a number, `true` or `false`", self.field)),
            None => {
                return Err(format!(
                    "there is no field `{}`; name that of the true label with `--label-field`",
                    self.field
                ));
            }
        };
        self.values.get(&*value).copied().ok_or_else(|| {
            let value = excerpt(&value);
            format!(
                "the true label `{value}` is none of {}; say what it is with `--map {value}=LABEL`, or leave such rows out with `--map {value}=`",
                self.classes.join(", ")
            )
        })
    }

    /// Holds what a model said against the truth: the most probable of the classes that are decided among.
    pub fn judge(&self, label: &Label, truth: usize) -> Option<Judged> {
        let probability = |class: &Arc<str>| {
            let index = label.classes.iter().position(|known| known == class)?;
            label.probabilities.get(index).map(|probability| f64::from(*probability))
        };
        let probabilities: Vec<f64> = self.classes.iter().map(probability).collect::<Option<_>>()?;
        // Labels that are not decided among may have taken all of the probability; what is left says nothing then.
        let total: f64 = probabilities.iter().sum();
        let share = |index: usize| {
            if total > 0.0 { probabilities[index] / total } else { 1.0 / probabilities.len() as f64 }
        };
        let best = (0..probabilities.len())
            .reduce(|best, next| if probabilities[next] > probabilities[best] { next } else { best })?;
        Some(Judged { truth, label: best, confidence: share(best), truth_probability: share(truth) })
    }
}
