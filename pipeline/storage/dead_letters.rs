//! Rejections as people and replays see them: listed, counted, settled.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{
    ErrorKind, StoreError,
    postgres::{Postgres, store_error},
};
use crate::domain::{
    dead_letter::{DeadLetter, DeadLetterFilter, Place, RejectionState},
    document::SourceRecord,
    rejection::Rejection,
    version::Version,
};

/// Which rejections a filter means. Parameters: stream, state, reason, and the places as three arrays.
macro_rules! meant {
    () => {
        r#"
    rejections.stream = $1
    AND ($2::text IS NULL OR rejections.state = $2)
    AND ($3::text IS NULL OR rejections.reason = $3)
    AND (cardinality($4::text[]) = 0
         OR (rejections.topic, rejections.partition, rejections."offset")
            IN (SELECT * FROM unnest($4::text[], $5::integer[], $6::bigint[])))
"#
    };
}

/// Binds what a filter means to the first six parameters of a query.
macro_rules! meaning {
    ($query:expr, $stream:expr, $filter:expr) => {{
        let places = &$filter.places;
        $query
            .bind($stream)
            .bind($filter.state.map(RejectionState::as_str))
            .bind($filter.reason.as_deref())
            .bind(places.iter().map(|place| place.topic.as_str()).collect::<Vec<_>>())
            .bind(places.iter().map(|place| place.partition).collect::<Vec<_>>())
            .bind(places.iter().map(|place| place.offset).collect::<Vec<_>>())
    }};
}

/// In the order of their versions, in which a replay stores them.
const LIST: &str = concat!(
    r#"
SELECT rejections.topic, rejections.partition, rejections."offset", stage, reason, message, version, produced_at,
       rejected_at, state, settled_at, key, value, headers
FROM rejections
LEFT JOIN rejected_records AS kept
    ON $8 AND kept.stream = rejections.stream AND kept.topic = rejections.topic
   AND kept.partition = rejections.partition AND kept."offset" = rejections."offset" AND kept.keep_until > now()
WHERE "#,
    meant!(),
    r#"
ORDER BY version NULLS FIRST, rejections.topic, rejections.partition, rejections."offset", rejected_at
LIMIT $7
"#
);

const COUNT: &str = concat!(
    "SELECT stage, reason, count(*), min(rejected_at), max(rejected_at) FROM rejections WHERE ",
    meant!(),
    "GROUP BY stage, reason ORDER BY count(*) DESC, stage, reason"
);

/// What was kept of them goes with them.
const DISCARD: &str = concat!(
    r#"
WITH discarded AS (
    UPDATE rejections SET state = 'discarded', settled_at = now()
    WHERE state = 'open' AND "#,
    meant!(),
    r#"
    RETURNING stream, topic, partition, "offset"
), forgotten AS (
    DELETE FROM rejected_records AS kept USING discarded
    WHERE kept.stream = discarded.stream AND kept.topic = discarded.topic
      AND kept.partition = discarded.partition AND kept."offset" = discarded."offset"
)
SELECT count(*) FROM discarded
"#
);

/// Rejections for one reason.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct ReasonCount {
    pub stage: String,
    pub reason: String,
    pub count: i64,
    #[sqlx(rename = "min")]
    pub first: DateTime<Utc>,
    #[sqlx(rename = "max")]
    pub last: DateTime<Utc>,
}

/// What a replay came to for one rejection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    pub place: Place,
    /// Why it was rejected again; `None` where it was labelled or deleted its document.
    pub again: Option<Rejection>,
}

#[derive(sqlx::FromRow)]
struct Row {
    topic: String,
    partition: i32,
    offset: i64,
    stage: String,
    reason: String,
    message: String,
    version: Option<Vec<i64>>,
    produced_at: Option<DateTime<Utc>>,
    rejected_at: DateTime<Utc>,
    state: String,
    settled_at: Option<DateTime<Utc>>,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    /// Null where the record is not kept.
    headers: Option<String>,
}

