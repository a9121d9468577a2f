use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tempfile::TempDir;

use super::*;
use crate::blobs;
use crate::cache::RedisServer;
use crate::cache::config::{Config as CacheConfig, Kind as CacheKind};
use crate::embedder::{self, Embedder, Lane};
use crate::item::Value;
use crate::store::contract::{id, name, new_collection, point};
use crate::store::exact::Exact;
use crate::store::index::FieldIndex;
use crate::store::{
    self, Answer, Group, Grouped, Hit, NewCollection, Ordered, Page, Point, Search, Status,
    VectorIndexChange,
};

/// A store over a disk that can break: what is written can be read, but is not there for good. It
/// may be written to by others, too.
#[derive(Debug, Default)]
struct Fragile {
    exact: Exact,
    is_broken: AtomicBool,
    syncs: AtomicUsize,
    /// Changes that others are about to make, each just before one that is to be made here.
    rivals: AtomicUsize,
    /// Whether it leaves the counting of changes to the cache.
    is_shared: bool,
}

impl Fragile {
    fn disk(&self) -> Result<(), store::Error> {
        let is_broken = self.is_broken.load(Ordering::SeqCst);
        if is_broken { Err(store::Error::Failed("the disk broke".to_owned())) } else { Ok(()) }
    }

    /// Lets another process be faster, if there still is one.
    async fn compete(&self, name: &CollectionName, id: &ItemId) -> Result<(), store::Error> {
        let rivals = self.rivals.load(Ordering::SeqCst);
        if rivals == 0 {
            return Ok(());
        }
        self.rivals.store(rivals - 1, Ordering::SeqCst);
        let exact: &dyn VectorStore = &self.exact;
        let found = exact.point(name.clone(), id.clone()).await?;
        let mut other = found.unwrap_or_else(|| point(id.as_str(), [0.0, 1.0, 0.0, 0.0]));
        (_, other.item.update_time) = intake::times_after(&other.item);
        let number = Value::One(Scalar::Number(rivals as f64));
        other.item.metadata.insert("rival".to_owned(), number);
        self.exact.upsert(name.clone(), vec![other]).await
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

    fn resolve(&self, name: CollectionName) -> Answer<'_, Collection> {
        async {
            let found = self.exact.resolve(name).await?;
            let generation = found.generation.filter(|_| !self.is_shared);
            Ok(Collection { generation, ..found })
        }
        .boxed()
    }

    fn collections(&self) -> Answer<'_, Vec<Collection>> {
        self.exact.collections()
    }

    fn set_vector_index(
        &self,
        name: CollectionName,
        change: VectorIndexChange,
    ) -> Answer<'_, Collection> {
        self.exact.set_vector_index(name, change)
    }

    fn create_index(&self, name: CollectionName, index: FieldIndex) -> Answer<'_, Collection> {
        self.exact.create_index(name, index)
    }

    fn remove_index(&self, name: CollectionName, field: Field) -> Answer<'_, Collection> {
        self.exact.remove_index(name, field)
    }

    fn set_alias(
        &self,
        alias: CollectionName,
        name: CollectionName,
    ) -> Answer<'_, Option<CollectionName>> {
        self.exact.set_alias(alias, name)
    }

    fn remove_alias(&self, alias: CollectionName) -> Answer<'_, ()> {
        self.exact.remove_alias(alias)
    }

    fn aliases(&self) -> Answer<'_, BTreeMap<CollectionName, CollectionName>> {
        self.exact.aliases()
    }

    fn status(&self, name: CollectionName) -> Answer<'_, Status> {
        self.exact.status(name)
    }

    fn replace(
        &self,
        name: CollectionName,
        point: Point,
        expected: Option<Etag>,
    ) -> Answer<'_, bool> {
        async {
            self.compete(&name, &point.item.id).await?;
            let replaced = self.exact.replace(name, point, expected).await?;
            self.disk().map(|()| replaced)
        }
        .boxed()
    }

    fn delete(&self, name: CollectionName, ids: Vec<ItemId>) -> Answer<'_, ()> {
        self.exact.delete(name, ids)
    }

    fn delete_unchanged(
        &self,
        name: CollectionName,
        id: ItemId,
        expected: Etag,
    ) -> Answer<'_, bool> {
        async {
            self.compete(&name, &id).await?;
            let deleted = self.exact.delete_unchanged(name, id, expected).await?;
            self.disk().map(|()| deleted)
        }
        .boxed()
    }

    fn get(
        &self,
        name: CollectionName,
        ids: Vec<ItemId>,
        vectors: bool,
    ) -> Answer<'_, Vec<Record>> {
        self.exact.get(name, ids, vectors)
    }

    fn count(&self, name: CollectionName, filter: Filter) -> Answer<'_, u64> {
        self.exact.count(name, filter)
    }

    fn scroll(&self, name: CollectionName, page: Page) -> Answer<'_, Vec<Record>> {
        self.exact.scroll(name, page)
    }

    fn ordered(&self, name: CollectionName, page: Ordered) -> Answer<'_, Vec<(Record, f64)>> {
        self.exact.ordered(name, page)
    }

    fn search(&self, name: CollectionName, searches: Vec<Search>) -> Answer<'_, Vec<Vec<Hit>>> {
        self.exact.search(name, searches)
    }

    fn group(&self, name: CollectionName, grouped: Grouped) -> Answer<'_, Vec<Group>> {
        self.exact.group(name, grouped)
    }

    fn facet(&self, name: CollectionName, facet: Facet) -> Answer<'_, Vec<(Scalar, u64)>> {
        self.exact.facet(name, facet)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.exact.close()
    }
}

