//! Which state of a document is the newest: a total order over records, also across partitions.
//!
//! A document's row stands at one version, and only a newer version replaces it. Inside a partition the
//! order agrees with the offsets; across partitions (after partitions were added, a key may move) it
//! follows time. It does not detect that a topic was recreated: the generation is given.

use std::time::SystemTime;

/// Compared field by field, in this order. Newer is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 0 for records from files, 1 and up for the incarnations of a topic.
    pub generation: i64,
    /// Running maximum of the partition's record timestamps, in milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    pub partition: i32,
    pub offset: i64,
}

/// Gives the records of one partition their versions, in the order of their offsets.
#[derive(Debug, Clone)]
pub struct VersionClock {
    generation: i64,
    partition: i32,
    timestamp_ms_max: i64,
}

impl VersionClock {
    /// Goes on from the running maximum that the partition's checkpoint holds.
    pub fn new(generation: i64, partition: i32, timestamp_ms_max: i64) -> Self {
        Self { generation, partition, timestamp_ms_max }
    }

    /// The version of the record at `offset`. A timestamp in the future counts as `now`: one producer
    /// with a wrong clock must not outrank all others for years.
    pub fn tick(&mut self, offset: i64, timestamp_ms: Option<i64>, now: SystemTime) -> Version {
        let now_ms = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
        if let Some(timestamp_ms) = timestamp_ms {
            self.timestamp_ms_max = self.timestamp_ms_max.max(timestamp_ms.min(now_ms));
        }
        Version { generation: self.generation, timestamp_ms: self.timestamp_ms_max, partition: self.partition, offset }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(ms: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(ms)
    }

    #[test]
    fn versions_follow_offsets_even_where_timestamps_go_back() {
        let mut clock = VersionClock::new(1, 0, 0);
        let versions: Vec<_> = [(10, Some(500)), (11, Some(100)), (12, None), (13, Some(501))]
            .map(|(offset, timestamp)| clock.tick(offset, timestamp, at(1_000)))
            .into();
        assert!(versions.is_sorted(), "{versions:?}");
        assert_eq!(versions.iter().map(|version| version.timestamp_ms).collect::<Vec<_>>(), [500, 500, 500, 501]);
    }

    #[test]
    fn a_timestamp_from_the_future_counts_as_now() {
        let mut clock = VersionClock::new(1, 0, 0);
        assert_eq!(clock.tick(0, Some(9_999), at(1_000)).timestamp_ms, 1_000);
    }

    #[test]
    fn the_clock_goes_on_from_the_checkpoint() {
        let mut clock = VersionClock::new(1, 0, 700);
        assert_eq!(clock.tick(5, Some(600), at(1_000)).timestamp_ms, 700);
    }

    #[test]
    fn a_recreated_topic_outranks_its_predecessor_and_a_file_ranks_below_both() {
        let version = |generation, timestamp_ms| Version { generation, timestamp_ms, partition: 0, offset: 0 };
        assert!(version(0, 900) < version(1, 500));
        assert!(version(1, 500) < version(2, 100));
    }
}
