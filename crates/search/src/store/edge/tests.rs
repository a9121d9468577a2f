mod durability;
mod recall;
mod upkeep;

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::store::contract::{self, id, name, new_collection, oracle, point, search};

async fn open(folder: &TempDir) -> Edge {
    open_with(folder.path(), Config::default()).await
}

async fn open_with(folder: &Path, config: Config) -> Edge {
    Edge::open(folder.to_owned(), config).await.expect("opened")
}

fn folder() -> TempDir {
    TempDir::new().expect("a temporary folder")
}

/// What is in the store's root beside its files.
fn folders(folder: &TempDir) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.path()).expect("readable");
    entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_dir()).collect()
}

/// Waits until something holds that the store does by itself.
async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        while !holds().await {
            ticks.tick().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), waiting).await;
    assert!(waited.is_ok(), "{what}");
}

/// As long as nothing was deleted.
#[tokio::test]
async fn words_weigh_as_much_as_the_oracle_says() {
    let folder = folder();
    let edge = open(&folder).await;
    oracle::weighs_words_alike(&edge).await;
    edge.close().await;
}

#[test]
fn agrees_with_the_oracle_on_random_items_filters_and_indexes() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let folder = folder();
    let edge = runtime.block_on(open(&folder));
    oracle::agrees_on_random_items(&runtime, &edge, oracle::Between::Emptied);
    runtime.block_on(edge.close());
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
    let store = open_with(folder.path(), config).await;
    contract::verify(&store).await;
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
    assert_eq!(store.resolve(name("late")).await, Err(closed()), "nor that it never was");
    assert_eq!(store.collections().await, Err(closed()), "nor that there are none");
    assert_eq!(store.aliases().await, Err(closed()), "nor that they have no other names");
}

#[tokio::test]
async fn whoever_finds_the_line_full_is_told_so() {
    let folder = folder();
    let config = Config { threads: NonZeroUsize::MIN, max_waiting: 0, ..Config::default() };
    let store = open_with(folder.path(), config).await;
    store.create(new_collection("full")).await.expect("made");
    let reading = store.reads.enter().await.expect("nobody else reads");
    let busy = store.count(name("full"), Filter::default()).await;
    assert_eq!(busy, Err(Error::Busy), "another reads");
    let written = store.upsert(name("full"), vec![point("a", [1.0; 4])]).await;
    assert_eq!(written, Ok(()), "writes have a line of their own");
    drop(reading);
    assert_eq!(store.count(name("full"), Filter::default()).await, Ok(1), "its turn");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_writers_lose_nothing() {
    let folder = folder();
    let config = Config { sync_writes: true, ..Config::default() };
    let store = Arc::new(open_with(folder.path(), config).await);
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

#[tokio::test(flavor = "multi_thread")]
async fn of_those_who_replace_one_state_one_succeeds() {
    let folder = folder();
    let store = Arc::new(open(&folder).await);
    store.create(new_collection("race")).await.expect("made");
    let first = point("a", [1.0; 4]);
    store.upsert(name("race"), vec![first.clone()]).await.expect("stored");
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let (store, expected) = (Arc::clone(&store), first.item.etag());
        writers.spawn(async move {
            let mut next = point("a", [1.0; 4]);
            next.item.uri = format!("file:///{writer}");
            store.replace(name("race"), next, Some(expected)).await.expect("an answer")
        });
    }
    let replaced = writers.join_all().await.into_iter().filter(|replaced| *replaced).count();
    assert_eq!(replaced, 1, "the others come too late");
    store.close().await;
}
