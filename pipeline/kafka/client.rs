//! What every Kafka client here shares: settings from the configuration, and logs that do not flood.
//!
//! While a broker is away librdkafka reports it several times a second. Each report is passed on at most
//! every few seconds, with how many were left out; the last ones are kept, since a request that fails for them only
//! says that it timed out ([`super::connection`]).

use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, ClientContext,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    consumer::ConsumerContext,
    error::{KafkaError, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::ProducerContext,
};

use crate::config::secret::ClientSettings;

/// Shortest time between two reports of a broken connection.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// Reports kept. A failing connection repeats two or three; more are of the past.
const REPORTS_MAX: usize = 16;

/// A configuration to build a client from: our defaults, the operator's settings above them.
pub fn client_config(client: &ClientSettings, defaults: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    // The OpenSSL in this program was built elsewhere, and its own default is a folder of that machine; this tries those
    // of all usual distributions. librdkafka takes one of the two forms.
    for side in ["ssl", "https"] {
        if !client.0.contains_key(&format!("{side}.ca.pem")) {
            config.set(format!("{side}.ca.location"), "probe");
        }
    }
    for (name, value) in defaults {
        config.set(*name, *value);
    }
    for (name, value) in &client.0 {
        config.set(name, value);
    }
    // A connection that is closed by its other end is reported below a warning.
    config.set_log_level(RDKafkaLogLevel::Info);
    config
}

/// Makes a client.
///
/// # Errors
/// Where a setting is wrong. Its value is left out: it may be a key.
pub fn create<C: ClientContext, T: FromClientConfigAndContext<C>>(
    config: &ClientConfig,
    context: C,
) -> Result<T, KafkaError> {
    config.create_with_context(context).map_err(|error| match error {
        KafkaError::ClientConfig(result, reason, name, _) => {
            // librdkafka quotes the value in some of its own messages.
            let reason = config.get(&name).map_or_else(|| reason.clone(), |value| reason.replace(value, "…"));
            KafkaError::ClientConfig(result, reason, name, "…".into())
        }
        other => other,
    })
}

/// A context whose [`ClientLog`] can be read.
pub trait Reporting: ClientContext {
    fn client_log(&self) -> &ClientLog;
}

/// Reports of one client.
#[derive(Debug, Default)]
pub struct ClientLog {
    last: Mutex<Option<(Instant, u64)>>,
    /// The oldest first.
    reports: Mutex<VecDeque<String>>,
    /// Somebody waits for the connection, and tells what is wrong with it.
    is_awaited: AtomicBool,
}

impl ClientLog {
    /// The last reports of a connection or authentication that failed, the oldest first.
    pub fn reports(&self) -> Vec<String> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Leaves it to the caller to tell of failures, until it is told that the caller does not wait any more.
    pub fn await_connection(&self, is_awaited: bool) {
        self.is_awaited.store(is_awaited, Ordering::Relaxed);
    }

    fn keep(&self, report: &str) {
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        if reports.len() == REPORTS_MAX {
            reports.pop_front();
        }
        reports.push_back(report.to_owned());
    }

    /// The client's own log line.
    pub fn line(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if matches!(facility, "FAIL" | "ERROR" | "OIDC") {
            self.keep(message);
        }
        match facility {
            // Settings of consumers are shared with producers, which ignore them.
            "CONFWARN" => tracing::debug!(facility, "{message}"),
            // Told again through the error callback.
            "FAIL" | "ERROR" | "OIDC" => tracing::debug!(facility, "{message}"),
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
        self.keep(reason);
        if self.is_awaited.load(Ordering::Relaxed) {
            tracing::debug!(%error, reason, "not connected yet");
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
        self.line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        Self::error(self, &error, reason);
    }
}

impl Reporting for ClientLog {
    fn client_log(&self) -> &ClientLog {
        self
    }
}

impl ConsumerContext for ClientLog {}

impl ProducerContext for ClientLog {
    type DeliveryOpaque = ();

    /// A record that was not delivered fails the flush or the transaction it belongs to.
    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}
