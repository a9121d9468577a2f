//! What the engine leaves to its host: flushes by the clock, and graphs for what has come in.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{Entry, Inner};
use crate::metrics;

/// Goes round all collections until stopped.
pub(super) async fn run(inner: Arc<Inner>, stop: CancellationToken) {
    let mut ticks = interval(inner.config.flush_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let is_optimizing = Arc::new(AtomicBool::new(false));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let inner = Arc::clone(&inner);
        let is_optimizing = Arc::clone(&is_optimizing);
        let round = move || go_round(&inner, &is_optimizing);
        if tokio::task::spawn_blocking(round).await.is_err() {
            tracing::error!("a round of the store's upkeep panicked");
        }
    }
}

fn go_round(inner: &Inner, is_optimizing: &Arc<AtomicBool>) {
    for entry in inner.entries() {
        let name = &entry.collection.name;
        if let Err(error) = entry.shard.flush() {
            metrics::store_upkeep_failed("flush");
            tracing::warn!(collection = %name, %error, "bring a collection onto the disk");
        }
        match entry.shard.wants_optimizing(inner.config.optimize_after) {
            Ok(true) => {
                if let Some(turn) = Turn::take(is_optimizing) {
                    optimize(entry, turn);
                }
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(collection = %name, %error, "look at a collection"),
        }
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
/// the end of the process may come in between without harm.
fn optimize(entry: Arc<Entry>, turn: Turn) {
    let work = move || {
        let _turn = turn;
        let name = &entry.collection.name;
        tracing::info!(collection = %name, "building the search graph");
        match entry.shard.optimize() {
            Ok(()) => tracing::info!(collection = %name, "the search graph is built"),
            Err(error) => {
                metrics::store_upkeep_failed("optimize");
                tracing::warn!(collection = %name, %error, "build the search graph");
            }
        }
    };
    if let Err(error) = thread::Builder::new().name("optimizer".to_owned()).spawn(work) {
        tracing::warn!(%error, "start the thread that builds search graphs");
    }
}
