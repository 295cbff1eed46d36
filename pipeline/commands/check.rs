//! `albertine check`: the configuration, the models and every connection, a line each; a failure with its
//! remedy.

use std::{io::Write, time::Duration};

use anyhow::{anyhow, bail};
use owo_colors::OwoColorize;

use super::{GlobalOptions, message, runtime, wants_colour};
use crate::{
    config::resolved::{Config, LiveConfig, StreamConfig},
    engine::session::{ModelSession, OnnxRuntime},
    kafka::admin,
    publish::kafka::{KafkaLiveTopic, topics},
    registry::{Registry, RegistryConfig},
    source::kafka,
    storage::postgres::{Postgres, PostgresConfig},
    topology,
};

/// How long a server may take to answer here: an operator is waiting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
#[command(after_help = "Exits with 0 if everything is in order, with 78 if the configuration is wrong, else with 1.")]
pub struct CheckArgs {}

pub fn run(global: &GlobalOptions, _: &CheckArgs) -> anyhow::Result<()> {
    let config = global.load_config()?.with_streams()?;
    let mut report = Report { failures: 0 };
    report.line(&format!("configuration `{}`", global.config.display()), Ok(summary(&config)))?;
    check_models(&config, &mut report)?;
    if let Some(registry) = &config.schema_registry {
        report.line("schema registry", check_schema_registry(registry))?;
    }
    let runtime = runtime()?;
    runtime.block_on(check_database(&config, &mut report))?;
    for stream in config.streams.values() {
        let checked = check_topic(&config, stream, &runtime);
        report.line(&format!("stream `{}`", stream.name), checked)?;
        if let Some(live) = &stream.live {
            let checked = check_live(&config, stream, live, &runtime);
            report.line(&format!("live labels of `{}`", stream.name), checked)?;
        }
    }
    if report.failures > 0 {
        bail!("{} check(s) failed", report.failures);
    }
    Ok(())
}

fn summary(config: &Config) -> String {
    format!("{} stream(s), {} model(s)", config.streams.len(), config.models.len())
}

struct Report {
    failures: usize,
}

impl Report {
    fn line(&mut self, what: &str, result: anyhow::Result<String>) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        let colour = wants_colour(&out);
        match result {
            Ok(detail) if colour => writeln!(out, "{}      {what}: {detail}", "ok".green()),
            Ok(detail) => writeln!(out, "ok      {what}: {detail}"),
            Err(error) => {
                self.failures += 1;
                let error = message(&error);
                if colour {
                    writeln!(out, "{}  {what}: {error}", "failed".red().bold())
                } else {
                    writeln!(out, "failed  {what}: {error}")
                }
            }
        }
    }
}

fn check_models(config: &Config, report: &mut Report) -> std::io::Result<()> {
    let runtime = topology::load_runtime(config);
    let library = config.onnxruntime_library.as_deref().map(|path| path.display().to_string()).unwrap_or_default();
    let runtime = match runtime {
        Ok(runtime) => {
            report.line("ONNX Runtime", Ok(library))?;
            Some(runtime)
        }
        Err(error) => {
            report.line("ONNX Runtime", Err(error))?;
            None
        }
    };
    for name in config.models.keys() {
        report.line(&format!("model `{name}`"), check_model(config, name, runtime.as_ref()))?;
    }
    Ok(())
}

/// Opens the folder, and lets the model answer once where there is a runtime.
fn check_model(config: &Config, name: &str, runtime: Option<&OnnxRuntime>) -> anyhow::Result<String> {
    let model = topology::open_model(config, name)?;
    let labels: Vec<&str> = model.labels.iter().map(|label| &**label).collect();
    let detail = format!("version {}, task `{}`, labels {}", model.version, model.task, labels.join(", "));
    let Some(runtime) = runtime else { return Ok(format!("{detail}; not run, for want of ONNX Runtime")) };
    let mut session = ModelSession::open(runtime, &model)?;
    let windows = model.tokenizer.windows("Does it answer?")?;
    let mut logits = session.infer(&[&windows[0].ids])?;
    model
        .label(&[(windows[0].fresh, logits.remove(0))])
        .ok_or_else(|| anyhow!("the model gave logits that are not numbers"))?;
    Ok(detail)
}

async fn check_database(config: &Config, report: &mut Report) -> std::io::Result<()> {
    let postgres = PostgresConfig { connect_timeout: CONNECT_TIMEOUT, ..config.postgres.clone() };
    match Postgres::connect(&postgres).await {
        Err(error) => report.line("Postgres", Err(error.into())),
        Ok(store) => {
            report.line("Postgres", Ok("reachable".into()))?;
            let schema = &config.postgres.schema;
            let migrated = store.check_migrated(schema).await.map(|()| "up to date".to_owned()).map_err(Into::into);
            let durable = store.check_durability().await.map_err(Into::into);
            store.close().await;
            report.line(&format!("schema `{schema}`"), migrated)?;
            report.line("commits", durable)
        }
    }
}

fn check_schema_registry(config: &RegistryConfig) -> anyhow::Result<String> {
    let config = RegistryConfig { timeout: config.timeout.min(CONNECT_TIMEOUT), ..config.clone() };
    let kinds = Registry::new(&config)?.check()?;
    Ok(format!("`{}` answers; schemas of {}", config.url, kinds.join(", ")))
}

fn check_topic(config: &Config, stream: &StreamConfig, runtime: &tokio::runtime::Runtime) -> anyhow::Result<String> {
    let partitions = kafka::probe(&config.kafka.client, &stream.name, &stream.topic)?;
    let compacted = runtime.block_on(admin::is_compacted(&config.kafka.client, &stream.topic))?;
    if compacted && !stream.decoder.mapping.supports_deletion() {
        bail!(
            "topic `{}` is compacted, so records without a value delete documents, but the id comes from `{}`: set `streams.{}.fields.id` to `key`, or deletions are rejected",
            stream.topic,
            stream.decoder.mapping.id,
            stream.name
        );
    }
    Ok(format!("topic `{}` with {partitions} partition(s)", stream.topic))
}

/// The live topics as they are or would be made, and whether this user may write in transactions. Nothing is made, and
/// no running worker is disturbed.
fn check_live(
    config: &Config,
    stream: &StreamConfig,
    live: &LiveConfig,
    runtime: &tokio::runtime::Runtime,
) -> anyhow::Result<String> {
    let client = &config.kafka.client;
    let key = format!("streams.{}.live", stream.name);
    let mut details = Vec::new();
    for shape in [Some(&live.labels), live.dead_letters.as_ref()].into_iter().flatten() {
        let there = runtime.block_on(topics::check(client, shape, &key))?;
        details.push(format!("topic `{}`{}", shape.topic, if there { "" } else { " (made at the first run)" }));
    }
    KafkaLiveTopic::new(topology::live_config(config, stream, live))?.check_transactions()?;
    Ok(format!("{}; transactions work", details.join(", ")))
}
