//! What the user may do with a topic and with a consumer group, found out without writing and without joining.

use std::{fmt, time::Duration};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};

use super::{
    client::{ClientLog, client_config, create},
    topic_id::{TopicIdError, topic_rights},
};
use crate::config::secret::ClientSettings;

/// How long the broker may take to answer: an operator is waiting.
const TIMEOUT: Duration = Duration::from_secs(6);
/// Reports looked at: a client has a few a second.
const REPORTS_MAX: usize = 100;

/// The topic and partition of an offset that no broker takes: it asks for the right first.
const NOWHERE: (&str, i32) = ("albertine.no-such-topic", i32::MAX);

/// A grant that is missing, or cannot be asked about.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    #[error("this user may not read as group `{0}`; grant Read on the group")]
    Group(String),
    #[error("this user may not {action} topic `{topic}`; grant {grant} on the topic")]
    Topic { topic: String, action: &'static str, grant: Grant },
    #[error("cannot ask about group `{group}`: {source}")]
    Broker { group: String, source: KafkaError },
    #[error("cannot ask about topic `{topic}`: {source}")]
    Client { topic: String, source: KafkaError },
    #[error(transparent)]
    Asking(#[from] TopicIdError),
}

/// What a topic is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    Read,
    Write,
}

impl fmt::Display for Grant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Read => "Read",
            Self::Write => "Write",
        })
    }
}

/// Whether this user has the right on the topic. Returns whether there is such a topic.
///
/// # Errors
/// [`GrantError`] with the grant that is missing.
pub fn check_topic(client: &ClientSettings, topic: &str, grant: Grant) -> Result<bool, GrantError> {
    let failed = |source| GrantError::Client { topic: topic.to_owned(), source };
    let consumer: BaseConsumer<ClientLog> =
        create(&client_config(client, &[]), ClientLog::default()).map_err(failed)?;
    let Some(rights) = topic_rights(consumer.client(), topic, TIMEOUT)? else { return Ok(false) };
    let (has, action) = match grant {
        Grant::Read => (rights.read, "read"),
        Grant::Write => (rights.write, "write to"),
    };
    if has { Ok(true) } else { Err(GrantError::Topic { topic: topic.to_owned(), action, grant }) }
}

/// Whether this user has `Read` on a group, which joining it and committing to it need. Commits an offset that the
/// broker refuses in any case, so that nothing is moved and nobody notices.
///
/// # Errors
/// [`GrantError`] with the grant that is missing.
pub fn check_group(client: &ClientSettings, group: &str) -> Result<(), GrantError> {
    let failed = |source| GrantError::Broker { group: group.to_owned(), source };
    let mut settings = client_config(client, &[]);
    settings
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("allow.auto.create.topics", "false")
        // For so long the commit waits for a coordinator.
        .set("session.timeout.ms", TIMEOUT.as_millis().to_string())
        .set("heartbeat.interval.ms", "2000")
        .set("socket.timeout.ms", TIMEOUT.as_millis().to_string());
    let consumer: BaseConsumer<ClientLog> = create(&settings, ClientLog::default()).map_err(failed)?;
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(NOWHERE.0, NOWHERE.1, Offset::Offset(0)).map_err(failed)?;
    let answer = consumer.commit(&offsets, CommitMode::Sync).err();
    // Who may not even see the group is not told its coordinator: that is an error of the client.
    let reported = || std::iter::from_fn(|| consumer.poll(Duration::ZERO)).take(REPORTS_MAX).filter_map(Result::err);
    let is_refused = |error: KafkaError| error.rdkafka_error_code() == Some(RDKafkaErrorCode::GroupAuthorizationFailed);
    match answer.as_ref().and_then(KafkaError::rdkafka_error_code) {
        Some(
            RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::UnknownMemberId,
        )
        | None => Ok(()),
        Some(RDKafkaErrorCode::GroupAuthorizationFailed) => Err(GrantError::Group(group.to_owned())),
        Some(_) if reported().any(is_refused) => Err(GrantError::Group(group.to_owned())),
        Some(code) => Err(failed(KafkaError::ConsumerCommit(code))),
    }
}
