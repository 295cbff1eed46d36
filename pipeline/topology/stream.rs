//! One stream's threads and task, over whatever it reads.

use std::{sync::Arc, thread::JoinHandle, time::Instant};

use tokio::{sync::mpsc, task::JoinSet};

use super::{
    publishing::{Publishing, live_format},
    spawn_thread,
    store::BlockingStore,
};
use crate::{
    config::{
        ConfigError,
        file::OtherLanguages,
        resolved::{Config, LiveConfig, Problem, StreamConfig},
    },
    decode::{Decoder, schema::Schemas},
    domain::rejection::RejectionLimits,
    engine::{
        Priority,
        job::{ModelIndex, new_flow},
    },
    model::folder::Model,
    publish::PublishingSink,
    source::{
        Sink, SourceControl,
        kafka::{self, KafkaSourceConfig},
    },
    storage::{
        LabelStore,
        replay::{ReplayStore, ReplayedPlaces},
    },
    stream::{
        Event,
        committer::{Committer, CommitterConfig},
        inference::Inference,
        intake::{self, Intake, IntakeConfig},
    },
};

/// Events of a stream on their way to its committer. It never blocks, so this only evens out bursts;
/// larger costs memory, smaller makes engine threads wait for it.
const EVENTS_QUEUE: usize = 4096;

/// What a stream reads.
pub struct Feed {
    /// The topic of Kafka that the positions belong to, or a name with a slash, which no topic can have: that of a
    /// job whose records come from elsewhere.
    pub topic: Arc<str>,
    /// What is stored goes to the stream's live topic too.
    pub publishes: bool,
    /// The records are dead letters, which are settled as they are stored.
    pub replayed: Option<ReplayedPlaces>,
    /// In place of the stream's own.
    pub decoder: Option<Decoder>,
    pub priority: Priority,
    pub read: Read,
}

/// Delivers records to a sink, by the contract of [`source`](crate::source), until it is told to close or all it has
/// to read is stored. Runs on a thread of its own.
pub type Read = Box<dyn FnOnce(Arc<dyn Sink>, &SourceControl) -> anyhow::Result<()> + Send>;

/// The stream's own topic.
pub(super) fn topic_feed(config: &Config, stream: &StreamConfig, claims: BlockingStore) -> Feed {
    let source = source_config(config, stream);
    let read =
        move |sink: Arc<dyn Sink>, control: &SourceControl| Ok(kafka::run(source, Arc::new(claims), sink, control)?);
    Feed {
        topic: stream.topic.clone(),
        publishes: stream.live.is_some(),
        replayed: None,
        decoder: None,
        priority: Priority::Live,
        read: Box::new(read),
    }
}

/// What a stream needs of its pipeline.
pub(super) struct Parts<'a> {
    pub(super) config: &'a Config,
    /// For the topic of its feed.
    pub(super) store: BlockingStore,
    pub(super) inference: &'a Arc<Inference>,
    pub(super) ended: &'a mpsc::Sender<Ended>,
}

/// A stream failed, or came to the end of what it reads.
pub(super) struct Ended {
    pub(super) stream: Arc<str>,
    pub(super) topic: Arc<str>,
    pub(super) result: anyhow::Result<()>,
}

/// A stream's threads and task.
pub(super) struct RunningStream {
    pub(super) stream: Arc<str>,
    pub(super) topic: Arc<str>,
    control: Arc<SourceControl>,
    events: mpsc::Sender<Event>,
    committer: JoinSet<()>,
    threads: Vec<JoinHandle<()>>,
    publishing: Option<Publishing>,
}

impl RunningStream {
    pub(super) fn start(
        parts: &Parts<'_>,
        stream: &StreamConfig,
        intake_config: IntakeConfig,
        feed: Feed,
    ) -> anyhow::Result<Self> {
        let Feed { topic, publishes, replayed, decoder, priority, read } = feed;
        let Parts { config, store, inference, .. } = parts;
        let live = stream.live.as_ref().filter(|_| publishes);
        let ended = |result| Ended { stream: stream.name.clone(), topic: topic.clone(), result };
        let (events, events_out) = mpsc::channel(EVENTS_QUEUE);
        let committer_config = CommitterConfig {
            batch_documents_max: stream.batch_documents_max,
            batches_max: batches_max(config.postgres.connections_max as usize, priority),
            live: live.map(|live| live_format(live, &intake_config.models)),
            keep_records: stream.rejections.keep_records,
            // Whoever replays dead letters expects some of them to be rejected again.
            limits: if replayed.is_some() { RejectionLimits::NONE } else { stream.rejections.limits },
        };
        let mut committer = JoinSet::new();
        let (store_labels, report) = (store.store().clone(), (parts.ended.clone(), ended(Ok(()))));
        if let Some(places) = replayed {
            let store = Arc::new(ReplayStore { store: store_labels, places });
            committer.spawn(commit(Committer::new(store, committer_config, events_out), report));
        } else {
            let store = Arc::new(store_labels);
            committer.spawn(commit(Committer::new(store, committer_config, events_out), report));
        }

        // The source keeps at most this many in flight a stream, and one more for each poll it is late.
        let (intake, records) = Intake::new(events.clone(), stream.in_flight_documents_max * 2);
        let intake_config = Arc::new(IntakeConfig {
            keeps_records: keeps_records(stream, live),
            decoder: decoder.unwrap_or_else(|| intake_config.decoder.clone()),
            priority,
            ..intake_config
        });
        let mut threads = Vec::new();
        for index in 0..config.tokenizer_threads.get() {
            let (config, records, inference, events) =
                (Arc::clone(&intake_config), records.clone(), Arc::clone(inference), events.clone());
            threads.push(spawn_thread(&format!("intake-{}-{index}", stream.name), move || {
                intake::work(&config, &records, &inference, &events);
            })?);
        }

        let control = Arc::new(SourceControl::default());
        let publishing = live.map(|live| Publishing::new(config, stream, live, store.clone())).transpose()?;
        let sink: Arc<dyn Sink> = match &publishing {
            Some(publishing) => Arc::new(PublishingSink { inner: intake, start: publishing.starter(&stream.name) }),
            None => Arc::new(intake),
        };
        let (source_control, sender, mut ended) = (Arc::clone(&control), parts.ended.clone(), ended(Ok(())));
        threads.push(spawn_thread(&format!("source-{}", stream.name), move || {
            ended.result = read(sink, &source_control);
            let _ = sender.blocking_send(ended);
        })?);
        Ok(Self { stream: stream.name.clone(), topic, control, events, committer, threads, publishing })
    }

