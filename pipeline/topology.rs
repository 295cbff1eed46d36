//! Puts the parts together: the only place that names concrete types, makes channels, and starts threads
//! and tasks. It holds no rule of its own beyond the order of starting and stopping.
//!
//! A stream runs as one poll thread (source), the tokenizer threads (intake) and one task (committer). The
//! engine's threads are shared by all streams. On shutdown the sources stop reading, what is in flight is
//! stored until the deadline, and the partitions are handed back.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use backon::{ExponentialBuilder, Retryable};
use tokio::{runtime::Handle, sync::mpsc, task::JoinSet};

use crate::{
    config::resolved::{Config, StreamConfig},
    domain::checkpoint::{Claim, Position},
    engine::{Engine, job::ModelIndex, session::OnnxRuntime},
    model::folder::Model,
    source::{
        Claims, Sink, SourceControl,
        kafka::{self, KafkaSourceConfig},
    },
    storage::{ErrorKind, StoreError, postgres::Postgres, retention},
    stream::{
        Event,
        committer::{Committer, CommitterConfig},
        intake::{self, Intake, IntakeConfig},
    },
    telemetry,
};

/// Events of a stream on their way to its committer. It never blocks, so this only evens out bursts;
/// larger costs memory, smaller makes engine threads wait for it.
const EVENTS_QUEUE: usize = 4096;

/// How long the connections to Postgres may take to close. It only matters where the server hangs.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// The models a command needs, by name, and the engine that runs them.
pub struct ModelHost {
    pub models: BTreeMap<String, (ModelIndex, Arc<Model>)>,
    pub engine: Engine,
}

impl ModelHost {
    /// Opens the named models and starts the engine.
    ///
    /// # Errors
    /// Where a model is not configured or broken, or ONNX Runtime cannot be loaded.
    pub fn start<'a>(config: &Config, names: impl IntoIterator<Item = &'a String>) -> anyhow::Result<Self> {
        let mut models = BTreeMap::new();
        let mut opened = Vec::new();
        for name in names {
            if !models.contains_key(name) {
                let model = Arc::new(open_model(config, name)?);
                models.insert(name.clone(), (opened.len(), Arc::clone(&model)));
                opened.push(model);
            }
        }
        let engine = Engine::start(&load_runtime(config)?, &opened, config.engine)?;
        Ok(Self { models, engine })
    }
}

/// A model was asked for that the configuration does not have.
#[derive(Debug, thiserror::Error)]
#[error("no model `{name}` is configured; there is: {known}")]
pub struct UnknownModel {
    name: String,
    known: String,
}

/// Opens a configured model.
///
/// # Errors
/// Where there is none of this name, or its folder is broken.
pub fn open_model(config: &Config, name: &str) -> anyhow::Result<Model> {
    let path = config.models.get(name).ok_or_else(|| {
        let known: Vec<&str> = config.models.keys().map(String::as_str).collect();
        UnknownModel { name: name.to_owned(), known: known.join(", ") }
    })?;
    Ok(Model::open(path)?.named(name))
}

/// Loads ONNX Runtime from where the configuration says.
///
/// # Errors
/// Where it does not say, or nothing usable is there.
pub fn load_runtime(config: &Config) -> anyhow::Result<OnnxRuntime> {
    let library = config.onnxruntime_library.as_deref().ok_or_else(|| {
        anyhow!("where is ONNX Runtime? set `engine.onnxruntime_library` or `ORT_DYLIB_PATH` to its libonnxruntime.so")
    })?;
    Ok(OnnxRuntime::load(library)?)
}

