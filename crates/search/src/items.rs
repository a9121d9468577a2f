//! Items: putting pictures in, reading them, changing them, taking them out.
//!
//! ```text
//! intake   a picture or a vector ─► stored
//! change   other words about a stored item
//! delete   one, several, all that pass a filter
//!    └───────┴────────┴──► write: to its end, one change at a time to one item (locks)
//!
//! listing ─► sort          pages, by any field
//! sample                   some of them, at random
//! ```
//!
//! Changes to one item wait for each other in this process. Where several processes share a store,
//! what holds between them is the etag: a change that rests on what was read is only made to an
//! item that is still as it was, and a new item only where there still is none. A deletion without
//! an etag takes what is there by then.

mod change;
mod delete;
mod intake;
mod listing;
mod locks;
mod sample;
mod sort;
pub(crate) mod stream;
mod write;

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use bytesize::ByteSize;
use clipmesh_proto::Embedding;
use clipmesh_proto::ids::{CollectionName, ContentHash, Fingerprint, ItemId};

pub(crate) use self::change::{Change, MetadataChange};
pub(crate) use self::delete::Which;
pub(crate) use self::intake::Incoming;
pub(crate) use self::listing::{Listed, Listing};
use self::locks::Locks;
pub(crate) use self::sample::POOL as MAX_SAMPLE;
pub(crate) use self::sort::Order;
use self::write::Writer;
use crate::blobs::{Blobs, File, Name};
use crate::cache::Caches;
use crate::changes::Changes;
use crate::error::Error;
use crate::filter::{Field, Filter, Test};
use crate::item::{Etag, Item, Metadata, Scalar};
use crate::store::{Collection, Facet, Record, VectorStore};
use crate::thumbnail::Thumbnailer;
use crate::vectors::Vectors;

/// How often a change begins anew because another process was faster.
const ATTEMPTS: usize = 8;
/// Items that are looked up at once, each of which may have 32 KiB of metadata.
const LOOKUP: usize = 100;

/// An item to be stored, checked but for the bytes of its picture.
#[derive(Clone, Debug)]
pub(crate) struct NewItem {
    /// `None`: the content hash; a vector has one.
    pub(crate) id: Option<ItemId>,
    pub(crate) content: Content,
    pub(crate) uri: String,
    pub(crate) filename: String,
    pub(crate) metadata: Metadata,
    /// What the item that this replaces must have.
    pub(crate) etag: Option<Etag>,
}

/// What an item is found by.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// The bytes of an image file.
    Image(Bytes),
    Vector {
        values: Embedding,
        /// The model that made it, if the caller says so.
        fingerprint: Option<Fingerprint>,
    },
}

/// What storing an item did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Created,
    Replaced,
    Unchanged,
}

/// The items of all collections.
#[derive(Debug)]
pub(crate) struct Items {
    store: Arc<dyn VectorStore>,
    vectors: Arc<Vectors>,
    blobs: Blobs,
    thumbnailer: Thumbnailer,
    max_image_bytes: ByteSize,
    locks: Locks,
    writer: Writer,
}

/// What items are made with.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) store: Arc<dyn VectorStore>,
    pub(crate) vectors: Arc<Vectors>,
    pub(crate) caches: Caches,
    /// Where changes are made to their end.
    pub(crate) changes: Changes,
    pub(crate) blobs: Blobs,
    pub(crate) thumbnailer: Thumbnailer,
    pub(crate) max_image_bytes: ByteSize,
}

// === impl Items ===

