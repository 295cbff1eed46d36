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

/// Makes a topic unless it is there. Replication is the broker's default.
///
/// # Errors
/// [`AdminError`] where the broker refuses or does not answer.
pub async fn ensure_topic(client: &ClientSettings, topic: &str, partitions: i32) -> Result<Creation, AdminError> {
    let action = || format!("create topic `{topic}` with {partitions} partition(s)");
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
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
    let action = || format!("read the settings of topic `{topic}`");
    let results = admin(client)?
        .describe_configs([&ResourceSpecifier::Topic(topic)], &options())
        .await
        .map_err(|source| AdminError::Broker { action: action(), source })?;
    match results.into_iter().next() {
        Some(Ok(resource)) => Ok(resource
            .get("cleanup.policy")
            .and_then(|entry| entry.value.as_deref())
            .is_some_and(|policy| policy.contains("compact"))),
        Some(Err(code)) => Err(AdminError::Refused { action: action(), code, remedy: remedy(code) }),
        None => Ok(false),
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
