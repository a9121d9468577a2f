//! A cache in this process, bounded by bytes.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt as _;
use moka::Expiry;

use super::key::{Key, Kind};
use super::{Cache, Config, Entry, Leases, Reply};

/// What an entry costs beside its bytes: its key, and the bookkeeping of the map.
const OVERHEAD_BYTES: usize = 200;

/// Entries in memory. The least useful go first when there is no room (by how often they were
/// asked for, TinyLFU, arXiv:1512.00727, so that what is asked once pushes nothing out), and each
/// goes when its time is up.
#[derive(Debug)]
pub(crate) struct Memory {
    vectors: Entries,
    answers: Entries,
    /// One for each collection that was searched, small, and kept as long as the collection: what an
    /// answer is valid by must not be lost before the answer.
    counters: Mutex<HashMap<Key, u64>>,
}

type Entries = moka::future::Cache<Key, (Bytes, Duration)>;

/// Lets each entry have a time of its own.
#[derive(Debug)]
struct OwnTime;

// === impl Memory ===

impl Memory {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            vectors: entries(config.embeddings_bytes.as_u64()),
            answers: entries(config.results_bytes.as_u64()),
            counters: Mutex::default(),
        }
    }

    fn entries(&self, kind: Kind) -> &Entries {
        if kind == Kind::Answer { &self.answers } else { &self.vectors }
    }

    fn counters(&self) -> MutexGuard<'_, HashMap<Key, u64>> {
        // The map is whole after every statement, so a panic elsewhere leaves it usable.
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn get(&self, key: Key) -> Option<Bytes> {
        if key.kind == Kind::Generation {
            let count = self.counters().get(&key).copied();
            return count.map(|count| count.to_string().into());
        }
        self.entries(key.kind).get(&key).await.map(|(value, _)| value)
    }
}

impl Cache for Memory {
    fn fetch(&self, keys: Vec<Key>) -> Reply<'_, Vec<Option<Bytes>>> {
        async move {
            let mut values = Vec::with_capacity(keys.len());
            for key in keys {
                values.push(self.get(key).await);
            }
            Ok(values)
        }
        .boxed()
    }

    fn store(&self, entries: Vec<Entry>) -> Reply<'_, ()> {
        async move {
            for Entry { key, value, time_to_live } in entries {
                self.entries(key.kind).insert(key, (value, time_to_live)).await;
            }
            Ok(())
        }
        .boxed()
    }

    fn count(&self, counter: Key) -> Reply<'_, u64> {
        let count = *self.counters().entry(counter).or_default();
        async move { Ok(count) }.boxed()
    }

    fn raise(&self, counter: Key) -> Reply<'_, ()> {
        *self.counters().entry(counter).or_default() += 1;
        async { Ok(()) }.boxed()
    }

    fn forget(&self, counter: Key) {
        self.counters().remove(&counter);
    }

    fn shared(&self) -> Option<&dyn Leases> {
        None
    }
}

impl Expiry<Key, (Bytes, Duration)> for OwnTime {
    fn expire_after_create(
        &self,
        _: &Key,
        (_, time_to_live): &(Bytes, Duration),
        _: Instant,
    ) -> Option<Duration> {
        Some(*time_to_live)
    }

    fn expire_after_update(
        &self,
        _: &Key,
        (_, time_to_live): &(Bytes, Duration),
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(*time_to_live)
    }
}

fn entries(max_bytes: u64) -> Entries {
    let weigh = |_: &Key, (value, _): &(Bytes, Duration)| {
        u32::try_from(value.len() + OVERHEAD_BYTES).unwrap_or(u32::MAX)
    };
    moka::future::Cache::builder()
        .max_capacity(max_bytes)
        .weigher(weigh)
        .expire_after(OwnTime)
        .build()
}

#[cfg(test)]
mod tests {
    use bytesize::ByteSize;

    use super::*;

    fn entry(name: &str, bytes: usize) -> Entry {
        let key = Key::answer(name, b"");
        Entry { key, value: vec![0; bytes].into(), time_to_live: Duration::from_secs(60) }
    }

    #[tokio::test]
    async fn stays_within_its_bytes() {
        let config = Config { results_bytes: ByteSize::b(100_000), ..Config::default() };
        let cache = Memory::new(&config);
        for i in 0..1_000 {
            cache.store(vec![entry(&i.to_string(), 1_000)]).await.expect("it is here");
        }
        cache.answers.run_pending_tasks().await;
        let bytes = cache.answers.weighted_size();
        assert!(bytes <= 100_000, "{bytes} bytes for 100000");
        assert!(bytes > 50_000, "{bytes} bytes: it is used");
    }

    #[tokio::test]
    async fn keeps_no_count_of_what_is_gone() {
        let cache = Memory::new(&Config::default());
        let counter = Key::generation("uid");
        cache.raise(counter).await.expect("it is here");
        cache.forget(counter);
        assert!(cache.counters().is_empty(), "nobody will ask");
    }

    #[tokio::test]
    async fn what_is_asked_once_does_not_push_out_what_is_asked_often() {
        let config = Config { results_bytes: ByteSize::b(100_000), ..Config::default() };
        let cache = Memory::new(&config);
        let hot = entry("hot", 1_000);
        let key = hot.key;
        cache.store(vec![hot]).await.expect("it is here");
        for i in 0..1_000 {
            cache.fetch(vec![key]).await.expect("it is here");
            cache.store(vec![entry(&i.to_string(), 1_000)]).await.expect("it is here");
        }
        cache.answers.run_pending_tasks().await;
        let found = cache.fetch(vec![key]).await.expect("it is here");
        assert!(found[0].is_some(), "a thousand others came and went");
    }
}
