//! What is there after a restart, and after a crash.

use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::*;
use crate::filter::Test;
use crate::item::{Metadata, Value};
use crate::store::contract::{item, must, passing, string};
use crate::store::exact::Exact;
use crate::store::index::{Indexes, Kind, Quantization, VectorIndex};

/// What the death of the process would leave: everything that was written, and nothing that would
/// be written by letting go of it.
fn as_after_a_kill(root: &TempDir) -> TempDir {
    let copy = folder();
    copy_folder(root.path(), copy.path());
    copy
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("readable") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copied");
        }
    }
}

/// Nothing is brought onto the disk by itself.
fn without_upkeep() -> Config {
    Config { flush_interval: Duration::from_secs(3600), ..Config::default() }
}

fn tag() -> Field {
    Field::Metadata("tag".to_owned())
}

fn tagged(text: &str, tag: &str) -> Point {
    let mut point = point(text, [1.0; 4]);
    point.item.metadata = Metadata::from([("tag".to_owned(), Value::One(string(tag)))]);
    point
}

/// Changes what the one collection of a folder is said to be.
fn edit_record(root: &TempDir, edit: impl FnOnce(&mut serde_json::Map<String, Json>)) {
    let path = folders(root).remove(0).join("collection.json");
    let text = fs::read(&path).expect("readable");
    let mut record: Json = serde_json::from_slice(&text).expect("JSON");
    edit(record.as_object_mut().expect("an object"));
    fs::write(&path, serde_json::to_vec(&record).expect("JSON")).expect("written");
}

#[tokio::test]
async fn finds_everything_again_after_reopening() {
    let folder = folder();
    let store = open(&folder).await;
    let word_fields = vec![Field::Filename];
    let indexes = Indexes::new([FieldIndex { field: tag(), kind: Kind::Keyword }]);
    let new = NewCollection { word_fields, indexes, ..new_collection("kept") };
    store.create(new).await.expect("made");
    let points = vec![point("a", [1.0, 0.0, 0.0, 0.0]), point("b", [0.0, 1.0, 0.0, 0.0])];
    store.upsert(name("kept"), points.clone()).await.expect("stored");
    store.delete(name("kept"), vec![id("b")]).await.expect("deleted");
    let before = store.resolve(name("kept")).await.expect("there");
    store.close().await;
    drop(store);

    let store = open(&folder).await;
    let after = store.resolve(name("kept")).await.expect("there");
    assert!(after.generation > before.generation, "generations never fall");
    assert_eq!(after, Collection { generation: after.generation, ..before }, "else as before");
    let stored: &dyn VectorStore = &store;
    let found = stored.point(name("kept"), id("a")).await.expect("an answer").expect("there");
    assert_eq!(found.item, points[0].item, "the item is there");
    assert_eq!(stored.point(name("kept"), id("b")).await, Ok(None), "the deleted one is not");
    let hits = store.search(name("kept"), vec![search([1.0, 0.0, 0.0, 0.0], 5)]).await;
    assert_eq!(hits.expect("an answer")[0].len(), 1, "and it can be searched");
    store.close().await;
}

#[tokio::test]
async fn answered_writes_survive_the_death_of_the_process() {
    let folder = folder();
    let store = open_with(folder.path(), without_upkeep()).await;
    store.create(new_collection("kept")).await.expect("made");
    let points = (0..700).map(|i| point(&format!("p{i}"), [1.0; 4]));
    store.upsert(name("kept"), points.collect()).await.expect("stored");
    store.delete(name("kept"), vec![id("p0")]).await.expect("deleted");
    let left = as_after_a_kill(&folder);
    store.close().await;

    let store = open(&left).await;
    let stored: &dyn VectorStore = &store;
    assert_eq!(store.count(name("kept"), Filter::default()).await, Ok(699), "none is missing");
    assert_eq!(stored.point(name("kept"), id("p0")).await, Ok(None), "none came back");
    store.close().await;
}

