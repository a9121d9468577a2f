//! Collections: making them for the model that runs, describing and changing them, giving them
//! other names, removing them with all that is in them.

use std::collections::BTreeMap;
use std::sync::Arc;

use clipmesh_proto::ids::CollectionName;
use futures::{StreamExt as _, stream};

use crate::blobs::Blobs;
use crate::cache::{self, Caches};
use crate::changes::Changes;
use crate::embedder::Embedder;
use crate::error::Error;
use crate::filter::{Field, Filter};
use crate::store::index::{FieldIndex, Indexes, VectorIndex};
use crate::store::{
    self, Collection, Distance, NewCollection, Status, VectorIndexChange, VectorStore,
};

/// Bytes of one value of a vector.
const VALUE_BYTES: u64 = 4;
/// Collections of a page whose items are counted at once.
const PARALLEL_COUNTS: usize = 8;

/// All collections.
#[derive(Debug)]
pub(crate) struct Collections {
    pub(crate) store: Arc<dyn VectorStore>,
    pub(crate) blobs: Blobs,
    pub(crate) embedder: Arc<Embedder>,
    pub(crate) caches: Caches,
    pub(crate) changes: Changes,
}

/// A collection to be made for the model that runs.
#[derive(Clone, Debug)]
pub(crate) struct New {
    pub(crate) name: CollectionName,
    pub(crate) distance: Distance,
    pub(crate) indexes: Indexes,
    pub(crate) vector_index: VectorIndex,
    pub(crate) word_fields: Vec<Field>,
}

/// A collection with what has to be asked for.
#[derive(Clone, Debug)]
pub(crate) struct Described {
    pub(crate) collection: Collection,
    pub(crate) item_count: u64,
    /// Its other names, in order.
    pub(crate) aliases: Vec<CollectionName>,
}

/// A page of collections.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) collections: Vec<Described>,
    /// What the next page comes after, if there is one.
    pub(crate) next: Option<CollectionName>,
}

/// How large a collection is, and how well it does.
#[derive(Clone, Debug)]
pub(crate) struct Stats {
    pub(crate) item_count: u64,
    pub(crate) status: Status,
    /// Of all values of all vectors.
    pub(crate) vector_bytes: u64,
    /// 0 while nothing counts it.
    pub(crate) generation: u64,
    pub(crate) caches: cache::Stats,
}

// === impl Collections ===

impl Collections {
    /// Makes an empty collection for the model that the embedder runs now.
    pub(crate) async fn create(&self, new: New) -> Result<Described, Error> {
        let New { name, distance, indexes, vector_index, word_fields } = new;
        // Known without an embedder.
        if self.store.resolve(name.clone()).await.is_ok() {
            return Err(Error::CollectionExists(name));
        }
        let model = self.embedder.model().await?;
        let new = NewCollection {
            name,
            fingerprint: model.fingerprint,
            model_name: model.name,
            dimension: model.dimension,
            distance,
            indexes,
            vector_index,
            word_fields,
        };
        let collection = self.store.create(new).await?;
        let Collection { name, model_name, .. } = &collection;
        tracing::info!(collection = %name, model_name, "made a collection");
        Ok(Described { collection, item_count: 0, aliases: Vec::new() })
    }

    /// Describes the collection of a name or an alias.
    pub(crate) async fn get(&self, name: CollectionName) -> Result<Described, Error> {
        let collection = self.store.resolve(name).await?;
        let aliases = self.store.aliases().await?;
        self.describe(collection, &aliases).await
    }

