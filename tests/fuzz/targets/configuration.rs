//! Any text as a configuration: it is accepted, or every problem is named; never a panic.
#![no_main]

use albertine::config::{ConfigError, Overrides, file::FileConfig, resolved};
use figment::{
    Figment,
    providers::{Format, Toml},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(file) = Figment::from(Toml::string(text)).extract::<FileConfig>() else { return };
    match resolved::resolve(file, Overrides::default()) {
        Ok(config) => assert!(config.streams.values().all(|stream| !stream.models.is_empty())),
        Err(ConfigError::Values { problems }) => assert!(!problems.is_empty()),
        Err(other) => panic!("{other}"),
    }
});
