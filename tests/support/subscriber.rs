//! A `read_committed` subscriber of the live topic and the dead letters, from their beginning, all the time.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use albertine::domain::live::{LivePosition, POSITION_HEADER};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::{BorrowedMessage, Headers},
};
use serde_json::Value;

use super::{environment, eventually};

/// A record as the subscriber got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub position: LivePosition,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    /// As text.
    pub headers: BTreeMap<String, String>,
}

impl Seen {
    fn of(message: &BorrowedMessage<'_>) -> Self {
        let headers: BTreeMap<String, String> = message
            .headers()
            .into_iter()
            .flat_map(|headers| headers.iter())
            .map(|header| {
                let value = String::from_utf8_lossy(header.value.unwrap_or_default()).into_owned();
                (header.key.to_owned(), value)
            })
            .collect();
        Self {
            topic: message.topic().to_owned(),
            partition: message.partition(),
            offset: message.offset(),
            position: headers[POSITION_HEADER].parse().unwrap(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers,
        }
    }

    /// The value of a label record.
    pub fn json(&self) -> Value {
        serde_json::from_slice(self.value.as_deref().unwrap()).unwrap()
    }

    /// The number of the update that this is a label of.
    pub fn update(&self) -> Option<usize> {
        let value: Value = serde_json::from_slice(self.value.as_deref()?).ok()?;
        value.get("rating")?.as_f64().map(|number| number as usize)
    }
}

pub struct Subscriber {
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Subscriber {
    /// Reads these topics' partitions.
    pub fn start(topics: &[(String, i32)]) -> Self {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", environment("KAFKA_BOOTSTRAP_SERVERS"))
            .set("group.id", "test-subscriber")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "error")
            .set("fetch.wait.max.ms", "20")
            .create()
            .unwrap();
        let mut assignment = TopicPartitionList::new();
        for (topic, partitions) in topics {
            for partition in 0..*partitions {
                assignment.add_partition_offset(topic, partition, Offset::Offset(0)).unwrap();
            }
        }
        consumer.assign(&assignment).unwrap();
        let (seen, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (sink, stopped) = (Arc::clone(&seen), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // Errors are those of a broker that is away; the client goes on by itself.
                if let Some(Ok(message)) = consumer.poll(Duration::from_millis(20)) {
                    sink.lock().unwrap().push(Seen::of(&message));
                }
            }
        });
        Self { seen, stop, thread: Some(thread) }
    }

    /// What was seen once there are this many records.
    pub fn wait_for(&self, count: usize) -> Vec<Seen> {
        eventually(&format!("a subscriber has seen {count} records"), || {
            self.with(|seen| (seen.len() >= count).then(|| seen.to_vec()))
        })
    }

    /// What was seen so far.
    pub fn with<T>(&self, look: impl FnOnce(&[Seen]) -> T) -> T {
        look(&self.seen.lock().unwrap())
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
