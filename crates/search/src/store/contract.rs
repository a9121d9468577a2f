//! What every store must do, as one suite that runs on each of them.

mod features;
mod filters;
pub(crate) mod oracle;

use std::collections::BTreeMap;

use clipmesh_proto::Embedding;
use clipmesh_proto::ids::{CollectionName, ContentHash, Fingerprint, ItemId, PixelHash};
use jiff::Timestamp;

use super::index::{Indexes, VectorIndex};
use super::{Distance, Error, NewCollection, Page, Point, Search, Target, VectorStore};
use crate::filter::{Field, Filter, Test};
use crate::item::{Item, Metadata, Scalar, Value};

/// Length of the vectors in these tests.
pub(crate) const DIMENSION: usize = 4;

/// A collection's name.
pub(crate) fn name(text: &str) -> CollectionName {
    CollectionName::try_from(text.to_owned()).expect("a valid name")
}

/// An item's id.
pub(crate) fn id(text: &str) -> ItemId {
    ItemId::try_from(text.to_owned()).expect("a valid id")
}

/// A collection to be made.
pub(crate) fn new_collection(text: &str) -> NewCollection {
    let fingerprint = ContentHash::of(b"model").to_string();
    NewCollection {
        name: name(text),
        fingerprint: Fingerprint::try_from(fingerprint).expect("64 digits"),
        model_name: "tiny".to_owned(),
        dimension: DIMENSION,
        distance: Distance::Cosine,
        indexes: Indexes::default(),
        vector_index: VectorIndex::default(),
        word_fields: Vec::new(),
    }
}

/// An item with plausible facts and no metadata.
pub(crate) fn item(text: &str) -> Item {
    Item {
        id: id(text),
        uri: String::new(),
        filename: format!("{text}.jpg"),
        width: 640,
        height: 480,
        format: "jpeg".to_owned(),
        byte_size: 10_000,
        content_hash: Some(ContentHash::of(text.as_bytes())),
        pixel_hash: Some(PixelHash::of(1, 1, text.as_bytes())),
        perceptual_hash: Some(0xF0F0_0000_0000_0001.into()),
        create_time: Timestamp::from_microsecond(1_700_000_000_123_456).expect("a time"),
        update_time: Timestamp::from_microsecond(1_700_000_001_654_321).expect("a time"),
        metadata: Metadata::new(),
    }
}

/// An item in a direction.
pub(crate) fn point(text: &str, vector: [f32; DIMENSION]) -> Point {
    let vector = Embedding::new(vector.to_vec()).expect("a direction");
    Point { item: item(text), vector }
}

pub(crate) fn string(text: &str) -> Scalar {
    Scalar::String(text.to_owned())
}

fn field(name: &str) -> Field {
    Field::Metadata(name.to_owned())
}

fn number(number: f64) -> Value {
    Value::One(Scalar::Number(number))
}

fn text(text: &str) -> Value {
    Value::One(string(text))
}

/// An item with one field `f`, in a direction.
fn with(id: &str, value: Value, vector: [f32; DIMENSION]) -> Point {
    let mut point = point(id, vector);
    point.item.metadata = Metadata::from([("f".to_owned(), value)]);
    point
}

/// A filter with one condition that must hold.
pub(crate) fn must(field: Field, test: Test) -> Filter {
    Filter::default().and(field, test)
}

/// A search along a direction for everything.
pub(crate) fn search(vector: [f32; DIMENSION], limit: usize) -> Search {
    Search {
        target: Target::Vector(Embedding::new(vector.to_vec()).expect("a direction")),
        filter: Filter::default(),
        exclude: Vec::new(),
        offset: 0,
        limit,
        threshold: None,
        exact: false,
        effort: None,
        vectors: false,
    }
}

