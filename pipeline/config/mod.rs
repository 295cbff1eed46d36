//! Configuration in three steps: parsed ([`mod@file`]), validated ([`resolved`]), connected (the topology).
//!
//! Precedence: command line, then environment, then the file, then defaults. In the environment,
//! `KAFKA_BOOTSTRAP_SERVERS`, `DATABASE_URL` and `ORT_DYLIB_PATH` go first, and every key of the file is
//! `ALBERTINE_SECTION__KEY`.

pub mod engine;
pub mod file;
pub mod resolved;
pub mod secret;

use std::path::{Path, PathBuf};

pub use resolved::{ConfigError, Problem};

/// Settings that the command line, or a variable many tools share, puts above the file.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    pub kafka_bootstrap_servers: Option<String>,
    pub database_url: Option<secrecy::SecretString>,
    pub onnxruntime_library: Option<PathBuf>,
}

/// Reads and validates the configuration.
///
/// # Errors
/// [`ConfigError`] with every problem found, each with its key.
pub fn load(path: &Path, overrides: Overrides) -> Result<resolved::Config, ConfigError> {
    resolved::resolve(file::parse(path)?, overrides)
}

/// The configuration without a file: the environment above the defaults.
///
/// # Errors
/// [`ConfigError`] with every problem found, each with its key.
pub fn defaults(overrides: Overrides) -> Result<resolved::Config, ConfigError> {
    resolved::resolve(file::parse_environment()?, overrides)
}
