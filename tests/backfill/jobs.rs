//! What one may ask of a job: wait, go on, end, show, begin with a part, rank.

use super::Setup;
use crate::support::{broker::produce_documents, eventually};

#[test]
fn a_job_waits_goes_on_and_ends_as_it_is_told() {
    let setup = Setup::new();
    let file = setup.files.documents("a.jsonl", 0..400);
    setup.detach("job", &[&file]);
    setup.run(&["pause", "job"]).expect(0).says("backfill `job` is paused");
    setup.run(&["work", "job"]).expect(1).says("it was paused");
    assert_eq!(setup.database().current_labels(), 0);
    setup.run(&["resume", "job"]).expect(0).says("is running");

    let mut process = setup.work("job", "before-store=sleep(30)");
    eventually("something is stored", || (setup.database().current_labels() > 0).then_some(()));
    setup.run(&["pause", "job"]).expect(0);
    assert_eq!(process.wait().code(), Some(1), "{}", process.log());
    let stored = setup.database().current_labels();
    assert!(stored < 400, "it was done before it was paused");
    let status = setup.run(&["status", "job", "--json"]).expect(0).json();
    assert_eq!((&status["state"], &status["records_stored"]), (&"paused".into(), &stored.into()), "{status:#}");
    assert_eq!(status["shards_in_work"], 0);

    setup.run(&["resume", "job"]).expect(0);
    setup.run(&["work"]).expect(0);
    setup.assert_stored_once(400, 0);
    setup.run(&["cancel", "job"]).expect(1).says("backfill `job` is finished, and only one that is running or paused");

    setup.detach("other", &[&file]);
    setup.run(&["cancel", "other"]).expect(0);
    setup.run(&["work", "other"]).expect(1).says("it was cancelled");
    setup.run(&["resume", "other"]).expect(1).says("backfill `other` is cancelled");
    let listed = setup.run(&["list", "--json"]).expect(0).json();
    let states: Vec<_> = listed.as_array().unwrap().iter().map(|job| (&job["job"], &job["state"])).collect();
    assert_eq!(states, [(&"other".into(), &"cancelled".into()), (&"job".into(), &"finished".into())]);
    assert!(setup.run(&["list"]).expect(0).stdout.contains("cancelled"));
    setup.run(&["status", "nothing"]).expect(2).says("there is no backfill `nothing`");
    setup.run(&["start", "reviews", "--name", "job", &file]).expect(2).says("there is a backfill `job` already");
}

#[test]
fn failed_shards_are_tried_again_where_they_stood() {
    let setup = Setup::new();
    let good = setup.files.documents("a.jsonl", 0..20);
    let late = setup.files.path("late.jsonl.gz");
    std::fs::write(&late, b"").unwrap();
    // Not yet readable: its name says gzip, and nothing is in it.
    setup.run(&["start", "reviews", "--name", "job", &good, late.to_str().unwrap()]).expect(1);
    setup.run(&["resume", "job"]).expect(0);
    setup.run(&["work", "job"]).expect(1).says("1 of 2 shard(s) failed");
    setup.assert_stored_once(20, 0);
}

#[test]
fn a_limit_takes_the_first_records_whatever_the_format() {
    let setup = Setup::new();
    let files = ["a.jsonl", "b.csv.gz", "c.parquet"];
    let files: Vec<String> = files
        .iter()
        .enumerate()
        .map(|(index, name)| setup.files.documents(name, index * 100..(index + 1) * 100))
        .collect();
    let arguments = ["start", "reviews", "--json", "--limit", "230", &files[0], &files[1], &files[2]];
    let outcome = setup.run(&arguments).expect(0).json();
    assert_eq!((&outcome["records"], &outcome["records_stored"]), (&230.into(), &230.into()), "{outcome:#}");
    setup.assert_stored_once(230, 0);
    let last = "SELECT max(substr(document_id, 2)::bigint) FROM {s}.documents";
    assert_eq!(setup.database().number(last), 229);
}

#[test]
fn a_dry_run_says_what_would_come_of_it_and_stores_nothing() {
    let setup = Setup::new();
    let file = setup.files.write(
        "a.jsonl",
        "{\"id\":1,\"text\":\"good\"}\n{bad\n{\"id\":2,\"text\":\"bad\"}\n{\"id\":3,\"text\":\"bad\"}\n",
    );
    let answer = setup.run(&["start", "reviews", "--dry-run", "--json", &file]).expect(0).json();
    assert_eq!((&answer["records"], &answer["labelled"]), (&4.into(), &3.into()), "{answer:#}");
    assert_eq!(answer["models"][0]["labels"], serde_json::json!({"negative": 2, "neutral": 0, "positive": 1}));
    assert_eq!(answer["examples"][0]["place"], format!("`{file}` line 1"));
    assert!(answer["rejected"][0]["first"].as_str().unwrap().starts_with(&format!("`{file}` line 2: is not JSON")));
    let three = setup.run(&["start", "reviews", "--dry-run", "--json", "--limit", "3", &file]).expect(0).json();
    assert_eq!(three["records"], 3);
    for table in ["documents", "backfill_jobs", "checkpoints", "rejections"] {
        assert_eq!(setup.database().number(&format!("SELECT count(*) FROM {{s}}.{table}")), 0, "{table}");
    }
}

#[test]
fn files_rank_below_what_came_live_unless_told_otherwise() {
    let setup = Setup::new();
    produce_documents(&setup.stream.topic, 0..10);
    setup.stream.run_until_labelled(&setup.options, 10);
    let generations = || {
        let query = "SELECT (version)[1] || ' ' || count(*) FROM {s}.documents GROUP BY 1, (version)[1] ORDER BY 1";
        setup.database().texts(&query.replace("GROUP BY 1, ", "GROUP BY "))
    };
    let file = setup.files.documents("a.jsonl", 0..20);
    setup.run(&["start", "reviews", &file]).expect(0);
    assert_eq!(generations(), ["0 10", "1 10"]);
    let versions =
        "SELECT string_agg(version::text, ';' ORDER BY document_id) FROM {s}.documents WHERE (version)[1] = 0";
    let earlier = setup.database().texts(versions);
    setup.run(&["start", "reviews", &file]).expect(0);
    assert_ne!(setup.database().texts(versions), earlier, "a later backfill is newer");
    setup.run(&["start", "reviews", "--rank", "newest", &file]).expect(0);
    assert_eq!(generations(), ["1 20"]);
    // What comes live after that is newer again.
    produce_documents(&setup.stream.topic, 0..5);
    let process = setup.stream.start(&setup.options);
    let topic = "SELECT count(*) FROM {s}.documents WHERE produced_at IS NOT NULL";
    eventually("live records win again", || (setup.database().number(topic) == 5).then_some(()));
    process.stop();
}