/// The ids that pass a filter, in order, found page by page.
pub(crate) async fn passing(
    store: &dyn VectorStore,
    collection: &CollectionName,
    filter: &Filter,
    page_size: usize,
) -> Vec<String> {
    let mut found = Vec::new();
    let mut after: Option<ItemId> = None;
    loop {
        let after_id = after.take();
        let page =
            Page { filter: filter.clone(), after: after_id, limit: page_size, vectors: false };
        let records = store.scroll(collection.clone(), page).await.expect("a page");
        let items: Vec<_> = records.into_iter().map(|record| record.item).collect();
        assert!(items.len() <= page_size, "a page holds at most its limit");
        after = items.last().map(|item| item.id.clone());
        found.extend(items.iter().map(|item| item.id.to_string()));
        if items.len() < page_size {
            break;
        }
    }
    let count = store.count(collection.clone(), filter.clone()).await.expect("a count");
    assert_eq!(count, found.len() as u64, "count and listing agree on {filter:?}");
    found.sort();
    found
}

async fn hits(store: &dyn VectorStore, collection: &str, search: Search) -> Vec<(String, f32)> {
    let answers = store.search(name(collection), vec![search]).await.expect("an answer");
    answers.into_iter().flatten().map(|hit| (hit.item.id.to_string(), hit.score)).collect()
}

async fn ids(store: &dyn VectorStore, collection: &str, search: Search) -> Vec<String> {
    hits(store, collection, search).await.into_iter().map(|(id, _)| id).collect()
}

/// Runs the suite on an empty store.
pub(crate) async fn verify(store: &dyn VectorStore) {
    collections_come_and_go(store).await;
    points_come_and_go(store).await;
    writes_raise_the_generation(store).await;
    refuses_what_does_not_fit(store).await;
    pages_are_complete(store).await;
    searches_rank_and_cut(store).await;
    equal_scores_are_in_order_of_id(store).await;
    filters::verify(store).await;
    features::verify(store).await;
}

async fn collections_come_and_go(store: &dyn VectorStore) {
    assert_eq!(store.collections().await, Ok(vec![]), "a new store is empty");
    let made = store.create(new_collection("b")).await.expect("made");
    store.create(new_collection("a")).await.expect("made");
    let all = store.collections().await.expect("an answer");
    let names: Vec<_> = all.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["a", "b"], "in order of name");

    let again = store.create(new_collection("b")).await.map(|c| c.name);
    assert_eq!(again, Err(Error::CollectionExists(name("b"))), "names are unique");
    store.upsert(name("b"), vec![point("x", [1.0, 0.0, 0.0, 0.0])]).await.expect("stored");

    store.remove(name("b")).await.expect("removed");
    let gone = Err(Error::NoCollection(name("b")));
    assert_eq!(store.resolve(name("b")).await.map(|c| c.name), gone, "it is gone");
    assert_eq!(store.remove(name("b")).await.map(|c| c.name), gone, "only once");
    let gone = Err(Error::NoCollection(name("b")));
    assert_eq!(store.count(name("b"), Filter::default()).await, gone, "and can't be read");
    assert_eq!(store.sync(name("b")).await, Err(Error::NoCollection(name("b"))), "nor kept");

    let remade = store.create(new_collection("b")).await.expect("made anew");
    assert_ne!(remade.uid, made.uid, "it is another one");
    let count = store.count(name("b"), Filter::default()).await;
    assert_eq!(count, Ok(0), "nothing of the old one is left");
    store.remove(name("a")).await.expect("removed");
    store.remove(name("b")).await.expect("removed");
}

