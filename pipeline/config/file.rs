//! The configuration as written: every key, its type and its default. Nothing is checked here beyond that.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    num::{NonZeroU16, NonZeroU32, NonZeroUsize},
    path::{Path, PathBuf},
    time::Duration,
};

use bytesize::ByteSize;
use figment::{
    Figment,
    error::Kind,
    providers::{Env, Format, Toml},
};
use secrecy::SecretString;
use serde::Deserialize;

use super::{
    engine::Engine,
    resolved::{ConfigError, Problem},
    secret::ClientSettings,
};
use crate::{
    decode::{self, mapping::TimeUnit},
    publish::kafka::topics::Cleanup,
    storage::postgres::SessionSettings,
};

/// Prefix of the environment variables that set keys of the file.
const ENVIRONMENT_PREFIX: &str = "ALBERTINE_";
/// Between the parts of a key in such a variable. Variables without it are options of the command line.
const ENVIRONMENT_SEPARATOR: &str = "__";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    #[serde(default)]
    pub kafka: Kafka,
    #[serde(default)]
    pub postgres: Postgres,
    #[serde(default)]
    pub schema_registry: SchemaRegistry,
    #[serde(default)]
    pub engine: Engine,
    #[serde(default)]
    pub backfill: Backfill,
    #[serde(default)]
    pub metrics: Metrics,
    #[serde(default)]
    pub shutdown: Shutdown,
    #[serde(default)]
    pub models: BTreeMap<String, ModelEntry>,
    #[serde(default)]
    pub streams: BTreeMap<String, Stream>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kafka {
    pub bootstrap_servers: String,
    /// How long a fenced worker waits before it claims a partition again that it still believes its own.
    #[serde(with = "humantime_serde")]
    pub reclaim_delay: Duration,
    pub client: ClientSettings,
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            bootstrap_servers: "127.0.0.1:9092".into(),
            // Twice librdkafka's heartbeat interval: by then the group has told a former member.
            reclaim_delay: Duration::from_secs(6),
            client: ClientSettings::default(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Postgres {
    pub url: SecretString,
    pub schema: String,
    pub session_settings: SessionSettings,
    pub connections_max: NonZeroU32,
    #[serde(with = "humantime_serde")]
    pub statement_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub claim_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub rejections_retention: Duration,
}

impl Default for Postgres {
    fn default() -> Self {
        Self {
            url: "postgres://127.0.0.1/albertine".into(),
            schema: "albertine".into(),
            session_settings: SessionSettings::Connection,
            connections_max: NonZeroU32::MIN.saturating_add(7),
            statement_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            claim_timeout: Duration::from_mins(1),
            rejections_retention: Duration::from_hours(90 * 24),
        }
    }
}

/// A Confluent-compatible schema registry.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SchemaRegistry {
    /// Without it there is none.
    pub url: Option<String>,
    pub user: Option<String>,
    pub password: Option<SecretString>,
    pub ca_file: Option<PathBuf>,
    pub client_certificate: Option<PathBuf>,
    pub client_key: Option<PathBuf>,
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

impl Default for SchemaRegistry {
    fn default() -> Self {
        Self {
            url: None,
            user: None,
            password: None,
            ca_file: None,
            client_certificate: None,
            client_key: None,
            // A registry answers in milliseconds, and is asked again.
            timeout: Duration::from_secs(10),
        }
    }
}

/// Jobs that label the records of files.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Backfill {
    #[serde(with = "humantime_serde")]
    pub lease: Duration,
    pub shard_bytes: ByteSize,
}

impl Default for Backfill {
    fn default() -> Self {
        Self {
            // Longer than a restart of Postgres takes; a dead worker's shards wait so long.
            lease: Duration::from_secs(30),
            // Some minutes of work: enough shards to share out, and going on in one reads past little.
            shard_bytes: ByteSize::mib(64),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    pub listen: Option<SocketAddr>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shutdown {
    #[serde(with = "humantime_serde")]
    pub deadline: Duration,
}

impl Default for Shutdown {
    fn default() -> Self {
        // Kubernetes kills after 30 s.
        Self { deadline: Duration::from_secs(20) }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelEntry {
    pub path: PathBuf,
    #[serde(default = "early_exit")]
    pub early_exit: bool,
}

fn early_exit() -> bool {
    true
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    pub topic: String,
    #[serde(default)]
    pub format: decode::Format,
    /// `earliest`, `latest`, or an RFC 3339 time.
    #[serde(default = "earliest")]
    pub start: String,
    pub models: Vec<String>,
    /// The consumer group; `albertine.<stream>` unless given.
    pub group: Option<String>,
    pub fields: Fields,
    #[serde(default)]
    pub other_languages: OtherLanguages,
    #[serde(default = "text_bytes_max")]
    pub text_bytes_max: ByteSize,
    #[serde(default = "in_flight_documents_max")]
    pub in_flight_documents_max: NonZeroUsize,
    #[serde(default = "in_flight_bytes_max")]
    pub in_flight_bytes_max: ByteSize,
    #[serde(default = "batch_documents_max")]
    pub batch_documents_max: NonZeroUsize,
    #[serde(default)]
    pub live: Live,
    #[serde(default)]
    pub rejections: Rejections,
}

/// What a stream does with rejected records.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rejections {
    /// For how long they are kept as they came; not at all unless given.
    #[serde(with = "humantime_serde")]
    pub keep_records: Option<Duration>,
    pub streak_max: usize,
    pub share_max: f64,
}

impl Default for Rejections {
    fn default() -> Self {
        Self {
            keep_records: None,
            // More in a row than chance, or one broken producer among several, makes.
            streak_max: 1_000,
            // A topic that is half unreadable is not what the stream was made for.
            share_max: 0.5,
        }
    }
}

/// The live topic of a stream.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Live {
    pub enabled: bool,
    /// `<stream>.labels` unless given.
    pub topic: Option<String>,
    /// Topic for rejected records; none unless given.
    pub dead_letters: Option<String>,
    /// `None`: as many as the source has.
    pub partitions: Option<NonZeroU16>,
    /// `None`: the broker's default.
    pub replication: Option<NonZeroU16>,
    pub cleanup: Cleanup,
    /// `None`: the broker's default.
    #[serde(with = "humantime_serde")]
    pub retention: Option<Duration>,
    pub unpublished_bytes_max: ByteSize,
    pub transaction_bytes_max: ByteSize,
    #[serde(with = "humantime_serde")]
    pub transaction_interval: Duration,
    #[serde(with = "humantime_serde")]
    pub transaction_timeout: Duration,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            enabled: true,
            topic: None,
            dead_letters: None,
            partitions: None,
            replication: None,
            cleanup: Cleanup::Delete,
            retention: None,
            // A million labels, or hours of them: time to repair a broker while the database stays fresh.
            unpublished_bytes_max: ByteSize::mib(512),
            // Some thousand labels: large enough that a backlog is bound by bandwidth, small enough that a
            // transaction ends within a second.
            transaction_bytes_max: ByteSize::mib(2),
            // A transaction costs the broker the same whatever it holds. Without a pause a few hundred records a second
            // are as many transactions, which take a core, and everything else waits for it.
            transaction_interval: Duration::from_millis(50),
            // Kafka's default of a minute would hide all later records from subscribers that long after a crash
            // that nobody takes over; a transaction takes milliseconds.
            transaction_timeout: Duration::from_secs(10),
        }
    }
}

fn earliest() -> String {
    "earliest".into()
}

/// A Kafka record has at most 1 MiB by default; the longest novels have three.
fn text_bytes_max() -> ByteSize {
    ByteSize::mib(1)
}

/// Several batches for each of a few partitions: with no more than two of them a partition has nothing in hand whenever a
/// batch was stored, until it is read on. What is above only costs memory.
fn in_flight_documents_max() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(16_383)
}

fn in_flight_bytes_max() -> ByteSize {
    ByteSize::mib(64)
}

/// A commit costs about one fsync: at 500 records that is microseconds each, and the statement stays short.
fn batch_documents_max() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(499)
}