    /// Lists collections in order of name, after one.
    pub(crate) async fn list(&self, after: Option<String>, limit: usize) -> Result<Listed, Error> {
        let (page, next) = cut(self.store.collections().await?, after.as_deref(), limit);
        let aliases = self.store.aliases().await?;
        let described = stream::iter(page).map(|collection| self.describe(collection, &aliases));
        let mut described = described.buffered(PARALLEL_COUNTS);
        let mut collections = Vec::new();
        while let Some(described) = described.next().await {
            match described {
                Ok(described) => collections.push(described),
                // Removed since the list was made.
                Err(Error::NoCollection(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Listed { collections, next })
    }

    /// Changes how a collection of this very name is searched.
    pub(crate) async fn update(
        &self,
        name: CollectionName,
        change: VectorIndexChange,
    ) -> Result<Described, Error> {
        let collection = self.store.resolve(name.clone()).await?;
        if collection.name != name {
            // An alias may point elsewhere a moment later.
            return Err(Error::NoCollection(name));
        }
        let before = collection.vector_index;
        let collection = self.store.set_vector_index(name, change).await?;
        let index = collection.vector_index;
        if index != before {
            let name = &collection.name;
            tracing::info!(collection = %name, ?index, "changed how a collection is searched");
        }
        let aliases = self.store.aliases().await?;
        self.describe(collection, &aliases).await
    }

    /// Removes a collection with its items and files: all of it, even if the caller goes away, for
    /// once the collection is gone nobody knows any more which files were its own.
    pub(crate) async fn delete(&self, name: CollectionName) -> Result<(), Error> {
        let (store, caches) = (Arc::clone(&self.store), self.caches.clone());
        let blobs = self.blobs.clone();
        let deletion = async move {
            let collection = store.remove(name).await?;
            tracing::info!(collection = %collection.name, "removed a collection");
            caches.forget(&collection.uid);
            // It is gone; what is left of its files takes room and does no harm.
            if let Err(error) = blobs.delete_collection(&collection.uid).await {
                tracing::warn!(uid = collection.uid, %error, "files are left behind");
            }
            Ok(())
        };
        self.changes.finish(deletion).await
    }

    /// Makes an index if there is none, and returns once it is there. The store goes on with it if the caller goes
    /// away.
    pub(crate) async fn create_index(
        &self,
        name: CollectionName,
        index: FieldIndex,
    ) -> Result<(), Error> {
        let collection = self.store.resolve(name).await?.name;
        let (field, kind) = (index.field.key(), index.kind);
        // Also if it seems to be there: the store knows better.
        self.store.create_index(collection.clone(), index).await?;
        tracing::info!(%collection, field, ?kind, "an index is there");
        Ok(())
    }

    /// Removes the index on a field.
    pub(crate) async fn delete_index(
        &self,
        name: CollectionName,
        field: Field,
    ) -> Result<(), Error> {
        let collection = self.store.resolve(name).await?.name;
        let key = field.key();
        match self.store.remove_index(collection.clone(), field).await {
            Ok(_) => {
                tracing::info!(%collection, field = key, "removed an index");
                Ok(())
            }
            Err(store::Error::NotIndexed(_)) => Err(Error::NoFieldIndex(key)),
            Err(error) => Err(error.into()),
        }
    }

    /// Points an alias to a collection, and tells where it pointed before.
    pub(crate) async fn set_alias(
        &self,
        alias: CollectionName,
        name: CollectionName,
    ) -> Result<Option<CollectionName>, Error> {
        let previous = self.store.set_alias(alias.clone(), name.clone()).await?;
        tracing::info!(%alias, collection = %name, ?previous, "pointed an alias");
        Ok(previous)
    }

    pub(crate) async fn delete_alias(&self, alias: CollectionName) -> Result<(), Error> {
        self.store.remove_alias(alias.clone()).await?;
        tracing::info!(%alias, "removed an alias");
        Ok(())
    }

    /// All aliases in order, and what they stand for.
    pub(crate) async fn aliases(&self) -> Result<BTreeMap<CollectionName, CollectionName>, Error> {
        Ok(self.store.aliases().await?)
    }

    pub(crate) async fn stats(&self, name: CollectionName) -> Result<Stats, Error> {
        let collection = self.store.resolve(name).await?;
        let item_count = self.store.count(collection.name.clone(), Filter::default()).await?;
        let status = self.store.status(collection.name.clone()).await?;
        Ok(Stats {
            item_count,
            status,
            vector_bytes: item_count * collection.dimension as u64 * VALUE_BYTES,
            generation: self.caches.generation(&collection).await,
            caches: self.caches.stats(&collection.uid),
        })
    }

    /// Forgets every answer that was found in a collection.
    pub(crate) async fn clear_cache(&self, name: CollectionName) -> Result<(), Error> {
        let collection = self.store.resolve(name).await?;
        self.caches.clear(&collection).await;
        tracing::info!(collection = %collection.name, "cleared the cache of a collection");
        Ok(())
    }

    async fn describe(
        &self,
        collection: Collection,
        aliases: &BTreeMap<CollectionName, CollectionName>,
    ) -> Result<Described, Error> {
        let item_count = self.store.count(collection.name.clone(), Filter::default()).await?;
        let own = aliases.iter().filter(|(_, target)| **target == collection.name);
        let aliases = own.map(|(alias, _)| alias.clone()).collect();
        Ok(Described { collection, item_count, aliases })
    }
}

/// The page after a name, and what the next page comes after, if there is one: the last that is to
/// be looked at, which may be gone by then.
fn cut(
    all: Vec<Collection>,
    after: Option<&str>,
    limit: usize,
) -> (Vec<Collection>, Option<CollectionName>) {
    let is_next =
        |collection: &Collection| after.is_none_or(|after| collection.name.as_str() > after);
    let mut rest = all.into_iter().filter(is_next);
    let page: Vec<_> = rest.by_ref().take(limit).collect();
    let last = page.last().map(|collection| collection.name.clone());
    let next = last.filter(|_| rest.next().is_some());
    (page, next)
}

#[cfg(test)]
mod tests;
