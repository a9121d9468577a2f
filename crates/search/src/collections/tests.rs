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

#[tokio::test]
async fn a_page_leads_on_though_its_collections_may_be_removed() {
    let folder = TempDir::new().expect("a temporary folder");
    let collections = collections(&folder);
    for text in ["a", "b", "c"] {
        collections.store.create(new_collection(text)).await.expect("made");
    }
    let cut = async |after, limit| {
        let (page, next) =
            cut(collections.store.collections().await.expect("listed"), after, limit);
        let page: Vec<_> = page.into_iter().map(|one| one.name.to_string()).collect();
        (page.concat(), next.map(|next| next.to_string()))
    };
    // Before anything of it is asked for.
    assert_eq!(cut(None, 2).await, ("ab".to_owned(), Some("b".to_owned())), "the first page");
    assert_eq!(cut(Some("b"), 2).await, ("c".to_owned(), None), "the last");
    assert_eq!(cut(Some("bb"), 1).await, ("c".to_owned(), None), "after one that is gone");
    assert_eq!(cut(Some("a"), 2).await, ("bc".to_owned(), None), "as many as there are");
    let listed = collections.list(None, 2).await.expect("listed");
    assert_eq!((listed.collections.len(), listed.next), (2, Some(name("b"))), "with counts");
}
