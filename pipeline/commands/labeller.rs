//! Sends the records of a file through models and gives them back in the file's order, each labelled or rejected.
//!
//! Bounded: so many records are between reading and the answer, and no more. It writes nothing.

use std::{collections::HashMap, sync::Arc};

use crossbeam_channel::{Receiver, Sender};
use serde_json::Value;

use super::UsageError;
use crate::{
    domain::{
        label::Label,
        rejection::{Rejection, Stage},
        tracker::Tracker,
    },
    engine::{
        Priority,
        job::{ModelIndex, new_flow},
        scheduler::Flow,
    },
    model::folder::Model,
    source::file::{self, FileRecord},
    stream::{
        duplicates,
        inference::{DocumentResult, Prepared},
        intake,
    },
    text::tokenize::Texts,
    topology::ModelHost,
};

/// Records between reading and writing. Enough that texts of equal length meet; what is above only costs
/// memory.
const IN_FLIGHT_MAX: usize = 2048;

/// Where the texts lie in a record.
#[derive(Debug, Clone, Copy)]
pub struct TextFields<'a> {
    pub text: &'a str,
    /// For models that read pairs.
    pub text_pair: Option<&'a str>,
}

impl TextFields<'_> {
    /// The texts of a record.
    ///
    /// # Errors
    /// A [`Rejection`] where one is missing, or is no text.
    pub fn texts<'r>(&self, record: &'r FileRecord) -> Result<Texts<'r>, Rejection> {
        let text = text_of(record, self.text, "--text-field", ("text_missing", "text_empty"))?;
        let pair = self
            .text_pair
            .map(|field| text_of(record, field, "--text-pair-field", ("text_pair_missing", "text_pair_empty")));
        Ok(Texts { text, pair: pair.transpose()? })
    }

    /// A model of pairs needs the field of the second text, and no other one takes it.
    ///
    /// # Errors
    /// What is missing, or too much.
    pub fn check(&self, models: &[(ModelIndex, Arc<Model>)]) -> Result<(), UsageError> {
        let pair = models.iter().find(|(_, model)| model.tokenizer.reads_pairs());
        match (pair, self.text_pair) {
            (Some((_, model)), None) => Err(UsageError(format!(
                "model `{}` reads pairs of texts: name the second text's field with `--text-pair-field`",
                model.name
            ))),
            (None, Some(_)) => {
                let names: Vec<&str> = models.iter().map(|(_, model)| &*model.name).collect();
                Err(UsageError(format!("`--text-pair-field`: model `{}` reads single texts", names.join("`, `"))))
            }
            _ => Ok(()),
        }
    }
}

/// A record and what became of it: a label of each model, in their order.
pub struct Labelled {
    pub record: FileRecord,
    pub result: Result<Vec<Label>, Rejection>,
}

/// See the module.
pub struct Labeller<'a> {
    host: &'a ModelHost,
    models: Vec<(ModelIndex, Arc<Model>)>,
    fields: TextFields<'a>,
    tracker: Tracker<Labelled>,
    pending: HashMap<i64, FileRecord>,
    next: i64,
    flow: Flow,
    answers: (Sender<Answer>, Receiver<Answer>),
}

type Answer = (i64, DocumentResult);

impl<'a> Labeller<'a> {
    /// Every record goes through all of the host's models, in the order it was given them.
    ///
    /// # Errors
    /// Where a model of pairs lacks the field of the second text, or no model takes one.
    pub fn new(host: &'a ModelHost, fields: TextFields<'a>) -> Result<Self, UsageError> {
        let mut models: Vec<_> = host.models.values().cloned().collect();
        models.sort_by_key(|(index, _)| *index);
        fields.check(&models)?;
        Ok(Self {
            host,
            models,
            fields,
            tracker: Tracker::default(),
            pending: HashMap::new(),
            next: 0,
            flow: new_flow(),
            answers: crossbeam_channel::bounded(IN_FLIGHT_MAX),
        })
    }

    /// Takes a record on and returns those that are ready. Blocks while too many are in work.
    ///
    /// # Errors
    /// Where the engine is gone.
    pub fn submit(&mut self, record: FileRecord) -> anyhow::Result<Vec<Labelled>> {
        let ticket = self.next;
        self.next += 1;
        self.tracker.register(ticket)?;
        match self.prepare(&record) {
            Err(rejection) => self.tracker.finish(ticket, Labelled { record, result: Err(rejection) })?,
            Ok(prepared) => {
                self.pending.insert(ticket, record);
                let answers = self.answers.0.clone();
                self.host.inference.infer(
                    prepared,
                    (Priority::Live, self.flow),
                    &duplicates::always(),
                    move |result| {
                        let _ = answers.send((ticket, result));
                    },
                );
            }
        }
        while let Ok(answer) = self.answers.1.try_recv() {
            self.take(answer)?;
        }
        while self.pending.len() >= IN_FLIGHT_MAX {
            let answer = self.answers.1.recv()?;
            self.take(answer)?;
        }
        Ok(self.ready())
    }

    /// Waits for the next records in work; `None` once there are none.
    ///
    /// # Errors
    /// Where the engine is gone.
    pub fn wait(&mut self) -> anyhow::Result<Option<Vec<Labelled>>> {
        if self.pending.is_empty() {
            let rest = self.ready();
            return Ok((!rest.is_empty()).then_some(rest));
        }
        let answer = self.answers.1.recv()?;
        self.take(answer)?;
        Ok(Some(self.ready()))
    }

    fn ready(&mut self) -> Vec<Labelled> {
        self.tracker.take_prefix(usize::MAX).map_or_else(Vec::new, |prefix| prefix.records)
    }

    fn prepare(&self, record: &FileRecord) -> Result<Prepared, Rejection> {
        let texts = self.fields.texts(record)?;
        self.host.inference.prepare(texts, file::RECORD_BYTES_MAX, &self.models)
    }

    fn take(&mut self, (ticket, result): Answer) -> anyhow::Result<()> {
        if let Some(record) = self.pending.remove(&ticket) {
            let result = intake::labels(&self.models, result);
            self.tracker.finish(ticket, Labelled { record, result })?;
        }
        Ok(())
    }
}

/// The text in a field; `option` names the field, and the reasons are those for a field that is not there and for one
/// that is empty.
fn text_of<'a>(
    record: &'a FileRecord,
    field: &str,
    option: &str,
    (missing, empty): (&'static str, &'static str),
) -> Result<&'a str, Rejection> {
    let reject = |reason, message: String| Rejection::new(Stage::Decode, reason, message);
    match record.fields.get(field) {
        Some(Value::String(text)) if !text.trim().is_empty() => Ok(text),
        Some(Value::String(_)) => Err(reject(empty, format!("the text in `{field}` is empty"))),
        Some(Value::Null) | None => {
            Err(reject(missing, format!("there is no field `{field}`; name the text's with `{option}`")))
        }
        Some(_) => Err(reject("field_type", format!("`{field}` must be a string"))),
    }
}
