//! Avro and Protobuf with a real schema registry, and what happens while a registry gives no answer.

use std::{path::PathBuf, time::Duration};

use albertine::{
    decode::{
        Format,
        schema::{SchemaError, Schemas},
    },
    registry::{ClientCertificate, Registry, RegistryConfig},
};
use apache_avro::types::Value as Avro;
use serde_json::{Value, json};

use crate::support::{
    broker::produce_to,
    pipeline::{Options, Process, Stream, output},
    registry::{self, FakeRegistry, framed},
};

fn options(format: &str, url: &str) -> Options {
    Options {
        stream: format!("format = \"{format}\""),
        extra: format!("[schema_registry]\nurl = \"{url}\""),
        instant_model: true,
        ..Options::default()
    }
}

fn client(url: &str) -> Registry {
    Registry::new(&client_config(url)).unwrap()
}

fn client_config(url: &str) -> RegistryConfig {
    RegistryConfig {
        url: url.parse().unwrap(),
        user: None,
        password: None,
        ca_file: None,
        client_certificate: None,
        timeout: Duration::from_secs(10),
    }
}

fn labels(stream: &Stream) -> Vec<String> {
    stream.database.texts(
        "SELECT document_id || ' ' || label || coalesce(' ' || rating, '') FROM {s}.current_labels ORDER BY document_id",
    )
}

fn assert_nothing_rejected(stream: &Stream) {
    assert_eq!(stream.database.texts("SELECT reason || ': ' || message FROM {s}.rejections"), Vec::<String>::new());
}

fn review(fields: &Value) -> Value {
    json!({"type": "record", "name": "Review", "namespace": "shop", "fields": fields})
}

#[test]
fn avro_records_are_read_with_their_writers_schema_as_it_evolves() {
    let stream = Stream::new(1);
    let first = review(
        &json!([{"name": "id", "type": "string"}, {"name": "text", "type": "string"}, {"name": "old", "type": "int"}]),
    );
    let second = review(&json!([
        {"name": "rating", "type": ["null", "double"], "default": null},
        {"name": "text", "type": ["null", "string"]},
        {"name": "id", "type": "long"},
    ]));
    let (first_id, second_id) = (registry::register_avro(&first, &[]).id, registry::register_avro(&second, &[]).id);
    let old = registry::avro(
        &first,
        &[("id", Avro::String("1".into())), ("text", Avro::String("good".into())), ("old", Avro::Int(7))],
    );
    let new = registry::avro(
        &second,
        &[
            ("rating", Avro::Union(1, Box::new(Avro::Double(4.5)))),
            ("text", Avro::Union(1, Box::new(Avro::String("bad".into())))),
            ("id", Avro::Long(2)),
        ],
    );
    produce_to(&stream.topic, 0, None, Some(&framed(first_id, &old)));
    produce_to(&stream.topic, 0, None, Some(&framed(second_id, &new)));
    let process = stream.start(&options("avro", &registry::url()));
    stream.wait_for_positions(2);
    assert_nothing_rejected(&stream);
    assert_eq!(labels(&stream), ["1 positive", "2 negative 4.5"]);
    process.stop();
}

