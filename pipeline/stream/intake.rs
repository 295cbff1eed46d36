//! Decodes and tokenizes records on threads of its own, and hands documents to [`inference`].
//!
//! Guarantee: every record it was given ends as one `Finished` event, labelled, deleted or rejected, as long as its lease is
//! held. It never blocks the poll loop: its queue has room for all that may be in flight.

use std::{fmt::Display, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use crossbeam_channel::{Receiver, Sender};
use tokio::sync::mpsc;

use super::{
    Event,
    duplicates::Wanted,
    inference::{self, DocumentResult, Inference},
};
use crate::{
    decode::{Decoded, Decoder, Input, TopicPosition, Undecoded, schema::Schemas},
    domain::{
        document::{Document, Finished, Outcome, SourceRecord, is_storable},
        label::Label,
        rejection::{Rejection, Stage},
    },
    engine::{Priority, job::ModelIndex, scheduler::Flow},
    model::folder::Model,
    retry,
    source::{Content, Lease, Record, Sink},
    telemetry::metrics as names,
    text::{language, tokenize::Texts},
};

/// The pauses between attempts to read a schema. The shortest keeps a registry that restarts from costing much; the longest
/// is what a stop of the process may wait for, and how late the end of a lease is noticed.
const SCHEMA_RETRY_DELAYS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// What a stream does with its records.
#[derive(Clone)]
pub struct IntakeConfig {
    pub stream: Arc<str>,
    pub decoder: Decoder,
    /// Where the schemas of records come from that carry the id of one.
    pub schemas: Arc<dyn Schemas>,
    /// Texts in a language that a model was not trained for are rejected.
    pub rejects_other_languages: bool,
    /// The longest text, in bytes.
    pub text_bytes_max: usize,
    /// The models a document goes through, with their place in the engine.
    pub models: Vec<(ModelIndex, Arc<Model>)>,
    /// Rejected records are kept as they came, or go to a topic.
    pub keeps_records: bool,
    pub priority: Priority,
    /// What it has waiting shares the engine with what others have.
    pub flow: Flow,
}

/// The stream's end of the source.
pub struct Intake {
    events: mpsc::Sender<Event>,
    records: Sender<Record>,
}

impl Intake {
    /// `queue_records_max`: at least what the source keeps in flight, so that the queue is never full.
    pub fn new(events: mpsc::Sender<Event>, queue_records_max: usize) -> (Self, Receiver<Record>) {
        let (records, queue) = crossbeam_channel::bounded(queue_records_max);
        (Self { events, records }, queue)
    }

    fn tell(&self, event: Event) {
        // The committer is gone only while the process ends; the record is read again.
        let _ = self.events.blocking_send(event);
    }
}

impl Sink for Intake {
    fn assigned(&self, lease: Arc<Lease>) {
        self.tell(Event::Assigned(lease));
    }

    fn revoked(&self, lease: &Lease) {
        self.tell(Event::Revoked { partition: lease.claim.key.partition, owner: lease.claim.owner });
    }

    fn record(&self, record: Record) {
        self.tell(Event::Arrived { lease: Arc::clone(&record.lease), offset: record.offset });
        let _ = self.records.send(record);
    }
}

/// Works through the queue until the source is gone. Runs on one or more threads of its own: tokenizing
/// would otherwise steal time from the engine's.
pub fn work(config: &Arc<IntakeConfig>, queue: &Receiver<Record>, inference: &Inference, events: &mpsc::Sender<Event>) {
    for record in queue {
        let Some(prepared) = prepare_held(config, inference, &record) else { continue };
        // Computed for nobody, once the partition went to another worker.
        let lease = Arc::clone(&record.lease);
        let is_wanted: Wanted = Arc::new(move || lease.is_held());
        let ticket = Ticket::of(record, config, events);
        infer(config, inference, prepared, &is_wanted, move |outcome| ticket.finish(outcome));
    }
}

/// Where the record stood when it was first read: in its topic, also where it is replayed.
fn position_of(record: &Record) -> TopicPosition {
    TopicPosition { partition: record.version.partition, offset: record.version.offset }
}

/// Decodes and tokenizes a record, and waits while its schema cannot be read: nothing is lost meanwhile. `None` where its
/// lease is over.
fn prepare_held(config: &IntakeConfig, inference: &Inference, record: &Record) -> Option<Result<Prepared, Rejection>> {
    let in_topic = position_of(record);
    let position: &dyn Display = record.place.as_ref().map_or(&in_topic, |place| place);
    let mut delays = retry::delays(SCHEMA_RETRY_DELAYS.0, SCHEMA_RETRY_DELAYS.1);
    while record.lease.is_held() {
        match prepare(config, inference, record.key.as_deref(), &record.content, position) {
            Ok(prepared) => return Some(Ok(prepared)),
            Err(Undecoded::Rejected(rejection)) => return Some(Err(rejection)),
            Err(Undecoded::SchemaUnavailable(problem)) => {
                let delay = delays.next().unwrap_or(SCHEMA_RETRY_DELAYS.1);
                metrics::counter!(names::SCHEMA_RETRIES, "stream" => config.stream.to_string()).increment(1);
                tracing::warn!(place = %record.lease.claim.key, offset = record.offset, problem, retry_in_ms = delay.as_millis(), "the schema registry does not answer; the partition waits");
                std::thread::sleep(delay);
            }
        }
    }
    None
}

/// A record on its way to its models, where it goes there.
pub enum Prepared {
    Document(Box<Document>, inference::Prepared),
    Deletion { id: String },
}

/// Decodes and tokenizes a record. `position` is where it stands, unique in its stream and the same whenever it is read.
///
/// # Errors
/// A [`Rejection`] where it cannot be labelled, or that its schema is not known yet.
pub fn prepare(
    config: &IntakeConfig,
    inference: &Inference,
    key: Option<&[u8]>,
    content: &Content,
    position: &dyn Display,
) -> Result<Prepared, Undecoded> {
    let decoded = match content {
        Content::Encoded(value) => {
            config.decoder.decode(&Input { key, value: value.as_deref(), position }, &*config.schemas)?
        }
        Content::Decoded { fields, .. } => {
            let fields = fields.as_ref().map_err(Clone::clone)?;
            config.decoder.document(&Input { key, value: None, position }, fields)?
        }
    };
    let mut document = match decoded {
        Decoded::Deletion { id } => return Ok(Prepared::Deletion { id }),
        Decoded::Document(document) => document,
    };
    let language = language_of(&document);
    document.attributes.language = language.map(str::to_owned);
    metrics::counter!(names::DOCUMENT_LANGUAGES, "stream" => config.stream.to_string(), "language" => language.unwrap_or("unknown")).increment(1);
    if let Some(language) = language.filter(|_| config.rejects_other_languages) {
        check_language(language, &config.models)?;
    }
    let texts = Texts { text: &document.text, pair: document.text_pair.as_deref() };
    let prepared = inference.prepare(texts, config.text_bytes_max, &config.models)?;
    Ok(Prepared::Document(Box::new(document), prepared))
}

/// Finds out what becomes of a record, and calls `finish` with it once: at once, or on an engine's thread, unless
/// `is_wanted` has denied it by then. Blocks while the engine's queue is full.
pub fn infer(
    config: &Arc<IntakeConfig>,
    inference: &Inference,
    prepared: Result<Prepared, Rejection>,
    is_wanted: &Wanted,
    finish: impl FnOnce(Outcome) + Send + 'static,
) {
    match prepared {
        Err(rejection) => finish(Outcome::Rejected(rejection)),
        Ok(Prepared::Deletion { id }) => finish(Outcome::Deleted { id }),
        Ok(Prepared::Document(document, prepared)) => {
            let (line, config) = ((config.priority, config.flow), Arc::clone(config));
            inference.infer(prepared, line, is_wanted, move |result| finish(outcome(&config, *document, result)));
        }
    }
}

fn outcome(config: &IntakeConfig, document: Document, result: DocumentResult) -> Outcome {
    match labels(&config.models, result) {
        Ok(labels) => {
            metrics::counter!(names::DOCUMENTS_INFERRED, "stream" => config.stream.to_string()).increment(1);
            Outcome::Labelled { attributes: document.attributes, labels }
        }
        Err(rejection) => Outcome::Rejected(rejection),
    }
}

/// What the record says, where that is a language, else what the text looks like.
pub fn language_of(document: &Document) -> Option<&'static str> {
    document.attributes.language.as_deref().and_then(language::of_tag).or_else(|| language::detect(&document.text))
}

