//! What the engine leaves to its host: flushes by the clock and by the number of writes, and
//! graphs for what has come in.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use qdrant_edge::ResourceBudget;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::catalogue::Catalogue;
use super::shard::Shard;
use crate::metrics;

/// Threads that build graphs; the others are for whoever searches.
pub(super) const BUILDING_THREADS: usize = 1;

/// How long a shutdown waits for a graph that is being built. Most take far longer.
const BUILDING_GRACE: Duration = Duration::from_secs(1);

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

/// Goes round all collections until stopped, and lets the thread that builds graphs end, if it
/// does so soon.
pub(super) async fn run(catalogue: Arc<Catalogue>, signals: Arc<Signals>, stop: CancellationToken) {
    let mut ticks = interval(catalogue.config().flush_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let builders = Arc::new(Semaphore::new(1));
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = ticks.tick() => {}
            () = signals.flush.notified() => {}
        }
        let work = (Arc::clone(&catalogue), Arc::clone(&builders), stop.clone());
        let round = move || go_round(&work.0, &work.1, work.2);
        if tokio::task::spawn_blocking(round).await.is_err() {
            tracing::error!("a round of the store's upkeep panicked");
        }
    }
    if timeout(BUILDING_GRACE, builders.acquire()).await.is_err() {
        tracing::info!("a search graph is left unbuilt; the next start begins anew with it");
    }
}

fn go_round(catalogue: &Catalogue, builders: &Arc<Semaphore>, stop: CancellationToken) {
    let shards = catalogue.shards();
    for shard in shards.iter().filter(|shard| shard.unflushed() > 0) {
        if let Err(error) = shard.flush() {
            metrics::store_upkeep_failed("flush");
            let name = shard.describe().name;
            tracing::warn!(collection = %name, %error, "bring a collection onto the disk");
        }
    }
    let due: Vec<_> = shards.into_iter().filter(|shard| shard.wants_optimizing()).collect();
    if !due.is_empty()
        && let Ok(turn) = Arc::clone(builders).try_acquire_owned()
    {
        build(due, turn, stop);
    }
}

/// Builds graphs on a thread that nobody waits for: it may take minutes and can't be stopped, and
/// the end of the process may come in between without harm. One collection after the other, each
/// with one thread, to which the engine gives a low priority.
fn build(shards: Vec<Arc<Shard>>, turn: OwnedSemaphorePermit, stop: CancellationToken) {
    let work = move || {
        let _turn = turn;
        let budget = ResourceBudget::new(BUILDING_THREADS, BUILDING_THREADS);
        // By value: what is closed meanwhile must not be held open by this.
        for shard in shards.into_iter().take_while(|_| !stop.is_cancelled()) {
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