#[test]
fn schemas_may_refer_to_schemas_of_other_subjects() {
    let country = registry::register_avro(
        &json!({"type": "enum", "name": "Country", "namespace": "people", "symbols": ["DE", "FR"]}),
        &[],
    );
    let author = json!({"type": "record", "name": "Author", "namespace": "people", "fields": [{"name": "country", "type": "people.Country"}]});
    let author = registry::register_avro(&author, &[("people.Country", &country)]);
    let schema = review(
        &json!([{"name": "id", "type": "string"}, {"name": "text", "type": "string"}, {"name": "author", "type": "people.Author"}]),
    );
    let avro = registry::register_avro(&schema, &[("people.Author", &author)]);
    let stream = Stream::new(1);
    produce_to(&stream.topic, 0, None, Some(&framed(avro.id, b"\x02a\x08good\x02")));
    let process = stream.start(&options("avro", &registry::url()));
    stream.wait_for_positions(1);
    assert_nothing_rejected(&stream);
    assert_eq!(labels(&stream), ["a positive"]);
    process.stop();

    let common =
        registry::register_protobuf("syntax = \"proto3\"; package shop; message Author { string name = 1; }", &[]);
    let review = "syntax = \"proto3\"; package shop; import \"shop/common.proto\"; message Review { string id = 1; string text = 2; Author author = 3; }";
    let protobuf = registry::register_protobuf(review, &[("shop/common.proto", &common)]);
    let stream = Stream::new(1);
    produce_to(&stream.topic, 0, None, Some(&framed(protobuf.id, b"\0\x0a\x01b\x12\x03bad\x1a\x05\x0a\x03Ada")));
    let process = stream.start(&options("protobuf", &registry::url()));
    stream.wait_for_positions(1);
    assert_nothing_rejected(&stream);
    assert_eq!(labels(&stream), ["b negative"]);
    process.stop();
}

/// Waits until records wait, for the reason that the log then gives.
fn wait_for_retry(process: &Process, reason: &str) {
    process.wait_for_log("the schema registry does not answer; the partition waits");
    process.wait_for_log(reason);
    assert!(process.metric("albertine_schema_retries_total") > 0.0);
}

