//! Writes to a cache that is not in this process, behind the calls that caused them.
//!
//! A caller hands a value over and goes on. One task writes what has come together in the meantime
//! in one pipeline. When it can't keep up, values are dropped: a cache may miss.

use std::sync::Arc;

use futures::FutureExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::key::Key;
use super::{Cache, Entry};
use crate::metrics;

/// Writes that wait, and the bytes of their values. One of 512 floats takes 2.3 KB.
const MAX_WAITING: usize = 1_024;
const MAX_WAITING_BYTES: u32 = 32 << 20;

/// Most that are written in one go, and about how many bytes: what takes longer than a call waits
/// for the cache is lost as a whole.
const MAX_AT_ONCE: usize = 64;
const MAX_BYTES_AT_ONCE: usize = 1 << 20;

/// A larger value is not kept: it would hold up the small ones behind it, and reading it would take
/// longer than is waited for. An answer of 100 hits with vectors of 512 floats has 250 KB.
const MAX_VALUE_BYTES: usize = 256 << 10;

/// Hands over what is to be written. The task ends with the last of these.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    writes: mpsc::Sender<Write>,
    room: Arc<Semaphore>,
}

#[derive(Debug)]
enum Write {
    /// With its part of the room, until it is written.
    Store(Entry, OwnedSemaphorePermit),
    /// Ends a lease, after everything that was handed over before.
    Release { key: Key, token: u64 },
    /// Tells when all before it is written.
    Flush(oneshot::Sender<()>),
}

// === impl Writer ===

impl Writer {
    /// Starts the task.
    pub(super) fn start(cache: Arc<dyn Cache>) -> Self {
        let (sender, writes) = mpsc::channel(MAX_WAITING);
        tokio::spawn(run(cache, writes));
        Self { writes: sender, room: Arc::new(Semaphore::new(MAX_WAITING_BYTES as usize)) }
    }

    pub(super) fn store(&self, entry: Entry) {
        let bytes = entry.value.len();
        if bytes > MAX_VALUE_BYTES {
            metrics::cache_writes_lost("large", 1);
            return;
        }
        let needed = u32::try_from(bytes).unwrap_or(u32::MAX);
        match Arc::clone(&self.room).try_acquire_many_owned(needed) {
            Ok(room) => self.send(Write::Store(entry, room)),
            Err(_) => metrics::cache_writes_lost("full", 1),
        }
    }

    pub(super) fn release(&self, key: Key, token: u64) {
        self.send(Write::Release { key, token });
    }

    /// Waits until what was handed over is written, or was given up.
    pub(super) async fn flush(&self) {
        let (done, written) = oneshot::channel();
        if self.writes.send(Write::Flush(done)).await.is_ok() {
            // Fails when the task has ended, and then there is nothing to wait for.
            written.map(drop).await;
        }
    }

    fn send(&self, write: Write) {
        // A lease whose end is dropped ends by itself.
        if self.writes.try_send(write).is_err() {
            metrics::cache_writes_lost("full", 1);
        }
    }
}

async fn run(cache: Arc<dyn Cache>, mut writes: mpsc::Receiver<Write>) {
    let mut batch = Vec::with_capacity(MAX_AT_ONCE);
    while writes.recv_many(&mut batch, MAX_AT_ONCE).await > 0 {
        let (mut entries, mut releases, mut flushes) = (Vec::new(), Vec::new(), Vec::new());
        // Held until all is written.
        let mut rooms = Vec::new();
        for write in batch.drain(..) {
            match write {
                Write::Store(entry, room) => {
                    entries.push(entry);
                    rooms.push(room);
                }
                Write::Release { key, token } => releases.push((key, token)),
                Write::Flush(done) => flushes.push(done),
            }
        }
        for entries in portions(entries) {
            let count = entries.len();
            if cache.store(entries).await.is_err() {
                metrics::cache_writes_lost("error", count);
            }
        }
        drop(rooms);
        if let Some(leases) = cache.shared().filter(|_| !releases.is_empty())
            && leases.release(releases).await.is_err()
        {
            tracing::debug!("leases are left to run out");
        }
        for done in flushes {
            // Fails when nobody waits any more.
            done.send(()).ok();
        }
    }
}

/// Entries in their order, in portions that are sent at once.
fn portions(entries: Vec<Entry>) -> Vec<Vec<Entry>> {
    let mut portions: Vec<Vec<Entry>> = Vec::new();
    let mut bytes = 0;
    for entry in entries {
        bytes += entry.value.len();
        match portions.last_mut() {
            Some(last) if bytes <= MAX_BYTES_AT_ONCE => last.push(entry),
            Some(_) | None => {
                bytes = entry.value.len();
                portions.push(vec![entry]);
            }
        }
    }
    portions
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cache::config::Config;
    use crate::cache::memory::Memory;

    fn entry(name: usize, bytes: usize) -> Entry {
        let key = Key::answer("uid", &name.to_le_bytes());
        Entry { key, value: vec![0; bytes].into(), time_to_live: Duration::from_secs(60) }
    }

    fn sizes(bytes: &[usize]) -> Vec<Vec<usize>> {
        let entries = bytes.iter().enumerate().map(|(name, bytes)| entry(name, *bytes));
        let portions = portions(entries.collect()).into_iter();
        portions.map(|all| all.iter().map(|entry| entry.value.len()).collect()).collect()
    }

    #[test]
    fn no_portion_is_larger_than_what_is_sent_in_time() {
        let (half, most) = (MAX_BYTES_AT_ONCE / 2, MAX_BYTES_AT_ONCE);
        assert_eq!(sizes(&[1, 2, 3]), [[1, 2, 3]], "what fits goes together");
        assert_eq!(sizes(&[half, half, 1]), [vec![half, half], vec![1]], "up to the bound");
        assert_eq!(sizes(&[most, 0, most]), [vec![most, 0], vec![most]], "in their order");
        assert_eq!(sizes(&[]), Vec::<Vec<usize>>::new(), "nothing");
    }

    #[tokio::test]
    async fn large_values_are_not_kept() {
        let cache = Arc::new(Memory::new(&Config::default()));
        let writer = Writer::start(Arc::clone(&cache) as Arc<dyn Cache>);
        let (small, large) = (entry(0, MAX_VALUE_BYTES), entry(1, MAX_VALUE_BYTES + 1));
        let keys = vec![small.key, large.key];
        writer.store(large);
        writer.store(small);
        writer.flush().await;
        let found = cache.fetch(keys).await.expect("it is here");
        let kept: Vec<_> = found.iter().map(Option::is_some).collect();
        assert_eq!(kept, [true, false], "those behind it are");
    }

    #[tokio::test]
    async fn what_waits_is_bounded_by_its_bytes() {
        let cache = Arc::new(Memory::new(&Config::default()));
        let writer = Writer::start(Arc::clone(&cache) as Arc<dyn Cache>);
        let fitting = MAX_WAITING_BYTES as usize / MAX_VALUE_BYTES;
        // The task does not run before the test waits.
        for name in 0..2 * fitting {
            writer.store(entry(name, MAX_VALUE_BYTES));
        }
        assert_eq!(writer.room.available_permits(), 0, "no more is taken");
        assert_eq!(MAX_WAITING - writer.writes.capacity(), fitting, "than fits");
        writer.flush().await;
        let room = writer.room.available_permits();
        assert_eq!(room, MAX_WAITING_BYTES as usize, "written, it makes room");
    }
}
