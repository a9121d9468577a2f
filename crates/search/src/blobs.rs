//! Thumbnails in an object store: one small file per item, and the only place that knows the
//! store's library.
//!
//! ```text
//! COLLECTION_UID/ITEM[..2]/ITEM-CONTENT.jpg      hashes of the item's id and of its picture
//! ```
//!
//! The name holds the picture's hash, so that replacing an item writes a new file beside the old
//! one: a crash in between leaves each stored item with the file that belongs to it, and at worst
//! a file too many.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use clipmesh_proto::ids::{ContentHash, ItemId};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Location;
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload};

/// A collection's uid is a UUID without dashes.
const UID_DIGITS: usize = 32;

/// Why the object store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("make the folder `{}`: {source}", path.display())]
    Folder { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Store(#[from] object_store::Error),
}

/// The files of all collections.
#[derive(Clone, Debug)]
pub(crate) struct Blobs {
    store: Arc<dyn ObjectStore>,
}

/// Which file: an item in a collection, and the picture it holds.
#[derive(Clone, Debug)]
pub(crate) struct Name<'a> {
    /// Of the collection.
    pub(crate) uid: &'a str,
    pub(crate) id: &'a ItemId,
    pub(crate) content_hash: &'a ContentHash,
}

impl Blobs {
    /// Keeps files in a folder, which is made if it is not there.
    pub(crate) fn in_folder(path: &Path) -> Result<Self, Error> {
        std::fs::create_dir_all(path)
            .map_err(|source| Error::Folder { path: path.to_owned(), source })?;
        let store = LocalFileSystem::new_with_prefix(path)?.with_automatic_cleanup(true);
        Ok(Self { store: Arc::new(store) })
    }

    /// Writes a file whole or not at all.
    pub(crate) async fn put(&self, name: &Name<'_>, bytes: Bytes) -> Result<(), Error> {
        self.store.put(&name.location(), PutPayload::from_bytes(bytes)).await?;
        Ok(())
    }

    pub(crate) async fn get(&self, name: &Name<'_>) -> Result<Option<Bytes>, Error> {
        match self.store.get(&name.location()).await {
            Ok(found) => Ok(Some(found.bytes().await?)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a file; one that is not there is as good as removed.
    pub(crate) async fn delete(&self, name: &Name<'_>) -> Result<(), Error> {
        match self.store.delete(&name.location()).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes all files of a collection.
    pub(crate) async fn delete_collection(&self, uid: &str) -> Result<(), Error> {
        let prefix = Location::from(uid);
        let locations = self.store.list(Some(&prefix)).map_ok(|meta| meta.location).boxed();
        let mut deleted = self.store.delete_stream(locations);
        while let Some(outcome) = deleted.next().await {
            match outcome {
                // Someone else was faster.
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Removes the files of collections that are not among these: what a crash left behind.
    pub(crate) async fn retain(&self, uids: &[String]) -> Result<(), Error> {
        let folders = self.store.list_with_delimiter(None).await?.common_prefixes;
        for folder in folders {
            let uid = folder.as_ref();
            // Somebody else's folder is not ours to clear.
            let is_ours = uid.len() == UID_DIGITS && uid.bytes().all(|b| b.is_ascii_hexdigit());
            if is_ours && !uids.iter().any(|known| known == uid) {
                tracing::info!(uid, "clearing away the thumbnails of a removed collection");
                self.delete_collection(uid).await?;
            }
        }
        Ok(())
    }
}

impl Name<'_> {
    fn location(&self) -> Location {
        let item = ContentHash::of(self.id.as_str().as_bytes()).to_string();
        let (uid, folder) = (self.uid, &item[..2]);
        Location::from(format!("{uid}/{folder}/{item}-{}.jpg", self.content_hash))
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn id(text: &str) -> ItemId {
        ItemId::try_from(text.to_owned()).expect("an id")
    }

    #[tokio::test]
    async fn files_come_and_go() {
        let folder = TempDir::new().expect("a temporary folder");
        let blobs = Blobs::in_folder(&folder.path().join("thumbnails")).expect("usable");
        // An id that would be a way out of the folder.
        let (id, hash) = (id("../../a/b"), ContentHash::of(b"picture"));
        let name = Name { uid: "c1", id: &id, content_hash: &hash };
        assert_eq!(blobs.get(&name).await.expect("an answer"), None, "nothing yet");
        blobs.put(&name, Bytes::from_static(b"small")).await.expect("written");
        let found = blobs.get(&name).await.expect("an answer");
        assert_eq!(found, Some(Bytes::from_static(b"small")), "there");

        let other = ContentHash::of(b"other picture");
        let other = Name { content_hash: &other, ..name.clone() };
        assert_eq!(blobs.get(&other).await.expect("an answer"), None, "of one picture only");
        blobs.delete(&name).await.expect("deleted");
        assert_eq!(blobs.get(&name).await.expect("an answer"), None, "gone");
        blobs.delete(&name).await.expect("deleting twice is no error");
    }

    #[tokio::test]
    async fn a_collection_goes_as_a_whole() {
        let folder = TempDir::new().expect("a temporary folder");
        let blobs = Blobs::in_folder(folder.path()).expect("usable");
        let hash = ContentHash::of(b"picture");
        let ids = ["a", "b", "c"].map(id);
        let uids = ["1", "2", "3"].map(|digit| digit.repeat(UID_DIGITS));
        let [gone, known, unknown] = uids.each_ref().map(String::as_str);
        for uid in [gone, known, unknown, "holiday"] {
            for id in &ids {
                let name = Name { uid, id, content_hash: &hash };
                blobs.put(&name, Bytes::from_static(b"small")).await.expect("written");
            }
        }
        blobs.delete_collection(gone).await.expect("deleted");
        blobs.retain(&[known.to_owned()]).await.expect("cleared away");
        // The last folder is somebody else's.
        for (uid, is_there) in [(gone, false), (known, true), (unknown, false), ("holiday", true)] {
            let name = Name { uid, id: &ids[0], content_hash: &hash };
            let found = blobs.get(&name).await.expect("an answer");
            assert_eq!(found.is_some(), is_there, "files of {uid}");
        }
        blobs.delete_collection(gone).await.expect("nothing to delete is no error");
    }
}
