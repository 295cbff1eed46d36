//! What is queued for publication and summed follows from what was really stored.

use std::sync::Arc;

use albertine::{
    domain::{
        checkpoint::{Claim, Position},
        document::Outcome,
        live::{LiveFormat, OutboxRange, Published},
        rejection::{Rejection, Stage},
    },
    storage::{Batch, Stored},
    stream::delivery::{Delivery, deliver},
};

use super::{Fixture, batch, labelled, labelled_of, start};
use crate::support::block_on;

fn live() -> Arc<LiveFormat> {
    let models = vec![("sentiment".into(), "m".into(), "1".into())];
    Arc::new(LiveFormat { models, dead_letters: true })
}

fn live_batch(claim: &Claim, timestamp_ms: i64, outcomes: Vec<Outcome>) -> Batch {
    Batch { live: Some(live()), ..batch(claim, timestamp_ms, outcomes) }
}

impl Fixture {
    fn ranges(&self, claim: &Claim, published: Option<(i64, i64)>, bytes_max: usize) -> Vec<OutboxRange> {
        let published = published.map(|(epoch, position)| Published { epoch, position: Position(position) });
        block_on(self.store.unpublished_ranges(&claim.key, published, bytes_max)).unwrap()
    }

    /// What is queued, as `offset key value-or-tombstone`.
    fn queued(&self, claim: &Claim) -> Vec<String> {
        let records = self.ranges(claim, None, usize::MAX).into_iter().flat_map(|range| range.records);
        records
            .map(|record| {
                let key = String::from_utf8(record.key.unwrap_or_default()).unwrap();
                let value = record.value.map_or_else(
                    || "tombstone".to_owned(),
                    |value| {
                        let value: serde_json::Value = serde_json::from_slice(&value).unwrap();
                        value["label"].as_str().unwrap().to_owned()
                    },
                );
                format!("{} {key} {value}", record.offset)
            })
            .collect()
    }

    fn assert_sums_equal_a_recount(&self) {
        let different = self.database.differences_from_a_recount();
        assert!(different.is_empty(), "{different:#?}");
    }
}

#[test]
fn every_label_that_was_stored_is_queued_also_one_that_the_same_batch_overwrites() {
    let fixture = Fixture::new();
    let claim = fixture.claim(0);
    let outcomes = vec![
        labelled("a", "positive"),
        labelled("b", "negative"),
        labelled("a", "negative"),
        Outcome::Deleted { id: "a".into() },
        labelled("a", "positive"),
    ];
    assert!(matches!(fixture.store(&live_batch(&claim, 5, outcomes)), Stored::Moved { .. }));
    let expected = [
        "0 a/sentiment/m positive",
        "1 b/sentiment/m negative",
        "2 a/sentiment/m negative",
        "3 a/sentiment/m tombstone",
        "4 a/sentiment/m positive",
    ];
    assert_eq!(fixture.queued(&claim), expected);
}

#[test]
fn a_record_that_came_too_late_to_be_stored_is_not_queued() {
    let fixture = Fixture::new();
    let (first, second) = (fixture.claim(0), fixture.claim(1));
    fixture.store(&live_batch(&first, 10, vec![labelled("a", "positive")]));
    let late = vec![labelled("a", "negative"), labelled("b", "negative"), Outcome::Deleted { id: "a".into() }];
    fixture.store(&live_batch(&second, 5, late));
    assert_eq!(fixture.queued(&second), ["1 b/sentiment/m negative"]);
    assert_eq!(fixture.ranges(&second, None, 1).len(), 1);
    assert_eq!(fixture.labels(), ["a=positive", "b=negative"]);
}

#[test]
fn a_batch_without_records_leaves_its_range_and_one_of_a_fenced_worker_none() {
    let fixture = Fixture::new();
    let former = fixture.claim(0);
    let claim = fixture.claim(0);
    assert_eq!(fixture.store(&live_batch(&former, 5, vec![labelled("a", "positive")])), Stored::NotMoved);
    assert_eq!(fixture.ranges(&claim, None, usize::MAX), []);
    let rejection = Outcome::Rejected(Rejection::new(Stage::Decode, "text_missing", "there is no text"));
    let quiet = Some(Arc::new(LiveFormat { models: Vec::new(), dead_letters: false }));
    fixture.store(&Batch { live: quiet, ..batch(&claim, 5, vec![rejection]) });
    let ranges = fixture.ranges(&claim, None, usize::MAX);
    assert_eq!((ranges[0].start, ranges[0].end, ranges[0].records.len()), (Position(0), Position(1), 0));
}

