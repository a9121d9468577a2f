//! No acknowledged item is lost in the middle of an indexing stream.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use clipmesh_e2e::clients::{
    Clients, acknowledged, content_hash, cosine, ids, new_item, query, vector,
};
use clipmesh_e2e::sandbox::{Builder, Sandbox, Service};
use clipmesh_e2e::{eventually, pictures};
use clipmesh_proto::search::v1 as search;
use futures::{Stream, StreamExt as _};
use image::ImageFormat;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::sync::oneshot;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::{LONGEST_PAUSE, PATIENCE, seed};

const COLLECTION: &str = "crash";
/// Pictures in each round's folder.
const FOLDER: u64 = 160;
/// The kill follows at most so many acknowledgements: what is left of the folder is more than the
/// mesh can do while the signal is on its way.
const LATEST_KILL: u64 = 120;

/// One life of the data folder through many crashes.
struct Ordeal {
    sandbox: Sandbox,
    /// What is killed.
    victim: Service,
    clients: Clients,
    rng: ChaCha8Rng,
    /// Everything that was acknowledged so far: id and content hash.
    acknowledged: BTreeMap<String, String>,
}

fn id_of(round: u64, index: u64) -> String {
    format!("round-{round:02}/{index:03}.png")
}

fn picture_of(round: u64, index: u64) -> Bytes {
    pictures::encode(&pictures::mosaic(round * 1_000 + index), ImageFormat::Png)
}

/// The folder of a round as a stream that never waits for acknowledgements but for room.
fn folder(round: u64) -> impl Stream<Item = search::IndexItemsRequest> + Send + 'static {
    let (sender, receiver) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        for index in 0..FOLDER {
            let request = search::IndexItemsRequest {
                collection: COLLECTION.to_owned(),
                key: index,
                item: Some(new_item(id_of(round, index), picture_of(round, index))),
            };
            if sender.send(request).await.is_err() {
                // The stream broke: the process is dead.
                return;
            }
        }
    });
    ReceiverStream::new(receiver)
}

// === impl Ordeal ===

impl Ordeal {
    async fn new(mesh: Builder, victim: Service) -> Self {
        let sandbox = mesh.start().await.expect("the mesh starts");
        let mut clients = sandbox.clients().expect("the gateway listens");
        clients.create_collection(COLLECTION).await.expect("a new collection");
        let rng = ChaCha8Rng::seed_from_u64(seed());
        Self { sandbox, victim, clients, rng, acknowledged: BTreeMap::new() }
    }

    async fn run(&mut self, rounds: u64) {
        let mut interrupted = 0;
        for round in 0..rounds {
            let before = self.acknowledged.len();
            self.index_until_killed(round).await;
            interrupted += u64::from(self.acknowledged.len() - before < FOLDER as usize);
            self.restart().await;
            self.check_round(round).await;
            self.complete(round).await;
        }
        self.check_everything(rounds).await;
        eprintln!("{interrupted} of {rounds} kills cut a stream off");
        // A kill after the last acknowledgement proves little; most must fall before it.
        assert!(interrupted * 2 > rounds, "only {interrupted} of {rounds} kills cut a stream off");
    }

    /// Indexes a round's folder by the stream, and kills the victim somewhere in the middle.
    async fn index_until_killed(&mut self, round: u64) {
        let enough = self.rng.random_range(0..=LATEST_KILL);
        let pause = self.rng.random_range(Duration::ZERO..=LONGEST_PAUSE);
        let (trigger, triggered) = oneshot::channel();
        let mut clients = self.clients.clone();
        let indexing = async {
            let mut trigger = Some(trigger);
            let mut found = BTreeMap::new();
            let mut acks = clients.index_stream(folder(round)).await.expect("the stream opens");
            loop {
                if found.len() as u64 >= enough
                    && let Some(trigger) = trigger.take()
                {
                    trigger.send(()).expect("the killer waits");
                }
                match acks.next().await {
                    Some(Ok(ack)) => drop(found.insert(ack.key, acknowledged(ack).1)),
                    end @ (Some(Err(_)) | None) => {
                        assert!(trigger.is_none(), "it ends in a live mesh: {end:?}");
                        return found;
                    }
                }
            }
        };
        let sandbox = &mut self.sandbox;
        let victim = self.victim;
        let killing = async {
            triggered.await.expect("the stream goes on until the kill");
            // Not a wait for anything: the moment of the crash is what is random here.
            tokio::time::sleep(pause).await;
            sandbox.kill(victim).await.expect("the victim dies");
        };
        let (found, ()) = tokio::join!(indexing, killing);
        for (key, result) in found {
            let item = expect_indexed(result).item.expect("the item");
            assert_eq!(item.id, id_of(round, key), "each key comes back with its own item");
            self.acknowledged.insert(item.id, item.content_hash);
        }
    }

