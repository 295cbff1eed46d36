//! The contract that `pipeline/source/mod.rs` states, held against the Kafka source: the source itself on a real
//! broker, with claims and a sink that write down what they are told.

use std::{
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use albertine::{
    domain::checkpoint::{Claim, PartitionKey, Position, TopicStart},
    source::{
        Claims, Lease, Record, Sink, SourceControl,
        kafka::{self, KafkaSourceConfig, SourceError, Start},
    },
};
use uuid::Uuid;

use crate::support::{
    broker::{self, Topic},
    eventually, unique,
};

/// Where the partition stands, and whose it is.
#[derive(Default)]
struct Checkpoint {
    position: Option<i64>,
    topic_id: Option<String>,
    claims: usize,
}

/// The claims of a topic with one partition.
struct FakeClaims {
    topic: String,
    checkpoint: Mutex<Checkpoint>,
}

impl Claims for FakeClaims {
    fn known_partitions(&self) -> anyhow::Result<Vec<(i32, Option<String>)>> {
        let checkpoint = self.checkpoint.lock().unwrap();
        Ok(checkpoint.position.map(|_| (0, checkpoint.topic_id.clone())).into_iter().collect())
    }

    fn initialise(&self, start: &TopicStart) -> anyhow::Result<()> {
        let mut checkpoint = self.checkpoint.lock().unwrap();
        let is_other = checkpoint.topic_id.is_some() && checkpoint.topic_id != start.topic_id;
        if checkpoint.position.is_none() || is_other {
            checkpoint.position = start.positions.first().map(|(_, position)| position.0);
        }
        checkpoint.topic_id.clone_from(&start.topic_id);
        Ok(())
    }

    fn claim(&self, partitions: &[i32]) -> anyhow::Result<Vec<Claim>> {
        let mut checkpoint = self.checkpoint.lock().unwrap();
        checkpoint.claims += 1;
        let claim = |partition: &i32| Claim {
            key: PartitionKey { stream: "source".into(), topic: self.topic.as_str().into(), partition: *partition },
            owner: Uuid::new_v4(),
            position: Position(checkpoint.position.unwrap()),
            epoch: 1,
            generation: 1,
            timestamp_ms_max: 0,
            is_fresh: false,
        };
        Ok(partitions.iter().map(claim).collect())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    Assigned(i64),
    Record(i64),
    Revoked,
}

/// Writes down what it is told, with the leases.
#[derive(Default)]
struct Notes {
    told: Mutex<Vec<Told>>,
    leases: Mutex<Vec<Arc<Lease>>>,
}

impl Sink for Notes {
    fn assigned(&self, lease: Arc<Lease>) {
        self.told.lock().unwrap().push(Told::Assigned(lease.claim.position.0));
        self.leases.lock().unwrap().push(lease);
    }

    fn revoked(&self, lease: &Lease) {
        assert!(!lease.is_held(), "a lease that is handed back must not look held");
        self.told.lock().unwrap().push(Told::Revoked);
    }

    fn record(&self, record: Record) {
        assert_eq!(record.lease.claim.owner, self.lease().claim.owner, "a record under a lease that is not the last");
        self.told.lock().unwrap().push(Told::Record(record.offset));
    }
}

impl Notes {
    fn lease(&self) -> Arc<Lease> {
        Arc::clone(self.leases.lock().unwrap().last().unwrap())
    }

    fn told(&self) -> Vec<Told> {
        self.told.lock().unwrap().clone()
    }

    fn wait_for(&self, told: &[Told]) {
        eventually(&format!("the source has told {told:?}, and not {:?}", self.told()), || {
            (self.told() == told).then_some(())
        });
    }
}

/// A running source on a topic of its own.
struct Fixture {
    topic: Topic,
    claims: Arc<FakeClaims>,
    notes: Arc<Notes>,
    control: Arc<SourceControl>,
    thread: Option<JoinHandle<Result<(), SourceError>>>,
}

impl Fixture {
    /// On a topic with this many records, claimed at `position` (at the topic's start without it).
    fn start(records: usize, position: Option<i64>, in_flight_documents_max: usize) -> Self {
        let topic = Topic::new("source", 1);
        broker::produce_documents(&topic, 0..records);
        let checkpoint = Mutex::new(Checkpoint { position, ..Checkpoint::default() });
        let mut fixture = Self {
            claims: Arc::new(FakeClaims { topic: topic.to_string(), checkpoint }),
            topic,
            notes: Arc::default(),
            control: Arc::default(),
            thread: None,
        };
        let config = KafkaSourceConfig {
            stream: "source".into(),
            topic: fixture.topic.to_string().into(),
            group: unique("source"),
            start: Start::Earliest,
            in_flight_documents_max,
            in_flight_bytes_max: usize::MAX,
            unpublished_bytes_max: 1_000,
            hints: true,
            reclaim_delay: Duration::from_millis(200),
            client: broker::client(),
        };
        let (claims, notes, control) =
            (Arc::clone(&fixture.claims), Arc::clone(&fixture.notes), Arc::clone(&fixture.control));
        fixture.thread = Some(std::thread::spawn(move || kafka::run(config, claims, notes, &control)));
        fixture
    }

    fn close(mut self) -> Result<(), SourceError> {
        self.control.close();
        self.thread.take().unwrap().join().unwrap()
    }
}

fn records(offsets: std::ops::Range<i64>) -> Vec<Told> {
    offsets.map(Told::Record).collect()
}

fn all(parts: &[&[Told]]) -> Vec<Told> {
    parts.concat()
}

#[test]
fn a_partition_is_read_from_its_claim_on_in_order_and_handed_back_at_the_end() {
    let fixture = Fixture::start(10, Some(4), 1_000);
    fixture.notes.wait_for(&all(&[&[Told::Assigned(4)], &records(4..10)]));
    let notes = Arc::clone(&fixture.notes);
    fixture.close().unwrap();
    assert_eq!(notes.told(), all(&[&[Told::Assigned(4)], &records(4..10), &[Told::Revoked]]));
}

#[test]
fn a_partition_without_a_checkpoint_gets_one_before_it_is_claimed() {
    let fixture = Fixture::start(3, None, 1_000);
    fixture.notes.wait_for(&all(&[&[Told::Assigned(0)], &records(0..3)]));
    assert!(fixture.claims.checkpoint.lock().unwrap().topic_id.is_some());
    fixture.close().unwrap();
}

#[test]
fn no_more_is_in_flight_than_allowed_and_storing_makes_room() {
    let fixture = Fixture::start(30, Some(0), 10);
    fixture.notes.wait_for(&all(&[&[Told::Assigned(0)], &records(0..10)]));
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(fixture.notes.told().len(), 11, "it reads on without room");
    let lease = fixture.notes.lease();
    let (documents, bytes) = lease.in_flight();
    lease.stored(Position(10), documents, bytes, 0);
    fixture.notes.wait_for(&all(&[&[Told::Assigned(0)], &records(0..20)]));
    fixture.close().unwrap();
}

#[test]
fn reading_waits_while_too_much_is_unpublished() {
    let fixture = Fixture::start(1, Some(0), 1_000);
    fixture.notes.wait_for(&[Told::Assigned(0), Told::Record(0)]);
    let lease = fixture.notes.lease();
    lease.stored(Position(1), 1, lease.in_flight().1, 1_000);
    broker::produce_documents(&fixture.topic, 1..2);
    fixture.notes.wait_for(&[Told::Assigned(0), Told::Record(0), Told::Record(1)]);
    broker::produce_documents(&fixture.topic, 2..3);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(fixture.notes.told().len(), 3, "it reads on while the outbox is full");
    lease.published(Position(1), 1_000);
    fixture.notes.wait_for(&all(&[&[Told::Assigned(0)], &records(0..3)]));
    fixture.close().unwrap();
}

#[test]
fn a_lost_claim_is_handed_back_and_claimed_again_where_the_checkpoint_stands() {
    let fixture = Fixture::start(6, Some(0), 1_000);
    fixture.notes.wait_for(&all(&[&[Told::Assigned(0)], &records(0..6)]));
    fixture.claims.checkpoint.lock().unwrap().position = Some(2);
    fixture.notes.lease().lose();
    let expected = all(&[&[Told::Assigned(0)], &records(0..6), &[Told::Revoked, Told::Assigned(2)], &records(2..6)]);
    fixture.notes.wait_for(&expected);
    assert_eq!(fixture.claims.checkpoint.lock().unwrap().claims, 2);
    fixture.close().unwrap();
}

#[test]
fn a_draining_source_reads_nothing_more_and_keeps_its_partition() {
    let fixture = Fixture::start(2, Some(0), 1_000);
    fixture.notes.wait_for(&all(&[&[Told::Assigned(0)], &records(0..2)]));
    fixture.control.drain();
    broker::produce_documents(&fixture.topic, 2..4);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(fixture.notes.told(), all(&[&[Told::Assigned(0)], &records(0..2)]));
    assert!(fixture.notes.lease().is_held());
    fixture.close().unwrap();
}

#[test]
fn an_offset_that_the_topic_does_not_have_is_an_error_with_the_range_it_has() {
    let mut fixture = Fixture::start(3, Some(99), 1_000);
    let error = fixture.thread.take().unwrap().join().unwrap().unwrap_err();
    let SourceError::OffsetOutOfRange { position, low, high, .. } = &error else { panic!("{error}") };
    assert_eq!((*position, *low, *high), (99, 0, 3));
    assert!(error.to_string().contains("albertine position set source --partition 0 --stored"), "{error}");
}

#[test]
fn a_topic_that_is_deleted_and_made_again_is_read_from_its_start() {
    let fixture = Fixture::start(3, None, 1_000);
    fixture.notes.wait_for(&all(&[&[Told::Assigned(0)], &records(0..3)]));
    fixture.claims.checkpoint.lock().unwrap().position = Some(3);
    broker::recreate_topic(&fixture.topic, 1);
    broker::produce_documents(&fixture.topic, 0..2);
    let expected = all(&[&[Told::Assigned(0)], &records(0..3), &[Told::Revoked, Told::Assigned(0)], &records(0..2)]);
    fixture.notes.wait_for(&expected);
    fixture.close().unwrap();
}
