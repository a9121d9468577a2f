//! Small pictures and the files of items in an object store, and the only place that knows the
//! store's library.
//!
//! ```text
//! COLLECTION_UID/ITEM[..2]/ITEM-CONTENT.jpg      a small picture
//! COLLECTION_UID/ITEM[..2]/ITEM-CONTENT.file     the file as it came
//!                          └ hashes of the item's id and of its picture
//! ```
//!
//! The names hold the picture's hash, so that replacing an item writes new files beside the old
//! ones: a crash in between leaves each stored item with the files that belong to it, and at worst
//! files too many.
//!
//! Between replicas that share a place, an item may lose its files: one replica deletes the item or
//! replaces its picture, another stores the same picture under the same id at that moment, and the
//! files that it wrote go with the former ones, whose names are the same. The item is found as
//! before; it has no thumbnail and no original until its picture is replaced. In one process the
//! turns of items keep that from happening.

mod open;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clipmesh_proto::ids::{ContentHash, ItemId};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::path::Path as Location;
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload};
use serde::{Deserialize, Serialize};

/// A collection's uid is a UUID without dashes.
const UID_DIGITS: usize = 32;

/// Settings of the object store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where files are kept: `file:///FOLDER`, `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` or
    /// `az://CONTAINER/PREFIX`. Credentials, region and end point come from the environment, as in
    /// `AWS_ACCESS_KEY_ID`, `GOOGLE_SERVICE_ACCOUNT` and `AZURE_STORAGE_ACCOUNT_NAME`. Replicas of
    /// the service need one that all of them reach. Default: a folder in
    /// `data_dir`: `thumbnails`, or beside a Qdrant server `thumbnails-qdrant`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Whether to keep the image files as well as small pictures of them, for `GetOriginal`. They
    /// take the room that they have anyway; files of items that were stored before are not there.
    /// Default: false.
    pub keep_originals: bool,
    /// Whether a file in a folder waits for the disk before its item is acknowledged. Choose the
    /// same as for `store.edge.sync_writes`. Other places keep what they acknowledge. Default:
    /// false.
    pub sync_writes: bool,
    /// How long one attempt at a call may take. Long enough for the largest file on the slowest
    /// line. Default: 10 s.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// How long to repeat a call that failed. Zero: not at all. Default: 20 s.
    #[serde(with = "humantime_serde")]
    pub retry_timeout: Duration,
}

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
    keep_originals: bool,
}

/// Which files: those of an item in a collection, and of the picture it holds.
#[derive(Clone, Debug)]
pub(crate) struct Name<'a> {
    /// Of the collection.
    pub(crate) uid: &'a str,
    pub(crate) id: &'a ItemId,
    pub(crate) content_hash: &'a ContentHash,
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum File {
    /// A small JPEG.
    Thumbnail,
    /// The bytes that the item was made of.
    Original,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            url: None,
            keep_originals: false,
            sync_writes: false,
            timeout: Duration::from_secs(10),
            retry_timeout: Duration::from_secs(20),
        }
    }
}

impl Config {
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if let Some(fault) = self.url.as_deref().and_then(open::fault) {
            faults.push(format!("`blobs.url` {fault}"));
        }
        if self.timeout.is_zero() {
            faults.push("`blobs.timeout` must be longer than zero".to_owned());
        }
        faults
    }
}

// === impl Blobs ===

impl Blobs {
    /// Files in memory, each of which takes so long to be deleted.
    #[cfg(test)]
    pub(crate) fn slow_to_delete(wait: Duration) -> Self {
        use object_store::memory::InMemory;
        use object_store::throttle::{ThrottleConfig, ThrottledStore};
        let slow = ThrottleConfig { wait_delete_per_call: wait, ..ThrottleConfig::default() };
        let store = Arc::new(ThrottledStore::new(InMemory::new(), slow));
        Self { store, keep_originals: false }
    }

    /// Opens the place of the settings, or else a folder, which is made if it is not there.
    pub(crate) fn open(config: &Config, folder: &Path) -> Result<Self, Error> {
        let store = match &config.url {
            Some(url) => open::url(url, config)?,
            None => open::folder(folder, config.sync_writes)?,
        };
        Ok(Self { store, keep_originals: config.keep_originals })
    }

    /// Whether the files that items are made of are wanted.
    pub(crate) fn keeps_originals(&self) -> bool {
        self.keep_originals
    }

    /// Writes a file whole or not at all.
    pub(crate) async fn put(&self, name: &Name<'_>, file: File, bytes: Bytes) -> Result<(), Error> {
        self.store.put(&name.location(file), PutPayload::from_bytes(bytes)).await?;
        Ok(())
    }

    pub(crate) async fn get(&self, name: &Name<'_>, file: File) -> Result<Option<Bytes>, Error> {
        match self.store.get(&name.location(file)).await {
            Ok(found) => Ok(Some(found.bytes().await?)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes all files of some items; one that is not there is as good as removed.
    pub(crate) async fn delete(&self, names: &[Name<'_>]) -> Result<(), Error> {
        let files =
            |name: &Name<'_>| [File::Thumbnail, File::Original].map(|file| name.location(file));
        // Also where originals are not kept: they may have been before.
        let locations: Vec<_> = names.iter().flat_map(files).map(Ok).collect();
        self.delete_stream(stream::iter(locations).boxed()).await
    }

    /// Removes all files of a collection.
    pub(crate) async fn delete_collection(&self, uid: &str) -> Result<(), Error> {
        let prefix = Location::from(uid);
        let locations = self.store.list(Some(&prefix)).map_ok(|meta| meta.location).boxed();
        self.delete_stream(locations).await
    }

    /// Removes the files of collections that are not among these: what a crash left behind. Only
    /// for a place that nobody else writes to: their collections are not known here.
    pub(crate) async fn retain(&self, uids: &[String]) -> Result<(), Error> {
        let folders = self.store.list_with_delimiter(None).await?.common_prefixes;
        for folder in folders {
            let uid = folder.as_ref();
            // Somebody else's folder is not ours to clear.
            let is_ours = uid.len() == UID_DIGITS && uid.bytes().all(|b| b.is_ascii_hexdigit());
            if is_ours && !uids.iter().any(|known| known == uid) {
                tracing::info!(uid, "clearing away the files of a removed collection");
                self.delete_collection(uid).await?;
            }
        }
        Ok(())
    }

    /// Removes as many as can be.
    async fn delete_stream(
        &self,
        locations: stream::BoxStream<'static, Result<Location, object_store::Error>>,
    ) -> Result<(), Error> {
        let mut deleted = self.store.delete_stream(locations);
        let mut result = Ok(());
        while let Some(outcome) = deleted.next().await {
            match outcome {
                // It was not there, or someone else was faster.
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                // The others are to go all the same.
                Err(error) => result = result.and(Err(error.into())),
            }
        }
        result
    }
}

impl Name<'_> {
    fn location(&self, file: File) -> Location {
        let item = ContentHash::of(self.id.as_str().as_bytes()).to_string();
        let (uid, folder, content) = (self.uid, &item[..2], self.content_hash);
        let ending = match file {
            File::Thumbnail => "jpg",
            File::Original => "file",
        };
        Location::from(format!("{uid}/{folder}/{item}-{content}.{ending}"))
    }
}

#[cfg(test)]
mod tests;
