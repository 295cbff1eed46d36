//! The contract of the label store, on Postgres.

mod live;

use std::sync::Arc;

use albertine::{
    domain::{
        checkpoint::{Advance, Claim, Observed, PartitionKey, Position, TopicStart},
        document::{Attributes, Finished, Outcome},
        label::Label,
        rejection::{Rejection, Stage},
        version::Version,
    },
    storage::{Batch, ErrorKind, LabelStore, Stored, postgres::Postgres},
    stream::delivery::{Delivery, deliver},
};
use chrono::{DateTime, Utc};

use crate::support::{block_on, database::Database, eventually};

const STREAM: &str = "reviews";

struct Fixture {
    database: Database,
    store: Postgres,
}

impl Fixture {
    fn new() -> Self {
        let database = Database::new();
        let store = block_on(database.store());
        let fixture = Self { database, store };
        fixture.statement("INSERT INTO {s}.models VALUES ('m', '1', 'sentiment', '{negative,positive}')");
        fixture.statement("INSERT INTO {s}.promotions VALUES ('reviews', 'sentiment', 'm')");
        block_on(fixture.store.maintain_partitions(std::time::Duration::from_hours(1))).unwrap();
        fixture
    }

    fn statement(&self, statement: &str) {
        self.database.rows(statement);
    }

    /// Partition `partition`, claimed at the position it stands at; begins at 0.
    fn claim(&self, partition: i32) -> Claim {
        let (stream, topic) = (Arc::from(STREAM), Arc::from("topic"));
        block_on(async {
            self.store.initialise_checkpoints(STREAM, "topic", &start("a", &[(partition, 0)])).await.unwrap();
            self.store.claim(&stream, &topic, &[partition]).await.unwrap().remove(0)
        })
    }

    fn store(&self, batch: &Batch) -> Stored {
        block_on(self.store.store(batch)).unwrap()
    }

    fn labels(&self) -> Vec<String> {
        self.database.texts("SELECT document_id || '=' || label FROM {s}.current_labels ORDER BY document_id")
    }
}

fn start(topic_id: &str, positions: &[(i32, i64)]) -> TopicStart {
    let positions = positions.iter().map(|(partition, position)| (*partition, Position(*position))).collect();
    TopicStart { topic_id: Some(topic_id.into()), positions }
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_millis(1_700_000_000_000).unwrap()
}

fn finished(partition: i32, offset: i64, timestamp_ms: i64, outcome: Outcome) -> Finished {
    let version = Version { generation: 1, timestamp_ms, partition, offset };
    Finished {
        offset,
        version,
        produced_at: Some(now()),
        labelled_at: now(),
        bytes: 10,
        trace: None,
        place: None,
        record: None,
        outcome,
    }
}

fn labelled(id: &str, label: &str) -> Outcome {
    labelled_of(id, Some("kettle".into()), label, if label == "positive" { 0.9 } else { 0.2 })
}

/// A document of this item, with this label and probability of `positive`.
fn labelled_of(id: &str, item: Option<String>, label: &str, positive: f32) -> Outcome {
    let label = Label {
        task: "sentiment".into(),
        model: "m".into(),
        model_version: "1".into(),
        label: label.into(),
        confidence: 0.9,
        classes: ["negative".into(), "positive".into()].into(),
        probabilities: vec![1.0 - positive, positive],
        depth: 6,
    };
    Outcome::Labelled { attributes: Attributes { id: id.into(), item, ..Attributes::default() }, labels: vec![label] }
}

/// The records at consecutive offsets from where the claim stands, all with one timestamp.
fn batch(claim: &Claim, timestamp_ms: i64, outcomes: Vec<Outcome>) -> Batch {
    let from = claim.position;
    let to = Position(from.0 + outcomes.len() as i64);
    let records =
        (from.0..).zip(outcomes).map(|(offset, outcome)| finished(claim.key.partition, offset, timestamp_ms, outcome));
    Batch {
        key: claim.key.clone(),
        owner: claim.owner,
        epoch: claim.epoch,
        advance: Advance { from, to, timestamp_ms_max: timestamp_ms },
        records: records.collect(),
        live: None,
        keep_records: None,
    }
}

