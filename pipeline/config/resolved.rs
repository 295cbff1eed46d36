//! The configuration as the program uses it: checked, with references resolved. Every problem is found in
//! one go and named by its key.

use std::{collections::BTreeMap, fmt, net::SocketAddr, num::NonZeroUsize, path::PathBuf, sync::Arc, time::Duration};

use chrono::DateTime;

use super::{
    Overrides, engine,
    file::{Backfill, Fields, FileConfig, Live, OneOrMany, OtherLanguages, Rejections, SchemaRegistry, Stream},
    secret::ClientSettings,
};
use crate::{
    decode::{
        Decoder, Format,
        mapping::{FieldMapping, FieldPath},
    },
    domain::rejection::RejectionLimits,
    engine::{EngineConfig, provider::Provider},
    publish::{
        Transactions,
        kafka::topics::{Cleanup, LiveTopicShape},
    },
    registry::{ClientCertificate, RegistryConfig},
    source::kafka::Start,
    storage::postgres::{self, PostgresConfig},
};

/// See the module.
#[derive(Debug)]
pub struct Config {
    pub kafka: KafkaConfig,
    pub postgres: PostgresConfig,
    pub claim_timeout: Duration,
    pub rejections_retention: Duration,
    /// `None`: no record carries the id of a schema.
    pub schema_registry: Option<RegistryConfig>,
    /// What computes.
    pub provider: Provider,
    pub engine: EngineConfig,
    pub tokenizer_threads: NonZeroUsize,
    /// 0: every text is computed.
    pub duplicate_cache_bytes: usize,
    pub onnxruntime_library: Option<PathBuf>,
    pub backfill: BackfillConfig,
    pub metrics_listen: Option<SocketAddr>,
    pub shutdown_deadline: Duration,
    /// By the name that streams use.
    pub models: BTreeMap<String, ModelConfig>,
    pub streams: BTreeMap<String, StreamConfig>,
}

impl Config {
    /// The configuration for a command that works on streams.
    ///
    /// # Errors
    /// [`ConfigError::Values`] where it has none.
    pub fn with_streams(self) -> Result<Self, ConfigError> {
        let mut problems = Problems::default();
        problems.check(!self.streams.is_empty(), "streams", || {
            "there is none: add `[streams.NAME]` with a topic, models and fields".into()
        });
        if problems.0.is_empty() { Ok(self) } else { Err(ConfigError::Values { problems: problems.0 }) }
    }
}

#[derive(Debug, Clone)]
pub struct ModelConfig {
    /// Its folder.
    pub path: PathBuf,
    /// Whether texts leave as its manifest says, or go through all passes.
    pub early_exit: bool,
}

#[derive(Debug)]
pub struct KafkaConfig {
    /// The bootstrap servers among them.
    pub client: ClientSettings,
    pub reclaim_delay: Duration,
}

/// Jobs that label the records of files.
#[derive(Debug, Clone, Copy)]
pub struct BackfillConfig {
    /// After which a shard whose worker is silent is another's.
    pub lease: Duration,
    /// About the size of a shard.
    pub shard_bytes: u64,
}

#[derive(Debug)]
pub struct StreamConfig {
    pub name: Arc<str>,
    pub topic: Arc<str>,
    pub decoder: Decoder,
    pub other_languages: OtherLanguages,
    pub start: Start,
    pub models: Vec<String>,
    pub group: String,
    pub text_bytes_max: usize,
    pub in_flight_documents_max: usize,
    pub in_flight_bytes_max: usize,
    pub batch_documents_max: usize,
    /// `None`: labels are only stored.
    pub live: Option<LiveConfig>,
    pub rejections: RejectionsConfig,
}

/// What a stream does with rejected records.
#[derive(Debug)]
pub struct RejectionsConfig {
    /// `None`: only their coordinates are stored.
    pub keep_records: Option<Duration>,
    pub limits: RejectionLimits,
}

/// A stream's live topic.
#[derive(Debug)]
pub struct LiveConfig {
    pub labels: LiveTopicShape,
    pub dead_letters: Option<LiveTopicShape>,
    pub unpublished_bytes_max: usize,
    pub transactions: Transactions,
    pub transaction_timeout: Duration,
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("there is no configuration file `{}`; name one with `--config` or `ALBERTINE_CONFIG`", path.display())]
    Missing { path: PathBuf },
    #[error("the configuration in `{}` has {} problem(s):{}", path.display(), problems.len(), listed(problems))]
    Invalid { path: PathBuf, problems: Vec<Problem> },
    #[error("the configuration has {} problem(s):{}", problems.len(), listed(problems))]
    Values { problems: Vec<Problem> },
}

/// One thing that is wrong, by its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub key: String,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() {
            formatter.write_str(&self.message)
        } else {
            write!(formatter, "`{}`: {}", self.key, self.message)
        }
    }
}

fn listed(problems: &[Problem]) -> String {
    problems.iter().fold(String::new(), |list, problem| format!("{list}\n  {problem}"))
}

#[derive(Default)]
pub(super) struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem { key: key.into(), message: message.into() });
    }

    pub(super) fn check(&mut self, valid: bool, key: impl Into<String>, message: impl FnOnce() -> String) {
        if !valid {
            self.add(key, message());
        }
    }
}

