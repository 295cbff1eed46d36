//! `albertine run --backfill`: backfills beside live streams.

use super::Setup;
use crate::support::{broker::produce_documents, eventually};

#[test]
fn live_streams_and_backfills_share_a_process_and_a_broken_one_ends_nothing() {
    let setup = Setup::new();
    let broken = setup.files.write("broken.parquet", "PAR1 and no footer");
    let good = setup.files.documents("good.jsonl", 100..400);
    let gone = setup.files.documents("gone.jsonl", 900..910);
    setup.detach("elsewhere", &[&gone]);
    std::fs::remove_file(&gone).unwrap();
    setup.detach("broken", &[&broken]);
    setup.detach("good", &[&good]);
    let process = setup.stream.start_command(&setup.options, &["run", "--backfill"]);
    produce_documents(&setup.stream.topic, 0..50);
    let state = |job: &str| setup.run(&["status", job, "--json"]).expect(0).json()["state"].clone();
    eventually("the backfills are done", || {
        (state("broken") == "finished" && state("good") == "finished").then_some(())
    });
    produce_documents(&setup.stream.topic, 50..60);
    setup.stream.wait_for_labels(360);
    // Its file is not here, so it waits for a machine that has it.
    assert_eq!(state("elsewhere"), "running");
    setup.run(&["work", "elsewhere"]).expect(1).says(&format!("is on this machine: not `{gone}`"));
    process.stop();
    let live = "SELECT count(*) FROM {s}.documents WHERE (version)[1] = 1";
    assert_eq!(setup.database().number(live), 60);
    setup.assert_in_order(360);
}

#[test]
fn without_being_asked_run_leaves_backfills_alone() {
    let setup = Setup::new();
    let file = setup.files.documents("a.jsonl", 100..120);
    setup.detach("job", &[&file]);
    produce_documents(&setup.stream.topic, 0..20);
    setup.stream.run_until_labelled(&setup.options, 20);
    assert_eq!(setup.run(&["status", "job", "--json"]).expect(0).json()["records_stored"], 0);
}