#[test]
fn a_batch_moves_the_checkpoint_and_its_labels_together() {
    let fixture = Fixture::new();
    let claim = fixture.claim(0);
    let batch = batch(&claim, 5, vec![labelled("a", "positive"), labelled("b", "negative")]);
    assert!(matches!(fixture.store(&batch), Stored::Moved { .. }));
    assert_eq!(fixture.labels(), ["a=positive", "b=negative"]);
    let observed = block_on(fixture.store.observe(&claim.key)).unwrap();
    assert_eq!(observed, Some(Observed { owner: Some(claim.owner), position: Position(2) }));
}

#[test]
fn a_batch_that_is_sent_again_changes_nothing() {
    let fixture = Fixture::new();
    let claim = fixture.claim(0);
    let batch = batch(
        &claim,
        5,
        vec![labelled("a", "positive"), Outcome::Rejected(Rejection::new(Stage::Decode, "bad", "bad"))],
    );
    assert!(matches!(fixture.store(&batch), Stored::Moved { .. }));
    assert_eq!(fixture.store(&batch), Stored::NotMoved);
    assert_eq!(fixture.database.number("SELECT count(*) FROM {s}.rejections"), 1);
}

#[test]
fn a_former_owner_writes_nothing() {
    let fixture = Fixture::new();
    let former = fixture.claim(0);
    let claim = fixture.claim(0);
    assert_ne!(former.owner, claim.owner);
    assert_eq!(fixture.store(&batch(&former, 5, vec![labelled("a", "negative")])), Stored::NotMoved);
    assert_eq!(fixture.labels(), Vec::<String>::new());
    assert!(matches!(fixture.store(&batch(&claim, 5, vec![labelled("a", "positive")])), Stored::Moved { .. }));
    assert_eq!(fixture.labels(), ["a=positive"]);
}

#[test]
fn a_batch_from_another_position_writes_nothing() {
    let fixture = Fixture::new();
    let mut claim = fixture.claim(0);
    claim.position = Position(7);
    assert_eq!(fixture.store(&batch(&claim, 5, vec![labelled("a", "positive")])), Stored::NotMoved);
    assert_eq!(fixture.database.number("SELECT count(*) FROM {s}.documents"), 0);
}

#[test]
fn the_newest_version_wins_across_partitions() {
    let fixture = Fixture::new();
    let (first, second) = (fixture.claim(0), fixture.claim(1));
    assert!(matches!(fixture.store(&batch(&first, 100, vec![labelled("a", "positive")])), Stored::Moved { .. }));
    assert!(matches!(fixture.store(&batch(&second, 99, vec![labelled("a", "negative")])), Stored::Moved { .. }));
    assert_eq!(fixture.labels(), ["a=positive"], "an older record replaced a newer one");
    let second = fixture.claim(1);
    assert!(matches!(fixture.store(&batch(&second, 101, vec![labelled("a", "negative")])), Stored::Moved { .. }));
    assert_eq!(fixture.labels(), ["a=negative"]);
}

#[test]
fn of_two_records_of_one_document_in_a_batch_the_last_counts() {
    let fixture = Fixture::new();
    let claim = fixture.claim(0);
    let outcomes = vec![labelled("a", "positive"), labelled("b", "positive"), labelled("a", "negative")];
    assert!(matches!(fixture.store(&batch(&claim, 5, outcomes)), Stored::Moved { .. }));
    assert_eq!(fixture.labels(), ["a=negative", "b=positive"]);
}

#[test]
fn a_deleted_document_stays_deleted_until_a_newer_record() {
    let fixture = Fixture::new();
    let (first, second) = (fixture.claim(0), fixture.claim(1));
    fixture.store(&batch(&first, 100, vec![labelled("a", "positive"), Outcome::Deleted { id: "a".into() }]));
    assert_eq!(fixture.labels(), Vec::<String>::new());
    fixture.store(&batch(&second, 50, vec![labelled("a", "negative")]));
    assert_eq!(fixture.labels(), Vec::<String>::new(), "an older record brought the document back");
    assert_eq!(fixture.database.number("SELECT count(*) FROM {s}.documents WHERE deleted"), 1);
    let second = fixture.claim(1);
    fixture.store(&batch(&second, 200, vec![labelled("a", "negative")]));
    assert_eq!(fixture.labels(), ["a=negative"]);
}

