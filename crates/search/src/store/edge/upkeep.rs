//! What the engine leaves to its host: flushes by the clock and by the number of writes, and
//! graphs for what has come in.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use qdrant_edge::ResourceBudget;
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::catalogue::Catalogue;
use super::shard::Shard;
use crate::metrics;

/// Threads that build graphs; the others are for whoever searches.
pub(super) const BUILDING_THREADS: usize = 1;

/// What may be asked of the upkeep out of turn.
#[derive(Debug, Default)]
pub(super) struct Signals {
    flush: Notify,
}

// === impl Signals ===

impl Signals {
    /// Asks for a round now.
    pub(super) fn flush(&self) {
        self.flush.notify_one();
    }
}

/// Goes round all collections until stopped.
pub(super) async fn run(catalogue: Arc<Catalogue>, signals: Arc<Signals>, stop: CancellationToken) {
    let mut ticks = interval(catalogue.config().flush_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let is_optimizing = Arc::new(AtomicBool::new(false));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
            () = signals.flush.notified() => {}
        }
        let catalogue = Arc::clone(&catalogue);
        let is_optimizing = Arc::clone(&is_optimizing);
        let round = move || go_round(&catalogue, &is_optimizing);
        if tokio::task::spawn_blocking(round).await.is_err() {
            tracing::error!("a round of the store's upkeep panicked");
        }
    }
}

fn go_round(catalogue: &Catalogue, is_optimizing: &Arc<AtomicBool>) {
    let shards = catalogue.shards();
    for shard in shards.iter().filter(|shard| shard.unflushed() > 0) {
        if let Err(error) = shard.flush() {
            metrics::store_upkeep_failed("flush");
            let name = shard.describe().name;
            tracing::warn!(collection = %name, %error, "bring a collection onto the disk");
        }
    }
    let unoptimized: Vec<_> = shards.into_iter().filter(|shard| shard.wants_optimizing()).collect();
    if !unoptimized.is_empty()
        && let Some(turn) = Turn::take(is_optimizing)
    {
        optimize(unoptimized, turn);
    }
}

/// The right to build graphs, which one thread has at a time. Given back even by a panic.
#[must_use]
struct Turn(Arc<AtomicBool>);

impl Turn {
    fn take(is_optimizing: &Arc<AtomicBool>) -> Option<Self> {
        let is_taken = is_optimizing.swap(true, Ordering::AcqRel);
        (!is_taken).then(|| Self(Arc::clone(is_optimizing)))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Builds graphs on a thread that nobody waits for: it may take minutes and can't be stopped, and
/// the end of the process may come in between without harm. One collection after the other, each
/// with one thread, to which the engine gives a low priority.
fn optimize(shards: Vec<Arc<Shard>>, turn: Turn) {
    let work = move || {
        let _turn = turn;
        let budget = ResourceBudget::new(BUILDING_THREADS, BUILDING_THREADS);
        for shard in shards {
            let name = shard.describe().name;
            match shard.optimize(&budget) {
                Ok(true) => tracing::info!(collection = %name, "the search graph is built"),
                Ok(false) => {}
                Err(error) => {
                    metrics::store_upkeep_failed("optimize");
                    tracing::warn!(collection = %name, %error, "build the search graph");
                }
            }
        }
    };
    if let Err(error) = thread::Builder::new().name("optimizer".to_owned()).spawn(work) {
        tracing::warn!(%error, "start the thread that builds search graphs");
    }
}
