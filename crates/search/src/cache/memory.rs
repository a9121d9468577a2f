//! A cache in this process, bounded by bytes.

use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::{Cache, Key};

/// What an entry costs beside its bytes: its key, and the bookkeeping of the map.
const OVERHEAD_BYTES: usize = 200;

/// Entries in memory. The least useful go first when there is no room, and each goes when its
/// time is up.
#[derive(Debug)]
pub(crate) struct Memory {
    entries: moka::future::Cache<Key, Bytes>,
}

impl Memory {
    pub(crate) fn new(max_bytes: u64, time_to_live: Duration) -> Self {
        let weigh = |_: &Key, value: &Bytes| {
            u32::try_from(value.len() + OVERHEAD_BYTES).unwrap_or(u32::MAX)
        };
        let entries = moka::future::Cache::builder()
            .max_capacity(max_bytes)
            .weigher(weigh)
            .time_to_live(time_to_live)
            .build();
        Self { entries }
    }
}

impl Cache for Memory {
    fn get(&self, key: Key) -> BoxFuture<'_, Option<Bytes>> {
        async move { self.entries.get(&key).await }.boxed()
    }

    fn put(&self, key: Key, value: Bytes) -> BoxFuture<'_, ()> {
        self.entries.insert(key, value).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::of("test", &[text.as_bytes()])
    }

    #[tokio::test]
    async fn gives_back_what_was_put_in() {
        let cache = Memory::new(1 << 20, Duration::from_secs(60));
        assert_eq!(cache.get(key("a")).await, None, "nothing yet");
        cache.put(key("a"), Bytes::from_static(b"1")).await;
        cache.put(key("b"), Bytes::from_static(b"2")).await;
        assert_eq!(cache.get(key("a")).await, Some(Bytes::from_static(b"1")), "there");
        cache.put(key("a"), Bytes::from_static(b"3")).await;
        assert_eq!(cache.get(key("a")).await, Some(Bytes::from_static(b"3")), "replaced");
    }

    #[tokio::test]
    async fn stays_within_its_bytes() {
        let cache = Memory::new(100_000, Duration::from_secs(60));
        for i in 0..1_000 {
            cache.put(key(&i.to_string()), Bytes::from(vec![0; 1_000])).await;
        }
        cache.entries.run_pending_tasks().await;
        let bytes = cache.entries.weighted_size();
        assert!(bytes <= 100_000, "{bytes} bytes for 100000");
        assert!(bytes > 50_000, "{bytes} bytes: it is used");
    }

    #[tokio::test]
    async fn forgets_when_the_time_is_up() {
        let cache = Memory::new(1 << 20, Duration::ZERO);
        cache.put(key("a"), Bytes::from_static(b"1")).await;
        assert_eq!(cache.get(key("a")).await, None, "its time was up at once");
    }
}