#[test]
fn a_label_of_an_older_version_does_not_count() {
    let fixture = Fixture::new();
    let claim = fixture.claim(0);
    fixture.store(&batch(&claim, 5, vec![labelled("a", "positive")]));
    let claim = fixture.claim(0);
    let unlabelled =
        Outcome::Labelled { attributes: Attributes { id: "a".into(), ..Attributes::default() }, labels: Vec::new() };
    fixture.store(&batch(&claim, 6, vec![unlabelled]));
    assert_eq!(fixture.labels(), Vec::<String>::new());
}

#[test]
fn a_row_that_postgres_refuses_is_told_apart_and_nothing_of_its_batch_is_written() {
    let fixture = Fixture::new();
    let claim = fixture.claim(0);
    let batch = batch(&claim, 5, vec![labelled("a", "positive"), labelled("b\0", "positive")]);
    let error = block_on(fixture.store.store(&batch)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::BadRow, "{error}");
    assert_eq!(fixture.labels(), Vec::<String>::new());
    assert_eq!(fixture.database.number("SELECT position FROM {s}.checkpoints"), 0);
}

#[test]
fn a_rejection_keeps_its_place_and_its_reason() {
    let fixture = Fixture::new();
    let claim = fixture.claim(3);
    let rejection = Rejection::new(Stage::Decode, "text_missing", "there is no text at `/t\0`");
    fixture.store(&batch(&claim, 5, vec![Outcome::Rejected(rejection)]));
    let rows = fixture.database.texts(
        "SELECT concat_ws('|', stream, topic, partition, \"offset\", stage, reason, message) FROM {s}.rejections",
    );
    assert_eq!(rows, ["reviews|topic|3|0|decode|text_missing|there is no text at `/t\u{fffd}`"]);
}

#[test]
fn a_batch_reads_the_labels_of_its_own_documents_alone() {
    const BATCHES: i64 = 300;
    let fixture = Fixture::new();
    // The server plans a statement for tables as they are analysed, and keeps the plan while they grow.
    fixture.statement("ALTER TABLE {s}.labels SET (autovacuum_enabled = off)");
    let mut claim = fixture.claim(0);
    for number in 0..BATCHES {
        // One in three replaces the labels of a document, one takes a document away, and one is new.
        let outcome = match number % 3 {
            0 => labelled("a", "positive"),
            1 => Outcome::Deleted { id: "b".into() },
            _ => labelled(&format!("d{number}"), "positive"),
        };
        assert!(matches!(fixture.store(&batch(&claim, number, vec![outcome])), Stored::Moved { .. }));
        claim.position.0 += 1;
    }
    // A session tells what it did when it ends.
    block_on(fixture.store.close());
    let told = |column: &str, of: &str| {
        fixture
            .database
            .number(&format!("SELECT coalesce({column}, 0) FROM {of} WHERE relid = '{{s}}.labels'::regclass"))
    };
    eventually("all batches are counted", || {
        let written = told("n_tup_ins + n_tup_upd", "pg_stat_all_tables");
        (written == BATCHES / 3 * 2).then_some(())
    });
    let read = told("idx_tup_read", "pg_stat_all_indexes") + told("seq_tup_read", "pg_stat_all_tables");
    assert!(read < BATCHES * 3, "{BATCHES} batches of one document read {read} labels");
}

