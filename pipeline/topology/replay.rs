//! Dead letters as a feed of their stream: each record as it was kept, or as the topic still holds it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use super::{BlockingStore, Pipeline, stream::Feed};
use crate::{
    config::{resolved::StreamConfig, secret::ClientSettings},
    domain::{
        dead_letter::{DeadLetter, Place},
        document::SourceRecord,
    },
    engine::Priority,
    kafka::reread::RecordReader,
    source::replay::{self, InFlight, JOB, ReplayedRecord},
    storage::replay::ReplayedPlaces,
};

/// Dead letters whose records are read, and in memory, at once.
const PAGE: usize = 100;

/// Dead letters to be tried again, and what is known of them.
pub struct Replay {
    /// In the order of their versions.
    pub letters: Vec<DeadLetter>,
    /// Of each partition of the stream's topic: its present generation. A record of an earlier one is not in the topic
    /// any more, though another one may stand at its offset.
    pub generations: BTreeMap<i32, i64>,
    pub unavailable: Unavailable,
}

/// Dead letters whose records are neither kept nor in the topic.
#[derive(Debug, Clone, Default)]
pub struct Unavailable(Arc<Mutex<Vec<Place>>>);

impl Unavailable {
    fn note(&self, place: &Place) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(place.clone());
    }

    pub fn places(&self) -> Vec<Place> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The records of these dead letters, published where the stream publishes.
pub fn feed(pipeline: &Pipeline<'_>, stream: &StreamConfig, replay: Replay) -> Feed {
    let topic: Arc<str> = JOB.into();
    let claims = pipeline.blocking_store(stream, &topic);
    let client = pipeline.config.kafka.client.clone();
    let source_topic = stream.topic.clone();
    let in_flight = InFlight { documents_max: stream.in_flight_documents_max, bytes_max: stream.in_flight_bytes_max };
    let places = ReplayedPlaces::default();
    let noted = places.clone();
    Feed {
        topic,
        publishes: stream.live.is_some(),
        replayed: Some(places),
        decoder: None,
        priority: Priority::Live,
        read: Box::new(move |sink, control| {
            let records = Records {
                topic: TopicRecords::new(&client, &source_topic, replay.generations),
                store: claims.clone(),
                letters: replay.letters.into_iter(),
                page: Vec::new().into_iter(),
                kept: HashMap::new(),
                unavailable: replay.unavailable,
            };
            let note = |offset, place| noted.note(offset, place);
            replay::run(&claims, records, note, in_flight, &sink, control)
        }),
    }
}

/// Fetches the records, a page at a time.
struct Records {
    topic: TopicRecords,
    store: BlockingStore,
    letters: std::vec::IntoIter<DeadLetter>,
    page: std::vec::IntoIter<DeadLetter>,
    /// Of the page.
    kept: HashMap<Place, SourceRecord>,
    unavailable: Unavailable,
}

impl Iterator for Records {
    type Item = anyhow::Result<(Place, ReplayedRecord)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some(letter) = self.page.next() else {
                let page: Vec<DeadLetter> = self.letters.by_ref().take(PAGE).collect();
                if page.is_empty() {
                    return None;
                }
                match self.store.kept_records(page.iter().map(|letter| letter.place.clone()).collect()) {
                    Ok(kept) => self.kept = kept,
                    Err(error) => return Some(Err(error)),
                }
                self.page = page.into_iter();
                continue;
            };
            let kept = self.kept.remove(&letter.place).map(Some);
            let found = match kept.map_or_else(|| self.topic.read(&letter), Ok) {
                Ok(found) => found,
                Err(error) => return Some(Err(error)),
            };
            let Some((record, version)) = found.zip(letter.version) else {
                self.unavailable.note(&letter.place);
                continue;
            };
            let timestamp_ms = letter.produced_at.map(|time| time.timestamp_millis());
            return Some(Ok((letter.place, ReplayedRecord { version, timestamp_ms, record })));
        }
    }
}

/// The records of a stream's topic, which is opened when it is first needed.
pub struct TopicRecords {
    reader: Option<RecordReader>,
    topic: Arc<str>,
    client: ClientSettings,
    generations: BTreeMap<i32, i64>,
}

impl TopicRecords {
    /// `generations`: see [`Replay::generations`].
    pub fn new(client: &ClientSettings, topic: &Arc<str>, generations: BTreeMap<i32, i64>) -> Self {
        Self { reader: None, topic: Arc::clone(topic), client: client.clone(), generations }
    }

    /// The record of a dead letter; `None` where the topic does not hold it any more.
    ///
    /// # Errors
    /// Where the broker does not answer or refuses.
    pub fn read(&mut self, letter: &DeadLetter) -> anyhow::Result<Option<SourceRecord>> {
        let Place { topic, partition, offset } = &letter.place;
        let generation = letter.version.map(|version| version.generation);
        if **topic != *self.topic || self.generations.get(partition).copied() != generation {
            return Ok(None);
        }
        let reader = match &mut self.reader {
            Some(reader) => reader,
            none => none.insert(RecordReader::new(&self.client, &self.topic)?),
        };
        let record = reader.read(*partition, *offset)?;
        Ok(record.map(|record| SourceRecord { key: record.key, value: record.value, headers: record.headers }))
    }
}
