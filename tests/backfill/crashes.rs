//! Killed at each boundary and at any moment, frozen, and shared by several processes.

use super::Setup;
use crate::support::eventually;

const DOCUMENTS: usize = 600;

/// A job of shards in two formats, with a bad row among every fifty.
fn job(setup: &Setup) -> i64 {
    let documents = (0..DOCUMENTS / 2).map(crate::support::broker::document);
    let lines: Vec<String> = documents
        .enumerate()
        .flat_map(|(index, document)| {
            let bad = (index % 50 == 49).then(|| "{bad".to_owned());
            std::iter::once(document.to_string()).chain(bad)
        })
        .collect();
    let lines = setup.files.write("a.jsonl", lines.join("\n"));
    let columns = setup.files.documents("b.parquet", DOCUMENTS / 2..DOCUMENTS);
    setup.detach("job", &[&lines, &columns]);
    (DOCUMENTS / 2 / 50) as i64
}

/// Kills a worker at a failpoint, starts another, and compares.
fn survives_a_crash_at(failpoint: &str) {
    let setup = Setup::new();
    let rejected = job(&setup);
    let mut crashing = setup.work("job", failpoint);
    assert!(!crashing.wait().success(), "the failpoint `{failpoint}` was never reached");
    setup.run(&["work", "job"]).expect(0);
    setup.assert_stored_once(DOCUMENTS as i64, rejected);
}

#[test]
fn a_crash_after_a_shard_is_taken_loses_nothing() {
    survives_a_crash_at("after-take=1*off->return");
}

#[test]
fn a_crash_before_a_batch_is_stored_loses_nothing() {
    survives_a_crash_at("before-store=3*off->return");
}

#[test]
fn a_crash_after_a_batch_is_stored_repeats_nothing() {
    survives_a_crash_at("after-store=3*off->return");
}

#[test]
fn a_crash_before_and_after_a_shard_ends_repeats_nothing() {
    survives_a_crash_at("before-end=1*off->return");
    survives_a_crash_at("after-end=1*off->return");
}

#[test]
fn kills_at_any_moment_lose_and_repeat_nothing() {
    let setup = Setup::new();
    let rejected = job(&setup);
    for share in 1..=3 {
        // Slow, so that there is a middle.
        let process = setup.work("job", "before-store=sleep(30)");
        eventually("another quarter is stored", || {
            (setup.database().current_labels() >= (DOCUMENTS * share / 4) as i64).then_some(())
        });
        process.kill();
    }
    setup.run(&["work", "job"]).expect(0);
    setup.assert_stored_once(DOCUMENTS as i64, rejected);
}

#[test]
fn two_processes_share_a_job_and_none_does_a_shard_twice() {
    let setup = Setup::new();
    let rejected = job(&setup);
    let mut workers = ["before-store=sleep(20)"; 2].map(|slow| setup.work("job", slow));
    for worker in &mut workers {
        assert!(worker.wait().success(), "{}", worker.log());
    }
    let taken = workers.each_ref().map(|worker| worker.log().matches("shard taken").count() as i64);
    assert!(taken.iter().all(|count| *count > 0), "one of them had nothing to do: {taken:?}");
    assert_eq!(taken.iter().sum::<i64>(), setup.database().number("SELECT count(*) FROM {s}.backfill_shards"));
    setup.assert_stored_once(DOCUMENTS as i64, rejected);
}

#[test]
fn a_worker_that_was_frozen_stores_nothing_once_its_shard_is_taken_over() {
    let setup = Setup::new();
    let rejected = job(&setup);
    let mut frozen = setup.work("job", "before-store=3*off->1*return(stop)");
    eventually("the worker is frozen", || frozen.is_frozen().then_some(()));
    setup.run(&["work", "job"]).expect(0);
    setup.assert_stored_once(DOCUMENTS as i64, rejected);
    frozen.signal("CONT");
    assert!(frozen.wait().success(), "{}", frozen.log());
    setup.assert_stored_once(DOCUMENTS as i64, rejected);
}

#[test]
fn asked_to_stop_it_gives_its_shards_back_at_once() {
    let setup = Setup::new();
    let rejected = job(&setup);
    let mut process = setup.work("job", "before-store=sleep(30)");
    eventually("something is stored", || (setup.database().current_labels() > 0).then_some(()));
    process.signal("INT");
    assert_eq!(process.wait().code(), Some(1));
    assert!(process.log().contains("go on with `albertine backfill work job`"), "{}", process.log());
    let held = "SELECT count(*) FROM {s}.backfill_shards WHERE holder IS NOT NULL";
    assert_eq!(setup.database().number(held), 0);
    assert!(setup.database().current_labels() < DOCUMENTS as i64, "it was done before it was asked to stop");
    setup.run(&["work"]).expect(0);
    setup.assert_stored_once(DOCUMENTS as i64, rejected);
}