/// What happens to texts in a language that a model of the stream was not trained for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OtherLanguages {
    #[default]
    Label,
    Reject,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fields {
    pub id: String,
    pub text: OneOrMany,
    pub text_pair: Option<OneOrMany>,
    pub item: Option<String>,
    pub user: Option<String>,
    pub rating: Option<String>,
    pub occurred_at: Option<String>,
    #[serde(default)]
    pub occurred_at_unit: TimeUnit,
    pub language: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Many(many) if many.is_empty())
    }

    pub fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

/// Reads the file at `path`, with the environment on top.
///
/// # Errors
/// [`ConfigError`] where there is no file, or a key is unknown or of the wrong type.
pub fn parse(path: &Path) -> Result<FileConfig, ConfigError> {
    if !path.is_file() {
        return Err(ConfigError::Missing { path: path.to_owned() });
    }
    Figment::new()
        .merge(Toml::file_exact(path))
        .merge(environment())
        .extract()
        .map_err(|errors| ConfigError::Invalid { path: path.to_owned(), problems: problems(errors) })
}

/// Reads the environment alone.
///
/// # Errors
/// [`ConfigError`] where a key is unknown or of the wrong type.
pub fn parse_environment() -> Result<FileConfig, ConfigError> {
    Figment::from(environment()).extract().map_err(|errors| ConfigError::Values { problems: problems(errors) })
}

fn environment() -> Env {
    Env::prefixed(ENVIRONMENT_PREFIX)
        .filter(|key| key.as_str().contains(ENVIRONMENT_SEPARATOR))
        .split(ENVIRONMENT_SEPARATOR)
}

fn problems(errors: figment::Error) -> Vec<Problem> {
    errors.into_iter().map(|error| problem(&error)).collect()
}

/// Whether the value of a key may be a secret.
fn holds_secret(key: &str) -> bool {
    key == "postgres.url" || key.starts_with("kafka.client") || key.starts_with("schema_registry")
}

fn problem(error: &figment::Error) -> Problem {
    let place = error
        .metadata
        .as_ref()
        .filter(|metadata| metadata.name.contains("environment"))
        .map(|_| " (set in the environment)");
    let key = error.path.join(".");
    let message = match &error.kind {
        // The message would quote what was found, and that may be a secret in the wrong place.
        Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) if holds_secret(&key) => {
            format!("invalid type: expected {expected}; what was found is not shown")
        }
        kind => kind.to_string(),
    };
    Problem { key, message: format!("{message}{}", place.unwrap_or_default()) }
}
