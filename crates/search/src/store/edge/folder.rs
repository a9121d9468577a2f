//! The folders of collections, and what a crash may leave in them.
//!
//! ```text
//! ROOT/lock                       held by the one process that uses ROOT
//! ROOT/aliases.json               other names of collections
//! ROOT/NAME.UID/collection.json   written last when a collection is made, removed first when it
//!                                 goes: a folder without it is no collection
//! ROOT/NAME.UID/shard/            the engine's
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use clipmesh_proto::ids::CollectionName;
use uuid::Uuid;

use super::record::Record;
use crate::store::Collection;

const RECORD_FILE: &str = "collection.json";
const LOCK_FILE: &str = "lock";
/// The unit of `st_blocks`, whatever the file system's own (POSIX, sys/stat.h).
const BYTES_PER_BLOCK: u64 = 512;

/// The folder of one collection. While doomed, it is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    doomed: AtomicBool,
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

    pub(super) fn is_doomed(&self) -> bool {
        self.doomed.load(Ordering::Acquire)
    }

    /// What its files take on the disk; files that come and go meanwhile count as they are met.
    pub(super) fn disk_bytes(&self) -> io::Result<u64> {
        disk_bytes(&self.path)
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
                let record = Record::parse(&path.join(RECORD_FILE), &json)?;
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

/// Writes a file that is, after a crash at any moment, as it was before or as it is to be.
pub(super) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("tmp");
    let mut file = File::create(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// Blocks that are taken, not lengths: the engine's files are sparse.
fn disk_bytes(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        bytes += match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => or_gone(disk_bytes(&entry.path()))?,
            Ok(metadata) => metadata.blocks() * BYTES_PER_BLOCK,
            Err(error) => or_gone(Err(error))?,
        };
    }
    Ok(bytes)
}

/// What went while it was looked for takes no space.
fn or_gone(bytes: io::Result<u64>) -> io::Result<u64> {
    match bytes {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Ok(_) | Err(_) => bytes,
    }
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
