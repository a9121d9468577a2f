//! Changes that the shared count of a collection does not tell yet, because it can't be reached.
//!
//! Until it is told, this process takes no answer of that collection from the cache. Others can't
//! know: what they find there may be out of date until the count is raised, and, if this process
//! dies first, until the answers' time is up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::Cache;
use super::key::Key;
use crate::metrics;

/// How long to wait between two tries. A server that is left alone is not asked by them.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// The collections with such changes: each once, however often it was changed.
#[derive(Debug, Default)]
pub(super) struct Raises {
    pending: Mutex<Pending>,
    added: Notify,
}

#[derive(Debug, Default)]
struct Pending {
    /// The last change of each.
    changes: HashMap<Key, u64>,
    last: u64,
}

impl Raises {
    /// Tells of a change, now or as soon as it can be done. What is told twice does no harm.
    pub(super) async fn raise(&self, cache: &dyn Cache, counter: Key) {
        // Before it is tried: a search in the meantime must not trust the count either.
        let change = self.pending().add(counter);
        if cache.raise(counter).await.is_ok() {
            self.pending().remove(counter, change);
            return;
        }
        metrics::cache_raises_pending(self.pending().changes.len());
        self.added.notify_one();
    }

    pub(super) fn is_pending(&self, counter: Key) -> bool {
        self.pending().changes.contains_key(&counter)
    }

    /// Tells of what is pending, again and again.
    pub(super) async fn run(self: Arc<Self>, cache: Arc<dyn Cache>) {
        loop {
            self.added.notified().await;
            while self.deliver(&*cache).await > 0 {
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }

    /// Tells of everything once; how much is left.
    pub(super) async fn deliver(&self, cache: &dyn Cache) -> usize {
        let changes = self.pending().changes.clone();
        for (counter, change) in changes {
            if cache.raise(counter).await.is_err() {
                break;
            }
            self.pending().remove(counter, change);
        }
        let left = self.pending().changes.len();
        metrics::cache_raises_pending(left);
        left
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        // It is whole after every call, so a panic elsewhere leaves it usable.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    fn add(&mut self, counter: Key) -> u64 {
        self.last += 1;
        self.changes.insert(counter, self.last);
        self.last
    }

    /// Whoever told of a change told of all before it, and of none after it.
    fn remove(&mut self, counter: Key, told: u64) {
        if self.changes.get(&counter).is_some_and(|change| *change <= told) {
            self.changes.remove(&counter);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_failed_is_not_told_by_one_before_it() {
        let (mut pending, counter) = (Pending::default(), Key::generation("uid"));
        let first = pending.add(counter);
        let second = pending.add(counter);
        pending.remove(counter, first);
        assert!(pending.changes.contains_key(&counter), "the second is still to be told");
        pending.remove(counter, second);
        assert!(pending.changes.is_empty(), "which tells of both");
    }
}