/// Checks what was parsed.
///
/// # Errors
/// [`ConfigError::Values`] with everything that is wrong.
pub fn resolve(file: FileConfig, overrides: Overrides) -> Result<Config, ConfigError> {
    let mut problems = Problems::default();
    let mut client = file.kafka.client;
    let servers = overrides.kafka_bootstrap_servers.unwrap_or(file.kafka.bootstrap_servers);
    problems
        .check(!servers.trim().is_empty(), "kafka.bootstrap_servers", || "must name at least one `host:port`".into());
    check_client_settings(&client, &mut problems);
    client.0.insert("bootstrap.servers".into(), servers);

    let url = overrides.database_url.unwrap_or(file.postgres.url);
    check_url(&url, &mut problems);
    problems.check(is_schema(&file.postgres.schema), "postgres.schema", || {
        format!("`{}` must be 1 to 63 bytes without control characters", file.postgres.schema.escape_debug())
    });
    let durations = [
        ("kafka.reclaim_delay", file.kafka.reclaim_delay),
        ("postgres.statement_timeout", file.postgres.statement_timeout),
        ("postgres.connect_timeout", file.postgres.connect_timeout),
        ("postgres.claim_timeout", file.postgres.claim_timeout),
        ("postgres.rejections_retention", file.postgres.rejections_retention),
        ("shutdown.deadline", file.shutdown.deadline),
        ("schema_registry.timeout", file.schema_registry.timeout),
    ];
    for (key, duration) in durations {
        problems.check(!duration.is_zero(), key, || "must be longer than zero".into());
    }
    let backfill = resolve_backfill(&file.backfill, &mut problems);
    let (provider, engine) = engine::resolve(&file.engine, &mut problems);

    let models: BTreeMap<String, ModelConfig> = file
        .models
        .into_iter()
        .map(|(name, model)| (name, ModelConfig { path: model.path, early_exit: model.early_exit }))
        .collect();
    for name in models.keys() {
        check_name(name, "models", &mut problems);
    }
    let streams = file
        .streams
        .into_iter()
        .map(|(name, stream)| (name.clone(), resolve_stream(&name, stream, &models, &mut problems)))
        .collect::<BTreeMap<_, _>>();
    let schema_registry = resolve_schema_registry(file.schema_registry, &streams, &mut problems);
    check_groups(&streams, &mut problems);
    check_live_topics(&streams, &mut problems);
    if !problems.0.is_empty() {
        return Err(ConfigError::Values { problems: problems.0 });
    }
    Ok(Config {
        kafka: KafkaConfig { client, reclaim_delay: file.kafka.reclaim_delay },
        postgres: PostgresConfig {
            url,
            schema: file.postgres.schema,
            session_settings: file.postgres.session_settings,
            connections_max: file.postgres.connections_max.get(),
            statement_timeout: file.postgres.statement_timeout,
            connect_timeout: file.postgres.connect_timeout,
        },
        claim_timeout: file.postgres.claim_timeout,
        rejections_retention: file.postgres.rejections_retention,
        schema_registry,
        provider,
        engine,
        tokenizer_threads: file.engine.tokenizer_threads,
        duplicate_cache_bytes: bytes(file.engine.duplicate_cache_bytes),
        onnxruntime_library: overrides.onnxruntime_library.or(file.engine.onnxruntime_library),
        backfill,
        metrics_listen: file.metrics.listen,
        shutdown_deadline: file.shutdown.deadline,
        models,
        streams: streams.into_iter().filter_map(|(name, stream)| Some((name, stream?))).collect(),
    })
}

/// Below it a slow answer of Postgres would lose shards that are worked on.
const LEASE_MIN: Duration = Duration::from_secs(1);

fn resolve_backfill(backfill: &Backfill, problems: &mut Problems) -> BackfillConfig {
    problems.check(backfill.lease >= LEASE_MIN, "backfill.lease", || {
        format!("must be at least {} s: it is renewed in a third of it", LEASE_MIN.as_secs())
    });
    let shard_bytes = backfill.shard_bytes.as_u64();
    problems.check(shard_bytes > 0, "backfill.shard_bytes", || "must be larger than zero".into());
    BackfillConfig { lease: backfill.lease, shard_bytes }
}

/// Settings that carry the delivery contract are not the operator's to change.
fn check_client_settings(client: &ClientSettings, problems: &mut Problems) {
    const OURS: [&str; 14] = [
        "bootstrap.servers",
        "group.id",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "auto.offset.reset",
        "isolation.level",
        "partition.assignment.strategy",
        "allow.auto.create.topics",
        "transactional.id",
        "transaction.timeout.ms",
        "message.timeout.ms",
        "enable.idempotence",
        "acks",
        "partitioner",
    ];
    for name in client.0.keys().filter(|name| OURS.contains(&name.as_str())) {
        problems.add(
            format!("kafka.client.\"{name}\""),
            "is set by albertine: the delivery contract depends on it; remove it",
        );
    }
}

fn check_url(url: &secrecy::SecretString, problems: &mut Problems) {
    use secrecy::ExposeSecret;
    let is_postgres =
        url::Url::parse(url.expose_secret()).is_ok_and(|url| matches!(url.scheme(), "postgres" | "postgresql"));
    if !is_postgres {
        problems.add("postgres.url", "must be `postgres://USER:PASSWORD@HOST:PORT/DATABASE`");
    } else if let Err(error) = postgres::check_url(url) {
        problems.add("postgres.url", error.to_string());
    }
}

fn resolve_schema_registry(
    registry: SchemaRegistry,
    streams: &BTreeMap<String, Option<StreamConfig>>,
    problems: &mut Problems,
) -> Option<RegistryConfig> {
    let SchemaRegistry { url, user, password, ca_file, client_certificate, client_key, timeout } = registry;
    let Some(url) = url else {
        let is_set = user.is_some() || password.is_some() || ca_file.is_some() || client_certificate.is_some();
        problems.check(!is_set, "schema_registry.url", || "is missing: the other settings need it".into());
        for stream in streams.values().flatten() {
            let needs_schemas = matches!(stream.decoder.format, Format::Avro | Format::Protobuf);
            problems.check(!needs_schemas, format!("streams.{}.format", stream.name), || {
                "needs schemas from a registry: set `schema_registry.url`".into()
            });
        }
        return None;
    };
    // Not quoted: it may hold a password.
    let parsed = url::Url::parse(&url).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    problems.check(parsed.is_some(), "schema_registry.url", || "must be `https://HOST:PORT/PATH` or `http://…`".into());
    problems.check(
        parsed.as_ref().is_none_or(|url| url.username().is_empty() && url.password().is_none()),
        "schema_registry.url",
        || "holds a user or a password: set `schema_registry.user` and `schema_registry.password`".into(),
    );
    problems.check(user.is_some() || password.is_none(), "schema_registry.user", || {
        "is missing: the password belongs to one".into()
    });
    problems.check(client_certificate.is_some() == client_key.is_some(), "schema_registry.client_key", || {
        "a client certificate and its key belong together: set both or neither".into()
    });
    let client_certificate =
        client_certificate.zip(client_key).map(|(certificate, key)| ClientCertificate { certificate, key });
    Some(RegistryConfig { url: parsed?, user, password, ca_file, client_certificate, timeout })
}