#[test]
fn batches_that_share_documents_in_opposite_order_do_not_deadlock() {
    let fixture = Fixture::new();
    let ids: Vec<String> = (0..200).map(|index| format!("d{index}")).collect();
    for round in 0..10 {
        let (first, second) = (fixture.claim(0), fixture.claim(1));
        let forward = ids.iter().map(|id| labelled(id, "positive")).collect();
        let backward = ids.iter().rev().map(|id| labelled(id, "negative")).collect();
        // Either may fail on what the other one changed, and is then sent again.
        let (forward, backward) = (batch(&first, 10 + round, forward), batch(&second, 10 + round, backward));
        let stored =
            block_on(async { tokio::join!(deliver(&fixture.store, forward), deliver(&fixture.store, backward)) });
        assert!(matches!(stored, (Ok(Delivery::Stored { .. }), Ok(Delivery::Stored { .. }))), "{stored:?}");
    }
    assert_eq!(fixture.database.current_labels(), 200);
}

#[test]
fn the_first_to_initialise_a_checkpoint_decides() {
    let fixture = Fixture::new();
    block_on(async {
        fixture.store.initialise_checkpoints(STREAM, "topic", &start("a", &[(0, 5), (1, 6)])).await.unwrap();
        fixture.store.initialise_checkpoints(STREAM, "topic", &start("a", &[(0, 50), (2, 7)])).await.unwrap();
        let mut known = fixture.store.known_partitions(STREAM, "topic").await.unwrap();
        known.sort_unstable();
        assert_eq!(known, [0, 1, 2].map(|partition| (partition, Some("a".to_owned()))));
    });
    assert_eq!(fixture.claim(0).position, Position(5));
}

#[test]
fn a_partition_without_a_checkpoint_cannot_be_observed() {
    let fixture = Fixture::new();
    let key = PartitionKey { stream: STREAM.into(), topic: "other".into(), partition: 0 };
    assert_eq!(block_on(fixture.store.observe(&key)).unwrap(), None);
}

#[test]
fn partitions_by_month_are_made_by_many_at_once_and_old_ones_retired() {
    let fixture = Fixture::new();
    fixture.statement(
        "CREATE TABLE {s}.rejections_2020_01 PARTITION OF {s}.rejections FOR VALUES FROM ('2020-01-01') TO ('2020-02-01')",
    );
    // One that no partition takes.
    fixture.statement(
        "INSERT INTO {s}.rejections (stream, topic, partition, \"offset\", stage, reason, message, rejected_at)
         VALUES ('a', 'a', 0, 0, 'decode', 'a', 'a', '2021-01-01')",
    );
    let retention = std::time::Duration::from_hours(1);
    block_on(async {
        let (first, second) =
            tokio::join!(fixture.store.maintain_partitions(retention), fixture.store.maintain_partitions(retention));
        first.unwrap();
        second.unwrap();
    });
    let partitions = fixture.database.texts(
        "SELECT relname::text FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid WHERE inhparent = '{s}.rejections'::regclass",
    );
    // Two months, and the one for what has no other.
    assert_eq!(partitions.len(), 3, "{partitions:?}");
    assert_eq!(fixture.database.number("SELECT count(*) FROM {s}.rejections"), 0);
    assert!(!partitions.contains(&"rejections_2020_01".to_owned()));
}

#[test]
fn item_sentiment_has_bounds_around_its_mean_also_for_one_document() {
    let fixture = Fixture::new();
    let claim = fixture.claim(0);
    fixture.store(&batch(&claim, 5, vec![labelled("a", "positive")]));
    let row = fixture.database.texts(
        "SELECT concat_ws('|', item, documents, negative, positive, round(mean_score::numeric, 3), score_low < mean_score, score_high > mean_score, score_low >= -1, score_high <= 1) FROM {s}.item_sentiment",
    );
    assert_eq!(row, ["kettle|1|0|1|0.800|t|t|t|t"]);
}

#[test]
fn a_schema_of_a_newer_program_is_refused() {
    let fixture = Fixture::new();
    let schema = &fixture.database.schema;
    assert!(block_on(fixture.store.check_migrated(schema)).is_ok());
    fixture.statement("INSERT INTO {s}._sqlx_migrations VALUES (9999, 'later', now(), true, '', 0)");
    let error = block_on(fixture.store.check_migrated(schema)).unwrap_err().to_string();
    assert!(error.contains("migration 9999") && error.contains("upgrade"), "{error}");
}
