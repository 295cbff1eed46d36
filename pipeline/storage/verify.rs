//! Recounts and compares what is stored, and rebuilds the sums from a recount.
//!
//! Guarantee: all checks of one [`Snapshot`] see one state of the database, and lock out nobody. Rebuilding locks
//! out the folding of sums for as long as it takes, and no batch: what is stored meanwhile is not in the recount, and
//! its changes stay.

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, Transaction};

use super::{
    StoreError, inspect,
    postgres::{Postgres, store_error},
};
use crate::domain::{live::Published, standing::StoreStanding, verification::Deviations};

/// What each model says of each item, counted from documents and labels; `$1` is a stream, or null for all.
const RECOUNT: &str = "
SELECT documents.stream, documents.item, labels.task, labels.model, class.name AS label,
       count(*) FILTER (WHERE class.name = labels.label) AS documents,
       sum(round(class.probability::double precision * 1000000)::bigint)::bigint AS probability_millions
FROM documents
JOIN labels ON labels.stream = documents.stream
    AND labels.document_id = documents.document_id
    AND labels.version = documents.version
JOIN models USING (model, model_version)
CROSS JOIN LATERAL unnest(models.labels, labels.probabilities) AS class (name, probability)
WHERE documents.item IS NOT NULL AND NOT documents.deleted AND ($1::text IS NULL OR documents.stream = $1)
GROUP BY documents.stream, documents.item, labels.task, labels.model, class.name
";

/// Sums that a view shows and a recount does not, or the other way round.
const SUMS: &str = "
SELECT format('stream `%s`, item `%s`, task `%s`, model `%s`, label `%s`: summed %s documents and %s millionths, counted %s and %s',
              stream, item, task, model, label,
              coalesce(summed.documents, 0), coalesce(summed.probability_millions, 0),
              coalesce(counted.documents, 0), coalesce(counted.probability_millions, 0)),
       count(*) OVER ()
FROM (SELECT * FROM item_labels WHERE $1::text IS NULL OR stream = $1) AS summed
FULL JOIN counted USING (stream, item, task, model, label)
WHERE coalesce(summed.documents, 0) <> coalesce(counted.documents, 0)
   OR coalesce(summed.probability_millions, 0) <> coalesce(counted.probability_millions, 0)
ORDER BY stream, item, task, model, label
LIMIT $2
";

/// Documents and labels that no order of batches can have left behind. A label may be older than its document: its
/// model runs no more. A document with an offset at or beyond the checkpoint can only come from an epoch before.
const LABELS: &str = "
SELECT format('stream `%s`, document `%s`: %s', stream, document_id, problem), count(*) OVER ()
FROM (
    SELECT labels.stream, labels.document_id,
           CASE
               WHEN documents.document_id IS NULL THEN format('the label of model `%s` has no document', labels.model)
               WHEN documents.deleted THEN format('is deleted, and has a label of model `%s`', labels.model)
               WHEN labels.version > documents.version
                   THEN format('the label of model `%s` is newer (%s) than the document (%s)', labels.model, labels.version, documents.version)
               WHEN models.model IS NULL
                   THEN format('the label''s model `%s` of version `%s` is not registered', labels.model, labels.model_version)
               WHEN cardinality(models.labels) <> cardinality(labels.probabilities)
                   THEN format('the label of model `%s` has %s probabilities for %s classes', labels.model,
                               cardinality(labels.probabilities), cardinality(models.labels))
           END AS problem
    FROM labels
    LEFT JOIN documents USING (stream, document_id)
    LEFT JOIN models ON models.model = labels.model AND models.model_version = labels.model_version
    WHERE $1::text IS NULL OR labels.stream = $1
    UNION ALL
    SELECT stream, document_id, 'has no label of its version'
    FROM documents
    WHERE NOT deleted AND ($1::text IS NULL OR stream = $1)
      AND NOT EXISTS (
          SELECT FROM labels
          WHERE labels.stream = documents.stream AND labels.document_id = documents.document_id
            AND labels.version = documents.version
      )
    UNION ALL
    SELECT stream, document_id, format('its version %s lies beyond what the checkpoint says is stored', version)
    FROM documents
    WHERE ($1::text IS NULL OR stream = $1)
      AND NOT EXISTS (
          SELECT FROM checkpoints
          WHERE checkpoints.stream = documents.stream AND checkpoints.partition = documents.version[3]
            AND (checkpoints.epoch > 1 OR checkpoints.position > documents.version[4])
      )
) AS found
WHERE problem IS NOT NULL
ORDER BY stream, document_id, problem
LIMIT $2
";

/// Ranges of the outbox that no order of batches can have left behind.
const OUTBOX: &str = "
SELECT format('stream `%s`, topic `%s`, partition %s, epoch %s: %s', stream, topic, partition, epoch, problem),
       count(*) OVER ()
