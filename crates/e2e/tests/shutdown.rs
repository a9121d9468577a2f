//! How the mesh stops, and how it does with a part missing.

use std::collections::BTreeSet;
use std::time::Duration;

use clipmesh_e2e::clients::{Clients, acknowledged, ids, new_item, vector};
use clipmesh_e2e::sandbox::{Builder, Sandbox, Service};
use clipmesh_e2e::{eventually, pictures};
use clipmesh_proto::code;
use clipmesh_proto::search::v1 as search;
use clipmesh_proto::search::v1::query::Kind;
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

const COLLECTION: &str = "stop";
/// How long calls in flight may take in these tests.
const DRAIN: Duration = Duration::from_secs(5);
/// A process that has nothing to finish stops in less; one that has, within this after its drain.
const SLACK: Duration = Duration::from_secs(10);
/// How long a change elsewhere may take to be noticed.
const PATIENCE: Duration = Duration::from_secs(30);

async fn start(mesh: Builder) -> (Sandbox, Clients) {
    let mesh = mesh.setting_of_all("server.drain_timeout", "5s");
    let sandbox = mesh.start().await.expect("the mesh starts");
    let mut clients = sandbox.clients().expect("the gateway listens");
    clients.create_collection(COLLECTION).await.expect("a new collection");
    (sandbox, clients)
}

fn request(key: u64) -> search::IndexItemsRequest {
    search::IndexItemsRequest {
        collection: COLLECTION.to_owned(),
        key,
        item: Some(new_item(format!("s{key}"), pictures::png(key))),
    }
}

/// Asks `victim` to stop in the middle of an indexing stream. Whatever was acknowledged must be
/// there after a restart, and the process must end well and in time.
async fn stop_in_the_middle(mesh: Builder, victim: Service) {
    let (mut sandbox, mut clients) = start(mesh).await;
    let (sender, receiver) = mpsc::channel(4);
    let feeding = tokio::spawn(async move {
        // More than can be done before the stop; ends when nobody takes them any more.
        for key in 0..100_000 {
            if sender.send(request(key)).await.is_err() {
                return;
            }
        }
    });
    let mut acks =
        clients.index_stream(ReceiverStream::new(receiver)).await.expect("the stream opens");
    let mut kept = BTreeSet::new();
    while kept.len() < 5 {
        let ack = acks.next().await.expect("the stream goes on").expect("and is well");
        kept.insert(acknowledged(ack).1.expect("indexed").item.expect("the item").id);
    }
    sandbox.terminate(victim).expect("it runs");
    let collecting = async {
        while let Some(Ok(ack)) = acks.next().await {
            // An item that came too late is refused, and that is no promise.
            if let Ok(indexed) = acknowledged(ack).1 {
                kept.insert(indexed.item.expect("the item").id);
            }
        }
        kept
    };
    let bound = DRAIN + SLACK;
    let (kept, ended) = tokio::join!(collecting, sandbox.ended(victim, bound));
    let status = ended.expect("it ends within its drain");
    assert_eq!(status.code(), Some(0), "an ordered stop is a success");
    feeding.await.expect("the feeder does not fail");

    sandbox.restart(victim).await.expect("it starts again");
    let back =
        eventually("the mesh answers again", PATIENCE, async || clients.count(COLLECTION).await);
    let count = back.await.expect("no other process needs a restart");
    assert!(count >= kept.len() as u64, "{count} items, {} were acknowledged", kept.len());
    for id in &kept {
        let got = clients.get_item(COLLECTION, id).await;
        assert!(got.is_ok(), "`{id}` was acknowledged and is lost: {got:?}");
    }
}

#[tokio::test]
async fn the_whole_mesh_stops_in_the_middle_of_a_stream() {
    stop_in_the_middle(Sandbox::builder().in_one_process(), Service::Mesh).await;
}

#[tokio::test]
async fn the_search_service_stops_in_the_middle_of_a_stream() {
    stop_in_the_middle(Sandbox::builder(), Service::Search).await;
}

#[tokio::test]
async fn the_gateway_stops_in_the_middle_of_a_stream() {
    stop_in_the_middle(Sandbox::builder(), Service::Gateway).await;
}

#[tokio::test]
async fn a_stream_that_ends_within_the_drain_is_finished() {
    let (mut sandbox, mut clients) = start(Sandbox::builder()).await;
    let count = 30;
    let (sender, receiver) = mpsc::channel(count as usize);
    for key in 0..count {
        sender.send(request(key)).await.expect("there is room for all of them");
    }
    let mut acks =
        clients.index_stream(ReceiverStream::new(receiver)).await.expect("the stream opens");
    let first = acks.next().await.expect("the stream goes on").expect("and is well");
    let mut kept = BTreeSet::from([first.key]);
    for service in [Service::Gateway, Service::Search, Service::Embedder] {
        sandbox.terminate(service).expect("it runs");
    }
    // No more is sent: what is under way is all there is to finish.
    drop(sender);
    let mut failed: Vec<(u64, Status)> = Vec::new();
    while let Some(ack) = acks.next().await {
        let (key, result) = acknowledged(ack.expect("a stream in flight is not cut off"));
        match result {
            Ok(_) => drop(kept.insert(key)),
            Err(status) => failed.push((key, status)),
        }
    }
    assert_eq!(kept.len() + failed.len(), count as usize, "every item is answered");
    // The embedder takes no new call while it drains, and says so.
    let honest = failed.iter().all(|(_, status)| status.code() == Code::Unavailable);
    assert!(honest, "what was not done may be tried again: {failed:?}");
    for service in [Service::Gateway, Service::Search, Service::Embedder] {
        let status = sandbox.ended(service, DRAIN + SLACK).await.expect("it ends in time");
        assert_eq!(status.code(), Some(0), "{service:?} ends well");
    }
}

