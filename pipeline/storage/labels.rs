//! Writes a batch: one statement, which is one transaction and one round trip.
//!
//! Everything in the statement hangs on `fence`, which moves the checkpoint only for its owner and only
//! from where the batch begins. Rows are written in the order of their keys, so that two workers whose
//! batches share documents cannot deadlock; the document's row is locked before its labels are touched.
//!
//! What is published and what is summed follows from what was really stored: a record counts if its version is
//! newer than the one its document stood at. The sessions are `REPEATABLE READ`, so a document that another
//! transaction changes meanwhile fails the statement, which is sent again, instead of spoiling the sums.
//!
//! Earlier labels are looked up by document, in an order of joins that the statement prescribes: the server plans it when
//! the tables are empty, and a plan that reads all of them would stay for as long as they are not analysed.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chrono::{DateTime, Utc};
use sqlx::PgExecutor;

use super::{
    Batch, LabelStore, StoreError, Stored,
    postgres::{Postgres, store_error},
};
use crate::{
    domain::{
        checkpoint::{Observed, PartitionKey},
        document::{Attributes, Finished, Outcome},
        label::Label,
        live::{Destination, LiveFormat},
        version::Version,
    },
    model::folder::Model,
};

const STORE: &str = r#"
WITH fence AS (
    UPDATE checkpoints SET position = $6, timestamp_ms_max = $7, stored_at = now()
    WHERE stream = $1 AND topic = $2 AND partition = $3 AND owner = $4 AND position = $5
    RETURNING epoch
), moved AS (
    INSERT INTO documents AS present
        (stream, document_id, item, "user", rating, occurred_at, produced_at, language, version, deleted)
    SELECT $1, document_id, item, "user", rating, occurred_at, produced_at, language, version::bigint[], deleted
    FROM fence, unnest($8::text[], $9::text[], $10::text[], $11::double precision[], $12::timestamptz[],
                       $13::timestamptz[], $14::text[], $15::text[], $16::boolean[])
        AS incoming (document_id, item, "user", rating, occurred_at, produced_at, language, version, deleted)
    ORDER BY document_id
    ON CONFLICT (stream, document_id) DO UPDATE SET
        item = excluded.item, "user" = excluded."user", rating = excluded.rating,
        occurred_at = excluded.occurred_at, produced_at = excluded.produced_at,
        language = excluded.language, version = excluded.version, deleted = excluded.deleted, stored_at = now()
    WHERE present.version < excluded.version
    RETURNING document_id, version, deleted, item, old.version AS old_version, old.item AS old_item
), erased AS (
    DELETE FROM labels
    WHERE stream = $1 AND document_id = ANY (ARRAY(SELECT document_id FROM moved WHERE deleted))
), incoming AS (
    SELECT document_id, item, version, task, model, model_version, label, confidence,
           probabilities::real[] AS probabilities, depth, labelled_at
    FROM moved JOIN unnest($17::text[], $18::text[], $19::text[], $20::text[], $21::text[], $22::real[],
                           $23::text[], $24::smallint[], $25::timestamptz[])
        AS given (document_id, task, model, model_version, label, confidence, probabilities, depth, labelled_at)
        USING (document_id)
), labelled AS (
    INSERT INTO labels AS present
        (stream, document_id, task, model, model_version, label, confidence, probabilities, version, depth, labelled_at)
    SELECT $1, document_id, task, model, model_version, label, confidence, probabilities, version, depth, labelled_at
    FROM incoming
    ORDER BY document_id, task, model
    ON CONFLICT (stream, document_id, task, model) DO UPDATE SET
        model_version = excluded.model_version, label = excluded.label, confidence = excluded.confidence,
        probabilities = excluded.probabilities, version = excluded.version, depth = excluded.depth,
        labelled_at = excluded.labelled_at
    WHERE present.version < excluded.version
), changes AS (
    SELECT item, task, model, model_version, label, probabilities, 1 AS sign
    FROM incoming
    WHERE item IS NOT NULL
    UNION ALL
    SELECT moved.old_item, task, model, model_version, label, probabilities, -1
    FROM moved CROSS JOIN LATERAL (
        SELECT task, model, model_version, label, probabilities
        FROM labels
        WHERE stream = $1 AND document_id = moved.document_id AND version = moved.old_version
        OFFSET 0
    ) AS earlier
    WHERE moved.old_item IS NOT NULL
), summed AS (
    INSERT INTO item_deltas (stream, item, task, model, label, documents, probability_millions)
    SELECT $1, changes.item, changes.task, model, class.name,
           sum(CASE WHEN class.name = changes.label THEN sign ELSE 0 END),
           sum(sign * round(class.probability::double precision * 1000000)::bigint)
    FROM changes
    JOIN models USING (model, model_version)
    CROSS JOIN LATERAL unnest(models.labels, changes.probabilities) AS class (name, probability)
    GROUP BY changes.item, changes.task, model, class.name
    HAVING sum(CASE WHEN class.name = changes.label THEN sign ELSE 0 END) <> 0
        OR sum(sign * round(class.probability::double precision * 1000000)::bigint) <> 0
), forgotten AS (
    DELETE FROM rejected_records USING moved
    WHERE moved.deleted AND rejected_records.stream = $1
      AND rejected_records.key = convert_to(moved.document_id, 'UTF8')
), rejected AS (
    INSERT INTO rejections (stream, topic, partition, "offset", stage, reason, message, produced_at, version)
    SELECT $1, $2, $3, "offset", stage, reason, message, produced_at, version::bigint[]
    FROM fence, unnest($26::bigint[], $27::text[], $28::text[], $29::text[], $30::timestamptz[], $39::text[])
        AS incoming ("offset", stage, reason, message, produced_at, version)
), kept AS (
    INSERT INTO rejected_records (stream, topic, partition, "offset", key, value, headers, keep_until)
    SELECT $1, $2, $3, "offset", key, value, headers, now() + make_interval(secs => $44)
    FROM fence, unnest($40::bigint[], $41::bytea[], $42::bytea[], $43::text[]) AS incoming ("offset", key, value, headers)
    ON CONFLICT (stream, topic, partition, "offset") DO UPDATE SET
        key = excluded.key, value = excluded.value, headers = excluded.headers, keep_until = excluded.keep_until
), live AS (
    SELECT record.*
    FROM fence
    CROSS JOIN unnest($32::text[], $33::text[], $34::bigint[], $35::boolean[], $36::bytea[], $37::bytea[], $38::text[])
        WITH ORDINALITY
        AS record (document_id, version, "offset", dead_letter, key, payload, headers, number)
    LEFT JOIN moved USING (document_id)
    WHERE record.document_id IS NULL
       OR (moved.document_id IS NOT NULL
           AND (moved.old_version IS NULL
                OR moved.old_version < record.version::bigint[]))
), queued AS (
    INSERT INTO outbox (stream, topic, partition, epoch, range_start, range_end,
                        offsets, dead_letters, keys, payloads, headers, bytes)
    SELECT $1, $2, $3, fence.epoch, $5, $6,
           coalesce(array_agg(live."offset" ORDER BY number) FILTER (WHERE number IS NOT NULL), '{}'),
           coalesce(array_agg(dead_letter ORDER BY number) FILTER (WHERE number IS NOT NULL), '{}'),
           coalesce(array_agg(key ORDER BY number) FILTER (WHERE number IS NOT NULL), '{}'),
           coalesce(array_agg(payload ORDER BY number) FILTER (WHERE number IS NOT NULL), '{}'),
           coalesce(array_agg(headers ORDER BY number) FILTER (WHERE number IS NOT NULL), '{}'),
           coalesce(sum(coalesce(length(key), 0) + coalesce(length(payload), 0)), 0)
    FROM fence LEFT JOIN live ON true
    WHERE $31
    GROUP BY fence.epoch
    RETURNING bytes
)
SELECT (SELECT bytes FROM queued) FROM fence
"#;

