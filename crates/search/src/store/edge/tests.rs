use std::fs;

use clipmesh_proto::Embedding;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tempfile::TempDir;

use super::*;
use crate::filter::{Condition, Field, Range, Test};
use crate::item::{Metadata, Scalar, Value};
use crate::store::contract::{
    self, DIMENSION, id, item, name, new_collection, passing, point, search,
};
use crate::store::exact::Exact;

async fn open(folder: &TempDir) -> Edge {
    Edge::open(folder.path().to_owned(), Config::default()).await.expect("opened")
}

fn folder() -> TempDir {
    TempDir::new().expect("a temporary folder")
}

/// What is in the store's root beside its lock.
fn folders(folder: &TempDir) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.path()).expect("readable");
    entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_dir()).collect()
}

#[tokio::test]
async fn keeps_the_contract() {
    let folder = folder();
    let store = open(&folder).await;
    contract::verify(&store).await;
    store.close().await;
}

#[tokio::test]
async fn keeps_the_contract_when_every_write_waits_for_the_disk() {
    let folder = folder();
    let config = Config { sync_writes: true, ..Config::default() };
    let store = Edge::open(folder.path().to_owned(), config).await.expect("opened");
    contract::verify(&store).await;
    store.close().await;
}

#[tokio::test]
async fn finds_everything_again_after_reopening() {
    let folder = folder();
    let store = open(&folder).await;
    store.create(new_collection("kept")).await.expect("made");
    let points = vec![point("a", [1.0, 0.0, 0.0, 0.0]), point("b", [0.0, 1.0, 0.0, 0.0])];
    store.upsert(name("kept"), points.clone()).await.expect("stored");
    store.delete(name("kept"), vec![id("b")]).await.expect("deleted");
    let before = store.collection(&name("kept")).expect("there");
    store.close().await;
    drop(store);

    let store = open(&folder).await;
    let after = store.collection(&name("kept")).expect("there");
    assert_eq!(after.uid, before.uid, "it is the same collection");
    assert_eq!(after.fingerprint, before.fingerprint, "of the same model");
    assert_eq!(after.create_time, before.create_time, "as old as before");
    assert!(after.generation > before.generation, "generations never fall");
    let found = store.get(name("kept"), id("a")).await.expect("an answer").expect("there");
    assert_eq!(found.item, points[0].item, "the item is there");
    assert_eq!(store.get(name("kept"), id("b")).await, Ok(None), "the deleted one is not");
    let hits = store.search(name("kept"), search([1.0, 0.0, 0.0, 0.0], 5)).await;
    assert_eq!(hits.expect("an answer").len(), 1, "and it can be searched");
    store.close().await;
}

#[tokio::test]
async fn clears_away_what_a_crash_left_half_done() {
    let folder = folder();
    let store = open(&folder).await;
    store.create(new_collection("whole")).await.expect("made");
    store.create(new_collection("half")).await.expect("made");
    store.close().await;
    drop(store);
    // A folder without its record is one whose making or removal was cut short.
    let is_half = |path: &PathBuf| path.to_string_lossy().contains("half.");
    let half = folders(&folder).into_iter().find(is_half).expect("its folder");
    fs::remove_file(half.join("collection.json")).expect("removed");
    let never_begun = format!("begun.{}", Uuid::new_v4().simple());
    fs::create_dir(folder.path().join(never_begun)).expect("made");
    fs::create_dir(folder.path().join("lost+found")).expect("made");

    let store = open(&folder).await;
    let names: Vec<_> = store.collections().into_iter().map(|c| c.name.to_string()).collect();
    assert_eq!(names, ["whole"], "the whole one is there");
    let left = folders(&folder);
    assert_eq!(left.len(), 2, "nothing else of ours is on the disk: {left:?}");
    assert!(left.iter().any(|path| path.ends_with("lost+found")), "and what is not ours stays");
    store.close().await;
}

#[tokio::test]
async fn a_removed_collection_leaves_nothing_on_the_disk() {
    let folder = folder();
    let store = open(&folder).await;
    store.create(new_collection("gone")).await.expect("made");
    store.upsert(name("gone"), vec![point("a", [1.0; 4])]).await.expect("stored");
    store.remove(name("gone")).await.expect("removed");
    store.close().await;
    assert!(folders(&folder).is_empty(), "its folder is gone: {:?}", folders(&folder));
}

