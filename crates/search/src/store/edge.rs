//! The engine of Qdrant in this process: a folder per collection, everything on disk.
//!
//! The engine blocks, so its work runs on blocking threads, a bounded number at a time. What it
//! does not do by itself is done by `upkeep`: bringing writes onto the disk every few seconds,
//! and building search graphs.
//!
//! A write that was answered is in the engine's log, a mapped file: it survives the death of the
//! process at any moment, and is taken in again at the next start. To survive a power failure as
//! well, a write has to wait for the disk ([`Config::sync_writes`]).

mod filter;
mod folder;
mod payload;
mod shard;
mod upkeep;

use std::collections::BTreeMap;
use std::fs::File;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use clipmesh_proto::ids::{CollectionName, ItemId};
use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::folder::Folder;
use self::shard::Shard;
use super::{Answer, Collection, Error, Hit, NewCollection, Page, Point, Search, VectorStore};
use crate::filter::Filter;
use crate::item::{self, Item};
use crate::metrics;

/// Settings of the embedded store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether a write waits for the disk before it is answered. Off, an answered write survives
    /// the death of the process, but a power failure may take those of the last
    /// `flush_interval`; on, it survives both, and costs 15 ms to 200 ms. Writes that wait
    /// together share one flush. Default: false.
    pub sync_writes: bool,
    /// How often writes are brought onto the disk. Longer loses more to a power failure and
    /// makes a start after a crash slower, by about 0.2 ms per write. Default: 2 s.
    #[serde(with = "humantime_serde")]
    pub flush_interval: Duration,
    /// How many points may be searched one by one before a graph is built for them. Lower makes
    /// searches during bulk indexing faster, and builds more often. Default: 10000.
    pub optimize_after: NonZeroUsize,
    /// Points that a filter may leave to be compared one by one. Above, the graph is walked, which
    /// loses hits where a filter passes few of its neighbours. Higher is more exact and slower:
    /// 50000 points of 512 floats take about 20 ms. Default: 50000.
    pub full_scan_points: NonZeroUsize,
    /// How many candidates a walk through the graph keeps. Higher finds more of the true
    /// neighbours: 256 found 99.7 % of ten where the default of the engine found 95 %, at twice
    /// the time. Default: 256.
    pub search_effort: NonZeroUsize,
    /// Calls into the engine that run at once, for reads and for writes each, and threads of one
    /// search. Default: the number of CPUs, at most 8.
    pub threads: NonZeroUsize,
}

/// Collections on disk.
#[derive(Debug)]
pub struct Edge {
    inner: Arc<Inner>,
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
    stop: CancellationToken,
    upkeep: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    config: Config,
    open: RwLock<BTreeMap<CollectionName, Arc<Entry>>>,
    /// Held while the catalogue changes, so that two calls never make one collection.
    changing: Mutex<()>,
    /// `None` once closed.
    lock: Mutex<Option<File>>,
}

#[derive(Debug)]
struct Entry {
    collection: Collection,
    generation: AtomicU64,
    shard: Shard,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(8);
        let positive = |number| NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN);
        Self {
            sync_writes: false,
            flush_interval: Duration::from_secs(2),
            optimize_after: positive(10_000),
            full_scan_points: positive(50_000),
            search_effort: positive(256),
            threads: positive(threads),
        }
    }
}

// === impl Edge ===

impl Edge {
    /// Opens all collections in `root`, after a crash too, and begins their upkeep.
    ///
    /// # Errors
    /// A folder that can't be used or is in use by another process, or a collection that can't be
    /// opened: whoever starts with part of the data would answer with part of the truth.
    pub async fn open(root: PathBuf, config: Config) -> Result<Self, Error> {
        let threads = config.threads.get();
        let opened = tokio::task::spawn_blocking(move || Inner::open(root, config)).await;
        let inner = Arc::new(opened.map_err(|_| panicked())??);
        let stop = CancellationToken::new();
        let upkeep = tokio::spawn(upkeep::run(Arc::clone(&inner), stop.clone()));
        Ok(Self {
            inner,
            reads: Arc::new(Semaphore::new(threads)),
            writes: Arc::new(Semaphore::new(threads)),
            stop,
            upkeep: Mutex::new(Some(upkeep)),
        })
    }