/// Items over a store, with an embedder that nobody needs.
fn items(store: Arc<dyn VectorStore>, folder: &TempDir) -> Items {
    items_with(store, blobs(folder), memory())
}

fn memory() -> Caches {
    Caches::new(&CacheConfig::default()).expect("in memory")
}

fn blobs(folder: &TempDir) -> Blobs {
    Blobs::open(&blobs::Config::default(), folder.path()).expect("a folder")
}

fn items_with(store: Arc<dyn VectorStore>, blobs: Blobs, caches: Caches) -> Items {
    let embedder = Embedder::new(&embedder::Config::default()).expect("an address");
    let vectors = Arc::new(Vectors::new(Arc::new(embedder), caches.clone()));
    let thumbnailer = Thumbnailer::new(NonZeroUsize::MIN, 1 << 20);
    let (max_image_bytes, changes) = (ByteSize::mib(1), Changes::default());
    Items::new(Parts { store, vectors, caches, changes, blobs, thumbnailer, max_image_bytes })
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
        content: Content::Image(Bytes::from_static(b"a")),
        uri: stored.item.uri.clone(),
        filename: stored.item.filename.clone(),
        metadata: stored.item.metadata.clone(),
        etag: None,
    };

    store.is_broken.store(true, Ordering::SeqCst);
    store.upsert(name("c"), vec![stored]).await.expect_err("written, but not for good");
    let incoming = items.settle(new).await.expect("settled");
    let again = items.index(&name("c"), incoming.clone(), Lane::Interactive).await;
    let error = again.expect_err("it can be read, and a power failure would take it");
    assert!(matches!(error, Error::StoreUnavailable(_)), "trying again may help: {error}");

    store.is_broken.store(false, Ordering::SeqCst);
    let (_, outcome) =
        items.index(&name("c"), incoming, Lane::Interactive).await.expect("acknowledged");
    assert_eq!(outcome, Outcome::Unchanged, "it was there already");
    assert_eq!(store.syncs.load(Ordering::SeqCst), 2, "made sure of before each answer");
}

#[tokio::test]
async fn what_is_found_to_be_done_is_told_to_other_replicas() {
    let (folder, server) = (TempDir::new().expect("a temporary folder"), RedisServer::start());
    let config =
        CacheConfig { kind: CacheKind::Redis, redis: server.config(), ..CacheConfig::default() };
    let caches = Caches::new(&config).expect("an address");
    let store = Arc::new(Fragile { is_shared: true, ..Fragile::default() });
    let items = items_with(store.clone(), blobs(&folder), caches.clone());
    store.create(new_collection("c")).await.expect("made");
    let collection = store.resolve(name("c")).await.expect("there");
    let along = || Incoming::along("a", vec![1.0; 4]);
    items.index(&name("c"), along(), Lane::Interactive).await.expect("stored");

    // Whoever did it may have died before it told anyone.
    let before = caches.generation(&collection).await;
    let (_, outcome) = items.index(&name("c"), along(), Lane::Interactive).await.expect("there");
    assert_eq!(outcome, Outcome::Unchanged, "it is there");
    let indexed = caches.generation(&collection).await;
    assert_ne!(indexed, before, "an item that is there");
    items.update(name("c"), id("a"), Change::default(), None).await.expect("nothing to do");
    let updated = caches.generation(&collection).await;
    assert_ne!(updated, indexed, "one that is as it is to be");
    let gone = Which::Ids(vec![id("b")]);
    let deleted = items.delete_many(&collection, gone).await.expect("nothing to do");
    assert_eq!(deleted, 0, "it is not there");
    assert_ne!(caches.generation(&collection).await, updated, "one that is gone");
}

fn change(uri: &str) -> Change {
    Change { uri: Some(uri.to_owned()), ..Change::default() }
}

