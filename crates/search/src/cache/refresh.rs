//! Asks hot queries again after a write: the task around [`Hot`].

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use clipmesh_proto::search::v1;
use futures::future::BoxFuture;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::entry::Generation;
use super::hot::Hot;
use super::key::Key;
use super::{Caches, Inner};
use crate::metrics;
use crate::store::Collection;

/// How to ask a query again. It must hold no [`Caches`], or what owns them: they hold it.
#[derive(Clone)]
pub(crate) struct Rerun(Arc<dyn Fn() -> Rerunning + Send + Sync>);

/// The collection as it was before the store was asked, and the answer; `None` if there is none.
pub(crate) type Rerunning = BoxFuture<'static, Option<(Collection, v1::SearchResponse)>>;

/// The hot queries, and word of what is written.
#[derive(Debug)]
pub(super) struct Watch {
    hot: Mutex<Hot<Rerun>>,
    written: Notify,
}

// === impl Rerun ===

impl Rerun {
    pub(crate) fn new(ask: impl Fn() -> Rerunning + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }
}

impl fmt::Debug for Rerun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rerun")
    }
}

// === impl Watch ===

impl Watch {
    pub(super) fn new(hot: Hot<Rerun>) -> Self {
        Self { hot: Mutex::new(hot), written: Notify::new() }
    }

    pub(super) fn written(&self, uid: &str) {
        self.lock().written(uid, Instant::now());
        self.written.notify_one();
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Hot<Rerun>> {
        // It is whole after every call, so a panic elsewhere leaves it usable.
        self.hot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks what is due, one query after the other, so that callers are hardly disturbed.
pub(super) async fn run(watch: Arc<Watch>, inner: Weak<Inner>) {
    loop {
        let next = watch.lock().next_round();
        match next {
            Some(due) => tokio::time::sleep_until(due).await,
            None => watch.written.notified().await,
        }
        let due = watch.lock().take_due(Instant::now());
        for (uid, key, rerun) in due {
            let Some(caches) = inner.upgrade().map(Caches) else { return };
            let is_done = caches.refresh(&uid, key, &rerun).await;
            metrics::cache_refreshed(if is_done { "ok" } else { "error" });
        }
    }
}

impl Caches {
    /// Asks one query again and keeps the answer.
    async fn refresh(&self, uid: &str, key: Key, rerun: &Rerun) -> bool {
        let Some(cache) = &self.0.cache else { return false };
        let counter = Key::generation(uid);
        // The count of before the answer, as in a look-up.
        let Ok(count) = cache.count(counter).await else { return false };
        let start = Instant::now();
        let Some((collection, response)) = (rerun.0)().await else { return false };
        let is_trusted = !self.0.raises.is_pending(counter) && self.keeps_answers(&collection);
        if collection.uid != uid || !is_trusted {
            return false;
        }
        let store = collection.generation.unwrap_or_default();
        let generation = Generation { store, counter: count };
        let cost: Duration = start.elapsed();
        self.keep_at(key, generation, &response, cost).await;
        true
    }
}
