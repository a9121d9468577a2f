//! The names of what is measured here, and the only place that measures it.
//!
//! Labels are closed sets: operations of the store, caches, outcomes of indexing. Durations use
//! the buckets that all services share.

use metrics::{counter, gauge, histogram};
use tokio::time::Instant;

const STORE_SECONDS: &str = "clipmesh_search_store_operation_seconds";
const STORE_WAITING: &str = "clipmesh_search_store_waiting_calls";
const STORE_WAIT_SECONDS: &str = "clipmesh_search_store_wait_seconds";
const STORE_TURNED_AWAY: &str = "clipmesh_search_store_turned_away_total";
const STORE_UPKEEP_FAILURES: &str = "clipmesh_search_store_upkeep_failures_total";
const CACHE_LOOKUPS: &str = "clipmesh_search_cache_lookups_total";
const CACHE_UNREADABLE: &str = "clipmesh_search_cache_unreadable_total";
const CACHE_SAVED_MICROSECONDS: &str = "clipmesh_search_cache_saved_microseconds_total";
const CACHE_SECONDS: &str = "clipmesh_search_cache_operation_seconds";
const CACHE_EJECTIONS: &str = "clipmesh_search_cache_ejections_total";
const CACHE_WRITES_LOST: &str = "clipmesh_search_cache_writes_lost_total";
const CACHE_RAISES_PENDING: &str = "clipmesh_search_cache_raises_pending";
const CACHE_REFRESHES: &str = "clipmesh_search_cache_refreshes_total";
const EMBEDDING_LEASES: &str = "clipmesh_search_embedding_leases_total";
const ANSWERS_SHARED: &str = "clipmesh_search_answers_shared_total";
const EMBEDDINGS_SHARED: &str = "clipmesh_search_embeddings_shared_total";
const ITEMS_INDEXED: &str = "clipmesh_search_items_indexed_total";
const THUMBNAIL_FAILURES: &str = "clipmesh_search_thumbnail_failures_total";

/// Measures one operation of the store, its wait for a thread included.
#[derive(Debug)]
#[must_use]
pub(crate) struct StoreTimer {
    operation: &'static str,
    start: Instant,
}

impl StoreTimer {
    pub(crate) fn start(operation: &'static str) -> Self {
        Self { operation, start: Instant::now() }
    }

    pub(crate) fn stop(self, is_ok: bool) {
        let outcome = if is_ok { "ok" } else { "error" };
        histogram!(STORE_SECONDS, "operation" => self.operation, "outcome" => outcome)
            .record(self.start.elapsed());
    }
}

/// Measures a wait in line for the store, until it is stopped or given up. `gate` is `read` or
/// `write`.
#[derive(Debug)]
#[must_use]
pub(crate) struct StoreWait {
    gate: &'static str,
    start: Instant,
}

impl StoreWait {
    pub(crate) fn start(gate: &'static str) -> Self {
        gauge!(STORE_WAITING, "gate" => gate).increment(1.0);
        Self { gate, start: Instant::now() }
    }

    pub(crate) fn stop(self) {
        histogram!(STORE_WAIT_SECONDS, "gate" => self.gate).record(self.start.elapsed());
    }
}

impl Drop for StoreWait {
    fn drop(&mut self) {
        gauge!(STORE_WAITING, "gate" => self.gate).decrement(1.0);
    }
}

/// The line before a gate was full. `gate` is `read` or `write`.
pub(crate) fn store_turned_away(gate: &'static str) {
    counter!(STORE_TURNED_AWAY, "gate" => gate).increment(1);
}

/// `task` is `flush` or `optimize`.
pub(crate) fn store_upkeep_failed(task: &'static str) {
    counter!(STORE_UPKEEP_FAILURES, "task" => task).increment(1);
}

/// `cache` is `embeddings` or `results`, `outcome` is `hit`, `miss` or `bypass`.
pub(crate) fn cache_looked_up(cache: &'static str, outcome: &'static str) {
    counter!(CACHE_LOOKUPS, "cache" => cache, "outcome" => outcome).increment(1);
}

/// What was found had taken so long to compute.
pub(crate) fn cache_saved(cache: &'static str, micros: u64) {
    counter!(CACHE_SAVED_MICROSECONDS, "cache" => cache).increment(micros);
}

/// A cache beyond this process was asked. `operation` is a command of Redis, `outcome` is `ok` or
/// `error`.
pub(crate) fn cache_asked(operation: &'static str, outcome: &'static str, start: Instant) {
    histogram!(CACHE_SECONDS, "operation" => operation, "outcome" => outcome)
        .record(start.elapsed());
}

/// A cache that fails or is slow is left alone for a while.
pub(crate) fn cache_ejected() {
    counter!(CACHE_EJECTIONS).increment(1);
}

/// `reason` is `full`, when more came than could be written, `large` or `error`.
pub(crate) fn cache_writes_lost(reason: &'static str, count: usize) {
    counter!(CACHE_WRITES_LOST, "reason" => reason).increment(count as u64);
}

/// Collections whose last change could not be told to the cache yet.
pub(crate) fn cache_raises_pending(count: usize) {
    gauge!(CACHE_RAISES_PENDING).set(count as f64);
}

/// A query was asked again after a write. `outcome` is `ok` or `error`.
pub(crate) fn cache_refreshed(outcome: &'static str) {
    counter!(CACHE_REFRESHES, "outcome" => outcome).increment(1);
}

/// A vector was wanted that is in no cache. `outcome` is `taken` for one that was made here,
/// `awaited` for one that another replica made meanwhile, `impatient` for one that another replica
/// took too long for.
pub(crate) fn embedding_leased(outcome: &'static str) {
    counter!(EMBEDDING_LEASES, "outcome" => outcome).increment(1);
}

/// An entry was there but can't be used.
pub(crate) fn cache_unreadable(cache: &'static str) {
    counter!(CACHE_UNREADABLE, "cache" => cache).increment(1);
}

/// An answer was wanted that another call was already waiting for.
pub(crate) fn answer_shared() {
    counter!(ANSWERS_SHARED).increment(1);
}

/// A vector was wanted that another call was already waiting for.
pub(crate) fn embedding_shared() {
    counter!(EMBEDDINGS_SHARED).increment(1);
}

/// `outcome` is `created`, `replaced`, `unchanged` or `error`.
pub(crate) fn item_indexed(outcome: &'static str) {
    counter!(ITEMS_INDEXED, "outcome" => outcome).increment(1);
}

/// A picture was indexed, but no small one could be made of it.
pub(crate) fn thumbnail_failed() {
    counter!(THUMBNAIL_FAILURES).increment(1);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    /// The table of every metric, for operators.
    const DOCUMENT: &str = include_str!("../../../docs/operations/metrics.md");

    /// Everything in quotation marks of this kind that is named after this service.
    fn names(text: &str, quote: char) -> BTreeSet<&str> {
        text.split(quote).filter(|part| part.starts_with("clipmesh_search_")).collect()
    }

    #[test]
    fn every_metric_is_told_to_operators() {
        let measured = names(include_str!("metrics.rs"), '"');
        // What this test looks for is not measured.
        let measured: BTreeSet<_> =
            measured.into_iter().filter(|name| !name.ends_with('_')).collect();
        assert_eq!(measured, names(DOCUMENT, '`'), "one row for each, and none for what is gone");
    }
}