impl LabelStore for Postgres {
    async fn store(&self, batch: &Batch) -> Result<Stored, StoreError> {
        store_in(&self.pool, batch).await
    }

    async fn observe(&self, key: &PartitionKey) -> Result<Option<Observed>, StoreError> {
        let state = self.stored_state(key).await?;
        Ok(state.map(|state| Observed { owner: state.owner, position: state.stored.position }))
    }
}

/// Sends the statement.
pub(super) async fn store_in(executor: impl PgExecutor<'_>, batch: &Batch) -> Result<Stored, StoreError> {
    let Batch { key, owner, epoch, advance, records, live, keep_records } = batch;
    let documents = DocumentRows::of(records);
    let labels = LabelRows::of(&documents);
    let rejections = RejectionRows::of(records);
    let kept = KeptRows::of(*keep_records, records);
    let live_rows = LiveRows::of(live.as_deref(), key, *epoch, records);
    let moved: Option<Option<i64>> = sqlx::query_scalar(STORE)
        .bind(&*key.stream)
        .bind(&*key.topic)
        .bind(key.partition)
        .bind(owner)
        .bind(advance.from.0)
        .bind(advance.to.0)
        .bind(advance.timestamp_ms_max)
        .bind(documents.column(|row| row.id))
        .bind(documents.column(|row| row.attributes.and_then(|attributes| attributes.item.as_deref())))
        .bind(documents.column(|row| row.attributes.and_then(|attributes| attributes.user.as_deref())))
        .bind(documents.column(|row| row.attributes.and_then(|attributes| attributes.rating)))
        .bind(documents.column(|row| row.attributes.and_then(|attributes| attributes.occurred_at)))
        .bind(documents.column(|row| row.record.produced_at))
        .bind(documents.column(|row| row.attributes.and_then(|attributes| attributes.language.as_deref())))
        .bind(documents.column(|row| array_literal(row.record.version)))
        .bind(documents.column(|row| row.attributes.is_none()))
        .bind(labels.document_ids)
        .bind(labels.tasks)
        .bind(labels.models)
        .bind(labels.model_versions)
        .bind(labels.labels)
        .bind(labels.confidences)
        .bind(labels.probabilities)
        .bind(labels.depths)
        .bind(labels.labelled_at)
        .bind(rejections.offsets)
        .bind(rejections.stages)
        .bind(rejections.reasons)
        .bind(rejections.messages)
        .bind(rejections.produced_at)
        .bind(live.is_some())
        .bind(live_rows.document_ids)
        .bind(live_rows.versions)
        .bind(live_rows.offsets)
        .bind(live_rows.dead_letters)
        .bind(live_rows.keys)
        .bind(live_rows.values)
        .bind(live_rows.headers)
        .bind(rejections.versions)
        .bind(kept.offsets)
        .bind(kept.keys)
        .bind(kept.values)
        .bind(kept.headers)
        .bind(keep_records.map_or(0.0, |lifetime| lifetime.as_secs_f64()))
        .fetch_optional(executor)
        .await
        .map_err(store_error("store a batch"))?;
    Ok(moved.map_or(Stored::NotMoved, |queued| Stored::Moved {
        queued_bytes: usize::try_from(queued.unwrap_or(0)).unwrap_or(usize::MAX),
    }))
}

