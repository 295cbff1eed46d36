//! Stores one batch, whatever the database does meanwhile: down, restarted, its reply lost, one row bad.
//!
//! Guarantee: it returns [`Delivery::Stored`] only for a batch that is committed, and commits it once. While
//! Postgres is away it tries again for as long as it takes: the records are safe in the topic, and the
//! bound on what is in flight stops the reading.

use std::time::Duration;

use crate::{
    domain::{
        checkpoint::{Advance, Position, Resolution, resolve},
        document::{Finished, Outcome},
        rejection::{Rejection, Stage},
    },
    retry,
    storage::{Batch, ErrorKind, LabelStore, StoreError, Stored},
    telemetry::metrics as names,
};

/// Pause before the first new attempt: a restarted Postgres is back within seconds.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(50);
/// Longest pause between attempts. Longer only delays recovery; shorter floods a starting server.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(2);

/// How a batch ended.
#[derive(Debug)]
pub enum Delivery {
    /// So much of it waits to be published, as far as that is known.
    Stored { queued_bytes: usize },
    /// The checkpoint is ours and stands somewhere else.
    Rewind(Position),
    /// Somebody else claimed the partition.
    Fenced,
}

/// Stores `batch`, row by row where a row is refused.
///
/// # Errors
/// A [`StoreError`] that no retry helps against: the operator has to act.
pub async fn deliver<S: LabelStore>(store: &S, batch: Batch) -> Result<Delivery, StoreError> {
    match deliver_whole(store, &batch).await {
        Err(error) if error.kind == ErrorKind::BadRow => {
            tracing::warn!(place = %batch.key, records = batch.records.len(), %error, "a row was refused; storing the batch record by record");
            deliver_singly(store, batch).await
        }
        result => result,
    }
}

/// One row that is refused becomes a rejection, and the others are stored.
async fn deliver_singly<S: LabelStore>(store: &S, batch: Batch) -> Result<Delivery, StoreError> {
    let Batch { key, owner, epoch, advance, records, live, keep_records } = batch;
    let mut from = advance.from;
    let mut queued = 0;
    for record in records {
        let to = Position::after(record.offset);
        let step = Advance { from, to, timestamp_ms_max: record.version.timestamp_ms };
        let (key, live) = (key.clone(), live.clone());
        let mut single = Batch { key, owner, epoch, advance: step, records: vec![record], live, keep_records };
        let delivery = match deliver_whole(store, &single).await {
            Err(error) if error.kind == ErrorKind::BadRow => {
                single.records.iter_mut().for_each(|record| reject(record, &error));
                deliver_whole(store, &single).await?
            }
            result => result?,
        };
        let Delivery::Stored { queued_bytes } = delivery else { return Ok(delivery) };
        queued += queued_bytes;
        from = to;
    }
    Ok(Delivery::Stored { queued_bytes: queued })
}

fn reject(record: &mut Finished, error: &StoreError) {
    let message = format!("Postgres refused the row: {}", error.source);
    record.outcome =
        Outcome::Rejected(Rejection::new(Stage::Store, "row_refused", message).at(record.place.as_deref()));
}

async fn deliver_whole<S: LabelStore>(store: &S, batch: &Batch) -> Result<Delivery, StoreError> {
    let mut delays = retry::delays(RETRY_DELAY_MIN, RETRY_DELAY_MAX);
    loop {
        match store.store(batch).await {
            Ok(Stored::Moved { queued_bytes }) => return Ok(Delivery::Stored { queued_bytes }),
            Ok(Stored::NotMoved) => {}
            Err(error) if error.kind == ErrorKind::Retryable => pause(batch, &error, &mut delays).await,
            Err(error) => return Err(error),
        }
        // Not moved, or not known: the checkpoint tells.
        match observe(store, batch).await? {
            // Its size is lost with the reply; the next publishing session measures the outbox.
            Resolution::Committed => return Ok(Delivery::Stored { queued_bytes: 0 }),
            Resolution::Rewind(position) => return Ok(Delivery::Rewind(position)),
            Resolution::Fenced => return Ok(Delivery::Fenced),
            Resolution::Retry => {
                metrics::counter!(names::STORE_RETRIES, "stream" => batch.key.stream.to_string()).increment(1);
            }
        }
    }
}

