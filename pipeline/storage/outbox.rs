//! The outbox as the publisher reads it: what was stored, in order, until it is published.

use chrono::{DateTime, Utc};

use super::{
    ErrorKind, StoreError,
    postgres::{Postgres, store_error},
};
use crate::domain::{
    checkpoint::{PartitionKey, Position},
    live::{Destination, Headers, LiveRecord, OutboxRange, Published},
    publication::StoredState,
};

/// One row of the table.
#[derive(sqlx::FromRow)]
struct Row {
    epoch: i64,
    range_start: i64,
    range_end: i64,
    offsets: Vec<i64>,
    dead_letters: Vec<bool>,
    keys: Vec<Option<Vec<u8>>>,
    payloads: Vec<Option<Vec<u8>>>,
    headers: Vec<String>,
    bytes: i64,
    stored_at: DateTime<Utc>,
}

impl Postgres {
    /// The checkpoint's owner and position; `None` where the partition has none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn stored_state(&self, key: &PartitionKey) -> Result<Option<StoredState>, StoreError> {
        let row: Option<(Option<uuid::Uuid>, i64, i64)> = sqlx::query_as(
            "SELECT owner, epoch, position FROM checkpoints WHERE stream = $1 AND topic = $2 AND partition = $3",
        )
        .bind(&*key.stream)
        .bind(&*key.topic)
        .bind(key.partition)
        .fetch_optional(&self.pool)
        .await
        .map_err(store_error("read the checkpoint"))?;
        Ok(row.map(|(owner, epoch, position)| StoredState {
            owner,
            stored: Published { epoch, position: Position(position) },
        }))
    }

    /// The ranges that end behind `published`, oldest first, until they are `bytes_max` together: at least one
    /// where there is one. Without `published` all ranges.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn unpublished_ranges(
        &self,
        key: &PartitionKey,
        published: Option<Published>,
        bytes_max: usize,
    ) -> Result<Vec<OutboxRange>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT epoch, range_start, range_end, offsets, dead_letters, keys, payloads, headers, bytes, stored_at
             FROM (
                 SELECT *, sum(bytes) OVER (ORDER BY epoch, range_start) - bytes AS bytes_before
                 FROM outbox
                 WHERE stream = $1 AND topic = $2 AND partition = $3
                   AND (epoch, range_end) > ($4, $5)
             ) AS ranges
             WHERE bytes_before < $6
             ORDER BY epoch, range_start
             LIMIT 100",
        )
        .bind(&*key.stream)
        .bind(&*key.topic)
        .bind(key.partition)
        .bind(published.map_or(i64::MIN, |published| published.epoch))
        .bind(published.map_or(i64::MIN, |published| published.position.0))
        .bind(i64::try_from(bytes_max).unwrap_or(i64::MAX))
        .fetch_all(&self.pool)
        .await
        .map_err(store_error("read the outbox"))?;
        rows.into_iter().map(range).collect()
    }

    /// Size of the ranges that end behind `published`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn unpublished_bytes(&self, key: &PartitionKey, published: Published) -> Result<usize, StoreError> {
        let bytes: i64 = sqlx::query_scalar(
            "SELECT coalesce(sum(bytes), 0)::bigint FROM outbox
             WHERE stream = $1 AND topic = $2 AND partition = $3 AND (epoch, range_end) > ($4, $5)",
        )
        .bind(&*key.stream)
        .bind(&*key.topic)
        .bind(key.partition)
        .bind(published.epoch)
        .bind(published.position.0)
        .fetch_one(&self.pool)
        .await
        .map_err(store_error("measure the outbox"))?;
        Ok(usize::try_from(bytes).unwrap_or(usize::MAX))
    }

    /// Deletes the ranges that end at or before `published`. Returns how many there were.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_published(&self, key: &PartitionKey, published: Published) -> Result<u64, StoreError> {
        let done = sqlx::query(
            "DELETE FROM outbox
             WHERE stream = $1 AND topic = $2 AND partition = $3 AND (epoch, range_end) <= ($4, $5)",
        )
        .bind(&*key.stream)
        .bind(&*key.topic)
        .bind(key.partition)
        .bind(published.epoch)
        .bind(published.position.0)
        .execute(&self.pool)
        .await
        .map_err(store_error("delete what is published from the outbox"))?;
        Ok(done.rows_affected())
    }
}

fn range(row: Row) -> Result<OutboxRange, StoreError> {
    let columns = row.offsets.into_iter().zip(row.dead_letters).zip(row.keys).zip(row.payloads).zip(row.headers);
    let records = columns
        .map(|((((offset, dead_letter), key), value), headers)| {
            let headers: Headers = serde_json::from_str(&headers).map_err(|error| StoreError {
                action: "read the headers of a record in the outbox",
                kind: ErrorKind::Fatal,
                source: Box::new(error),
            })?;
            let destination = if dead_letter { Destination::DeadLetters } else { Destination::Labels };
            Ok(LiveRecord { offset, destination, key, value, headers })
        })
        .collect::<Result<Vec<_>, StoreError>>()?;
    Ok(OutboxRange {
        epoch: row.epoch,
        start: Position(row.range_start),
        end: Position(row.range_end),
        records,
        bytes: usize::try_from(row.bytes).unwrap_or(usize::MAX),
        stored_at: row.stored_at,
    })
}
