//! What the program says of itself while it runs: logs on the standard error, metrics on a loopback port.

pub mod logging;
pub mod metrics;
