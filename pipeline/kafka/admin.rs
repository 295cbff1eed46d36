//! Questions to the broker about topics, and their creation.

use std::time::Duration;

use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    error::{KafkaError, RDKafkaErrorCode},
};

use super::{
    client::{ClientLog, client_config, create},
    topic_id::{TopicIdError, topic_rights},
};
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
    #[error(transparent)]
    Asking(#[from] TopicIdError),
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
    pub settings: &'a [(&'a str, String)],
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
    create_topic(client, topic, shape, &options()).await
}

/// Whether this user may make a topic of this shape, and the cluster could; nothing is made.
///
/// # Errors
/// [`AdminError`] where the broker would refuse or does not answer.
pub async fn check_creation(client: &ClientSettings, topic: &str, shape: &TopicShape<'_>) -> Result<(), AdminError> {
    create_topic(client, topic, shape, &options().validate_only(true)).await.map(drop)
}

async fn create_topic(
    client: &ClientSettings,
    topic: &str,
    shape: &TopicShape<'_>,
    options: &AdminOptions,
) -> Result<Creation, AdminError> {
    let action = || format!("create topic `{topic}` with {} partition(s)", shape.partitions);
    let mut new = NewTopic::new(topic, shape.partitions, TopicReplication::Fixed(shape.replication));
    for (name, value) in shape.settings {
        new = new.set(name, value);
    }
    let results = admin(client)?
        .create_topics([&new], options)
        .await
        .map_err(|source| AdminError::Broker { action: action(), source })?;
    match results.into_iter().next() {
        None | Some(Ok(_)) => Ok(Creation::Created),
        Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(Creation::Existed),
        Some(Err((_, code))) => Err(AdminError::Refused { action: action(), code, remedy: remedy(code, CREATE) }),
    }
}

/// Whether the broker compacts the topic, so that records without a value are deletions.
///
/// # Errors
/// [`AdminError`] where the broker refuses or does not answer.
pub async fn is_compacted(client: &ClientSettings, topic: &str) -> Result<bool, AdminError> {
    Ok(topic_setting(client, topic, "cleanup.policy").await?.is_some_and(|policy| policy.contains("compact")))
}

/// A setting of a topic, by Kafka's name; `None` where there is no such topic.
///
/// # Errors
/// [`AdminError`] where the broker refuses or does not answer.
pub async fn topic_setting(client: &ClientSettings, topic: &str, name: &str) -> Result<Option<String>, AdminError> {
    let action = || format!("read the settings of topic `{topic}`");
    let admin = admin(client)?;
    let results = admin
        .describe_configs([&ResourceSpecifier::Topic(topic)], &options())
        .await
        .map_err(|source| AdminError::Broker { action: action(), source })?;
    let resource = results.into_iter().find_map(Result::ok);
    if let Some(value) = resource.and_then(|resource| resource.get(name)?.value.clone()) {
        return Ok(Some(value));
    }
    // `rdkafka` leaves out why there are no settings: there is no such topic, or this user may not see them.
    if tokio::task::block_in_place(|| topic_rights(admin.inner(), topic, REQUEST_TIMEOUT))?.is_none() {
        return Ok(None);
    }
    let code = RDKafkaErrorCode::TopicAuthorizationFailed;
    Err(AdminError::Refused { action: action(), code, remedy: remedy(code, DESCRIBE) })
}

const CREATE: &str = "; grant Create on the topic (or the cluster) to this user, or let an administrator create it";
const DESCRIBE: &str = "; grant Describe and DescribeConfigs on the topic to this user";

/// `grant` is what the user needs for what was asked.
fn remedy(code: RDKafkaErrorCode, grant: &'static str) -> &'static str {
    match code {
        RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed => grant,
        RDKafkaErrorCode::InvalidReplicationFactor => {
            "; the cluster has fewer brokers than its default replication factor"
        }
        _ => "",
    }
}

fn admin(client: &ClientSettings) -> Result<AdminClient<ClientLog>, AdminError> {
    create(&client_config(client, &[]), ClientLog::default())
        .map_err(|source| AdminError::Broker { action: "create the admin client".into(), source })
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(REQUEST_TIMEOUT)).request_timeout(Some(REQUEST_TIMEOUT))
}