fn is_schema(schema: &str) -> bool {
    (1..=63).contains(&schema.len()) && !schema.chars().any(char::is_control)
}

/// Streams and models name topics, groups, rows and keys, so they keep to characters that are safe everywhere.
fn check_name(name: &str, table: &str, problems: &mut Problems) {
    let is_name = (1..=100).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    problems.check(is_name, format!("{table}.{name}"), || {
        "the name must be 1 to 100 characters of letters, digits, `-`, `_` and `.`".into()
    });
}

/// Kafka's own rule for topic names.
fn is_topic(topic: &str) -> bool {
    (1..=249).contains(&topic.len())
        && topic != "."
        && topic != ".."
        && topic.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn resolve_stream(
    name: &str,
    stream: Stream,
    models: &BTreeMap<String, ModelConfig>,
    problems: &mut Problems,
) -> Option<StreamConfig> {
    let key = |field: &str| format!("streams.{name}.{field}");
    check_name(name, "streams", problems);
    problems.check(is_topic(&stream.topic), key("topic"), || {
        format!("`{}` is not a topic name: 1 to 249 characters of letters, digits, `-`, `_` and `.`", stream.topic)
    });
    problems.check(!stream.models.is_empty(), key("models"), || "must name at least one model".into());
    for (index, model) in stream.models.iter().enumerate() {
        problems.check(models.contains_key(model), key("models"), || {
            format!("`{model}` is not configured: add `[models.{model}]` with its path")
        });
        problems.check(!stream.models[..index].contains(model), key("models"), || format!("`{model}` is named twice"));
    }
    problems.check(stream.text_bytes_max.as_u64() > 0, key("text_bytes_max"), || "must be larger than zero".into());
    problems.check(stream.in_flight_bytes_max.as_u64() > 0, key("in_flight_bytes_max"), || {
        "must be larger than zero".into()
    });
    let group = stream.group.unwrap_or_else(|| format!("albertine.{name}"));
    problems.check(!group.trim().is_empty(), key("group"), || "must not be empty".into());
    let start = match stream.start.as_str() {
        "earliest" => Some(Start::Earliest),
        "latest" => Some(Start::Latest),
        time => DateTime::parse_from_rfc3339(time).ok().map(|time| Start::At(time.to_utc())),
    };
    problems.check(start.is_some(), key("start"), || {
        format!("`{}` must be `earliest`, `latest` or a time such as `2026-01-31T00:00:00Z`", stream.start)
    });
    let live = resolve_live(name, &stream.topic, stream.live, problems);
    let rejections = resolve_rejections(name, &stream.rejections, problems);
    let mapping = resolve_fields(name, stream.format, stream.fields, problems);
    Some(StreamConfig {
        name: name.into(),
        topic: stream.topic.as_str().into(),
        decoder: Decoder { format: stream.format, mapping: mapping? },
        other_languages: stream.other_languages,
        start: start?,
        models: stream.models,
        group,
        text_bytes_max: bytes(stream.text_bytes_max),
        in_flight_documents_max: stream.in_flight_documents_max.get(),
        in_flight_bytes_max: bytes(stream.in_flight_bytes_max),
        batch_documents_max: stream.batch_documents_max.get(),
        live,
        rejections,
    })
}

/// Below it a busy broker would abort what is under way.
const TRANSACTION_TIMEOUT_MIN: Duration = Duration::from_secs(1);

fn resolve_fields(stream: &str, format: Format, fields: Fields, problems: &mut Problems) -> Option<FieldMapping> {
    let key = |field: &str| format!("streams.{stream}.fields.{field}");
    for (field, texts) in [("text", Some(&fields.text)), ("text_pair", fields.text_pair.as_ref())] {
        problems.check(!texts.is_some_and(OneOrMany::is_empty), key(field), || "must name at least one field".into());
    }
    let mut path = |field: &str, path: &str| {
        let parsed = FieldPath::parse(path).map_err(|error| error.to_string());
        let usable = parsed.and_then(|parsed| match usable(format, field, &parsed) {
            Ok(()) => Ok(parsed),
            Err(problem) => Err(format!("`{path}` {problem}")),
        });
        usable.map_err(|problem| problems.add(key(field), problem)).ok()
    };
    let id = path("id", &fields.id);
    let mut several =
        |field, texts: OneOrMany| -> Option<Vec<_>> { texts.into_vec().iter().map(|text| path(field, text)).collect() };
    let text = several("text", fields.text);
    let text_pair = fields.text_pair.map_or(Some(Vec::new()), |texts| several("text_pair", texts));
    let mut optional = |field, value: Option<String>| value.map_or(Some(None), |value| path(field, &value).map(Some));
    let (item, user) = (optional("item", fields.item), optional("user", fields.user));
    let (rating, occurred_at) = (optional("rating", fields.rating), optional("occurred_at", fields.occurred_at));
    let language = optional("language", fields.language);
    Some(FieldMapping {
        id: id?,
        text: text?,
        text_pair: text_pair?,
        item: item?,
        user: user?,
        rating: rating?,
        occurred_at: occurred_at?,
        occurred_at_unit: fields.occurred_at_unit,
        language: language?,
    })
}

/// Whether a field of a record of this format can lie there.
fn usable(format: Format, field: &str, path: &FieldPath) -> Result<(), &'static str> {
    match path {
        FieldPath::Elements(_) if !["text", "text_pair"].contains(&field) => {
            Err("enters every element of an array, and only texts can be several: name one element, such as `/0`")
        }
        FieldPath::Position if field != "id" => Err("is where the record stands, which can only be the `id`"),
        FieldPath::Value if field == "id" => {
            Err("is the whole value, which is no id: use `key`, or `position` for records that have none")
        }
        path if format == Format::Text && path.needs_fields() => {
            Err("looks for a field, and a value of `format = \"text\"` has none: use `value` or `key`")
        }
        _ => Ok(()),
    }
}