#[tokio::test]
async fn a_change_begins_anew_when_another_process_was_faster() {
    let folder = TempDir::new().expect("a temporary folder");
    let store = Arc::new(Fragile::default());
    let items = items(store.clone(), &folder);
    store.create(new_collection("c")).await.expect("made");
    store.upsert(name("c"), vec![point("a", [1.0; 4])]).await.expect("stored");

    store.rivals.store(3, Ordering::SeqCst);
    let changed = items.update(name("c"), id("a"), change("1"), None).await.expect("at last");
    assert_eq!(changed.uri, "1", "changed");
    let rival = changed.metadata.get("rival");
    assert_eq!(rival, Some(&Value::One(Scalar::Number(1.0))), "on top of what the others changed");

    store.rivals.store(1, Ordering::SeqCst);
    let etag = Some(changed.etag());
    let refused = items.update(name("c"), id("a"), change("2"), etag.clone()).await;
    assert!(matches!(refused, Err(Error::EtagMismatch { .. })), "not as it was: {refused:?}");
    let refused = items.delete(name("c"), id("a"), etag).await;
    assert!(matches!(refused, Err(Error::EtagMismatch { .. })), "not as it was: {refused:?}");

    store.rivals.store(1, Ordering::SeqCst);
    let found = items.get(name("c"), id("a"), false).await.expect("there").item;
    let refused = items.delete(name("c"), id("a"), Some(found.etag())).await;
    assert!(matches!(refused, Err(Error::EtagMismatch { .. })), "at the last moment: {refused:?}");
    assert!(items.get(name("c"), id("a"), false).await.is_ok(), "it is there");

    store.rivals.store(100, Ordering::SeqCst);
    let refused = items.update(name("c"), id("a"), change("3"), None).await;
    assert!(matches!(refused, Err(Error::EtagMismatch { .. })), "it does not try for ever");
}

#[tokio::test]
async fn an_item_that_another_process_made_first_is_replaced() {
    let folder = TempDir::new().expect("a temporary folder");
    let store = Arc::new(Fragile::default());
    let items = items(store.clone(), &folder);
    store.create(new_collection("c")).await.expect("made");
    store.rivals.store(1, Ordering::SeqCst);
    let incoming = Incoming::along("a", vec![1.0, 0.0, 0.0, 0.0]);
    let indexed = items.index(&name("c"), incoming, Lane::Interactive).await;
    let (item, outcome) = indexed.expect("stored");
    assert_eq!(outcome, Outcome::Replaced, "the other was faster");
    assert_eq!(item.create_time, point("a", [1.0; 4]).item.create_time, "it made the item");
    let found = items.get(name("c"), id("a"), true).await.expect("there");
    assert_eq!((found.item, found.vector.map(|vector| vector.values()[0])), (item, Some(1.0)));
}

#[tokio::test]
async fn a_deletion_is_whole_though_its_caller_leaves() {
    let folder = TempDir::new().expect("a temporary folder");
    let store = Arc::new(Fragile::default());
    let items = items(store.clone(), &folder);
    store.create(new_collection("c")).await.expect("made");
    store.upsert(name("c"), vec![point("a", [1.0; 4])]).await.expect("stored");
    let found = items.get(name("c"), id("a"), false).await.expect("there").item;
    let mut deletion = Box::pin(items.delete(name("c"), id("a"), Some(found.etag())));
    assert!(futures::poll!(&mut deletion).is_pending(), "it has begun");
    drop(deletion);
    items.writer.changes.settle().await;
    let left = items.get(name("c"), id("a"), false).await;
    assert!(matches!(left, Err(Error::NoItem { .. })), "it is gone, and not another: {left:?}");
}

#[tokio::test(start_paused = true)]
async fn an_object_store_that_is_slow_does_not_hold_up_a_deletion() {
    let store = Arc::new(Fragile::default());
    let hour = Duration::from_secs(3_600);
    let blobs = Blobs::slow_to_delete(hour);
    let items = items_with(store.clone(), blobs.clone(), memory());
    let collection = store.create(new_collection("c")).await.expect("made");
    let item = point("a", [1.0; 4]).item;
    store.upsert(name("c"), vec![point("a", [1.0; 4])]).await.expect("stored");
    let content_hash = item.content_hash.expect("a picture");
    let file = Name { uid: &collection.uid, id: &item.id, content_hash: &content_hash };
    blobs.put(&file, File::Thumbnail, Bytes::from_static(b"small")).await.expect("written");
    let is_there = async || blobs.get(&file, File::Thumbnail).await.expect("an answer").is_some();

    let begun = tokio::time::Instant::now();
    items.delete(name("c"), id("a"), None).await.expect("deleted");
    assert!(begun.elapsed() < hour, "it does not wait for the files");
    assert!(is_there().await, "which are there");
    let turn = items.locks.lock(&name("c"), &id("a")).now_or_never();
    assert!(turn.is_none(), "nobody stores such a picture again meanwhile");
    items.writer.changes.settle().await;
    assert!(!is_there().await, "at last they are gone");
}
