//! Backfills: jobs that label the records of files, cut into shards that workers share out among each other.
//!
//! A shard is to its job what a partition is to a topic, and the number of a record in its shard is its offset; so
//! checkpoints, claims and versions are those of any partition. The name that stands for its topic has a
//! slash, which no topic of Kafka can have.

use std::{fmt, sync::Arc};

use chrono::{DateTime, Utc};

use super::{
    checkpoint::{Claim, PartitionKey},
    version::Version,
};

/// What a job's topic begins with.
pub const TOPIC_PREFIX: &str = "backfill/";

/// The name under which the positions of a job are kept.
pub fn topic(job: &str) -> Arc<str> {
    format!("{TOPIC_PREFIX}{job}").into()
}

/// What is to be labelled, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    pub id: String,
    pub stream: String,
    pub state: JobState,
    pub created_at: DateTime<Utc>,
    pub finished_at: Option<DateTime<Utc>>,
    pub rank: Rank,
    /// The topic generation that the records count as: 0 ranks below everything that came live.
    pub generation: i64,
    /// Labels go to the stream's live topic too.
    pub publishes: bool,
    /// The field that becomes the record's key.
    pub key_field: String,
    /// Where fields lie in the files other than in the topic, as `name=path`.
    pub fields: Vec<String>,
}

impl Job {
    /// The version of a record: the job's rank, then the order of its files.
    pub fn version(&self, shard: i32, offset: i64) -> Version {
        let timestamp_ms = self.created_at.timestamp_millis();
        Version { generation: self.generation, timestamp_ms, partition: shard, offset }
    }

    pub fn key(&self, shard: i32) -> PartitionKey {
        PartitionKey { stream: self.stream.as_str().into(), topic: topic(&self.id), partition: shard }
    }
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// Workers may take its shards.
    Running,
    /// Somebody wants it to wait.
    Paused,
    /// Somebody wants no more of it. What is stored stays.
    Cancelled,
    /// No shard is open.
    Finished,
}

/// How the records rank beside others of the same documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Rank {
    /// Below everything that came live, above earlier backfills
    Oldest,
    /// As if they had come live when the job started
    Newest,
}

/// Whether a shard has to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardState {
    Open,
    Finished,
    /// What could not be read, or is broken from some place on. What stands before it is labelled.
    Failed,
}

/// The words of a state in the database, and on the command line.
macro_rules! words {
    ($type:ty, $($variant:ident => $word:literal),+) => {
        impl $type {
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }

            /// The state of this name.
            pub fn named(name: &str) -> Option<Self> {
                match name {
                    $($word => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(self.as_str())
            }
        }
    };
}

words!(JobState, Running => "running", Paused => "paused", Cancelled => "cancelled", Finished => "finished");
words!(Rank, Oldest => "oldest", Newest => "newest");
words!(ShardState, Open => "open", Finished => "finished", Failed => "failed");

/// The part of a file that is one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePart {
    pub file: String,
    /// As the source names it.
    pub format: String,
    /// Bytes of a file of lines, row groups of one of columns.
    pub start: i64,
    pub end: i64,
    /// Lines or rows of the file that stand before it.
    pub before: i64,
    /// Size and time of the file when it was looked at: if they differ, it is another file.
    pub file_bytes: i64,
    pub file_modified: DateTime<Utc>,
    /// Size of the part as it lies on the disk.
    pub bytes: i64,
    /// Where that is known without reading it.
    pub records: Option<i64>,
    /// No more than so many are read; `None` for all.
    pub records_max: Option<i64>,
}

/// A shard under its claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    pub part: FilePart,
    pub claim: Claim,
}

/// What a worker reports of a shard it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    pub shard: i32,
    pub owner: uuid::Uuid,
    /// How much of it was read, as it lies on the disk.
    pub bytes: i64,
}

/// What a worker got when it asked for a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    Shard(Box<Shard>),
    /// Others work on what is open; one of them may die.
    Wait,
    /// Nothing is open, or the job does not run.
    Nothing,
}

/// What a worker is told when it renews its leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewal {
    pub state: JobState,
    /// The shards that are still its own.
    pub held: Vec<i32>,
}

/// How a shard ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShardEnd {
    /// All of it is stored: so many records.
    Finished { records: i64 },
    /// What could be read is stored; why no more could.
    Failed { error: String },
}

/// How far a job is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Progress {
    pub shards: i64,
    pub shards_finished: i64,
    pub shards_failed: i64,
    /// Shards that a worker holds.
    pub shards_held: i64,
    /// Where that is known of all shards.
    pub records: Option<i64>,
    /// Stored as labels or rejections.
    pub records_stored: i64,
    pub rejected: i64,
    pub bytes: i64,
    pub bytes_read: i64,
    /// Why shards failed, in their order.
    pub failures: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backfill_ranks_below_what_came_live_and_above_earlier_ones() {
        let job = |generation, seconds| Job {
            id: "j".into(),
            stream: "reviews".into(),
            state: JobState::Running,
            created_at: DateTime::from_timestamp(seconds, 0).unwrap(),
            finished_at: None,
            rank: Rank::Oldest,
            generation,
            publishes: false,
            key_field: "key".into(),
            fields: Vec::new(),
        };
        let live = Version { generation: 1, timestamp_ms: 1, partition: 0, offset: 0 };
        assert!(job(0, 900).version(9, 9) < live);
        assert!(job(0, 900).version(0, 0) > job(0, 899).version(9, 9));
        assert!(job(0, 900).version(1, 0) > job(0, 900).version(0, 9));
        assert!(job(1, 900).version(0, 0) > live);
    }

    #[test]
    fn words_read_back() {
        for state in [JobState::Running, JobState::Paused, JobState::Cancelled, JobState::Finished] {
            assert_eq!(JobState::named(state.as_str()), Some(state));
        }
        assert_eq!(Rank::named("first"), None);
    }
}