impl Postgres {
    /// Makes the models known, and the first of each task the one whose labels the views show.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn register_models(&self, stream: &str, models: &[&Model]) -> Result<(), StoreError> {
        let failed = || store_error("register the models");
        // Not the sessions' own level: workers that start at once write the same rows.
        let mut transaction = self.pool.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await.map_err(failed())?;
        let mut promoted = BTreeMap::new();
        for model in models {
            promoted.entry(&*model.task).or_insert(&*model.name);
            let labels: Vec<&str> = model.labels.iter().map(|label| &**label).collect();
            sqlx::query(
                "INSERT INTO models (model, model_version, task, labels) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (model, model_version) DO UPDATE SET task = excluded.task, labels = excluded.labels",
            )
            .bind(&*model.name)
            .bind(&*model.version)
            .bind(&*model.task)
            .bind(labels)
            .execute(&mut *transaction)
            .await
            .map_err(failed())?;
        }
        for (task, model) in promoted {
            sqlx::query(
                "INSERT INTO promotions AS present (stream, task, model) VALUES ($1, $2, $3)
                 ON CONFLICT (stream, task) DO UPDATE SET model = excluded.model, promoted_at = now()
                 WHERE present.model <> excluded.model",
            )
            .bind(stream)
            .bind(task)
            .bind(model)
            .execute(&mut *transaction)
            .await
            .map_err(failed())?;
        }
        transaction.commit().await.map_err(failed())
    }
}

/// A version as the column holds it; Postgres takes arrays of arrays of unequal length only as text.
fn array_literal(version: Version) -> String {
    let Version { generation, timestamp_ms, partition, offset } = version;
    format!("{{{generation},{timestamp_ms},{partition},{offset}}}")
}

/// The documents of a batch. Where a document occurs twice only its last record counts: the records come
/// in the order of their versions, and one statement cannot write a row twice.
struct DocumentRows<'a>(Vec<DocumentRow<'a>>);

struct DocumentRow<'a> {
    id: &'a str,
    record: &'a Finished,
    /// `None` for a deletion.
    attributes: Option<&'a Attributes>,
    labels: &'a [Label],
}

impl<'a> DocumentRows<'a> {
    fn of(records: &'a [Finished]) -> Self {
        let mut latest = BTreeMap::new();
        for record in records {
            let row = match &record.outcome {
                Outcome::Labelled { attributes, labels } => {
                    DocumentRow { id: &attributes.id, record, attributes: Some(attributes), labels }
                }
                Outcome::Deleted { id } => DocumentRow { id, record, attributes: None, labels: &[] },
                Outcome::Rejected(_) => continue,
            };
            latest.insert(row.id, row);
        }
        Self(latest.into_values().collect())
    }

