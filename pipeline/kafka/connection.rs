//! The first question to a broker: whether it can be asked at all, and if not, why.
//!
//! Guarantee: where an operator has to act (a wrong password, a certificate that is not trusted, TLS on one side only)
//! the answer comes within a second or two, not at the end of the deadline.

use std::time::{Duration, Instant};

use rdkafka::{
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
    metadata::Metadata,
};

use super::{
    certificate,
    client::{ClientLog, Reporting, client_config, create},
    diagnosis::{Diagnosis, Outlook, START_OR_CORRECT, Stage, diagnose, distrusted_server},
};
use crate::config::secret::ClientSettings;

/// How long a broker may take to answer first. A request to a broker that is slow or far away takes a second.
const DEADLINE: Duration = Duration::from_secs(10);
/// For how long brokers are tried that cannot be reached: one of several may be away, or just starting.
const PATIENCE: Duration = Duration::from_secs(3);
/// After which the client's reports are looked at, and the question is asked again. It doubles, so that a slow broker is
/// given the time.
const FIRST_ATTEMPT: Duration = Duration::from_secs(1);
/// Reports looked at in one go: a client has a few a second.
const EVENTS_MAX: usize = 100;

/// The brokers cannot be asked.
#[derive(Debug, thiserror::Error)]
#[error("{diagnosis}")]
pub struct ConnectionError {
    pub diagnosis: Diagnosis,
}

/// What a topic has, or why nobody can be asked. Whether there is such a topic is in the answer.
///
/// The client must not be subscribed yet: it is polled for its reports.
///
/// # Errors
/// [`ConnectionError`] with cause and remedy.
pub fn topic_metadata<C: ConsumerContext + Reporting>(
    consumer: &BaseConsumer<C>,
    client: &ClientSettings,
    topic: &str,
) -> Result<Metadata, ConnectionError> {
    let log = consumer.client().context().client_log();
    log.await_connection(true);
    let answer = await_metadata(consumer, client, topic);
    log.await_connection(false);
    answer
}

fn await_metadata<C: ConsumerContext + Reporting>(
    consumer: &BaseConsumer<C>,
    client: &ClientSettings,
    topic: &str,
) -> Result<Metadata, ConnectionError> {
    let started = Instant::now();
    let mut attempt = FIRST_ATTEMPT;
    loop {
        let error = match consumer.fetch_metadata(Some(topic), attempt) {
            Ok(metadata) => return Ok(metadata),
            Err(error) => error,
        };
        // They wait in the client until somebody polls.
        for _ in 0..EVENTS_MAX {
            if consumer.poll(Duration::ZERO).is_none() {
                break;
            }
        }
        let log = consumer.client().context().client_log();
        let found = diagnose(client, &log.reports());
        let is_over = match found.as_ref().map(|diagnosis| diagnosis.outlook) {
            Some(Outlook::Final) => true,
            Some(Outlook::MayPass) => started.elapsed() >= PATIENCE,
            None => started.elapsed() >= DEADLINE,
        };
        if is_over {
            return Err(ConnectionError { diagnosis: explained(client, log, found, &error) });
        }
        attempt = (attempt * 2).min(DEADLINE.saturating_sub(started.elapsed())).max(FIRST_ATTEMPT);
    }
}

/// Connects once, as every other client of this program does.
///
/// # Errors
/// [`ConnectionError`] with cause and remedy.
pub fn check(client: &ClientSettings, topic: &str) -> Result<(), ConnectionError> {
    let consumer: BaseConsumer<ClientLog> =
        create(&client_config(client, &[]), ClientLog::default()).map_err(|error| refused_settings(&error))?;
    topic_metadata(&consumer, client, topic).map(drop)
}

fn explained(client: &ClientSettings, log: &ClientLog, found: Option<Diagnosis>, error: &KafkaError) -> Diagnosis {
    let reports = log.reports();
    let is_distrusted = found.as_ref().is_some_and(|found| found.stage == Stage::Connection);
    let seen = distrusted_server(&reports).filter(|_| is_distrusted);
    if let Some((cause, remedy)) = seen.and_then(|address| certificate::refusal(client, address)) {
        return Diagnosis { stage: Stage::Connection, outlook: Outlook::Final, cause, remedy };
    }
    found.unwrap_or_else(|| Diagnosis {
        stage: Stage::Connection,
        outlook: Outlook::MayPass,
        cause: match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::OperationTimedOut) | None => "no broker answers".into(),
            Some(code) => code.to_string(),
        },
        remedy: START_OR_CORRECT.into(),
    })
}

/// The client could not even be made.
fn refused_settings(error: &KafkaError) -> ConnectionError {
    let cause = error.to_string();
    let remedy = if cause.contains("GSSAPI") {
        "set `sasl.mechanism` in `[kafka.client]` to `PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512` or `OAUTHBEARER`; Kerberos is not built in"
    } else if cause.contains("location failed") {
        "see that the file is there, can be read by this user, and is PEM"
    } else {
        "correct `[kafka.client]`"
    };
    let (stage, outlook) = (Stage::Connection, Outlook::Final);
    ConnectionError { diagnosis: Diagnosis { stage, outlook, cause, remedy: remedy.into() } }
}
