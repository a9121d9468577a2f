//! What was computed before and can be had again for nothing: vectors by the content they were
//! made of, answers by the state of the collection they were found in.
//!
//! ```text
//!                      ┌─ the answer, if nothing was written since
//!  look_up ── one trip ┼─ the vectors of its pictures and words ──► missing ones are embedded
//!                      └─ the count of changes ─► Ticket ──► keep, after the answer was sent
//!  raise, after each write and before it is acknowledged ─► the count of changes
//! ```
//!
//! A cache can only help: it fails by missing, never by an error, and an entry that can't be read
//! counts as missing. An answer carries the generation of its collection that it was found at, and
//! is given at no other. A generation has two parts. One is the store's own count, where the store
//! is the only one to write. The other is counted by the cache: with a store that others write to,
//! such as a Qdrant server, every write raises it where all replicas see it. A cache in one process
//! alone can't know of those writes, and so keeps no answers then.

mod breaker;
pub(crate) mod config;
mod entry;
mod hot;
mod key;
mod lease;
mod look_up;
mod memory;
mod raises;
mod redis;
mod refresh;
mod seen;
pub(crate) mod single_flight;
mod tally;
mod turns;
mod writer;

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use clipmesh_proto::search::v1;
use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::config::{Config, Kind};
use self::hot::Hot;
use self::raises::Raises;
use self::seen::Seen;
use self::tally::Tally;
use self::writer::Writer;
use crate::store::Collection;

pub(crate) use self::entry::Known;
pub(crate) use self::key::Key;
pub(crate) use self::look_up::{AnswerId, Ticket};
pub(crate) use self::refresh::Rerun;
pub(crate) use self::turns::Turn;

/// By how much of its time an entry may live shorter, so that what was kept at one moment does not
/// go at one moment. Never longer: the time is a promise of how long an old answer may be given.
const TTL_JITTER: f64 = 0.1;

/// How long after its own time a write may be made, how long a search may take between its look-up
/// and the keeping of its answer, and how far clocks may differ: in all.
const SLACK: Duration = Duration::from_secs(120);

/// Keeps bytes for a while.
pub(crate) trait Cache: fmt::Debug + Send + Sync + 'static {
    /// The values of keys, in their order, in one trip.
    fn fetch(&self, keys: Vec<Key>) -> Reply<'_, Vec<Option<Bytes>>>;

    fn store(&self, entries: Vec<Entry>) -> Reply<'_, ()>;

    /// Reads a count, and starts one that is not there. [`Self::fetch`] gives a count in decimal
    /// digits.
    fn count(&self, counter: Key) -> Reply<'_, u64>;

    /// Makes a count another than it ever was.
    fn raise(&self, counter: Key) -> Reply<'_, ()>;

    /// The collection of a count is gone; nobody will ask for its answers.
    fn forget(&self, counter: Key);

    /// What it can do if other processes share it.
    fn shared(&self) -> Option<&dyn Leases>;
}

/// Gives one of several processes the right to do something.
pub(crate) trait Leases: Send + Sync {
    /// Takes a lease, unless someone has it. It runs out after a time.
    fn lease(&self, key: Key, token: u64, time: Duration) -> Reply<'_, bool>;

    /// Ends leases that were taken with these tokens.
    fn release(&self, leases: Vec<(Key, u64)>) -> Reply<'_, ()>;
}

pub(crate) type Reply<'a, T> = BoxFuture<'a, Result<T, Bypassed>>;

/// The cache was not asked, or did not answer in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bypassed;

/// A value to be kept.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Key,
    pub(crate) value: Bytes,
    pub(crate) time_to_live: Duration,
}

/// The caches of the service.
#[derive(Clone, Debug)]
pub(crate) struct Caches(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// `None` when it is off.
    cache: Option<Arc<dyn Cache>>,
    config: Config,
    /// For a cache that is not in this process.
    writer: Option<Writer>,
    raises: Arc<Raises>,
    seen: Mutex<Seen>,
    hot: Arc<refresh::Watch>,
    tally: Tally,
    /// Ends the tasks.
    _stop: DropGuard,
}

/// How well the caches do, as this process saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Stats {
    /// Answers found in one collection.
    pub(crate) results: v1::CacheStats,
    /// Vectors, for all collections.
    pub(crate) embeddings: v1::CacheStats,
}

// === impl Caches ===

impl Caches {
    /// Prepares the cache that the settings name. It need not be reachable. Must be called within a
    /// runtime.
    ///
    /// # Errors
    /// Addresses that are none.
    pub(crate) fn new(config: &Config) -> Result<Self, String> {
        let cache: Option<Arc<dyn Cache>> = match config.kind {
            Kind::Memory => Some(Arc::new(memory::Memory::new(config))),
            Kind::Redis => Some(Arc::new(redis::Redis::new(&config.redis)?)),
            Kind::Off => None,
        };
        Ok(Self::over(cache, config))
    }

    fn over(cache: Option<Arc<dyn Cache>>, config: &Config) -> Self {
        let stop = CancellationToken::new();
        let raises = Arc::new(Raises::default());
        let shared = cache.as_ref().filter(|cache| cache.shared().is_some());
        if let Some(cache) = shared {
            let retry = Arc::clone(&raises).run(Arc::clone(cache));
            tokio::spawn(stop.clone().run_until_cancelled_owned(retry));
        }
        let hot = Hot::new(config.refresh.clone(), config.results_ttl);
        let watch = Arc::new(refresh::Watch::new(hot));
        let caches = Self(Arc::new(Inner {
            writer: shared.map(|cache| Writer::start(Arc::clone(cache))),
            cache,
            config: config.clone(),
            raises,
            seen: Mutex::default(),
            hot: Arc::clone(&watch),
            tally: Tally::new(),
            _stop: stop.clone().drop_guard(),
        }));
        if config.refresh.enabled {
            let refreshing = refresh::run(watch, Arc::downgrade(&caches.0));
            tokio::spawn(stop.run_until_cancelled_owned(refreshing));
        }
        caches
    }