#[tokio::test]
async fn a_batch_with_a_misfit_at_its_end_leaves_nothing() {
    let folder = folder();
    let store = open(&folder).await;
    store.create(new_collection("batch")).await.expect("made");
    let mut points: Vec<_> = (0..1_200).map(|i| point(&format!("p{i}"), [1.0; 4])).collect();
    let short = clipmesh_proto::Embedding::new(vec![1.0; 3]).expect("a direction");
    points.push(Point { item: item("misfit"), vector: short });
    let wrong = Err(Error::WrongDimension { expected: 4, actual: 3 });
    assert_eq!(store.upsert(name("batch"), points).await, wrong, "refused");
    assert_eq!(store.count(name("batch"), Filter::default()).await, Ok(0), "before any was taken");
    let none = clipmesh_proto::Embedding::new(vec![1.0, f32::NAN, 0.0, 0.0]);
    assert!(none.is_err(), "what is no number never comes as far as that");
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
    let names: Vec<_> = store.collections().await.expect("an answer");
    let names: Vec<_> = names.into_iter().map(|c| c.name.to_string()).collect();
    assert_eq!(names, ["whole"], "the whole one is there");
    let left = folders(&folder);
    assert_eq!(left.len(), 2, "nothing else of ours is on the disk: {left:?}");
    assert!(left.iter().any(|path| path.ends_with("lost+found")), "and what is not ours stays");
    store.close().await;
}

