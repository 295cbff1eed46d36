//! Stores what a replay of dead letters comes to: labels as ever, and in the same transaction what became of each dead
//! letter. What is rejected again is no new rejection.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    Batch, LabelStore, StoreError, Stored,
    dead_letters::{self, Settlement},
    labels,
    postgres::{Postgres, store_error},
};
use crate::domain::{
    checkpoint::{Observed, PartitionKey},
    dead_letter::Place,
    document::{Finished, Outcome},
};

/// Which dead letter each record of a replay was, by its offset there. Shared by who reads them and who stores them.
#[derive(Debug, Clone, Default)]
pub struct ReplayedPlaces(Arc<Mutex<HashMap<i64, Place>>>);

impl ReplayedPlaces {
    pub fn note(&self, offset: i64, place: Place) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(offset, place);
    }

    fn settlements(&self, records: &[Finished]) -> Vec<Settlement> {
        let places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let settlement = |record: &Finished| {
            let again = match &record.outcome {
                Outcome::Rejected(rejection) => Some(rejection.clone()),
                Outcome::Labelled { .. } | Outcome::Deleted { .. } => None,
            };
            Some(Settlement { place: places.get(&record.offset)?.clone(), again })
        };
        records.iter().filter_map(settlement).collect()
    }
}

/// See the module.
pub struct ReplayStore {
    pub store: Postgres,
    pub places: ReplayedPlaces,
}

impl LabelStore for ReplayStore {
    async fn store(&self, batch: &Batch) -> Result<Stored, StoreError> {
        let failed = || store_error("store a replayed batch");
        let accepted = |record: &&Finished| !matches!(record.outcome, Outcome::Rejected(_));
        let records = batch.records.iter().filter(accepted).cloned().collect();
        let mut transaction = self.store.pool.begin().await.map_err(failed())?;
        let stored = labels::store_in(&mut *transaction, &Batch { records, ..batch.clone() }).await?;
        if stored == Stored::NotMoved {
            return Ok(stored);
        }
        let settlements = self.places.settlements(&batch.records);
        dead_letters::settle(&mut transaction, &batch.key.stream, &settlements).await.map_err(failed())?;
        transaction.commit().await.map_err(failed())?;
        Ok(stored)
    }

    async fn observe(&self, key: &PartitionKey) -> Result<Option<Observed>, StoreError> {
        self.store.observe(key).await
    }
}
