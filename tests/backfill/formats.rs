//! Every format, plain and compressed, and files that are broken in every way.

use super::Setup;
use crate::support::{
    broker::document,
    files::{gzip, jsonl},
};

#[test]
fn every_format_is_labelled_plain_and_compressed() {
    let setup = Setup::new();
    let names = ["a.jsonl", "b.jsonl.gz", "c.jsonl.zst", "d.csv", "e.csv.gz", "f.csv.zst", "g.parquet"];
    let files: Vec<String> = names
        .iter()
        .enumerate()
        .map(|(index, name)| setup.files.documents(name, index * 100..(index + 1) * 100))
        .collect();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let answer = setup.run(&[&["start", "reviews", "--json"], files.as_slice()].concat()).expect(0).json();
    let figures = ["state", "records_stored", "records", "rejected", "shards_failed"].map(|name| answer[name].clone());
    assert_eq!(serde_json::json!(figures), serde_json::json!(["finished", 700, 700, 0, 0]), "{answer:#}");
    setup.assert_stored_once(700, 0);
    let items = "SELECT count(*) FROM {s}.documents WHERE item LIKE 'item-%' AND (version)[1] = 0";
    assert_eq!(setup.database().number(items), 700);
}

#[test]
fn a_pattern_names_many_files_and_one_that_names_none_is_an_error() {
    let setup = Setup::new();
    for index in 0..4 {
        setup.files.documents(&format!("part-{index}.jsonl"), index * 10..(index + 1) * 10);
    }
    setup.files.documents("other.jsonl", 50..60);
    let pattern = |name: &str| setup.files.path(name).to_str().unwrap().to_owned();
    setup.run(&["start", "reviews", &pattern("part-*.jsonl")]).expect(0).says("4 shard(s) of 4 file(s)");
    setup.assert_stored_once(40, 0);
    setup.run(&["start", "reviews", &pattern("nothing-*")]).expect(1).says("no file matches");
    setup.run(&["start", "reviews", &pattern("missing.jsonl")]).expect(1).says("cannot open");
}

#[test]
fn what_is_broken_is_named_with_its_place_and_the_rest_is_labelled() {
    let setup = Setup::new();
    let files = &setup.files;
    let documents = |range: std::ops::Range<usize>| jsonl(&range.map(document).collect::<Vec<_>>());
    let good = files.documents("a-good.parquet", 0..120);
    let rows = files.write(
        "b-rows.jsonl",
        [
            documents(200..210).as_bytes(),
            b"{not json\n\xff\xfe\n[1]\n\n{\"id\":\"x\"}\n",
            documents(210..215).as_bytes(),
        ]
        .concat(),
    );
    let truncated = {
        let bytes = gzip(&documents(300..900));
        files.write("c-truncated.jsonl.gz", &bytes[..bytes.len() / 2])
    };
    let footer = {
        let bytes = std::fs::read(&good).unwrap();
        files.write("d-footer.parquet", &bytes[..bytes.len() - 100])
    };
    let empty = files.write("e-empty.jsonl", "");
    let header = files.write("f-header.csv", "id,text\n");
    let columns = files.write("g-columns.csv", "name,body\n1,a\n2,b\n");
    let no_gzip = files.write("h-plain.jsonl.gz", documents(950..960));
    files.documents("i-empty.parquet", []);
    let pattern = files.path("*").to_str().unwrap().to_owned();

    let answer = setup.run(&["start", "reviews", "--json", &pattern]).expect(1);
    let outcome = answer.json();
    assert_eq!((&outcome["state"], &outcome["shards_failed"]), (&"finished".into(), &3.into()), "{outcome:#}");
    let failures: Vec<&str> =
        outcome["failures"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    assert!(failures[0].starts_with(&format!("cannot read `{truncated}` after line ")), "{failures:#?}");
    assert!(failures[1].starts_with(&format!("cannot read `{footer}` as Parquet: ")), "{failures:#?}");
    assert!(failures[2].starts_with(&format!("cannot open `{no_gzip}`: its name says gzip")), "{failures:#?}");
    answer.says("3 of").says("shard(s) failed").says("backfill resume");

    let messages = setup.database().texts("SELECT message FROM {s}.rejections ORDER BY partition, \"offset\"");
    let expected = [
        format!("`{rows}` line 11: is not JSON: "),
        format!("`{rows}` line 12: is not UTF-8: "),
        format!("`{rows}` line 13: must be a JSON object"),
        format!("`{rows}` line 15: there is no text at `/text`"),
        format!("`{columns}` line 2: there is no id at `/id`"),
        format!("`{columns}` line 3: there is no id at `/id`"),
    ];
    assert_eq!(messages.len(), expected.len(), "{messages:#?}");
    for (message, expected) in messages.iter().zip(&expected) {
        assert!(message.starts_with(expected), "{message} does not begin with {expected}");
    }
    // Up to where the archive ends, all is labelled.
    let labelled = setup.database().current_labels();
    assert!(labelled > 135 && labelled < 735, "{labelled}");
    setup.assert_stored_once(labelled, 6);
    drop((empty, header));
}

#[test]
fn a_file_that_changed_is_refused_and_said() {
    let setup = Setup::new();
    let file = setup.files.documents("a.jsonl", 0..20);
    setup.detach("changed", &[&file]);
    setup.files.documents("a.jsonl", 0..30);
    setup.run(&["work", "changed"]).expect(1).says(&format!("`{file}` has changed since the backfill was started"));
    setup.assert_stored_once(0, 0);
}

#[test]
fn fields_may_lie_elsewhere_and_the_key_is_a_field() {
    let mut setup = Setup::new();
    setup.options.id = Some("key");
    let file = setup.files.write("a.csv", "nr,title,body\n1,Good,A kettle\n2,Bad,A lid\n");
    let fields = ["--key-field", "nr", "--field", "text=/title", "--field", "text=/body", "--field", "item=/title"];
    setup.run(&[&["start", "reviews", &file][..], &fields].concat()).expect(0);
    let rows =
        setup.database().texts("SELECT document_id || ' ' || item || ' ' || label FROM {s}.current_labels ORDER BY 1");
    assert_eq!(rows, ["1 Good positive", "2 Bad negative"]);
}
