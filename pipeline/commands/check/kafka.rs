//! Kafka: the connection, the user, and of each stream its topic, its grants, its records and its live topics.

use std::{collections::BTreeMap, time::Duration};

use anyhow::bail;
use tokio::runtime::Runtime;

use super::records;
use crate::{
    commands::report::Report,
    config::{
        resolved::{Config, LiveConfig, StreamConfig},
        secret::ClientSettings,
    },
    kafka::{
        admin::{self, AdminError},
        connection,
        diagnosis::Stage,
        grants::{self, Grant},
    },
    model::folder::Model,
    publish::kafka::{
        KafkaLiveTopic,
        topics::{self, LiveTopicShape},
    },
    source::kafka,
    topology,
};

/// How long the broker may take to begin a transaction: an operator is waiting.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(5);

pub fn check(
    config: &Config,
    models: &BTreeMap<String, Model>,
    runtime: &Runtime,
    report: &mut Report,
) -> std::io::Result<()> {
    let Some(first) = config.streams.values().next() else { return Ok(()) };
    if !check_connection(&config.kafka.client, &first.topic, report)? {
        for stream in config.streams.values() {
            report.skipped(format!("stream `{}`", stream.name), "there is no connection to Kafka")?;
        }
        return Ok(());
    }
    for stream in config.streams.values() {
        check_stream(config, stream, models, runtime, report)?;
    }
    Ok(())
}

/// Returns whether brokers can be asked.
fn check_connection(client: &ClientSettings, topic: &str, report: &mut Report) -> std::io::Result<bool> {
    let setting = |name: &str| client.0.get(name).map(String::as_str);
    let servers = format!("Kafka at `{}`", setting("bootstrap.servers").unwrap_or_default());
    let protocol = setting("security.protocol").unwrap_or("plaintext").to_ascii_uppercase();
    let reachable = format!("reachable by {protocol}");
    match connection::check(client, topic) {
        Ok(()) => {
            report.line(servers, Ok(reachable))?;
            report.line("Kafka user", Ok(user(client, &protocol)))
        }
        Err(error) if error.diagnosis.stage == Stage::Authentication => {
            report.line(servers, Ok(reachable))?;
            report.line("Kafka user", Err(error.into()))
        }
        Err(error) => {
            report.line(servers, Err(error.into()))?;
            report.skipped("Kafka user", "there is no connection to Kafka")?;
            Ok(false)
        }
    }
}

/// Who the broker takes this program for, as far as the settings tell.
fn user(client: &ClientSettings, protocol: &str) -> String {
    let setting = |name: &str| client.0.get(name).map(String::as_str);
    let has_certificate = ["ssl.certificate.location", "ssl.certificate.pem", "ssl.keystore.location"]
        .iter()
        .any(|name| client.0.contains_key(*name));
    if protocol.starts_with("SASL") {
        let mechanism = setting("sasl.mechanism").or_else(|| setting("sasl.mechanisms")).unwrap_or_default();
        let name = setting("sasl.username").or_else(|| setting("sasl.oauthbearer.client.id")).unwrap_or_default();
        format!("`{name}` by {mechanism}")
    } else if protocol == "SSL" && has_certificate {
        "that of the client certificate".into()
    } else {
        "none: the broker is told no name".into()
    }
}

fn check_stream(
    config: &Config,
    stream: &StreamConfig,
    models: &BTreeMap<String, Model>,
    runtime: &Runtime,
    report: &mut Report,
) -> std::io::Result<()> {
    let (name, client) = (&stream.name, &config.kafka.client);
    let of = |what: &str| format!("{what} of `{name}`");
    let partitions = kafka::probe(client, name, &stream.topic).map_err(anyhow::Error::from);
    let topic = match &partitions {
        Ok(partitions) => check_topic(client, stream, *partitions, runtime),
        Err(error) => Err(anyhow::anyhow!("{error}")),
    };
    report.line(format!("stream `{name}`"), topic)?;
    let may_read = if partitions.is_ok() {
        report.line(of("grants"), check_grants(client, stream))?
    } else {
        report.skipped(of("grants"), "there is no topic to read")?;
        false
    };
    if may_read {
        records::check(config, stream, models, report)?;
    } else {
        report.skipped(of("records"), "the topic cannot be read")?;
    }
    let Some(live) = &stream.live else { return Ok(()) };
    report.line(of("live labels"), check_live(client, stream, live, partitions.unwrap_or(1), runtime))?;
    report.line(of("transactions"), check_transactions(config, stream, live))?;
    Ok(())
}

fn check_topic(
    client: &ClientSettings,
    stream: &StreamConfig,
    partitions: i32,
    runtime: &Runtime,
) -> anyhow::Result<String> {
    let detail = format!("topic `{}` with {partitions} partition(s)", stream.topic);
    let compacted = match runtime.block_on(admin::is_compacted(client, &stream.topic)) {
        // Nothing else needs that right on the source.
        Err(AdminError::Refused { .. }) => {
            return Ok(format!("{detail}; whether it is compacted this user may not see"));
        }
        compacted => compacted?,
    };
    if compacted && !stream.decoder.mapping.supports_deletion() {
        bail!(
            "topic `{}` is compacted, so records without a value delete documents, but the id comes from `{}`: set `streams.{}.fields.id` to `key`, or deletions are rejected",
            stream.topic,
            stream.decoder.mapping.id,
            stream.name
        );
    }
    Ok(detail)
}

fn check_grants(client: &ClientSettings, stream: &StreamConfig) -> anyhow::Result<String> {
    grants::check_topic(client, &stream.topic, Grant::Read)?;
    grants::check_group(client, &stream.group)?;
    Ok(format!("Read on topic `{}` and on group `{}`", stream.topic, stream.group))
}

/// The live topics as they are or would be made.
fn check_live(
    client: &ClientSettings,
    stream: &StreamConfig,
    live: &LiveConfig,
    source_partitions: i32,
    runtime: &Runtime,
) -> anyhow::Result<String> {
    let key = format!("streams.{}.live", stream.name);
    let mut details = Vec::new();
    for shape in [Some(&live.labels), live.dead_letters.as_ref()].into_iter().flatten() {
        details.push(runtime.block_on(check_live_topic(client, shape, source_partitions, &key))?);
    }
    Ok(details.join(", "))
}

async fn check_live_topic(
    client: &ClientSettings,
    shape: &LiveTopicShape,
    source_partitions: i32,
    key: &str,
) -> anyhow::Result<String> {
    if topics::check(client, shape, key).await? {
        grants::check_topic(client, &shape.topic, Grant::Write)?;
        return Ok(format!("topic `{}`", shape.topic));
    }
    topics::check_creation(client, shape, source_partitions).await?;
    Ok(format!("topic `{}` (made at the first run)", shape.topic))
}

fn check_transactions(config: &Config, stream: &StreamConfig, live: &LiveConfig) -> anyhow::Result<String> {
    KafkaLiveTopic::new(topology::live_config(config, stream, live))?.check_transactions(TRANSACTION_TIMEOUT)?;
    Ok(format!("begin, with transactional ids of `{}.`", stream.group))
}
