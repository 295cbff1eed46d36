//! The program as its users meet it: a process with arguments, an environment, and what it writes.

mod bench;
mod calibrate;
mod check;
mod classify;
mod database;
mod dead_letter;
mod evaluate;
mod model;
mod own_data;
mod pipes;
mod position;
mod provider;
mod secrets;
mod security;
mod status;
mod stream;
mod tail;
mod usage;
mod verify;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

use crate::support::{answer::Answer, environment, pipeline::write, repository, unique};

/// A configuration that is complete, with servers that nobody runs: port 1 refuses at once.
const CONFIG: &str = r#"
[kafka]
bootstrap_servers = "127.0.0.1:1"
[postgres]
url = "postgres://127.0.0.1:1/nobody"
[models.albert-sentiment]
path = "models/albert-sentiment"
[streams.reviews]
topic = "reviews"
models = ["albert-sentiment"]
[streams.reviews.fields]
id = "/id"
text = "/text"
"#;

/// A folder with a configuration in it.
struct Setup {
    folder: TempDir,
    config: PathBuf,
}

impl Setup {
    fn new() -> Self {
        Self::with_config(CONFIG)
    }

    fn with_config(text: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let config = write(folder.path(), "albertine.toml", text);
        Self { folder, config }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        write(self.path(), name, text)
    }

    /// The program with these arguments and this configuration, and no other address in its environment.
    fn command<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_albertine"));
        command
            .args(arguments)
            .current_dir(repository("."))
            .env("ALBERTINE_CONFIG", &self.config)
            .env_remove("DATABASE_URL")
            .env_remove("KAFKA_BOOTSTRAP_SERVERS");
        command
    }

    fn run<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>, input: &str) -> Answer {
        Answer::of(&mut self.command(arguments), input)
    }
}

/// Points a command to the servers of the tests, where it will find neither a schema nor a topic: unlike a
/// server that is away, that is answered at once.
fn with_servers(command: &mut Command) -> &mut Command {
    command
        .env("DATABASE_URL", environment("DATABASE_URL"))
        .env("KAFKA_BOOTSTRAP_SERVERS", environment("KAFKA_BOOTSTRAP_SERVERS"))
        .env("ALBERTINE_POSTGRES__SCHEMA", unique("none"))
        .env("ALBERTINE_STREAMS__REVIEWS__TOPIC", unique("none"))
}

/// Runs a command whose output nobody reads: the reading end of its pipe is closed before it starts.
fn unread(command: &mut Command) -> Answer {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped()).output().unwrap();
    Answer {
        code: output.status.code(),
        stdout: String::new(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
