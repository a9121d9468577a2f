//! Building graphs, which the engine leaves to its host.
//!
//! Which segments are worth it is the engine's to say: enough vectors without a graph
//! ([`Config::optimize_after`]), a graph of which a fifth was deleted, or one that was built with
//! other settings.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use qdrant_edge::ResourceBudget;
use tokio::time::Instant;

use super::super::engine;
use super::Shard;
use crate::store::{Error, IndexState};

/// How long after a failure building is tried again. Sooner, a fault that lasts would take a core
/// and fill the log; later, searches would go without a graph that might be there.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// What is known of the building of graphs.
#[derive(Debug)]
pub(super) struct Progress {
    /// Whether the engine works with another graph than it should.
    is_outdated: AtomicBool,
    /// Whether anything came or went since the engine was last asked to build.
    is_due: AtomicBool,
    is_building: AtomicBool,
    /// When the last attempt failed, if it did.
    failed_at: Mutex<Option<Instant>>,
}

/// An attempt to build, which has failed unless it says otherwise: it may end in a panic.
struct Attempt<'a> {
    progress: &'a Progress,
    has_failed: bool,
}

// === impl Progress ===

impl Progress {
    /// What a crash interrupted is due at once.
    pub(super) fn at_opening() -> Self {
        Self {
            is_outdated: AtomicBool::new(false),
            is_due: AtomicBool::new(true),
            is_building: AtomicBool::new(false),
            failed_at: Mutex::new(None),
        }
    }

    /// Points came or went.
    pub(super) fn points_changed(&self) {
        self.is_due.store(true, Ordering::Release);
    }

    /// The graph is to be another one.
    pub(super) fn graph_changed(&self) {
        self.is_outdated.store(true, Ordering::Release);
    }

    pub(super) fn state(&self) -> IndexState {
        if self.is_building.load(Ordering::Acquire) {
            IndexState::Building
        } else if self.failed_at().is_some() {
            IndexState::Failed
        } else {
            IndexState::Ready
        }
    }

    fn wants_building(&self, now: Instant) -> bool {
        let is_resting =
            self.failed_at().is_some_and(|failed_at| now.duration_since(failed_at) < RETRY_AFTER);
        // An engine that could not be opened again answers nobody until it is.
        self.is_outdated.load(Ordering::Acquire)
            || self.is_due.load(Ordering::Acquire) && !is_resting
    }

    fn begin(&self) -> Attempt<'_> {
        self.is_due.store(false, Ordering::Release);
        self.is_building.store(true, Ordering::Release);
        Attempt { progress: self, has_failed: true }
    }

    fn end(&self, has_failed: bool, now: Instant) {
        *self.failed_at() = has_failed.then_some(now);
        if has_failed {
            self.is_due.store(true, Ordering::Release);
        }
        self.is_building.store(false, Ordering::Release);
    }

    fn failed_at(&self) -> MutexGuard<'_, Option<Instant>> {
        self.failed_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Attempt ===

impl Attempt<'_> {
    fn succeed(mut self) {
        self.has_failed = false;
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.progress.end(self.has_failed, Instant::now());
    }
}

// === impl Shard ===

impl Shard {
    /// Whether anything may be there to build.
    pub(in super::super) fn wants_optimizing(&self) -> bool {
        self.progress.wants_building(Instant::now())
    }

    /// Builds what there is to build, and tells whether there was anything. Takes minutes where
    /// there are many points, and can't be stopped; reads and writes go on meanwhile.
    pub(in super::super) fn optimize(&self, budget: &ResourceBudget) -> Result<bool, Error> {
        let attempt = self.progress.begin();
        self.reopen_if_outdated()?;
        let done = self.engine.run(|shard| shard.optimize_with_budget(budget.clone()))?;
        if done {
            // What the graph replaced leaves the disk with a flush, and there may be no write soon
            // that leads to one. Whoever starts after a crash would find both, and use the former.
            self.flush()?;
        }
        attempt.succeed();
        Ok(done)
    }

    /// Of the engine's configuration, the part that says how vectors are shortened can only be
    /// changed by opening it anew. Who searches meanwhile waits, for about a second with 100,000
    /// points.
    fn reopen_if_outdated(&self) -> Result<(), Error> {
        let is_outdated = &self.progress.is_outdated;
        if !is_outdated.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let done = self.engine.reopen(engine::config(&self.collection(), &self.config));
        if done.is_err() {
            is_outdated.store(true, Ordering::Release);
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_tried_again_but_not_at_once() {
        let (progress, now) = (Progress::at_opening(), Instant::now());
        assert!(progress.wants_building(now), "of what was left by the last process");
        progress.begin().succeed();
        assert!(!progress.wants_building(now + RETRY_AFTER), "it is done");

        progress.points_changed();
        let attempt = progress.begin();
        assert_eq!(progress.state(), IndexState::Building, "under way");
        drop(attempt);
        progress.end(true, now);
        assert_eq!(progress.state(), IndexState::Failed, "and told");
        progress.points_changed();
        assert!(!progress.wants_building(now), "not even for more points");
        assert!(progress.wants_building(now + RETRY_AFTER), "but in a while, without any");
        progress.graph_changed();
        assert!(progress.wants_building(now), "another graph is another matter");
    }

    #[test]
    fn a_panic_is_a_failure() {
        let progress = Progress::at_opening();
        let built = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _attempt = progress.begin();
            panic!("in the engine");
        }));
        assert!(built.is_err(), "it panicked");
        assert_eq!(progress.state(), IndexState::Failed, "and that is told");
        assert!(progress.wants_building(Instant::now() + RETRY_AFTER), "and tried again");
        progress.begin().succeed();
        assert_eq!(progress.state(), IndexState::Ready, "this time it worked");
    }
}
