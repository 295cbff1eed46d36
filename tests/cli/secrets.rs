//! Passwords never come out: not in messages, not in help, not in the most talkative log.

use std::process::Command;

use super::{Answer, CONFIG, Setup, with_servers};
use crate::support::environment;

const SECRET: &str = "hunter2-correct-horse";

/// Runs commands that use the secret, logging everything, and looks for it in all they write.
fn assert_never_shown(setup: &Setup, commands: &[&[&str]], set: impl Fn(&mut Command)) {
    for arguments in commands {
        let mut command = setup.command(*arguments);
        with_servers(&mut command).env("ALBERTINE_POSTGRES__CONNECT_TIMEOUT", "1s").args(["--log", "trace"]);
        set(&mut command);
        let answer = Answer::of(&mut command, "");
        assert!(!answer.stdout.contains(SECRET), "{arguments:?} shows the secret: {}", answer.stdout);
        assert!(!answer.stderr.contains(SECRET), "{arguments:?} shows the secret: {}", answer.stderr);
    }
}

const USE_THE_DATABASE: [&[&str]; 4] = [&["--help"], &["check"], &["run"], &["database", "migrate"]];
const USE_THE_BROKER: [&[&str]; 3] =
    [&["check"], &["stream", "peek", "reviews"], &["stream", "produce", "reviews", "-", "--partitions", "1"]];

#[test]
fn a_wrong_password_of_the_database_is_not_repeated() {
    let mut url = url::Url::parse(&environment("DATABASE_URL")).unwrap();
    url.set_password(Some(SECRET)).unwrap();
    let setup = Setup::new();
    let refused = Answer::of(setup.command(["database", "migrate"]).env("DATABASE_URL", url.as_str()), "");
    refused.expect(1).says("password authentication failed");
    assert_never_shown(&setup, &USE_THE_DATABASE, |command| {
        command.env("DATABASE_URL", url.as_str());
    });
    assert_never_shown(&setup, &USE_THE_DATABASE, |command| {
        command.args(["--database-url", url.as_str()]);
    });
    let in_file = Setup::with_config(&CONFIG.replace("postgres://127.0.0.1:1/nobody", url.as_str()));
    assert_never_shown(&in_file, &USE_THE_DATABASE, |command| {
        command.env_remove("DATABASE_URL");
    });
}

#[test]
fn a_url_that_is_none_or_leads_nowhere_is_not_repeated() {
    for url in [
        format!("postgres://albertine:{SECRET}@127.0.0.1:no-port/albertine"),
        format!("postgres://albertine:{SECRET}@[::1/albertine"),
        format!("mysql://albertine:{SECRET}@127.0.0.1/albertine"),
        format!("postgres://127.0.0.1:1/albertine?password={SECRET}"),
        format!("postgres://albertine:{SECRET}@127.0.0.1:1/albertine?sslmode=perhaps"),
        SECRET.to_owned(),
    ] {
        assert_never_shown(&Setup::new(), &USE_THE_DATABASE, |command| {
            command.env("DATABASE_URL", &url);
        });
    }
}

#[test]
fn a_refused_parameter_of_the_url_is_named_as_a_problem_of_the_configuration() {
    for (parameter, value) in [("sslmode", "perhaps"), ("port", "soon"), ("statement-cache-capacity", "-1")] {
        let url = format!("postgres://albertine:{SECRET}@127.0.0.1:1/albertine?password={SECRET}&{parameter}={value}");
        for arguments in [&["check"][..], &["run"], &["database", "migrate"]] {
            let answer = Answer::of(Setup::new().command(arguments).env("DATABASE_URL", &url), "").expect(78);
            assert!(!answer.stderr.contains(SECRET) && !answer.stdout.contains(SECRET), "{answer:#?}");
            answer.says(&format!("`postgres.url`: the value of its parameter `{parameter}` is refused: "));
        }
    }
}

#[test]
fn secrets_of_the_broker_are_not_repeated() {
    let settings = format!(
        r#"
[kafka.client]
"security.protocol" = "sasl_plaintext"
"sasl.mechanisms" = "PLAIN"
"sasl.username" = "albertine"
"sasl.password" = "{SECRET}"
[postgres]"#
    );
    let setup = Setup::with_config(&CONFIG.replace("[postgres]", &settings));
    let refused = Answer::of(with_servers(&mut setup.command(["stream", "peek", "reviews"])), "");
    refused.expect(1).says("cannot read topic");
    assert_never_shown(&setup, &USE_THE_BROKER, |_| ());
}

#[test]
fn a_secret_of_the_wrong_type_is_not_repeated() {
    let number = "4711471147114711";
    let keys = [
        CONFIG.replace("\"postgres://127.0.0.1:1/nobody\"", number),
        CONFIG.replace("[postgres]", &format!("[kafka.client]\n\"sasl.password\" = {number}\n[postgres]")),
    ];
    for text in keys {
        let answer = Setup::with_config(&text).run(["check"], "").expect(78);
        assert!(!answer.stderr.contains(number) && !answer.stdout.contains(number), "{answer:#?}");
    }
}

#[test]
fn a_key_that_the_broker_client_refuses_is_not_repeated() {
    let settings = format!(
        r#"
[kafka.client]
"security.protocol" = "ssl"
"ssl.key.pem" = "-----BEGIN PRIVATE KEY-----\\n{SECRET}\\n-----END PRIVATE KEY-----"
[postgres]"#
    );
    let setup = Setup::with_config(&CONFIG.replace("[postgres]", &settings));
    let refused = Answer::of(with_servers(&mut setup.command(["stream", "peek", "reviews"])), "");
    refused.expect(1).says("ssl.key.pem");
    assert_never_shown(&setup, &USE_THE_BROKER, |_| ());
}
