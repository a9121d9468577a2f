//! The collections of one root, and their aliases.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use clipmesh_proto::ids::CollectionName;
use uuid::Uuid;

use super::aliases::{self, Aliases};
use super::folder::{self, Folder};
use super::shard::Shard;
use super::{Config, closed, failed};
use crate::item;
use crate::store::{Collection, Error, NewCollection};

/// What is in a root.
#[derive(Debug)]
pub(super) struct Catalogue {
    root: PathBuf,
    config: Config,
    open: RwLock<Open>,
    /// Held while names come and go, so that two calls never make one collection.
    changing: Mutex<()>,
    /// `None` once closed.
    lock: Mutex<Option<File>>,
}

/// What can be called by a name.
#[derive(Debug, Default)]
struct Open {
    shards: BTreeMap<CollectionName, Arc<Shard>>,
    aliases: Aliases,
}

// === impl Catalogue ===

impl Catalogue {
    /// Opens everything there is.
    pub(super) fn open(root: PathBuf, config: Config) -> Result<Self, Error> {
        let lock = folder::lock(&root).map_err(failed)?;
        let mut open = Open { aliases: aliases::read(&root)?, ..Open::default() };
        for record in folder::scan(&root).map_err(failed)? {
            let collection = record.collection()?;
            let folder = Folder::new(&root, &collection);
            let shard = Shard::open(folder, record, &config)
                .map_err(|error| failed(format!("open `{}`: {error}", collection.name)))?;
            open.shards.insert(collection.name, Arc::new(shard));
        }
        open.forget_lost_aliases();
        let (root_path, collections) = (root.display(), open.shards.len());
        tracing::info!(%root_path, collections, "the vector store is open");
        Ok(Self {
            root,
            config,
            open: RwLock::new(open),
            changing: Mutex::default(),
            lock: Mutex::new(Some(lock)),
        })
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// The collection of this name, and of no alias.
    pub(super) fn shard(&self, name: &CollectionName) -> Result<Arc<Shard>, Error> {
        match self.read().shards.get(name) {
            Some(shard) => Ok(Arc::clone(shard)),
            None if self.is_open() => Err(Error::NoCollection(name.clone())),
            None => Err(closed()),
        }
    }

    /// The collection of this name or alias.
    pub(super) fn resolve(&self, name: &CollectionName) -> Result<Collection, Error> {
        let target = self.read().target(name).unwrap_or_else(|| name.clone());
        let no_collection = |_| Error::NoCollection(name.clone());
        let shard = self.shard(&target);
        if self.is_open() { Ok(shard.map_err(no_collection)?.describe()) } else { Err(closed()) }
    }

    /// All collections, in order of name.
    pub(super) fn collections(&self) -> Result<Vec<Collection>, Error> {
        if !self.is_open() {
            return Err(closed());
        }
        Ok(self.shards().iter().map(|shard| shard.describe()).collect())
    }

    pub(super) fn shards(&self) -> Vec<Arc<Shard>> {
        self.read().shards.values().cloned().collect()
    }

    pub(super) fn create(&self, new: NewCollection) -> Result<Collection, Error> {
        let _changing = self.change()?;
        if self.read().has(&new.name) {
            return Err(Error::CollectionExists(new.name));
        }
        let collection = Collection {
            name: new.name.clone(),
            uid: Uuid::new_v4().simple().to_string(),
            fingerprint: new.fingerprint,
            model_name: new.model_name,
            dimension: new.dimension,
            distance: new.distance,
            indexes: new.indexes,
            vector_index: new.vector_index,
            word_fields: new.word_fields,
            create_time: item::now(),
            generation: Some(0),
        };
        let folder = Folder::new(&self.root, &collection);
        let shard = Shard::create(folder, collection.clone(), &self.config)?;
        // From here on it is a collection, whatever happens.
        self.write().shards.insert(new.name, Arc::new(shard));
        Ok(collection)
    }

    pub(super) fn remove(&self, name: &CollectionName) -> Result<Collection, Error> {
        let _changing = self.change()?;
        let shard = self.shard(name)?;
        shard.remove()?;
        // From here on it is none; the rest of the folder goes with its last reader, or at the
        // next start.
        let aliases = {
            let mut open = self.write();
            open.shards.remove(name);
            open.forget_lost_aliases().then(|| open.aliases.clone())
        };
        if let Some(aliases) = aliases
            && let Err(error) = aliases::write(&self.root, &aliases)
        {
            // Not an error: they lead nowhere, and the next start forgets them again.
            tracing::warn!(%error, "bring the aliases onto the disk");
        }
        Ok(shard.describe())
    }

    pub(super) fn set_alias(
        &self,
        alias: CollectionName,
        name: &CollectionName,
    ) -> Result<Option<CollectionName>, Error> {
        let _changing = self.change()?;
        if self.read().shards.contains_key(&alias) {
            return Err(Error::CollectionExists(alias));
        }
        let uid = self.shard(name)?.describe().uid;
        let before = self.read().target(&alias);
        let mut aliases = self.read().aliases.clone();
        aliases.insert(alias, uid);
        self.set_aliases(aliases)?;
        Ok(before)
    }

    pub(super) fn remove_alias(&self, alias: CollectionName) -> Result<(), Error> {
        let _changing = self.change()?;
        let mut aliases = self.read().aliases.clone();
        if aliases.remove(&alias).is_none() {
            return Err(Error::NoAlias(alias));
        }
        self.set_aliases(aliases)
    }

    pub(super) fn aliases(&self) -> Result<BTreeMap<CollectionName, CollectionName>, Error> {
        if !self.is_open() {
            return Err(closed());
        }
        let open = self.read();
        let named =
            open.aliases.keys().filter_map(|alias| Some((alias.clone(), open.target(alias)?)));
        Ok(named.collect())
    }

    /// Brings everything onto the disk and lets go of it.
    pub(super) fn close(&self) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        // First, so that whoever still calls learns that it is closed, and not that there is no
        // such collection. The file itself is let go of last.
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
        let open = std::mem::take(&mut *self.write());
        for (name, shard) in open.shards {
            if let Err(error) = shard.flush() {
                // Not lost: the log is read again at the next start.
                tracing::error!(collection = %name, %error, "bring a collection onto the disk");
            }
        }
        // The next process may have the folder.
        drop(lock);
    }