#[test]
fn records_wait_while_the_registry_gives_no_answer_and_none_is_lost() {
    let stream = Stream::new(1);
    let schema = review(&json!([{"name": "id", "type": "string"}, {"name": "text", "type": "string"}]));
    let fake = FakeRegistry::answering(503, "");
    produce_to(&stream.topic, 0, None, Some(&framed(5, b"\x02a\x08good")));
    produce_to(&stream.topic, 0, None, Some(&framed(5, b"\x02b\x06bad")));
    let process = stream.start(&options("avro", &fake.url()));
    wait_for_retry(&process, "HTTP 503");
    fake.answer(401, r#"{"error_code": 401, "message": "Unauthorized"}"#);
    wait_for_retry(&process, "are `schema_registry.user` and `schema_registry.password` right");
    fake.answer(200, "<html>Please log in</html>");
    wait_for_retry(&process, "is `schema_registry.url` right?");
    fake.answer(404, "<html>Not found</html>");
    wait_for_retry(&process, "is the path of `schema_registry.url` right?");
    assert_eq!(labels(&stream), Vec::<String>::new());
    fake.answer(200, &json!({"schema": schema.to_string()}).to_string());
    stream.wait_for_positions(2);
    assert_nothing_rejected(&stream);
    assert_eq!(labels(&stream), ["a positive", "b negative"]);
    process.stop();
}

#[test]
fn a_worker_stops_while_its_records_wait_and_the_next_one_reads_them() {
    let stream = Stream::new(1);
    let schema = review(&json!([{"name": "id", "type": "string"}, {"name": "text", "type": "string"}]));
    let id = registry::register_avro(&schema, &[]).id;
    produce_to(&stream.topic, 0, None, Some(&framed(id, b"\x02a\x08good")));
    let mut away = options("avro", "http://127.0.0.1:1");
    away.extra.push_str("\n[shutdown]\ndeadline = \"1s\"");
    let process = stream.start(&away);
    wait_for_retry(&process, "127.0.0.1:1");
    process.stop();
    let process = stream.start(&options("avro", &registry::url()));
    stream.wait_for_labels(1);
    assert_nothing_rejected(&stream);
    process.stop();
}

#[test]
fn an_unknown_schema_is_asked_for_once_in_a_while() {
    let fake = FakeRegistry::answering(404, r#"{"error_code": 40403, "message": "Schema not found"}"#);
    let registry = client(&fake.url());
    for _ in 0..3 {
        let error = registry.schema(7).unwrap_err();
        assert!(
            matches!(&error, SchemaError::Unknown(problem) if problem.contains("no schema 7 (Schema not found)")),
            "{error:?}"
        );
    }
    assert_eq!(fake.requests(), 1);
    fake.answer(200, r#"{"schema": "\"string\""}"#);
    assert!(registry.schema(8).is_ok() && registry.schema(8).is_ok());
    assert_eq!(fake.requests(), 2);
}

#[test]
fn the_real_registry_says_what_it_does_not_know_and_what_it_is() {
    let registry = client(&registry::url());
    assert!(registry.check().unwrap().contains(&"PROTOBUF".to_owned()));
    // The last one is more than an id can be, which registries answer in ways of their own.
    for id in [1_900_000_000, i32::MAX.cast_unsigned(), u32::MAX] {
        assert!(matches!(registry.schema(id), Err(SchemaError::Unknown(_))), "{id}");
    }
    let json = registry::register_json(&json!({
        "$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "properties": {"id": {"type": "string"}},
    }));
    assert_eq!(registry.schema(json.id).unwrap().format(), Format::Json);
}

/// Runs `albertine` with this stream's configuration; its exit code and all it wrote.
fn run(stream: &Stream, options: &Options, arguments: &[&str], set: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = stream.command(options);
    command.args(arguments).envs(set.iter().copied());
    let (code, stdout, stderr) = output(&mut command, "");
    (code, stdout + &stderr)
}

#[test]
fn check_and_peek_read_what_a_run_would_read() {
    let stream = Stream::new(1);
    let schema = review(&json!([{"name": "id", "type": "string"}, {"name": "text", "type": ["null", "string"]}]));
    let id = registry::register_avro(&schema, &[]).id;
    for (number, text) in ["A fine kettle.", "It broke at once.", "Nothing to say here."].into_iter().enumerate() {
        let text = Avro::Union(1, Box::new(Avro::String(text.into())));
        let data = registry::avro(&schema, &[("id", Avro::String(format!("r{number}"))), ("text", text)]);
        produce_to(&stream.topic, 0, None, Some(&framed(id, &data)));
    }
    let avro = options("avro", &registry::url());
    let (code, said) = run(&stream, &avro, &["check"], &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("ok      schema registry: `http://") && said.contains("schemas of"), "{said}");
    let (_, said) = run(&stream, &avro, &["stream", "peek", "reviews"], &[]);
    assert!(said.contains("  r0  A fine kettle."), "{said}");
    let (_, said) = run(&stream, &avro, &["run", "--dry-run", "reviews"], &[]);
    assert!(said.contains("3 records: 3 labelled"), "{said}");

    let (_, said) = run(&stream, &avro, &["stream", "peek", &stream.topic], &[]);
    for line in
        ["of which 3 are avro.", "format = \"avro\"", "id = \"/id\"", "text = \"/text\"", "#   r0  A fine kettle."]
    {
        assert!(said.contains(line), "no `{line}` in {said}");
    }
    let without = Options { stream: String::new(), extra: String::new(), ..avro.clone() };
    let (_, said) = run(&stream, &without, &["stream", "peek", &stream.topic], &[]);
    assert!(said.contains("cannot be read") && said.contains("set `schema_registry.url`"), "{said}");

    let away = options("avro", "http://127.0.0.1:1");
    let (code, said) = run(&stream, &away, &["check"], &[]);
    assert!(
        code == Some(1) && said.contains("failed  schema registry: `http://127.0.0.1:1/schemas/types`: "),
        "{said}"
    );
    let (_, said) = run(&stream, &away, &["stream", "peek", "reviews"], &[]);
    assert!(said.contains("would wait: the schema registry does not answer"), "{said}");
    let (code, said) = run(&stream, &away, &["run", "--dry-run", "reviews"], &[]);
    assert!(code == Some(1) && said.contains("the schema registry does not answer"), "{said}");
}

#[test]
fn peek_proposes_a_mapping_for_plain_text() {
    let stream = Stream::new(1);
    for text in ["A fine kettle.", "5", "It broke at once."] {
        produce_to(&stream.topic, 0, None, Some(text.as_bytes()));
    }
    let (_, said) = run(&stream, &Options::default(), &["stream", "peek", &stream.topic], &[]);
    for line in [
        "of which 3 are text.",
        "format = \"text\"",
        "id = \"position\"",
        "text = \"value\"",
        "#   0-0  A fine kettle.",
    ] {
        assert!(said.contains(line), "no `{line}` in {said}");
    }
}

#[test]
fn the_password_goes_to_the_registry_and_nowhere_else() {
    const PASSWORD: &str = "hunter2-correct-horse";
    /// `me:hunter2-correct-horse` in Base64.
    const ENCODED: &str = "bWU6aHVudGVyMi1jb3JyZWN0LWhvcnNl";
    let stream = Stream::new(1);
    let fake = FakeRegistry::answering(401, "");
    let mut options = options("avro", &fake.url());
    options.extra.push_str("\nuser = \"me\"");
    let password = [("ALBERTINE_SCHEMA_REGISTRY__PASSWORD", PASSWORD)];
    for arguments in [&["check", "--log", "trace"][..], &["stream", "peek", "reviews", "--log", "trace"]] {
        let (_, said) = run(&stream, &options, arguments, &password);
        assert!(!said.contains(PASSWORD) && !said.contains(ENCODED), "{arguments:?} shows the password: {said}");
    }
    let request = fake.last_request();
    assert!(request.to_lowercase().contains("authorization: basic ") && request.contains(ENCODED), "{request}");
    let (_, said) = run(&stream, &options, &["check"], &password);
    assert!(said.contains("it refuses us (HTTP 401)"), "{said}");
}

#[test]
fn both_ends_prove_who_they_are_over_tls() {
    let (fake, files) = FakeRegistry::answering_over_tls(200, r#"{"schema": "\"string\""}"#);
    let url = fake.url().replace("http:", "https:");
    let certificate = ClientCertificate { certificate: files.certificate.clone(), key: files.key.clone() };
    let config = |ca_file: Option<&PathBuf>, client_certificate| {
        let config = RegistryConfig { ca_file: ca_file.cloned(), client_certificate, ..client_config(&url) };
        Registry::new(&config).unwrap().schema(1).map(|schema| schema.format())
    };
    assert_eq!(config(Some(&files.ca), Some(certificate.clone())), Ok(Format::Avro));
    let unavailable = |result| match result {
        Err(SchemaError::Unavailable(problem)) => problem,
        other => panic!("{other:?}"),
    };
    // Its authority is none that Mozilla trusts; and it takes nobody without a certificate.
    let untrusted = unavailable(config(None, Some(certificate)));
    assert!(untrusted.to_lowercase().contains("certificate"), "{untrusted}");
    unavailable(config(Some(&files.ca), None));
}

#[test]
fn certificates_that_cannot_be_read_are_named() {
    let stream = Stream::new(1);
    for (line, message) in [
        ("ca_file = \"nowhere.pem\"", "cannot read `nowhere.pem` for the schema registry: "),
        ("ca_file = \"Cargo.toml\"", "`Cargo.toml` for the schema registry holds no certificate in PEM"),
        (
            "client_certificate = \"Cargo.toml\"\nclient_key = \"Cargo.toml\"",
            "`Cargo.toml` for the schema registry holds no private key in PEM",
        ),
    ] {
        let base = options("avro", "https://127.0.0.1:1");
        let options = Options { extra: format!("{}\n{line}", base.extra), ..base };
        let (_, said) = run(&stream, &options, &["check"], &[]);
        assert!(said.contains(message), "{said}");
    }
}
