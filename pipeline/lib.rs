//! albertine labels text as it arrives: Kafka topics go through an ALBERT on ONNX Runtime, and every
//! label is stored exactly once in Postgres.
//!
//! Read `ARCHITECTURE.md` beside this file first: the flow, the invariants, and what happens at each
//! crash point. The layers, from pure to concrete:
//!
//! - [`domain`], [`decode`], [`text`], [`model`]: values and rules, without runtime or adapter.
//! - [`engine`]: groups windows of text and runs them, one ONNX Runtime session a core.
//! - [`source`], [`storage`], [`registry`]: the adapters to Kafka, files, Postgres and the schema registry, with the
//!   contracts they keep.
//! - [`publish`]: what is stored, to the live topic.
//! - [`acceptance`]: whether a model folder is what it says.
//! - [`stream`]: one stream of records, from arrival to stored label.
//! - [`inspection`]: where each partition stands, for the commands that show and move positions.
//! - [`topology`]: the only place that names concrete types and starts threads and tasks.

pub mod acceptance;
pub mod commands;
pub mod config;
pub mod crash;
pub mod decode;
pub mod domain;
pub mod engine;
pub mod inspection;
pub mod kafka;
pub mod model;
pub mod publish;
pub mod registry;
pub mod retry;
pub mod source;
pub mod storage;
pub mod stream;
pub mod telemetry;
pub mod text;
pub mod topology;
