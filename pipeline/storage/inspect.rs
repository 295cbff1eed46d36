//! What the store knows of a stream's partitions, read in one statement and so from one moment. Claims nothing and
//! locks nothing.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::{
    StoreError,
    postgres::{Postgres, store_error},
};
use crate::domain::{
    checkpoint::Position,
    live::Published,
    standing::{Backlog, CheckpointState, OutboxExtent, StoreStanding},
};

/// Partitions with a checkpoint or something in the outbox. What lies behind `known` positions is counted apart;
/// where none is known, all of the outbox.
const STANDINGS: &str = "
WITH known AS (
    SELECT * FROM unnest($3::integer[], $4::bigint[], $5::bigint[]) AS known (partition, epoch, position)
), held AS (
    SELECT outbox.partition, count(*) AS ranges, sum(bytes)::bigint AS bytes,
           min(ARRAY[outbox.epoch, range_start]) AS first, max(ARRAY[outbox.epoch, range_end]) AS last,
           (array_agg(stored_at ORDER BY outbox.epoch, range_start))[1] AS first_stored_at,
           count(*) FILTER (WHERE behind) AS unpublished_ranges,
           (sum(range_end - CASE WHEN outbox.epoch = known.epoch THEN greatest(range_start, known.position) ELSE range_start END)
               FILTER (WHERE behind))::bigint AS unpublished_records,
           (sum(bytes) FILTER (WHERE behind))::bigint AS unpublished_bytes,
           min(stored_at) FILTER (WHERE behind) AS oldest
    FROM outbox
    LEFT JOIN known USING (partition)
    CROSS JOIN LATERAL (
        SELECT known.epoch IS NULL OR (outbox.epoch, range_end) > (known.epoch, known.position) AS behind
    ) AS compared
    WHERE stream = $1 AND topic = $2
    GROUP BY outbox.partition
), claimed AS (
    SELECT partition, owner, epoch, position, generation, topic_id, claimed_at, stored_at
    FROM checkpoints
    WHERE stream = $1 AND topic = $2
)
SELECT * FROM claimed FULL JOIN held USING (partition) ORDER BY partition
";

/// One row of the answer.
#[derive(sqlx::FromRow)]
struct Row {
    partition: i32,
    owner: Option<uuid::Uuid>,
    epoch: Option<i64>,
    position: Option<i64>,
    generation: Option<i64>,
    topic_id: Option<String>,
    claimed_at: Option<DateTime<Utc>>,
    stored_at: Option<DateTime<Utc>>,
    ranges: Option<i64>,
    bytes: Option<i64>,
    first: Option<Vec<i64>>,
    last: Option<Vec<i64>>,
    first_stored_at: Option<DateTime<Utc>>,
    unpublished_ranges: Option<i64>,
    unpublished_records: Option<i64>,
    unpublished_bytes: Option<i64>,
    oldest: Option<DateTime<Utc>>,
}

impl Postgres {
    /// What is known of each partition of a stream's topic, by partition. `published` are the positions that the
    /// group's offsets tell; the backlog is what lies behind them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn standings(
        &self,
        stream: &str,
        topic: &str,
        published: &[(i32, Published)],
    ) -> Result<BTreeMap<i32, StoreStanding>, StoreError> {
        standings(&self.pool, stream, topic, published).await
    }
}

pub(super) async fn standings(
    executor: impl sqlx::PgExecutor<'_>,
    stream: &str,
    topic: &str,
    published: &[(i32, Published)],
) -> Result<BTreeMap<i32, StoreStanding>, StoreError> {
    let rows: Vec<Row> = sqlx::query_as(STANDINGS)
        .bind(stream)
        .bind(topic)
        .bind(published.iter().map(|(partition, _)| *partition).collect::<Vec<_>>())
        .bind(published.iter().map(|(_, published)| published.epoch).collect::<Vec<_>>())
        .bind(published.iter().map(|(_, published)| published.position.0).collect::<Vec<_>>())
        .fetch_all(executor)
        .await
        .map_err(store_error("read the checkpoints and the outbox"))?;
    Ok(rows.into_iter().map(|row| (row.partition, row.standing())).collect())
}

impl Row {
    fn standing(self) -> StoreStanding {
        let count = |count: Option<i64>| count.and_then(|count| u64::try_from(count).ok()).unwrap_or_default();
        let checkpoint = self.epoch.zip(self.position).map(|(epoch, position)| CheckpointState {
            owner: self.owner,
            stored: Published { epoch, position: Position(position) },
            generation: self.generation.unwrap_or_default(),
            topic_id: self.topic_id,
            claimed_at: self.claimed_at,
            stored_at: self.stored_at,
        });
        let place = |pair: Option<Vec<i64>>| match pair.as_deref() {
            Some(&[epoch, position]) => Some(Published { epoch, position: Position(position) }),
            _ => None,
        };
        let outbox = match (place(self.first), place(self.last), self.first_stored_at) {
            (Some(first), Some(last), Some(first_stored_at)) => Some(OutboxExtent {
                ranges: count(self.ranges),
                bytes: count(self.bytes),
                first,
                last,
                first_stored_at,
            }),
            _ => None,
        };
        let backlog = Backlog {
            ranges: count(self.unpublished_ranges),
            records: count(self.unpublished_records),
            bytes: count(self.unpublished_bytes),
            oldest: self.oldest,
        };
        StoreStanding { checkpoint, outbox, backlog }
    }
}
