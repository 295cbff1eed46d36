//! Sends the records of a file through models and gives them back in the file's order, each labelled or rejected.
//!
//! Bounded: so many records are between reading and the answer, and no more. It writes nothing.

use std::{collections::HashMap, sync::Arc};

use crossbeam_channel::{Receiver, Sender};
use serde_json::Value;

use crate::{
    domain::{
        label::Label,
        rejection::{Rejection, Stage},
        tracker::Tracker,
    },
    engine::{
        Job, JobResult, Priority,
        job::{JobInput, ModelIndex},
    },
    model::folder::Model,
    source::file::{self, FileRecord},
    stream::intake,
    topology::ModelHost,
};

/// Records between reading and writing. Enough that texts of equal length meet; what is above only costs
/// memory.
const IN_FLIGHT_MAX: usize = 2048;

/// A record and what became of it: a label of each model, in their order.
pub struct Labelled {
    pub record: FileRecord,
    pub result: Result<Vec<Label>, Rejection>,
}

/// See the module.
pub struct Labeller<'a> {
    host: &'a ModelHost,
    models: Vec<(ModelIndex, Arc<Model>)>,
    text_field: &'a str,
    tracker: Tracker<Labelled>,
    pending: HashMap<i64, FileRecord>,
    next: i64,
    answers: (Sender<Answer>, Receiver<Answer>),
}

type Answer = (i64, JobResult);

impl<'a> Labeller<'a> {
    /// Every record goes through all of the host's models, in the order it was given them.
    pub fn new(host: &'a ModelHost, text_field: &'a str) -> Self {
        let mut models: Vec<_> = host.models.values().cloned().collect();
        models.sort_by_key(|(index, _)| *index);
        Self {
            host,
            models,
            text_field,
            tracker: Tracker::default(),
            pending: HashMap::new(),
            next: 0,
            answers: crossbeam_channel::bounded(IN_FLIGHT_MAX),
        }
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
            Ok(inputs) => {
                self.pending.insert(ticket, record);
                let answers = self.answers.0.clone();
                let done = move |result| {
                    let _ = answers.send((ticket, result));
                };
                self.host.engine.submit(Job { priority: Priority::Live, inputs, done: Box::new(done) });
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

    fn prepare(&self, record: &FileRecord) -> Result<Vec<JobInput>, Rejection> {
        let field = self.text_field;
        let reject = |reason, message: String| Rejection::new(Stage::Decode, reason, message);
        match record.fields.get(field) {
            Some(Value::String(text)) if !text.trim().is_empty() => {
                intake::tokenize(text, file::RECORD_BYTES_MAX, &self.models)
            }
            Some(Value::String(_)) => Err(reject("text_empty", format!("the text in `{field}` is empty"))),
            Some(_) => Err(reject("field_type", format!("`{field}` must be a string"))),
            None => {
                Err(reject("text_missing", format!("there is no field `{field}`; name the text's with `--text-field`")))
            }
        }
    }

    fn take(&mut self, (ticket, result): Answer) -> anyhow::Result<()> {
        if let Some(record) = self.pending.remove(&ticket) {
            let result = intake::labels(&self.models, result);
            self.tracker.finish(ticket, Labelled { record, result })?;
        }
        Ok(())
    }
}
