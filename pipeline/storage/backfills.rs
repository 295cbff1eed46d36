//! Backfills as rows: jobs, their shards, and who works on which.
//!
//! Guarantee: a shard has at most one holder whose batches are stored. Taking one writes a fresh owner into its
//! checkpoint in the same transaction, which fences a former holder that is merely slow; the lease only says when to
//! stop waiting for it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::FromRow;
use uuid::Uuid;

use super::{
    ErrorKind, StoreError,
    postgres::{Postgres, store_error},
};
use crate::domain::{
    backfill::{FilePart, Held, Job, JobState, Progress, Rank, Renewal, Shard, ShardEnd, TOPIC_PREFIX, Taken, topic},
    checkpoint::{Claim, Position},
};

/// Failures that are shown of a job; the rest is in the table.
const FAILURES_SHOWN: i64 = 20;

/// Every level but this one would fail a statement that waited for another worker.
const READ_COMMITTED: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";

/// The first open shard that nobody holds, with a fresh owner in its checkpoint.
const TAKE: &str = "
WITH free AS (
    SELECT shards.job, shards.shard, jobs.stream
    FROM backfill_shards AS shards
    JOIN backfill_jobs AS jobs USING (job)
    WHERE shards.job = $1 AND shards.state = 'open' AND jobs.state = 'running'
      AND (lease_until IS NULL OR lease_until < now())
    ORDER BY shards.shard
    LIMIT 1
    FOR UPDATE OF shards SKIP LOCKED
), leased AS (
    UPDATE backfill_shards AS shards SET holder = $2, lease_until = now() + make_interval(secs => $3)
    FROM free
    WHERE shards.job = free.job AND shards.shard = free.shard
    RETURNING shards.*, free.stream
), claimed AS (
    UPDATE checkpoints SET owner = $2, claimed_at = now()
    FROM leased
    WHERE checkpoints.stream = leased.stream AND topic = $4 || leased.job AND partition = leased.shard
    RETURNING position, epoch, generation, timestamp_ms_max, checkpoints.stored_at IS NULL AS is_fresh
)
SELECT leased.*, claimed.* FROM leased CROSS JOIN claimed
";

const PROGRESS: &str = "
WITH shards AS (
    SELECT count(*) AS shards,
           count(*) FILTER (WHERE state = 'finished') AS shards_finished,
           count(*) FILTER (WHERE state = 'failed') AS shards_failed,
           count(*) FILTER (WHERE state = 'open' AND lease_until >= now()) AS shards_held,
           CASE WHEN bool_and(records IS NOT NULL OR records_max IS NOT NULL)
                THEN coalesce(sum(least(records, records_max)), 0)::bigint END AS records,
           coalesce(sum(bytes), 0)::bigint AS bytes,
           coalesce(sum(CASE WHEN state = 'open' THEN least(bytes_read, bytes) ELSE bytes END), 0)::bigint AS bytes_read
    FROM backfill_shards
    WHERE job = $2
), stored AS (
    SELECT coalesce(sum(position), 0)::bigint AS records_stored
    FROM checkpoints
    WHERE stream = $1 AND topic = $3 || $2
), rejected AS (
    SELECT count(*) AS rejected FROM rejections WHERE stream = $1 AND topic = $3 || $2
)
SELECT * FROM shards CROSS JOIN stored CROSS JOIN rejected
";

#[derive(FromRow)]
struct JobRow {
    job: String,
    stream: String,
    state: String,
    rank: String,
    generation: i64,
    publishes: bool,
    key_field: String,
    fields: Vec<String>,
    created_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
}

#[derive(FromRow)]
struct ShardRow {
    job: String,
    stream: String,
    shard: i32,
    file: String,
    format: String,
    range_start: i64,
    range_end: i64,
    before: i64,
    file_bytes: i64,
    file_modified: DateTime<Utc>,
    bytes: i64,
    records: Option<i64>,
    records_max: Option<i64>,
    position: i64,
    epoch: i64,
    generation: i64,
    timestamp_ms_max: i64,
    is_fresh: bool,
}

#[derive(FromRow)]
struct ProgressRow {
    shards: i64,
    shards_finished: i64,
    shards_failed: i64,
    shards_held: i64,
    records: Option<i64>,
    records_stored: i64,
    rejected: i64,
    bytes: i64,
    bytes_read: i64,
}

