//! Where a partition without a checkpoint begins.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::{REQUEST_TIMEOUT, SourceError, Start, assignment::Context, partition_count};
use crate::{domain::checkpoint::Position, kafka::subscribe::offsets_at};

impl Context {
    /// Start positions of all partitions the topic has now: decided for all at once, so that a partition
    /// that is claimed a little later does not begin a little later too.
    pub(super) fn first_positions(&self, consumer: &BaseConsumer<Self>) -> Result<Vec<(i32, Position)>, SourceError> {
        // Runs in the rebalance callback, where the client must not be polled for what it reports.
        let metadata = consumer
            .fetch_metadata(Some(&self.config.topic), REQUEST_TIMEOUT)
            .map_err(|error| self.broker_error("count the partitions", error))?;
        let all: Vec<i32> = (0..partition_count(&metadata, &self.config.stream, &self.config.topic)?).collect();
        match self.config.start {
            Start::Earliest => self.low_positions(consumer, &all),
            Start::Latest => self.watermarks(consumer, &all, |_, high| high),
            Start::At(time) => self.positions_at(consumer, &all, time),
        }
    }

    pub(super) fn low_positions(
        &self,
        consumer: &BaseConsumer<Self>,
        partitions: &[i32],
    ) -> Result<Vec<(i32, Position)>, SourceError> {
        self.watermarks(consumer, partitions, |low, _| low)
    }

    fn watermarks(
        &self,
        consumer: &BaseConsumer<Self>,
        partitions: &[i32],
        choose: impl Fn(i64, i64) -> i64,
    ) -> Result<Vec<(i32, Position)>, SourceError> {
        partitions
            .iter()
            .map(|&partition| {
                consumer
                    .fetch_watermarks(&self.config.topic, partition, REQUEST_TIMEOUT)
                    .map(|(low, high)| (partition, Position(choose(low, high))))
                    .map_err(|error| self.broker_error(format!("read the offsets of partition {partition}"), error))
            })
            .collect()
    }

    /// The first record at or after `time` in each partition; its end where there is none.
    fn positions_at(
        &self,
        consumer: &BaseConsumer<Self>,
        partitions: &[i32],
        time: DateTime<Utc>,
    ) -> Result<Vec<(i32, Position)>, SourceError> {
        let found = offsets_at(consumer, &self.config.topic, partitions, time)
            .map_err(|error| self.broker_error(format!("find the offsets at `{time}`"), error))?;
        let ends: HashMap<i32, Position> = self.watermarks(consumer, partitions, |_, high| high)?.into_iter().collect();
        Ok(found
            .into_iter()
            .filter_map(|(partition, offset)| Some((partition, offset.map_or(*ends.get(&partition)?, Position))))
            .collect())
    }
}
