use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytesize::ByteSize;
use clipmesh_proto::Embedding;
use clipmesh_proto::ids::ItemId;
use tokio::sync::Semaphore;

use super::*;
use crate::cache::Caches;
use crate::cache::config::Config as CacheConfig;
use crate::embedder::{self, Embedder};
use crate::filter::{Field, Filter};
use crate::item::{Etag, Scalar};
use crate::query::{Example, Fields, Part, Request, Way};
use crate::store::contract::{name, new_collection, point};
use crate::store::exact::Exact;
use crate::store::index::FieldIndex;
use crate::store::{
    Answer as Stored, Collection, Facet, Group, Grouped, Hit, NewCollection, Ordered, Page, Point,
    Record, Search, Status, VectorIndexChange,
};
use crate::vectors::Vectors;

/// A store that answers a search when it may.
#[derive(Debug)]
struct Slow {
    exact: Exact,
    calls: AtomicUsize,
    leave: Semaphore,
    is_late: AtomicBool,
}

impl Slow {
    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

const UNASKED: &str = "a search asks for nothing else";

impl VectorStore for Slow {
    fn search(&self, name: CollectionName, searches: Vec<Search>) -> Stored<'_, Vec<Vec<Hit>>> {
        self.calls.fetch_add(searches.len(), Ordering::SeqCst);
        async {
            self.leave.acquire().await.expect("open").forget();
            if self.is_late.swap(false, Ordering::SeqCst) {
                return Err(store::Error::TimedOut);
            }
            self.exact.search(name, searches).await
        }
        .boxed()
    }

    fn resolve(&self, name: CollectionName) -> Stored<'_, Collection> {
        self.exact.resolve(name)
    }

    fn upsert(&self, name: CollectionName, points: Vec<Point>) -> Stored<'_, ()> {
        self.exact.upsert(name, points)
    }

    fn create(&self, _: NewCollection) -> Stored<'_, Collection> {
        unreachable!("{UNASKED}")
    }

    fn remove(&self, _: CollectionName) -> Stored<'_, Collection> {
        unreachable!("{UNASKED}")
    }

    fn collections(&self) -> Stored<'_, Vec<Collection>> {
        unreachable!("{UNASKED}")
    }

    fn set_vector_index(&self, _: CollectionName, _: VectorIndexChange) -> Stored<'_, Collection> {
        unreachable!("{UNASKED}")
    }

    fn create_index(&self, _: CollectionName, _: FieldIndex) -> Stored<'_, Collection> {
        unreachable!("{UNASKED}")
    }

    fn remove_index(&self, _: CollectionName, _: Field) -> Stored<'_, Collection> {
        unreachable!("{UNASKED}")
    }

    fn set_alias(
        &self,
        _: CollectionName,
        _: CollectionName,
    ) -> Stored<'_, Option<CollectionName>> {
        unreachable!("{UNASKED}")
    }

    fn remove_alias(&self, _: CollectionName) -> Stored<'_, ()> {
        unreachable!("{UNASKED}")
    }

    fn aliases(&self) -> Stored<'_, BTreeMap<CollectionName, CollectionName>> {
        unreachable!("{UNASKED}")
    }

    fn status(&self, _: CollectionName) -> Stored<'_, Status> {
        unreachable!("{UNASKED}")
    }

    fn replace(&self, _: CollectionName, _: Point, _: Option<Etag>) -> Stored<'_, bool> {
        unreachable!("{UNASKED}")
    }

    fn delete(&self, _: CollectionName, _: Vec<ItemId>) -> Stored<'_, ()> {
        unreachable!("{UNASKED}")
    }

    fn delete_unchanged(&self, _: CollectionName, _: ItemId, _: Etag) -> Stored<'_, bool> {
        unreachable!("{UNASKED}")
    }

    fn sync(&self, _: CollectionName) -> Stored<'_, ()> {
        unreachable!("{UNASKED}")
    }

    fn get(&self, _: CollectionName, _: Vec<ItemId>, _: bool) -> Stored<'_, Vec<Record>> {
        unreachable!("{UNASKED}")
    }

    fn count(&self, _: CollectionName, _: Filter) -> Stored<'_, u64> {
        unreachable!("{UNASKED}")
    }

    fn scroll(&self, _: CollectionName, _: Page) -> Stored<'_, Vec<Record>> {
        unreachable!("{UNASKED}")
    }

    fn ordered(&self, _: CollectionName, _: Ordered) -> Stored<'_, Vec<(Record, f64)>> {
        unreachable!("{UNASKED}")
    }

    fn group(&self, _: CollectionName, _: Grouped) -> Stored<'_, Vec<Group>> {
        unreachable!("{UNASKED}")
    }

    fn facet(&self, _: CollectionName, _: Facet) -> Stored<'_, Vec<(Scalar, u64)>> {
        unreachable!("{UNASKED}")
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        unreachable!("{UNASKED}")
    }
}