    async fn restart(&mut self) {
        self.sandbox.restart(self.victim).await.expect("it starts on what the crash left");
        let clients = &mut self.clients;
        let answering = eventually("the mesh answers again", PATIENCE, async || {
            clients.count(COLLECTION).await?;
            // The embedder is needed for what follows.
            clients.embed_image(pictures::png(0)).await
        });
        answering.await.expect("no other process needs a restart");
    }

    /// Everything of this round that was acknowledged is there, whole, and found.
    async fn check_round(&mut self, round: u64) {
        for index in 0..FOLDER {
            let id = id_of(round, index);
            if self.acknowledged.contains_key(&id) {
                self.check_item(&id, &picture_of(round, index)).await;
            }
        }
        let count = self.clients.count(COLLECTION).await.expect("counted");
        let least = self.acknowledged.len() as u64;
        assert!(count >= least, "round {round}: {count} items, {least} were acknowledged");
    }

    async fn check_item(&mut self, id: &str, picture: &Bytes) {
        let (item, values) = self.clients.get_item(COLLECTION, id).await.unwrap_or_else(|status| {
            panic!("`{id}` was acknowledged and is lost: {status:?}");
        });
        assert_eq!(item.content_hash, content_hash(picture), "`{id}` holds its own picture");
        assert_eq!(item.byte_size, picture.len() as u64, "`{id}` has its own facts");
        assert!((cosine(&values, &values) - 1.0).abs() < 1e-4, "`{id}` has a vector of length 1");
        let request = search::SearchRequest {
            // Room for others that look the same to a model of random weights.
            limit: Some(5),
            ..query(COLLECTION, vector(values))
        };
        let found = self.clients.search.search(request).await.expect("found").into_inner();
        assert!(ids(&found).contains(&id), "`{id}` is found by its own vector: {:?}", ids(&found));
        let request =
            search::GetThumbnailRequest { collection: COLLECTION.to_owned(), id: id.to_owned() };
        let thumbnail = self.clients.items.get_thumbnail(request).await;
        let thumbnail =
            thumbnail.unwrap_or_else(|status| panic!("thumbnail of `{id}`: {status:?}"));
        let thumbnail = image::load_from_memory(&thumbnail.into_inner().image);
        assert!(thumbnail.is_ok(), "the thumbnail of `{id}` is whole: {thumbnail:?}");
    }

    /// A second run over the same folder adds what is missing, and nothing else.
    async fn complete(&mut self, round: u64) {
        let mut acks = self.clients.index_stream(folder(round)).await.expect("the stream opens");
        let mut seen = 0;
        while let Some(ack) = acks.next().await {
            let ack = ack.unwrap_or_else(|status| panic!("round {round} breaks off: {status:?}"));
            let indexed = expect_indexed(acknowledged(ack).1);
            let outcome = indexed.outcome();
            let item = indexed.item.expect("the item");
            if self.acknowledged.insert(item.id.clone(), item.content_hash).is_some() {
                let expected = search::IndexOutcome::Unchanged;
                assert_eq!(outcome, expected, "`{}` was there already", item.id);
            }
            seen += 1;
        }
        assert_eq!(seen, FOLDER, "round {round}: every item is answered");
        let count = self.clients.count(COLLECTION).await.expect("counted");
        assert_eq!(count, (round + 1) * FOLDER, "round {round}: the folder is complete");
    }

    /// After the last crash: every item of every round, once, and right.
    async fn check_everything(&mut self, rounds: u64) {
        let listed = self.clients.list_all(COLLECTION, 1_000).await.expect("listed");
        let found: BTreeMap<_, _> =
            listed.into_iter().map(|item| (item.id, item.content_hash)).collect();
        assert_eq!(found.len() as u64, rounds * FOLDER, "as many items as pictures");
        assert_eq!(found, self.acknowledged, "each with the content that was acknowledged");
        for round in 0..rounds {
            self.check_round(round).await;
        }
    }
}

fn expect_indexed(result: Result<search::IndexItemResponse, Status>) -> search::IndexItemResponse {
    result.unwrap_or_else(|status| panic!("a good picture is refused: {status:?}"))
}

#[tokio::test]
async fn twenty_crashes_of_the_whole_mesh_lose_nothing() {
    let mesh = Sandbox::builder().in_one_process();
    Ordeal::new(mesh, Service::Mesh).await.run(20).await;
}

#[tokio::test]
async fn crashes_of_the_search_service_alone_lose_nothing() {
    let mesh = Sandbox::builder();
    Ordeal::new(mesh, Service::Search).await.run(10).await;
}

#[tokio::test]
async fn crashes_of_the_gateway_lose_nothing() {
    let mesh = Sandbox::builder();
    Ordeal::new(mesh, Service::Gateway).await.run(3).await;
}
