//! Looks at the last records of a topic without joining a group or moving anything.

use std::time::{Duration, Instant};

use super::subscribe::{Next, Since, SubscribeError, Subscription, TopicRecord, Until};
use crate::config::secret::ClientSettings;

/// How long the broker may take to send the next record: somebody is waiting.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Never joined.
const GROUP: &str = "albertine-peek";

/// See [`newest`].
pub struct NewestRecords {
    subscription: Subscription,
    left: usize,
}

/// The newest records of a topic, at most `limit`, those of each partition in its order.
///
/// # Errors
/// Where the broker does not answer, or there is no such topic; also while records are read.
pub fn newest(client: &ClientSettings, topic: &str, limit: usize) -> Result<NewestRecords, SubscribeError> {
    let subscription = Subscription::open(client, GROUP, topic, Since::Newest(limit), Until::PresentEnd)?;
    Ok(NewestRecords { subscription, left: limit })
}

impl Iterator for NewestRecords {
    type Item = Result<TopicRecord, SubscribeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let started = Instant::now();
        while self.left > 0 && started.elapsed() < TIMEOUT {
            match self.subscription.next(Duration::from_millis(100)) {
                Ok(Next::Record(record)) => {
                    self.left -= 1;
                    return Some(Ok(record));
                }
                Ok(Next::Nothing) => {}
                Ok(Next::End) => break,
                Err(error) => {
                    self.left = 0;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}
