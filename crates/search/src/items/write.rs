//! Changes on their way into the store.

use std::sync::Arc;
use std::time::Duration;

use clipmesh_proto::ids::{ContentHash, ItemId};
use jiff::Timestamp;
use tokio::sync::Semaphore;

use super::locks::Turn;
use crate::blobs::{Blobs, Name};
use crate::cache::Caches;
use crate::changes::Changes;
use crate::error::Error;
use crate::item::{Etag, Item};
use crate::store::{self, Collection, Point, VectorStore};

/// How long an answer waits for files that nobody needs any more. Longer than an object store takes
/// that is well; one that is down holds up no more than this.
const PATIENCE: Duration = Duration::from_secs(1);

/// Changes whose files may go behind their answers. Those beyond wait for theirs: whoever deletes
/// faster than the object store can is slowed down.
const MAX_BEHIND: usize = 256;

/// Makes changes, each to its end even if its caller goes away: the store finishes a write that
/// has begun, so that the turn of its item must not be over before.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    store: Arc<dyn VectorStore>,
    blobs: Blobs,
    caches: Caches,
    pub(super) changes: Changes,
    /// A place for each change whose files may go behind its answer.
    behind: Arc<Semaphore>,
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
    pub(super) fn new(
        store: Arc<dyn VectorStore>,
        blobs: Blobs,
        caches: Caches,
        changes: Changes,
    ) -> Self {
        Self { store, blobs, caches, changes, behind: Arc::new(Semaphore::new(MAX_BEHIND)) }
    }

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
            own.check_uid(&collection).await?;
            let Write { point, expected, old_picture } = write;
            let id = point.item.id.clone();
            let name = collection.name.clone();
            let written = own.store.replace(name, point, expected).await;
            own.changed(&collection).await;
            let is_written = written?;
            let old_picture = old_picture.filter(|_| is_written);
            own.drop_files(turn, collection, old_picture.map(|hash| (id, hash))).await;
            Ok(is_written)
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
            own.check_uid(&collection).await?;
            let ids = items.iter().map(|item| item.id.clone()).collect();
            let deleted = own.store.delete(collection.name.clone(), ids).await;
            own.changed(&collection).await;
            deleted?;
            let files = items.into_iter().filter_map(|item| Some((item.id, item.content_hash?)));
            own.drop_files(turn, collection, files).await;
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
            own.check_uid(&collection).await?;
            let (name, id, etag) = (collection.name.clone(), item.id.clone(), item.etag());
            let deleted = own.store.delete_unchanged(name, id, etag).await;
            own.changed(&collection).await;
            let is_gone = deleted?;
            let picture = item.content_hash.filter(|_| is_gone);
            own.drop_files(turn, collection, picture.map(|hash| (item.id, hash))).await;
            Ok(is_gone)
        })
        .await
    }

    /// Acknowledges that nothing has to be changed: what made it so, `written` at that time, may
    /// have failed half way, or in a process that died before it told anyone.
    pub(super) async fn confirm(
        &self,
        collection: &Collection,
        written: Option<Timestamp>,
    ) -> Result<(), Error> {
        self.store.sync(collection.name.clone()).await?;
        self.caches.confirm(collection, written).await;
        Ok(())
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

    /// Nobody needs them any more. A failure leaves files too many, and nothing wrong; so an answer
    /// waits for a while only. Their items' turn lasts until they are gone: else one who stores the
    /// same picture again could lose its files to this.
    async fn drop_files(
        &self,
        turn: Turn,
        collection: Collection,
        files: impl IntoIterator<Item = (ItemId, ContentHash)>,
    ) {
        let files: Vec<_> = files.into_iter().collect();
        if files.is_empty() {
            return;
        }
        let blobs = self.blobs.clone();
        let dropping = async move {
            let _turn = turn;
            let uid = &collection.uid;
            let names = files.iter().map(|(id, content_hash)| Name { uid, id, content_hash });
            if let Err(error) = blobs.delete(&names.collect::<Vec<_>>()).await {
                let collection = &collection.name;
                tracing::warn!(%collection, %error, "files that are not needed are left behind");
            }
        };
        let Ok(place) = Arc::clone(&self.behind).try_acquire_owned() else {
            return dropping.await;
        };
        let dropping = self.changes.finish(async move {
            let _place = place;
            dropping.await;
            Ok(())
        });
        // When the time is up they go behind the answer.
        if let Ok(Err(error)) = tokio::time::timeout(PATIENCE, dropping).await {
            tracing::error!(%error, "files that are not needed are left behind");
        }
    }

    async fn finish<T: Send + 'static>(
        &self,
        change: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        self.changes.finish(change).await
    }
}
