//! Which of the files have to be sent: those whose bytes the collection doesn't have yet, and those
//! whose fields are to be set and are not what the collection has.
//!
//! ```text
//!   paths ──► hash (concurrent) ──► look up 100 hashes in one call ──► read what is new ──► upload
//! ```
//!
//! Files with the same bytes are one item, and the first of them decides what is stored of it. So
//! those that a folder tells of come before all others, whose fields are none or those of all.
//!
//! A file is read twice, once for its hash and once to be sent; a batch is small, so that the
//! second read comes from memory. Nothing is decoded here. All of it runs one batch ahead of the
//! upload, and stops when that falls behind.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
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
use crate::index::metadata::{Fields, Line};
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
    /// Pictures that have some are sent even if the collection has them with others.
    pub(crate) fields: Arc<Fields>,
}

/// What to do with a file.
#[derive(Debug)]
pub(crate) enum Planned {
    Send(Picture),
    /// The collection has these bytes, with the fields that are to be set.
    Known,
    /// An earlier file of this run has these bytes.
    Duplicate,
    /// What is said of it can't be used, and without that it would lose its fields.
    Left,
    Failed(PathBuf, String),
}

/// A file after the look-up, not yet read.
#[derive(Debug, PartialEq, Eq)]
enum Sorted {
    New(PathBuf),
    Known,
    Duplicate,
    Left,
    Failed(PathBuf, String),
}

/// A file and the hash of its bytes, or why there is none.
type Hashed = (PathBuf, Result<ContentHash, String>);

/// Looks at `paths`: a driver to be run beside whoever reads the stream, and the stream of what to
/// do with each, in their order but for those that have a line, which go first. The driver runs
/// ahead by a bounded amount, and is never done.
pub(crate) fn pictures(
    mesh: Mesh,
    plan: Plan,
    mut paths: Vec<PathBuf>,
) -> (impl Future<Output = Infallible>, impl Stream<Item = Result<Planned, Error>>) {
    let (sender, receiver) = mpsc::channel(BATCH);
    let max_image_bytes = plan.max_image_bytes;
    paths.sort_by_key(|path| plan.fields.line(path));
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
    let mut seen = HashMap::new();
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
    seen: &mut HashMap<ContentHash, PathBuf>,
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
        .filter_map(|(_, hash)| hash.as_ref().ok())
        .filter(|hash| !seen.contains_key(*hash))
        .copied()
        .collect();
    let stored = match stored(mesh, plan, new).await {
        Ok(stored) => stored,
        Err(status) => {
            return sender.send(Err(mesh.error(status))).await.map_err(|_| Closed);
        }
    };
    for file in hashed {
        let sorted = sort(file, &plan.fields, &stored, seen);
        sender.send(Ok(sorted)).await.map_err(|_| Closed)?;
    }
    Ok(())
}

fn sort(
    (path, hash): Hashed,
    fields: &Fields,
    stored: &HashMap<ContentHash, search::Item>,
    seen: &mut HashMap<ContentHash, PathBuf>,
) -> Sorted {
    let hash = match hash {
        Ok(hash) => hash,
        Err(reason) => return Sorted::Failed(path, reason),
    };
    let line = fields.line(&path);
    let first = match seen.entry(hash) {
        Entry::Occupied(first) => Some(first.into_mut()),
        Entry::Vacant(place) => {
            place.insert(path.clone());
            None
        }
    };
    match (line, first) {
        (Line::Unusable, _) => Sorted::Left,
        (Line::Usable, Some(first)) if fields.of(&path) != fields.of(first) => {
            let first = first.display();
            Sorted::Failed(path, format!("has the bytes of `{first}`, and not the same fields"))
        }
        (Line::Usable | Line::Missing, Some(_)) => Sorted::Duplicate,
        (Line::Usable | Line::Missing, None) => match stored.get(&hash) {
            Some(_) if !fields.has(&path) => Sorted::Known,
            Some(item) if is_in(item, &upload::new_item(fields, &path, hash)) => Sorted::Known,
            Some(_) | None => Sorted::New(path),
        },
    }
}

/// Whether an item holds all that would be sent, given that it has the same bytes.
fn is_in(item: &search::Item, new: &search::NewItem) -> bool {
    // Fields that are not there and none are the same to the mesh.
    item.id == new.id
        && item.uri == new.uri
        && item.filename == new.filename
        && item.metadata.clone().unwrap_or_default() == new.metadata.clone().unwrap_or_default()
}

/// What the collection has of the pictures. A mesh that is just being restarted is asked again.
async fn stored(
    mesh: &Mesh,
    plan: &Plan,
    hashes: HashSet<ContentHash>,
) -> Result<HashMap<ContentHash, search::Item>, Status> {
    if hashes.is_empty() {
        return Ok(HashMap::new());
    }
    let mut attempt = 0;
    loop {
        match look_up(mesh, plan, &hashes).await {
            Ok(stored) => return Ok(stored),
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
) -> Result<HashMap<ContentHash, search::Item>, Status> {
    let filter = filter::content_hash_any_of(hashes.iter().map(ContentHash::to_string));
    let mut found = HashMap::new();
    let mut ours = 0;
    let mut page_token = String::new();
    loop {
        let request = search::ListItemsRequest {
            collection: plan.collection.to_string(),
            filter: Some(filter.clone()),
            page_size: 0,
            page_token,
            ..search::ListItemsRequest::default()
        };
        let page = mesh.items().list_items(request).await?.into_inner();
        for item in page.items {
            let Ok(hash) = item.content_hash.parse::<ContentHash>() else { continue };
            // One picture may be there many times under ids of its owner's choice. The one that
            // would be replaced is the one to know.
            if item.id == item.content_hash {
                ours += 1;
                found.insert(hash, item);
            } else {
                found.entry(hash).or_insert(item);
            }
        }
        if page.next_page_token.is_empty() || ours == hashes.len() {
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
        Sorted::Left => return Planned::Left,
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
mod tests;