    /// Runs work on a blocking thread. The permit goes with the work, which outlives a caller that
    /// goes away.
    async fn blocking<T: Send + 'static>(
        &self,
        gate: &Arc<Semaphore>,
        operation: &'static str,
        work: impl FnOnce(&Inner) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let permit = Arc::clone(gate).acquire_owned().await.map_err(|_| closed())?;
        let inner = Arc::clone(&self.inner);
        let span = tracing::Span::current();
        let timer = metrics::StoreTimer::start(operation);
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            span.in_scope(|| work(&inner))
        });
        let result = done.await.unwrap_or_else(|_| Err(panicked()));
        timer.stop(result.is_ok());
        result
    }

    fn read<T: Send + 'static>(
        &self,
        operation: &'static str,
        name: CollectionName,
        work: impl FnOnce(&Shard) -> Result<T, Error> + Send + 'static,
    ) -> Answer<'_, T> {
        self.blocking(&self.reads, operation, move |inner| work(&inner.entry(&name)?.shard)).boxed()
    }

    fn write(
        &self,
        operation: &'static str,
        name: CollectionName,
        work: impl FnOnce(&Shard) -> Result<(), Error> + Send + 'static,
    ) -> Answer<'_, ()> {
        let work = move |inner: &Inner| {
            let entry = inner.entry(&name)?;
            let done = work(&entry.shard);
            // Even if it failed: part of it may be there.
            entry.generation.fetch_add(1, Ordering::AcqRel);
            done?;
            if inner.config.sync_writes { entry.shard.sync() } else { Ok(()) }
        };
        self.blocking(&self.writes, operation, work).boxed()
    }
}

