//! Reads the shards of a backfill: files cut into parts that workers share out among each other.
//!
//! One thread reads one shard at a time, and begins the next while what is in flight of the last ones is still labelled
//! and stored. It keeps the leases of all shards it holds, and ends a shard only when all of it is stored, and
//! published where that is wanted. A record's offset is its number in the shard; going on in a shard reads past what is
//! stored already, which costs little beside labelling it.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    Content, Lease, Record, Sink, SourceControl,
    file::{self, Consumed, FileError, FileRecord, Records},
};
use crate::{
    crash::crash_point,
    domain::{
        backfill::{Held, Job, JobState, Renewal, Shard, ShardEnd, Taken},
        checkpoint::Position,
        rejection::{Rejection, Stage},
    },
    telemetry::metrics as names,
};

/// Shards held at once: the one that is read and those that are being stored. More help only where shards are tiny.
const HELD_MAX: usize = 8;
/// How often leases are renewed and progress is told, unless the lease asks for more.
const RENEW_INTERVAL: Duration = Duration::from_secs(2);
/// How often to look whether there is room, or something is stored, while nothing can be read.
const PAUSE: Duration = Duration::from_millis(5);
/// How often to ask for a shard while others hold all that are open.
const TAKE_INTERVAL: Duration = Duration::from_secs(1);

/// The shards of one job. Calls block until the store answers.
pub trait Shards: Send + Sync {
    /// Takes a shard that nobody holds.
    ///
    /// # Errors
    /// Where the store does not answer within its deadline.
    fn take(&self) -> anyhow::Result<Taken>;
    /// Keeps the shards that are held.
    ///
    /// # Errors
    /// Where the store does not answer within its deadline.
    fn renew(&self, held: &[Held]) -> anyhow::Result<Renewal>;
    /// Leaves a shard to others.
    ///
    /// # Errors
    /// Where the store does not answer within its deadline.
    fn release(&self, held: Held) -> anyhow::Result<()>;
    /// Nothing more is to be read of a shard.
    ///
    /// # Errors
    /// Where the store does not answer within its deadline.
    fn end(&self, held: Held, end: &ShardEnd) -> anyhow::Result<()>;
}

/// How a job is read.
#[derive(Debug, Clone)]
pub struct BackfillConfig {
    pub job: Job,
    /// Records in flight, over all shards.
    pub in_flight_documents_max: usize,
    /// Bytes of records in flight, over all shards.
    pub in_flight_bytes_max: usize,
    /// Bytes stored and not published, over all shards.
    pub unpublished_bytes_max: usize,
    /// After which a shard whose worker is silent is another's.
    pub lease: Duration,
}

/// Reads shards until none is open, or the job or the process is to stop. Blocks the calling thread.
///
/// # Errors
/// Where the store does not answer.
pub fn run(
    config: &BackfillConfig,
    shards: &dyn Shards,
    sink: &dyn Sink,
    control: &SourceControl,
) -> anyhow::Result<()> {
    let renew_interval = RENEW_INTERVAL.min(config.lease / 3);
    let mut reader = Reader { config, shards, sink, held: Vec::new(), stopping: false };
    let (mut renewed, mut may_take) = (Instant::now(), Instant::now());
    while !control.is_closing() {
        reader.stopping |= control.is_draining();
        if renewed.elapsed() >= renew_interval {
            reader.renew()?;
            renewed = Instant::now();
        }
        if reader.settle()? {
            // Perhaps the last one.
            may_take = Instant::now();
        }
        if reader.stopping {
            if reader.held.is_empty() {
                return Ok(());
            }
            thread::sleep(PAUSE);
        } else if !reader.is_reading() && reader.held.len() < HELD_MAX && may_take.elapsed() > Duration::ZERO {
            match shards.take()? {
                Taken::Shard(shard) => {
                    crash_point("after-take");
                    reader.open(*shard);
                }
                Taken::Nothing if reader.held.is_empty() => return Ok(()),
                Taken::Wait | Taken::Nothing => may_take = Instant::now() + TAKE_INTERVAL,
            }
        } else if !reader.read() {
            thread::sleep(PAUSE);
        }
    }
    reader.release_all()
}

struct Reader<'a> {
    config: &'a BackfillConfig,
    shards: &'a dyn Shards,
    sink: &'a dyn Sink,
    held: Vec<HeldShard>,
    /// Nothing more is read.
    stopping: bool,
}

struct HeldShard {
    lease: Arc<Lease>,
    /// `None` once it is read to its end.
    records: Option<Records>,
    /// The number of the next record.
    next: i64,
    consumed: Consumed,
    /// What ended the reading too early.
    error: Option<String>,
    file: String,
}

impl HeldShard {
    fn held(&self) -> Held {
        let claim = &self.lease.claim;
        let bytes = i64::try_from(self.consumed.bytes()).unwrap_or(i64::MAX);
        Held { shard: claim.key.partition, owner: claim.owner, bytes }
    }

    /// Everything that was read is stored, and published where that is wanted.
    fn is_settled(&self, publishes: bool) -> bool {
        let end = Position(self.next);
        self.lease.stored_position() >= end && (!publishes || self.lease.is_published(end))
    }
}

