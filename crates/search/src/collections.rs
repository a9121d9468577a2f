//! Collections: making them for the model that runs, listing them, removing them with all that is
//! in them.

use std::sync::Arc;

use clipmesh_proto::ids::CollectionName;

use crate::blobs::Blobs;
use crate::embedder::Embedder;
use crate::error::Error;
use crate::filter::Filter;
use crate::store::index::{Indexes, VectorIndex};
use crate::store::{self, Collection, Distance, NewCollection, VectorStore};

/// All collections.
#[derive(Debug)]
pub(crate) struct Collections {
    pub(crate) store: Arc<dyn VectorStore>,
    pub(crate) blobs: Blobs,
    pub(crate) embedder: Arc<Embedder>,
}

/// A page of collections with the numbers of their items, and whether there are more.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) collections: Vec<(Collection, u64)>,
    pub(crate) has_more: bool,
}

impl Collections {
    /// Makes an empty collection for the model that the embedder runs now.
    pub(crate) async fn create(
        &self,
        name: CollectionName,
        distance: Distance,
    ) -> Result<Collection, Error> {
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
            indexes: Indexes::default(),
            vector_index: VectorIndex::default(),
            word_fields: Vec::new(),
        };
        let collection = self.store.create(new).await?;
        let Collection { name, model_name, .. } = &collection;
        tracing::info!(collection = %name, model_name, "made a collection");
        Ok(collection)
    }

    /// Describes a collection and counts its items.
    pub(crate) async fn get(&self, name: CollectionName) -> Result<(Collection, u64), Error> {
        let collection = self.store.resolve(name).await?;
        let count = self.store.count(collection.name.clone(), Filter::default()).await?;
        Ok((collection, count))
    }

    /// Lists collections in order of name, after one.
    pub(crate) async fn list(&self, after: Option<String>, limit: usize) -> Result<Listed, Error> {
        let all = self.store.collections().await?.into_iter();
        let is_next = |collection: &Collection| {
            after.as_ref().is_none_or(|after| collection.name.as_str() > after.as_str())
        };
        let mut rest = all.filter(is_next);
        let mut collections = Vec::new();
        for collection in rest.by_ref().take(limit) {
            match self.store.count(collection.name.clone(), Filter::default()).await {
                Ok(count) => collections.push((collection, count)),
                // Removed since the list was made.
                Err(store::Error::NoCollection(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let has_more = rest.next().is_some();
        Ok(Listed { collections, has_more })
    }

    /// Removes a collection with its items and thumbnails.
    pub(crate) async fn delete(&self, name: CollectionName) -> Result<(), Error> {
        let collection = self.store.remove(name).await?;
        tracing::info!(collection = %collection.name, "removed a collection");
        // It is gone; what is left of its files is cleared away at the next start.
        if let Err(error) = self.blobs.delete_collection(&collection.uid).await {
            tracing::warn!(uid = collection.uid, %error, "thumbnails are left behind");
        }
        Ok(())
    }
}
