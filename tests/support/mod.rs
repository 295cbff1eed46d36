//! What the tests stand on: addresses, a schema and topics of one's own, the program as a process.
//!
//! Nothing here asserts what is under test, and nothing sleeps to let something happen: [`eventually`]
//! waits for a condition, with a deadline.

pub mod answer;
pub mod broker;
pub mod certificates;
pub mod database;
pub mod files;
pub mod models;
pub mod pipeline;
pub mod proxy;
pub mod registry;
pub mod secured;
pub mod server;
pub mod subscriber;
pub mod tokens;

use std::{
    path::PathBuf,
    sync::OnceLock,
    time::{Duration, Instant},
};

/// Deadline of anything that is waited for. Far above what a slow machine needs: it only bounds a failure.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// A variable that `.local/env` sets.
pub fn environment(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("`{name}` is not set: run the tests with `make test`"))
}

/// The path of something in the repository.
pub fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A name that no other test and no earlier run uses.
pub fn unique(prefix: &str) -> String {
    format!("{prefix}_{}", &uuid::Uuid::new_v4().simple().to_string()[..12])
}

/// Runs futures of a synchronous test.
pub fn block_on<F: Future>(future: F) -> F::Output {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME
        .get_or_init(|| tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap())
        .block_on(future)
}

/// Waits until `condition` gives something; panics with `what` after [`DEADLINE`].
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(started.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain until {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
