//! The claims on a stream's partitions, as rows of `checkpoints`.

use std::sync::Arc;

use uuid::Uuid;

use super::{
    StoreError,
    postgres::{Postgres, store_error},
};
use crate::domain::checkpoint::{Claim, Observed, PartitionKey, Position};

impl Postgres {
    /// Partitions of a stream's topic that have a checkpoint.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn known_partitions(&self, stream: &str, topic: &str) -> Result<Vec<i32>, StoreError> {
        sqlx::query_scalar("SELECT partition FROM checkpoints WHERE stream = $1 AND topic = $2")
            .bind(stream)
            .bind(topic)
            .fetch_all(&self.pool)
            .await
            .map_err(store_error("read the checkpoints"))
    }

    /// Gives partitions a checkpoint at these positions. Whoever comes first decides; others keep theirs.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn initialise_checkpoints(
        &self,
        stream: &str,
        topic: &str,
        starts: &[(i32, Position)],
    ) -> Result<(), StoreError> {
        let (partitions, positions): (Vec<i32>, Vec<i64>) =
            starts.iter().map(|(partition, position)| (*partition, position.0)).unzip();
        sqlx::query(
            "INSERT INTO checkpoints (stream, topic, partition, position)
             SELECT $1, $2, start.partition, start.position
             FROM unnest($3::integer[], $4::bigint[]) AS start (partition, position)
             ORDER BY start.partition
             ON CONFLICT DO NOTHING",
        )
        .bind(stream)
        .bind(topic)
        .bind(partitions)
        .bind(positions)
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
        let rows: Vec<(i32, Uuid, i64, i64, i64)> = sqlx::query_as(
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
             RETURNING checkpoints.partition, checkpoints.owner, position, generation, timestamp_ms_max",
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
            .map(|(partition, owner, position, generation, timestamp_ms_max)| Claim {
                key: PartitionKey { stream: stream.clone(), topic: topic.clone(), partition },
                owner,
                position: Position(position),
                generation,
                timestamp_ms_max,
            })
            .collect())
    }

    pub(super) async fn observe_checkpoint(&self, key: &PartitionKey) -> Result<Option<Observed>, StoreError> {
        let row: Option<(Option<Uuid>, i64)> = sqlx::query_as(
            "SELECT owner, position FROM checkpoints WHERE stream = $1 AND topic = $2 AND partition = $3",
        )
        .bind(&*key.stream)
        .bind(&*key.topic)
        .bind(key.partition)
        .fetch_optional(&self.pool)
        .await
        .map_err(store_error("read the checkpoint"))?;
        Ok(row.map(|(owner, position)| Observed { owner, position: Position(position) }))
    }
}
