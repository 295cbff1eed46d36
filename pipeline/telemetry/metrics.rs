//! The names of all metrics, what they mean, and the port they are read from.
//!
//! Names and units follow the conventions of Prometheus. Nothing else in the program names a metric.

use std::net::SocketAddr;

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};

pub const RECORDS_RECEIVED: &str = "albertine_records_received_total";
pub const BACKFILL_RECORDS: &str = "albertine_backfill_records_total";
pub const BACKFILL_SHARDS_FAILED: &str = "albertine_backfill_shards_failed_total";
pub const DOCUMENTS_INFERRED: &str = "albertine_documents_inferred_total";
pub const DOCUMENT_LANGUAGES: &str = "albertine_document_languages_total";
pub const DOCUMENTS_STORED: &str = "albertine_documents_stored_total";
pub const DOCUMENTS_DELETED: &str = "albertine_documents_deleted_total";
pub const REJECTIONS: &str = "albertine_rejections_total";
pub const SCHEMA_RETRIES: &str = "albertine_schema_retries_total";
pub const STORE_RETRIES: &str = "albertine_store_retries_total";
pub const STORE_BATCH_SECONDS: &str = "albertine_store_batch_seconds";
pub const STORE_BATCH_DOCUMENTS: &str = "albertine_store_batch_documents";
pub const CLAIMS_LOST: &str = "albertine_claims_lost_total";
pub const DELIVERY_SECONDS: &str = "albertine_delivery_seconds";
pub const RECORDS_PUBLISHED: &str = "albertine_records_published_total";
pub const PUBLISH_FAILURES: &str = "albertine_publish_failures_total";
pub const PUBLISH_TRANSACTION_SECONDS: &str = "albertine_publish_transaction_seconds";
pub const PUBLISH_DELAY_SECONDS: &str = "albertine_publish_delay_seconds";
pub const UNPUBLISHED_BYTES: &str = "albertine_unpublished_bytes";
pub const UNPUBLISHED_AGE_SECONDS: &str = "albertine_unpublished_age_seconds";
pub const STORED_LAG: &str = "albertine_stored_lag_records";
pub const PUBLISHED_LAG: &str = "albertine_published_lag_records";
pub const TOPICS_RECREATED: &str = "albertine_topics_recreated_total";
pub const SUMS_FOLDED: &str = "albertine_sums_folded_total";
pub const DUPLICATE_HITS: &str = "albertine_duplicate_hits_total";
pub const DUPLICATES_COALESCED: &str = "albertine_duplicates_coalesced_total";
pub const DUPLICATE_MISSES: &str = "albertine_duplicate_misses_total";
pub const ENGINE_SESSIONS: &str = "albertine_engine_sessions";
pub const ENGINE_QUEUED_TOKENS: &str = "albertine_engine_queued_tokens";
pub const ENGINE_GROUP_SECONDS: &str = "albertine_engine_group_seconds";
pub const ENGINE_WINDOWS: &str = "albertine_engine_windows_total";
pub const ENGINE_WINDOWS_ABANDONED: &str = "albertine_engine_windows_abandoned_total";
pub const ENGINE_TOKENS: &str = "albertine_engine_tokens_total";
pub const ENGINE_TOKEN_PASSES: &str = "albertine_engine_token_passes_total";
pub const ENGINE_PADDING_TOKEN_PASSES: &str = "albertine_engine_padding_token_passes_total";
pub const ENGINE_EXIT_DEPTH: &str = "albertine_engine_exit_depth_passes";

/// From a tenth of a millisecond to a minute: a group of short texts takes less than one, a backlog more
/// than the other.
const SECONDS_BUCKETS: [f64; 16] =
    [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];
const DOCUMENTS_BUCKETS: [f64; 8] = [1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0];

/// The metrics port cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve metrics on `{listen}`: {source}; choose another `metrics.listen`")]
pub struct MetricsError {
    listen: SocketAddr,
    source: BuildError,
}

/// Serves `/metrics` on `listen`. Call it inside the runtime.
///
/// # Errors
/// [`MetricsError`] where the port is taken or another recorder is installed.
pub fn serve(listen: SocketAddr) -> Result<(), MetricsError> {
    let failed = |source| MetricsError { listen, source };
    PrometheusBuilder::new()
        .with_http_listener(listen)
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS_BUCKETS)
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_documents".into()), &DOCUMENTS_BUCKETS))
        .and_then(PrometheusBuilder::install)
        .map_err(failed)?;
    describe();
    Ok(())
}

