//! The command line: verbs and singular nouns, one file a command.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage, 78 wrong configuration (`EX_CONFIG` of sysexits.h).

mod backfill;
mod check;
mod classify;
mod database;
mod dead_letter;
mod destination;
mod dry_run;
mod labeller;
mod model;
mod output;
mod peek;
mod position;
mod progress;
mod report;
mod run;
mod status;
mod stream;
mod tail;
mod terminal;
mod verify;

use std::{
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};
use owo_colors::OwoColorize;
use secrecy::SecretString;

use crate::{
    config::{self, ConfigError, Overrides, resolved::Config},
    telemetry::logging::{self, LogFilterError, LogFormat},
    topology::UnknownModel,
};

/// Where the configuration lies in a checkout.
const DEFAULT_CONFIG: &str = "config/albertine.toml";

const EXIT_CONFIGURATION: u8 = 78;
const EXIT_USAGE: u8 = 2;

/// Labels text as it arrives: Kafka topics, through an ALBERT on ONNX Runtime, into Postgres.
#[derive(Debug, Parser)]
#[command(
    name = "albertine",
    version,
    max_term_width = 100,
    after_help = "\
Precedence: command line, then environment, then the configuration file, then defaults. Every key of the
file can be set in the environment as ALBERTINE_SECTION__KEY, such as ALBERTINE_ENGINE__SESSIONS=4.

Examples:
  albertine check                                   is everything there and reachable?
  albertine database migrate                        set up the schema
  albertine run                                     label all configured streams
  albertine status                                  how far is each stream stored and published?
  albertine backfill start reviews old.parquet      label what is older than the topic
  albertine model verify ./my-model                 is a model folder what it says?
  albertine classify --model albert-sentiment FILE  label a file, without Kafka and Postgres

Exit codes: 0 done, 1 failed, 2 wrong usage, 78 wrong configuration."
)]
struct Cli {
    #[command(flatten)]
    global: GlobalOptions,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct GlobalOptions {
    /// The configuration file
    #[arg(long, global = true, env = "ALBERTINE_CONFIG", default_value = DEFAULT_CONFIG, value_name = "FILE")]
    config: PathBuf,
    /// Kafka's bootstrap servers, above the file's
    #[arg(long, global = true, env = "KAFKA_BOOTSTRAP_SERVERS", value_name = "HOST:PORT,…")]
    kafka_bootstrap_servers: Option<String>,
    /// The URL of the Postgres database, above the file's
    #[arg(long, global = true, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<SecretString>,
    /// The ONNX Runtime library, above the file's
    #[arg(long, global = true, env = "ORT_DYLIB_PATH", value_name = "FILE")]
    onnxruntime_library: Option<PathBuf>,
    /// What is logged: a level, or directives such as `warn,albertine=debug`
    #[arg(
        long,
        global = true,
        env = "ALBERTINE_LOG",
        default_value = "info,ort=warn,sqlx=warn",
        value_name = "FILTER"
    )]
    log: String,
    /// How log lines are written
    #[arg(long, global = true, env = "ALBERTINE_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    log_format: LogFormat,
}

impl GlobalOptions {
    fn load_config(&self) -> Result<Config, ConfigError> {
        config::load(&self.config, self.overrides())
    }

    /// For commands of the first hour: without a file, where none was asked for, everything has its default.
    fn load_config_or_defaults(&self) -> Result<Config, ConfigError> {
        if self.config == Path::new(DEFAULT_CONFIG) && !self.config.exists() {
            return config::defaults(self.overrides());
        }
        self.load_config()
    }

