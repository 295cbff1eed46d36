//! The connection to Postgres: pool, schema, time limits, migrations.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    ConnectOptions, PgPool,
    migrate::{MigrateError, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tracing::subscriber::NoSubscriber;
use url::Url;

use super::{ErrorKind, StoreError};

/// The migrations, part of the program.
pub static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// The oldest server that the schema and its statements are written for and tested on, as `server_version_num`.
const VERSION_MIN: i32 = 180_000;

/// How to reach Postgres.
#[derive(Debug, Clone)]
pub struct PostgresConfig {
    pub url: SecretString,
    pub schema: String,
    pub connections_max: u32,
    /// Longest run time of one statement. A batch takes milliseconds; a statement that takes this long
    /// hangs on a lock or a dying disk, and is better tried again.
    pub statement_timeout: Duration,
    /// Longest wait for a connection, first contact included.
    pub connect_timeout: Duration,
}

/// Postgres behind a pool. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Postgres {
    pub(super) pool: PgPool,
}

/// A URL that no connection can be made from. Neither its password nor the URL itself is shown.
#[derive(Debug, thiserror::Error)]
pub enum UrlError {
    #[error("is not a Postgres URL: {0}; write `postgres://USER:PASSWORD@HOST:PORT/DATABASE`")]
    Form(String),
    #[error("the value of its parameter `{name}` is refused: {reason}; correct or remove it")]
    Parameter { name: String, reason: String },
}

/// Postgres cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    #[error("`postgres.url`: {0}")]
    Url(#[from] UrlError),
    #[error("cannot connect to Postgres at {place}: {source}; {remedy}")]
    Connect { place: String, source: sqlx::Error, remedy: &'static str },
    #[error(
        "Postgres at {place} is version {found}, and albertine needs 18 or later; upgrade the server, or name another in `postgres.url` or `DATABASE_URL`"
    )]
    TooOld { place: String, found: String },
    #[error(
        "cannot create schema `{schema}`: {source}; let a role with the right CREATE on the database run `albertine database migrate`"
    )]
    Schema { schema: String, source: sqlx::Error },
    #[error("cannot migrate the database: {0}")]
    Migrate(#[from] MigrateError),
    #[error("schema `{schema}` is {state}; run `albertine database migrate`")]
    NotMigrated { schema: String, state: String },
    #[error(
        "schema `{schema}` has migration {version}, which this program does not know: it was migrated by a newer albertine; upgrade this one"
    )]
    NewerSchema { schema: String, version: i64 },
    #[error("cannot read the server's settings: {0}")]
    ReadSettings(sqlx::Error),
    #[error(
        "the server may forget confirmed commits (synchronous_commit is {commit}, fsync is {fsync}): labels that subscribers saw could be missing after a crash; set both to on, and use synchronous replication where it fails over"
    )]
    NotDurable { commit: String, fsync: String },
    #[error("cannot read the migrations of schema `{schema}`: {source}")]
    ReadMigrations { schema: String, source: sqlx::Error },
}

impl Postgres {
    /// Connects once, to fail early and clearly, and keeps a pool.
    ///
    /// # Errors
    /// [`PostgresError::Url`], [`PostgresError::Connect`] and [`PostgresError::TooOld`].
    pub async fn connect(config: &PostgresConfig) -> Result<Self, PostgresError> {
        let options = connect_options(config)?;
        let place =
            format!("{}:{}/{}", options.get_host(), options.get_port(), options.get_database().unwrap_or_default());
        let failed = |source| PostgresError::Connect { place: place.clone(), remedy: remedy(&source), source };
        let pool = PgPoolOptions::new()
            .max_connections(config.connections_max)
            .acquire_timeout(config.connect_timeout)
            .connect_with(options)
            .await
            .map_err(failed)?;
        let (number, found): (i32, String) =
            sqlx::query_as("SELECT current_setting('server_version_num')::integer, current_setting('server_version')")
                .fetch_one(&pool)
                .await
                .map_err(failed)?;
        check_version(&place, number, found)?;
        Ok(Self { pool })
    }

    /// Creates the schema where it is missing and brings it to this program's state.
    ///
    /// # Errors
    /// [`PostgresError`] where a right is missing, or a migration fails or was changed.
    pub async fn migrate(&self, schema: &str) -> Result<(), PostgresError> {
        let statement = format!("CREATE SCHEMA IF NOT EXISTS {}", quoted(schema));
        sqlx::query(sqlx::AssertSqlSafe(statement))
            .execute(&self.pool)
            .await
            .map_err(|source| PostgresError::Schema { schema: schema.into(), source })?;
        MIGRATIONS.run(&self.pool).await?;
        Ok(())
    }

    /// Whether the schema is in this program's state.
    ///
    /// # Errors
    /// [`PostgresError::NotMigrated`] and [`PostgresError::NewerSchema`], with the remedy.
    pub async fn check_migrated(&self, schema: &str) -> Result<(), PostgresError> {
        let not_migrated = |state: String| PostgresError::NotMigrated { schema: schema.into(), state };
        let applied: Vec<i64> =
            sqlx::query_scalar("SELECT version FROM _sqlx_migrations WHERE success ORDER BY version")
                .fetch_all(&self.pool)
                .await
                .map_err(|source| {
                    match source.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref() {
                        Some("42P01" | "3F000") => not_migrated("not set up".into()),
                        _ => PostgresError::ReadMigrations { schema: schema.into(), source },
                    }
                })?;
        if let Some(missing) = MIGRATIONS.iter().find(|migration| !applied.contains(&migration.version)) {
            return Err(not_migrated(format!("without migration {} ({})", missing.version, missing.description)));
        }
        match applied.iter().find(|version| !MIGRATIONS.version_exists(**version)) {
            Some(&version) => Err(PostgresError::NewerSchema { schema: schema.into(), version }),
            None => Ok(()),
        }
    }

