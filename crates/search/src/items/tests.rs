use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tempfile::TempDir;

use super::*;
use crate::cache::Embeddings;
use crate::cache::memory::Memory;
use crate::embedder::{self, Embedder};
use crate::store::contract::{id, name, new_collection, point};
use crate::store::exact::Exact;
use crate::store::{Answer, Hit, NewCollection, Search};

/// A store over a disk that can break: what is written can be read, but is not there for good.
#[derive(Debug, Default)]
struct Fragile {
    exact: Exact,
    is_broken: AtomicBool,
    syncs: AtomicUsize,
}

impl Fragile {
    fn disk(&self) -> Result<(), store::Error> {
        let is_broken = self.is_broken.load(Ordering::SeqCst);
        if is_broken { Err(store::Error::Failed("the disk broke".to_owned())) } else { Ok(()) }
    }
}

impl VectorStore for Fragile {
    fn upsert(&self, name: CollectionName, points: Vec<Point>) -> Answer<'_, ()> {
        async { self.exact.upsert(name, points).await.and_then(|()| self.disk()) }.boxed()
    }

    fn sync(&self, name: CollectionName) -> Answer<'_, ()> {
        self.syncs.fetch_add(1, Ordering::SeqCst);
        async { self.exact.sync(name).await.and_then(|()| self.disk()) }.boxed()
    }

    fn create(&self, new: NewCollection) -> Answer<'_, Collection> {
        self.exact.create(new)
    }

    fn remove(&self, name: CollectionName) -> Answer<'_, Collection> {
        self.exact.remove(name)
    }

    fn collection(&self, name: &CollectionName) -> Result<Collection, store::Error> {
        self.exact.collection(name)
    }

    fn collections(&self) -> Vec<Collection> {
        self.exact.collections()
    }

    fn delete(&self, name: CollectionName, ids: Vec<ItemId>) -> Answer<'_, ()> {
        self.exact.delete(name, ids)
    }

    fn get(&self, name: CollectionName, id: ItemId) -> Answer<'_, Option<Point>> {
        self.exact.get(name, id)
    }

    fn count(&self, name: CollectionName, filter: Filter) -> Answer<'_, u64> {
        self.exact.count(name, filter)
    }

    fn scroll(&self, name: CollectionName, page: Page) -> Answer<'_, Vec<Item>> {
        self.exact.scroll(name, page)
    }

    fn search(&self, name: CollectionName, search: Search) -> Answer<'_, Vec<Hit>> {
        self.exact.search(name, search)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.exact.close()
    }
}

/// Items over a store, with an embedder that nobody needs.
fn items(store: Arc<dyn VectorStore>, folder: &TempDir) -> Items {
    let embedder = Embedder::new(&embedder::Config::default()).expect("an address");
    let cache = Embeddings::new(Arc::new(Memory::new(1 << 20, Duration::from_secs(60))));
    let vectors = Arc::new(Vectors::new(Arc::new(embedder), cache));
    let blobs = Blobs::in_folder(folder.path()).expect("a folder");
    let thumbnailer = Thumbnailer::new(NonZeroUsize::MIN, 1 << 20);
    Items::new(store, vectors, blobs, thumbnailer, ByteSize::mib(1))
}

#[tokio::test]
async fn an_item_is_not_acknowledged_before_it_is_there_for_good() {
    let folder = TempDir::new().expect("a temporary folder");
    let store = Arc::new(Fragile::default());
    let items = items(store.clone(), &folder);
    store.create(new_collection("c")).await.expect("made");
    let stored = point("a", [1.0; 4]);
    let new = NewItem {
        id: Some(id("a")),
        // What the item's content hash is the hash of.
        image: Bytes::from_static(b"a"),
        uri: stored.item.uri.clone(),
        filename: stored.item.filename.clone(),
        metadata: stored.item.metadata.clone(),
    };

    store.is_broken.store(true, Ordering::SeqCst);
    store.upsert(name("c"), vec![stored]).await.expect_err("written, but not for good");
    let hashed = items.hash(new).await.expect("hashed");
    let again = items.index(&name("c"), hashed.clone(), Lane::Interactive).await;
    let error = again.expect_err("it can be read, and a power failure would take it");
    assert!(matches!(error, Error::StoreUnavailable(_)), "trying again may help: {error}");

    store.is_broken.store(false, Ordering::SeqCst);
    let (_, outcome) =
        items.index(&name("c"), hashed, Lane::Interactive).await.expect("acknowledged");
    assert_eq!(outcome, Outcome::Unchanged, "it was there already");
    assert_eq!(store.syncs.load(Ordering::SeqCst), 2, "made sure of before each answer");
}