    pub(super) fn is_open(&self) -> bool {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// On the disk first: who was told of an alias finds it again.
    fn set_aliases(&self, aliases: Aliases) -> Result<(), Error> {
        aliases::write(&self.root, &aliases).map_err(failed)?;
        self.write().aliases = aliases;
        Ok(())
    }

    /// The right to change which names there are.
    fn change(&self) -> Result<MutexGuard<'_, ()>, Error> {
        let guard = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_open() { Ok(guard) } else { Err(closed()) }
    }

    fn read(&self) -> RwLockReadGuard<'_, Open> {
        self.open.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Open> {
        self.open.write().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Open ===

impl Open {
    fn has(&self, name: &CollectionName) -> bool {
        self.shards.contains_key(name) || self.aliases.contains_key(name)
    }

    /// The collection that an alias stands for.
    fn target(&self, alias: &CollectionName) -> Option<CollectionName> {
        let uid = self.aliases.get(alias)?;
        let shards = self.shards.iter();
        shards.filter(|(_, shard)| shard.uid() == *uid).map(|(name, _)| name.clone()).next()
    }

    /// Drops aliases of collections that are gone, and tells whether there were any.
    fn forget_lost_aliases(&mut self) -> bool {
        let uids: Vec<_> = self.shards.values().map(|shard| shard.uid()).collect();
        let before = self.aliases.len();
        self.aliases.retain(|_, uid| uids.contains(uid));
        self.aliases.len() < before
    }
}
