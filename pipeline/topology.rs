//! Puts the parts together: the only place that names concrete types, makes channels, and starts threads
//! and tasks. It holds no rule of its own beyond the order of starting and stopping.
//!
//! A stream runs as one poll thread (source), the tokenizer threads (intake), one task (committer) and, with a
//! live topic, a thread for each partition it has (publisher). The engine's threads are shared by all streams. On
//! shutdown the sources stop reading, what is in flight is stored and published until the deadline, and the
//! partitions are handed back.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use backon::{ExponentialBuilder, Retryable};
use tokio::{runtime::Handle, sync::mpsc, task::JoinSet};

use crate::{
    config::{
        file::OtherLanguages,
        resolved::{Config, LiveConfig, StreamConfig},
    },
    domain::{
        checkpoint::{Claim, PartitionKey, TopicStart},
        live::{LiveFormat, OutboxRange, Published},
        publication::StoredState,
    },
    engine::{Engine, job::ModelIndex, session::OnnxRuntime},
    model::folder::Model,
    publish::{
        Outbox, Publisher, PublishingSink,
        kafka::{KafkaLiveConfig, KafkaLiveTopic, topics},
    },
    source::{
        Claims, Lease, Sink, SourceControl,
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
    pub engine: Arc<Engine>,
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
        Ok(Self { models, engine: Arc::new(engine) })
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
    let engine = Arc::clone(&host.engine);
    let mut streams = Vec::new();
    let (failures, mut failed) = mpsc::channel(config.streams.len());
    for stream in config.streams.values() {
        let models = host.of(stream);
        ensure_live_topics(&config, stream).await?;
        store.register_models(&stream.name, &models.iter().map(|(_, model)| &**model).collect::<Vec<_>>()).await?;
        streams.push(RunningStream::start(&config, stream, models, &store, &engine, &failures)?);
    }
    drop(host);
    tracing::info!(streams = streams.len(), engine_sessions = config.engine.sessions.get(), "running");
    let mut maintenance = JoinSet::new();
    maintenance.spawn(maintain(store.clone(), config.rejections_retention));
    maintenance.spawn(fold(store.clone()));

    let failure = tokio::select! {
        () = shutdown => None,
        failure = failed.recv() => failure,
    };
    let deadline = if failure.is_some() { Duration::ZERO } else { config.shutdown_deadline };
    stop(streams, engine, deadline).await;
    maintenance.shutdown().await;
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

/// How often the changes to the sums of items are folded. Views count both, so nothing waits for it; a longer
/// interval makes them read more.
const FOLD_INTERVAL: Duration = Duration::from_secs(1);

async fn fold(store: Postgres) {
    loop {
        tokio::time::sleep(FOLD_INTERVAL).await;
        match store.fold_sums().await {
            Ok(changes) => metrics::counter!(telemetry::metrics::SUMS_FOLDED).increment(changes),
            Err(error) => tracing::debug!(%error, "the sums of items were not folded; trying again in a second"),
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
    publishing: Option<Publishing>,
}

/// A stream's publisher and its threads, one a lease.
struct Publishing {
    publisher: Arc<Publisher>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
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
            live: stream.live.as_ref().map(|live| live_format(live, &models)),
            keep_records: stream.rejections.keep_records,
            limits: stream.rejections.limits,
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
        let intake_config = Arc::new(intake_config(stream, models));
        let mut threads = Vec::new();
        for index in 0..config.tokenizer_threads.get() {
            let (config, records, engine, events) =
                (Arc::clone(&intake_config), records.clone(), Arc::clone(engine), events.clone());
            threads.push(spawn_thread(&format!("intake-{}-{index}", stream.name), move || {
                intake::work(&config, &records, &engine, &events);
            })?);
        }

        let control = Arc::new(SourceControl::default());
        let blocking = BlockingStore {
            store: store.clone(),
            stream: stream.name.clone(),
            topic: stream.topic.clone(),
            runtime: Handle::current(),
            timeout: config.claim_timeout,
        };
        let publishing =
            stream.live.as_ref().map(|live| Publishing::new(config, stream, live, blocking.clone())).transpose()?;
        let source_config = source_config(config, stream);
        let (source_control, failures) = (Arc::clone(&control), failures.clone());
        let sink: Arc<dyn Sink> = match &publishing {
            Some(publishing) => Arc::new(PublishingSink { inner: intake, start: publishing.starter(&stream.name) }),
            None => Arc::new(intake),
        };
        threads.push(spawn_thread(&format!("source-{}", stream.name), move || {
            if let Err(error) = kafka::run(source_config, Arc::new(blocking), sink, &source_control) {
                let _ = failures.try_send(error.into());
            }
        })?);
        Ok(Self { name: stream.name.clone(), control, events, committer: committers, threads, publishing })
    }
}

impl Publishing {
    fn new(config: &Config, stream: &StreamConfig, live: &LiveConfig, store: BlockingStore) -> anyhow::Result<Self> {
        let topic = KafkaLiveTopic::new(live_config(config, stream, live))?;
        Ok(Self {
            publisher: Arc::new(Publisher::new(Arc::new(store), Arc::new(topic), live.transaction_bytes_max)),
            threads: Arc::default(),
        })
    }

    /// Starts a thread for each lease.
    fn starter(&self, stream: &str) -> Box<dyn Fn(Arc<Lease>) + Send + Sync> {
        let (publisher, threads) = (Arc::clone(&self.publisher), Arc::clone(&self.threads));
        let stream = stream.to_owned();
        Box::new(move |lease| {
            let name = format!("publish-{stream}-{}", lease.claim.key.partition);
            let (publisher, leased) = (Arc::clone(&publisher), Arc::clone(&lease));
            let mut threads = threads.lock().unwrap_or_else(PoisonError::into_inner);
            threads.retain(|thread| !thread.is_finished());
            match spawn_thread(&name, move || publisher.run(&leased)) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    // Lost, it is claimed again, and a thread tried again.
                    tracing::error!(error = format!("{error:#}"), "cannot publish");
                    lease.lose();
                }
            }
        })
    }

    /// Waits until all that is stored is published, or the time is over.
    async fn finish(&self, timeout: Duration) -> bool {
        self.publisher.finish();
        let started = Instant::now();
        while started.elapsed() < timeout {
            if self.is_finished() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        false
    }

    fn is_finished(&self) -> bool {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.iter().for_each(|thread| thread.thread().unpark());
        threads.iter().all(JoinHandle::is_finished)
    }

    fn into_threads(self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a stream does with its records.
pub fn intake_config(stream: &StreamConfig, models: Vec<(ModelIndex, Arc<Model>)>) -> IntakeConfig {
    IntakeConfig {
        stream: stream.name.clone(),
        decoder: stream.decoder.clone(),
        rejects_other_languages: stream.other_languages == OtherLanguages::Reject,
        text_bytes_max: stream.text_bytes_max,
        models,
        keeps_records: stream.rejections.keep_records.is_some()
            || stream.live.as_ref().is_some_and(|live| live.dead_letters.is_some()),
    }
}

fn source_config(config: &Config, stream: &StreamConfig) -> KafkaSourceConfig {
    KafkaSourceConfig {
        stream: stream.name.clone(),
        topic: stream.topic.clone(),
        group: stream.group.clone(),
        start: stream.start,
        in_flight_documents_max: stream.in_flight_documents_max,
        in_flight_bytes_max: stream.in_flight_bytes_max,
        unpublished_bytes_max: stream.live.as_ref().map_or(usize::MAX, |live| live.unpublished_bytes_max),
        hints: stream.live.is_none(),
        reclaim_delay: config.kafka.reclaim_delay,
        client: config.kafka.client.clone(),
    }
}

fn live_format(live: &LiveConfig, models: &[(ModelIndex, Arc<Model>)]) -> Arc<LiveFormat> {
    let triple =
        |(_, model): &(ModelIndex, Arc<Model>)| (model.task.clone(), model.name.clone(), model.version.clone());
    Arc::new(LiveFormat { models: models.iter().map(triple).collect(), dead_letters: live.dead_letters.is_some() })
}

/// How a stream's live topic is reached.
pub fn live_config(config: &Config, stream: &StreamConfig, live: &LiveConfig) -> KafkaLiveConfig {
    KafkaLiveConfig {
        group: stream.group.clone(),
        labels_topic: live.labels.topic.clone(),
        dead_letters_topic: live.dead_letters.as_ref().map(|shape| shape.topic.clone()),
        transaction_timeout: live.transaction_timeout,
        client: config.kafka.client.clone(),
    }
}

/// Makes a stream's live topics, or checks them.
///
/// # Errors
/// Where the broker refuses, or an existing topic is of another kind.
pub async fn ensure_live_topics(config: &Config, stream: &StreamConfig) -> anyhow::Result<()> {
    let Some(live) = &stream.live else { return Ok(()) };
    let partitions = {
        let (client, name, topic) = (config.kafka.client.clone(), stream.name.clone(), stream.topic.clone());
        tokio::task::spawn_blocking(move || kafka::probe(&client, &name, &topic)).await??
    };
    let key = format!("streams.{}.live", stream.name);
    for shape in [Some(&live.labels), live.dead_letters.as_ref()].into_iter().flatten() {
        topics::ensure(&config.kafka.client, shape, partitions, &key).await?;
    }
    Ok(())
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
        if let Some(publishing) = &stream.publishing
            && !publishing.finish(deadline.saturating_sub(started.elapsed())).await
        {
            tracing::warn!(stream = %stream.name, "not everything stored was published by the deadline; the next owner publishes the rest");
        }
        stream.control.close();
    }
    engine.close();
    // Those of the publishers end last: a call to a broker that is away takes its time, and nothing waits for it.
    let (mut threads, mut publishers) = (Vec::new(), Vec::new());
    for stream in streams {
        threads.extend(stream.threads);
        publishers.extend(stream.publishing.map(Publishing::into_threads).unwrap_or_default());
    }
    publishers.retain(JoinHandle::is_finished);
    threads.append(&mut publishers);
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

/// The store of one stream, for threads outside the runtime.
#[derive(Clone)]
struct BlockingStore {
    store: Postgres,
    stream: Arc<str>,
    topic: Arc<str>,
    runtime: Handle,
    /// How long a call waits for Postgres. Below the group's `max.poll.interval.ms` (5 minutes), or the
    /// partition would be given away meanwhile.
    timeout: Duration,
}

impl BlockingStore {
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
            .notify(|error, delay| tracing::warn!(stream = %self.stream, %error, retry_in_ms = delay.as_millis(), "Postgres did not answer; trying again"));
        Ok(self.runtime.block_on(attempts)?)
    }
}

impl Claims for BlockingStore {
    fn known_partitions(&self) -> anyhow::Result<Vec<(i32, Option<String>)>> {
        self.wait(|| self.store.known_partitions(&self.stream, &self.topic))
    }

    fn initialise(&self, start: &TopicStart) -> anyhow::Result<()> {
        self.wait(|| self.store.initialise_checkpoints(&self.stream, &self.topic, start))
    }

    fn claim(&self, partitions: &[i32]) -> anyhow::Result<Vec<Claim>> {
        self.wait(|| self.store.claim(&self.stream, &self.topic, partitions))
    }
}

impl Outbox for BlockingStore {
    fn state(&self, key: &PartitionKey) -> anyhow::Result<StoredState> {
        self.wait(|| self.store.stored_state(key))?.ok_or_else(|| anyhow!("{key} has no checkpoint any more"))
    }

    fn ranges(
        &self,
        key: &PartitionKey,
        published: Option<Published>,
        bytes_max: usize,
    ) -> anyhow::Result<Vec<OutboxRange>> {
        self.wait(|| self.store.unpublished_ranges(key, published, bytes_max))
    }

    fn unpublished_bytes(&self, key: &PartitionKey, published: Published) -> anyhow::Result<usize> {
        self.wait(|| self.store.unpublished_bytes(key, published))
    }

    fn delete(&self, key: &PartitionKey, published: Published) -> anyhow::Result<()> {
        self.wait(|| self.store.delete_published(key, published)).map(drop)
    }
}