    /// Reads nothing more.
    pub(super) async fn drain(&self) {
        self.control.drain();
        let _ = self.events.send(Event::Drain).await;
    }

    /// Stores and publishes what is in flight until the deadline, and hands back the rest.
    pub(super) async fn finish(&mut self, deadline: Instant) {
        let left = || deadline.saturating_duration_since(Instant::now());
        if tokio::time::timeout(left(), self.committer.join_next()).await.is_err() {
            tracing::warn!(stream = %self.stream, "not everything in flight was stored by the deadline; the rest is read again by the next owner");
        }
        self.committer.abort_all();
        if let Some(publishing) = &self.publishing
            && !publishing.finish(left()).await
        {
            tracing::warn!(stream = %self.stream, "not everything stored was published by the deadline; the next owner publishes the rest");
        }
        self.control.close();
    }

    /// Those to wait for. Those of the publishers end last: a call to a broker that is away takes its time, and
    /// nothing waits for it.
    pub(super) fn into_threads(self) -> Vec<JoinHandle<()>> {
        let mut publishers = self.publishing.map(Publishing::into_threads).unwrap_or_default();
        publishers.retain(JoinHandle::is_finished);
        self.threads.into_iter().chain(publishers).collect()
    }
}

/// Runs the committer, and reports its failure.
async fn commit<S: LabelStore>(committer: Committer<S>, (sender, mut ended): (mpsc::Sender<Ended>, Ended)) {
    if let Err(error) = committer.run().await {
        let what = format!("stream `{}` stopped", ended.stream);
        ended.result = Err(anyhow::Error::new(error).context(what));
        let _ = sender.send(ended).await;
    }
}

/// One connection stays free for claims and for reading checkpoints. What a backfill stores beside live streams takes no
/// more than a quarter from them.
fn batches_max(connections: usize, priority: Priority) -> usize {
    let part = match priority {
        Priority::Live => connections.saturating_sub(1),
        Priority::Backfill => connections / 4,
    };
    part.max(1)
}

/// What a stream does with its records.
///
/// # Errors
/// As [`check_pairs`].
pub fn intake_config(
    stream: &StreamConfig,
    models: Vec<(ModelIndex, Arc<Model>)>,
    schemas: &Arc<dyn Schemas>,
) -> Result<IntakeConfig, ConfigError> {
    check_pairs(stream, models.iter().map(|(_, model)| &**model))?;
    Ok(IntakeConfig {
        stream: stream.name.clone(),
        decoder: stream.decoder.clone(),
        schemas: Arc::clone(schemas),
        rejects_other_languages: stream.other_languages == OtherLanguages::Reject,
        text_bytes_max: stream.text_bytes_max,
        models,
        keeps_records: keeps_records(stream, stream.live.as_ref()),
        priority: Priority::Live,
        flow: new_flow(),
    })
}

/// Models that read pairs of texts need `text_pair` in the mapping, and nothing else does.
///
/// # Errors
/// [`ConfigError`] where the one is there without the other.
pub fn check_pairs<'a>(stream: &StreamConfig, models: impl IntoIterator<Item = &'a Model>) -> Result<(), ConfigError> {
    let reads_pairs = models.into_iter().find(|model| model.tokenizer.reads_pairs());
    let message = match (reads_pairs, stream.decoder.mapping.text_pair.is_empty()) {
        (Some(model), true) => {
            format!("is missing: model `{}` reads pairs of texts; name the second text's field", model.name)
        }
        (None, false) => {
            "is of no use: no model of the stream reads pairs of texts; remove it, or add such a model".into()
        }
        _ => return Ok(()),
    };
    Err(ConfigError::Values {
        problems: vec![Problem { key: format!("streams.{}.fields.text_pair", stream.name), message }],
    })
}

fn keeps_records(stream: &StreamConfig, live: Option<&LiveConfig>) -> bool {
    stream.rejections.keep_records.is_some() || live.is_some_and(|live| live.dead_letters.is_some())
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
