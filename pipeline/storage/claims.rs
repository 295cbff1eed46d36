//! The claims on a stream's partitions, as rows of `checkpoints`.

use std::sync::Arc;

use uuid::Uuid;

use super::{
    StoreError,
    postgres::{Postgres, store_error},
};
use crate::domain::{
    checkpoint::{Claim, PartitionKey, Position, TopicStart},
    live::Published,
};

impl Postgres {
    /// Partitions of a stream's topic that have a checkpoint, each with the id of the topic it belongs to.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn known_partitions(&self, stream: &str, topic: &str) -> Result<Vec<(i32, Option<String>)>, StoreError> {
        sqlx::query_as("SELECT partition, topic_id FROM checkpoints WHERE stream = $1 AND topic = $2")
            .bind(stream)
            .bind(topic)
            .fetch_all(&self.pool)
            .await
            .map_err(store_error("read the checkpoints"))
    }

    /// Gives partitions a checkpoint at these positions. Whoever comes first decides: one that is there keeps its
    /// position, unless it belongs to a topic of another id; then it begins a new generation and epoch.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn initialise_checkpoints(
        &self,
        stream: &str,
        topic: &str,
        start: &TopicStart,
    ) -> Result<(), StoreError> {
        let (partitions, positions): (Vec<i32>, Vec<i64>) =
            start.positions.iter().map(|(partition, position)| (*partition, position.0)).unzip();
        // A checkpoint from before topic ids were recorded belongs to the topic that is there now.
        sqlx::query(
            "WITH adopted AS (
                 UPDATE checkpoints SET topic_id = $5
                 WHERE stream = $1 AND topic = $2 AND topic_id IS NULL AND $5::text IS NOT NULL
             )
             INSERT INTO checkpoints AS present (stream, topic, partition, position, topic_id)
             SELECT $1, $2, start.partition, start.position, $5
             FROM unnest($3::integer[], $4::bigint[]) AS start (partition, position)
             ORDER BY start.partition
             ON CONFLICT (stream, topic, partition) DO UPDATE SET
                 position = excluded.position, topic_id = excluded.topic_id, owner = NULL, stored_at = NULL,
                 generation = present.generation + 1, epoch = present.epoch + 1
             WHERE present.topic_id <> excluded.topic_id",
        )
        .bind(stream)
        .bind(topic)
        .bind(partitions)
        .bind(positions)
        .bind(start.topic_id.as_deref())
        .execute(&self.pool)
        .await
        .map_err(store_error("write the first checkpoints"))?;
        Ok(())
    }

    /// Makes fresh owners the only ones who may move these partitions' checkpoints.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn claim(
        &self,
        stream: &Arc<str>,
        topic: &Arc<str>,
        partitions: &[i32],
    ) -> Result<Vec<Claim>, StoreError> {
        let owners: Vec<Uuid> = partitions.iter().map(|_| Uuid::new_v4()).collect();
        // Rows are locked in one order first, so that two workers that claim at once cannot deadlock.
        let rows: Vec<(i32, Uuid, i64, i64, i64, i64, bool)> = sqlx::query_as(
            "WITH locked AS MATERIALIZED (
                 SELECT checkpoints.partition, claimed.owner
                 FROM checkpoints
                 JOIN unnest($3::integer[], $4::uuid[]) AS claimed (partition, owner) USING (partition)
                 WHERE stream = $1 AND topic = $2
                 ORDER BY checkpoints.partition
                 FOR UPDATE OF checkpoints
             )
             UPDATE checkpoints SET owner = locked.owner, claimed_at = now()
             FROM locked
             WHERE stream = $1 AND topic = $2 AND checkpoints.partition = locked.partition
             RETURNING checkpoints.partition, checkpoints.owner, position, epoch, generation, timestamp_ms_max,
                       checkpoints.stored_at IS NULL",
        )
        .bind(&**stream)
        .bind(&**topic)
        .bind(partitions)
        .bind(owners)
        .fetch_all(&self.pool)
        .await
        .map_err(store_error("claim partitions"))?;
        Ok(rows
            .into_iter()
            .map(|(partition, owner, position, epoch, generation, timestamp_ms_max, is_fresh)| Claim {
                key: PartitionKey { stream: stream.clone(), topic: topic.clone(), partition },
                owner,
                position: Position(position),
                epoch,
                generation,
                timestamp_ms_max,
                is_fresh,
            })
            .collect())
    }

    /// Moves a checkpoint to where an operator wants reading to go on: in a new epoch and without an owner, so that
    /// the worker that has the partition stores nothing more under its claim, and claims again. `topic_id` is that
    /// of the topic that is there now; another one than the checkpoint's begins a new generation. Returns the new
    /// checkpoint, or `None` where its epoch is not `epoch` any more: somebody else moved it.
    ///
    /// What is read again is not newer than what was stored of it: the running maximum of the timestamps goes back to
    /// the least that a document has which was stored from there on. That is at least what it was there, so that no
    /// later record is taken for an older one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn move_checkpoint(
        &self,
        key: &PartitionKey,
        epoch: i64,
        to: Position,
        topic_id: Option<&str>,
    ) -> Result<Option<Published>, StoreError> {
        let failed = || store_error("move the checkpoint");
        // Not the sessions' own level: a worker that stores meanwhile must not fail the update.
        let mut transaction = self.pool.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await.map_err(failed())?;
        let timestamp_ms_max: Option<i64> = sqlx::query_scalar(
            "SELECT coalesce(min(documents.version[2]), min(checkpoints.timestamp_ms_max))
             FROM checkpoints
             LEFT JOIN documents ON documents.stream = checkpoints.stream
                 AND documents.version[1] = generation AND documents.version[3] = partition
                 AND documents.version[4] >= $4
             WHERE checkpoints.stream = $1 AND topic = $2 AND partition = $3",
        )
        .bind(&*key.stream)
        .bind(&*key.topic)
        .bind(key.partition)
        .bind(to.0)
        .fetch_one(&mut *transaction)
        .await
        .map_err(failed())?;
        let moved: Option<(i64, i64)> = sqlx::query_as(
            "UPDATE checkpoints SET
                 owner = NULL, epoch = epoch + 1, position = $5,
                 timestamp_ms_max = least(timestamp_ms_max, $6),
                 generation = generation + CASE WHEN topic_id <> $7 THEN 1 ELSE 0 END,
                 topic_id = coalesce($7, topic_id)
             WHERE stream = $1 AND topic = $2 AND partition = $3 AND epoch = $4
             RETURNING epoch, position",
        )
        .bind(&*key.stream)
        .bind(&*key.topic)
        .bind(key.partition)
        .bind(epoch)
        .bind(to.0)
        .bind(timestamp_ms_max)
        .bind(topic_id)
        .fetch_optional(&mut *transaction)
        .await
        .map_err(failed())?;
        transaction.commit().await.map_err(failed())?;
        Ok(moved.map(|(epoch, position)| Published { epoch, position: Position(position) }))
    }
}