FROM (
    SELECT ranges.stream, ranges.topic, ranges.partition, ranges.epoch, range_start, problem
    FROM (
        SELECT *, lag(range_end) OVER (PARTITION BY stream, topic, partition, epoch ORDER BY range_start) AS end_before
        FROM outbox
        WHERE $1::text IS NULL OR stream = $1
    ) AS ranges
    LEFT JOIN checkpoints USING (stream, topic, partition)
    CROSS JOIN LATERAL (VALUES
        (CASE WHEN range_start > end_before
              THEN format('offsets %s to %s are missing between two ranges', end_before, range_start) END),
        (CASE WHEN range_start < end_before
              THEN format('the range from %s overlaps the one before it, which ends at %s', range_start, end_before) END),
        (CASE WHEN checkpoints.epoch IS NULL THEN format('the range from %s has no checkpoint', range_start)
              WHEN (ranges.epoch, range_end) > (checkpoints.epoch, position)
              THEN format('the range from %s to %s lies beyond the checkpoint at %s of epoch %s', range_start, range_end,
                          position, checkpoints.epoch) END),
        (CASE WHEN NOT (cardinality(offsets) = cardinality(dead_letters) AND cardinality(offsets) = cardinality(keys)
                        AND cardinality(offsets) = cardinality(payloads) AND cardinality(offsets) = cardinality(headers))
              THEN format('the columns of the range from %s differ in length', range_start)
              WHEN offsets[1] < range_start OR offsets[cardinality(offsets)] >= range_end
              THEN format('the range from %s to %s holds records of other offsets', range_start, range_end) END)
    ) AS checked (problem)
    WHERE problem IS NOT NULL
) AS found
ORDER BY stream, topic, partition, epoch, range_start, problem
LIMIT $2
";

/// One state of the database, read by several checks.
pub struct Snapshot {
    transaction: Transaction<'static, sqlx::Postgres>,
}

/// What a rebuild did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebuilt {
    /// Rows of `item_sums` that were written.
    pub sums: u64,
    /// Rows of `item_deltas` that they made superfluous.
    pub deltas: u64,
}

impl Postgres {
    /// Begins to read one state of the database: that of the first question.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let transaction = self
            .pool
            .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .await
            .map_err(store_error("begin to verify"))?;
        Ok(Snapshot { transaction })
    }

    /// Replaces the sums of a stream, or of all, by a recount.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is changed then.
    pub async fn rebuild_sums(&self, stream: Option<&str>) -> Result<Rebuilt, StoreError> {
        let failed = || store_error("rebuild the sums of items");
        let mut transaction = self.pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ").await.map_err(failed())?;
        // Before the first query, which takes the snapshot: a fold that ends while this waits has to be in it.
        sqlx::query("LOCK TABLE item_sums IN SHARE ROW EXCLUSIVE MODE")
            .execute(&mut *transaction)
            .await
            .map_err(failed())?;
        let deltas = sqlx::query("DELETE FROM item_deltas WHERE $1::text IS NULL OR stream = $1")
            .bind(stream)
            .execute(&mut *transaction)
            .await
            .map_err(failed())?;
        sqlx::query("DELETE FROM item_sums WHERE $1::text IS NULL OR stream = $1")
            .bind(stream)
            .execute(&mut *transaction)
            .await
            .map_err(failed())?;
        let insert = format!(
            "INSERT INTO item_sums (stream, item, task, model, label, documents, probability_millions)
             SELECT * FROM ({RECOUNT}) AS counted WHERE documents <> 0 OR probability_millions <> 0"
        );
        let sums = sqlx::query(AssertSqlSafe(insert)).bind(stream).execute(&mut *transaction).await.map_err(failed())?;
        transaction.commit().await.map_err(failed())?;
        Ok(Rebuilt { sums: sums.rows_affected(), deltas: deltas.rows_affected() })
    }
}

impl Snapshot {
    /// As [`Postgres::standings`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn standings(
        &mut self,
        stream: &str,
        topic: &str,
        published: &[(i32, Published)],
    ) -> Result<BTreeMap<i32, StoreStanding>, StoreError> {
        inspect::standings(&mut *self.transaction, stream, topic, published).await
    }

    /// Where the view `item_labels` differs from a recount.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn sums(&mut self, stream: Option<&str>) -> Result<Deviations, StoreError> {
        self.deviations("recount the sums of items", format!("WITH counted AS ({RECOUNT}) {SUMS}"), stream).await
    }

    /// Documents and labels that do not belong together, or to their checkpoint.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn labels(&mut self, stream: Option<&str>) -> Result<Deviations, StoreError> {
        self.deviations("compare documents and labels", LABELS.to_owned(), stream).await
    }

    /// Ranges of the outbox with gaps between them, or beyond their checkpoint.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn outbox(&mut self, stream: Option<&str>) -> Result<Deviations, StoreError> {
        self.deviations("check the outbox", OUTBOX.to_owned(), stream).await
    }

    async fn deviations(
        &mut self,
        action: &'static str,
        query: String,
        stream: Option<&str>,
    ) -> Result<Deviations, StoreError> {
        let rows: Vec<(String, i64)> = sqlx::query_as(AssertSqlSafe(query))
            .bind(stream)
            .bind(Deviations::SHOWN_MAX as i64)
            .fetch_all(&mut *self.transaction)
            .await
            .map_err(store_error(action))?;
        let total = rows.first().map_or(0, |(_, total)| usize::try_from(*total).unwrap_or(usize::MAX));
        Ok(Deviations::of(total, rows.into_iter().map(|(text, _)| text)))
    }
}
