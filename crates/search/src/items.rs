//! Items: putting pictures in, reading them, taking them out.
//!
//! ```text
//! hash ─► stored and equal? ─ yes ─► unchanged
//!              │ no
//!              ├─ same picture ──────────────────────────────┐ keeps its vector and thumbnail
//!              └─ another ─► vector (cache or embedder) ─► thumbnail ─┴─► store ─► acknowledged
//! ```
//!
//! The store raises the collection's generation with each write, before the write is answered, so
//! no answer of the result cache outlives what it was found in.

mod locks;
pub(crate) mod stream;

use std::sync::Arc;

use bytes::Bytes;
use bytesize::ByteSize;
use clipmesh_proto::ids::{CollectionName, ContentHash, ItemId};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use self::locks::{Locks, Turn};
use crate::blobs::{Blobs, Name};
use crate::embedder::{Ask, Embedded, Lane, check_image_bytes};
use crate::error::Error;
use crate::filter::Filter;
use crate::item::{self, Item, Metadata};
use crate::metrics;
use crate::store::{self, Collection, Page, Point, VectorStore};
use crate::thumbnail::Thumbnailer;
use crate::vectors::{Vectors, content_hash};

/// A picture to be stored, checked but for its bytes.
#[derive(Clone, Debug)]
pub(crate) struct NewItem {
    /// `None`: the content hash.
    pub(crate) id: Option<ItemId>,
    pub(crate) image: Bytes,
    pub(crate) uri: String,
    pub(crate) filename: String,
    pub(crate) metadata: Metadata,
}

/// A picture to be stored, with its id settled.
#[derive(Clone, Debug)]
pub(crate) struct Hashed {
    pub(crate) id: ItemId,
    content_hash: ContentHash,
    new: NewItem,
}

/// What storing an item did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Created,
    Replaced,
    Unchanged,
}

/// A page of items, and whether there are more.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) items: Vec<Item>,
    pub(crate) has_more: bool,
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
    /// Writes under way, which their callers may have left.
    changes: TaskTracker,
}

// === impl Items ===

impl Items {
    pub(crate) fn new(
        store: Arc<dyn VectorStore>,
        vectors: Arc<Vectors>,
        blobs: Blobs,
        thumbnailer: Thumbnailer,
        max_image_bytes: ByteSize,
    ) -> Self {
        let (locks, changes) = (Locks::new(), TaskTracker::new());
        Self { store, vectors, blobs, thumbnailer, max_image_bytes, locks, changes }
    }

    /// Looks at the bytes of a picture, and settles its id.
    pub(crate) async fn hash(&self, new: NewItem) -> Result<Hashed, Error> {
        check_image_bytes(&new.image, self.max_image_bytes.as_u64())
            .map_err(|violation| violation.renamed("item.image"))?;
        let content_hash = content_hash(&new.image).await?;
        let id = new.id.clone().unwrap_or_else(|| ItemId::from(content_hash));
        Ok(Hashed { id, content_hash, new })
    }

    /// Stores a picture. It is durable once this returns.
    pub(crate) async fn index(
        &self,
        collection: &CollectionName,
        hashed: Hashed,
        lane: Lane,
    ) -> Result<(Item, Outcome), Error> {
        let turn = self.locks.lock(collection, &hashed.id).await;
        let result = self.index_in_turn(collection, hashed, lane, turn).await;
        metrics::item_indexed(match &result {
            Ok((_, Outcome::Created)) => "created",
            Ok((_, Outcome::Replaced)) => "replaced",
            Ok((_, Outcome::Unchanged)) => "unchanged",
            Err(_) => "error",
        });
        result
    }

