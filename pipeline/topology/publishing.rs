//! A stream's live topic: its publisher with a thread for each lease, and how the topic is reached and made.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{spawn_thread, store::BlockingStore};
use crate::{
    config::resolved::{Config, LiveConfig, StreamConfig},
    domain::live::LiveFormat,
    engine::job::ModelIndex,
    model::folder::Model,
    publish::{
        Publisher,
        kafka::{KafkaLiveConfig, KafkaLiveTopic, topics},
    },
    source::{Lease, kafka},
};

/// A stream's publisher and its threads, one a lease.
pub(super) struct Publishing {
    publisher: Arc<Publisher>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Publishing {
    pub(super) fn new(
        config: &Config,
        stream: &StreamConfig,
        live: &LiveConfig,
        store: BlockingStore,
    ) -> anyhow::Result<Self> {
        let topic = KafkaLiveTopic::new(live_config(config, stream, live))?;
        Ok(Self {
            publisher: Arc::new(Publisher::new(Arc::new(store), Arc::new(topic), live.transactions)),
            threads: Arc::default(),
        })
    }

    /// Starts a thread for each lease.
    pub(super) fn starter(&self, stream: &str) -> Box<dyn Fn(Arc<Lease>) + Send + Sync> {
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
    pub(super) async fn finish(&self, timeout: Duration) -> bool {
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

    pub(super) fn into_threads(self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

pub(super) fn live_format(live: &LiveConfig, models: &[(ModelIndex, Arc<Model>)]) -> Arc<LiveFormat> {
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
