//! Connections that are secured, against a real broker and database that let in only whom they should: each way in
//! works, and each way to get it wrong has a message of its own, with the remedy.

mod grants;
mod kafka;
mod pooler;
mod postgres;
mod privileges;

use std::process::Command;

use super::{Answer, Setup};
use crate::support::{environment, secured::SecuredBroker};

/// A stream on a topic of the secured broker, reached through a listener with these client settings.
struct SecuredStream {
    setup: Setup,
    pub topic: String,
}

impl SecuredStream {
    fn new(broker: &SecuredBroker, listener: &str, client: &[(&str, &str)], topic: &str, schema: &str) -> Self {
        let line = |(name, value): &(&str, &str)| format!("\"{name}\" = {}", toml::Value::String((*value).to_owned()));
        let client = client.iter().map(line).collect::<Vec<_>>().join("\n");
        let setup = Setup::with_config(&format!(
            r#"
[kafka]
bootstrap_servers = "{servers}"
[kafka.client]
{client}
[postgres]
schema = "{schema}"
[engine]
sessions = 1
[models.albert-sentiment]
path = "tests/fixtures/instant-model"
[streams.reviews]
topic = "{topic}"
group = "{topic}"
models = ["albert-sentiment"]
[streams.reviews.live]
topic = "{topic}.labels"
[streams.reviews.fields]
id = "/id"
text = "/text"
item = "/item"
rating = "/rating"
"#,
            servers = broker.address(listener),
        ));
        Self { setup, topic: topic.to_owned() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.setup.command(arguments);
        command.env("DATABASE_URL", environment("DATABASE_URL"));
        command
    }

    fn run(&self, arguments: &[&str]) -> Answer {
        Answer::of(&mut self.command(arguments), "")
    }

    /// The line of `check` that begins so.
    fn line(&self, answer: &Answer, what: &str) -> String {
        let line = answer.stdout.lines().find(|line| line.get(8..).is_some_and(|rest| rest.starts_with(what)));
        line.unwrap_or_else(|| panic!("there is no line for `{what}` of `{}`: {answer:#?}", self.topic)).to_owned()
    }
}

#[test]
fn every_example_of_a_connection_is_a_valid_configuration() {
    for name in ["kafka-sasl-ssl", "kafka-mtls", "kafka-oauthbearer", "postgres-verify-full"] {
        let example = format!("config/examples/{name}.toml");
        // Reads and validates the file, and needs none of the files that it names.
        Setup::new().run(["--config", &example, "database", "migrate", "--print-sql"], "").expect(0);
    }
}
