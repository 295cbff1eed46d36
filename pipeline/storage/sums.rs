//! Folds the changes that batches append into the sums of each item, so that neither grows without bound and a
//! popular item makes no batch wait.

use super::{
    StoreError,
    postgres::{Postgres, store_error},
};

/// Names the lock under which one worker a schema folds at a time; any number that nothing else here uses.
const FOLD_LOCK: i32 = 1;

/// Changes folded in one transaction. It takes milliseconds, and what is left waits for the next.
pub const FOLD_MAX: u32 = 20_000;

impl Postgres {
    /// Folds what has piled up, [`FOLD_MAX`] changes at most, unless another worker is at it. Returns the number of changes.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn fold_sums(&self) -> Result<u64, StoreError> {
        let failed = || store_error("fold the sums of items");
        // Not the sessions' own level: the second statement has to see what the fold before it did.
        let mut transaction = self.pool.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await.map_err(failed())?;
        let free: bool = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1, hashtext(current_schema()))")
            .bind(FOLD_LOCK)
            .fetch_one(&mut *transaction)
            .await
            .map_err(failed())?;
        if !free {
            return Ok(0);
        }
        let folded: i64 = sqlx::query_scalar(
            "WITH taken AS (
                 DELETE FROM item_deltas
                 WHERE ctid = ANY (ARRAY(SELECT ctid FROM item_deltas LIMIT $1))
                 RETURNING *
             ), folded AS (
                 MERGE INTO item_sums AS present
                 USING (
                     SELECT stream, item, task, model, label, sum(documents)::bigint AS documents,
                            sum(probability_millions)::bigint AS probability_millions
                     FROM taken
                     GROUP BY stream, item, task, model, label
                 ) AS change
                 ON present.stream = change.stream AND present.item = change.item AND present.task = change.task
                    AND present.model = change.model AND present.label = change.label
                 WHEN MATCHED AND present.documents + change.documents = 0
                              AND present.probability_millions + change.probability_millions = 0 THEN DELETE
                 WHEN MATCHED THEN UPDATE SET
                     documents = present.documents + change.documents,
                     probability_millions = present.probability_millions + change.probability_millions
                 WHEN NOT MATCHED THEN
                     INSERT (stream, item, task, model, label, documents, probability_millions)
                     VALUES (change.stream, change.item, change.task, change.model, change.label, change.documents,
                             change.probability_millions)
                 RETURNING present.item
             )
             SELECT count(*) FROM taken",
        )
        .bind(i64::from(FOLD_MAX))
        .fetch_one(&mut *transaction)
        .await
        .map_err(failed())?;
        transaction.commit().await.map_err(failed())?;
        Ok(u64::try_from(folded).unwrap_or_default())
    }
}