fn describe() {
    describe_counter!(RECORDS_RECEIVED, "Records read from the topic, by stream.");
    describe_counter!(BACKFILL_RECORDS, "Records read from the files of backfills, by stream.");
    describe_counter!(BACKFILL_SHARDS_FAILED, "Shards of backfills that could not be read to their end, by stream.");
    describe_counter!(DOCUMENTS_INFERRED, "Documents that went through all models of their stream, stored or not yet.");
    describe_counter!(
        DOCUMENT_LANGUAGES,
        "Documents by stream and the language of their text, `unknown` where it could not be told."
    );
    describe_counter!(DOCUMENTS_STORED, "Documents whose labels are committed in Postgres, by stream.");
    describe_counter!(DOCUMENTS_DELETED, "Deletions committed in Postgres, by stream.");
    describe_counter!(REJECTIONS, "Records rejected, by stream, stage and reason.");
    describe_counter!(SCHEMA_RETRIES, "Attempts to read a schema that the registry did not answer, by stream.");
    describe_counter!(STORE_RETRIES, "Batches sent again after Postgres failed or did not answer, by stream.");
    describe_histogram!(STORE_BATCH_SECONDS, Unit::Seconds, "Time to commit a batch, retries included, by stream.");
    describe_histogram!(STORE_BATCH_DOCUMENTS, Unit::Count, "Records of a committed batch, by stream.");
    describe_counter!(CLAIMS_LOST, "Partitions another worker claimed, or whose checkpoint was moved, by stream.");
    describe_histogram!(
        DELIVERY_SECONDS,
        Unit::Seconds,
        "From a record's timestamp to its committed label, by stream."
    );
    describe_counter!(RECORDS_PUBLISHED, "Records on the live topic and the dead letters, by stream.");
    describe_counter!(PUBLISH_FAILURES, "Publishing sessions that failed and were opened again, by stream.");
    describe_histogram!(PUBLISH_TRANSACTION_SECONDS, Unit::Seconds, "Time of a Kafka transaction, by stream.");
    describe_histogram!(PUBLISH_DELAY_SECONDS, Unit::Seconds, "From stored to visible on the live topic, by stream.");
    describe_gauge!(UNPUBLISHED_BYTES, Unit::Bytes, "What the outbox holds that is not published, by partition.");
    describe_gauge!(
        UNPUBLISHED_AGE_SECONDS,
        Unit::Seconds,
        "Age of the oldest stored batch that is not published, 0 where there is none, by partition."
    );
    describe_gauge!(STORED_LAG, Unit::Count, "Records of the topic that are not stored yet, by partition.");
    describe_gauge!(PUBLISHED_LAG, Unit::Count, "Records of the topic that are not published yet, by partition.");
    describe_counter!(TOPICS_RECREATED, "Partitions that began again because their topic was recreated, by stream.");
    describe_counter!(SUMS_FOLDED, "Changes folded into the sums of items.");
    describe_counter!(DUPLICATE_HITS, "Documents whose texts a model had computed before, by model.");
    describe_counter!(DUPLICATES_COALESCED, "Documents that waited for the same texts in work, by model.");
    describe_counter!(DUPLICATE_MISSES, "Documents that were computed while duplicates are looked for, by model.");
    describe_gauge!(ENGINE_SESSIONS, Unit::Count, "Threads that compute, by what they compute on: `cpu`, or `cuda:0`.");
    describe_gauge!(ENGINE_QUEUED_TOKENS, Unit::Count, "Tokens that wait for an engine thread.");
    describe_histogram!(ENGINE_GROUP_SECONDS, Unit::Seconds, "Time to compute a group of windows, by model.");
    describe_counter!(ENGINE_WINDOWS, "Windows computed, by model.");
    describe_counter!(
        ENGINE_WINDOWS_ABANDONED,
        "Windows that waited and were not computed, by model: their partitions went to another worker."
    );
    describe_counter!(ENGINE_TOKENS, "Tokens computed, padding excluded, by model.");
    describe_counter!(ENGINE_TOKEN_PASSES, "Tokens times the passes they went through, padding excluded, by model.");
    describe_counter!(ENGINE_PADDING_TOKEN_PASSES, "The same of the padding computed beside them, by model.");
    describe_histogram!(ENGINE_EXIT_DEPTH, Unit::Count, "The pass after which a window left, by model.");
}