impl Postgres {
    /// Makes a job with its shards and their checkpoints. Its generation is that of the stream's topic where it ranks
    /// newest.
    ///
    /// # Errors
    /// [`StoreError`]; also where there is a job of this name.
    pub async fn create_backfill(&self, job: &Job, parts: &[FilePart]) -> Result<Job, StoreError> {
        let failed = || store_error("make the backfill");
        let mut transaction = self.pool.begin_with(READ_COMMITTED).await.map_err(failed())?;
        let row: JobRow = sqlx::query_as(
            "INSERT INTO backfill_jobs (job, stream, rank, generation, publishes, key_field, fields, created_at)
             SELECT $1, $2, $3, CASE WHEN $3 = 'newest' THEN coalesce(max(generation), 1) ELSE 0 END, $4, $5, $6, $7
             FROM checkpoints
             WHERE stream = $2 AND topic NOT LIKE '%/%'
             RETURNING *",
        )
        .bind(&job.id)
        .bind(&job.stream)
        .bind(job.rank.as_str())
        .bind(job.publishes)
        .bind(&job.key_field)
        .bind(&job.fields)
        .bind(job.created_at)
        .fetch_one(&mut *transaction)
        .await
        .map_err(failed())?;
        let job = row.job()?;
        let column = |value: fn(&FilePart) -> i64| parts.iter().map(value).collect::<Vec<_>>();
        let optional = |value: fn(&FilePart) -> Option<i64>| parts.iter().map(value).collect::<Vec<_>>();
        sqlx::query(
            "INSERT INTO backfill_shards (job, shard, file, format, range_start, range_end, before, file_bytes,
                                          file_modified, bytes, records, records_max)
             SELECT $1, (number - 1)::integer, file, format, range_start, range_end, before, file_bytes, file_modified,
                    bytes, records, records_max
             FROM unnest($2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
                         $8::timestamptz[], $9::bigint[], $10::bigint[], $11::bigint[])
                  WITH ORDINALITY
                  AS part (file, format, range_start, range_end, before, file_bytes, file_modified, bytes, records,
                           records_max, number)",
        )
        .bind(&job.id)
        .bind(parts.iter().map(|part| part.file.as_str()).collect::<Vec<_>>())
        .bind(parts.iter().map(|part| part.format.as_str()).collect::<Vec<_>>())
        .bind(column(|part| part.start))
        .bind(column(|part| part.end))
        .bind(column(|part| part.before))
        .bind(column(|part| part.file_bytes))
        .bind(parts.iter().map(|part| part.file_modified).collect::<Vec<_>>())
        .bind(column(|part| part.bytes))
        .bind(optional(|part| part.records))
        .bind(optional(|part| part.records_max))
        .execute(&mut *transaction)
        .await
        .map_err(failed())?;
        sqlx::query(
            "INSERT INTO checkpoints (stream, topic, partition, position, generation, timestamp_ms_max)
             SELECT $2, $3, shard, 0, $4, $5 FROM backfill_shards WHERE job = $1",
        )
        .bind(&job.id)
        .bind(&job.stream)
        .bind(&*topic(&job.id))
        .bind(job.generation)
        .bind(job.created_at.timestamp_millis())
        .execute(&mut *transaction)
        .await
        .map_err(failed())?;
        transaction.commit().await.map_err(failed())?;
        Ok(job)
    }

    /// The jobs, the newest first; those of one stream, or all.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn backfills(&self, stream: Option<&str>) -> Result<Vec<Job>, StoreError> {
        let rows: Vec<JobRow> = sqlx::query_as(
            "SELECT * FROM backfill_jobs WHERE $1::text IS NULL OR stream = $1 ORDER BY created_at DESC, job",
        )
        .bind(stream)
        .fetch_all(&self.pool)
        .await
        .map_err(store_error("read the backfills"))?;
        rows.into_iter().map(JobRow::job).collect()
    }

    /// The job of this name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn backfill(&self, id: &str) -> Result<Option<Job>, StoreError> {
        let row: Option<JobRow> = sqlx::query_as("SELECT * FROM backfill_jobs WHERE job = $1")
            .bind(id)
            .fetch_optional(&self.pool)
            .await
            .map_err(store_error("read the backfill"))?;
        row.map(JobRow::job).transpose()
    }

    /// The files of a job that are not done.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open_backfill_files(&self, id: &str) -> Result<Vec<String>, StoreError> {
        sqlx::query_scalar("SELECT DISTINCT file FROM backfill_shards WHERE job = $1 AND state = 'open' ORDER BY file")
            .bind(id)
            .fetch_all(&self.pool)
            .await
            .map_err(store_error("read the files of the backfill"))
    }

    /// How far a job is.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn backfill_progress(&self, job: &Job) -> Result<Progress, StoreError> {
        let failed = || store_error("read how far the backfill is");
        let row: ProgressRow = sqlx::query_as(PROGRESS)
            .bind(&job.stream)
            .bind(&job.id)
            .bind(TOPIC_PREFIX)
            .fetch_one(&self.pool)
            .await
            .map_err(failed())?;
        let failures: Vec<String> = sqlx::query_scalar(
            "SELECT error FROM backfill_shards WHERE job = $1 AND state = 'failed' ORDER BY shard LIMIT $2",
        )
        .bind(&job.id)
        .bind(FAILURES_SHOWN)
        .fetch_all(&self.pool)
        .await
        .map_err(failed())?;
        Ok(Progress {
            shards: row.shards,
            shards_finished: row.shards_finished,
            shards_failed: row.shards_failed,
            shards_held: row.shards_held,
            records: row.records,
            records_stored: row.records_stored,
            rejected: row.rejected,
            bytes: row.bytes,
            bytes_read: row.bytes_read,
            failures,
        })
    }

    /// Moves a job from one of these states to another. Returns whether it was in one of them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn move_backfill(&self, id: &str, from: &[JobState], to: JobState) -> Result<bool, StoreError> {
        let failed = || store_error("move the backfill to another state");
        let mut transaction = self.pool.begin_with(READ_COMMITTED).await.map_err(failed())?;
        let moved = sqlx::query(
            "UPDATE backfill_jobs SET state = $3, finished_at = CASE WHEN $3 = 'cancelled' THEN now() END
             WHERE job = $1 AND state = ANY($2)",
        )
        .bind(id)
        .bind(from.iter().map(|state| state.as_str()).collect::<Vec<_>>())
        .bind(to.as_str())
        .execute(&mut *transaction)
        .await
        .map_err(failed())?;
        if moved.rows_affected() > 0 && to == JobState::Running {
            sqlx::query("UPDATE backfill_shards SET state = 'open', error = NULL WHERE job = $1 AND state = 'failed'")
                .bind(id)
                .execute(&mut *transaction)
                .await
                .map_err(failed())?;
        }
        transaction.commit().await.map_err(failed())?;
        Ok(moved.rows_affected() > 0)
    }

    /// Takes the first open shard of a job that nobody holds.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn take_shard(&self, id: &str, lease: Duration) -> Result<Taken, StoreError> {
        let failed = || store_error("take a shard");
        let owner = Uuid::new_v4();
        let mut transaction = self.pool.begin_with(READ_COMMITTED).await.map_err(failed())?;
        let row: Option<ShardRow> = sqlx::query_as(TAKE)
            .bind(id)
            .bind(owner)
            .bind(lease.as_secs_f64())
            .bind(TOPIC_PREFIX)
            .fetch_optional(&mut *transaction)
            .await
            .map_err(failed())?;
        if let Some(row) = row {
            transaction.commit().await.map_err(failed())?;
            return Ok(Taken::Shard(Box::new(row.shard(owner))));
        }
        let is_open: bool = sqlx::query_scalar(
            "SELECT EXISTS (
                 SELECT FROM backfill_shards JOIN backfill_jobs USING (job)
                 WHERE job = $1 AND backfill_shards.state = 'open' AND backfill_jobs.state = 'running'
             )",
        )
        .bind(id)
        .fetch_one(&mut *transaction)
        .await
        .map_err(failed())?;
        Ok(if is_open { Taken::Wait } else { Taken::Nothing })
    }

    /// Keeps these shards, and says how far they are read.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn renew_shards(&self, id: &str, lease: Duration, held: &[Held]) -> Result<Renewal, StoreError> {
        let failed = || store_error("renew the leases of shards");
        let mut transaction = self.pool.begin_with(READ_COMMITTED).await.map_err(failed())?;
        let kept: Vec<i32> = sqlx::query_scalar(
            "UPDATE backfill_shards AS shards
             SET lease_until = now() + make_interval(secs => $2), bytes_read = held.bytes
             FROM unnest($3::integer[], $4::uuid[], $5::bigint[]) AS held (shard, owner, bytes)
             WHERE shards.job = $1 AND shards.shard = held.shard AND shards.holder = held.owner
             RETURNING shards.shard",
        )
        .bind(id)
        .bind(lease.as_secs_f64())
        .bind(held.iter().map(|held| held.shard).collect::<Vec<_>>())
        .bind(held.iter().map(|held| held.owner).collect::<Vec<_>>())
        .bind(held.iter().map(|held| held.bytes).collect::<Vec<_>>())
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed())?;
        let state: String = sqlx::query_scalar("SELECT state FROM backfill_jobs WHERE job = $1")
            .bind(id)
            .fetch_one(&mut *transaction)
            .await
            .map_err(failed())?;
        transaction.commit().await.map_err(failed())?;
        Ok(Renewal { state: known(JobState::named(&state), "state", &state)?, held: kept })
    }

    /// Gives a shard back, so that the next worker need not wait until the lease is over.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn release_shard(&self, id: &str, held: Held) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE backfill_shards SET holder = NULL, lease_until = NULL, bytes_read = $4
             WHERE job = $1 AND shard = $2 AND holder = $3",
        )
        .bind(id)
        .bind(held.shard)
        .bind(held.owner)
        .bind(held.bytes)
        .execute(&self.pool)
        .await
        .map_err(store_error("give a shard back"))?;
        Ok(())
    }

    /// Ends a shard, and the job with the last one. Nothing happens where somebody else holds the shard by now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn end_shard(&self, id: &str, held: Held, end: &ShardEnd) -> Result<(), StoreError> {
        let failed = || store_error("end a shard");
        let (state, records, error) = match end {
            ShardEnd::Finished { records } => ("finished", Some(records), None),
            ShardEnd::Failed { error } => ("failed", None, Some(error)),
        };
        let mut transaction = self.pool.begin_with(READ_COMMITTED).await.map_err(failed())?;
        // Locked first: of two workers that end the last two shards, the second sees both.
        sqlx::query("SELECT FROM backfill_jobs WHERE job = $1 FOR UPDATE")
            .bind(id)
            .execute(&mut *transaction)
            .await
            .map_err(failed())?;
        sqlx::query(
            "UPDATE backfill_shards
             SET state = $4, records = coalesce($5, records), error = $6, bytes_read = $7, ended_at = now(),
                 holder = NULL, lease_until = NULL
             WHERE job = $1 AND shard = $2 AND holder = $3",
        )
        .bind(id)
        .bind(held.shard)
        .bind(held.owner)
        .bind(state)
        .bind(records)
        .bind(error)
        .bind(held.bytes)
        .execute(&mut *transaction)
        .await
        .map_err(failed())?;
        // Its worker found all of it published, if it is to be published at all.
        sqlx::query(
            "DELETE FROM outbox USING backfill_jobs AS jobs
             WHERE job = $1 AND outbox.stream = jobs.stream AND topic = $2 AND partition = $3
               AND EXISTS (SELECT FROM backfill_shards WHERE job = $1 AND shard = $3 AND state <> 'open')",
        )
        .bind(id)
        .bind(&*topic(id))
        .bind(held.shard)
        .execute(&mut *transaction)
        .await
        .map_err(failed())?;
        sqlx::query(
            "UPDATE backfill_jobs SET state = 'finished', finished_at = now()
             WHERE job = $1 AND state IN ('running', 'paused')
               AND NOT EXISTS (SELECT FROM backfill_shards WHERE job = $1 AND state = 'open')",
        )
        .bind(id)
        .execute(&mut *transaction)
        .await
        .map_err(failed())?;
        transaction.commit().await.map_err(failed())
    }
}