fn resolve_rejections(stream: &str, rejections: &Rejections, problems: &mut Problems) -> RejectionsConfig {
    let key = |field: &str| format!("streams.{stream}.rejections.{field}");
    let Rejections { keep_records, streak_max, share_max } = *rejections;
    problems.check(keep_records.is_none_or(|lifetime| !lifetime.is_zero()), key("keep_records"), || {
        "must be longer than zero".into()
    });
    problems.check(share_max > 0.0 && share_max <= 1.0, key("share_max"), || {
        format!("`{share_max}` must be above 0, and at most 1, which bears any share")
    });
    RejectionsConfig { keep_records, limits: RejectionLimits { streak_max, share_max } }
}

fn resolve_live(name: &str, source: &str, live: Live, problems: &mut Problems) -> Option<LiveConfig> {
    if !live.enabled {
        return None;
    }
    let key = |field: &str| format!("streams.{name}.live.{field}");
    // A stream's name that makes no topic's name is a problem of its own.
    let given = live.topic.as_ref();
    let labels = live.topic.clone().unwrap_or_else(|| format!("{name}.labels"));
    for (field, topic) in [("topic", given), ("dead_letters", live.dead_letters.as_ref())] {
        let Some(topic) = topic else { continue };
        problems.check(is_topic(topic), key(field), || {
            format!("`{topic}` is not a topic name: 1 to 249 characters of letters, digits, `-`, `_` and `.`")
        });
        problems.check(topic != source, key(field), || {
            format!("`{topic}` is the topic the stream reads: name another one")
        });
    }
    problems.check(live.dead_letters.as_ref() != Some(&labels), key("dead_letters"), || {
        format!("`{labels}` is the topic of the labels: name another one")
    });
    problems.check(live.transaction_timeout >= TRANSACTION_TIMEOUT_MIN, key("transaction_timeout"), || {
        format!("must be at least {} s", TRANSACTION_TIMEOUT_MIN.as_secs())
    });
    problems.check(live.retention.is_none_or(|retention| !retention.is_zero()), key("retention"), || {
        "must be longer than zero".into()
    });
    for (field, size) in
        [("unpublished_bytes_max", live.unpublished_bytes_max), ("transaction_bytes_max", live.transaction_bytes_max)]
    {
        problems.check(size.as_u64() > 0, key(field), || "must be larger than zero".into());
    }
    let shape = |topic: String, cleanup| LiveTopicShape {
        topic,
        partitions: live.partitions.map(|partitions| i32::from(partitions.get())),
        replication: live.replication.map(|replication| i32::from(replication.get())),
        cleanup,
        retention: live.retention,
    };
    Some(LiveConfig {
        labels: shape(labels, live.cleanup),
        // Dead letters have no key of ours: compaction would lose them.
        dead_letters: live.dead_letters.map(|topic| shape(topic, Cleanup::Delete)),
        unpublished_bytes_max: bytes(live.unpublished_bytes_max),
        transactions: Transactions {
            bytes_max: bytes(live.transaction_bytes_max),
            interval: live.transaction_interval,
        },
        transaction_timeout: live.transaction_timeout,
    })
}

fn bytes(size: bytesize::ByteSize) -> usize {
    usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
}

/// Two streams in one group would share out each other's partitions.
fn check_groups(streams: &BTreeMap<String, Option<StreamConfig>>, problems: &mut Problems) {
    let mut groups = BTreeMap::new();
    for stream in streams.values().flatten() {
        if let Some(other) = groups.insert(&stream.group, &stream.name) {
            problems.add(
                format!("streams.{}.group", stream.name),
                format!("`{}` is also the group of stream `{other}`: two streams are two groups", stream.group),
            );
        }
    }
}