    fn overrides(&self) -> Overrides {
        Overrides {
            kafka_bootstrap_servers: self.kafka_bootstrap_servers.clone(),
            database_url: self.database_url.clone(),
            onnxruntime_library: self.onnxruntime_library.clone(),
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Label all configured streams until stopped
    Run(run::RunArgs),
    /// Check the configuration, the models and every connection
    Check(check::CheckArgs),
    /// Show how far each stream is stored and published
    Status(status::StatusArgs),
    /// Show and move the stored and published positions of a stream
    Position(position::PositionArgs),
    /// Recount what is stored, and compare it with the topics and what is published
    Verify(verify::VerifyArgs),
    /// Show rejected records, try them again, or let them be
    DeadLetter(dead_letter::DeadLetterArgs),
    /// Set up and change the database
    Database(database::DatabaseArgs),
    /// Label the texts of a file, without Kafka and Postgres
    Classify(classify::ClassifyArgs),
    /// Show, check and measure models
    Model(model::ModelArgs),
    /// Label the records of files through a stream's models, into its tables
    Backfill(backfill::BackfillArgs),
    /// Put records on a stream's topic, look at them, or follow its labels
    Stream(stream::StreamArgs),
}

/// A command was used wrongly in a way that clap cannot see.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct UsageError(String);

/// Reads the command line, runs the command, reports its error.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    #[cfg(feature = "failpoints")]
    let _failpoints = fail::FailScenario::setup();
    let result = logging::start(&cli.global.log, cli.global.log_format)
        .map_err(anyhow::Error::from)
        .and_then(|()| dispatch(cli));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            exit_code(&error)
        }
    }
}

fn dispatch(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Run(args) => run::run(&cli.global, &args),
        Command::Check(args) => check::run(&cli.global, &args),
        Command::Status(args) => status::run(&cli.global, &args),
        Command::Position(args) => position::run(&cli.global, &args),
        Command::Verify(args) => verify::run(&cli.global, &args),
        Command::DeadLetter(args) => dead_letter::run(&cli.global, &args),
        Command::Database(args) => database::run(&cli.global, &args),
        Command::Classify(args) => classify::run(&cli.global, &args),
        Command::Model(args) => model::run(&cli.global, &args),
        Command::Backfill(args) => backfill::run(&cli.global, &args),
        Command::Stream(args) => stream::run(&cli.global, &args),
    }
}

fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<ConfigError>() {
        ExitCode::from(EXIT_CONFIGURATION)
    } else if error.is::<UsageError>() || error.is::<UnknownModel>() || error.is::<LogFilterError>() {
        ExitCode::from(EXIT_USAGE)
    } else {
        ExitCode::FAILURE
    }
}

/// Whoever read our output has seen enough, as in `albertine … | head`.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| match cause.downcast_ref::<std::io::Error>() {
            Some(cause) => Some(cause.kind()),
            None => cause.downcast_ref::<serde_json::Error>()?.io_error_kind(),
        })
        .any(|kind| kind == std::io::ErrorKind::BrokenPipe)
}

/// The error and its causes on one line; a cause that its error already quotes is not said again.
fn message(error: &anyhow::Error) -> String {
    let mut message = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if message.is_empty() {
            message = cause;
        } else if !message.contains(&cause) {
            message = format!("{message}: {cause}");
        }
    }
    message
}

fn report(error: &anyhow::Error) {
    let error = message(error);
    let mut stderr = std::io::stderr().lock();
    let _ = if wants_colour(&stderr) {
        writeln!(stderr, "{} {error}", "error:".red().bold())
    } else {
        writeln!(stderr, "error: {error}")
    };
}

/// Colours are for terminals, and for those who did not ask otherwise (<https://no-color.org>).
fn wants_colour(output: &impl IsTerminal) -> bool {
    output.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A runtime for commands that talk to a server.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    use anyhow::Context;
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the async runtime")
}

/// The stream of this name.
fn find_stream<'a>(config: &'a Config, name: &str) -> anyhow::Result<&'a config::resolved::StreamConfig> {
    config.streams.get(name).ok_or_else(|| {
        let known: Vec<&str> = config.streams.keys().map(String::as_str).collect();
        UsageError(format!("no stream `{name}` is configured; there is: {}", known.join(", "))).into()
    })
}
