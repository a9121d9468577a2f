//! The engine of Qdrant in this process: a folder per collection, everything on disk.
//!
//! The engine blocks, so its work runs on blocking threads, a bounded number at a time, behind a
//! line of bounded length. What it does not do by itself is done by `upkeep`: bringing writes onto
//! the disk every few seconds, and building search graphs.
//!
//! A write that was answered is in the engine's log, a mapped file: it survives the death of the
//! process at any moment, and is taken in again at the next start. To survive a power failure as
//! well, a write has to wait for the disk ([`Config::sync_writes`]).

mod aliases;
mod catalogue;
mod config;
mod engine;
mod filter;
mod folder;
mod gate;
mod record;
mod shard;
mod upkeep;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use clipmesh_proto::ids::{CollectionName, ItemId};
use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};
use tokio_util::sync::CancellationToken;

use self::catalogue::Catalogue;
pub use self::config::Config;
use self::gate::Gate;
use self::shard::Shard;
use super::index::FieldIndex;
use super::{
    Answer, Collection, Error, Facet, Group, Grouped, Hit, NewCollection, Ordered, Page, Point,
    Record, Search, Status, VectorIndexChange, VectorStore,
};
use crate::filter::{Field, Filter};
use crate::item::{Etag, Scalar};
use crate::metrics;

/// Collections on disk.
#[derive(Debug)]
pub struct Edge {
    catalogue: Arc<Catalogue>,
    reads: Gate,
    writes: Gate,
    upkeep: Arc<upkeep::Signals>,
    stop: CancellationToken,
    task: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

// === impl Edge ===

impl Edge {
    /// Opens all collections in `root`, after a crash too, and begins their upkeep.
    ///
    /// # Errors
    /// A folder that can't be used or is in use by another process, or a collection that can't be
    /// opened: whoever starts with part of the data would answer with part of the truth.
    pub async fn open(root: PathBuf, config: Config) -> Result<Self, Error> {
        let (threads, waiting) = (config.threads, config.max_waiting);
        let opened = tokio::task::spawn_blocking(move || Catalogue::open(root, config)).await;
        let catalogue = Arc::new(opened.map_err(|_| panicked())??);
        let stop = CancellationToken::new();
        let signals = Arc::new(upkeep::Signals::default());
        let upkeep = upkeep::run(Arc::clone(&catalogue), Arc::clone(&signals), stop.clone());
        Ok(Self {
            catalogue,
            reads: Gate::new("read", threads, waiting),
            writes: Gate::new("write", threads, waiting),
            upkeep: signals,
            stop,
            task: Mutex::new(Some(tokio::spawn(upkeep))),
        })
    }

    /// Runs work on a blocking thread. The pass goes with the work, which outlives a caller that
    /// goes away.
    async fn blocking<T: Send + 'static>(
        &self,
        gate: &Gate,
        operation: &'static str,
        work: impl FnOnce(&Catalogue) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let timer = metrics::StoreTimer::start(operation);
        let result = match gate.enter().await {
            Ok(pass) => {
                let catalogue = Arc::clone(&self.catalogue);
                let span = tracing::Span::current();
                let done = tokio::task::spawn_blocking(move || {
                    let _pass = pass;
                    span.in_scope(|| work(&catalogue))
                });
                done.await.unwrap_or_else(|_| Err(panicked()))
            }
            Err(error) => Err(error),
        };
        timer.stop(result.is_ok());
        result
    }

    fn read<T: Send + 'static>(
        &self,
        operation: &'static str,
        name: CollectionName,
        work: impl FnOnce(&Shard) -> Result<T, Error> + Send + 'static,
    ) -> Answer<'_, T> {
        let work = move |catalogue: &Catalogue| work(&*catalogue.shard(&name)?);
        self.blocking(&self.reads, operation, work).boxed()
    }

    /// Work on the collection itself. It is on the disk when it is answered.
    fn change<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Catalogue) -> Result<T, Error> + Send + 'static,
    ) -> Answer<'_, T> {
        self.blocking(&self.writes, operation, work).boxed()
    }

    /// Work on points.
    fn write<T: Send + 'static>(
        &self,
        operation: &'static str,
        name: CollectionName,
        work: impl FnOnce(&Shard) -> Result<T, Error> + Send + 'static,
    ) -> Answer<'_, T> {
        let signals = Arc::clone(&self.upkeep);
        let work = move |catalogue: &Catalogue| {
            let shard = catalogue.shard(&name)?;
            let done = work(&shard)?;
            if catalogue.config().sync_writes {
                shard.sync()?;
            } else if shard.unflushed() >= catalogue.config().flush_after.get() {
                signals.flush();
            }
            Ok(done)
        };
        self.blocking(&self.writes, operation, work).boxed()
    }
}