impl Items {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { store, vectors, caches, changes, blobs, thumbnailer, max_image_bytes } = parts;
        let writer = Writer::new(Arc::clone(&store), blobs.clone(), caches, changes);
        let locks = Locks::new();
        Self { store, vectors, blobs, thumbnailer, max_image_bytes, locks, writer }
    }

    /// Finds the collection of a name or an alias.
    pub(crate) async fn resolve(&self, name: CollectionName) -> Result<Collection, Error> {
        Ok(self.store.resolve(name).await?)
    }

    /// Fetches an item, with its vector if that is asked for.
    pub(crate) async fn get(
        &self,
        name: CollectionName,
        id: ItemId,
        vector: bool,
    ) -> Result<Record, Error> {
        let collection = self.resolve(name).await?.name;
        let found = self.store.get(collection.clone(), vec![id.clone()], vector).await?.pop();
        found.ok_or(Error::NoItem { collection, id })
    }

    /// Which of some ids items have.
    pub(crate) async fn known_ids(
        &self,
        collection: &Collection,
        ids: &[ItemId],
    ) -> Result<HashSet<ItemId>, Error> {
        let mut known = HashSet::new();
        for ids in ids.chunks(LOOKUP) {
            let found = self.store.get(collection.name.clone(), ids.to_vec(), false).await?;
            known.extend(found.into_iter().map(|record| record.item.id));
        }
        Ok(known)
    }

    /// Which of some content hashes items have.
    pub(crate) async fn known_hashes(
        &self,
        collection: &Collection,
        hashes: &[ContentHash],
    ) -> Result<HashSet<String>, Error> {
        let mut known = HashSet::new();
        for hashes in hashes.chunks(LOOKUP) {
            // Counted by hash, since any number of items may have one.
            let wanted = hashes.iter().map(|hash| Scalar::String(hash.to_string())).collect();
            let field = Field::ContentHash;
            let filter = Filter::default().and(field.clone(), Test::AnyOf(wanted));
            let facet = Facet { field, filter, limit: hashes.len() };
            let counted = self.store.facet(collection.name.clone(), facet).await?;
            known.extend(counted.iter().filter_map(|(hash, _)| hash.as_str()).map(str::to_owned));
        }
        Ok(known)
    }

    /// Counts items exactly.
    pub(crate) async fn count(
        &self,
        collection: &Collection,
        filter: Filter,
    ) -> Result<u64, Error> {
        Ok(self.store.count(collection.name.clone(), filter).await?)
    }

    /// Fetches the small picture of an item: a JPEG.
    pub(crate) async fn thumbnail(
        &self,
        collection: CollectionName,
        id: ItemId,
    ) -> Result<Bytes, Error> {
        let (_, found) = self.file(&collection, &id, File::Thumbnail).await?;
        found.ok_or(Error::NoThumbnail { collection, id })
    }

    /// Fetches the file that an item was made of, and its format, if it was kept.
    pub(crate) async fn original(
        &self,
        collection: CollectionName,
        id: ItemId,
    ) -> Result<(Bytes, String), Error> {
        let (format, found) = self.file(&collection, &id, File::Original).await?;
        let bytes = found.ok_or(Error::NoOriginal { collection, id })?;
        Ok((bytes, format))
    }

    /// Fetches a file of an item, and the format of its picture.
    async fn file(
        &self,
        name: &CollectionName,
        id: &ItemId,
        file: File,
    ) -> Result<(String, Option<Bytes>), Error> {
        let collection = self.resolve(name.clone()).await?;
        let found = self.store.get(collection.name, vec![id.clone()], false).await?.pop();
        let missing = || Error::NoItem { collection: name.clone(), id: id.clone() };
        let item = found.ok_or_else(missing)?.item;
        let Some(content_hash) = &item.content_hash else {
            return Ok((item.format, None));
        };
        let name = Name { uid: &collection.uid, id: &item.id, content_hash };
        let bytes = self.blobs.get(&name, file).await?;
        Ok((item.format, bytes))
    }
}

/// Refuses to touch an item that is not as its caller knew it.
fn check_etag(
    collection: &CollectionName,
    existing: &Item,
    expected: Option<&Etag>,
) -> Result<(), Error> {
    match expected {
        Some(expected) if existing.etag() != *expected => {
            Err(changed_since(collection, &existing.id))
        }
        Some(_) | None => Ok(()),
    }
}

fn changed_since(collection: &CollectionName, id: &ItemId) -> Error {
    Error::EtagMismatch { collection: collection.clone(), id: id.clone() }
}

#[cfg(test)]
mod tests;