    async fn index_in_turn(
        &self,
        name: &CollectionName,
        hashed: Hashed,
        lane: Lane,
        turn: Turn,
    ) -> Result<(Item, Outcome), Error> {
        let collection = self.store.resolve(name.clone()).await?;
        let Some(existing) = self.store.point(collection.name.clone(), hashed.id.clone()).await?
        else {
            let point = self.embed(&collection, hashed, lane).await?;
            let item = point.item.clone();
            self.commit(turn, collection, point, None).await?;
            return Ok((item, Outcome::Created));
        };
        if hashed.is_in(&existing.item) {
            // The write that put it there may have failed half way; this answer acknowledges it.
            self.store.sync(name.clone()).await?;
            return Ok((existing.item, Outcome::Unchanged));
        }
        let create_time = existing.item.create_time;
        let old_hash = existing.item.content_hash;
        let is_same_picture = old_hash == Some(hashed.content_hash);
        let mut point = if is_same_picture {
            hashed.into_point_of(existing)
        } else {
            self.embed(&collection, hashed, lane).await?
        };
        point.item.create_time = create_time;
        let item = point.item.clone();
        let old_picture = old_hash.filter(|_| !is_same_picture);
        self.commit(turn, collection, point, old_picture).await?;
        Ok((item, Outcome::Replaced))
    }

    /// Writes a point, and removes the thumbnail of the picture that it replaces.
    async fn commit(
        &self,
        turn: Turn,
        collection: Collection,
        point: Point,
        old_picture: Option<ContentHash>,
    ) -> Result<(), Error> {
        let (store, blobs) = (Arc::clone(&self.store), self.blobs.clone());
        self.finish(async move {
            let _turn = turn;
            // While the picture was embedded, the collection may have been removed and one of the
            // same name been made, for another model.
            if store.resolve(collection.name.clone()).await?.uid != collection.uid {
                return Err(store::Error::NoCollection(collection.name).into());
            }
            let id = point.item.id.clone();
            store.upsert(collection.name, vec![point]).await?;
            if let Some(old) = &old_picture {
                let name = Name { uid: &collection.uid, id: &id, content_hash: old };
                drop_thumbnail(&blobs, &name).await;
            }
            Ok(())
        })
        .await
    }

    /// Runs a change to its end even if the caller goes away: the store finishes a write that has
    /// begun, so that the item's turn must not be over before.
    async fn finish(
        &self,
        change: impl Future<Output = Result<(), Error>> + Send + 'static,
    ) -> Result<(), Error> {
        let changed = self.changes.spawn(change.in_current_span()).await;
        changed.unwrap_or_else(|_| Err(Error::Internal("a change ended in a panic".to_owned())))
    }

    /// What to wait for before the store may be closed.
    pub(crate) fn changes(&self) -> TaskTracker {
        self.changes.clone()
    }

    /// Makes a point of a picture that is not stored, and its thumbnail.
    async fn embed(
        &self,
        collection: &Collection,
        hashed: Hashed,
        lane: Lane,
    ) -> Result<Point, Error> {
        let image = hashed.new.image.clone();
        let ask = Ask { lane, thumbnail: true };
        let obtained =
            self.vectors.of_image(image.clone(), &hashed.content_hash, ask, collection).await;
        let mut embedded = obtained.map_err(|error| error.in_field("item.image"))?.embedded;
        let thumbnail = match embedded.thumbnail.take() {
            Some(thumbnail) => Ok(thumbnail),
            // The vector was known already, and nobody has decoded the picture now.
            None => self.thumbnailer.make(image).await,
        };
        match thumbnail {
            Ok(thumbnail) => {
                let name = Name {
                    uid: &collection.uid,
                    id: &hashed.id,
                    content_hash: &hashed.content_hash,
                };
                self.blobs.put(&name, thumbnail).await?;
            }
            // The embedder can see it, so it can be found; it only can't be shown.
            Err(error) => {
                metrics::thumbnail_failed();
                tracing::warn!(id = %hashed.id, %error, "no thumbnail could be made of a picture");
            }
        }
        hashed.into_point(embedded)
    }

    /// Fetches an item with its vector.
    pub(crate) async fn get(&self, collection: CollectionName, id: ItemId) -> Result<Point, Error> {
        let found = self.store.point(collection.clone(), id.clone()).await?;
        found.ok_or(Error::NoItem { collection, id })
    }