async fn observe<S: LabelStore>(store: &S, batch: &Batch) -> Result<Resolution, StoreError> {
    let mut delays = retry::delays(RETRY_DELAY_MIN, RETRY_DELAY_MAX);
    loop {
        match store.observe(&batch.key).await {
            Ok(observed) => return Ok(resolve(observed, batch.owner, batch.advance)),
            Err(error) if error.kind == ErrorKind::Retryable => pause(batch, &error, &mut delays).await,
            Err(error) => return Err(error),
        }
    }
}

async fn pause(batch: &Batch, error: &StoreError, delays: &mut impl Iterator<Item = Duration>) {
    let delay = delays.next().unwrap_or(RETRY_DELAY_MAX);
    tracing::warn!(place = %batch.key, %error, retry_in_ms = delay.as_millis(), "storing failed; trying again");
    tokio::time::sleep(delay).await;
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{Arc, Mutex};

    use chrono::DateTime;
    use uuid::Uuid;

    use super::*;
    use crate::domain::{
        checkpoint::{Observed, PartitionKey},
        document::Attributes,
        version::Version,
    };

    /// What the fake does with the next call to `store`.
    #[derive(Debug, Clone, Copy)]
    pub(crate) enum Behaviour {
        Commit,
        /// Commits, and the reply is lost.
        CommitUnheard,
        /// Fails before anything is written.
        Unreachable,
        /// Refuses batches that hold this offset, unless as a rejection.
        Refuse(i64),
    }

    /// A checkpoint and the records stored under it, behind a plan of behaviours. Commits when it ends.
    pub(crate) struct FakeStore {
        pub plan: Mutex<Vec<Behaviour>>,
        pub checkpoint: Mutex<Observed>,
        pub stored: Mutex<Vec<Finished>>,
    }

    impl FakeStore {
        pub(crate) fn new(owner: Uuid, position: i64, mut plan: Vec<Behaviour>) -> Arc<Self> {
            plan.reverse();
            let checkpoint = Observed { owner: Some(owner), position: Position(position) };
            Arc::new(Self { plan: Mutex::new(plan), checkpoint: Mutex::new(checkpoint), stored: Mutex::default() })
        }

        fn commit(&self, batch: &Batch) -> Stored {
            let mut checkpoint = self.checkpoint.lock().unwrap();
            if *checkpoint != (Observed { owner: Some(batch.owner), position: batch.advance.from }) {
                return Stored::NotMoved;
            }
            checkpoint.position = batch.advance.to;
            self.stored.lock().unwrap().extend(batch.records.iter().cloned());
            Stored::Moved { queued_bytes: 0 }
        }

        pub(crate) fn offsets(&self) -> Vec<i64> {
            self.stored.lock().unwrap().iter().map(|record| record.offset).collect()
        }
    }

    fn failure(kind: ErrorKind) -> StoreError {
        StoreError { action: "store a batch", kind, source: "as planned".into() }
    }

    impl LabelStore for FakeStore {
        async fn store(&self, batch: &Batch) -> Result<Stored, StoreError> {
            let behaviour = self.plan.lock().unwrap().pop().unwrap_or(Behaviour::Commit);
            match behaviour {
                Behaviour::Commit => Ok(self.commit(batch)),
                Behaviour::CommitUnheard => {
                    self.commit(batch);
                    Err(failure(ErrorKind::Retryable))
                }
                Behaviour::Unreachable => Err(failure(ErrorKind::Retryable)),
                Behaviour::Refuse(offset) => {
                    let refused =
                        |record: &Finished| record.offset == offset && !matches!(record.outcome, Outcome::Rejected(_));
                    if batch.records.iter().any(refused) {
                        self.plan.lock().unwrap().push(behaviour);
                        return Err(failure(ErrorKind::BadRow));
                    }
                    self.plan.lock().unwrap().push(behaviour);
                    Ok(self.commit(batch))
                }
            }
        }

        async fn observe(&self, _: &PartitionKey) -> Result<Option<Observed>, StoreError> {
            Ok(Some(*self.checkpoint.lock().unwrap()))
        }
    }

    pub(crate) const OWNER: Uuid = Uuid::from_u128(1);

    pub(crate) fn key() -> PartitionKey {
        PartitionKey { stream: "reviews".into(), topic: "reviews".into(), partition: 0 }
    }

    pub(crate) fn finished(offset: i64) -> Finished {
        Finished {
            offset,
            version: Version { generation: 1, timestamp_ms: 7, partition: 0, offset },
            produced_at: None,
            labelled_at: DateTime::UNIX_EPOCH,
            bytes: 1,
            trace: None,
            place: None,
            record: None,
            outcome: Outcome::Labelled {
                attributes: Attributes { id: offset.to_string(), ..Attributes::default() },
                labels: Vec::new(),
            },
        }
    }

    fn batch(offsets: std::ops::Range<i64>) -> Batch {
        let advance = Advance { from: Position(offsets.start), to: Position(offsets.end), timestamp_ms_max: 7 };
        Batch {
            key: key(),
            owner: OWNER,
            epoch: 1,
            advance,
            records: offsets.map(finished).collect(),
            live: None,
            keep_records: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_reply_of_a_commit_does_not_store_twice() {
        let store = FakeStore::new(OWNER, 0, vec![Behaviour::CommitUnheard]);
        assert!(matches!(deliver(&*store, batch(0..3)).await, Ok(Delivery::Stored { .. })));
        assert_eq!(store.offsets(), [0, 1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_waited_out() {
        let store = FakeStore::new(OWNER, 0, vec![Behaviour::Unreachable; 50]);
        assert!(matches!(deliver(&*store, batch(0..3)).await, Ok(Delivery::Stored { .. })));
        assert_eq!(store.offsets(), [0, 1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_row_that_is_refused_becomes_a_rejection_and_the_others_are_stored() {
        let store = FakeStore::new(OWNER, 0, vec![Behaviour::Refuse(1)]);
        let mut batch = batch(0..3);
        batch.records[1].place = Some("`old.csv` line 7".into());
        assert!(matches!(deliver(&*store, batch).await, Ok(Delivery::Stored { .. })));
        let stored = store.stored.lock().unwrap();
        let Outcome::Rejected(rejection) = &stored[1].outcome else { panic!("{:?}", stored[1]) };
        assert!(rejection.message.starts_with("`old.csv` line 7: Postgres refused the row: "), "{rejection}");
        let rejected: Vec<bool> = stored.iter().map(|record| matches!(record.outcome, Outcome::Rejected(_))).collect();
        assert_eq!(rejected, [false, true, false]);
        assert_eq!(store.checkpoint.lock().unwrap().position, Position(3));
    }

    #[tokio::test(start_paused = true)]
    async fn another_owner_fences_and_a_moved_checkpoint_rewinds() {
        let taken = FakeStore::new(Uuid::from_u128(2), 0, Vec::new());
        assert!(matches!(deliver(&*taken, batch(0..3)).await, Ok(Delivery::Fenced)));
        let moved = FakeStore::new(OWNER, 2, Vec::new());
        assert!(matches!(deliver(&*moved, batch(0..3)).await, Ok(Delivery::Rewind(Position(2)))));
        assert_eq!((taken.offsets(), moved.offsets()), (Vec::new(), Vec::new()));
    }
}
