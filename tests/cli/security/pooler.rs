//! The pipeline through `PgBouncer` in transaction mode, where each transaction may meet another session.

use super::{Answer, privileges::Role};
use crate::support::{
    broker::{end_of, produce_documents},
    database::Database,
    environment,
    pipeline::{Options, Stream, write},
    server::{Server, free_port, server_folder},
};

/// A pooler before the tests' Postgres; what it keeps goes with the value.
struct Pooler {
    port: u16,
    _server: Server,
    _folder: tempfile::TempDir,
}

impl Pooler {
    fn start(role: &Role<'_>) -> Self {
        let (folder, port) = (server_folder(), free_port());
        let target = url::Url::parse(&environment("DATABASE_URL")).unwrap();
        let password = url::Url::parse(&role.url(None)).unwrap().password().unwrap().to_owned();
        write(folder.path(), "users.txt", &format!("\"{}\" \"{password}\"\n", role.name));
        // Two sessions for all connections, so that transactions really share them.
        let settings = format!(
            "[databases]
* = host={host} port={target_port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users.txt
pool_mode = transaction
max_prepared_statements = 200
default_pool_size = 2
",
            host = target.host_str().unwrap(),
            target_port = target.port().unwrap(),
            folder = folder.path().display(),
        );
        write(folder.path(), "pgbouncer.ini", &settings);
        Self { port, _server: Server::start("pgbouncer", folder.path(), port, None, &[]), _folder: folder }
    }
}

#[test]
#[ignore = "builds PgBouncer from its source: `make test-long`"]
fn the_pipeline_runs_through_pgbouncer_in_transaction_mode() {
    let stream = Stream::with_database(2, Database::empty("pooled"));
    let role = Role::new(&stream.database);
    stream.database.script(&format!("CREATE SCHEMA {{s}} AUTHORIZATION {}", role.name));
    let pooler = Pooler::start(&role);
    let options = |postgres: &str| Options {
        live: true,
        database_url: Some(role.url(Some(pooler.port))),
        postgres: postgres.into(),
        ..Options::default()
    };
    let run = |options: &Options, arguments: &[&str]| Answer::of(stream.command(options).args(arguments), "");

    run(&options(""), &["database", "migrate"])
        .expect(1)
        .says("this is a pooler, which passes no settings on: set `postgres.session_settings` to `role`");
    let by_role = options("session_settings = \"role\"");
    let answer = run(&by_role, &["database", "migrate"]).expect(1).says("the sessions of this role have search_path");
    // What it says is what helps.
    let (_, statements) = answer.stderr.split_once("run: ").unwrap();
    stream.database.script(statements);
    // Sessions that are open keep what they began with.
    stream
        .database
        .script(&format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{}'", role.name));
    run(&by_role, &["database", "migrate"]).expect(0).prints("is up to date");
    run(&by_role, &["check"]).expect(0);

    produce_documents(&stream.topic, 0..300);
    let process = stream.start_working(&by_role);
    process.kill();
    stream.run_until_labelled(&by_role, 300);
    assert!(end_of(&stream.labels, 2) > 300, "not all labels are published");
    assert_eq!(stream.database.differences_from_a_recount(), [] as [String; 0]);
    run(&by_role, &["status"]).expect(0);
    run(&by_role, &["verify"]).expect(0);
}