#[test]
fn ranges_come_in_order_within_a_limit_and_go_once_they_are_published() {
    let fixture = Fixture::new();
    let mut claim = fixture.claim(0);
    for index in 0..5 {
        fixture.store(&live_batch(&claim, 5, vec![labelled(&format!("d{index}"), "positive")]));
        claim.position = Position(index + 1);
    }
    let starts = |ranges: Vec<OutboxRange>| ranges.iter().map(|range| range.start.0).collect::<Vec<_>>();
    assert_eq!(starts(fixture.ranges(&claim, None, usize::MAX)), [0, 1, 2, 3, 4]);
    assert_eq!(starts(fixture.ranges(&claim, Some((1, 2)), usize::MAX)), [2, 3, 4]);
    assert_eq!(starts(fixture.ranges(&claim, Some((1, 2)), 1)), [2]);
    let published = Published { epoch: 1, position: Position(3) };
    assert_eq!(block_on(fixture.store.delete_published(&claim.key, published)).unwrap(), 3);
    assert_eq!(starts(fixture.ranges(&claim, None, usize::MAX)), [3, 4]);
    let left: usize = fixture.ranges(&claim, None, usize::MAX).iter().map(|range| range.bytes).sum();
    assert_eq!(block_on(fixture.store.unpublished_bytes(&claim.key, published)).unwrap(), left);
}

#[test]
fn a_recreated_topic_begins_a_generation_and_an_epoch_and_fences_the_worker_of_the_one_before() {
    let fixture = Fixture::new();
    let before = fixture.claim(0);
    fixture.store(&live_batch(&before, 900, vec![labelled("a", "positive")]));
    block_on(fixture.store.initialise_checkpoints("reviews", "topic", &start("b", &[(0, 7)]))).unwrap();
    let late = Claim { position: Position(1), ..before.clone() };
    assert_eq!(fixture.store(&live_batch(&late, 901, vec![labelled("a", "negative")])), Stored::NotMoved);
    let after = block_on(fixture.store.claim(&before.key.stream, &before.key.topic, &[0])).unwrap().remove(0);
    assert_eq!((after.generation, after.epoch, after.position, after.is_fresh), (2, 2, Position(7), true));
    let mut newer = live_batch(&after, 100, vec![labelled("a", "negative")]);
    newer.records[0].version.generation = 2;
    fixture.store(&newer);
    assert_eq!(fixture.labels(), ["a=negative"], "a newer generation outranks a later time");
    let epochs: Vec<i64> = fixture.ranges(&after, None, usize::MAX).iter().map(|range| range.epoch).collect();
    assert_eq!(epochs, [1, 2], "what the old topic left is published first");
}

#[test]
fn the_sums_of_items_equal_a_recount_whatever_is_stored_at_once() {
    let fixture = Fixture::new();
    fixture.statement("INSERT INTO {s}.models VALUES ('m', '2', 'sentiment', '{negative,positive}')");
    for seed in 0..15 {
        let mut random = fastrand::Rng::with_seed(seed);
        let claims = [fixture.claim(0), fixture.claim(1), fixture.claim(2)];
        let mut draw = |claim: &Claim| {
            let timestamp_ms = 100 * i64::try_from(seed).unwrap() + random.i64(..90);
            let outcomes = (0..random.usize(1..12)).map(|_| {
                let id = format!("d{}", random.usize(..9));
                if random.u8(..5) == 0 {
                    return Outcome::Deleted { id };
                }
                let item = (random.u8(..4) > 0).then(|| format!("item-{}", random.usize(..3)));
                labelled_of(&id, item, if random.bool() { "positive" } else { "negative" }, random.f32())
            });
            batch(claim, timestamp_ms, outcomes.collect())
        };
        let batches = claims.each_ref().map(&mut draw);
        let [first, second, third] = batches;
        block_on(async {
            let store = &fixture.store;
            let stored = tokio::join!(deliver(store, first), deliver(store, second), deliver(store, third), async {
                store.fold_sums().await
            });
            assert!(matches!(stored.0, Ok(Delivery::Stored { .. })), "{:?}", stored.0);
            assert!(matches!(stored.1, Ok(Delivery::Stored { .. })), "{:?}", stored.1);
            assert!(matches!(stored.2, Ok(Delivery::Stored { .. })), "{:?}", stored.2);
        });
        fixture.assert_sums_equal_a_recount();
    }
    block_on(fixture.store.fold_sums()).unwrap();
    assert_eq!(fixture.database.number("SELECT count(*) FROM {s}.item_deltas"), 0);
    fixture.assert_sums_equal_a_recount();
}

#[test]
fn sums_of_nothing_leave_no_row() {
    let fixture = Fixture::new();
    let mut claim = fixture.claim(0);
    fixture.store(&batch(&claim, 5, vec![labelled("a", "positive")]));
    block_on(fixture.store.fold_sums()).unwrap();
    assert_eq!(fixture.database.number("SELECT count(*) FROM {s}.item_sums"), 2);
    claim.position = Position(1);
    fixture.store(&batch(&claim, 6, vec![Outcome::Deleted { id: "a".into() }]));
    block_on(fixture.store.fold_sums()).unwrap();
    assert_eq!(fixture.database.number("SELECT count(*) FROM {s}.item_sums"), 0);
}