impl Postgres {
    /// The dead letters that `filter` means, the oldest version first, at most `limit`. Records that are kept come with
    /// them only `with_records`: they hold texts, and are large.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn dead_letters(
        &self,
        stream: &str,
        filter: &DeadLetterFilter,
        limit: i64,
        with_records: bool,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let rows: Vec<Row> = meaning!(sqlx::query_as(LIST), stream, filter)
            .bind(limit)
            .bind(with_records)
            .fetch_all(&self.pool)
            .await
            .map_err(store_error("list the dead letters"))?;
        rows.into_iter().map(Row::dead_letter).collect()
    }

    /// How many dead letters there are for each reason, the most frequent first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn dead_letter_reasons(
        &self,
        stream: &str,
        filter: &DeadLetterFilter,
    ) -> Result<Vec<ReasonCount>, StoreError> {
        meaning!(sqlx::query_as(COUNT), stream, filter)
            .fetch_all(&self.pool)
            .await
            .map_err(store_error("count the dead letters"))
    }

    /// Discards the open ones among them, with what was kept of them. Returns how many there were.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn discard_dead_letters(&self, stream: &str, filter: &DeadLetterFilter) -> Result<i64, StoreError> {
        meaning!(sqlx::query_scalar(DISCARD), stream, filter)
            .fetch_one(&self.pool)
            .await
            .map_err(store_error("discard the dead letters"))
    }
}

/// Notes what a replay came to, in the transaction that stores it: what was settled is closed, and what was kept of it
/// removed; what was rejected again stays open, with the new reason.
pub(super) async fn settle(
    connection: &mut PgConnection,
    stream: &str,
    settlements: &[Settlement],
) -> Result<(), sqlx::Error> {
    sqlx::query(
        r#"
WITH given AS (
    SELECT * FROM unnest($2::text[], $3::integer[], $4::bigint[], $5::text[], $6::text[], $7::text[])
        AS given (topic, partition, "offset", stage, reason, message)
), settled AS (
    UPDATE rejections SET
        state = CASE WHEN given.reason IS NULL THEN 'replayed' ELSE 'open' END,
        settled_at = CASE WHEN given.reason IS NULL THEN now() END,
        stage = coalesce(given.stage, rejections.stage),
        reason = coalesce(given.reason, rejections.reason),
        message = coalesce(given.message, rejections.message)
    FROM given
    WHERE rejections.stream = $1 AND rejections.topic = given.topic AND rejections.partition = given.partition
      AND rejections."offset" = given."offset" AND rejections.state = 'open'
)
DELETE FROM rejected_records AS kept USING given
WHERE given.reason IS NULL AND kept.stream = $1 AND kept.topic = given.topic AND kept.partition = given.partition
  AND kept."offset" = given."offset"
"#,
    )
    .bind(stream)
    .bind(column(settlements, |settlement| settlement.place.topic.as_str()))
    .bind(column(settlements, |settlement| settlement.place.partition))
    .bind(column(settlements, |settlement| settlement.place.offset))
    .bind(column(settlements, |settlement| Some(settlement.again.as_ref()?.stage.as_str())))
    .bind(column(settlements, |settlement| Some(settlement.again.as_ref()?.reason)))
    .bind(column(settlements, |settlement| Some(settlement.again.as_ref()?.message.replace('\0', "\u{fffd}"))))
    .execute(connection)
    .await
    .map(drop)
}

fn column<'a, T>(settlements: &'a [Settlement], value: impl Fn(&'a Settlement) -> T) -> Vec<T> {
    settlements.iter().map(value).collect()
}

impl Row {
    fn dead_letter(self) -> Result<DeadLetter, StoreError> {
        let broken = |source: Box<dyn std::error::Error + Send + Sync>| StoreError {
            action: "read a dead letter",
            kind: ErrorKind::Fatal,
            source,
        };
        let version = match self.version.as_deref() {
            Some(&[generation, timestamp_ms, partition, offset]) => Some(Version {
                generation,
                timestamp_ms,
                partition: i32::try_from(partition).map_err(|error| broken(error.into()))?,
                offset,
            }),
            _ => None,
        };
        let headers = self.headers.map(|headers| serde_json::from_str(&headers)).transpose();
        let headers = headers.map_err(|error| broken(error.into()))?;
        Ok(DeadLetter {
            place: Place { topic: self.topic, partition: self.partition, offset: self.offset },
            stage: self.stage,
            reason: self.reason,
            message: self.message,
            version,
            produced_at: self.produced_at,
            rejected_at: self.rejected_at,
            state: self.state.parse::<RejectionState>().map_err(|error| broken(error.into()))?,
            settled_at: self.settled_at,
            record: headers.map(|headers| SourceRecord { key: self.key, value: self.value, headers }),
        })
    }
}