    /// Whether a commit that was confirmed survives a crash of the server: what is published must not be forgotten.
    ///
    /// # Errors
    /// [`PostgresError::NotDurable`], with the remedy.
    pub async fn check_durability(&self) -> Result<String, PostgresError> {
        let (commit, fsync): (String, String) =
            sqlx::query_as("SELECT current_setting('synchronous_commit'), current_setting('fsync')")
                .fetch_one(&self.pool)
                .await
                .map_err(PostgresError::ReadSettings)?;
        if commit == "off" || fsync == "off" {
            return Err(PostgresError::NotDurable { commit, fsync });
        }
        Ok(format!("survive a crash of the server (synchronous_commit is {commit})"))
    }

    /// Closes all connections.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

fn check_version(place: &str, number: i32, found: String) -> Result<(), PostgresError> {
    if number < VERSION_MIN {
        return Err(PostgresError::TooOld { place: place.into(), found });
    }
    Ok(())
}

/// A schema name as SQL.
pub fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// Whether a connection can be made from a URL, as far as can be told without making one.
///
/// # Errors
/// [`UrlError`] with what is wrong.
pub fn check_url(url: &SecretString) -> Result<(), UrlError> {
    // sqlx warns of parameters that it does not know. That is said once, when the connection is made.
    tracing::subscriber::with_default(NoSubscriber::default(), || parse_url(url)).map(drop)
}

fn parse_url(url: &SecretString) -> Result<PgConnectOptions, UrlError> {
    let url = Url::parse(url.expose_secret()).map_err(|error| UrlError::Form(error.to_string()))?;
    PgConnectOptions::from_url(&url)
        .map_err(|error| refused_parameter(&url).unwrap_or_else(|| UrlError::Form(reason(&error))))
}

/// The first parameter that is refused by itself. sqlx says what is wrong with a value, but not whose it is.
fn refused_parameter(url: &Url) -> Option<UrlError> {
    url.query_pairs().find_map(|(name, value)| {
        let mut alone = Url::parse("postgres://localhost").ok()?;
        alone.query_pairs_mut().append_pair(&name, &value);
        let error = PgConnectOptions::from_url(&alone).err()?;
        Some(UrlError::Parameter { name: name.into_owned(), reason: reason(&error) })
    })
}

/// The innermost cause: what sqlx wraps around it only says that it is about the configuration.
fn reason(error: &sqlx::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// Sessions work in our schema, and a process that was stopped or cut off cannot hold rows for long.
fn connect_options(config: &PostgresConfig) -> Result<PgConnectOptions, PostgresError> {
    let milliseconds = |duration: Duration| duration.as_millis().to_string();
    let timeout = milliseconds(config.statement_timeout);
    Ok(parse_url(&config.url)?
        .application_name("albertine")
        .options([
            ("search_path", quoted(&config.schema)),
            // A batch sees one state of the documents it moves, or fails and is sent again: the sums follow from it.
            ("default_transaction_isolation", "repeatable read".into()),
            ("statement_timeout", timeout.clone()),
            ("lock_timeout", timeout.clone()),
            ("idle_in_transaction_session_timeout", timeout),
            ("tcp_keepalives_idle", "10".into()),
            ("tcp_keepalives_interval", "5".into()),
            ("tcp_keepalives_count", "3".into()),
        ])
        .log_statements(tracing::log::LevelFilter::Trace)
        // The statement of a batch fills a screen; how long batches take is a metric.
        .log_slow_statements(tracing::log::LevelFilter::Debug, Duration::from_secs(1)))
}

fn remedy(error: &sqlx::Error) -> &'static str {
    match error.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref() {
        Some("28P01" | "28000") => "correct the user and password in `postgres.url` or `DATABASE_URL`",
        Some("3D000") => "create the database, or correct its name in `postgres.url` or `DATABASE_URL`",
        Some("53300") => "raise max_connections of the server, or lower `postgres.connections_max`",
        _ => "start it, or correct `postgres.url` or `DATABASE_URL`",
    }
}

/// Sorts an error by its SQLSTATE class (the documentation of Postgres, appendix A).
pub(super) fn store_error(action: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |source| {
        let kind = match &source {
            sqlx::Error::Database(error) => match error.code().as_deref().unwrap_or_default() {
                // Raised for a value that does not fit: data exceptions and violated constraints.
                code if code.starts_with("22") || code.starts_with("23") || code == "54000" => ErrorKind::BadRow,
                // Connection, rollback (deadlock, serialisation), resources, operator intervention, lock and
                // system errors pass by themselves.
                code if ["08", "40", "53", "55", "57", "58"].iter().any(|class| code.starts_with(class)) => {
                    ErrorKind::Retryable
                }
                _ => ErrorKind::Fatal,
            },
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::WorkerCrashed => ErrorKind::Retryable,
            _ => ErrorKind::Fatal,
        };
        StoreError { action, kind, source: Box::new(source) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_below_18_is_refused_with_its_version_and_the_remedy() {
        let error = check_version("db:5432/albertine", 170_006, "17.6 (Debian 17.6-1)".into()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Postgres at db:5432/albertine is version 17.6 (Debian 17.6-1), and albertine needs 18 or later; upgrade the server, or name another in `postgres.url` or `DATABASE_URL`"
        );
        for (number, found) in [(180_000, "18.0"), (180_006, "18.6"), (190_000, "19beta1")] {
            check_version("db:5432/albertine", number, found.into()).unwrap();
        }
    }
}