impl VectorStore for Edge {
    fn create(&self, new: NewCollection) -> Answer<'_, Collection> {
        self.change("create", move |catalogue| catalogue.create(new))
    }

    fn remove(&self, name: CollectionName) -> Answer<'_, Collection> {
        self.change("remove", move |catalogue| catalogue.remove(&name))
    }

    fn resolve(&self, name: CollectionName) -> Answer<'_, Collection> {
        ready(self.catalogue.resolve(&name)).boxed()
    }

    fn collections(&self) -> Answer<'_, Vec<Collection>> {
        ready(self.catalogue.collections()).boxed()
    }

    fn set_vector_index(
        &self,
        name: CollectionName,
        change: VectorIndexChange,
    ) -> Answer<'_, Collection> {
        self.change("set_vector_index", move |catalogue| {
            catalogue.shard(&name)?.set_vector_index(change)
        })
    }

    fn create_index(&self, name: CollectionName, index: FieldIndex) -> Answer<'_, Collection> {
        self.change("create_index", move |catalogue| catalogue.shard(&name)?.create_index(index))
    }

    fn remove_index(&self, name: CollectionName, field: Field) -> Answer<'_, Collection> {
        self.change("remove_index", move |catalogue| catalogue.shard(&name)?.remove_index(&field))
    }

    fn set_alias(
        &self,
        alias: CollectionName,
        name: CollectionName,
    ) -> Answer<'_, Option<CollectionName>> {
        self.change("set_alias", move |catalogue| catalogue.set_alias(alias, &name))
    }

    fn remove_alias(&self, alias: CollectionName) -> Answer<'_, ()> {
        self.change("remove_alias", move |catalogue| catalogue.remove_alias(alias))
    }

    fn aliases(&self) -> Answer<'_, BTreeMap<CollectionName, CollectionName>> {
        ready(self.catalogue.aliases()).boxed()
    }

    fn status(&self, name: CollectionName) -> Answer<'_, Status> {
        self.read("status", name, Shard::status)
    }

    fn upsert(&self, name: CollectionName, points: Vec<Point>) -> Answer<'_, ()> {
        self.write("upsert", name, move |shard| shard.upsert(points))
    }

    fn replace(
        &self,
        name: CollectionName,
        point: Point,
        expected: Option<Etag>,
    ) -> Answer<'_, bool> {
        self.write("replace", name, move |shard| shard.replace(point, expected.as_ref()))
    }

    fn delete(&self, name: CollectionName, ids: Vec<ItemId>) -> Answer<'_, ()> {
        self.write("delete", name, move |shard| shard.delete(&ids))
    }

    fn delete_unchanged(
        &self,
        name: CollectionName,
        id: ItemId,
        expected: Etag,
    ) -> Answer<'_, bool> {
        self.write("delete_unchanged", name, move |shard| shard.delete_unchanged(id, &expected))
    }

    fn sync(&self, name: CollectionName) -> Answer<'_, ()> {
        if !self.catalogue.config().sync_writes {
            // The engine's log has it, and no more is promised.
            return ready(self.catalogue.shard(&name).map(drop)).boxed();
        }
        self.change("sync", move |catalogue| catalogue.shard(&name)?.sync())
    }

    fn get(
        &self,
        name: CollectionName,
        ids: Vec<ItemId>,
        vectors: bool,
    ) -> Answer<'_, Vec<Record>> {
        self.read("get", name, move |shard| shard.get(ids, vectors))
    }

    fn count(&self, name: CollectionName, filter: Filter) -> Answer<'_, u64> {
        self.read("count", name, move |shard| shard.count(&filter))
    }

    fn scroll(&self, name: CollectionName, page: Page) -> Answer<'_, Vec<Record>> {
        self.read("scroll", name, move |shard| shard.scroll(&page))
    }

    fn ordered(&self, name: CollectionName, page: Ordered) -> Answer<'_, Vec<(Record, f64)>> {
        self.read("ordered", name, move |shard| shard.ordered(&page))
    }

    fn search(&self, name: CollectionName, searches: Vec<Search>) -> Answer<'_, Vec<Vec<Hit>>> {
        self.read("search", name, move |shard| {
            searches.iter().map(|search| shard.search(search)).collect()
        })
    }

    fn group(&self, name: CollectionName, grouped: Grouped) -> Answer<'_, Vec<Group>> {
        self.read("group", name, move |shard| shard.group(&grouped))
    }

    fn facet(&self, name: CollectionName, facet: Facet) -> Answer<'_, Vec<(Scalar, u64)>> {
        self.read("facet", name, move |shard| shard.facet(&facet))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async {
            self.stop.cancel();
            let upkeep = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(upkeep) = upkeep
                && upkeep.await.is_err()
            {
                tracing::warn!("the store's upkeep ended in a panic");
            }
            let catalogue = Arc::clone(&self.catalogue);
            if tokio::task::spawn_blocking(move || catalogue.close()).await.is_err() {
                tracing::error!("closing the store ended in a panic");
            }
        }
        .boxed()
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Failed(error.to_string())
}

fn panicked() -> Error {
    failed("the engine panicked")
}

fn closed() -> Error {
    failed("it is closed")
}

#[cfg(test)]
mod tests;
