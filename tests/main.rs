//! The integration tests: one binary, against the broker and the database that `make test` starts.
//!
//! Every test has its own schema and its own topics, so all run at once. They take the addresses from the
//! environment that `.local/env` sets.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::similar_names, clippy::float_cmp, reason = "figures are compared with what was counted or written")]

mod architecture;
mod backfill;
mod chaos;
mod cli;
mod delivery;
mod formats;
mod inference;
mod kafka;
mod source;
mod storage;
mod support;
