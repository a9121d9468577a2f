//! Does work that several callers want at once only once.
//!
//! The callers hold one shared future. Whoever polls it drives it, so it goes on when the caller
//! that began it goes away, and ends when the last one does:
//!
//! ```text
//!   first caller ── begins ──┐
//!   second caller ── joins ──┼──► the work ──► its result, to each
//!   third caller ── joins ───┘
//! ```

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, WeakShared};

/// Entries of work that is over are cleared away when there are this many, and then at each
/// doubling, so that the map follows the number of callers.
const MIN_CLEANUP: usize = 64;

/// Work in progress, by what it is for.
pub(crate) struct SingleFlight<K, V> {
    running: Mutex<Running<K, V>>,
}

struct Running<K, V> {
    by_key: HashMap<K, WeakShared<BoxFuture<'static, V>>>,
    cleanup_at: usize,
}

/// Work, and whether someone else had begun it.
pub(crate) struct Flight<V: Clone> {
    pub(crate) work: Shared<BoxFuture<'static, V>>,
    pub(crate) is_joined: bool,
}

impl<K: Hash + Eq, V: Clone> SingleFlight<K, V> {
    pub(crate) fn new() -> Self {
        let running = Running { by_key: HashMap::new(), cleanup_at: MIN_CLEANUP };
        Self { running: Mutex::new(running) }
    }

    /// Joins the work for `key`, or begins it if there is none.
    pub(crate) fn join(&self, key: K, begin: impl FnOnce() -> BoxFuture<'static, V>) -> Flight<V> {
        // The map is whole after every statement, so a panic elsewhere leaves it usable.
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(work) = running.by_key.get(&key).and_then(WeakShared::upgrade)
            && work.peek().is_none()
        {
            return Flight { work, is_joined: true };
        }
        let work = begin().shared();
        // Always there: a future that was never polled is not done.
        if let Some(weak) = work.downgrade() {
            running.by_key.insert(key, weak);
        }
        if running.by_key.len() >= running.cleanup_at {
            running.by_key.retain(|_, work| work.upgrade().is_some());
            running.cleanup_at = (2 * running.by_key.len()).max(MIN_CLEANUP);
        }
        Flight { work, is_joined: false }
    }
}

impl<K, V> fmt::Debug for SingleFlight<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SingleFlight").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::oneshot;

    use super::*;

    /// Counts how often work is begun.
    #[derive(Clone, Default)]
    struct Starts(Arc<AtomicUsize>);

    impl Starts {
        fn work(&self, until: oneshot::Receiver<u32>) -> BoxFuture<'static, Option<u32>> {
            self.0.fetch_add(1, Ordering::SeqCst);
            async move { until.await.ok() }.boxed()
        }

        fn count(&self) -> usize {
            self.0.load(Ordering::SeqCst)
        }
    }

    #[tokio::test]
    async fn identical_work_runs_once() {
        let flights = SingleFlight::new();
        let starts = Starts::default();
        let (done, until) = oneshot::channel();
        let first = flights.join("a", || starts.work(until));
        let (_unused, never) = oneshot::channel();
        let second = flights.join("a", || starts.work(never));
        assert_eq!((first.is_joined, second.is_joined), (false, true), "the second joins");
        done.send(7).expect("someone waits");
        assert_eq!(futures::join!(first.work, second.work), (Some(7), Some(7)), "one result");
        assert_eq!(starts.count(), 1, "the work was done once");
    }

    #[tokio::test]
    async fn other_work_and_later_work_run_by_themselves() {
        let flights = SingleFlight::new();
        let starts = Starts::default();
        for key in ["a", "b", "a"] {
            let (done, until) = oneshot::channel();
            done.send(1).expect("the receiver is there");
            let flight = flights.join(key, || starts.work(until));
            assert!(!flight.is_joined, "nothing to join for `{key}`");
            assert_eq!(flight.work.await, Some(1), "its own result");
        }
        assert_eq!(starts.count(), 3, "three pieces of work");
    }

    #[tokio::test]
    async fn followers_are_not_stranded_when_the_first_caller_goes() {
        let flights = SingleFlight::new();
        let starts = Starts::default();
        let (done, until) = oneshot::channel();
        let mut first = Box::pin(flights.join("a", || starts.work(until)).work);
        let (_unused, never) = oneshot::channel();
        let second = flights.join("a", || starts.work(never));
        // The first caller is the one that drives the work when it goes.
        assert!(futures::poll!(&mut first).is_pending(), "under way");
        drop(first);
        done.send(3).expect("someone waits");
        assert_eq!(second.work.await, Some(3), "the second drives it to the end");
        assert_eq!(starts.count(), 1, "it was not begun again");
    }

    #[tokio::test]
    async fn work_that_nobody_wants_any_more_ends() {
        let flights = SingleFlight::new();
        let starts = Starts::default();
        let (mut done, until) = oneshot::channel::<u32>();
        drop(flights.join("a", || starts.work(until)));
        done.closed().await;
        let (_unused, never) = oneshot::channel();
        let again = flights.join("a", || starts.work(never));
        assert!(!again.is_joined, "abandoned work is not joined");
    }

    #[tokio::test]
    async fn finished_work_does_not_pile_up() {
        let flights = SingleFlight::new();
        for key in 0..10 * MIN_CLEANUP {
            let flight = flights.join(key, || async { 1 }.boxed());
            assert_eq!(flight.work.await, 1, "done");
        }
        let kept = flights.running.lock().expect("no panic").by_key.len();
        assert!(kept <= MIN_CLEANUP, "{kept} entries of finished work");
    }
}
