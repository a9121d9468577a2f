//! `clipmesh collections stats`.

use bytesize::ByteSize;
use clipmesh_proto::ids::CollectionName;
use clipmesh_proto::search::v1 as search;
use serde::Serialize;

use super::Session;
use crate::error::Error;
use crate::output;
use crate::output::table::Facts;

#[derive(Serialize)]
struct Stats {
    item_count: u64,
    unindexed_count: u64,
    index_state: &'static str,
    disk_bytes: u64,
    vector_bytes: u64,
    generation: u64,
    result_cache: Cache,
    embedding_cache: Cache,
}

#[derive(Serialize)]
struct Cache {
    hits: u64,
    misses: u64,
    bypasses: u64,
    hit_rate: f64,
    saved_ms: f64,
}

pub(super) async fn run(session: &Session, name: &CollectionName) -> Result<(), Error> {
    let request = search::GetCollectionStatsRequest { name: name.to_string() };
    let answer = session.mesh.collections().get_collection_stats(request).await;
    let stats = answer.map_err(|status| session.error(status))?.into_inner();
    if session.is_json {
        return output::document(&Stats::from(stats));
    }
    output::line(facts(stats).to_string())
}

impl From<search::GetCollectionStatsResponse> for Stats {
    fn from(stats: search::GetCollectionStatsResponse) -> Self {
        Self {
            item_count: stats.item_count,
            unindexed_count: stats.unindexed_count,
            index_state: index_state(stats.index_state()),
            disk_bytes: stats.disk_bytes,
            vector_bytes: stats.vector_bytes,
            generation: stats.generation,
            result_cache: stats.result_cache.unwrap_or_default().into(),
            embedding_cache: stats.embedding_cache.unwrap_or_default().into(),
        }
    }
}

impl From<search::CacheStats> for Cache {
    fn from(stats: search::CacheStats) -> Self {
        Self {
            hits: stats.hits,
            misses: stats.misses,
            bypasses: stats.bypasses,
            hit_rate: stats.hit_rate,
            saved_ms: stats.saved_ms,
        }
    }
}

fn facts(stats: search::GetCollectionStatsResponse) -> Facts {
    let mut facts = Facts::default();
    facts.add("items", stats.item_count);
    facts.add("index", index_state(stats.index_state()));
    facts.add("not in the graph", stats.unindexed_count);
    facts.add("vectors", ByteSize(stats.vector_bytes));
    if stats.disk_bytes > 0 {
        facts.add("on disk", ByteSize(stats.disk_bytes));
    }
    facts.add("generation", stats.generation);
    facts.add("cached answers", cache(&stats.result_cache.unwrap_or_default()));
    facts.add("cached vectors", cache(&stats.embedding_cache.unwrap_or_default()));
    facts
}

fn cache(stats: &search::CacheStats) -> String {
    let (hits, misses) = (stats.hits, stats.misses);
    let bypassed = match stats.bypasses {
        0 => String::new(),
        bypasses => format!(", {bypasses} bypassed"),
    };
    let (share, saved) = (stats.hit_rate * 100.0, output::millis(stats.saved_ms));
    format!("{share:.0} % hits ({hits} hits, {misses} misses{bypassed}), {saved} saved")
}

fn index_state(state: search::IndexState) -> &'static str {
    match state {
        search::IndexState::Ready => "ready",
        search::IndexState::Building => "building",
        search::IndexState::Failed => "failed",
        search::IndexState::Unspecified => "unspecified",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_is_told_in_one_line() {
        let stats = search::CacheStats {
            hits: 30,
            misses: 10,
            bypasses: 0,
            hit_rate: 0.75,
            saved_ms: 840.0,
        };
        let expected = "75 % hits (30 hits, 10 misses), 840 ms saved";
        assert_eq!(cache(&stats), expected, "all is well");
        let stats = search::CacheStats { bypasses: 2, ..stats };
        assert!(cache(&stats).contains("10 misses, 2 bypassed"), "out of reach twice");
    }
}