/// Runs all streams until `shutdown` resolves or one of them fails.
///
/// # Errors
/// The first failure; by then everything has been stopped.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    if let Some(listen) = config.metrics_listen {
        telemetry::metrics::serve(listen)?;
    }
    let store = Postgres::connect(&config.postgres).await?;
    store.check_migrated(&config.postgres.schema).await?;
    store.maintain_partitions(config.rejections_retention).await?;
    let host = ModelHost::start(&config, config.streams.values().flat_map(|stream| &stream.models))?;
    let engine = Arc::new(host.engine);
    let mut streams = Vec::new();
    let (failures, mut failed) = mpsc::channel(config.streams.len());
    for stream in config.streams.values() {
        let models: Vec<(ModelIndex, Arc<Model>)> =
            stream.models.iter().filter_map(|name| host.models.get(name).cloned()).collect();
        store.register_models(&stream.name, &models.iter().map(|(_, model)| &**model).collect::<Vec<_>>()).await?;
        streams.push(RunningStream::start(&config, stream, models, &store, &engine, &failures)?);
    }
    tracing::info!(streams = streams.len(), engine_sessions = config.engine.sessions.get(), "running");
    let maintenance = tokio::spawn(maintain(store.clone(), config.rejections_retention));

    let failure = tokio::select! {
        () = shutdown => None,
        failure = failed.recv() => failure,
    };
    let deadline = if failure.is_some() { Duration::ZERO } else { config.shutdown_deadline };
    stop(streams, engine, deadline).await;
    maintenance.abort();
    if tokio::time::timeout(CLOSE_TIMEOUT, store.close()).await.is_err() {
        tracing::warn!("Postgres did not take its leave in time; its connections are cut");
    }
    failure.map_or(Ok(()), Err)
}

async fn maintain(store: Postgres, retention: Duration) {
    loop {
        tokio::time::sleep(retention::INTERVAL).await;
        if let Err(error) = store.maintain_partitions(retention).await {
            tracing::warn!(%error, "the partitions by month could not be maintained; trying again in an hour");
        }
    }
}

/// A stream's threads and task.
struct RunningStream {
    name: Arc<str>,
    control: Arc<SourceControl>,
    events: mpsc::Sender<Event>,
    committer: JoinSet<()>,
    threads: Vec<JoinHandle<()>>,
}

impl RunningStream {
    fn start(
        config: &Config,
        stream: &StreamConfig,
        models: Vec<(ModelIndex, Arc<Model>)>,
        store: &Postgres,
        engine: &Arc<Engine>,
        failures: &mpsc::Sender<anyhow::Error>,
    ) -> anyhow::Result<Self> {
        let (events, events_out) = mpsc::channel(EVENTS_QUEUE);
        let committer_config = CommitterConfig {
            batch_documents_max: stream.batch_documents_max,
            // One connection stays free for claims and for reading checkpoints.
            batches_max: (config.postgres.connections_max as usize).saturating_sub(1).max(1),
        };
        let committer = Committer::new(Arc::new(store.clone()), committer_config, events_out);
        let mut committers = JoinSet::new();
        committers.spawn({
            let (failures, name) = (failures.clone(), stream.name.clone());
            async move {
                if let Err(error) = committer.run().await {
                    let _ = failures.try_send(anyhow::Error::new(error).context(format!("stream `{name}` stopped")));
                }
            }
        });

        // The source keeps at most this many in flight a stream, and one more for each poll it is late.
        let (intake, records) = Intake::new(events.clone(), stream.in_flight_documents_max * 2);
        let intake_config = Arc::new(IntakeConfig {
            stream: stream.name.clone(),
            mapping: stream.mapping.clone(),
            text_bytes_max: stream.text_bytes_max,
            models,
        });
        let mut threads = Vec::new();
        for index in 0..config.tokenizer_threads.get() {
            let (config, records, engine, events) =
                (Arc::clone(&intake_config), records.clone(), Arc::clone(engine), events.clone());
            threads.push(spawn_thread(&format!("intake-{}-{index}", stream.name), move || {
                intake::work(&config, &records, &engine, &events);
            })?);
        }

        let control = Arc::new(SourceControl::default());
        let claims = StoreClaims {
            store: store.clone(),
            stream: stream.name.clone(),
            topic: stream.topic.clone(),
            runtime: Handle::current(),
            timeout: config.claim_timeout,
        };
        let source_config = KafkaSourceConfig {
            stream: stream.name.clone(),
            topic: stream.topic.clone(),
            group: stream.group.clone(),
            start: stream.start,
            in_flight_documents_max: stream.in_flight_documents_max,
            in_flight_bytes_max: stream.in_flight_bytes_max,
            reclaim_delay: config.kafka.reclaim_delay,
            client: config.kafka.client.clone(),
        };
        let (source_control, failures) = (Arc::clone(&control), failures.clone());
        threads.push(spawn_thread(&format!("source-{}", stream.name), move || {
            let sink: Arc<dyn Sink> = Arc::new(intake);
            if let Err(error) = kafka::run(source_config, Arc::new(claims), sink, &source_control) {
                let _ = failures.try_send(error.into());
            }
        })?);
        Ok(Self { name: stream.name.clone(), control, events, committer: committers, threads })
    }
}

