//! Compares what was sent, stored and seen, and says of every difference what it is.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::Row;

use super::ledger::{Kind, Ledger};
use crate::support::{database::Database, subscriber::Seen};

/// What a run did beyond killing, which changes what may be expected.
#[derive(Debug, Default, Clone, Copy)]
pub struct Expectations {
    /// Ranges were stored again after a restore: only what was seen counts, once.
    pub restored: bool,
    /// Keys moved to other partitions: an older record may come late, and is then not stored.
    pub repartitioned: bool,
}

/// A record of the outbox as it was stored.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct StoredRecord {
    partition: i32,
    epoch: i64,
    offset: i64,
    dead_letter: bool,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
}

/// Keeps every range that is stored, in the transaction that stores it.
pub fn keep_history(database: &Database) {
    database.rows("CREATE TABLE {s}.outbox_history (LIKE {s}.outbox INCLUDING DEFAULTS)");
    database.rows("ALTER TABLE {s}.outbox_history ADD COLUMN number bigserial");
    database.rows(
        "CREATE FUNCTION {s}.keep_outbox() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             INSERT INTO {s}.outbox_history SELECT NEW.*;
             RETURN NULL;
         END $$",
    );
    database
        .rows("CREATE TRIGGER keep_outbox AFTER INSERT ON {s}.outbox FOR EACH ROW EXECUTE FUNCTION {s}.keep_outbox()");
}