async fn points_come_and_go(store: &dyn VectorStore) {
    store.create(new_collection("points")).await.expect("made");
    let points = name("points");
    let mut first = point("ä/1", [1.0, 2.0, 3.0, 4.0]);
    first.item.metadata = BTreeMap::from([
        ("tags".to_owned(), Value::Many(vec![string("Red"), string("blau")])),
        ("rating".to_owned(), Value::One(Scalar::Number(0.1 + 0.2))),
    ]);
    store.upsert(points.clone(), vec![first.clone()]).await.expect("stored");
    let found = store.point(points.clone(), id("ä/1")).await.expect("an answer").expect("there");
    assert_eq!(found.item, first.item, "the item comes back as it was");
    assert!(found.vector.dot(&first.vector) > 0.999_999, "and so does its vector");

    let mut second = point("ä/1", [4.0, 3.0, 2.0, 1.0]);
    second.item.uri = "file:///1".to_owned();
    store.upsert(points.clone(), vec![second.clone()]).await.expect("replaced");
    let found = store.point(points.clone(), id("ä/1")).await.expect("an answer").expect("there");
    assert_eq!(found.item, second.item, "nothing of the first is left");
    assert_eq!(store.count(points.clone(), Filter::default()).await, Ok(1), "one item");

    let absent = store.point(points.clone(), id("other")).await;
    assert_eq!(absent, Ok(None), "what is not there is not found");
    store.delete(points.clone(), vec![id("ä/1"), id("other")]).await.expect("deleted");
    assert_eq!(store.point(points.clone(), id("ä/1")).await, Ok(None), "deleted");
    assert_eq!(store.count(points, Filter::default()).await, Ok(0), "no item");
}

async fn writes_raise_the_generation(store: &dyn VectorStore) {
    let made = store.create(new_collection("generation")).await.expect("made");
    let Some(before) = made.generation else {
        // Others may write there, too, so that it can't count.
        return;
    };
    let generation = async || {
        let collection = store.resolve(name("generation")).await.expect("there");
        collection.generation.expect("counted")
    };
    let stored = [point("a", [1.0, 0.0, 0.0, 0.0])];
    store.upsert(name("generation"), stored.to_vec()).await.expect("stored");
    let after_upsert = generation().await;
    assert!(after_upsert > before, "an insertion raises it");
    store.search(name("generation"), vec![search([1.0; 4], 1)]).await.expect("an answer");
    assert_eq!(generation().await, after_upsert, "a search does not");
    assert_eq!(store.sync(name("generation")).await, Ok(()), "what is there is there for good");
    assert_eq!(generation().await, after_upsert, "nothing was changed by that");
    store.delete(name("generation"), vec![id("a")]).await.expect("deleted");
    assert!(generation().await > after_upsert, "a deletion raises it");
}

async fn refuses_what_does_not_fit(store: &dyn VectorStore) {
    store.create(new_collection("fit")).await.expect("made");
    let short = Embedding::new(vec![1.0; 3]).expect("a direction");
    let misfit = Point { item: item("misfit"), vector: short.clone() };
    let batch = vec![point("a", [1.0; 4]), misfit, point("b", [1.0; 4])];
    let wrong = Error::WrongDimension { expected: DIMENSION, actual: 3 };
    assert_eq!(store.upsert(name("fit"), batch).await, Err(wrong.clone()), "3 are not 4");
    let count = store.count(name("fit"), Filter::default()).await;
    assert_eq!(count, Ok(0), "no point of a refused batch is stored");
    let search = Search { target: Target::Vector(short), ..search([1.0; 4], 1) };
    assert_eq!(store.search(name("fit"), vec![search]).await, Err(wrong), "nor searched");
}

async fn pages_are_complete(store: &dyn VectorStore) {
    store.create(new_collection("pages")).await.expect("made");
    let ids: Vec<_> = (0..57).map(|i| format!("item {i:02}")).collect();
    let points = ids.iter().map(|id| point(id, [1.0; 4])).collect();
    store.upsert(name("pages"), points).await.expect("stored");
    for page_size in [1, 7, 19, 56, 57, 58] {
        let found = passing(store, &name("pages"), &Filter::default(), page_size).await;
        assert_eq!(found, ids, "each item once in pages of {page_size}");
    }

    let page = |after| Page { filter: Filter::default(), after, limit: 20, vectors: false };
    let first = store.scroll(name("pages"), page(None)).await.expect("a page");
    let last = first.last().expect("20 items").item.id.clone();
    let rest = store.scroll(name("pages"), page(Some(last.clone()))).await.expect("a page");
    store.delete(name("pages"), vec![last.clone()]).await.expect("deleted");
    let again = store.scroll(name("pages"), page(Some(last))).await.expect("a page");
    assert_eq!(again, rest, "a deleted item still marks its place");
}

