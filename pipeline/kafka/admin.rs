//! Questions to the broker about topics, and their creation.

use std::time::Duration;

use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    error::{KafkaError, RDKafkaErrorCode},
};

use super::client::{ClientLog, client_config};
use crate::config::secret::ClientSettings;

/// Deadline of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The broker did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("cannot {action}: {source}")]
    Broker { action: String, source: KafkaError },
    #[error("cannot {action}: the broker answered `{code}`{remedy}")]
    Refused { action: String, code: RDKafkaErrorCode, remedy: &'static str },
}

/// Whether a topic had to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Creation {
    Created,
    Existed,
}

/// How a topic is made.
#[derive(Debug, Clone, Copy)]
pub struct TopicShape<'a> {
    pub partitions: i32,
    /// -1: the broker's default.
    pub replication: i32,
    /// Kafka's settings of topics, by its names.
    pub settings: &'a [(&'a str, &'a str)],
}

/// Makes a topic with the broker's defaults unless it is there.
///
/// # Errors
/// [`AdminError`] where the broker refuses or does not answer.
pub async fn ensure_topic(client: &ClientSettings, topic: &str, partitions: i32) -> Result<Creation, AdminError> {
    ensure_topic_as(client, topic, &TopicShape { partitions, replication: -1, settings: &[] }).await
}

/// Makes a topic of this shape unless it is there; one that is there is left as it is.
///
/// # Errors
/// [`AdminError`] where the broker refuses or does not answer.
pub async fn ensure_topic_as(
    client: &ClientSettings,
    topic: &str,
    shape: &TopicShape<'_>,
) -> Result<Creation, AdminError> {
    let action = || format!("create topic `{topic}` with {} partition(s)", shape.partitions);
    let mut new = NewTopic::new(topic, shape.partitions, TopicReplication::Fixed(shape.replication));
    for (name, value) in shape.settings {
        new = new.set(name, value);
    }
    let results = admin(client)?
        .create_topics([&new], &options())
        .await
        .map_err(|source| AdminError::Broker { action: action(), source })?;
    match results.into_iter().next() {
        None | Some(Ok(_)) => Ok(Creation::Created),
        Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(Creation::Existed),
        Some(Err((_, code))) => Err(AdminError::Refused { action: action(), code, remedy: remedy(code) }),
    }
}

/// Whether the broker compacts the topic, so that records without a value are deletions.
///
/// # Errors
/// [`AdminError`] where the broker refuses or does not answer.
pub async fn is_compacted(client: &ClientSettings, topic: &str) -> Result<bool, AdminError> {
    Ok(topic_setting(client, topic, "cleanup.policy").await?.is_some_and(|policy| policy.contains("compact")))
}

/// A setting of a topic, by Kafka's name.
///
/// # Errors
/// [`AdminError`] where the broker refuses or does not answer.
pub async fn topic_setting(client: &ClientSettings, topic: &str, name: &str) -> Result<Option<String>, AdminError> {
    let action = || format!("read the settings of topic `{topic}`");
    let results = admin(client)?
        .describe_configs([&ResourceSpecifier::Topic(topic)], &options())
        .await
        .map_err(|source| AdminError::Broker { action: action(), source })?;
    match results.into_iter().next() {
        Some(Ok(resource)) => Ok(resource.get(name).and_then(|entry| entry.value.clone())),
        Some(Err(code)) => Err(AdminError::Refused { action: action(), code, remedy: remedy(code) }),
        None => Ok(None),
    }
}

fn remedy(code: RDKafkaErrorCode) -> &'static str {
    match code {
        RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed => {
            "; grant Create on the topic (or the cluster) and DescribeConfigs to this user, or let an administrator do it"
        }
        RDKafkaErrorCode::InvalidReplicationFactor => {
            "; the cluster has fewer brokers than its default replication factor"
        }
        _ => "",
    }
}

fn admin(client: &ClientSettings) -> Result<AdminClient<ClientLog>, AdminError> {
    client_config(client, &[])
        .create_with_context(ClientLog::default())
        .map_err(|source| AdminError::Broker { action: "create the admin client".into(), source })
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(REQUEST_TIMEOUT)).request_timeout(Some(REQUEST_TIMEOUT))
}
