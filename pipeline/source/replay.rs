//! Reads dead letters again: records that were rejected, each at the version it had, as one partition of a job.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail};

use super::{Claims, Content, Lease, Record, Sink, SourceControl};
use crate::domain::{
    checkpoint::{Position, TopicStart},
    document::SourceRecord,
    version::Version,
};

/// What stands for the topic's name: with a slash, which no topic can have. One for all replays of a stream, so that a
/// replay publishes first what an earlier one left unpublished, and two at once fence each other.
pub const JOB: &str = "dead-letters/replay";

/// The job's only partition.
const PARTITION: i32 = 0;

/// How often to look whether there is room for more, or everything is stored. Records take milliseconds each.
const PAUSE: Duration = Duration::from_millis(5);

/// A dead letter that is tried again.
#[derive(Debug)]
pub struct ReplayedRecord {
    pub version: Version,
    pub timestamp_ms: Option<i64>,
    pub record: SourceRecord,
}

/// Bounds on what is in flight.
#[derive(Debug, Clone, Copy)]
pub struct InFlight {
    pub documents_max: usize,
    pub bytes_max: usize,
}

/// Hands over `records`, in the order of their versions, and waits until they are stored. `note` is told the offset
/// that each of them gets, before it is handed over, by its place in the order.
///
/// # Errors
/// Where the store does not answer, a record cannot be had, or another replay took over.
pub fn run<R>(
    claims: &dyn Claims,
    records: impl Iterator<Item = anyhow::Result<(R, ReplayedRecord)>>,
    note: impl Fn(i64, R),
    in_flight: InFlight,
    sink: &Arc<dyn Sink>,
    control: &SourceControl,
) -> anyhow::Result<()> {
    claims.initialise(&TopicStart { topic_id: None, positions: vec![(PARTITION, Position(0))] })?;
    let claim = claims.claim(&[PARTITION])?.pop().context("the replay's checkpoint is gone")?;
    let mut next = claim.position;
    let lease = Lease::new(claim);
    sink.assigned(Arc::clone(&lease));
    let is_full = || {
        let (documents, bytes) = lease.in_flight();
        documents >= in_flight.documents_max || bytes >= in_flight.bytes_max
    };
    for record in records {
        wait_while(&lease, control, is_full)?;
        if control.is_draining() {
            break;
        }
        let (whose, ReplayedRecord { version, timestamp_ms, record }) = record?;
        let SourceRecord { key, value, headers } = record;
        note(next.0, whose);
        let lease = Arc::clone(&lease);
        let record = Record {
            offset: next.0,
            version,
            timestamp_ms,
            key,
            content: Content::Encoded(value),
            headers,
            place: None,
            lease,
        };
        record.lease.arrived(record.bytes());
        sink.record(record);
        next = Position::after(next.0);
    }
    wait_while(&lease, control, || lease.stored_position() < next)
}

/// Waits while `condition` holds, unless the pipeline closes.
fn wait_while(lease: &Lease, control: &SourceControl, condition: impl Fn() -> bool) -> anyhow::Result<()> {
    while condition() && !control.is_closing() {
        if !lease.is_held() {
            bail!(
                "another replay of stream `{}` took over; see with `albertine dead-letter list`",
                lease.claim.key.stream
            );
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}