    /// Whether answers found in a collection can be kept. A store that does not count its changes
    /// has others that write to it, and a cache of this process alone would not learn of them.
    pub(crate) fn keeps_answers(&self, collection: &Collection) -> bool {
        let cache = self.0.cache.as_ref();
        cache.is_some_and(|cache| cache.shared().is_some() || collection.generation.is_some())
    }

    /// Tells of a write to a collection. To be called after each, before it is acknowledged, by
    /// whoever sees to it that a write that has begun is finished.
    pub(crate) async fn raise(&self, collection: &Collection) {
        if collection.generation.is_none() {
            self.invalidate(&collection.uid).await;
        }
        self.0.hot.written(&collection.uid);
    }

    /// Tells of a write that is found to be made, and that is acknowledged by saying so: whoever
    /// made it may have died before it was told. `written` is when it was, if that is known. What
    /// was written so long ago that no answer from before is left needs no telling, so that indexing
    /// again what is unchanged empties no cache.
    pub(crate) async fn confirm(&self, collection: &Collection, written: Option<Timestamp>) {
        let results_ttl = self.0.config.results_ttl;
        if collection.generation.is_none()
            && written.is_none_or(|written| is_recent(written, Timestamp::now(), results_ttl))
        {
            self.raise(collection).await;
        }
    }

    /// Forgets every answer found in a collection.
    pub(crate) async fn clear(&self, collection: &Collection) {
        self.invalidate(&collection.uid).await;
    }

    /// The collection is gone, and with it what was counted of it.
    pub(crate) fn forget(&self, uid: &str) {
        self.0.tally.forget(uid);
        self.0.hot.lock().forget(uid);
        if let Some(cache) = &self.0.cache {
            cache.forget(Key::generation(uid));
        }
    }

    /// How well the answers of a collection and the vectors of all of them are found.
    pub(crate) fn stats(&self, uid: &str) -> Stats {
        let tally = &self.0.tally;
        Stats {
            results: tally.answers(uid, Instant::now()).stats(),
            embeddings: tally.embeddings.stats(),
        }
    }

    /// How often a collection was changed, by the store's count or else by that which replicas
    /// share; 0 where there is neither.
    pub(crate) async fn generation(&self, collection: &Collection) -> u64 {
        match (collection.generation, &self.0.cache) {
            (Some(generation), _) => generation,
            (None, Some(cache)) if cache.shared().is_some() => {
                let counter = Key::generation(&collection.uid);
                cache.count(counter).await.unwrap_or_default()
            }
            (None, _) => 0,
        }
    }

    /// What is known of a picture or text, for a call that has not looked it up.
    pub(crate) async fn vector(&self, key: Key) -> Option<Known> {
        let fetched = self.fetch(vec![key]).await;
        let is_reached = fetched.is_ok();
        let value = fetched.unwrap_or_default().pop().flatten();
        self.read_vector(value, is_reached)
    }

    /// Keeps what was found out of a picture or text, behind the call.
    pub(crate) async fn keep_vector(&self, key: Key, known: &Known, cost: Duration) {
        let time_to_live = match known {
            Known::Embedded(_) => self.0.config.embeddings_ttl,
            Known::Refused(_) => self.0.config.refusals_ttl,
        };
        self.store(Entry { key, value: known.encode(cost), time_to_live }).await;
    }

    /// Writes what waits to be written, and tells of changes once more. To be bounded by the caller.
    pub(crate) async fn close(&self) {
        if let Some(writer) = &self.0.writer {
            writer.flush().await;
        }
        if let Some(cache) = &self.0.cache {
            let untold = self.0.raises.deliver(&**cache).await;
            if untold > 0 {
                let longest = self.0.config.results_ttl;
                tracing::warn!(
                    collections = untold,
                    ?longest,
                    "changes could not be told to the cache; other replicas may give answers from \
                     before them for a while"
                );
            }
        }
    }

    async fn fetch(&self, keys: Vec<Key>) -> Result<Vec<Option<Bytes>>, Bypassed> {
        match &self.0.cache {
            Some(_) if keys.is_empty() => Ok(Vec::new()),
            Some(cache) => cache.fetch(keys).await,
            None => Err(Bypassed),
        }
    }

    async fn store(&self, mut entry: Entry) {
        entry.time_to_live = jittered(entry.time_to_live, rand::random());
        match (&self.0.writer, &self.0.cache) {
            (Some(writer), _) => writer.store(entry),
            // It is here, and takes no time.
            (None, Some(cache)) => cache.store(vec![entry]).await.unwrap_or_default(),
            (None, None) => {}
        }
    }

    async fn invalidate(&self, uid: &str) {
        if let Some(cache) = &self.0.cache {
            self.0.raises.raise(&**cache, Key::generation(uid)).await;
        }
    }
}

/// `chance` is in [0, 1).
fn jittered(time: Duration, chance: f64) -> Duration {
    time.mul_f64(1.0 - TTL_JITTER * chance)
}

/// Whether an item may have been written so late that answers from before are still kept. The clock
/// of who wrote it may go otherwise.
fn is_recent(written: Timestamp, now: Timestamp, results_ttl: Duration) -> bool {
    let longest = results_ttl.saturating_add(SLACK);
    let age = Duration::try_from(now.duration_since(written)).unwrap_or_default();
    age <= longest
}

#[cfg(test)]
mod contract;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use self::redis::server::Server as RedisServer;