    /// Lists items after one.
    pub(crate) async fn list(
        &self,
        collection: CollectionName,
        page: Page,
    ) -> Result<Listed, Error> {
        let limit = page.limit;
        // One more tells whether there is a next page.
        let page = Page { limit: limit + 1, ..page };
        let records = self.store.scroll(collection, page).await?.into_iter();
        let mut items: Vec<_> = records.map(|record| record.item).collect();
        let has_more = items.len() > limit;
        items.truncate(limit);
        Ok(Listed { items, has_more })
    }

    /// Counts items exactly.
    pub(crate) async fn count(
        &self,
        collection: CollectionName,
        filter: Filter,
    ) -> Result<u64, Error> {
        Ok(self.store.count(collection, filter).await?)
    }

    /// Takes an item out.
    pub(crate) async fn delete(&self, collection: CollectionName, id: ItemId) -> Result<(), Error> {
        let turn = self.locks.lock(&collection, &id).await;
        let uid = self.store.resolve(collection.clone()).await?.uid;
        let item = self.get(collection.clone(), id.clone()).await?.item;
        let (store, blobs) = (Arc::clone(&self.store), self.blobs.clone());
        self.finish(async move {
            let _turn = turn;
            store.delete(collection, vec![id]).await?;
            if let Some(content_hash) = &item.content_hash {
                let name = Name { uid: &uid, id: &item.id, content_hash };
                drop_thumbnail(&blobs, &name).await;
            }
            Ok(())
        })
        .await
    }

    /// Fetches the small picture of an item: a JPEG.
    pub(crate) async fn thumbnail(
        &self,
        collection: CollectionName,
        id: ItemId,
    ) -> Result<Bytes, Error> {
        let uid = self.store.resolve(collection.clone()).await?.uid;
        let item = self.get(collection.clone(), id).await?.item;
        let Some(content_hash) = &item.content_hash else {
            return Err(Error::NoThumbnail { collection, id: item.id });
        };
        let name = Name { uid: &uid, id: &item.id, content_hash };
        let found = self.blobs.get(&name).await?;
        found.ok_or(Error::NoThumbnail { collection, id: item.id })
    }
}

/// The item no longer needs it. A failure leaves a file too many, and nothing wrong.
async fn drop_thumbnail(blobs: &Blobs, name: &Name<'_>) {
    if let Err(error) = blobs.delete(name).await {
        tracing::warn!(id = %name.id, %error, "a thumbnail that is not needed is left behind");
    }
}

// === impl Hashed ===

impl Hashed {
    /// Whether an item holds all of this already.
    fn is_in(&self, item: &Item) -> bool {
        Some(self.content_hash) == item.content_hash
            && self.new.uri == item.uri
            && self.new.filename == item.filename
            && self.new.metadata == item.metadata
    }

    /// What to store of a picture that was just embedded.
    fn into_point(self, embedded: Embedded) -> Result<Point, Error> {
        let Some(image) = embedded.image else {
            return Err(Error::Internal("the embedder did not describe a picture".to_owned()));
        };
        let now = item::now();
        let item = Item {
            id: self.id,
            uri: self.new.uri,
            filename: self.new.filename,
            width: image.width,
            height: image.height,
            format: image.format,
            byte_size: self.new.image.len() as u64,
            content_hash: Some(self.content_hash),
            pixel_hash: None,
            perceptual_hash: None,
            create_time: now,
            update_time: now,
            metadata: self.new.metadata,
        };
        Ok(Point { item, vector: embedded.vector })
    }

    /// What to store of a picture that is stored already, with other words about it.
    fn into_point_of(self, existing: Point) -> Point {
        let item = Item {
            uri: self.new.uri,
            filename: self.new.filename,
            metadata: self.new.metadata,
            update_time: item::now(),
            ..existing.item
        };
        Point { item, vector: existing.vector }
    }
}

#[cfg(test)]
mod tests;
