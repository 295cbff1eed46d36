//! The program as processes: started, watched, stopped, killed, frozen.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use tempfile::TempDir;

use super::{broker::Topic, database::Database, environment, eventually, repository, server::free_port, unique};

/// A stream with its own topic and schema, and the configuration of a pipeline that labels it.
pub struct Stream {
    pub topic: Topic,
    pub labels: Topic,
    pub dead_letters: Topic,
    pub database: Database,
    folder: TempDir,
}

/// What a pipeline's configuration may have beside the usual.
#[derive(Default, Clone)]
pub struct Options {
    /// Lines under `[streams.reviews]`.
    pub stream: String,
    /// Tables after everything else.
    pub extra: String,
    /// `FAILPOINTS`, in the syntax of the `fail` crate.
    pub failpoints: String,
    /// In place of the database's own URL.
    pub database_url: Option<String>,
    /// Lines under `[postgres]`.
    pub postgres: String,
    /// Lines under `[engine]`.
    pub engine: String,
    /// One where it is not given.
    pub sessions: Option<usize>,
    /// Lines under the model's table.
    pub model_lines: String,
    /// The path of the id in a record.
    pub id: Option<&'static str>,
    /// With a live topic and dead letters.
    pub live: bool,
    /// After which a silent worker is replaced, in milliseconds.
    pub session_timeout_ms: Option<u32>,
    /// With the fixture that answers at once, in place of `albert-sentiment`.
    pub instant_model: bool,
    /// With the model of this folder, in place of both.
    pub model: Option<String>,
    /// Lines under `[streams.reviews.live]`.
    pub live_lines: String,
}

impl Options {
    pub const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(2);

    /// For runs full of faults: everything that waits waits for less.
    pub fn chaos() -> Self {
        Self {
            id: Some("key"),
            live: true,
            session_timeout_ms: Some(2_000),
            live_lines: format!("transaction_timeout = \"{}s\"", Self::TRANSACTION_TIMEOUT.as_secs()),
            ..Self::default()
        }
    }
}

impl Stream {
    /// A new topic with this many partitions, and an empty schema.
    pub fn new(partitions: i32) -> Self {
        Self::with_database(partitions, Database::new())
    }

    /// The same with a database that was made before.
    pub fn with_database(partitions: i32, database: Database) -> Self {
        let topic = Topic::new("reviews", partitions);
        let named = |suffix: &str| Topic::named(format!("{topic}.{suffix}"));
        Self {
            labels: named("labels"),
            dead_letters: named("dead-letters"),
            topic,
            database,
            folder: TempDir::new().unwrap(),
        }
    }

    /// Starts `albertine run`.
    pub fn start(&self, options: &Options) -> Process {
        self.start_command(options, &["run"])
    }

    /// Starts `albertine` with these arguments.
    pub fn start_command(&self, options: &Options, arguments: &[&str]) -> Process {
        let mut command = self.command(options);
        command.args(arguments);
        if !options.failpoints.is_empty() {
            command.env("FAILPOINTS", &options.failpoints);
        }
        Process::start(command)
    }

    /// Starts `albertine run`; it has claimed a partition when this returns.
    pub fn start_claimed(&self, options: &Options) -> Process {
        let process = self.start(options);
        process.wait_for_log("claimed");
        process
    }

    /// Starts `albertine run`; it has stored a first batch when this returns.
    pub fn start_working(&self, options: &Options) -> Process {
        let process = self.start(options);
        eventually("work has begun", || (self.database.current_labels() > 0).then_some(()));
        process
    }

    /// Runs `albertine run` until this many documents have a current label, and stops it.
    pub fn run_until_labelled(&self, options: &Options, count: i64) {
        let process = self.start(options);
        self.wait_for_labels(count);
        process.stop();
    }

    /// `albertine` with this stream's configuration.
    pub fn command(&self, options: &Options) -> Command {
        let config = self.write_config(options);
        let mut command = Command::new(env!("CARGO_BIN_EXE_albertine"));
        command
            .current_dir(repository("."))
            .env("ALBERTINE_CONFIG", config)
            .env("DATABASE_URL", options.database_url.as_ref().unwrap_or(&self.database.url))
            .env("KAFKA_BOOTSTRAP_SERVERS", environment("KAFKA_BOOTSTRAP_SERVERS"));
        command
    }

