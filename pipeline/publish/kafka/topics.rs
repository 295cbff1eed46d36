//! Makes a stream's live topics where they are missing, and checks those that are there.

use std::time::Duration;

use crate::{
    config::secret::ClientSettings,
    kafka::admin::{self, AdminError, Creation, TopicShape},
};

/// What the broker does with old records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cleanup {
    /// Records are deleted by age.
    Delete,
    /// The newest label of every document is kept.
    Compact,
    /// Both.
    CompactDelete,
}

impl Cleanup {
    /// As Kafka's `cleanup.policy`.
    pub fn policy(self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::Compact => "compact",
            Self::CompactDelete => "compact,delete",
        }
    }
}

/// How a live topic is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveTopicShape {
    pub topic: String,
    /// `None`: as many as the source has.
    pub partitions: Option<i32>,
    /// `None`: the broker's default.
    pub replication: Option<i32>,
    pub cleanup: Cleanup,
    /// `None`: the broker's default.
    pub retention: Option<Duration>,
}

/// A live topic cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LiveTopicError {
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(
        "topic `{topic}` has `cleanup.policy={found}`, but `{key}.cleanup` asks for `{wanted}`; change either: `kafka-configs.sh --alter --entity-type topics --entity-name {topic} --add-config cleanup.policy=[{wanted}]`"
    )]
    Cleanup { topic: String, key: String, found: String, wanted: &'static str },
}

/// Makes the topic, or checks that an existing one does with old records what is expected. `key` is the table of
/// the configuration, for messages.
///
/// # Errors
/// [`LiveTopicError`] with what to grant or change.
pub async fn ensure(
    client: &ClientSettings,
    shape: &LiveTopicShape,
    source_partitions: i32,
    key: &str,
) -> Result<Creation, LiveTopicError> {
    // First, since a broker refuses to create to who may not, also where there is nothing to create.
    if check(client, shape, key).await? {
        return Ok(Creation::Existed);
    }
    let settings = settings(shape);
    let creation =
        admin::ensure_topic_as(client, &shape.topic, &topic_shape(shape, source_partitions, &settings)).await?;
    if creation == Creation::Existed {
        check(client, shape, key).await?;
    }
    Ok(creation)
}

/// Whether this user may make the topic; nothing is made.
///
/// # Errors
/// [`LiveTopicError`] with what to grant.
pub async fn check_creation(
    client: &ClientSettings,
    shape: &LiveTopicShape,
    source_partitions: i32,
) -> Result<(), LiveTopicError> {
    let settings = settings(shape);
    Ok(admin::check_creation(client, &shape.topic, &topic_shape(shape, source_partitions, &settings)).await?)
}

fn settings(shape: &LiveTopicShape) -> Vec<(&'static str, String)> {
    let retention = shape.retention.map(|retention| ("retention.ms", retention.as_millis().to_string()));
    std::iter::once(("cleanup.policy", shape.cleanup.policy().to_owned())).chain(retention).collect()
}

fn topic_shape<'a>(
    shape: &LiveTopicShape,
    source_partitions: i32,
    settings: &'a [(&'a str, String)],
) -> TopicShape<'a> {
    TopicShape {
        partitions: shape.partitions.unwrap_or(source_partitions),
        replication: shape.replication.unwrap_or(-1),
        settings,
    }
}

/// Checks an existing topic. Returns whether there is one.
///
/// # Errors
/// [`LiveTopicError`] with what to change.
pub async fn check(client: &ClientSettings, shape: &LiveTopicShape, key: &str) -> Result<bool, LiveTopicError> {
    let Some(found) = admin::topic_setting(client, &shape.topic, "cleanup.policy").await? else { return Ok(false) };
    let parts =
        |policy: &str| policy.split(',').map(|part| part.trim().to_owned()).collect::<std::collections::BTreeSet<_>>();
    let wanted = shape.cleanup.policy();
    if parts(&found) == parts(wanted) {
        return Ok(true);
    }
    Err(LiveTopicError::Cleanup { topic: shape.topic.clone(), key: key.to_owned(), found, wanted })
}