#[tokio::test]
async fn a_collection_that_can_not_be_recorded_leaves_nothing_on_the_disk() {
    let folder = folder();
    let exact = Exact::default();
    let collection = exact.create(new_collection("half")).await.expect("described");
    // In the way of the record's draft.
    let half = folder.path().join(format!("half.{}", collection.uid));
    fs::create_dir_all(half.join("collection.tmp")).expect("made");
    let claimed = Folder::new(folder.path(), &collection);
    let made = Shard::create(claimed, &collection, &Config::default());
    made.expect_err("there is no place for its record");
    assert!(folders(&folder).is_empty(), "nothing is left: {:?}", folders(&folder));
}

#[tokio::test]
async fn refuses_to_start_on_two_collections_of_one_name() {
    let folder = folder();
    let store = open(&folder).await;
    store.create(new_collection("twin")).await.expect("made");
    store.close().await;
    drop(store);
    let one = folders(&folder).remove(0);
    // As left by whoever kept a copy beside the original.
    let other = folder.path().join("twin.old");
    fs::create_dir(&other).expect("made");
    fs::copy(one.join("collection.json"), other.join("collection.json")).expect("copied");
    let error = Edge::open(folder.path().to_owned(), Config::default()).await.expect_err("refused");
    for path in [&one, &other] {
        let path = path.to_string_lossy();
        assert!(error.to_string().contains(&*path), "`{path}` is named: {error}");
    }
    fs::remove_dir_all(&other).expect("moved away");
    open(&folder).await.close().await;
}

#[tokio::test]
async fn refuses_to_start_on_a_record_it_can_not_read() {
    let folder = folder();
    let store = open(&folder).await;
    store.create(new_collection("sound")).await.expect("made");
    store.close().await;
    drop(store);
    let record = folders(&folder)[0].join("collection.json");
    fs::write(&record, "{").expect("written");
    let error = Edge::open(folder.path().to_owned(), Config::default()).await.expect_err("refused");
    assert!(error.to_string().contains("collection.json"), "the file is named: {error}");
    assert!(record.exists(), "and left to whoever can mend it");
}

#[tokio::test]
async fn one_folder_serves_one_store() {
    let folder = folder();
    let first = open(&folder).await;
    let second = Edge::open(folder.path().to_owned(), Config::default()).await;
    let error = second.expect_err("refused");
    assert!(error.to_string().contains("in use"), "the reason is given: {error}");
    first.close().await;
    open(&folder).await.close().await;
}

#[tokio::test]
async fn a_closed_store_fails_instead_of_answering() {
    let folder = folder();
    let store = open(&folder).await;
    store.create(new_collection("late")).await.expect("made");
    store.close().await;
    assert!(store.create(new_collection("later")).await.is_err(), "nothing is made");
    let late = store.upsert(name("late"), vec![point("a", [1.0; 4])]).await;
    assert!(late.is_err(), "nothing is acknowledged");
    let count = store.count(name("late"), Filter::default()).await;
    assert_eq!(count, Err(closed()), "and nothing is said to be missing");
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_writers_lose_nothing() {
    let folder = folder();
    let config = Config { sync_writes: true, ..Config::default() };
    let store = Arc::new(Edge::open(folder.path().to_owned(), config).await.expect("opened"));
    store.create(new_collection("many")).await.expect("made");
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            for i in 0..5 {
                let point = point(&format!("{writer}-{i}"), [1.0; 4]);
                store.upsert(name("many"), vec![point]).await.expect("stored");
            }
        });
    }
    writers.join_all().await;
    assert_eq!(store.count(name("many"), Filter::default()).await, Ok(40), "8 writers of 5");
    store.close().await;
}

fn scalars() -> impl Strategy<Value = Vec<Scalar>> {
    let strings = ["a", "A", "ab", "Äb", "7", "true"].map(|text| Scalar::String(text.to_owned()));
    let numbers = [-1.5, 0.0, 1.0, 7.0, 7.25, 1e18, 0.1].map(Scalar::Number);
    prop_oneof![
        prop::collection::vec(prop::sample::select(strings.to_vec()), 1..3),
        prop::collection::vec(prop::sample::select(numbers.to_vec()), 1..3),
        prop::collection::vec(any::<bool>().prop_map(Scalar::Bool), 1..3),
    ]
}

