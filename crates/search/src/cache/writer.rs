//! Writes to a cache that is not in this process, behind the calls that caused them.
//!
//! A caller hands a value over and goes on. One task writes what has come together in the meantime
//! in one pipeline. When it can't keep up, values are dropped: a cache may miss.

use std::sync::Arc;

use futures::FutureExt as _;
use tokio::sync::{mpsc, oneshot};

use super::key::Key;
use super::{Cache, Entry};
use crate::metrics;

/// Values that wait to be written. One of 512 floats takes 2.3 KB.
const MAX_WAITING: usize = 1_024;

/// Most that are written in one go.
const MAX_AT_ONCE: usize = 64;

/// Hands over what is to be written. The task ends with the last of these.
#[derive(Clone, Debug)]
pub(super) struct Writer(mpsc::Sender<Write>);

#[derive(Debug)]
enum Write {
    Store(Entry),
    /// Ends a lease, after everything that was handed over before.
    Release {
        key: Key,
        token: u64,
    },
    /// Tells when all before it is written.
    Flush(oneshot::Sender<()>),
}

// === impl Writer ===

impl Writer {
    /// Starts the task.
    pub(super) fn start(cache: Arc<dyn Cache>) -> Self {
        let (sender, writes) = mpsc::channel(MAX_WAITING);
        tokio::spawn(run(cache, writes));
        Self(sender)
    }

    pub(super) fn store(&self, entry: Entry) {
        self.send(Write::Store(entry));
    }

    pub(super) fn release(&self, key: Key, token: u64) {
        self.send(Write::Release { key, token });
    }

    /// Waits until what was handed over is written, or was given up.
    pub(super) async fn flush(&self) {
        let (done, written) = oneshot::channel();
        if self.0.send(Write::Flush(done)).await.is_ok() {
            // Fails when the task has ended, and then there is nothing to wait for.
            written.map(drop).await;
        }
    }

    fn send(&self, write: Write) {
        // A lease whose end is dropped ends by itself.
        if self.0.try_send(write).is_err() {
            metrics::cache_writes_lost("full", 1);
        }
    }
}

async fn run(cache: Arc<dyn Cache>, mut writes: mpsc::Receiver<Write>) {
    let mut batch = Vec::with_capacity(MAX_AT_ONCE);
    while writes.recv_many(&mut batch, MAX_AT_ONCE).await > 0 {
        let (mut entries, mut releases, mut flushes) = (Vec::new(), Vec::new(), Vec::new());
        for write in batch.drain(..) {
            match write {
                Write::Store(entry) => entries.push(entry),
                Write::Release { key, token } => releases.push((key, token)),
                Write::Flush(done) => flushes.push(done),
            }
        }
        let count = entries.len();
        if count > 0 && cache.store(entries).await.is_err() {
            metrics::cache_writes_lost("error", count);
        }
        if let Some(leases) = cache.shared() {
            for (key, token) in releases {
                if leases.release(key, token).await.is_err() {
                    tracing::debug!("a lease is left to run out");
                }
            }
        }
        for done in flushes {
            // Fails when nobody waits any more.
            done.send(()).ok();
        }
    }
}
