//! The folders of collections, and what a crash may leave in them.
//!
//! ```text
//! ROOT/lock                       held by the one process that uses ROOT
//! ROOT/NAME.UID/collection.json   written last when a collection is made, removed first when it
//!                                 goes: a folder without it is no collection
//! ROOT/NAME.UID/shard/            the engine's
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use clipmesh_proto::ids::{CollectionName, Fingerprint};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::store::{Collection, Distance, Error};

const RECORD_FILE: &str = "collection.json";
const LOCK_FILE: &str = "lock";
/// Raised when the record's fields change their meaning.
const RECORD_VERSION: u32 = 1;
/// Room for the writes between two openings.
const GENERATIONS_PER_OPENING: u64 = 1 << 32;

/// The folder of one collection. While doomed, it is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    doomed: AtomicBool,
}

/// What is known of a collection beside its points.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    version: u32,
    name: String,
    uid: String,
    fingerprint: String,
    model_name: String,
    dimension: usize,
    distance: Distance,
    /// In the notation of RFC 3339.
    create_time: String,
    /// How often it was opened; the upper half of its generations.
    openings: u64,
}

// === impl Folder ===

impl Folder {
    pub(super) fn new(root: &Path, collection: &Collection) -> Self {
        let path = root.join(format!("{}.{}", collection.name, collection.uid));
        Self { path, doomed: AtomicBool::new(false) }
    }

    /// Where the engine lives.
    pub(super) fn shard(&self) -> PathBuf {
        self.path.join("shard")
    }

    pub(super) fn create(&self) -> io::Result<()> {
        fs::create_dir_all(&self.path)
    }

    /// Makes the folder a collection, or brings its record up to date.
    pub(super) fn write_record(&self, record: &Record) -> io::Result<()> {
        let json = serde_json::to_vec_pretty(record)?;
        write_atomically(&self.path.join(RECORD_FILE), &json)?;
        // The folder itself is an entry of its parent.
        self.path.parent().map_or(Ok(()), sync_folder)
    }

    /// Makes the folder no collection any more.
    pub(super) fn remove_record(&self) -> io::Result<()> {
        fs::remove_file(self.path.join(RECORD_FILE))?;
        // Not an error: the collection is gone, and only a power failure could bring it back.
        if let Err(error) = sync_folder(&self.path) {
            let path = self.path.display();
            tracing::warn!(%path, %error, "a collection's removal is not on the disk yet");
        }
        Ok(())
    }

    pub(super) fn doom(&self) {
        self.doomed.store(true, Ordering::Release);
    }

    pub(super) fn spare(&self) {
        self.doomed.store(false, Ordering::Release);
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.doomed.load(Ordering::Acquire) {
            return;
        }
        // The record first: without it, whatever is left behind is no collection.
        let removed = absent_or(fs::remove_file(self.path.join(RECORD_FILE)))
            .and_then(|()| absent_or(fs::remove_dir_all(&self.path)));
        if let Err(error) = removed {
            let path = self.path.display();
            tracing::warn!(%path, %error, "a removed collection's folder is left behind");
        }
    }
}

// === impl Record ===

impl Record {
    pub(super) fn new(collection: &Collection) -> Self {
        Self {
            version: RECORD_VERSION,
            name: collection.name.to_string(),
            uid: collection.uid.clone(),
            fingerprint: collection.fingerprint.to_string(),
            model_name: collection.model_name.clone(),
            dimension: collection.dimension,
            distance: collection.distance,
            create_time: collection.create_time.to_string(),
            openings: 0,
        }
    }

    /// The record after one more opening, whose generations lie above all earlier ones.
    pub(super) fn opened(self) -> Self {
        Self { openings: self.openings + 1, ..self }
    }

    /// # Errors
    /// What is wrong with a record that was edited by hand.
    pub(super) fn collection(&self) -> Result<Collection, Error> {
        let create_time = self.create_time.parse();
        Ok(Collection {
            name: CollectionName::try_from(self.name.clone()).map_err(|_| self.unusable("name"))?,
            uid: self.uid.clone(),
            fingerprint: Fingerprint::try_from(self.fingerprint.clone())
                .map_err(|_| self.unusable("fingerprint"))?,
            model_name: self.model_name.clone(),
            dimension: self.dimension,
            distance: self.distance,
            create_time: create_time.map_err(|_| self.unusable("create_time"))?,
            generation: self.openings * GENERATIONS_PER_OPENING,
        })
    }

    fn unusable(&self, key: &str) -> Error {
        Error::Failed(format!("the record of `{}` has no usable `{key}`", self.name))
    }
}

/// Claims `root` for this process until the answer is dropped.
pub(super) fn lock(root: &Path) -> io::Result<File> {
    fs::create_dir_all(root)?;
    let file = File::create(root.join(LOCK_FILE))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let message = format!("`{}` is in use by another process", root.display());
            Err(io::Error::new(io::ErrorKind::ResourceBusy, message))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The collections in `root`. Folders that a crash left half made or half removed are cleared
/// away; a record that can't be read is an error, since its points may be sound, and so are two
/// of one name, since nobody knows which of them is meant.
pub(super) fn scan(root: &Path) -> io::Result<Vec<Record>> {
    let mut found: BTreeMap<String, (PathBuf, Record)> = BTreeMap::new();
    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        if !path.is_dir() {
            continue;
        }
        match fs::read(path.join(RECORD_FILE)) {
            Ok(json) => {
                let record = parse(&path, &json)?;
                if let Some((other, _)) = found.get(&record.name) {
                    return Err(ambiguous(&record.name, [other, &path]));
                }
                found.insert(record.name.clone(), (path, record));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_ours(&path) => {
                tracing::warn!(path = %path.display(), "a folder that is no collection is left alone");
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                tracing::info!(path = %path.display(), "clearing away an unfinished collection");
                fs::remove_dir_all(&path)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(found.into_values().map(|(_, record)| record).collect())
}

fn ambiguous(name: &str, paths: [&PathBuf; 2]) -> io::Error {
    let [one, other] = paths.map(|path| path.display());
    let message = format!("`{one}` and `{other}` both hold a collection `{name}`; move one away");
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// Whether a folder's name is one that we give: the collection's, and its uid.
fn is_ours(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.rsplit_once('.').is_some_and(|(collection, uid)| {
        CollectionName::try_from(collection.to_owned()).is_ok() && Uuid::try_parse(uid).is_ok()
    })
}

fn parse(path: &Path, json: &[u8]) -> io::Result<Record> {
    let refuse = |why: String| {
        let message = format!("`{}` can't be used: {why}", path.join(RECORD_FILE).display());
        io::Error::new(io::ErrorKind::InvalidData, message)
    };
    let record: Record = serde_json::from_slice(json).map_err(|error| refuse(error.to_string()))?;
    if record.version != RECORD_VERSION {
        return Err(refuse(format!("it is of version {}", record.version)));
    }
    Ok(record)
}

/// Writes a file that is, after a crash at any moment, as it was before or as it is to be.
fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("tmp");
    let mut file = File::create(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// What is not there need not be removed.
fn absent_or(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(()) | Err(_) => removed,
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_with_our_kind_of_name_are_ours() {
        let uid = Uuid::new_v4().simple();
        assert!(is_ours(Path::new(&format!("/data/images.{uid}"))), "a collection and its uid");
        for stranger in ["lost+found", "images", "images.old", ".git", "Images.zip"] {
            assert!(!is_ours(&Path::new("/data").join(stranger)), "`{stranger}` is left alone");
        }
    }
}