impl VectorStore for Edge {
    fn create(&self, new: NewCollection) -> Answer<'_, Collection> {
        self.blocking(&self.writes, "create", move |inner| inner.create(new)).boxed()
    }

    fn remove(&self, name: CollectionName) -> Answer<'_, Collection> {
        self.blocking(&self.writes, "remove", move |inner| inner.remove(&name)).boxed()
    }

    fn collection(&self, name: &CollectionName) -> Result<Collection, Error> {
        self.inner.entry(name).map(|entry| entry.describe())
    }

    fn collections(&self) -> Vec<Collection> {
        self.inner.entries().iter().map(|entry| entry.describe()).collect()
    }

    fn upsert(&self, name: CollectionName, points: Vec<Point>) -> Answer<'_, ()> {
        self.write("upsert", name, move |shard| shard.upsert(points))
    }

    fn delete(&self, name: CollectionName, ids: Vec<ItemId>) -> Answer<'_, ()> {
        self.write("delete", name, move |shard| shard.delete(&ids))
    }

    fn sync(&self, name: CollectionName) -> Answer<'_, ()> {
        if !self.inner.config.sync_writes {
            // The engine's log has it, and no more is promised.
            return ready(self.inner.entry(&name).map(drop)).boxed();
        }
        let work = move |inner: &Inner| inner.entry(&name)?.shard.sync();
        self.blocking(&self.writes, "sync", work).boxed()
    }

    fn get(&self, name: CollectionName, id: ItemId) -> Answer<'_, Option<Point>> {
        self.read("get", name, move |shard| shard.get(&id))
    }

    fn count(&self, name: CollectionName, filter: Filter) -> Answer<'_, u64> {
        self.read("count", name, move |shard| shard.count(&filter))
    }

    fn scroll(&self, name: CollectionName, page: Page) -> Answer<'_, Vec<Item>> {
        self.read("scroll", name, move |shard| shard.scroll(&page))
    }

    fn search(&self, name: CollectionName, search: Search) -> Answer<'_, Vec<Hit>> {
        self.read("search", name, move |shard| shard.search(&search))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async {
            self.stop.cancel();
            let upkeep = self.upkeep.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(upkeep) = upkeep
                && upkeep.await.is_err()
            {
                tracing::warn!("the store's upkeep ended in a panic");
            }
            let inner = Arc::clone(&self.inner);
            if tokio::task::spawn_blocking(move || inner.close()).await.is_err() {
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

// === impl Inner ===

impl Inner {
    fn open(root: PathBuf, config: Config) -> Result<Self, Error> {
        let lock = folder::lock(&root).map_err(failed)?;
        let mut open = BTreeMap::new();
        for record in folder::scan(&root).map_err(failed)? {
            let record = record.opened();
            let collection = record.collection()?;
            let folder = Folder::new(&root, &collection);
            folder.write_record(&record).map_err(failed)?;
            let shard = Shard::open(folder, &collection, &config)
                .map_err(|error| failed(format!("open `{}`: {error}", collection.name)))?;
            open.insert(collection.name.clone(), Arc::new(Entry::new(collection, shard)));
        }
        let (root_path, collections) = (root.display(), open.len());
        tracing::info!(%root_path, collections, "the vector store is open");
        Ok(Self {
            root,
            config,
            open: RwLock::new(open),
            changing: Mutex::default(),
            lock: Mutex::new(Some(lock)),
        })
    }

    fn entry(&self, name: &CollectionName) -> Result<Arc<Entry>, Error> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        match open.get(name) {
            Some(entry) => Ok(Arc::clone(entry)),
            None if self.is_open() => Err(Error::NoCollection(name.clone())),
            None => Err(closed()),
        }
    }

    fn is_open(&self) -> bool {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn entries(&self) -> Vec<Arc<Entry>> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.values().cloned().collect()
    }

    fn create(&self, new: NewCollection) -> Result<Collection, Error> {
        let _changing = self.change()?;
        if self.entry(&new.name).is_ok() {
            return Err(Error::CollectionExists(new.name));
        }
        let collection = Collection {
            name: new.name.clone(),
            uid: Uuid::new_v4().simple().to_string(),
            fingerprint: new.fingerprint,
            model_name: new.model_name,
            dimension: new.dimension,
            distance: new.distance,
            create_time: item::now(),
            generation: 0,
        };
        let folder = Folder::new(&self.root, &collection);
        let shard = Shard::create(folder, &collection, &self.config)?;
        // From here on it is a collection, whatever happens.
        let entry = Entry::new(collection.clone(), shard);
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        open.insert(new.name, Arc::new(entry));
        Ok(collection)
    }

    fn remove(&self, name: &CollectionName) -> Result<Collection, Error> {
        let _changing = self.change()?;
        let entry = self.entry(name)?;
        entry.shard.folder().remove_record().map_err(failed)?;
        // From here on it is none; the rest of the folder goes with its last reader, or at the
        // next start.
        self.open.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        entry.shard.folder().doom();
        Ok(entry.describe())
    }

    /// The right to change the catalogue.
    fn change(&self) -> Result<MutexGuard<'_, ()>, Error> {
        let guard = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_open() { Ok(guard) } else { Err(closed()) }
    }

    fn close(&self) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        // First, so that whoever still calls learns that it is closed, and not that there is no
        // such collection. The file itself is let go of last.
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
        let open = std::mem::take(&mut *self.open.write().unwrap_or_else(PoisonError::into_inner));
        for (name, entry) in open {
            if let Err(error) = entry.shard.flush() {
                // Not lost: the log is read again at the next start.
                tracing::error!(collection = %name, %error, "bring a collection onto the disk");
            }
        }
        // The next process may have the folder.
        drop(lock);
    }
}

// === impl Entry ===

impl Entry {
    fn new(collection: Collection, shard: Shard) -> Self {
        let generation = AtomicU64::new(collection.generation);
        Self { collection, generation, shard }
    }

    fn describe(&self) -> Collection {
        let generation = self.generation.load(Ordering::Acquire);
        Collection { generation, ..self.collection.clone() }
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