impl Reader<'_> {
    fn is_reading(&self) -> bool {
        self.held.iter().any(|held| held.records.is_some())
    }

    fn open(&mut self, shard: Shard) {
        let Shard { part, claim } = shard;
        tracing::info!(place = %claim.key, file = part.file, from = claim.position.0, "shard taken");
        let (consumed, lease) = (Consumed::default(), Lease::new(claim));
        self.sink.assigned(Arc::clone(&lease));
        let (records, error) = match file::shards::read(&part, consumed.clone()) {
            Ok(records) => (Some(records), None),
            Err(error) => (None, Some(error.to_string())),
        };
        // What is stored already is read past, from here on.
        let next = if records.is_some() { 0 } else { lease.claim.position.0 };
        self.held.push(HeldShard { lease, records, next, consumed, error, file: part.file });
    }

    /// Reads one record on. Whether there was something to do.
    fn read(&mut self) -> bool {
        let (documents, bytes, unpublished) =
            self.held.iter().fold((0, 0, 0), |(documents, bytes, unpublished), held| {
                let (more, larger) = held.lease.in_flight();
                (documents + more, bytes + larger, unpublished + held.lease.unpublished_bytes())
            });
        let has_room = documents < self.config.in_flight_documents_max
            && bytes < self.config.in_flight_bytes_max
            && (!self.config.job.publishes || unpublished < self.config.unpublished_bytes_max);
        let Some(held) = self.held.iter_mut().find(|held| held.records.is_some()).filter(|_| has_room) else {
            return false;
        };
        match held.records.as_mut().and_then(Iterator::next) {
            None => held.records = None,
            Some(Err(error)) if !error.is_one_record() => {
                held.error = Some(error.to_string());
                held.records = None;
            }
            Some(record) => {
                let offset = held.next;
                held.next += 1;
                if offset >= held.lease.claim.position.0 {
                    let record = record_of(&self.config.job, held, offset, record);
                    held.lease.arrived(record.bytes());
                    metrics::counter!(names::BACKFILL_RECORDS, "stream" => self.config.job.stream.clone()).increment(1);
                    self.sink.record(record);
                }
            }
        }
        if held.records.is_none() {
            // A file that got shorter would have been noticed; what is stored is never taken back.
            held.next = held.next.max(held.lease.claim.position.0);
        }
        true
    }

    /// Ends the shards that are done, gives back those that have to be, and forgets those that were lost. Whether there
    /// were any.
    fn settle(&mut self) -> anyhow::Result<bool> {
        let before = self.held.len();
        let mut index = 0;
        while index < self.held.len() {
            let held = &self.held[index];
            let is_settled = held.is_settled(self.config.job.publishes);
            if held.lease.is_lost() {
                tracing::warn!(place = %held.lease.claim.key, "the shard is another worker's now");
            } else if is_settled && held.records.is_none() {
                let end = match held.error.clone() {
                    None => ShardEnd::Finished { records: held.next },
                    Some(error) => ShardEnd::Failed { error },
                };
                if let ShardEnd::Failed { error } = &end {
                    tracing::error!(place = %held.lease.claim.key, error, "a shard failed");
                    metrics::counter!(names::BACKFILL_SHARDS_FAILED, "stream" => self.config.job.stream.clone())
                        .increment(1);
                }
                crash_point("before-end");
                self.shards.end(held.held(), &end)?;
                crash_point("after-end");
            } else if is_settled && self.stopping {
                self.shards.release(held.held())?;
            } else if self.stopping && held.next < held.lease.claim.position.0 {
                // It had not come to anything new yet.
                self.shards.release(held.held())?;
            } else {
                index += 1;
                continue;
            }
            let held = self.held.swap_remove(index);
            self.leave(&held);
        }
        Ok(self.held.len() < before)
    }

    fn renew(&mut self) -> anyhow::Result<()> {
        let held: Vec<Held> = self.held.iter().map(HeldShard::held).collect();
        let Renewal { state, held: kept } = self.shards.renew(&held)?;
        if state != JobState::Running && !self.stopping {
            if state != JobState::Finished {
                tracing::info!(job = self.config.job.id, %state, "stopping: somebody decided so");
            }
            self.stopping = true;
        }
        for held in self.held.iter().filter(|held| !kept.contains(&held.lease.claim.key.partition)) {
            held.lease.lose();
        }
        Ok(())
    }

    fn release_all(&mut self) -> anyhow::Result<()> {
        for held in std::mem::take(&mut self.held) {
            self.leave(&held);
            self.shards.release(held.held())?;
        }
        Ok(())
    }

    fn leave(&self, held: &HeldShard) {
        held.lease.give_back();
        self.sink.revoked(&held.lease);
    }
}

/// The record with this number in its shard.
fn record_of(job: &Job, held: &HeldShard, offset: i64, record: Result<FileRecord, FileError>) -> Record {
    let (place, key, content) = content_of(job, &held.file, record);
    Record {
        lease: Arc::clone(&held.lease),
        offset,
        version: job.version(held.lease.claim.key.partition, offset),
        timestamp_ms: None,
        key,
        content,
        headers: Vec::new(),
        place: Some(place),
    }
}

/// Where a record of a file stands, its key and what it holds. A bad row is a record that is rejected later, with its
/// place, as any other.
pub fn content_of(job: &Job, file: &str, record: Result<FileRecord, FileError>) -> (String, Option<Vec<u8>>, Content) {
    let reject = |problem| Err(Rejection::new(Stage::Decode, "row_invalid", problem));
    let (place, fields, bytes) = match record {
        Ok(FileRecord { place, fields, bytes }) => (format!("`{file}` {place}"), Ok(Value::Object(fields)), bytes),
        Err(FileError::Record { place, problem, .. }) => (format!("`{file}` {place}"), reject(problem), 0),
        Err(other) => (format!("`{file}`"), reject(other.to_string()), 0),
    };
    let key = fields.as_ref().ok().and_then(|fields| match fields.get(&job.key_field)? {
        Value::String(key) => Some(key.clone().into_bytes()),
        Value::Number(key) => Some(key.to_string().into_bytes()),
        _ => None,
    });
    (place, key, Content::Decoded { fields, bytes })
}
