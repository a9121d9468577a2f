//! What the store does by itself.

use std::num::NonZeroU64;

use super::recall::{Pictures, optimize, small_graphs, wide};
use super::*;

#[tokio::test]
async fn many_writes_are_brought_onto_the_disk_before_their_time() {
    let folder = folder();
    let flush_after = NonZeroU64::new(10).expect("positive");
    let config = Config { flush_after, ..small_graphs() };
    let store = open_with(folder.path(), config).await;
    store.create(new_collection("many")).await.expect("made");
    let shard = store.catalogue.shard(&name("many")).expect("there");
    let points = |range: std::ops::Range<u32>| {
        range.map(|i| point(&format!("p{i}"), [1.0; 4])).collect::<Vec<_>>()
    };
    store.upsert(name("many"), points(0..9)).await.expect("stored");
    assert_eq!(shard.unflushed(), 9, "too few");
    store.upsert(name("many"), points(9..10)).await.expect("stored");
    eventually("ten are flushed", async || shard.unflushed() == 0).await;
    drop(shard);
    store.close().await;
}

#[tokio::test]
async fn writes_are_brought_onto_the_disk_in_time() {
    let folder = folder();
    let config = Config { flush_interval: Duration::from_millis(10), ..Config::default() };
    let store = open_with(folder.path(), config).await;
    store.create(new_collection("few")).await.expect("made");
    let shard = store.catalogue.shard(&name("few")).expect("there");
    store.upsert(name("few"), vec![point("a", [1.0; 4])]).await.expect("stored");
    eventually("one is flushed", async || shard.unflushed() == 0).await;
    drop(shard);
    store.close().await;
}

#[tokio::test]
async fn a_write_that_waits_for_the_disk_is_there_when_it_is_answered() {
    let folder = folder();
    let store = open_with(folder.path(), Config { sync_writes: true, ..small_graphs() }).await;
    store.create(new_collection("synced")).await.expect("made");
    let shard = store.catalogue.shard(&name("synced")).expect("there");
    store.upsert(name("synced"), vec![point("a", [1.0; 4])]).await.expect("stored");
    assert_eq!(shard.unflushed(), 0, "inserted");
    store.delete(name("synced"), vec![id("a")]).await.expect("deleted");
    assert_eq!(shard.unflushed(), 0, "deleted");
    drop(shard);
    store.close().await;
}

#[tokio::test]
async fn items_without_a_graph_are_counted_once_though_their_words_are_indexed() {
    let folder = folder();
    let store = open_with(folder.path(), small_graphs()).await;
    let word_fields = vec![Field::Filename];
    store.create(NewCollection { word_fields, ..new_collection("words") }).await.expect("made");
    let points = (0..3).map(|i| point(&format!("p{i}"), [1.0; 4])).collect();
    store.upsert(name("words"), points).await.expect("stored");
    let status = store.status(name("words")).await.expect("an answer");
    assert_eq!(status.unindexed, 3, "too few for a graph");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn graphs_are_built_while_searches_give_full_answers() {
    let folder = folder();
    let config = Config { flush_interval: Duration::from_millis(20), ..small_graphs() };
    let store = open_with(folder.path(), config).await;
    store.create(wide("pictures")).await.expect("made");
    let mut pictures = Pictures::new();
    let mut stored = 0;
    eventually("nearly all is in a graph", async || {
        // Writes go on meanwhile, up to a point.
        if stored < 4_000 {
            let points = pictures.points(stored..stored + 200);
            store.upsert(name("pictures"), points).await.expect("stored");
            stored += 200;
        }
        let search = pictures.search(&Filter::default(), 10);
        let exactly = Search { exact: true, ..search.clone() };
        let answers = store.search(name("pictures"), vec![search, exactly]).await;
        let answers = answers.expect("an answer");
        assert_eq!(answers[0].len(), 10, "a full page");
        assert_eq!(answers[1].len(), 10, "and of the exact one");
        let count = store.count(name("pictures"), Filter::default()).await;
        assert_eq!(count, Ok(u64::from(stored)), "each counts once, wherever it is just now");
        let status = store.status(name("pictures")).await.expect("an answer");
        stored >= 4_000 && status.unindexed < 500
    })
    .await;
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_graph_replaced_is_gone_from_the_disk() {
    let folder = folder();
    let store = open_with(folder.path(), small_graphs()).await;
    store.create(wide("pictures")).await.expect("made");
    let points = Pictures::new().points(0..3_000);
    store.upsert(name("pictures"), points).await.expect("stored");
    assert!(optimize(&store, "pictures").await, "there is something to build");

    let shard = store.catalogue.shard(&name("pictures")).expect("there");
    let own = std::fs::read_dir(folder.path()).expect("readable").map(|entry| entry.expect("one"));
    let own = own.filter(|entry| entry.file_name().to_string_lossy().starts_with("pictures."));
    let [own] = own.collect::<Vec<_>>().try_into().expect("one collection");
    let segments = std::fs::read_dir(own.path().join("shard/segments")).expect("readable");
    assert_eq!(segments.count(), shard.segments().expect("an answer"), "nothing else is left");
    drop(shard);
    store.close().await;
}