fn history(database: &Database) -> Vec<StoredRecord> {
    database
        .rows(
            "SELECT partition, epoch, record.offset, record.dead_letter, record.key, record.payload
             FROM {s}.outbox_history
             CROSS JOIN LATERAL unnest(offsets, dead_letters, keys, payloads) WITH ORDINALITY
                 AS record (\"offset\", dead_letter, key, payload, ordinal)
             ORDER BY number, ordinal",
        )
        .iter()
        .map(|row| StoredRecord {
            partition: row.get(0),
            epoch: row.get(1),
            offset: row.get(2),
            dead_letter: row.get(3),
            key: row.get(4),
            value: row.get(5),
        })
        .collect()
}

/// Number of records the outbox ever held, each place once.
pub fn stored_records(database: &Database) -> usize {
    let places: BTreeSet<_> = history(database)
        .into_iter()
        .map(|record| (record.partition, record.epoch, record.offset, record.dead_letter, record.key))
        .collect();
    places.len()
}

/// Everything that is wrong.
pub fn differences(database: &Database, ledger: &Ledger, seen: &[Seen], expected: Expectations) -> Vec<String> {
    let mut wrong = Vec::new();
    compare_live(&history(database), seen, expected, &mut wrong);
    compare_order(seen, &mut wrong);
    compare_sent(ledger, seen, expected, &mut wrong);
    compare_states(database, ledger, &mut wrong);
    compare_sums(database, &mut wrong);
    wrong
}

/// The live topic against what was stored: the same records, each once.
fn compare_live(stored: &[StoredRecord], seen: &[Seen], expected: Expectations, wrong: &mut Vec<String>) {
    let strip = |record: &StoredRecord| {
        // After a restore a label is computed again, at another time.
        let value = if expected.restored { None } else { record.value.clone() };
        StoredRecord { value, ..record.clone() }
    };
    let mut stored_counts: BTreeMap<StoredRecord, usize> = BTreeMap::new();
    for record in stored {
        *stored_counts.entry(strip(record)).or_default() += 1;
    }
    let mut seen_counts: BTreeMap<StoredRecord, usize> = BTreeMap::new();
    for record in seen {
        let record = StoredRecord {
            partition: record.position.key.partition,
            epoch: record.position.epoch,
            offset: record.position.offset,
            dead_letter: record.topic.ends_with(".dead-letters"),
            key: record.key.clone(),
            value: record.value.clone(),
        };
        *seen_counts.entry(strip(&record)).or_default() += 1;
    }
    for (record, count) in &stored_counts {
        let times = seen_counts.get(record).copied().unwrap_or_default();
        if times == 0 {
            wrong.push(format!("LOST: stored and never seen: {}", place(record)));
        }
        if *count > 1 && !expected.restored {
            wrong.push(format!("TWICE: stored {count} times: {}", place(record)));
        }
    }
    for (record, times) in &seen_counts {
        if *times > 1 {
            wrong.push(format!("TWICE: seen {times} times: {}", place(record)));
        }
        if !stored_counts.contains_key(record) {
            wrong.push(format!("INVENTED: seen and never stored: {}", place(record)));
        }
    }
}

fn place(record: &StoredRecord) -> String {
    let key = record.key.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
    format!("partition {}, epoch {}, offset {}, key {key}", record.partition, record.epoch, record.offset)
}

/// In each live partition the records of a source partition come in the order of the source.
fn compare_order(seen: &[Seen], wrong: &mut Vec<String>) {
    let mut last: BTreeMap<(&str, i32, i32), (i64, i64)> = BTreeMap::new();
    for record in seen {
        let position = (record.position.epoch, record.position.offset);
        let previous = last.insert((&record.topic, record.partition, record.position.key.partition), position);
        if previous.is_some_and(|previous| previous > position) {
            wrong.push(format!("ORDER: {position:?} after {previous:?} on {} {}", record.topic, record.partition));
        }
    }
}

/// What was sent against what was seen: each update one label, each bad record one dead letter, each deletion one
/// tombstone.
fn compare_sent(ledger: &Ledger, seen: &[Seen], expected: Expectations, wrong: &mut Vec<String>) {
    let is_dead = |record: &&Seen| record.topic.ends_with(".dead-letters");
    let labels = seen.iter().filter(|record| !is_dead(record) && record.value.is_some());
    let mut updates: BTreeMap<usize, usize> = BTreeMap::new();
    for number in labels.filter_map(Seen::update) {
        *updates.entry(number).or_default() += 1;
    }
    for number in ledger.numbers(Kind::Update) {
        match updates.get(&number) {
            Some(1) => {}
            Some(times) => wrong.push(format!("TWICE: update {number} has {times} labels")),
            None if expected.repartitioned => {}
            None => wrong.push(format!("LOST: update {number} has no label")),
        }
    }
    let bad = seen.iter().filter(is_dead).count();
    let sent = ledger.numbers(Kind::Bad).len();
    if bad != sent {
        wrong.push(format!("{sent} bad records were sent, {bad} dead letters seen"));
    }
    let tombstones = seen.iter().filter(|record| !is_dead(record) && record.value.is_none()).count();
    let deletions = ledger.numbers(Kind::Deletion).len();
    if tombstones != deletions && !(expected.repartitioned && tombstones < deletions) {
        wrong.push(format!("{deletions} deletions were sent, {tombstones} tombstones seen"));
    }
}

/// The database against the last state that was sent of each document.
fn compare_states(database: &Database, ledger: &Ledger, wrong: &mut Vec<String>) {
    let rows = database.rows(
        "SELECT documents.document_id, documents.rating, documents.deleted, count(current_labels.*)
         FROM {s}.documents LEFT JOIN {s}.current_labels USING (stream, document_id)
         GROUP BY stream, documents.document_id, documents.rating, documents.deleted",
    );
    let mut states: BTreeMap<String, (Option<usize>, i64)> = rows
        .iter()
        .map(|row| {
            let deleted: bool = row.get(2);
            let rating: Option<f64> = row.get(1);
            (row.get(0), (rating.filter(|_| !deleted).map(|number| number as usize), row.get(3)))
        })
        .collect();
    for (id, last) in ledger.last_states() {
        let found = states.remove(&id);
        let expected = Some((last, i64::from(last.is_some())));
        if found != expected {
            wrong.push(format!("document {id} stands at {found:?}, not at {expected:?} (update, labels)"));
        }
    }
    wrong.extend(states.keys().map(|id| format!("document {id} was never sent")));
}

/// The sums of the items against a recount.
fn compare_sums(database: &Database, wrong: &mut Vec<String>) {
    wrong.extend(database.differences_from_a_recount().into_iter().map(|row| format!("SUMS: {row}")));
}