fn check_language(language: &str, models: &[(ModelIndex, Arc<Model>)]) -> Result<(), Rejection> {
    let Some((_, model)) = models.iter().find(|(_, model)| !model.knows(language)) else { return Ok(()) };
    let message = format!(
        "the text is in `{language}`, and model `{}` was trained for {}; set `other_languages` of the stream to `label` to label it all the same",
        model.name,
        model.languages.join(", ")
    );
    Err(Rejection::new(Stage::Decode, "language_unsupported", message))
}

/// The labels of a document from what its models said.
///
/// # Errors
/// A [`Rejection`] where the engine failed or a model gave no number.
pub fn labels(models: &[(ModelIndex, Arc<Model>)], result: DocumentResult) -> Result<Vec<Label>, Rejection> {
    let answers = result.map_err(|error| Rejection::new(Stage::Infer, "inference_failed", error.to_string()))?;
    models
        .iter()
        .zip(&answers)
        .map(|((_, model), windows)| {
            model.label(windows).ok_or_else(|| {
                let message =
                    format!("model `{}` gave logits that are not numbers, or not one for each label", model.name);
                Rejection::new(Stage::Infer, "logits_invalid", message)
            })
        })
        .collect()
}

/// What has to be known of a record once its result is there.
struct Ticket {
    events: mpsc::Sender<Event>,
    lease: Arc<Lease>,
    finished: FinishedRecord,
}

struct FinishedRecord {
    offset: i64,
    version: crate::domain::version::Version,
    produced_at: Option<DateTime<Utc>>,
    bytes: usize,
    trace: Option<String>,
    place: Option<String>,
    record: Option<Arc<SourceRecord>>,
}

impl Ticket {
    fn of(record: Record, config: &IntakeConfig, events: &mpsc::Sender<Event>) -> Self {
        Self {
            events: events.clone(),
            finished: FinishedRecord {
                offset: record.offset,
                version: record.version,
                produced_at: record
                    .timestamp_ms
                    .and_then(DateTime::from_timestamp_millis)
                    .filter(|time| is_storable(*time)),
                bytes: record.bytes(),
                trace: record.trace(),
                place: record.place,
                record: config.keeps_records.then(|| {
                    let (key, value) = (record.key, record.content.into_bytes());
                    Arc::new(SourceRecord { key, value, headers: record.headers })
                }),
            },
            lease: record.lease,
        }
    }

    fn finish(self, mut outcome: Outcome) {
        let FinishedRecord { offset, version, produced_at, bytes, trace, place, record } = self.finished;
        if let Outcome::Rejected(rejection) = outcome {
            outcome = Outcome::Rejected(rejection.at(place.as_deref()));
        }
        let finished =
            Finished { offset, version, produced_at, labelled_at: Utc::now(), bytes, trace, place, record, outcome };
        let _ = self.events.blocking_send(Event::Finished { lease: self.lease, finished: Box::new(finished) });
    }
}