#[tokio::test]
async fn an_idle_process_stops_at_once_whoever_is_connected() {
    for mesh in [Sandbox::builder(), Sandbox::builder().in_one_process()] {
        let (mut sandbox, mut clients) = start(mesh).await;
        // The connection stays open, and with it those between the services.
        clients.count(COLLECTION).await.expect("counted");
        for service in [Service::Gateway, Service::Search, Service::Embedder, Service::Mesh] {
            if sandbox.terminate(service).is_err() {
                // Not in this mesh.
                continue;
            }
            let status = sandbox.ended(service, DRAIN).await;
            let status = status.expect("there is nothing to wait for");
            assert_eq!(status.code(), Some(0), "{service:?} ends well");
        }
        let refused = clients.count(COLLECTION).await.expect_err("nobody is there");
        assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    }
}

#[tokio::test]
async fn without_an_embedder_all_that_needs_none_still_works() {
    let (mut sandbox, mut clients) = start(Sandbox::builder()).await;
    for seed in 0..4 {
        let item = new_item(format!("p{seed}"), pictures::png(seed));
        clients.index(COLLECTION, item).await.expect("indexed");
    }
    let asked_before = Kind::Image(pictures::jpeg(&pictures::mosaic(1)));
    let words_before = Kind::Text("a boat".to_owned());
    for kind in [&asked_before, &words_before] {
        clients.find(COLLECTION, kind.clone()).await.expect("found");
    }
    sandbox.kill(Service::Embedder).await.expect("the embedder dies");

    let item = new_item("new", pictures::png(50));
    for (what, status) in [
        ("a new picture", clients.find(COLLECTION, Kind::Image(pictures::png(60))).await.err()),
        ("new words", clients.find(COLLECTION, Kind::Text("a car".to_owned())).await.err()),
        ("indexing", clients.index(COLLECTION, item.clone()).await.err()),
        ("the embedder itself", clients.embed_image(pictures::png(60)).await.err()),
    ] {
        let status = status.unwrap_or_else(|| panic!("{what}: answered without an embedder"));
        assert_eq!(status.code(), Code::Unavailable, "{what}: {status:?}");
        let retry = code::retry_after(&status);
        assert!(retry.is_some(), "{what}: it says when to try again: {status:?}");
    }
    let (_, values) = clients.get_item(COLLECTION, "p2").await.expect("items are there");
    let by_vector = clients.find(COLLECTION, vector(values)).await.expect("by vector");
    assert_eq!(ids(&by_vector)[0], "p2", "vectors need no embedder");
    let by_item = clients.find(COLLECTION, Kind::ItemId("p2".to_owned())).await;
    assert_eq!(by_item.expect("by item").hits.len(), 3, "stored items need none");
    for kind in [asked_before, words_before] {
        let cached = clients.find(COLLECTION, kind).await.expect("asked before");
        assert_eq!(cached.hits.len(), 4, "cached queries need none");
    }
    clients.check_health("").await.expect("the mesh as a whole still serves");

    sandbox.restart(Service::Embedder).await.expect("the embedder comes back");
    let indexed = eventually("indexing works again", PATIENCE, async || {
        clients.index(COLLECTION, item.clone()).await
    });
    indexed.await.expect("neither gateway nor search needs a restart");
    let found = clients.find(COLLECTION, Kind::Image(pictures::png(50))).await.expect("found");
    assert_eq!(ids(&found)[0], "new", "and so does searching");
}

#[tokio::test]
async fn without_a_search_service_the_gateway_says_so() {
    let (mut sandbox, mut clients) = start(Sandbox::builder()).await;
    sandbox.kill(Service::Search).await.expect("the search service dies");
    let status = clients.count(COLLECTION).await.expect_err("nobody can count");
    assert_eq!(status.code(), Code::Unavailable, "never an empty result in disguise: {status:?}");
    assert!(code::retry_after(&status).is_some(), "it says when to try again: {status:?}");
    let embedded = clients.embed_image(pictures::png(1)).await;
    assert!(embedded.is_ok(), "the embedder is still reached: {embedded:?}");
    let noticed = eventually("the gateway's health follows", PATIENCE, async || {
        match clients.check_health("").await {
            Ok(()) => Err("it still says that it serves"),
            Err(_) => Ok(()),
        }
    });
    noticed.await.expect("a load balancer must see it");

    sandbox.restart(Service::Search).await.expect("the search service comes back");
    let back = eventually("it serves again", PATIENCE, async || clients.check_health("").await);
    back.await.expect("the gateway needs no restart");
    assert_eq!(clients.count(COLLECTION).await.expect("counted"), 0, "the collection is there");
}