/// Searches in a collection of one item, with an embedder that nobody needs.
async fn searches() -> (Arc<Slow>, Searches) {
    let exact = Exact::default();
    exact.create(new_collection("pets")).await.expect("made");
    exact.upsert(name("pets"), vec![point("a", [1.0; 4])]).await.expect("stored");
    let (calls, leave, is_late) = (AtomicUsize::new(0), Semaphore::new(0), AtomicBool::new(false));
    let store = Arc::new(Slow { exact, calls, leave, is_late });
    let caches = Caches::new(&CacheConfig::default()).expect("in memory");
    let embedder = Embedder::new(&embedder::Config::default()).expect("an address");
    let searches = Searches {
        store: Arc::clone(&store) as Arc<dyn VectorStore>,
        vectors: Arc::new(Vectors::new(Arc::new(embedder), caches.clone())),
        caches,
        max_image_bytes: ByteSize::mib(1),
        flights: Flights::default(),
    };
    (store, searches)
}

/// A search along one of several directions.
fn along(first: f32) -> Request {
    let values = Embedding::new(vec![first, 1.0, 0.0, 0.0]).expect("a direction");
    let example = Example::Vector { values, fingerprint: None };
    Request {
        collection: name("pets"),
        query: vec![Part { field: "query".to_owned(), weight: 1.0, example }],
        way: Way::Nearest,
        filter: Filter::default(),
        limit: 10,
        offset: 0,
        threshold: None,
        exact: false,
        effort: None,
        fields: Fields::default(),
        vectors: false,
    }
}

fn hits(answer: Result<Answer, Error>) -> usize {
    answer.expect("an answer").response.hits.len()
}

#[tokio::test]
async fn the_same_search_is_asked_once_for_all_that_want_it() {
    let (store, searches) = searches().await;
    let batch = || searches.search_all(vec![Ok(along(1.0)), Ok(along(2.0)), Ok(along(1.0))]);
    let wanted = async { futures::join!(batch(), searches.search(along(2.0)), batch()) };
    let mut wanted = Box::pin(wanted);
    assert!(futures::poll!(&mut wanted).is_pending(), "the store is asked");
    assert_eq!(store.calls(), 2, "for each of two searches once");
    store.leave.add_permits(1);
    let (one, alone, other) = wanted.await;
    for answer in one.into_iter().chain([alone]).chain(other) {
        assert_eq!(hits(answer), 1, "to each caller");
    }
    let again = searches.search(along(1.0)).await.expect("an answer");
    assert!(again.timing.result_cached, "and it is kept");
}

#[tokio::test]
async fn a_caller_that_goes_away_strands_nobody() {
    let (store, searches) = searches().await;
    let mut first = Box::pin(searches.search_all(vec![Ok(along(2.0)), Ok(along(1.0))]));
    assert!(futures::poll!(&mut first).is_pending(), "the store is asked");
    let mut second = Box::pin(searches.search(along(1.0)));
    assert!(futures::poll!(&mut second).is_pending(), "it joins");
    drop(first);
    store.leave.add_permits(1);
    assert_eq!(hits(second.await), 1, "it is answered");
    assert_eq!(store.calls(), 2, "by what the other began");
}

#[tokio::test]
async fn who_had_less_time_fails_no_other() {
    let (store, searches) = searches().await;
    store.is_late.store(true, Ordering::SeqCst);
    store.leave.add_permits(2);
    let (first, second) = futures::join!(searches.search(along(1.0)), searches.search(along(1.0)));
    assert!(matches!(first, Err(Error::StoreUnavailable(_))), "its time was up: {first:?}");
    assert_eq!(hits(second), 1, "it asks by itself");
}

#[tokio::test]
async fn what_began_before_a_write_is_not_joined_after_it() {
    let (store, searches) = searches().await;
    let mut before = Box::pin(searches.search(along(1.0)));
    assert!(futures::poll!(&mut before).is_pending(), "the store is asked");
    store.upsert(name("pets"), vec![point("b", [1.0; 4])]).await.expect("stored");
    let mut after = Box::pin(searches.search(along(1.0)));
    assert!(futures::poll!(&mut after).is_pending(), "the store is asked");
    assert_eq!(store.calls(), 2, "again");
    store.leave.add_permits(2);
    assert_eq!(hits(after.await), 2, "and shows the write");
}
