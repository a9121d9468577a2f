//! Changes that the shared count of a collection does not tell yet, because it can't be reached.
//!
//! Until it is told, this process takes no answer of that collection from the cache. Others can't
//! know: what they find there may be out of date until the count is raised, and, if this process
//! dies first, until the answers' time is up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use tokio::sync::Notify;

use super::Cache;
use super::key::Key;
use crate::metrics;

/// How long to wait between two tries.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Collections that are told of at a time: each may take as long as the cache is waited for.
const CONCURRENCY: usize = 16;

/// The collections with such changes: each once, however often it was changed.
#[derive(Debug, Default)]
pub(super) struct Raises {
    pending: Mutex<Pending>,
    failed: Notify,
}

#[derive(Debug, Default)]
struct Pending {
    changes: HashMap<Key, Change>,
    last: u64,
}

/// What is untold of one collection.
#[derive(Clone, Copy, Debug)]
struct Change {
    /// The last of its changes.
    number: u64,
    /// Whether one could not be told, so that telling it is left to the task that tries again.
    is_left: bool,
}

/// A change that is being told. One whose caller goes away before it is told is left to the task.
struct Telling<'a> {
    raises: &'a Raises,
    counter: Key,
    number: u64,
    is_told: bool,
}

impl Raises {
    /// Tells of a change, now or as soon as it can be done. What is told twice does no harm.
    pub(super) async fn raise(&self, cache: &dyn Cache, counter: Key) {
        // Before it is tried: a search in the meantime must not trust the count either.
        let change = self.pending().add(counter);
        if change.is_left {
            // A moment ago it could not be told. A write is not to wait for that each time.
            return;
        }
        let number = change.number;
        let mut telling = Telling { raises: self, counter, number, is_told: false };
        telling.is_told = cache.raise(counter).await.is_ok();
    }

    pub(super) fn is_pending(&self, counter: Key) -> bool {
        self.pending().changes.contains_key(&counter)
    }

    /// Tells of what is pending, again and again.
    pub(super) async fn run(self: Arc<Self>, cache: Arc<dyn Cache>) {
        loop {
            self.failed.notified().await;
            while self.deliver(&*cache).await > 0 {
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }

    /// Tells of everything once; how much is left.
    pub(super) async fn deliver(&self, cache: &dyn Cache) -> usize {
        let changes = self.pending().changes.clone();
        let telling = stream::iter(changes).map(async |(counter, change)| {
            // One that fails, as a key that holds something else does, holds up no other.
            if cache.raise(counter).await.is_ok() {
                self.pending().remove(counter, change.number);
            }
        });
        telling.buffer_unordered(CONCURRENCY).collect::<()>().await;
        let left = self.pending().changes.len();
        metrics::cache_raises_pending(left);
        left
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        // It is whole after every call, so a panic elsewhere leaves it usable.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Telling ===

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        let mut pending = self.raises.pending();
        if self.is_told {
            pending.remove(self.counter, self.number);
            return;
        }
        pending.leave(self.counter);
        metrics::cache_raises_pending(pending.changes.len());
        drop(pending);
        self.raises.failed.notify_one();
    }
}

// === impl Pending ===

impl Pending {
    fn add(&mut self, counter: Key) -> Change {
        self.last += 1;
        let number = self.last;
        let change = self.changes.entry(counter).or_insert(Change { number, is_left: false });
        change.number = number;
        *change
    }

    /// Whoever told of a change told of all before it, and of none after it.
    fn remove(&mut self, counter: Key, told: u64) {
        if self.changes.get(&counter).is_some_and(|change| change.number <= told) {
            self.changes.remove(&counter);
        }
    }

    fn leave(&mut self, counter: Key) {
        if let Some(change) = self.changes.get_mut(&counter) {
            change.is_left = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use bytes::Bytes;
    use futures::FutureExt as _;

    use super::*;
    use crate::cache::{Bypassed, Entry, Leases, Reply};

    /// Can be told of every collection but some, and counts how often it was.
    #[derive(Debug, Default)]
    struct Deaf {
        to: HashSet<Key>,
        is_silent: bool,
        told: Mutex<Vec<Key>>,
    }

    impl Deaf {
        fn told(&self) -> usize {
            self.told.lock().expect("no panic").len()
        }
    }

    impl Cache for Deaf {
        fn raise(&self, counter: Key) -> Reply<'_, ()> {
            self.told.lock().expect("no panic").push(counter);
            let is_heard = !self.to.contains(&counter);
            async move {
                if self.is_silent {
                    std::future::pending::<()>().await;
                }
                is_heard.then_some(()).ok_or(Bypassed)
            }
            .boxed()
        }

        fn fetch(&self, _: Vec<Key>) -> Reply<'_, Vec<Option<Bytes>>> {
            async { Err(Bypassed) }.boxed()
        }

        fn store(&self, _: Vec<Entry>) -> Reply<'_, ()> {
            async { Err(Bypassed) }.boxed()
        }

        fn count(&self, _: Key) -> Reply<'_, u64> {
            async { Err(Bypassed) }.boxed()
        }

        fn forget(&self, _: Key) {}

        fn shared(&self) -> Option<&dyn Leases> {
            None
        }
    }

    fn counter(name: &str) -> Key {
        Key::generation(name)
    }

    #[test]
    fn a_change_that_failed_is_not_told_by_one_before_it() {
        let (mut pending, counter) = (Pending::default(), counter("uid"));
        let first = pending.add(counter);
        let second = pending.add(counter);
        pending.remove(counter, first.number);
        assert!(pending.changes.contains_key(&counter), "the second is still to be told");
        pending.remove(counter, second.number);
        assert!(pending.changes.is_empty(), "which tells of both");
    }

    #[tokio::test]
    async fn one_that_can_not_be_told_holds_up_no_other() {
        let (raises, names) = (Raises::default(), ["a", "b", "c", "d"].map(counter));
        let deaf = Deaf { to: names.into(), ..Deaf::default() };
        for name in names {
            raises.raise(&deaf, name).await;
        }
        let one = Deaf { to: [names[1]].into(), ..Deaf::default() };
        assert_eq!(raises.deliver(&one).await, 1, "all but one are told");
        let left: Vec<_> = names.into_iter().filter(|name| raises.is_pending(*name)).collect();
        assert_eq!(left, [names[1]], "whichever comes first");
    }

    #[tokio::test]
    async fn writes_wait_once_for_what_can_not_be_told() {
        let raises = Raises::default();
        let deaf = Deaf { to: [counter("a")].into(), ..Deaf::default() };
        for _ in 0..3 {
            raises.raise(&deaf, counter("a")).await;
        }
        assert_eq!(deaf.told(), 1, "the others are left to the task");
        assert_eq!(raises.deliver(&Deaf::default()).await, 0, "which tells of all");
        raises.raise(&deaf, counter("a")).await;
        assert_eq!(deaf.told(), 2, "and the next is tried at once");
    }

    #[tokio::test]
    async fn a_change_whose_caller_goes_away_is_told_all_the_same() {
        let (raises, silent) = (Raises::default(), Deaf { is_silent: true, ..Deaf::default() });
        let raising = raises.raise(&silent, counter("a")).now_or_never();
        assert!(raising.is_none(), "it was under way");
        raises.failed.notified().await;
        assert_eq!(raises.deliver(&Deaf::default()).await, 0, "the task tells");
        assert!(!raises.is_pending(counter("a")), "and answers are taken again");
    }
}
