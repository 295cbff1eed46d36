//! The security matrix of Kafka: mechanism by outcome.

use std::time::{Duration, Instant};

use super::{Answer, SecuredStream};
use crate::support::{
    database::Database,
    eventually,
    pipeline::Process,
    secured::{PASSWORD, SecuredBroker, broker},
    tokens::CLIENT_SECRET,
    unique,
};

/// How long `check` may take over a connection that fails, with all that it does besides. Generous: all cases run at
/// once, on a machine with few cores.
const CHECK_TIME_MAX: Duration = Duration::from_secs(30);

/// What no output may hold.
const WRONG: &str = "wrong-5e0d";
const SECRETS: [&str; 3] = [PASSWORD, CLIENT_SECRET, WRONG];

type Settings = Vec<(&'static str, String)>;

fn tls(broker: &SecuredBroker) -> Settings {
    vec![("security.protocol", "SSL".into()), ("ssl.ca.location", broker.file("ca.pem").to_str().unwrap().to_owned())]
}

fn mtls(broker: &SecuredBroker, client: &str) -> Settings {
    let file = |name: String| broker.file(&name).to_str().unwrap().to_owned();
    with(
        tls(broker),
        &[
            ("ssl.certificate.location", &file(format!("{client}.crt"))),
            ("ssl.key.location", &file(format!("{client}.key"))),
        ],
    )
}

fn sasl(broker: &SecuredBroker, mechanism: &str, password: &str) -> Settings {
    with(
        tls(broker),
        &[
            ("security.protocol", "SASL_SSL"),
            ("sasl.mechanism", mechanism),
            ("sasl.username", "albertine"),
            ("sasl.password", password),
        ],
    )
}

fn oauth(broker: &SecuredBroker, endpoint: &str, secret: &str) -> Settings {
    with(
        tls(broker),
        &[
            ("security.protocol", "SASL_SSL"),
            ("sasl.mechanism", "OAUTHBEARER"),
            ("sasl.oauthbearer.method", "oidc"),
            ("sasl.oauthbearer.client.id", "albertine"),
            ("sasl.oauthbearer.client.secret", secret),
            ("sasl.oauthbearer.token.endpoint.url", endpoint),
        ],
    )
}

/// The settings with these on top.
fn with(mut settings: Settings, more: &[(&'static str, &str)]) -> Settings {
    for (name, value) in more {
        settings.retain(|(present, _)| present != name);
        settings.push((name, (*value).to_owned()));
    }
    settings
}

fn stream(broker: &SecuredBroker, listener: &str, settings: &Settings, topic: &str, schema: &str) -> SecuredStream {
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    SecuredStream::new(broker, listener, &settings, topic, schema)
}

/// A way to connect: its name, the listener, the settings, and what `check` says: the line and parts of it.
struct Case {
    name: &'static str,
    listener: &'static str,
    settings: Settings,
    line: &'static str,
    says: Vec<String>,
}

const CONNECTION: &str = "Kafka at";
const USER: &str = "Kafka user";

fn case(name: &'static str, listener: &'static str, settings: Settings, line: &'static str, says: &[&str]) -> Case {
    Case { name, listener, settings, line, says: says.iter().map(|part| (*part).to_owned()).collect() }
}

fn foreign_authority(broker: &SecuredBroker) -> String {
    broker.file("foreign-ca.pem").to_str().unwrap().to_owned()
}

/// The server proves who it is.
fn tls_cases(broker: &SecuredBroker) -> Vec<Case> {
    let foreign = foreign_authority(broker);
    vec![
        case("tls", "TLS", tls(broker), CONNECTION, &["reachable by SSL"]),
        case("tls: expired", "EXPIRED", tls(broker), CONNECTION, &["is expired", "have it renewed"]),
        case(
            "tls: foreign authority",
            "TLS",
            with(tls(broker), &[("ssl.ca.location", &foreign)]),
            CONNECTION,
            &["of an authority that is not known here", "set `ssl.ca.location`"],
        ),
        case(
            "tls: no authority named",
            "TLS",
            vec![("security.protocol", "ssl".into())],
            CONNECTION,
            &["of an authority that is not known here", "set `ssl.ca.location`"],
        ),
        case(
            "tls: another name",
            "OTHERNAME",
            tls(broker),
            CONNECTION,
            &[
                "is for another name: ",
                "kafka.example",
                "name the broker in `kafka.bootstrap_servers` as its certificate does",
            ],
        ),
        case(
            "tls: no such file",
            "TLS",
            with(tls(broker), &[("ssl.ca.location", "/nowhere.pem")]),
            CONNECTION,
            &["ssl.ca.location failed", "see that the file is there"],
        ),
        case(
            "plaintext on a port for tls",
            "TLS",
            Vec::new(),
            CONNECTION,
            &["it speaks TLS on this port", "set `security.protocol` to `SSL`"],
        ),
        case(
            "tls on a plaintext port",
            "ADMIN",
            tls(broker),
            CONNECTION,
            &["does not speak TLS on this port", "set `security.protocol` to `PLAINTEXT`"],
        ),
    ]
}

/// So does the client.
fn certificate_cases(broker: &SecuredBroker) -> Vec<Case> {
    vec![
        case("mtls", "MTLS", mtls(broker, "client"), USER, &["that of the client certificate"]),
        case(
            "mtls: no certificate",
            "MTLS",
            tls(broker),
            USER,
            &[
                "demands a client certificate, and none is configured",
                "set `ssl.certificate.location` and `ssl.key.location`",
            ],
        ),
        case(
            "mtls: foreign certificate",
            "MTLS",
            mtls(broker, "foreign-client"),
            USER,
            &["does not take this client's certificate", "have it signed by an authority that the broker trusts"],
        ),
    ]
}

/// A user and a password, by each mechanism.
fn password_cases(broker: &SecuredBroker) -> Vec<Case> {
    let refused = "the broker refused user `albertine` with ";
    let password = "correct `sasl.username` and `sasl.password` in `[kafka.client]`";
    vec![
        case("plain", "SASL", sasl(broker, "PLAIN", PASSWORD), USER, &["`albertine` by PLAIN"]),
        case(
            "plain: wrong password",
            "SASL",
            sasl(broker, "PLAIN", WRONG),
            USER,
            &[refused, "PLAIN: Authentication failed: Invalid username or password", password],
        ),
        case("scram 256", "SASL", sasl(broker, "SCRAM-SHA-256", PASSWORD), USER, &["`albertine` by SCRAM-SHA-256"]),
        case(
            "scram 256: wrong password",
            "SASL",
            sasl(broker, "SCRAM-SHA-256", WRONG),
            USER,
            &[refused, "invalid credentials with SASL mechanism SCRAM-SHA-256", password],
        ),
        case("scram 512", "SASL", sasl(broker, "SCRAM-SHA-512", PASSWORD), USER, &["`albertine` by SCRAM-SHA-512"]),
        case(
            "scram 512: wrong password",
            "SASL",
            sasl(broker, "SCRAM-SHA-512", WRONG),
            USER,
            &[refused, "invalid credentials with SASL mechanism SCRAM-SHA-512", password],
        ),
    ]
}

/// Client and broker have different ways in mind.
fn mechanism_cases(broker: &SecuredBroker) -> Vec<Case> {
    let foreign = foreign_authority(broker);
    vec![
        case(
            "sasl: foreign authority",
            "SASL",
            with(sasl(broker, "PLAIN", PASSWORD), &[("ssl.ca.location", &foreign)]),
            CONNECTION,
            &["of an authority that is not known here", "set `ssl.ca.location`"],
        ),
        case(
            "sasl: a mechanism that is not offered",
            "SCRAM",
            with(sasl(broker, "PLAIN", PASSWORD), &[("security.protocol", "SASL_PLAINTEXT")]),
            USER,
            &["does not offer the mechanism `PLAIN`, but SCRAM-SHA-256", "set `sasl.mechanism`"],
        ),
        case(
            "sasl: no user",
            "SASL",
            with(sasl(broker, "PLAIN", PASSWORD), &[("security.protocol", "SSL")]),
            USER,
            &["it wants to know the user first", "set `security.protocol` to `SASL_SSL`"],
        ),
        case(
            "sasl on a port without",
            "TLS",
            sasl(broker, "PLAIN", PASSWORD),
            USER,
            &["it has no SASL there", "set `security.protocol` to `SSL`"],
        ),
        case(
            "sasl without tls on a port for tls",
            "SASL",
            with(sasl(broker, "PLAIN", PASSWORD), &[("security.protocol", "SASL_PLAINTEXT")]),
            CONNECTION,
            &["it speaks TLS on this port", "set `security.protocol` to `SASL_SSL`"],
        ),
        case(
            "sasl: no mechanism",
            "SASL",
            with(tls(broker), &[("security.protocol", "SASL_SSL")]),
            CONNECTION,
            &["GSSAPI", "set `sasl.mechanism`", "Kerberos is not built in"],
        ),
    ]
}

/// A token, from an endpoint that gives one of each kind.
fn token_cases(broker: &SecuredBroker) -> Vec<Case> {
    vec![
        case(
            "oauthbearer",
            "OAUTH",
            oauth(broker, &broker.tokens.url("token"), CLIENT_SECRET),
            USER,
            &["`albertine` by OAUTHBEARER"],
        ),
        case(
            "oauthbearer: wrong secret",
            "OAUTH",
            oauth(broker, &broker.tokens.url("token"), WRONG),
            USER,
            &[
                "gave no token",
                "invalid_client",
                "correct `sasl.oauthbearer.client.id`, `sasl.oauthbearer.client.secret`",
            ],
        ),
        case(
            "oauthbearer: expired token",
            "OAUTH",
            oauth(broker, &broker.tokens.url("expired"), CLIENT_SECRET),
            USER,
            &["a token that is expired already", "set the clocks"],
        ),
        case(
            "oauthbearer: token of a foreign key",
            "OAUTH",
            oauth(broker, &broker.tokens.url("forged"), CLIENT_SECRET),
            USER,
            &["the broker refused the token", "`sasl.oauthbearer.jwks.endpoint.url`"],
        ),
        case(
            "oauthbearer: unsigned token",
            "OAUTH",
            oauth(broker, &broker.tokens.url("unsigned"), CLIENT_SECRET),
            USER,
            &["the broker refused the token", "`sasl.oauthbearer.jwks.endpoint.url`"],
        ),
        case(
            "oauthbearer: no token endpoint",
            "OAUTH",
            oauth(broker, "http://127.0.0.1:1/token", CLIENT_SECRET),
            USER,
            &["cannot be reached", "correct `sasl.oauthbearer.token.endpoint.url`"],
        ),
    ]
}

/// What is wrong with one case; nothing where all is as expected.
fn outcome(broker: &SecuredBroker, case: &Case, topic: &str, schema: &str) -> Option<String> {
    let stream = stream(broker, case.listener, &case.settings, topic, schema);
    let began = Instant::now();
    let answer = stream.run(&["check"]);
    let took = began.elapsed();
    let line = stream.line(&answer, case.line);
    let is_shown = |secret: &&str| answer.stdout.contains(*secret) || answer.stderr.contains(*secret);
    let is_right =
        !SECRETS.iter().any(is_shown) && case.says.iter().all(|part| line.contains(part)) && took < CHECK_TIME_MAX;
    let works = line.starts_with("ok ");
    let follows = if works {
        // Everything that needs the connection is in order too.
        !answer.stdout.contains("failed  ")
    } else {
        line.starts_with("failed ")
            && answer.stdout.contains("skipped stream `reviews`: there is no connection to Kafka")
    };
    (!is_right || !follows).then(|| format!("{}: after {took:?}: {}", case.name, answer.stdout))
}

#[test]
fn every_mechanism_works_and_every_mistake_is_told_with_its_remedy() {
    let (broker, database) = (broker(), Database::new());
    let topic = unique("secured");
    broker.create_topic(&topic);
    broker.produce_documents(&topic, 0..3);
    let cases: Vec<Case> = [tls_cases, certificate_cases, password_cases, mechanism_cases, token_cases]
        .into_iter()
        .flat_map(|cases| cases(broker))
        .collect();
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let (topic, schema) = (&topic, &database.schema);
        let running: Vec<_> =
            cases.iter().map(|case| scope.spawn(move || outcome(broker, case, topic, schema))).collect();
        running.into_iter().filter_map(|case| case.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// From a record to a label in the database and on the live topic.
fn labels_and_publishes(listener: &str, settings: &Settings) {
    let (broker, database) = (broker(), Database::new());
    let topic = unique("secured");
    broker.create_topic(&topic);
    broker.produce_documents(&topic, 0..20);
    let stream = stream(broker, listener, settings, &topic, &database.schema);
    let process = Process::start(stream.command(&["run"]));
    eventually("20 documents are labelled", || (database.current_labels() == 20).then_some(()));
    let labels = format!("{topic}.labels");
    // The records and the marker that commits them.
    eventually("20 labels are published", || (broker.end_of(&labels) > 20).then_some(()));
    process.stop();
}

#[test]
fn a_stream_runs_over_tls_with_scram() {
    labels_and_publishes("SASL", &sasl(broker(), "SCRAM-SHA-512", PASSWORD));
}

#[test]
fn a_stream_runs_with_a_client_certificate() {
    labels_and_publishes("MTLS", &mtls(broker(), "client"));
}

#[test]
fn a_password_may_come_from_the_environment_alone() {
    let (broker, database) = (broker(), Database::new());
    let topic = unique("secured");
    broker.create_topic(&topic);
    let mut settings = sasl(broker, "SCRAM-SHA-256", PASSWORD);
    settings.retain(|(name, _)| *name != "sasl.password");
    let stream = stream(broker, "SASL", &settings, &topic, &database.schema);
    let mut command = stream.command(&["check"]);
    command.env("ALBERTINE_KAFKA__CLIENT", format!("{{\"sasl.password\"=\"{PASSWORD}\"}}"));
    Answer::of(&mut command, "").expect(0).prints("`albertine` by SCRAM-SHA-256");
}

#[test]
fn commands_with_wrong_credentials_end_with_the_cause_and_do_not_hang() {
    let (broker, database) = (broker(), Database::new());
    let stream = stream(broker, "SASL", &sasl(broker, "PLAIN", WRONG), &unique("secured"), &database.schema);
    let commands: [&[&str]; 4] =
        [&["run"], &["status"], &["stream", "tail", "reviews"], &["stream", "peek", "reviews"]];
    for arguments in commands {
        let began = Instant::now();
        let answer = stream.run(arguments).expect(1);
        assert!(began.elapsed() < CHECK_TIME_MAX, "{arguments:?} took {:?}", began.elapsed());
        answer
            .says("the broker refused user `albertine` with PLAIN: Authentication failed: Invalid username or password")
            .says("correct `sasl.username` and `sasl.password` in `[kafka.client]`");
    }
}
