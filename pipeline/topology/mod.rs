//! Puts the parts together: the only place that names concrete types, makes channels, and starts threads
//! and tasks. It holds no rule of its own beyond the order of starting and stopping.
//!
//! A [`Pipeline`] is one engine, one store, and any number of streams that run side by side. A stream runs as one
//! source thread, the tokenizer threads (intake), one task (committer) and, with a live topic, a thread for each
//! partition it has (publisher). The engine's threads are shared by all streams. What a stream reads is a [`Feed`]:
//! its topic, or the records of a job under a name of their own. On shutdown the sources stop reading, what is in
//! flight is stored and published until the deadline, and the partitions are handed back.

mod backfill;
mod publishing;
pub mod replay;
mod store;
mod stream;

use std::{
    collections::BTreeMap,
    future::Future,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use tokio::{sync::mpsc, task::JoinSet, time::MissedTickBehavior};

use self::stream::{Ended, RunningStream};
pub use self::{
    publishing::{ensure_live_topics, live_config},
    store::BlockingStore,
    stream::{Feed, check_pairs, intake_config},
};
use crate::{
    config::resolved::{Config, StreamConfig},
    decode::schema::{NoSchemas, Schemas},
    domain::backfill::TOPIC_PREFIX,
    engine::{Engine, job::ModelIndex, runtime::OnnxRuntime},
    model::folder::Model,
    registry::Registry,
    storage::{postgres::Postgres, retention, sums::FOLD_MAX},
    stream::inference::{Compute, Inference},
    telemetry,
};

/// How long the connections to Postgres may take to close. It only matters where the server hangs.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Streams that ended and were not heard yet. Whoever ends waits until it is heard, or the pipeline stops.
const ENDED_QUEUE: usize = 16;

/// The models a command needs, by name, and the engine that runs them.
pub struct ModelHost {
    pub models: BTreeMap<String, (ModelIndex, Arc<Model>)>,
    pub inference: Arc<Inference>,
    engine: Arc<Engine>,
}

impl ModelHost {
    /// Opens the named models and starts the engine.
    ///
    /// # Errors
    /// Where a model is not configured or broken, or ONNX Runtime cannot be loaded.
    pub fn start<'a>(config: &Config, names: impl IntoIterator<Item = &'a String>) -> anyhow::Result<Self> {
        let mut opened: Vec<Arc<Model>> = Vec::new();
        for name in names {
            if !opened.iter().any(|model| *model.name == **name) {
                opened.push(Arc::new(open_model(config, name)?));
            }
        }
        Self::serve(config, &opened)
    }

    /// Starts the engine for models that are open already, in this order. Their names differ.
    ///
    /// # Errors
    /// Where ONNX Runtime or a graph cannot be loaded.
    pub fn serve(config: &Config, models: &[Arc<Model>]) -> anyhow::Result<Self> {
        let engine = Arc::new(Engine::start(&load_runtime(config)?, models, config.engine)?);
        let named = |(index, model): (usize, &Arc<Model>)| (model.name.to_string(), (index, Arc::clone(model)));
        let compute: Arc<dyn Compute> = engine.clone();
        let inference = Arc::new(Inference::new(compute, config.duplicate_cache_bytes));
        Ok(Self { models: models.iter().enumerate().map(named).collect(), inference, engine })
    }

    /// The models of a stream, in its order.
    pub fn of(&self, stream: &StreamConfig) -> Vec<(ModelIndex, Arc<Model>)> {
        stream.models.iter().filter_map(|name| self.models.get(name).cloned()).collect()
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
    let entry = config.models.get(name).ok_or_else(|| {
        let known: Vec<&str> = config.models.keys().map(String::as_str).collect();
        UnknownModel { name: name.to_owned(), known: known.join(", ") }
    })?;
    let model = Model::open(&entry.path)?.named(name);
    Ok(if entry.early_exit { model } else { model.at_full_depth() })
}

/// Loads ONNX Runtime from where the configuration says, to compute with what it says.
///
/// # Errors
/// Where it does not say, or nothing usable is there.
pub fn load_runtime(config: &Config) -> anyhow::Result<OnnxRuntime> {
    let library = config.onnxruntime_library.as_deref().ok_or_else(|| {
        anyhow!("where is ONNX Runtime? set `engine.onnxruntime_library` or `ORT_DYLIB_PATH` to its libonnxruntime.so")
    })?;
    Ok(OnnxRuntime::load(library)?.on(config.provider)?)
}

/// Where the schemas of records come from.
///
/// # Errors
/// Where a file that the registry's client needs cannot be read.
pub fn schemas(config: &Config) -> anyhow::Result<Arc<dyn Schemas>> {
    Ok(match &config.schema_registry {
        Some(registry) => Arc::new(Registry::new(registry)?),
        None => Arc::new(NoSchemas),
    })
}

/// Runs all streams on their topics until `shutdown` resolves or one of them fails. `backfills` says whether to work on
/// those too, while nothing live waits.
///
/// # Errors
/// The first failure; by then everything has been stopped.
pub async fn run(config: Config, backfills: Backfills, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    if let Some(listen) = config.metrics_listen {
        telemetry::metrics::serve(listen)?;
    }
    let mut pipeline = Pipeline::start(&config, config.streams.values()).await?;
    pipeline.backfills = backfills;
    for stream in config.streams.values() {
        let feed = pipeline.topic_of(stream);
        pipeline.add(stream, feed).await?;
    }
    pipeline.run_until(shutdown).await
}

/// Whether running backfills are worked on beside the streams that were added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backfills {
    TakeUp,
    LeaveToOthers,
}

