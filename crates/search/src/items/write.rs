//! Changes on their way into the store.

use std::sync::Arc;

use clipmesh_proto::ids::{ContentHash, ItemId};

use super::locks::Turn;
use crate::blobs::{Blobs, Name};
use crate::cache::Caches;
use crate::changes::Changes;
use crate::error::Error;
use crate::item::{Etag, Item};
use crate::store::{self, Collection, Point, VectorStore};

/// Makes changes, each to its end even if its caller goes away: the store finishes a write that
/// has begun, so that the turn of its item must not be over before.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    pub(super) store: Arc<dyn VectorStore>,
    pub(super) blobs: Blobs,
    pub(super) caches: Caches,
    pub(super) changes: Changes,
}

/// A point to be written.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) point: Point,
    /// What the item must have been until now; `None` for one that was not there.
    pub(super) expected: Option<Etag>,
    /// The picture that it showed before, if that was another.
    pub(super) old_picture: Option<ContentHash>,
}

// === impl Writer ===

impl Writer {
    /// Writes a point, and removes the files of the picture that it replaces. Tells whether it was
    /// written: not, if another process has changed the item since it was read.
    pub(super) async fn write(
        &self,
        turn: Turn,
        collection: Collection,
        write: Write,
    ) -> Result<bool, Error> {
        let own = self.clone();
        self.finish(async move {
            let _turn = turn;
            own.check_uid(&collection).await?;
            let Write { point, expected, old_picture } = write;
            let id = point.item.id.clone();
            let name = collection.name.clone();
            let written = own.store.replace(name, point, expected).await;
            own.changed(&collection).await;
            if written? {
                own.drop_files(&collection, old_picture.iter().map(|hash| (&id, hash))).await;
                return Ok(true);
            }
            Ok(false)
        })
        .await
    }

    /// Removes items with their files.
    pub(super) async fn delete(
        &self,
        turn: Turn,
        collection: Collection,
        items: Vec<Item>,
    ) -> Result<(), Error> {
        let own = self.clone();
        self.finish(async move {
            let _turn = turn;
            own.check_uid(&collection).await?;
            let ids = items.iter().map(|item| item.id.clone()).collect();
            let deleted = own.store.delete(collection.name.clone(), ids).await;
            own.changed(&collection).await;
            deleted?;
            let files =
                items.iter().filter_map(|item| Some((&item.id, item.content_hash.as_ref()?)));
            own.drop_files(&collection, files).await;
            Ok(())
        })
        .await
    }

    /// Removes an item with its files if it is as it was read, and tells whether it was.
    pub(super) async fn delete_unchanged(
        &self,
        turn: Turn,
        collection: Collection,
        item: Item,
    ) -> Result<bool, Error> {
        let own = self.clone();
        self.finish(async move {
            let _turn = turn;
            own.check_uid(&collection).await?;
            let (name, id, etag) = (collection.name.clone(), item.id.clone(), item.etag());
            let deleted = own.store.delete_unchanged(name, id, etag).await;
            own.changed(&collection).await;
            let is_gone = deleted?;
            if is_gone {
                let hash = item.content_hash.iter();
                own.drop_files(&collection, hash.map(|hash| (&item.id, hash))).await;
            }
            Ok(is_gone)
        })
        .await
    }

    /// Follows each change that searches may see, before it is answered; also one that failed,
    /// which may have been made all the same.
    async fn changed(&self, collection: &Collection) {
        self.caches.raise(collection).await;
    }

    /// While a picture was embedded, the collection may have been removed and one of the same name
    /// been made.
    async fn check_uid(&self, collection: &Collection) -> Result<(), Error> {
        if self.store.resolve(collection.name.clone()).await?.uid != collection.uid {
            return Err(store::Error::NoCollection(collection.name.clone()).into());
        }
        Ok(())
    }

    /// Nobody needs them any more. A failure leaves files too many, and nothing wrong.
    async fn drop_files(
        &self,
        collection: &Collection,
        files: impl Iterator<Item = (&ItemId, &ContentHash)>,
    ) {
        let name = |(id, content_hash)| Name { uid: &collection.uid, id, content_hash };
        let names: Vec<_> = files.map(name).collect();
        if let Err(error) = self.blobs.delete(&names).await {
            let collection = &collection.name;
            tracing::warn!(%collection, %error, "files that are not needed are left behind");
        }
    }

    async fn finish<T: Send + 'static>(
        &self,
        change: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        self.changes.finish(change).await
    }
}
