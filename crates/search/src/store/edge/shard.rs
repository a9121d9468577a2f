//! One collection in the engine. Everything here blocks.

mod find;
mod optimize;
mod plan;
mod points;
mod read;
mod schema;
#[cfg(test)]
mod testing;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use self::optimize::Progress;
use self::points::Durability;
use super::engine::{self, Engine};
use super::folder::Folder;
use super::record::Record;
use super::{Config, failed};
use crate::store::{Collection, Error};

/// The points of one collection.
#[derive(Debug)]
pub(super) struct Shard {
    /// Declared first, so that it is closed before its folder may go.
    engine: Engine,
    folder: Folder,
    config: Config,
    collection: RwLock<Arc<Collection>>,
    /// What is on the disk. Held by whoever changes what the collection is.
    record: Mutex<Record>,
    /// Held by whoever changes points.
    writing: Mutex<()>,
    generation: AtomicU64,
    durability: Durability,
    progress: Progress,
}

// === impl Shard ===

impl Shard {
    /// Makes an empty one with its record, and brings both onto the disk; or leaves nothing there.
    pub(super) fn create(
        folder: Folder,
        collection: Collection,
        config: &Config,
    ) -> Result<Self, Error> {
        // Whatever fails on the way takes the folder along: a record that was written but not
        // brought onto the disk would be a collection at the next start.
        folder.doom();
        folder.create().map_err(failed)?;
        let engine = Engine::create(folder.shard(), engine::config(&collection, config))?;
        let record = Record::new(&collection);
        let shard = Self::new(engine, folder, collection, record.clone(), config);
        shard.make_indexes()?;
        shard.flush()?;
        shard.folder.write_record(&record).map_err(failed)?;
        shard.folder.spare();
        Ok(shard)
    }

    /// Opens one, takes in again what a crash left in its log, and ends what it interrupted.
    pub(super) fn open(folder: Folder, record: Record, config: &Config) -> Result<Self, Error> {
        let record = record.opened();
        let collection = record.collection()?;
        folder.write_record(&record).map_err(failed)?;
        let engine = Engine::open(folder.shard(), engine::config(&collection, config))?;
        let shard = Self::new(engine, folder, collection, record.clone(), config);
        shard.make_indexes()?;
        if record.is_outdated() {
            shard.write_anew()?;
            let record = record.updated();
            shard.folder.write_record(&record).map_err(failed)?;
            *shard.change()? = record;
        }
        Ok(shard)
    }

    fn new(
        engine: Engine,
        folder: Folder,
        collection: Collection,
        record: Record,
        config: &Config,
    ) -> Self {
        Self {
            engine,
            folder,
            config: config.clone(),
            generation: AtomicU64::new(collection.generation.unwrap_or_default()),
            collection: RwLock::new(Arc::new(collection)),
            record: Mutex::new(record),
            writing: Mutex::new(()),
            durability: Durability::default(),
            progress: Progress::at_opening(),
        }
    }

    /// The collection as it is.
    pub(super) fn describe(&self) -> Collection {
        let generation = Some(self.generation.load(Ordering::Acquire));
        Collection { generation, ..(*self.collection()).clone() }
    }

    /// What tells it from others that had or will have its name.
    pub(super) fn uid(&self) -> String {
        self.collection().uid.clone()
    }

    /// The collection, but for its generation.
    fn collection(&self) -> Arc<Collection> {
        Arc::clone(&self.collection.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The right to change what the collection is.
    ///
    /// # Errors
    /// [`Error::NoCollection`] when it was removed meanwhile: whoever wrote its record now would
    /// bring it back.
    pub(super) fn change(&self) -> Result<MutexGuard<'_, Record>, Error> {
        let record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        if self.folder.is_doomed() {
            return Err(Error::NoCollection(self.collection().name.clone()));
        }
        Ok(record)
    }

    /// Makes it no collection any more, durably. The rest of its folder goes with its last user.
    pub(super) fn remove(&self) -> Result<(), Error> {
        let _record = self.change()?;
        self.folder.remove_record().map_err(failed)?;
        self.folder.doom();
        Ok(())
    }
}
