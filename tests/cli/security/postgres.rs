//! The security matrix of Postgres: what `sslmode=verify-full` lets through, and what it says of everything else.

use std::fs;

use sqlx::{AssertSqlSafe, PgPool, postgres::PgPoolOptions};
use tempfile::TempDir;

use super::{Answer, Setup};
use crate::support::{
    block_on,
    certificates::{Authority, Certificate, Validity},
    environment,
    pipeline::write,
    server::{Server, free_port, server_folder},
};

const PASSWORD: &str = "postgres-secret-77aa";

/// A server with TLS, whose certificate can be changed.
struct SecuredPostgres {
    port: u16,
    folder: TempDir,
    pool: PgPool,
    _server: Server,
}

impl SecuredPostgres {
    fn start() -> Self {
        let (folder, port) = (server_folder(), free_port());
        let (ours, foreign) = (Authority::new("our authority"), Authority::new("foreign authority"));
        let files = folder.path().join("files");
        fs::create_dir(&files).unwrap();
        let put = |folder: &std::path::Path, name: &str, certificate: Certificate| {
            write(folder, &format!("{name}.crt"), &certificate.certificate);
            write(folder, &format!("{name}.key"), &certificate.key);
        };
        put(&files, "good", ours.certificate("postgres", &["127.0.0.1"], Validity::Now));
        put(&files, "expired", ours.certificate("postgres", &["127.0.0.1"], Validity::Expired));
        put(folder.path(), "client", ours.certificate("certified", &["certified"], Validity::Now));
        put(folder.path(), "foreign-client", foreign.certificate("certified", &["certified"], Validity::Now));
        write(&files, "ca.crt", &ours.pem());
        write(folder.path(), "ca.crt", &ours.pem());
        write(folder.path(), "foreign-ca.crt", &foreign.pem());
        write(folder.path(), "password", PASSWORD);
        write(
            folder.path(),
            "postgresql.conf",
            "ssl = on\nssl_ca_file = 'ca.crt'\nssl_cert_file = 'good.crt'\nssl_key_file = 'good.key'\n",
        );
        write(
            folder.path(),
            "pg_hba.conf",
            "hostssl all certified 127.0.0.1/32 cert\nhostssl all all 127.0.0.1/32 scram-sha-256\n",
        );
        let server = Server::start("postgres", folder.path(), port, None, &[]);
        let url = format!("postgres://albertine:{PASSWORD}@127.0.0.1:{port}/postgres?sslmode=require");
        let pool = crate::support::eventually("Postgres lets the administrator in", || {
            block_on(PgPoolOptions::new().max_connections(1).connect(&url)).ok()
        });
        let postgres = Self { port, folder, pool, _server: server };
        postgres.execute("CREATE ROLE certified LOGIN; GRANT CREATE ON DATABASE postgres TO certified");
        postgres
    }

    fn execute(&self, statements: &str) {
        block_on(sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(&self.pool)).unwrap();
    }

    fn use_certificate(&self, name: &str) {
        for (setting, file) in [("ssl_cert_file", "crt"), ("ssl_key_file", "key")] {
            self.execute(&format!("ALTER SYSTEM SET {setting} = '{name}.{file}'"));
        }
        self.execute("SELECT pg_reload_conf()");
        // The reload is done when new sessions say so.
        crate::support::eventually("the certificate is another", || {
            let shown = sqlx::query_scalar::<_, String>("SHOW ssl_cert_file").fetch_one(&self.pool);
            (block_on(shown).unwrap() == format!("{name}.crt")).then_some(())
        });
    }

    fn url(&self, user: &str, host: &str, parameters: &[(&str, &str)]) -> String {
        let parameters: Vec<String> = parameters
            .iter()
            .map(|(name, file)| match *name {
                "sslmode" => format!("{name}={file}"),
                _ => format!("{name}={}", self.folder.path().join(file).display()),
            })
            .collect();
        format!("postgres://{user}@{host}:{}/postgres?{}", self.port, parameters.join("&"))
    }
}

fn migrate(url: &str) -> Answer {
    let setup = Setup::new();
    // Each role has a schema of its own.
    let schema = url::Url::parse(url).unwrap().username().to_owned();
    let mut command = setup.command(["database", "migrate"]);
    Answer::of(command.env("DATABASE_URL", url).env("ALBERTINE_POSTGRES__SCHEMA", schema), "")
}

fn refused(url: &str, problem: &str, remedy: &str) {
    let answer = migrate(url).expect(1).says(problem).says(remedy);
    assert!(!answer.stderr.contains(PASSWORD) && !answer.stdout.contains(PASSWORD), "{answer:#?}");
}

#[test]
fn verify_full_lets_the_right_server_through_and_tells_what_is_wrong_with_every_other() {
    let postgres = SecuredPostgres::start();
    let full = ("sslmode", "verify-full");
    let ours = [full, ("sslrootcert", "ca.crt")];
    let administrator = format!("albertine:{PASSWORD}");
    let wrong_password = format!("albertine:{PASSWORD}x");
    let host = "127.0.0.1";

    migrate(&postgres.url(&administrator, host, &ours)).expect(0).prints("is up to date");
    let foreign = [full, ("sslrootcert", "foreign-ca.crt")];
    let authority = "set `sslrootcert` in `postgres.url` to the certificate of its authority";
    refused(&postgres.url(&administrator, host, &foreign), "UnknownIssuer", authority);
    refused(&postgres.url(&administrator, host, &[full]), "UnknownIssuer", authority);
    refused(
        &postgres.url(&administrator, "localhost", &ours),
        "not valid for name \"localhost\"",
        "name the server in `postgres.url` as its certificate does",
    );
    refused(
        &postgres.url(&administrator, host, &[full, ("sslrootcert", "nowhere.crt")]),
        "No such file",
        "one of them names no file",
    );
    refused(
        &postgres.url(&wrong_password, host, &ours),
        "password authentication failed",
        "correct the user and password in `postgres.url` or `DATABASE_URL`",
    );
    refused(
        &postgres.url(&administrator, host, &[("sslmode", "disable")]),
        "no encryption",
        "the server demands TLS: set `sslmode=verify-full`",
    );
    let plain = environment("DATABASE_URL");
    refused(&format!("{plain}?sslmode=verify-full"), "server does not support TLS", "turn on `ssl` on the server");

    // With a certificate in place of a password.
    let client = [ours[0], ours[1], ("sslcert", "client.crt"), ("sslkey", "client.key")];
    let certified = migrate(&postgres.url("certified", host, &client));
    assert!(
        certified.stderr.contains("permission denied for schema albertine") || certified.code == Some(0),
        "{certified:#?}"
    );
    refused(
        &postgres.url("certified", host, &ours),
        "connection requires a valid client certificate",
        "set `sslcert` and `sslkey` in `postgres.url`",
    );
    let foreign_client = [ours[0], ours[1], ("sslcert", "foreign-client.crt"), ("sslkey", "foreign-client.key")];
    refused(
        &postgres.url("certified", host, &foreign_client),
        "received fatal alert",
        "have the client certificate of `sslcert` signed by an authority that the server trusts",
    );

    postgres.use_certificate("expired");
    refused(&postgres.url(&administrator, host, &ours), "expired", "have the server's certificate renewed");
}