    fn column<T>(&self, value: impl Fn(&DocumentRow<'a>) -> T) -> Vec<T> {
        self.0.iter().map(value).collect()
    }
}

#[derive(Default)]
struct LabelRows<'a> {
    document_ids: Vec<&'a str>,
    tasks: Vec<&'a str>,
    models: Vec<&'a str>,
    model_versions: Vec<&'a str>,
    labels: Vec<&'a str>,
    confidences: Vec<f32>,
    /// As array literals: arrays of unequal length cannot be unnested.
    probabilities: Vec<String>,
    depths: Vec<i16>,
    labelled_at: Vec<DateTime<Utc>>,
}

impl<'a> LabelRows<'a> {
    fn of(documents: &DocumentRows<'a>) -> Self {
        let mut rows = Self::default();
        for document in &documents.0 {
            for label in document.labels {
                rows.document_ids.push(document.id);
                rows.tasks.push(&label.task);
                rows.models.push(&label.model);
                rows.model_versions.push(&label.model_version);
                rows.labels.push(&label.label);
                rows.confidences.push(label.confidence.clamp(0.0, 1.0));
                let values: Vec<String> = label.probabilities.iter().map(ToString::to_string).collect();
                rows.probabilities.push(format!("{{{}}}", values.join(",")));
                rows.depths.push(i16::try_from(label.depth).unwrap_or(i16::MAX));
                rows.labelled_at.push(document.record.labelled_at);
            }
        }
        rows
    }
}

#[derive(Default)]
struct RejectionRows<'a> {
    offsets: Vec<i64>,
    stages: Vec<&'a str>,
    reasons: Vec<&'a str>,
    /// Without NUL, which Postgres cannot store and a parser's message may quote.
    messages: Vec<String>,
    produced_at: Vec<Option<DateTime<Utc>>>,
    versions: Vec<String>,
}

impl<'a> RejectionRows<'a> {
    fn of(records: &'a [Finished]) -> Self {
        let mut rows = Self::default();
        for record in records {
            let Outcome::Rejected(rejection) = &record.outcome else { continue };
            rows.offsets.push(record.offset);
            rows.stages.push(rejection.stage.as_str());
            rows.reasons.push(rejection.reason);
            rows.messages.push(rejection.message.replace('\0', "\u{fffd}"));
            rows.produced_at.push(record.produced_at);
            rows.versions.push(array_literal(record.version));
        }
        rows
    }
}

/// Rejected records as they came, of streams that keep them.
#[derive(Default)]
struct KeptRows {
    offsets: Vec<i64>,
    keys: Vec<Option<Vec<u8>>>,
    values: Vec<Option<Vec<u8>>>,
    headers: Vec<String>,
}

impl KeptRows {
    /// Not those whose document a later record of the batch deletes: the statement does not see its own rows.
    fn of(keep_records: Option<Duration>, records: &[Finished]) -> Self {
        let mut rows = Self::default();
        if keep_records.is_none() {
            return rows;
        }
        let mut deleted = BTreeSet::new();
        for record in records.iter().rev() {
            match (&record.outcome, &record.record) {
                (Outcome::Deleted { id }, _) => {
                    deleted.insert(id.as_bytes());
                }
                (Outcome::Rejected(_), Some(source))
                    if source.key.as_ref().is_none_or(|key| !deleted.contains(key.as_slice())) =>
                {
                    rows.offsets.push(record.offset);
                    rows.keys.push(source.key.clone());
                    rows.values.push(source.value.clone());
                    rows.headers.push(serde_json::json!(source.headers).to_string());
                }
                _ => {}
            }
        }
        rows
    }
}

/// The live records of a batch; the statement keeps those whose document was moved by them.
#[derive(Default)]
struct LiveRows<'a> {
    /// `None` for a dead letter, which goes out whatever its document.
    document_ids: Vec<Option<&'a str>>,
    versions: Vec<String>,
    offsets: Vec<i64>,
    dead_letters: Vec<bool>,
    keys: Vec<Option<Vec<u8>>>,
    values: Vec<Option<Vec<u8>>>,
    headers: Vec<String>,
}

impl<'a> LiveRows<'a> {
    fn of(live: Option<&LiveFormat>, key: &PartitionKey, epoch: i64, records: &'a [Finished]) -> Self {
        let mut rows = Self::default();
        let Some(live) = live else { return rows };
        for finished in records {
            let document_id = match &finished.outcome {
                Outcome::Labelled { attributes, .. } => Some(attributes.id.as_str()),
                Outcome::Deleted { id } => Some(id.as_str()),
                Outcome::Rejected(_) => None,
            };
            for record in live.records(key, epoch, finished) {
                rows.document_ids.push(document_id);
                rows.versions.push(array_literal(finished.version));
                rows.offsets.push(record.offset);
                rows.dead_letters.push(record.destination == Destination::DeadLetters);
                rows.keys.push(record.key);
                rows.values.push(record.value);
                rows.headers.push(serde_json::json!(record.headers).to_string());
            }
        }
        rows
    }
}