#[tokio::test]
async fn a_collection_that_can_not_be_recorded_leaves_nothing_on_the_disk() {
    let folder = folder();
    let exact = Exact::default();
    let collection = exact.create(new_collection("half")).await.expect("described");
    // In the way of the record's draft.
    let half = folder.path().join(format!("half.{}", collection.uid));
    fs::create_dir_all(half.join("collection.tmp")).expect("made");
    let claimed = folder::Folder::new(folder.path(), &collection);
    let made = Shard::create(claimed, collection, &Config::default());
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
async fn refuses_to_start_on_what_it_can_not_read() {
    let folder = folder();
    let store = open(&folder).await;
    store.create(new_collection("sound")).await.expect("made");
    store.set_alias(name("live"), name("sound")).await.expect("set");
    store.close().await;
    drop(store);
    let record = folders(&folder)[0].join("collection.json");
    for (path, file) in
        [(record, "collection.json"), (folder.path().join("aliases.json"), "aliases.json")]
    {
        let sound = fs::read(&path).expect("readable");
        for broken in [&b"{"[..], br#"{"version": 9}"#] {
            fs::write(&path, broken).expect("written");
            let opened = Edge::open(folder.path().to_owned(), Config::default()).await;
            let error = opened.expect_err("refused");
            assert!(error.to_string().contains(file), "the file is named: {error}");
            assert!(path.exists(), "and left to whoever can mend it");
        }
        fs::write(&path, sound).expect("mended");
    }
    open(&folder).await.close().await;
}

#[tokio::test]
async fn aliases_survive_a_restart_and_lead_to_no_namesake() {
    let folder = folder();
    let store = open(&folder).await;
    for collection in ["blue", "green"] {
        store.create(new_collection(collection)).await.expect("made");
    }
    store.set_alias(name("live"), name("blue")).await.expect("set");
    store.set_alias(name("next"), name("green")).await.expect("set");
    let left = as_after_a_kill(&folder);
    store.close().await;
    drop(store);

    let store = open(&left).await;
    let live = store.resolve(name("live")).await.map(|c| c.name);
    assert_eq!(live, Ok(name("blue")), "it is there after a kill");
    // As if the process had died before the alias was taken out of its file.
    let aliases = fs::read(left.path().join("aliases.json")).expect("readable");
    store.remove(name("blue")).await.expect("removed");
    store.create(new_collection("blue")).await.expect("made anew");
    store.close().await;
    drop(store);
    fs::write(left.path().join("aliases.json"), aliases).expect("written");

    let store = open(&left).await;
    let all = store.aliases().await.expect("an answer");
    assert_eq!(all, BTreeMap::from([(name("next"), name("green"))]), "not of a namesake");
    store.close().await;
}

#[tokio::test]
async fn indexes_survive_a_restart_and_are_finished_after_a_crash() {
    let folder = folder();
    let store = open_with(folder.path(), without_upkeep()).await;
    store.create(new_collection("indexes")).await.expect("made");
    let points = vec![tagged("a", "x"), tagged("b", "x"), tagged("c", "y")];
    store.upsert(name("indexes"), points).await.expect("stored");
    let index = FieldIndex { field: tag(), kind: Kind::Keyword };
    store.create_index(name("indexes"), index).await.expect("made");
    let facet = || Facet { field: tag(), filter: Filter::default(), limit: 5 };
    let counted = Ok(vec![(string("x"), 2), (string("y"), 1)]);
    assert_eq!(store.facet(name("indexes"), facet()).await, counted, "it is used");
    let left = as_after_a_kill(&folder);

    // What a crash between the record and the engine leaves: first of a creation, ...
    let shard = store.catalogue.shard(&name("indexes")).expect("there");
    shard.remove_from_engine(&tag()).expect("removed behind its back");
    let half_made = as_after_a_kill(&folder);
    // ... then of a removal.
    let half_removed = as_after_a_kill(&left);
    edit_record(&half_removed, |record| {
        record.insert("indexes".to_owned(), json!({}));
    });
    drop(shard);
    store.close().await;

    for left in [left, half_made] {
        let store = open(&left).await;
        let kind = store.resolve(name("indexes")).await.expect("there").indexes.kind(&tag());
        assert_eq!(kind, Some(Kind::Keyword), "it is known");
        assert_eq!(store.facet(name("indexes"), facet()).await, counted, "it is there");
        store.close().await;
    }
    let store = open(&half_removed).await;
    let gone = Err(Error::NotIndexed(tag().key()));
    assert_eq!(store.facet(name("indexes"), facet()).await, gone, "it is not known");
    let shard = store.catalogue.shard(&name("indexes")).expect("there");
    assert_eq!(shard.has_in_engine(&tag()), Ok(false), "nor there");
    drop(shard);
    store.close().await;
}

#[tokio::test]
async fn a_graph_that_was_changed_stays_so_after_a_restart() {
    let folder = folder();
    let store = open(&folder).await;
    store.create(new_collection("graph")).await.expect("made");
    store.upsert(name("graph"), vec![point("a", [1.0; 4])]).await.expect("stored");
    let index = VectorIndex { links: 8, build_effort: 50, quantization: Quantization::Binary };
    let change = VectorIndexChange {
        links: Some(index.links),
        build_effort: Some(index.build_effort),
        quantization: Some(index.quantization),
    };
    store.set_vector_index(name("graph"), change).await.expect("changed");
    let left = as_after_a_kill(&folder);
    store.close().await;
    let store = open(&left).await;
    let shard = store.catalogue.shard(&name("graph")).expect("there");
    assert_eq!(shard.describe().vector_index, index, "it is known");
    assert_eq!(shard.graph_in_engine(), Ok((8, 50, true)), "and used");
    drop(shard);
    store.close().await;
}

/// Of the first version are folders whose record knows no indexes, and whose items can't be found
/// by word, nor drawn at random.
#[tokio::test]
async fn a_folder_of_the_first_version_opens_and_is_brought_up_to_date() {
    let folder = folder();
    let store = open(&folder).await;
    store.create(new_collection("old")).await.expect("made");
    let points: Vec<_> = (0..3).map(|i| tagged(&format!("p{i}"), "a red cat")).collect();
    store.upsert(name("old"), points.clone()).await.expect("stored");
    let shard = store.catalogue.shard(&name("old")).expect("there");
    shard.forget_in_engine(&["words", "lot", "etag"]).expect("as in an old one");
    shard.remove_from_engine(&Field::Lot).expect("as in an old one");
    drop(shard);
    let by_word = must(tag(), Test::Words(vec!["cat".to_owned()]));
    assert_eq!(store.count(name("old"), by_word.clone()).await, Ok(0), "not by word, yet");
    store.close().await;
    drop(store);
    edit_record(&folder, |record| {
        record.insert("version".to_owned(), json!(1));
        for key in ["indexes", "vector_index", "word_fields"] {
            record.remove(key);
        }
    });

    let store = open(&folder).await;
    assert_eq!(passing(&store, &name("old"), &by_word, 2).await, ["p0", "p1", "p2"], "by word");
    let page =
        Ordered { filter: Filter::default(), field: Field::Lot, descending: false, limit: 9 };
    let drawn = store.ordered(name("old"), page).await.expect("an answer");
    assert_eq!(drawn.len(), 3, "all are in the draw");
    for point in points {
        let stored: &dyn VectorStore = &store;
        let found = stored.point(name("old"), point.item.id.clone()).await.expect("an answer");
        assert_eq!(found.map(|found| found.item), Some(point.item), "else it is as it was");
    }
    store.close().await;
    let record = fs::read_to_string(folders(&folder)[0].join("collection.json"));
    assert!(record.expect("readable").contains("\"version\": 2"), "once and for all");
}