impl JobRow {
    fn job(self) -> Result<Job, StoreError> {
        Ok(Job {
            state: known(JobState::named(&self.state), "state", &self.state)?,
            rank: known(Rank::named(&self.rank), "rank", &self.rank)?,
            id: self.job,
            stream: self.stream,
            created_at: self.created_at,
            finished_at: self.finished_at,
            generation: self.generation,
            publishes: self.publishes,
            key_field: self.key_field,
            fields: self.fields,
        })
    }
}

impl ShardRow {
    fn shard(self, owner: Uuid) -> Shard {
        Shard {
            claim: Claim {
                key: crate::domain::checkpoint::PartitionKey {
                    stream: self.stream.into(),
                    topic: topic(&self.job),
                    partition: self.shard,
                },
                owner,
                position: Position(self.position),
                epoch: self.epoch,
                generation: self.generation,
                timestamp_ms_max: self.timestamp_ms_max,
                is_fresh: self.is_fresh,
            },
            part: FilePart {
                file: self.file,
                format: self.format,
                start: self.range_start,
                end: self.range_end,
                before: self.before,
                file_bytes: self.file_bytes,
                file_modified: self.file_modified,
                bytes: self.bytes,
                records: self.records,
                records_max: self.records_max,
            },
        }
    }
}

/// A word of the table that this program knows.
fn known<T>(value: Option<T>, what: &str, word: &str) -> Result<T, StoreError> {
    value.ok_or_else(|| StoreError {
        action: "read the backfill",
        kind: ErrorKind::Fatal,
        source: format!("its {what} is `{word}`, which this program does not know; upgrade it").into(),
    })
}