/// One engine, one store, and the streams that run on them.
pub struct Pipeline<'a> {
    config: &'a Config,
    store: Postgres,
    schemas: Arc<dyn Schemas>,
    host: ModelHost,
    running: Vec<RunningStream>,
    backfills: Backfills,
    ended: (mpsc::Sender<Ended>, mpsc::Receiver<Ended>),
    maintenance: JoinSet<()>,
}

impl<'a> Pipeline<'a> {
    /// Opens what all streams share: the store, the models of these streams, the engine.
    ///
    /// # Errors
    /// Where Postgres cannot be used as it is, or a model or ONNX Runtime cannot be loaded.
    pub async fn start(
        config: &'a Config,
        streams: impl IntoIterator<Item = &'a StreamConfig>,
    ) -> anyhow::Result<Self> {
        let store = Postgres::connect(&config.postgres).await?;
        store.check_migrated(&config.postgres.schema).await?;
        store.maintain_partitions(config.rejections_retention).await?;
        if !store.owns_tables().await? {
            tracing::info!(
                "this role does not own the tables: rejections are kept without monthly partitions, and old ones are deleted row by row"
            );
        }
        let schemas = schemas(config)?;
        let host = ModelHost::start(config, streams.into_iter().flat_map(|stream| &stream.models))?;
        tracing::info!(provider = %config.provider, sessions = config.engine.sessions, "the engine is ready");
        let mut maintenance = JoinSet::new();
        maintenance.spawn(maintain(store.clone(), config.rejections_retention));
        maintenance.spawn(fold(store.clone()));
        let (running, ended) = (Vec::new(), mpsc::channel(ENDED_QUEUE));
        let backfills = Backfills::LeaveToOthers;
        Ok(Self { config, store, schemas, host, running, backfills, ended, maintenance })
    }

    pub fn store(&self) -> &Postgres {
        &self.store
    }

    /// The store for a source that reads `topic`, whose thread stands outside the runtime.
    pub fn blocking_store(&self, stream: &StreamConfig, topic: &Arc<str>) -> BlockingStore {
        BlockingStore::new(&self.store, stream, topic, self.config.claim_timeout)
    }

    /// What a stream reads all day: its topic.
    pub fn topic_of(&self, stream: &StreamConfig) -> Feed {
        stream::topic_feed(self.config, stream, self.blocking_store(stream, &stream.topic))
    }

    /// Sends what `feed` reads through a stream's models. One of the streams that the pipeline was started with.
    ///
    /// # Errors
    /// Where a live topic cannot be made, the store does not answer, or a thread cannot be started.
    pub async fn add(&mut self, stream: &StreamConfig, feed: Feed) -> anyhow::Result<()> {
        let models = self.host.of(stream);
        if feed.publishes {
            ensure_live_topics(self.config, stream).await?;
        }
        let registered: Vec<&Model> = models.iter().map(|(_, model)| &**model).collect();
        self.store.register_models(&stream.name, &registered).await?;
        let blocking = self.blocking_store(stream, &feed.topic);
        let intake = intake_config(stream, models, &self.schemas)?;
        let parts = stream::Parts {
            config: self.config,
            store: blocking,
            inference: &self.host.inference,
            ended: &self.ended.0,
        };
        tracing::info!(stream = %stream.name, topic = %feed.topic, "running");
        self.running.push(RunningStream::start(&parts, stream, intake, feed)?);
        Ok(())
    }

    /// Runs until `shutdown` resolves, a stream fails, or all of them have come to the end of what they read.
    ///
    /// # Errors
    /// The first failure; by then everything has been stopped.
    pub async fn run_until(mut self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let failure = tokio::select! {
            () = shutdown => None,
            failure = self.all_ended() => failure,
        };
        let deadline = if failure.is_some() { Duration::ZERO } else { self.config.shutdown_deadline };
        self.stop(deadline).await;
        failure.map_or(Ok(()), Err)
    }

