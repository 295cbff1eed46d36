//! Makes the monthly partitions of append-only tables before they are needed, and retires old ones.
//!
//! It only ever drops partitions whose whole month lies before the retention, and only those it named. Rejected records
//! have a lifetime of their own, since they hold texts.
//!
//! A role that does not own the tables can do neither. Then rows go to the partition for all that has no other, which
//! every such table has, and those beyond the retention are deleted.

use std::time::Duration;

use chrono::{Datelike, Months, NaiveDate, Utc};

use super::{
    StoreError,
    postgres::{Postgres, quoted, store_error},
};

/// Tables partitioned by month, with their column of time.
const TABLES: [&str; 1] = ["rejections"];

/// How often [`Postgres::maintain_partitions`] should run: partitions are made a month ahead.
pub const INTERVAL: Duration = Duration::from_hours(1);

impl Postgres {
    /// Makes this month's and the next month's partitions; drops those older than `retention`, and rejected records
    /// that were kept long enough.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn maintain_partitions(&self, retention: Duration) -> Result<(), StoreError> {
        let owns = self.owns_tables().await?;
        let today = Utc::now().date_naive();
        let oldest =
            chrono::Duration::from_std(retention).ok().and_then(|retention| today.checked_sub_signed(retention));
        for table in TABLES {
            if owns {
                for month in [first_of_month(today), first_of_month(today) + Months::new(1)] {
                    self.make_partition(table, month).await?;
                }
            }
            let Some(oldest) = oldest.map(first_of_month) else { continue };
            if owns {
                self.drop_partitions(table, oldest).await?;
            }
            // What is left of that age has no partition of its own.
            self.delete_before(table, oldest).await?;
        }
        sqlx::query("DELETE FROM rejected_records WHERE keep_until < now()")
            .execute(&self.pool)
            .await
            .map_err(store_error("delete rejected records that were kept long enough"))?;
        Ok(())
    }

    /// Whether this role may make and drop partitions.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn owns_tables(&self) -> Result<bool, StoreError> {
        sqlx::query_scalar(
            "SELECT bool_and(pg_has_role(relowner, 'USAGE')) FROM pg_class WHERE oid = ANY($1::text[]::regclass[])",
        )
        .bind(TABLES.as_slice())
        .fetch_one(&self.pool)
        .await
        .map_err(store_error("ask who owns the partitioned tables"))
    }

    async fn delete_before(&self, table: &str, before: NaiveDate) -> Result<(), StoreError> {
        let failed = || store_error("delete rows that are older than their retention");
        // Not the sessions' own level: another worker may delete the same rows.
        let mut transaction = self.pool.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await.map_err(failed())?;
        let statement = format!("DELETE FROM {table} WHERE rejected_at < '{before} 00:00:00+00'");
        let deleted = sqlx::query(sqlx::AssertSqlSafe(statement))
            .execute(&mut *transaction)
            .await
            .map_err(failed())?
            .rows_affected();
        transaction.commit().await.map_err(failed())?;
        if deleted > 0 {
            tracing::info!(table, deleted, "deleted rows that are older than their retention");
        }
        Ok(())
    }

    async fn make_partition(&self, table: &str, month: NaiveDate) -> Result<(), StoreError> {
        // IF NOT EXISTS does not help against another worker that does the same at the same moment. Rows of the month may
        // be in the default partition, from when another role ran here; then the rest of the month goes there too.
        let statement = format!(
            "DO $$ BEGIN
                 CREATE TABLE IF NOT EXISTS {} PARTITION OF {table} FOR VALUES FROM ('{month} 00:00:00+00') TO ('{} 00:00:00+00');
             EXCEPTION WHEN duplicate_table OR unique_violation OR duplicate_object OR check_violation THEN NULL; END $$",
            quoted(&partition_name(table, month)),
            month + Months::new(1),
        );
        sqlx::query(sqlx::AssertSqlSafe(statement))
            .execute(&self.pool)
            .await
            .map_err(store_error("make a partition by month"))?;
        Ok(())
    }

    async fn drop_partitions(&self, table: &str, before: NaiveDate) -> Result<(), StoreError> {
        let names: Vec<String> = sqlx::query_scalar(
            "SELECT relname::text FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid WHERE inhparent = $1::regclass",
        )
        .bind(table)
        .fetch_all(&self.pool)
        .await
        .map_err(store_error("list the partitions by month"))?;
        for name in names.iter().filter(|name| month_of(table, name).is_some_and(|month| month < before)) {
            tracing::info!(partition = name, "retiring a partition that is older than its retention");
            sqlx::query(sqlx::AssertSqlSafe(format!("DROP TABLE IF EXISTS {}", quoted(name))))
                .execute(&self.pool)
                .await
                .map_err(store_error("drop a partition by month"))?;
        }
        Ok(())
    }
}

fn first_of_month(date: NaiveDate) -> NaiveDate {
    date.with_day(1).unwrap_or(date)
}

fn partition_name(table: &str, month: NaiveDate) -> String {
    format!("{table}_{}", month.format("%Y_%m"))
}

fn month_of(table: &str, partition: &str) -> Option<NaiveDate> {
    let month = partition.strip_prefix(table)?.strip_prefix('_')?;
    NaiveDate::parse_from_str(&format!("{month}_01"), "%Y_%m_%d").ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_named_after_its_month_and_found_again() {
        let month = NaiveDate::from_ymd_opt(2026, 11, 1).unwrap();
        assert_eq!(partition_name("rejections", month), "rejections_2026_11");
        assert_eq!(month_of("rejections", "rejections_2026_11"), Some(month));
        assert_eq!(month_of("rejections", "rejections_default"), None);
        assert_eq!(month_of("rejections", "other_2026_11"), None);
    }
}
