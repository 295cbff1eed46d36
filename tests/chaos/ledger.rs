//! What was sent, in order: the truth that everything else is compared with.

use std::collections::{BTreeMap, BTreeSet};

use albertine::kafka::produce::RecordProducer;
use serde_json::json;

use crate::support::broker;

/// Few enough that documents are overwritten and deleted all the time, also between two markers.
const DOCUMENTS: usize = 40;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Update,
    Deletion,
    /// Not JSON.
    Bad,
}

#[derive(Debug, Clone)]
pub struct Entry {
    pub id: String,
    pub kind: Kind,
}

/// Sends records and remembers them. The number of a record is its place here; an update carries it as its rating,
/// so that it is known again in the database and on the live topic.
pub struct Ledger {
    pub entries: Vec<Entry>,
    random: fastrand::Rng,
    topic: String,
    producer: Option<RecordProducer>,
}

impl Ledger {
    pub fn new(topic: &str, random: fastrand::Rng) -> Self {
        Self { entries: Vec::new(), random, topic: topic.to_owned(), producer: None }
    }

    /// Sends one record.
    pub fn send(&mut self) {
        const WORDS: [&str; 5] =
            ["A good kettle.", "A bad lid.", "It is fine.", "Good handle, bad spout.", "Not used yet."];
        let number = self.entries.len();
        let id = format!("d{}", self.random.usize(..DOCUMENTS));
        let kind = match self.random.u8(..100) {
            0..=7 => Kind::Deletion,
            8..=10 => Kind::Bad,
            _ => Kind::Update,
        };
        let value = match kind {
            Kind::Update => {
                let text = self.random.choice(WORDS).unwrap_or_default();
                // Every other one is new, so that the engine has work; the others come again.
                let text = if self.random.bool() { format!("{text} {number}") } else { text.to_owned() };
                let item = format!("item-{}", self.random.usize(..6));
                Some(json!({"item": item, "text": text, "rating": number}).to_string())
            }
            Kind::Deletion => None,
            Kind::Bad => Some(format!("not JSON, number {number}")),
        };
        let producer =
            self.producer.get_or_insert_with(|| RecordProducer::new(&broker::client(), &self.topic).unwrap());
        producer.send(Some(&id), value.as_deref().map(str::as_bytes)).unwrap();
        self.entries.push(Entry { id, kind });
    }

    /// Waits until the broker has everything.
    pub fn flush(&mut self) {
        if let Some(producer) = self.producer.take() {
            let counts = producer.finish().unwrap();
            assert_eq!(counts.failed.load(std::sync::atomic::Ordering::Relaxed), 0, "the harness lost records itself");
        }
    }

    /// The number of the last update of each document, or `None` where it was deleted after it.
    pub fn last_states(&self) -> BTreeMap<String, Option<usize>> {
        let mut states = BTreeMap::new();
        for (number, entry) in self.entries.iter().enumerate() {
            match entry.kind {
                Kind::Update => states.insert(entry.id.clone(), Some(number)),
                Kind::Deletion => states.insert(entry.id.clone(), None),
                Kind::Bad => None,
            };
        }
        states
    }

    pub fn numbers(&self, kind: Kind) -> BTreeSet<usize> {
        (0..self.entries.len()).filter(|number| self.entries[*number].kind == kind).collect()
    }
}
