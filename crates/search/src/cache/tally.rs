//! How well the caches do: for the stats of a collection, and as metrics.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clipmesh_proto::search::v1;
use tokio::time::Instant;

use crate::metrics;

/// A collection that nobody searched for so long may be gone: another process may have removed it,
/// which is told to nobody.
const MAX_IDLE: Duration = Duration::from_secs(24 * 3600);

/// How look-ups ended, since the service started. Pure but for its metrics: it is told the time.
#[derive(Debug)]
pub(super) struct Tally {
    /// With the moment when it was last used.
    by_uid: Mutex<HashMap<String, (Arc<Counts>, Instant)>>,
    pub(super) embeddings: Counts,
}

/// The look-ups of one kind.
#[derive(Debug)]
pub(super) struct Counts {
    /// The name in metrics.
    cache: &'static str,
    hits: AtomicU64,
    misses: AtomicU64,
    bypasses: AtomicU64,
    saved_micros: AtomicU64,
}

/// How a look-up ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// With what had cost this much.
    Hit(Duration),
    Miss,
    Bypass,
}

// === impl Tally ===

impl Tally {
    pub(super) fn new() -> Self {
        Self { by_uid: Mutex::default(), embeddings: Counts::new("embeddings") }
    }

    /// Of the answers found in a collection.
    pub(super) fn answers(&self, uid: &str, now: Instant) -> Arc<Counts> {
        let mut by_uid = self.by_uid();
        if let Some((counts, used)) = by_uid.get_mut(uid) {
            *used = now;
            return Arc::clone(counts);
        }
        by_uid.retain(|_, (_, used)| now.duration_since(*used) <= MAX_IDLE);
        let counts = Arc::new(Counts::new("results"));
        by_uid.insert(uid.to_owned(), (Arc::clone(&counts), now));
        counts
    }

    /// The collection is gone.
    pub(super) fn forget(&self, uid: &str) {
        self.by_uid().remove(uid);
    }

    fn by_uid(&self) -> MutexGuard<'_, HashMap<String, (Arc<Counts>, Instant)>> {
        // The map is whole after every statement, so a panic elsewhere leaves it usable.
        self.by_uid.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Counts ===

impl Counts {
    fn new(cache: &'static str) -> Self {
        let zero = AtomicU64::default;
        Self { cache, hits: zero(), misses: zero(), bypasses: zero(), saved_micros: zero() }
    }

    pub(super) fn add(&self, outcome: Outcome) {
        let (counter, name) = match outcome {
            Outcome::Hit(_) => (&self.hits, "hit"),
            Outcome::Miss => (&self.misses, "miss"),
            Outcome::Bypass => (&self.bypasses, "bypass"),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        metrics::cache_looked_up(self.cache, name);
        if let Outcome::Hit(cost) = outcome {
            let micros = u64::try_from(cost.as_micros()).unwrap_or(u64::MAX);
            self.saved_micros.fetch_add(micros, Ordering::Relaxed);
            metrics::cache_saved(self.cache, micros);
        }
    }

    pub(super) fn stats(&self) -> v1::CacheStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (hits, misses) = (read(&self.hits), read(&self.misses));
        let hit_rate = if hits == 0 { 0.0 } else { hits as f64 / (hits + misses) as f64 };
        v1::CacheStats {
            hits,
            misses,
            bypasses: read(&self.bypasses),
            hit_rate,
            saved_ms: read(&self.saved_micros) as f64 / 1e3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_up_what_was_found_and_what_that_spared() {
        let (tally, now) = (Tally::new(), Instant::now());
        assert_eq!(tally.answers("a", now).stats(), v1::CacheStats::default(), "nothing yet");
        let outcomes = [
            Outcome::Hit(Duration::from_millis(3)),
            Outcome::Miss,
            Outcome::Bypass,
            Outcome::Hit(Duration::from_micros(500)),
            Outcome::Hit(Duration::ZERO),
        ];
        for outcome in outcomes {
            tally.answers("a", now).add(outcome);
        }
        tally.answers("b", now).add(Outcome::Miss);
        let expected =
            v1::CacheStats { hits: 3, misses: 1, bypasses: 1, hit_rate: 0.75, saved_ms: 3.5 };
        assert_eq!(tally.answers("a", now).stats(), expected, "bypasses are no misses");
        assert_eq!(tally.answers("b", now).stats().misses, 1, "each collection by itself");
        tally.forget("a");
        assert_eq!(tally.answers("a", now).stats(), v1::CacheStats::default(), "it is gone");
    }

    #[test]
    fn what_nobody_searches_does_not_pile_up() {
        let (tally, now) = (Tally::new(), Instant::now());
        for uid in ["a", "b"] {
            tally.answers(uid, now).add(Outcome::Miss);
        }
        let later = now + MAX_IDLE;
        assert_eq!(tally.answers("b", later).stats().misses, 1, "it is searched");
        tally.answers("new", later + Duration::from_secs(1));
        let mut kept: Vec<_> = tally.by_uid().keys().cloned().collect();
        kept.sort_unstable();
        assert_eq!(kept, ["b", "new"], "those that nobody searches may be gone");
    }
}
