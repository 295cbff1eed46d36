//! Logs on the standard error: readable lines on a terminal, JSON where asked. Never the text of a document.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, Registry, layer::SubscriberExt, util::SubscriberInitExt};

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// The log filter does not parse.
#[derive(Debug, thiserror::Error)]
#[error("`{filter}` is not a log filter: {message}; write a level such as `info`, or `warn,albertine=debug`")]
pub struct LogFilterError {
    filter: String,
    message: String,
}

/// Starts logging with a filter such as `info` or `albertine=debug`.
///
/// # Errors
/// [`LogFilterError`] where the filter does not parse.
pub fn start(filter: &str, format: LogFormat) -> Result<(), LogFilterError> {
    let parsed = EnvFilter::try_new(filter)
        .map_err(|error| LogFilterError { filter: filter.into(), message: error.to_string() })?;
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colours).with_target(false);
    let registry = Registry::default().with(parsed);
    // A second start, in tests, keeps the first.
    let _ = match format {
        LogFormat::Text => registry.with(layer).try_init(),
        LogFormat::Json => registry.with(layer.json()).try_init(),
    };
    Ok(())
}
