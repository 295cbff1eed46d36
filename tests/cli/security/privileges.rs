//! Databases in other people's hands: a schema of any name, and a role that may not change it.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use super::{Answer, Setup};
use crate::support::{
    broker::{produce_documents, produce_to},
    database::Database,
    pipeline::{Options, Stream},
    unique,
};

const PASSWORD: &str = "role-secret-31bd";

/// A role that may log in and no more; dropped with the value.
pub struct Role<'a> {
    pub name: String,
    database: &'a Database,
}

impl<'a> Role<'a> {
    pub fn new(database: &'a Database) -> Self {
        let name = unique("role");
        database.script(&format!("CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'"));
        Self { name, database }
    }

    pub fn url(&self, port: Option<u16>) -> String {
        self.database.url_as(&self.name, PASSWORD, port)
    }
}

impl Drop for Role<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.database.script(&format!("DROP OWNED BY {0}; DROP ROLE {0}", self.name));
        }
    }
}

/// What an administrator does with the printed script.
fn run_with_psql(database: &Database, script: &str) {
    let mut psql = Command::new("psql");
    psql.args(["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", &database.url]);
    let mut child = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn database_command(database: &Database, url: &str, arguments: &[&str]) -> Answer {
    let setup = Setup::new();
    let mut command = setup.command(arguments);
    Answer::of(command.env("DATABASE_URL", url).env("ALBERTINE_POSTGRES__SCHEMA", &database.schema), "")
}

#[test]
fn the_pipeline_runs_in_a_schema_whose_name_needs_quotes() {
    let stream = Stream::with_database(1, Database::named("Odd \"na'me"));
    produce_documents(&stream.topic, 0..10);
    stream.run_until_labelled(&Options { live: true, ..Options::default() }, 10);
    assert_eq!(stream.database.differences_from_a_recount(), [] as [String; 0]);
}

#[test]
fn a_role_without_rights_on_the_schema_runs_the_pipeline_after_an_administrator_ran_the_script() {
    let stream = Stream::with_database(1, Database::empty("admin's"));
    let (database, options) = (&stream.database, Options { live: true, instant_model: true, ..Options::default() });
    let role = Role::new(database);
    let url = role.url(None);
    let migrate =
        |arguments: &[&str]| database_command(database, &url, &[&["database", "migrate"][..], arguments].concat());

    // What it cannot do, it says, with the remedy.
    migrate(&[]).expect(1).says("cannot create schema").says("let a role with the right CREATE on the database run");
    let script = migrate(&["--print-sql", "--grant-to", &role.name]).expect(0).stdout;
    run_with_psql(database, &migrate(&["--print-sql"]).expect(0).stdout);
    migrate(&[]).expect(1).says("lacks rights in schema").says("USAGE on the schema; let the owner run: GRANT USAGE");
    run_with_psql(database, &script);
    migrate(&[]).expect(0).prints("is up to date");

    let check = |options: &Options| Answer::of(stream.command(options).arg("check"), "");
    let options = Options { database_url: Some(url.clone()), ..options };
    check(&options).expect(0).prints("it does not own the tables, so rejections are kept without monthly partitions");

    produce_documents(&stream.topic, 0..10);
    produce_to(&stream.topic, 0, None, Some(b"not json"));
    let process = stream.start(&options);
    process.wait_for_log("this role does not own the tables");
    stream.wait_for_positions(11);
    stream.wait_for_labels(10);
    process.stop();
    assert_eq!(database.number("SELECT count(*) FROM {s}.rejections_default"), 1);

    // What is beyond the retention goes, row by row.
    database.script("UPDATE {s}.rejections SET rejected_at = rejected_at - interval '400 days'");
    let process = stream.start(&options);
    process.wait_for_log("deleted rows that are older than their retention");
    process.stop();
    assert_eq!(database.number("SELECT count(*) FROM {s}.rejections"), 0);

    database.script(&format!("REVOKE INSERT ON {{s}}.labels FROM {}", role.name));
    check(&options)
        .expect(1)
        .prints("lacks rights in schema")
        .prints("INSERT on labels; let the owner run: GRANT USAGE");
}

#[test]
fn rows_in_the_default_partition_do_not_stop_an_owner() {
    let stream = Stream::new(1);
    stream.database.script(
        "INSERT INTO {s}.rejections (stream, topic, partition, \"offset\", stage, reason, message)
         VALUES ('a', 'a', 0, 0, 'decode', 'a', 'a')",
    );
    assert_eq!(stream.database.number("SELECT count(*) FROM {s}.rejections_default"), 1);
    produce_documents(&stream.topic, 0..3);
    stream.run_until_labelled(&Options { instant_model: true, ..Options::default() }, 3);
}
