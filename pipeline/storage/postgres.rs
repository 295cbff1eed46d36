//! The connection to Postgres: pool, schema, time limits, migrations.
//!
//! Works through a pooler that gives a session to each transaction (`PgBouncer` in transaction mode), where the session's
//! settings come with the role: see [`SessionSettings`].

use std::{fmt::Write, time::Duration};

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
    pub session_settings: SessionSettings,
    pub connections_max: u32,
    /// Longest run time of one statement. A batch takes milliseconds; a statement that takes this long
    /// hangs on a lock or a dying disk, and is better tried again.
    pub statement_timeout: Duration,
    /// Longest wait for a connection, first contact included.
    pub connect_timeout: Duration,
}

/// Where the settings of a session come from: its schema, isolation and time limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionSettings {
    /// Sent with each connection.
    #[default]
    Connection,
    /// Stored with the role in the database. A pooler in transaction mode needs it: it passes on no other settings.
    Role,
}

/// Postgres behind a pool. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Postgres {
    pub(super) pool: PgPool,
    session_settings: SessionSettings,
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
        "`postgres.session_settings` is `role`, but the sessions of this role have {found}; let the role itself or an administrator run: {statements}"
    )]
    RoleSettings { found: String, statements: String },
    #[error("role `{role}` lacks rights in schema `{schema}`: {missing}; let the owner run: {statements}")]
    Rights { role: String, schema: String, missing: String, statements: String },
    #[error(
        "the server may forget confirmed commits (synchronous_commit is {commit}, fsync is {fsync}): labels that subscribers saw could be missing after a crash; set both to on, and use synchronous replication where it fails over"
    )]
    NotDurable { commit: String, fsync: String },
    #[error(transparent)]
    Store(#[from] StoreError),
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
        let store = Self { pool, session_settings: config.session_settings };
        if config.session_settings == SessionSettings::Role {
            store.check_session(config).await?;
        }
        Ok(store)
    }

    /// Whether the role brings the settings that a batch needs.
    async fn check_session(&self, config: &PostgresConfig) -> Result<(), PostgresError> {
        const QUERY: &str = "SELECT quote_ident(current_user), quote_ident(current_database()),
                    current_setting('search_path'), current_setting('default_transaction_isolation'),
                    array_agg(name::text) FILTER (WHERE setting = '0')
             FROM pg_settings
             WHERE name IN ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout')";
        let (role, database, path, isolation, unlimited): (String, String, String, String, Option<Vec<String>>) =
            sqlx::query_as(QUERY).fetch_one(&self.pool).await.map_err(PostgresError::ReadSettings)?;
        let is_ours = path == config.schema || path == quoted(&config.schema);
        if is_ours && isolation == ISOLATION && unlimited.is_none() {
            return Ok(());
        }
        let mut found = format!("search_path {path}, default_transaction_isolation {isolation}");
        for name in unlimited.unwrap_or_default() {
            let _ = write!(found, ", {name} 0");
        }
        let statement = |(name, value): &(&str, String)| {
            // A search path is a list of names, each in its quotes.
            let value = if *name == SEARCH_PATH { value.clone() } else { literal(value) };
            format!("ALTER ROLE {role} IN DATABASE {database} SET {name} = {value};")
        };
        let statements: Vec<String> = session_settings(config).iter().map(statement).collect();
        Err(PostgresError::RoleSettings { found, statements: statements.join(" ") })
    }

    /// Creates the schema where it is missing and brings it to this program's state. Where it is in it already, no right
    /// to change it is needed.
    ///
    /// # Errors
    /// [`PostgresError`] where a right is missing, or a migration fails or was changed.
    pub async fn migrate(&self, schema: &str) -> Result<(), PostgresError> {
        match self.check_migrated(schema).await {
            Err(PostgresError::NotMigrated { .. }) => {}
            done => return done,
        }
        let failed = |source| PostgresError::Schema { schema: schema.into(), source };
        let is_there: bool = sqlx::query_scalar("SELECT to_regnamespace($1) IS NOT NULL")
            .bind(quoted(schema))
            .fetch_one(&self.pool)
            .await
            .map_err(failed)?;
        // First, since it takes a right on the database, also where there is nothing to create.
        if !is_there {
            let statement = format!("CREATE SCHEMA IF NOT EXISTS {}", quoted(schema));
            sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&self.pool).await.map_err(failed)?;
        }
        let mut migrations = Migrator::with_migrations(MIGRATIONS.iter().cloned().collect());
        // The lock is the session's, which a pooler would leave to somebody else. Without it, one of two migrations that
        // run at once fails whole.
        migrations.set_locking(self.session_settings == SessionSettings::Connection);
        migrations.run(&self.pool).await?;
        Ok(())
    }

    /// Whether the schema is in this program's state.
    ///
    /// # Errors
    /// [`PostgresError::NotMigrated`] and [`PostgresError::NewerSchema`], with the remedy.
    pub async fn check_migrated(&self, schema: &str) -> Result<(), PostgresError> {
        let not_migrated = |state: String| PostgresError::NotMigrated { schema: schema.into(), state };
        let read = sqlx::query_scalar("SELECT version FROM _sqlx_migrations WHERE success ORDER BY version")
            .fetch_all(&self.pool)
            .await;
        let applied: Vec<i64> = match read {
            Ok(applied) => applied,
            Err(source) => match source.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref() {
                Some("42P01" | "3F000") => {
                    // A schema that this role may not look into is not there either.
                    self.check_usage(schema).await?;
                    return Err(not_migrated("not set up".into()));
                }
                _ => return Err(PostgresError::ReadMigrations { schema: schema.into(), source }),
            },
        };
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

/// A value as SQL.
pub fn literal(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// A name as SQL.
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
    let options = parse_url(&config.url)?
        .application_name("albertine")
        // Numbers come in binary, so their digits do not matter; a pooler refuses the setting.
        .extra_float_digits(None);
    let options = match config.session_settings {
        SessionSettings::Role => options,
        SessionSettings::Connection => options.options(session_settings(config)).options([
            ("tcp_keepalives_idle", "10"),
            ("tcp_keepalives_interval", "5"),
            ("tcp_keepalives_count", "3"),
        ]),
    };
    Ok(options
        .log_statements(tracing::log::LevelFilter::Trace)
        // The statement of a batch fills a screen; how long batches take is a metric.
        .log_slow_statements(tracing::log::LevelFilter::Debug, Duration::from_secs(1)))
}

const SEARCH_PATH: &str = "search_path";
/// A batch sees one state of the documents it moves, or fails and is sent again: the sums follow from it.
const ISOLATION: &str = "repeatable read";

/// What every session needs.
fn session_settings(config: &PostgresConfig) -> [(&'static str, String); 5] {
    let timeout = config.statement_timeout.as_millis().to_string();
    [
        (SEARCH_PATH, quoted(&config.schema)),
        ("default_transaction_isolation", ISOLATION.into()),
        ("statement_timeout", timeout.clone()),
        ("lock_timeout", timeout.clone()),
        ("idle_in_transaction_session_timeout", timeout),
    ]
}

fn remedy(error: &sqlx::Error) -> &'static str {
    /// What TLS says of the server's certificate, in rustls's words, and what is done about it.
    const CERTIFICATES: [(&str, &str); 7] = [
        ("UnknownIssuer", "set `sslrootcert` in `postgres.url` to the certificate of its authority"),
        ("expired", "have the server's certificate renewed, and see that the clock of this machine is right"),
        (
            "not valid for name",
            "name the server in `postgres.url` as its certificate does, or have the name added to it",
        ),
        (
            "does not support TLS",
            "turn on `ssl` on the server, or lower `sslmode` in `postgres.url` where the line is safe",
        ),
        (
            "CertificateRequired",
            "set `sslcert` and `sslkey` in `postgres.url` to the client certificate that the server demands",
        ),
        (
            "received fatal alert",
            "have the client certificate of `sslcert` signed by an authority that the server trusts",
        ),
        ("No such file", "correct `sslrootcert`, `sslcert` and `sslkey` in `postgres.url`: one of them names no file"),
    ];
    let Some(database) = error.as_database_error() else {
        let text = error.to_string();
        return CERTIFICATES
            .iter()
            .find(|(sign, _)| text.contains(sign))
            .map_or("start it, or correct `postgres.url` or `DATABASE_URL`", |(_, remedy)| *remedy);
    };
    let message = database.message();
    match database.code().as_deref() {
        Some("28000") if message.contains("no encryption") => {
            "the server demands TLS: set `sslmode=verify-full` in `postgres.url` or `DATABASE_URL`"
        }
        Some("28000") if message.contains("client certificate") => {
            "set `sslcert` and `sslkey` in `postgres.url` to the client certificate that the server demands"
        }
        _ if message.contains("startup parameter") => {
            "this is a pooler, which passes no settings on: set `postgres.session_settings` to `role`"
        }
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
                // The server ended a transaction of a process that was stopped in it for a while.
                "25P03" | "25P04" => ErrorKind::Retryable,
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