async fn searches_rank_and_cut(store: &dyn VectorStore) {
    store.create(new_collection("search")).await.expect("made");
    let nothing = ids(store, "search", search([1.0; 4], 5)).await;
    assert!(nothing.is_empty(), "an empty collection has no hits");
    let points = vec![
        point("same", [1.0, 0.0, 0.0, 0.0]),
        point("near", [1.0, 0.5, 0.0, 0.0]),
        point("far", [0.1, 1.0, 0.0, 0.0]),
        point("across", [0.0, 0.0, 1.0, 0.0]),
        point("against", [-1.0, 0.0, 0.0, 0.0]),
    ];
    store.upsert(name("search"), points).await.expect("stored");
    let along = [3.0, 0.0, 0.0, 0.0];

    let all = hits(store, "search", search(along, 10)).await;
    let order: Vec<_> = all.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(order, ["same", "near", "far", "across", "against"], "best first");
    for ((id, score), cosine) in all.iter().zip([1.0, 0.894_427, 0.099_503_7, 0.0, -1.0]) {
        assert!((score - cosine).abs() < 1e-5, "`{id}` scores {cosine}, not {score}");
        assert!((-1.0..=1.0).contains(score), "`{id}` stays on the scale");
    }

    let page = Search { offset: 1, ..search(along, 2) };
    assert_eq!(ids(store, "search", page).await, ["near", "far"], "offset and limit");
    let beyond = Search { offset: 5, ..search(along, 2) };
    assert!(ids(store, "search", beyond).await.is_empty(), "beyond the end is nothing");
    let above = Search { threshold: Some(0.5), ..search(along, 10) };
    assert_eq!(ids(store, "search", above).await, ["same", "near"], "threshold");
    let equal = Search { threshold: Some(1.0), ..search(along, 10) };
    assert_eq!(ids(store, "search", equal).await, ["same"], "a score at the threshold is a hit");
    let negative = Search { threshold: Some(-0.5), ..search(along, 10) };
    assert_eq!(ids(store, "search", negative).await.len(), 4, "thresholds below zero");
    let others = Search { exclude: vec![id("same"), id("far"), id("gone")], ..search(along, 2) };
    assert_eq!(ids(store, "search", others).await, ["near", "across"], "some can be left out");
    let filter = must(Field::Id, Test::AnyOf(vec![string("far"), string("against")]));
    let filtered = Search { filter, ..search(along, 10) };
    assert_eq!(ids(store, "search", filtered).await, ["far", "against"], "filtered");
}

async fn equal_scores_are_in_order_of_id(store: &dyn VectorStore) {
    store.create(new_collection("ties")).await.expect("made");
    // More of them than any margin a store may keep for ties.
    let mut points: Vec<_> =
        (0..90).map(|i| point(&format!("tie {i:02}"), [0.0, 1.0, 0.0, 0.0])).collect();
    points.push(point("best", [1.0, 1.0, 0.0, 0.0]));
    store.upsert(name("ties"), points).await.expect("stored");
    let mut found = Vec::new();
    for offset in (0..100).step_by(4) {
        let page = Search { offset, ..search([1.0, 1.0, 0.0, 0.0], 4) };
        found.extend(ids(store, "ties", page).await);
    }
    let ties = (0..90).map(|i| format!("tie {i:02}"));
    let expected: Vec<_> = std::iter::once("best".to_owned()).chain(ties).collect();
    assert_eq!(found, expected, "the pages of a search neither repeat nor lose a hit");
}