    /// The first failure; `None` once all sources have ended well.
    async fn all_ended(&mut self) -> Option<anyhow::Error> {
        let mut look = tokio::time::interval(backfill::LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.running.is_empty() {
            tokio::select! {
                // The pipeline holds a sender itself, so there is always another one.
                ended = self.ended.1.recv() => {
                    if let Some(failure) = self.leave(ended?).await {
                        return Some(failure);
                    }
                }
                _ = look.tick(), if self.backfills == Backfills::TakeUp => {
                    if let Err(error) = self.take_up_backfills().await {
                        tracing::warn!(error = format!("{error:#}"), "cannot work on backfills; trying again");
                    }
                }
            }
        }
        None
    }

    /// Stops a stream that ended. What it failed with, unless it is a backfill beside live streams: those go on, and it
    /// is taken up again.
    async fn leave(&mut self, Ended { stream, topic, result }: Ended) -> Option<anyhow::Error> {
        let is_beside = self.backfills == Backfills::TakeUp && topic.starts_with(TOPIC_PREFIX);
        let failure = result.err();
        if let Some(error) = &failure {
            if !is_beside {
                return failure;
            }
            tracing::error!(%stream, %topic, error = format!("{error:#}"), "a backfill failed");
        }
        let is_it = |running: &mut RunningStream| running.stream == stream && running.topic == topic;
        let ended: Vec<RunningStream> = self.running.extract_if(.., is_it).collect();
        // What it read is stored already, unless it failed: then nothing is waited for.
        let deadline = if failure.is_some() { Duration::ZERO } else { self.config.shutdown_deadline };
        let stopped = stop(ended, deadline).await;
        // A thread may wait for room in the engine for as long as live windows take it.
        self.maintenance.spawn(stopped.join());
        None
    }

    /// Stores what is in flight until the deadline, then hands back the rest and closes everything.
    async fn stop(mut self, deadline: Duration) {
        let started = Instant::now();
        self.ended.1.close();
        let stopped = stop(std::mem::take(&mut self.running), deadline).await;
        // Threads that wait for room in its queue go on.
        self.host.engine.close();
        stopped.join().await;
        let host = self.host;
        if let Err(error) = tokio::task::spawn_blocking(move || drop(host)).await {
            tracing::error!(%error, "the engine could not be closed");
        }
        tracing::info!(seconds = started.elapsed().as_secs_f32(), "stopped");
        self.maintenance.shutdown().await;
        if tokio::time::timeout(CLOSE_TIMEOUT, self.store.close()).await.is_err() {
            tracing::warn!("Postgres did not take its leave in time; its connections are cut");
        }
    }
}

async fn maintain(store: Postgres, retention: Duration) {
    loop {
        tokio::time::sleep(retention::INTERVAL).await;
        if let Err(error) = store.maintain_partitions(retention).await {
            tracing::warn!(%error, "the partitions by month could not be maintained; trying again in an hour");
        }
    }
}

/// How often the changes to the sums of items are folded. Views count both, so nothing waits for it; a longer
/// interval makes them read more.
const FOLD_INTERVAL: Duration = Duration::from_secs(1);

async fn fold(store: Postgres) {
    loop {
        match store.fold_sums().await {
            Ok(changes) => {
                metrics::counter!(telemetry::metrics::SUMS_FOLDED).increment(changes);
                // A backlog makes more than that in a second.
                if changes >= FOLD_MAX.into() {
                    continue;
                }
            }
            Err(error) => tracing::debug!(%error, "the sums of items were not folded; trying again in a second"),
        }
        tokio::time::sleep(FOLD_INTERVAL).await;
    }
}

/// The threads of streams that were stopped.
struct Stopped(Vec<JoinHandle<()>>);

/// Stores what is in flight until the deadline, then hands back the rest.
async fn stop(mut streams: Vec<RunningStream>, deadline: Duration) -> Stopped {
    let started = Instant::now();
    for stream in &streams {
        stream.drain().await;
    }
    for stream in &mut streams {
        stream.finish(started + deadline).await;
    }
    Stopped(streams.into_iter().flat_map(RunningStream::into_threads).collect())
}

impl Stopped {
    async fn join(self) {
        let joined = tokio::task::spawn_blocking(move || {
            for thread in self.0 {
                if thread.join().is_err() {
                    tracing::error!("a stream's thread panicked");
                }
            }
        });
        if let Err(error) = joined.await {
            tracing::error!(%error, "the threads could not be joined");
        }
    }
}

fn spawn_thread(name: &str, run: impl FnOnce() + Send + 'static) -> anyhow::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .with_context(|| format!("cannot start thread `{name}`"))
}
