//! Looks at the last records of a topic without joining a group or moving anything.

use std::time::{Duration, Instant};

use super::subscribe::{Next, Since, SubscribeError, Subscription, TopicRecord, Until};
use crate::config::secret::ClientSettings;

/// Deadline of all records together.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Never joined.
const GROUP: &str = "albertine-peek";

/// The newest records of a topic, at most `limit`, oldest first within each partition.
///
/// # Errors
/// Where the broker does not answer, or there is no such topic.
pub fn newest(client: &ClientSettings, topic: &str, limit: usize) -> Result<Vec<TopicRecord>, SubscribeError> {
    let mut subscription = Subscription::open(client, GROUP, topic, Since::Newest(limit), Until::PresentEnd)?;
    let started = Instant::now();
    let mut records = Vec::new();
    while records.len() < limit && started.elapsed() < TIMEOUT {
        match subscription.next(Duration::from_millis(100))? {
            Next::Record(record) => records.push(record),
            Next::Nothing => {}
            Next::End => break,
        }
    }
    records.sort_by_key(|record| (record.partition, record.offset));
    Ok(records)
}
