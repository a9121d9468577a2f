use bytes::Bytes;
use clipmesh_proto::ids::ContentHash;
use tempfile::TempDir;

use super::*;
use crate::blobs::{self, File, Name};
use crate::cache::config::Config as CacheConfig;
use crate::embedder;
use crate::store::contract::{id, name, new_collection};
use crate::store::exact::Exact;

/// Collections in memory, with an embedder that nobody needs.
fn collections(folder: &TempDir) -> Collections {
    let embedder = Embedder::new(&embedder::Config::default()).expect("an address");
    Collections {
        store: Arc::new(Exact::default()),
        blobs: Blobs::open(&blobs::Config::default(), folder.path()).expect("a folder"),
        embedder: Arc::new(embedder),
        caches: Caches::new(&CacheConfig::default()).expect("in memory"),
        changes: Changes::default(),
    }
}

#[tokio::test]
async fn a_removal_takes_the_files_though_its_caller_leaves() {
    let folder = TempDir::new().expect("a temporary folder");
    let collections = collections(&folder);
    let made = collections.store.create(new_collection("c")).await.expect("made");
    let (id, content_hash) = (id("a"), ContentHash::of(b"a"));
    let file = Name { uid: &made.uid, id: &id, content_hash: &content_hash };
    let bytes = Bytes::from_static(b"small");
    collections.blobs.put(&file, File::Thumbnail, bytes).await.expect("written");

    let mut removal = Box::pin(collections.delete(name("c")));
    assert!(futures::poll!(&mut removal).is_pending(), "it has begun");
    drop(removal);
    collections.changes.settle().await;
    assert!(collections.store.resolve(name("c")).await.is_err(), "it is gone");
    let left = collections.blobs.get(&file, File::Thumbnail).await.expect("an answer");
    assert_eq!(left, None, "with its files");
}