fn metadata() -> impl Strategy<Value = Metadata> {
    let value = (scalars(), 0..3_u8).prop_map(|(mut scalars, shape)| match shape {
        0 => Value::Many(scalars),
        1 => Value::Many(Vec::new()),
        _ => Value::One(scalars.remove(0)),
    });
    prop::collection::btree_map(
        prop::sample::select(vec!["f".to_owned(), "g-1".to_owned()]),
        value,
        0..3,
    )
}

fn condition() -> impl Strategy<Value = Condition> {
    let fields = ["f", "g-1", "h"].map(|name| Field::Metadata(name.to_owned()));
    let facts = [Field::Id, Field::Uri, Field::Filename, Field::Format, Field::Width];
    let field = prop::sample::select([fields.to_vec(), facts.to_vec()].concat());
    let bound = || prop::option::of(prop::sample::select(vec![-1.5, 0.0, 1.0, 7.0, 7.2, 640.0]));
    let range = (bound(), bound(), bound(), bound())
        .prop_map(|(gt, gte, lt, lte)| Test::Range(Range { gt, gte, lt, lte }))
        .prop_filter("a bound", |test| *test != Test::Range(Range::default()));
    let test = prop_oneof![
        scalars().prop_map(|mut scalars| Test::Match(scalars.remove(0))),
        scalars().prop_map(Test::AnyOf),
        range,
        prop::sample::select(vec!["a", "B", "ä", "jp", "7"]).prop_map(|t| Test::Text(t.to_owned())),
        any::<bool>().prop_map(Test::Exists),
    ];
    (field, test).prop_map(|(field, test)| Condition { field, test })
}

fn filter() -> impl Strategy<Value = Filter> {
    let conditions = || prop::collection::vec(condition(), 0..3);
    (conditions(), conditions(), conditions()).prop_map(|(must, should, must_not)| Filter {
        must,
        should,
        must_not,
    })
}

fn points() -> impl Strategy<Value = Vec<Point>> {
    let vector = prop::collection::vec(-4_i8..4, DIMENSION)
        .prop_filter("a direction", |values| values.iter().any(|value| *value != 0));
    let uri = prop::sample::select(vec!["", "a", "AB"]);
    let point = (metadata(), vector, uri).prop_map(|(metadata, vector, uri)| {
        let vector = vector.into_iter().map(f32::from).collect();
        let item = Item { metadata, uri: uri.to_owned(), ..item("a") };
        Point { item, vector: Embedding::new(vector).expect("a direction") }
    });
    prop::collection::vec(point, 1..20).prop_map(|mut points| {
        for (i, point) in points.iter_mut().enumerate() {
            point.item.id = id(&format!("a{i}"));
        }
        points
    })
}

/// Scores of the two stores differ in the last bits, so order is compared where scores differ.
fn assert_same_hits(edge: &[Hit], exact: &[Hit]) {
    let scores = |hits: &[Hit]| hits.iter().map(|hit| hit.score).collect::<Vec<_>>();
    assert_eq!(edge.len(), exact.len(), "as many hits");
    for (one, other) in scores(edge).iter().zip(scores(exact)) {
        assert!((one - other).abs() < 1e-5, "equal scores: {edge:?} and {exact:?}");
    }
    let mut ids = [edge, exact].map(|hits| hits.iter().map(|hit| &hit.item.id).collect::<Vec<_>>());
    ids.iter_mut().for_each(|ids| ids.sort());
    assert_eq!(ids[0], ids[1], "the same hits");
}

