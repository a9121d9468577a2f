//! Which of the files have to be sent: those whose bytes the collection doesn't have yet, and those
//! whose fields are to be set.
//!
//! ```text
//!   paths ──► hash (concurrent) ──► look up 100 hashes in one call ──► read what is new ──► upload
//! ```
//!
//! A file is read twice, once for its hash and once to be sent; a batch is small, so that the
//! second read comes from memory. Nothing is decoded here. All of it runs one batch ahead of the
//! upload, and stops when that falls behind.

use std::collections::HashSet;
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytesize::ByteSize;
use clipmesh_proto::ids::{CollectionName, ContentHash};
use clipmesh_proto::search::v1 as search;
use futures::{Stream, StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::client::Mesh;
use crate::error::{Error, io_reason};
use crate::filter;
use crate::index::metadata::Fields;
use crate::index::upload;
use crate::index::window::{Picture, backoff};

/// Hashes in one look-up: a tenth of what the contract allows, so that work starts soon.
const BATCH: usize = 100;

/// Files that are hashed or read at once. Disks and network shares answer better when asked for
/// more than one file; with files of 32 MiB this is 256 MiB of memory.
const READERS: usize = 8;

/// Look-ups before a mesh that does not answer is given up.
const MAX_LOOK_UPS: u32 = 8;

/// How the files of a run are chosen.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) collection: CollectionName,
    /// A longer file is a failure of its own, before it is read.
    pub(crate) max_image_bytes: ByteSize,
    /// Pictures that have some are sent even if the collection has them.
    pub(crate) fields: Arc<Fields>,
}

/// What to do with a file.
#[derive(Debug)]
pub(crate) enum Planned {
    Send(Picture),
    /// The collection has these bytes.
    Known,
    /// An earlier file of this run has these bytes.
    Duplicate,
    Failed(PathBuf, String),
}

/// A file after the look-up, not yet read.
#[derive(Debug)]
enum Sorted {
    New(PathBuf),
    Known,
    Duplicate,
    Failed(PathBuf, String),
}

/// Looks at `paths`: a driver to be run beside whoever reads the stream, and the stream of what to
/// do with each, in their order. The driver runs ahead by a bounded amount, and is never done.
pub(crate) fn pictures(
    mesh: Mesh,
    plan: Plan,
    paths: Vec<PathBuf>,
) -> (impl Future<Output = Infallible>, impl Stream<Item = Result<Planned, Error>>) {
    let (sender, receiver) = mpsc::channel(BATCH);
    let max_image_bytes = plan.max_image_bytes;
    let driver = async move {
        // The stream ends with the sender.
        drive(&mesh, &plan, &paths, sender).await;
        std::future::pending().await
    };
    let planned = ReceiverStream::new(receiver)
        .map(move |sorted| async move { Ok(read(sorted?, max_image_bytes).await) })
        .buffered(READERS);
    (driver, planned)
}

async fn drive(
    mesh: &Mesh,
    plan: &Plan,
    paths: &[PathBuf],
    sender: mpsc::Sender<Result<Sorted, Error>>,
) {
    let mut seen = HashSet::new();
    for batch in paths.chunks(BATCH) {
        if send_batch(mesh, plan, batch, &mut seen, &sender).await.is_err() {
            return;
        }
    }
}

/// The upload does not listen any more.
struct Closed;

async fn send_batch(
    mesh: &Mesh,
    plan: &Plan,
    paths: &[PathBuf],
    seen: &mut HashSet<ContentHash>,
    sender: &mpsc::Sender<Result<Sorted, Error>>,
) -> Result<(), Closed> {
    let max_image_bytes = plan.max_image_bytes;
    let hashed = stream::iter(paths.to_vec())
        .map(|path| blocking(path, move |path| hash(path, max_image_bytes)))
        .buffered(READERS)
        .collect::<Vec<_>>()
        .await;
    let new: HashSet<ContentHash> = hashed
        .iter()
        .filter(|(path, _)| !plan.fields.has(path))
        .filter_map(|(_, hash)| hash.as_ref().ok())
        .filter(|hash| !seen.contains(*hash))
        .copied()
        .collect();
    let known = match known(mesh, plan, new).await {
        Ok(known) => known,
        Err(status) => {
            return sender.send(Err(mesh.error(status))).await.map_err(|_| Closed);
        }
    };
    for (path, hash) in hashed {
        let sorted = match hash {
            Err(reason) => Sorted::Failed(path, reason),
            Ok(hash) if !seen.insert(hash) => Sorted::Duplicate,
            Ok(hash) if known.contains(&hash) && !plan.fields.has(&path) => Sorted::Known,
            Ok(_) => Sorted::New(path),
        };
        sender.send(Ok(sorted)).await.map_err(|_| Closed)?;
    }
    Ok(())
}

