//! What every Kafka client here shares: settings from the configuration, and logs that do not flood.
//!
//! While a broker is away librdkafka reports it several times a second. Each report is passed on at most
//! every few seconds, with how many were left out.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, ClientContext,
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::ProducerContext,
};

use crate::config::secret::ClientSettings;

/// Shortest time between two reports of a broken connection.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// A configuration to build a client from: our defaults, the operator's settings above them.
pub fn client_config(client: &ClientSettings, defaults: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    for (name, value) in defaults {
        config.set(*name, *value);
    }
    for (name, value) in &client.0 {
        config.set(name, value);
    }
    config.set_log_level(RDKafkaLogLevel::Warning);
    config
}

/// Reports of one client.
#[derive(Debug, Default)]
pub struct ClientLog {
    last: Mutex<Option<(Instant, u64)>>,
}

impl ClientLog {
    /// The client's own log line.
    pub fn line(level: RDKafkaLogLevel, facility: &str, message: &str) {
        match facility {
            // Settings of consumers are shared with producers, which ignore them.
            "CONFWARN" => tracing::debug!(facility, "{message}"),
            // Told again through the error callback.
            "FAIL" | "ERROR" => tracing::debug!(facility, "{message}"),
            _ if (level as i32) <= RDKafkaLogLevel::Warning as i32 => tracing::warn!(facility, "{message}"),
            _ => tracing::debug!(facility, "{message}"),
        }
    }

    /// An error of the client as a whole, from which it recovers by itself. The end of a partition is none; a
    /// consumer that is closed before it was told of one reports it here.
    pub fn error(&self, error: &KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::PartitionEOF) {
            return;
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *last {
            Some((at, left_out)) if at.elapsed() < REPORT_INTERVAL => *left_out += 1,
            present => {
                let left_out = present.map_or(0, |(_, left_out)| left_out);
                tracing::warn!(%error, reason, left_out, "the connection to Kafka has a problem");
                *present = Some((Instant::now(), 0));
            }
        }
    }
}

impl ClientContext for ClientLog {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Self::line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        Self::error(self, &error, reason);
    }
}

impl ConsumerContext for ClientLog {}

impl ProducerContext for ClientLog {
    type DeliveryOpaque = ();

    /// A record that was not delivered fails the flush or the transaction it belongs to.
    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}
