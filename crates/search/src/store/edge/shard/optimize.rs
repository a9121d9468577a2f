//! Building graphs, which the engine leaves to its host.
//!
//! Which segments are worth it is the engine's to say: enough vectors without a graph
//! ([`Config::optimize_after`]), a graph of which a fifth was deleted, or one that was built with
//! other settings.

use std::sync::atomic::{AtomicBool, Ordering};

use qdrant_edge::ResourceBudget;

use super::super::engine;
use super::Shard;
use crate::store::{Error, IndexState};

/// What is known of the building of graphs.
#[derive(Debug)]
pub(super) struct Progress {
    /// Whether the engine works with another graph than it should.
    is_outdated: AtomicBool,
    /// Whether anything came or went since the engine was last asked to build.
    is_due: AtomicBool,
    is_building: AtomicBool,
    has_failed: AtomicBool,
}

// === impl Progress ===

impl Progress {
    /// What a crash interrupted is due at once.
    pub(super) fn at_opening() -> Self {
        Self {
            is_outdated: AtomicBool::new(false),
            is_due: AtomicBool::new(true),
            is_building: AtomicBool::new(false),
            has_failed: AtomicBool::new(false),
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
        } else if self.has_failed.load(Ordering::Acquire) {
            IndexState::Failed
        } else {
            IndexState::Ready
        }
    }
}

/// Tells what came of building, be it a panic.
struct Building<'a> {
    progress: &'a Progress,
    has_failed: bool,
}

impl Drop for Building<'_> {
    fn drop(&mut self) {
        self.progress.is_building.store(false, Ordering::Release);
        self.progress.has_failed.store(self.has_failed, Ordering::Release);
    }
}

// === impl Shard ===

impl Shard {
    /// Whether anything may be there to build.
    pub(in super::super) fn wants_optimizing(&self) -> bool {
        let Progress { is_outdated, is_due, .. } = &self.progress;
        is_due.load(Ordering::Acquire) || is_outdated.load(Ordering::Acquire)
    }

    /// Builds what there is to build, and tells whether there was anything. Takes minutes where
    /// there are many points, and can't be stopped; reads and writes go on meanwhile.
    pub(in super::super) fn optimize(&self, budget: &ResourceBudget) -> Result<bool, Error> {
        self.progress.is_due.store(false, Ordering::Release);
        self.progress.is_building.store(true, Ordering::Release);
        let mut building = Building { progress: &self.progress, has_failed: true };
        self.reopen_if_outdated()?;
        let done = self.engine.run(|shard| shard.optimize_with_budget(budget.clone()))?;
        building.has_failed = false;
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