/// Which of the pictures the collection has. A mesh that is just being restarted is asked again.
async fn known(
    mesh: &Mesh,
    plan: &Plan,
    hashes: HashSet<ContentHash>,
) -> Result<HashSet<ContentHash>, Status> {
    if hashes.is_empty() {
        return Ok(HashSet::new());
    }
    let mut attempt = 0;
    loop {
        match look_up(mesh, plan, &hashes).await {
            Ok(known) => return Ok(known),
            Err(status) if attempt + 1 < MAX_LOOK_UPS && upload::is_broken(&status) => {
                tokio::time::sleep(backoff(attempt)).await;
                attempt += 1;
            }
            Err(status) => return Err(status),
        }
    }
}

async fn look_up(
    mesh: &Mesh,
    plan: &Plan,
    hashes: &HashSet<ContentHash>,
) -> Result<HashSet<ContentHash>, Status> {
    let filter = filter::content_hash_any_of(hashes.iter().map(ContentHash::to_string));
    let mut found = HashSet::new();
    let mut page_token = String::new();
    loop {
        let request = search::ListItemsRequest {
            collection: plan.collection.to_string(),
            filter: Some(filter.clone()),
            page_size: 0,
            page_token,
        };
        let page = mesh.items().list_items(request).await?.into_inner();
        let there = page.items.iter().map(|item| item.content_hash.parse::<ContentHash>());
        found.extend(there.filter_map(Result::ok));
        // One picture may be there many times under ids of its owner's choice.
        if page.next_page_token.is_empty() || found.len() == hashes.len() {
            return Ok(found);
        }
        page_token = page.next_page_token;
    }
}

async fn read(sorted: Sorted, max_image_bytes: ByteSize) -> Planned {
    let path = match sorted {
        Sorted::New(path) => path,
        Sorted::Known => return Planned::Known,
        Sorted::Duplicate => return Planned::Duplicate,
        Sorted::Failed(path, reason) => return Planned::Failed(path, reason),
    };
    let (path, bytes) = blocking(path, move |path| read_within(path, max_image_bytes)).await;
    match bytes {
        // The file may have changed since it was looked at, so its hash is taken of what is sent.
        Ok(bytes) => {
            Planned::Send(Picture { hash: ContentHash::of(&bytes), path, image: bytes.into() })
        }
        Err(reason) => Planned::Failed(path, reason),
    }
}

/// Runs a piece of file work where it may block.
async fn blocking<T: Send + 'static>(
    path: PathBuf,
    work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> (PathBuf, Result<T, String>) {
    let here = path.clone();
    match tokio::task::spawn_blocking(move || work(&here)).await {
        Ok(Ok(done)) => (path, Ok(done)),
        Ok(Err(error)) => (path, Err(io_reason(&error))),
        Err(error) => (path, Err(error.to_string())),
    }
}

fn hash(path: &Path, max_image_bytes: ByteSize) -> io::Result<ContentHash> {
    read_within(path, max_image_bytes).map(|bytes| ContentHash::of(&bytes))
}

fn read_within(path: &Path, max_image_bytes: ByteSize) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    check_length(&file, max_image_bytes)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn check_length(file: &File, max_image_bytes: ByteSize) -> io::Result<()> {
    let metadata = file.metadata()?;
    let length = ByteSize(metadata.len());
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if length > max_image_bytes {
        let reason = format!("{length} are over the mesh's limit of {max_image_bytes}");
        return Err(io::Error::other(reason));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_hashed_as_its_bytes_are() {
        let folder = tempfile::tempdir().expect("make a folder");
        let path = folder.path().join("a.jpg");
        std::fs::write(&path, b"some bytes").expect("write a file");
        let hash = hash(&path, ByteSize::mib(1)).expect("a hash");
        assert_eq!(hash, ContentHash::of(b"some bytes"), "read in pieces or at once");
    }

    #[test]
    fn a_file_over_the_limit_is_not_read() {
        let folder = tempfile::tempdir().expect("make a folder");
        let path = folder.path().join("large.jpg");
        let file = File::create(&path).expect("make a file");
        file.set_len(5 << 20).expect("make it large");
        let reason = io_reason(&hash(&path, ByteSize::mib(4)).expect_err("too large"));
        assert_eq!(reason, "5.0 MiB are over the mesh's limit of 4.0 MiB", "both sizes");
    }
}