/// A topic that one stream writes and another one reads would label labels; two that write one topic can be told
/// apart by nobody.
fn check_live_topics(streams: &BTreeMap<String, Option<StreamConfig>>, problems: &mut Problems) {
    let mut taken: BTreeMap<&str, &str> =
        streams.values().flatten().map(|stream| (&*stream.topic, &*stream.name)).collect();
    for stream in streams.values().flatten() {
        let Some(live) = &stream.live else { continue };
        let topics = [("topic", Some(&live.labels)), ("dead_letters", live.dead_letters.as_ref())];
        for (field, shape) in topics {
            let Some(shape) = shape else { continue };
            if let Some(other) = taken.insert(&shape.topic, &stream.name)
                && other != &*stream.name
            {
                problems.add(
                    format!("streams.{}.live.{field}", stream.name),
                    format!("`{}` is also a topic of stream `{other}`: name another one", shape.topic),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::result_large_err, reason = "the signature is figment's")]

    use figment::Jail;

    use super::*;
    use crate::config::load;

    const VALID: &str = r#"
        [models.sentiment]
        path = "models/albert-sentiment"
        [streams.reviews]
        topic = "reviews"
        models = ["sentiment"]
        [streams.reviews.fields]
        id = "/id"
        text = ["/title", "/body"]
    "#;

    fn load_text(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let mut result = None;
        Jail::expect_with(|jail| {
            jail.clear_env();
            for (name, value) in environment {
                jail.set_env(name, value);
            }
            jail.create_file("albertine.toml", text)?;
            result = Some(load("albertine.toml".as_ref(), Overrides::default()));
            Ok(())
        });
        result.unwrap()
    }

    fn problems(text: &str) -> Vec<String> {
        match load_text(text, &[]) {
            Err(ConfigError::Invalid { problems, .. } | ConfigError::Values { problems }) => {
                problems.iter().map(ToString::to_string).collect()
            }
            other => panic!("expected problems, got {other:?}"),
        }
    }

    /// The shipped configuration with every commented key written out.
    fn uncommented() -> String {
        let is_key = |line: &str| {
            let name = line.split(" = ").next().unwrap_or_default();
            line.contains(" = ") && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        };
        include_str!("../../config/albertine.toml")
            .lines()
            .map(|line| line.strip_prefix("# ").filter(|rest| is_key(rest)).unwrap_or(line))
            .fold(String::new(), |text, line| text + line + "\n")
    }

    #[test]
    fn the_shipped_configuration_shows_every_key_with_its_default() {
        // Without a default, or with one that follows from something else.
        let optional = [
            "item",
            "user",
            "rating",
            "occurred_at",
            "language",
            "text_pair",
            "listen",
            "onnxruntime_library",
            "cuda_device",
            "cuda_memory_max",
            "sessions",
            "group",
            "dead_letters",
            "partitions",
            "replication",
            "retention",
            "keep_records",
            "url",
            "password",
            "ca_file",
            "client_certificate",
            "client_key",
        ];
        let text: String = uncommented()
            .lines()
            .filter(|line| !optional.iter().any(|name| line.starts_with(&format!("{name} = "))))
            .fold(String::new(), |text, line| text + line + "\n");
        let shipped = load_text(include_str!("../../config/albertine.toml"), &[]).unwrap();
        assert_eq!(
            format!("{:?}", load_text(&text, &[]).unwrap()),
            format!("{shipped:?}"),
            "a default shown is not the default"
        );
        // Some settings are only for the other provider.
        load_text(&uncommented().replace("= \"cpu\"", "= \"cuda\""), &[]).unwrap();
        // Every key a file can have, as the messages about unknown keys list them.
        for section in [
            "kafka",
            "postgres",
            "schema_registry",
            "engine",
            "metrics",
            "shutdown",
            "streams.reviews",
            "streams.reviews.live",
            "streams.reviews.rejections",
            "streams.reviews.fields",
        ] {
            let header = format!("[{section}]\n");
            let unknown = uncommented().replacen(&header, &format!("{header}unknown_key = 1\n"), 1);
            let message = problems(&unknown).join("\n");
            let keys: Vec<&str> = message
                .split('`')
                .filter(|key| key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'))
                .collect();
            for key in keys.iter().filter(|key| {
                !key.is_empty() && !["unknown_key", "client", "fields", "live", "rejections"].contains(key)
            }) {
                assert!(
                    uncommented().contains(&format!("\n{key} = ")),
                    "config/albertine.toml does not show `{section}.{key}`"
                );
            }
        }
    }

    #[test]
    fn what_is_not_written_has_its_default() {
        let config = load_text(VALID, &[]).unwrap();
        assert_eq!(config.kafka.client.0["bootstrap.servers"], "127.0.0.1:9092");
        let stream = &config.streams["reviews"];
        assert_eq!((stream.group.as_str(), stream.start), ("albertine.reviews", Start::Earliest));
        assert_eq!(stream.decoder.mapping.text.len(), 2);
        assert_eq!(stream.text_bytes_max, 1 << 20);
        assert_eq!(config.duplicate_cache_bytes, 16 << 20);
    }

    #[test]
    fn the_engine_has_the_sizes_that_fit_what_computes() {
        use crate::engine::{provider::CudaDevice, scheduler::GroupLimits};

        let cpu = load_text(VALID, &[]).unwrap();
        assert_eq!((cpu.provider, cpu.engine.group), (Provider::Cpu, GroupLimits { tokens_max: 192, length_part: 32 }));
        assert_eq!(cpu.engine.sessions, std::thread::available_parallelism().unwrap());
        let cuda = |more: &[(&'static str, &'static str)]| {
            let environment = [&[("ALBERTINE_ENGINE__EXECUTION_PROVIDER", "cuda")], more].concat();
            load_text(VALID, &environment).unwrap()
        };
        let plain = cuda(&[]);
        assert_eq!(plain.provider, Provider::Cuda(CudaDevice::default()));
        assert_eq!(plain.engine.sessions.get(), 2);
        assert_eq!(plain.engine.group, GroupLimits { tokens_max: 16_384, length_part: 4 });
        assert_eq!((plain.engine.queue_tokens_max, plain.engine.backfill_queue_tokens_max), (524_288, 524_288));
        let given = cuda(&[
            ("ALBERTINE_ENGINE__CUDA_DEVICE", "3"),
            ("ALBERTINE_ENGINE__CUDA_MEMORY_MAX", "4GiB"),
            ("ALBERTINE_ENGINE__SESSIONS", "3"),
            ("ALBERTINE_ENGINE__GROUP_TOKENS_MAX", "8192"),
            ("ALBERTINE_ENGINE__BACKFILL_QUEUE_TOKENS_MAX", "9999"),
        ]);
        let memory_max = NonZeroUsize::new(4 << 30);
        assert_eq!(given.provider, Provider::Cuda(CudaDevice { index: 3, memory_max }));
        let EngineConfig { sessions, group, backfill_queue_tokens_max, .. } = given.engine;
        assert_eq!((sessions.get(), group.tokens_max, backfill_queue_tokens_max), (3, 8192, 9999));
    }

    #[test]
    fn the_environment_wins_over_the_file_and_overrides_win_over_both() {
        let environment = [
            ("ALBERTINE_KAFKA__BOOTSTRAP_SERVERS", "b:2"),
            ("ALBERTINE_ENGINE__GROUP_TOKENS_MAX", "99"),
            ("ALBERTINE_ENGINE__DUPLICATE_CACHE_BYTES", "0"),
            ("ALBERTINE_CONFIG", "x"),
        ];
        let text = format!("[kafka]\nbootstrap_servers = \"a:1\"\n{VALID}");
        let config = load_text(&text, &environment).unwrap();
        assert_eq!(config.kafka.client.0["bootstrap.servers"], "b:2");
        assert_eq!(config.engine.group.tokens_max, 99);
        assert_eq!(config.duplicate_cache_bytes, 0);
        Jail::expect_with(|jail| {
            jail.clear_env();
            jail.set_env("ALBERTINE_KAFKA__BOOTSTRAP_SERVERS", "b:2");
            jail.create_file("albertine.toml", &text)?;
            let overrides = Overrides { kafka_bootstrap_servers: Some("c:3".into()), ..Overrides::default() };
            let config = load("albertine.toml".as_ref(), overrides).unwrap();
            assert_eq!(config.kafka.client.0["bootstrap.servers"], "c:3");
            Ok(())
        });
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table of all fields")]
    fn every_bad_field_has_its_message() {
        let replaced = |from: &str, to: &str| {
            assert!(VALID.contains(from), "{from}");
            VALID.replace(from, to)
        };
        let with = |lines: &str| format!("{lines}\n{VALID}");
        let stream_with =
            |line: &str| replaced("[streams.reviews.fields]", &format!("{line}\n[streams.reviews.fields]"));
        let live_with = |line: &str| stream_with(&format!("[streams.reviews.live]\n{line}"));
        let cases = [
            (
                with("[kafka]\nbootstrap_servers = \"\""),
                "`kafka.bootstrap_servers`: must name at least one `host:port`",
            ),
            (
                with("[kafka]\nbootstrap_servers = 5"),
                "`kafka.bootstrap_servers`: invalid type: found signed int `5`, expected a string",
            ),
            (
                with("[kafka]\nbootstrap_server = \"a\""),
                "`kafka.bootstrap_server`: unknown field: found `bootstrap_server`, expected `one of `bootstrap_servers`, `reclaim_delay`, `client``",
            ),
            (with("[kafka]\nreclaim_delay = \"0s\""), "`kafka.reclaim_delay`: must be longer than zero"),
            (
                with("[kafka.client]\n\"group.id\" = \"x\""),
                "`kafka.client.\"group.id\"`: is set by albertine: the delivery contract depends on it; remove it",
            ),
            (
                with("[postgres]\nurl = \"mysql://a/b\""),
                "`postgres.url`: must be `postgres://USER:PASSWORD@HOST:PORT/DATABASE`",
            ),
            (
                with("[postgres]\nurl = \"postgres://a:b@c/d?sslmode=perhaps\""),
                "`postgres.url`: the value of its parameter `sslmode` is refused: unknown value \"perhaps\" for `ssl_mode`; correct or remove it",
            ),
            (
                with("[postgres]\nschema = \"\""),
                "`postgres.schema`: `` must be 1 to 63 bytes without control characters",
            ),
            (
                with("[postgres]\nconnections_max = 0"),
                "`postgres.connections_max`: invalid value signed int `0`, expected a nonzero u32",
            ),
            (
                with("[postgres]\nstatement_timeout = \"soon\""),
                "`postgres.statement_timeout`: invalid value string \"soon\", expected a duration",
            ),
            (with("[postgres]\nconnect_timeout = \"0s\""), "`postgres.connect_timeout`: must be longer than zero"),
            (with("[postgres]\nclaim_timeout = \"0s\""), "`postgres.claim_timeout`: must be longer than zero"),
            (
                with("[postgres]\nrejections_retention = \"0s\""),
                "`postgres.rejections_retention`: must be longer than zero",
            ),
            (
                with("[backfill]\nlease = \"0.5s\""),
                "`backfill.lease`: must be at least 1 s: it is renewed in a third of it",
            ),
            (with("[backfill]\nshard_bytes = 0"), "`backfill.shard_bytes`: must be larger than zero"),
            (with("[shutdown]\ndeadline = \"0s\""), "`shutdown.deadline`: must be longer than zero"),
            (
                with("[engine]\nsessions = 0"),
                "`engine.sessions`: invalid value signed int `0`, expected a nonzero usize",
            ),
            (
                with("[engine]\ngroup_tokens_max = 100\nqueue_tokens_max = 99"),
                "`engine.queue_tokens_max`: `99` must be at least engine.group_tokens_max, `100`",
            ),
            (
                with("[engine]\nexecution_provider = \"gpu\""),
                "`engine.execution_provider`: unknown variant: found `gpu`, expected ``cpu` or `cuda``",
            ),
            (
                with("[engine]\nexecution_provider = \"cuda\"\ncuda_device = -1"),
                "`engine.cuda_device`: invalid value signed int `-1`, expected u16",
            ),
            (
                with("[engine]\nexecution_provider = \"cuda\"\ncuda_memory_max = 0"),
                "`engine.cuda_memory_max`: must be larger than zero",
            ),
            (
                with("[engine]\nexecution_provider = \"cpu\"\ncuda_device = 0"),
                "`engine.cuda_device`: is for a GPU, and the CPU computes: set `engine.execution_provider = \"cuda\"`, or remove it",
            ),
            (
                with("[engine]\ncuda_memory_max = \"4GiB\""),
                "`engine.cuda_memory_max`: is for a GPU, and the CPU computes: set `engine.execution_provider = \"cuda\"`, or remove it",
            ),
            (
                with("[engine]\nexecution_provider = \"cuda\"\nqueue_tokens_max = 16383"),
                "`engine.queue_tokens_max`: `16383` must be at least engine.group_tokens_max, `16384`",
            ),
            (
                with("[engine]\ntokenizer_threads = 0"),
                "`engine.tokenizer_threads`: invalid value signed int `0`, expected a nonzero usize",
            ),
            (with("[metrics]\nlisten = \"everywhere\""), "`metrics.listen`: invalid socket address syntax"),
            (
                replaced("[streams.reviews]", "[streams.\"re views\"]")
                    .replace("streams.reviews.", "streams.\"re views\"."),
                "`streams.re views`: the name must be 1 to 100 characters of letters, digits, `-`, `_` and `.`",
            ),
            (
                replaced("topic = \"reviews\"", "topic = \"a b\""),
                "`streams.reviews.topic`: `a b` is not a topic name: 1 to 249 characters of letters, digits, `-`, `_` and `.`",
            ),
            (replaced("topic = \"reviews\"", ""), "`streams.reviews`: missing field `topic`"),
            (
                replaced("models = [\"sentiment\"]", "models = []"),
                "`streams.reviews.models`: must name at least one model",
            ),
            (
                replaced("models = [\"sentiment\"]", "models = [\"other\"]"),
                "`streams.reviews.models`: `other` is not configured: add `[models.other]` with its path",
            ),
            (
                replaced("models = [\"sentiment\"]", "models = [\"sentiment\", \"sentiment\"]"),
                "`streams.reviews.models`: `sentiment` is named twice",
            ),
            (
                stream_with("format = \"xml\""),
                "`streams.reviews.format`: unknown variant: found `xml`, expected `one of `json`, `text`, `avro`, `protobuf``",
            ),
            (
                stream_with("start = \"yesterday\""),
                "`streams.reviews.start`: `yesterday` must be `earliest`, `latest` or a time such as `2026-01-31T00:00:00Z`",
            ),
            (
                VALID.replace("[models.sentiment]", "[postgres]\nsession_settings = \"pooler\"\n[models.sentiment]"),
                "`postgres.session_settings`: unknown variant: found `pooler`, expected ``connection` or `role``",
            ),
            (
                stream_with("other_languages = \"drop\""),
                "`streams.reviews.other_languages`: unknown variant: found `drop`, expected ``label` or `reject``",
            ),
            (
                replaced("id = \"/id\"", "id = \"/ids/*\""),
                "`streams.reviews.fields.id`: `/ids/*` enters every element of an array, and only texts can be several: name one element, such as `/0`",
            ),
            (
                replaced("id = \"/id\"", "id = \"value\""),
                "`streams.reviews.fields.id`: `value` is the whole value, which is no id: use `key`, or `position` for records that have none",
            ),
            (
                replaced("id = \"/id\"", "id = \"key\"\nitem = \"position\""),
                "`streams.reviews.fields.item`: `position` is where the record stands, which can only be the `id`",
            ),
            (
                stream_with("format = \"text\"")
                    .replace("\"/id\"", "\"key\"")
                    .replace("[\"/title\", \"/body\"]", "\"/body\""),
                "`streams.reviews.fields.text`: `/body` looks for a field, and a value of `format = \"text\"` has none: use `value` or `key`",
            ),
            (
                stream_with("format = \"avro\""),
                "`streams.reviews.format`: needs schemas from a registry: set `schema_registry.url`",
            ),
            (
                with("[schema_registry]\nurl = \"registry:8081\""),
                "`schema_registry.url`: must be `https://HOST:PORT/PATH` or `http://…`",
            ),
            (
                with("[schema_registry]\nurl = \"http://me:secret@registry:8081\""),
                "`schema_registry.url`: holds a user or a password: set `schema_registry.user` and `schema_registry.password`",
            ),
            (with("[schema_registry]\nuser = \"me\""), "`schema_registry.url`: is missing: the other settings need it"),
            (
                with("[schema_registry]\nurl = \"http://registry\"\npassword = \"secret\""),
                "`schema_registry.user`: is missing: the password belongs to one",
            ),
            (
                with("[schema_registry]\nurl = \"http://registry\"\nclient_certificate = \"me.pem\""),
                "`schema_registry.client_key`: a client certificate and its key belong together: set both or neither",
            ),
            (
                with("[schema_registry]\npassword = 5"),
                "`schema_registry.password`: invalid type: expected a string; what was found is not shown",
            ),
            (with("[schema_registry]\ntimeout = \"0s\""), "`schema_registry.timeout`: must be longer than zero"),
            (stream_with("group = \" \""), "`streams.reviews.group`: must not be empty"),
            (stream_with("text_bytes_max = \"0B\""), "`streams.reviews.text_bytes_max`: must be larger than zero"),
            (stream_with("in_flight_bytes_max = 0"), "`streams.reviews.in_flight_bytes_max`: must be larger than zero"),
            (
                stream_with("in_flight_documents_max = 0"),
                "`streams.reviews.in_flight_documents_max`: invalid value signed int `0`, expected a nonzero usize",
            ),
            (
                stream_with("batch_documents_max = 0"),
                "`streams.reviews.batch_documents_max`: invalid value signed int `0`, expected a nonzero usize",
            ),
            (
                live_with("topic = \"a b\""),
                "`streams.reviews.live.topic`: `a b` is not a topic name: 1 to 249 characters of letters, digits, `-`, `_` and `.`",
            ),
            (
                live_with("topic = \"reviews\""),
                "`streams.reviews.live.topic`: `reviews` is the topic the stream reads: name another one",
            ),
            (
                live_with("dead_letters = \"reviews.labels\""),
                "`streams.reviews.live.dead_letters`: `reviews.labels` is the topic of the labels: name another one",
            ),
            (
                live_with("cleanup = \"forget\""),
                "`streams.reviews.live.cleanup`: unknown variant: found `forget`, expected `one of `delete`, `compact`, `compact-delete``",
            ),
            (live_with("retention = \"0s\""), "`streams.reviews.live.retention`: must be longer than zero"),
            (
                live_with("partitions = 0"),
                "`streams.reviews.live.partitions`: invalid value signed int `0`, expected a nonzero u16",
            ),
            (
                live_with("replication = 0"),
                "`streams.reviews.live.replication`: invalid value signed int `0`, expected a nonzero u16",
            ),
            (
                live_with("unpublished_bytes_max = 0"),
                "`streams.reviews.live.unpublished_bytes_max`: must be larger than zero",
            ),
            (
                live_with("transaction_timeout = \"5ms\""),
                "`streams.reviews.live.transaction_timeout`: must be at least 1 s",
            ),
            (
                live_with("transaction_bytes_max = 0"),
                "`streams.reviews.live.transaction_bytes_max`: must be larger than zero",
            ),
            (
                stream_with("[streams.reviews.rejections]\nkeep_records = \"0s\""),
                "`streams.reviews.rejections.keep_records`: must be longer than zero",
            ),
            (
                stream_with("[streams.reviews.rejections]\nshare_max = 1.5"),
                "`streams.reviews.rejections.share_max`: `1.5` must be above 0, and at most 1, which bears any share",
            ),
            (
                stream_with("[streams.reviews.rejections]\nstreak_max = -1"),
                "`streams.reviews.rejections.streak_max`: invalid value signed int `-1`, expected usize",
            ),
            (
                replaced("id = \"/id\"", "id = \"id\""),
                "`streams.reviews.fields.id`: `id` is not a JSON Pointer: write `/name` or `/outer/inner` (`~1` for a slash in a name), or `key` or `value` for the record's key or its whole value",
            ),
            (
                replaced("text = [\"/title\", \"/body\"]", "text = \"/text\"\noccurred_at_unit = \"days\""),
                "`streams.reviews.fields.occurred_at_unit`: unknown variant: found `days`, expected `one of `seconds`, `milliseconds`, `microseconds``",
            ),
            (
                replaced("text = [\"/title\", \"/body\"]", "text = []"),
                "`streams.reviews.fields.text`: must name at least one field",
            ),
            (
                replaced("text = [\"/title\", \"/body\"]", "text = \"/text\"\ntext_pair = []"),
                "`streams.reviews.fields.text_pair`: must name at least one field",
            ),
            (
                replaced("text = [\"/title\", \"/body\"]", "text = \"/text\"\ntext_pair = \"position\""),
                "`streams.reviews.fields.text_pair`: `position` is where the record stands, which can only be the `id`",
            ),
            (
                replaced("text = [\"/title\", \"/body\"]", "text = \"/text\"\nitem = \"item\""),
                "`streams.reviews.fields.item`: `item` is not a JSON Pointer: write `/name` or `/outer/inner` (`~1` for a slash in a name), or `key` or `value` for the record's key or its whole value",
            ),
        ];
        let wrong: Vec<_> = cases
            .iter()
            .map(|(text, expected)| (problems(text), [(*expected).to_owned()]))
            .filter(|(found, expected)| found != expected)
            .collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert_eq!(
            problems(&format!("[models.\"a/b\"]\npath = \"a\"\n{VALID}")),
            ["`models.a/b`: the name must be 1 to 100 characters of letters, digits, `-`, `_` and `.`"]
        );
    }

    #[test]
    fn a_configuration_without_streams_serves_until_a_stream_is_needed() {
        let config = load_text("[models.a]\npath = \"a\"", &[]).unwrap();
        assert_eq!(
            config.with_streams().unwrap_err().to_string(),
            "the configuration has 1 problem(s):\n  `streams`: there is none: add `[streams.NAME]` with a topic, models and fields"
        );
        load_text(VALID, &[]).unwrap().with_streams().unwrap();
    }

    #[test]
    fn all_problems_are_found_at_once() {
        let text = VALID.replace("topic = \"reviews\"", "topic = \"?\"\nstart = \"?\"").replace("\"/id\"", "\"?\"");
        assert_eq!(problems(&text).len(), 3);
    }

    #[test]
    fn two_streams_cannot_share_a_group() {
        let second = VALID
            .replace("streams.reviews", "streams.other")
            .replace("[models.sentiment]", "")
            .replace("path = \"models/albert-sentiment\"", "");
        let text = format!("{VALID}\n{}", second.replace("models = [", "group = \"albertine.reviews\"\nmodels = ["));
        assert_eq!(
            problems(&text),
            [
                "`streams.reviews.group`: `albertine.reviews` is also the group of stream `other`: two streams are two groups"
            ]
        );
    }

    #[test]
    fn two_streams_cannot_write_one_topic_and_none_reads_what_another_writes() {
        let second = |topic: &str, live: &str| {
            format!(
                "{VALID}\n[streams.other]\ntopic = \"{topic}\"\nmodels = [\"sentiment\"]\n[streams.other.live]\ntopic = \"{live}\"\n[streams.other.fields]\nid = \"/id\"\ntext = \"/text\"\n"
            )
        };
        let shared =
            "`streams.reviews.live.topic`: `reviews.labels` is also a topic of stream `other`: name another one";
        assert_eq!(problems(&second("other", "reviews.labels")), [shared]);
        assert_eq!(problems(&second("reviews.labels", "other.labels")), [shared]);
        assert!(load_text(&second("reviews", "other.labels"), &[]).is_ok());
    }

    #[test]
    fn a_missing_file_says_how_to_name_one() {
        let error = load("nowhere.toml".as_ref(), Overrides::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no configuration file `nowhere.toml`; name one with `--config` or `ALBERTINE_CONFIG`"
        );
    }
}