/// Stores what is in flight until the deadline, then hands back the rest.
async fn stop(mut streams: Vec<RunningStream>, engine: Arc<Engine>, deadline: Duration) {
    let started = Instant::now();
    for stream in &streams {
        stream.control.drain();
        let _ = stream.events.send(Event::Drain).await;
    }
    for stream in &mut streams {
        let left = deadline.saturating_sub(started.elapsed());
        if tokio::time::timeout(left, stream.committer.join_next()).await.is_err() {
            tracing::warn!(stream = %stream.name, "not everything in flight was stored by the deadline; the rest is read again by the next owner");
        }
        stream.committer.abort_all();
        stream.control.close();
    }
    engine.close();
    let threads: Vec<_> = streams.into_iter().flat_map(|stream| stream.threads).collect();
    let joined = tokio::task::spawn_blocking(move || {
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a stream's thread panicked");
            }
        }
        drop(engine);
    });
    if let Err(error) = joined.await {
        tracing::error!(%error, "the threads could not be joined");
    }
    tracing::info!(seconds = started.elapsed().as_secs_f32(), "stopped");
}

fn spawn_thread(name: &str, run: impl FnOnce() + Send + 'static) -> anyhow::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .with_context(|| format!("cannot start thread `{name}`"))
}

/// The claims of one stream, for a source that lives on a thread outside the runtime.
struct StoreClaims {
    store: Postgres,
    stream: Arc<str>,
    topic: Arc<str>,
    runtime: Handle,
    /// How long a claim waits for Postgres. Below the group's `max.poll.interval.ms` (5 minutes), or the
    /// partition would be given away meanwhile.
    timeout: Duration,
}

impl StoreClaims {
    /// Tries until it works, fails for good, or the time is over.
    fn wait<T, F: Future<Output = Result<T, StoreError>>>(&self, attempt: impl FnMut() -> F) -> anyhow::Result<T> {
        let backoff = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(2))
            .with_total_delay(Some(self.timeout))
            .without_max_times();
        let attempts = attempt
            .retry(backoff)
            .when(|error| error.kind == ErrorKind::Retryable)
            .notify(|error, delay| tracing::warn!(stream = %self.stream, %error, retry_in_ms = delay.as_millis(), "Postgres did not answer a claim"));
        Ok(self.runtime.block_on(attempts)?)
    }
}

impl Claims for StoreClaims {
    fn known_partitions(&self) -> anyhow::Result<Vec<i32>> {
        self.wait(|| self.store.known_partitions(&self.stream, &self.topic))
    }

    fn initialise(&self, starts: &[(i32, Position)]) -> anyhow::Result<()> {
        self.wait(|| self.store.initialise_checkpoints(&self.stream, &self.topic, starts))
    }

    fn claim(&self, partitions: &[i32]) -> anyhow::Result<Vec<Claim>> {
        self.wait(|| self.store.claim(&self.stream, &self.topic, partitions))
    }
}