/// One engine for all cases, emptied in between: to make one takes longer than a case.
#[test]
fn agrees_with_the_oracle_on_random_items_and_filters() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let folder = folder();
    let edge = runtime.block_on(open(&folder));
    runtime.block_on(edge.create(new_collection("random"))).expect("made");
    let random = name("random");
    let cases = (points(), prop::collection::vec(filter(), 8));
    let config = ProptestConfig { cases: 40, failure_persistence: None, ..Default::default() };
    let outcome = TestRunner::new(config).run(&cases, |(points, filters)| {
        runtime.block_on(async {
            let exact = Exact::default();
            exact.create(new_collection("random")).await.expect("made");
            let stores: [&dyn VectorStore; 2] = [&edge, &exact];
            for store in stores {
                store.upsert(random.clone(), points.clone()).await.expect("stored");
            }
            for filter in &filters {
                let [one, other] = [
                    passing(stores[0], &random, filter, 4).await,
                    passing(stores[1], &random, filter, 4).await,
                ];
                assert_eq!(one, other, "edge and exact disagree on {filter:?}");
                let everything =
                    || Search { filter: filter.clone(), ..search([1.0, 2.0, -1.0, 0.5], 50) };
                let one = stores[0].search(random.clone(), everything()).await.expect("an answer");
                let other =
                    stores[1].search(random.clone(), everything()).await.expect("an answer");
                assert_same_hits(&one, &other);
            }
            let ids = points.iter().map(|point| point.item.id.clone()).collect();
            edge.delete(random.clone(), ids).await.expect("emptied");
        });
        Ok(())
    });
    runtime.block_on(edge.close());
    outcome.expect("the stores agree");
}

/// With an index over most points, a tail beside it and filters: what a large collection is like.
#[tokio::test(flavor = "multi_thread")]
async fn an_optimized_collection_finds_nearly_what_the_oracle_finds() {
    const WIDE: usize = 512;
    /// Just above the 10 MB at which the engine begins to build graphs.
    const INDEXED: u32 = 5_400;
    let vector = |seed: u32| {
        // A linear congruence is random enough to scatter directions.
        let mut state = u64::from(seed).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let values = (0..WIDE).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f32 / 8_388_608.0 - 1.0
        });
        Embedding::new(values.collect()).expect("a direction")
    };
    let point = |seed: u32| {
        let mut item = item(&format!("p{seed}"));
        item.width = 100 + seed % 100;
        Point { item, vector: vector(seed) }
    };
    let folder = folder();
    let config = Config { flush_interval: Duration::from_secs(3600), ..Config::default() };
    let edge = Edge::open(folder.path().to_owned(), config).await.expect("opened");
    let exact = Exact::default();
    let new = NewCollection { dimension: WIDE, ..new_collection("large") };
    edge.create(new.clone()).await.expect("made");
    exact.create(new).await.expect("made");
    let add = async |seeds: std::ops::Range<u32>| {
        let points: Vec<_> = seeds.map(point).collect();
        for batch in points.chunks(500) {
            edge.upsert(name("large"), batch.to_vec()).await.expect("stored");
            exact.upsert(name("large"), batch.to_vec()).await.expect("stored");
        }
    };
    add(0..INDEXED).await;
    let entry = edge.inner.entry(&name("large")).expect("there");
    let after = NonZeroUsize::new(5_000).expect("positive");
    assert_eq!(entry.shard.wants_optimizing(after), Ok(true), "all of it is unindexed");
    let optimized = tokio::task::spawn_blocking(move || entry.shard.optimize()).await;
    optimized.expect("no panic").expect("optimized");
    let entry = edge.inner.entry(&name("large")).expect("there");
    assert_eq!(entry.shard.wants_optimizing(after), Ok(false), "most of it is indexed");
    drop(entry);
    add(INDEXED..INDEXED + 200).await;

    let narrow = contract::must(Field::Width, Test::Match(Scalar::Number(150.0)));
    let half = Range { lt: Some(150.0), ..Range::default() };
    let half = contract::must(Field::Width, Test::Range(half));
    for (what, filter, least) in
        [("no filter", Filter::default(), 85), ("1 %", narrow, 100), ("50 %", half, 100)]
    {
        let mut found = 0;
        for seed in 0..10 {
            let search = Search {
                vector: vector(1_000_000 + seed),
                filter: filter.clone(),
                exclude: Vec::new(),
                offset: 0,
                limit: 10,
                threshold: None,
            };
            let hits = edge.search(name("large"), search.clone()).await.expect("an answer");
            let truth = exact.search(name("large"), search).await.expect("an answer");
            assert_eq!(hits.len(), 10, "{what}: a full page");
            found +=
                truth.iter().filter(|hit| hits.iter().any(|h| h.item.id == hit.item.id)).count();
        }
        assert!(found >= least, "{what}: {found} of 100 true neighbours, {least} expected");
    }
    edge.close().await;
}
