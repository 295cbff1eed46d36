//! The servers that this checkout runs: restarted in the middle of a run. Others are not ours to restart.

use std::{
    process::{Command, Stdio},
    time::Instant,
};

use crate::support::repository;

fn services() -> Command {
    let mut command = Command::new(repository("config/local/services"));
    // Set for the tests, they would pass for servers of somebody else.
    command.env_remove("KAFKA_BOOTSTRAP_SERVERS").env_remove("DATABASE_URL").env_remove("ORT_DYLIB_PATH");
    command
}

/// Whether the server runs here.
pub fn is_local(service: &str) -> bool {
    let output = services().arg("status").output().unwrap();
    String::from_utf8_lossy(&output.stdout).lines().any(|line| line.contains(service) && line.contains("process"))
}

/// Stops and starts a server, and says when it went away.
pub fn restart(service: &str) -> Instant {
    let began = Instant::now();
    let status = services().args(["restart", service]).stdout(Stdio::null()).status().unwrap();
    assert!(status.success(), "restarting {service}");
    began
}