    fn write_config(&self, options: &Options) -> PathBuf {
        let path = self.folder.path().join(format!("{}.toml", unique("config")));
        let text = format!(
            r#"
[kafka]
reclaim_delay = "2s"
[kafka.client]
"session.timeout.ms" = "{session_timeout_ms}"
"heartbeat.interval.ms" = "500"
"topic.metadata.refresh.interval.ms" = "1000"
[postgres]
schema = {schema}
{postgres}
[engine]
sessions = {sessions}
{engine}
[models.albert-sentiment]
path = "{model}"
{model_lines}
[streams.reviews]
topic = "{topic}"
group = "{topic}"
models = ["albert-sentiment"]
{stream}
[streams.reviews.live]
enabled = {live}
topic = "{labels}"
dead_letters = "{dead_letters}"
{live_lines}
[streams.reviews.fields]
id = "{id}"
text = "/text"
item = "/item"
rating = "/rating"
{extra}
"#,
            extra = options.extra,
            schema = toml::Value::String(self.database.schema.clone()),
            postgres = options.postgres,
            engine = options.engine,
            sessions = options.sessions.unwrap_or(1),
            model_lines = options.model_lines,
            topic = self.topic,
            stream = options.stream,
            live = options.live,
            model = options.model.as_deref().unwrap_or(if options.instant_model {
                "tests/fixtures/instant-model"
            } else {
                "models/albert-sentiment"
            }),
            labels = self.labels,
            dead_letters = self.dead_letters,
            live_lines = options.live_lines,
            session_timeout_ms = options.session_timeout_ms.unwrap_or(3_000),
            id = options.id.unwrap_or("/id"),
        );
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Waits until this many documents have a current label.
    pub fn wait_for_labels(&self, count: i64) {
        eventually(&format!("{count} documents are labelled"), || {
            let labels = self.database.current_labels();
            assert!(labels <= count, "{labels} labels, more than the {count} documents");
            (labels == count).then_some(())
        });
    }

    /// Waits until all partitions' checkpoints together stand at this many records.
    pub fn wait_for_positions(&self, sum: i64) {
        eventually(&format!("the checkpoints stand at {sum} records together"), || {
            (self.database.number("SELECT coalesce(sum(position), 0)::bigint FROM {s}.checkpoints") == sum)
                .then_some(())
        });
    }

    /// Waits until the checkpoints of one topic together stand at this many records.
    pub fn wait_for_positions_of(&self, topic: &str, sum: i64) {
        eventually(&format!("the checkpoints of `{topic}` stand at {sum} records together"), || {
            let query =
                format!("SELECT coalesce(sum(position), 0)::bigint FROM {{s}}.checkpoints WHERE topic = '{topic}'");
            (self.database.number(&query) == sum).then_some(())
        });
    }
}

/// A running `albertine`; killed with the value.
pub struct Process {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    port: u16,
}

impl Process {
    /// Starts the command, with a port for its metrics.
    pub fn start(mut command: Command) -> Self {
        let port = free_port();
        command.env("ALBERTINE_METRICS__LISTEN", format!("127.0.0.1:{port}"));
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (lines, stderr) = (Arc::clone(&log), child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
        Self { child, log, port }
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// Waits for a line that holds `text`.
    pub fn wait_for_log(&self, text: &str) {
        eventually(&format!("the log says `{text}`; it says:\n{}", self.log()), || {
            self.log().contains(text).then_some(())
        });
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Whether it is stopped by a signal.
    pub fn is_frozen(&self) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        status.lines().any(|line| line.starts_with("State:") && line.contains('T'))
    }

    /// Sends a signal by its name, such as `STOP`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success(), "kill -{name}");
    }

    /// Kills it the way a machine dies: no handler runs.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to stop, waits until it has, and fails unless it ended well.
    pub fn stop(mut self) {
        self.signal("TERM");
        let status = self.wait();
        assert!(status.success(), "asked to stop, it ended with {status}");
    }

    /// Its number, for what the operating system says of it.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn wait(&mut self) -> ExitStatus {
        eventually("the process has ended", || self.child.try_wait().unwrap())
    }

    /// The sum of a metric over its labels; 0 where it was never counted.
    pub fn metric(&self, name: &str) -> f64 {
        let body = eventually("the metrics port answers", || scrape(self.port).ok());
        body.lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the process ---\n{}", self.log());
        }
    }
}

fn scrape(port: u16) -> std::io::Result<String> {
    let mut connection = TcpStream::connect(("127.0.0.1", port))?;
    connection.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut body = String::new();
    connection.read_to_string(&mut body)?;
    Ok(body)
}

/// Runs a command to its end; its status, standard output and standard error.
pub fn output(command: &mut Command, input: &str) -> (Option<i32>, String, String) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || {
        let _ = stdin.write_all(input.as_bytes());
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// Writes a file into a folder and gives its path.
pub fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}
