use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clipmesh_proto::search::v1;
use clipmesh_proto::search::v1::index_items_response::Result as Acknowledged;
use futures::stream;
use tempfile::TempDir;

use crate::embedder::Embedder;
use crate::sandbox::{COLLECTION, Clients, RED, Sandbox, ids, item, picture, words};

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let (mut sandbox, mut clients) = Sandbox::with_colours().await;
    let before = clients.get("red").await.expect("there");
    let hits = ids(&clients.search(words("red")).await.expect("an answer"));

    let mut clients = sandbox.restart().await;
    assert_eq!(clients.count().await, 4, "every item");
    assert_eq!(clients.get("red").await.expect("there"), before, "as it was");
    assert!(clients.thumbnail("red").await.is_ok(), "with its thumbnail");
    let again = clients.search(words("red")).await.expect("an answer");
    assert_eq!(ids(&again), hits, "and found as before");
    assert!(again.timing.is_some_and(|timing| !timing.result_cached), "the cache is empty");
}

/// The service as a process of its own, which ends the hard way.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Already dead is as good.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Process {
    async fn start(data_dir: &Path, embedder: &str) -> (Self, Clients) {
        // Free a moment ago, and nobody else is told of it.
        let address = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let address = address.expect("a free port").to_string();
        let child = Command::new(env!("CARGO_BIN_EXE_clipmesh-search"))
            .args(["--listen", &address, "--embedder", embedder, "--data-dir"])
            .arg(data_dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        let process = Self(child);
        let mut clients = Clients::new(&format!("http://{address}"));
        let is_up = async {
            let request = v1::ListCollectionsRequest::default();
            while clients.collections.list_collections(request.clone()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), is_up).await.expect("it comes up");
        (process, clients)
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_being_killed() {
    let (embedder, _running) = Embedder::start().await;
    let folder = TempDir::new().expect("a temporary folder");
    let mut acknowledged: Vec<(String, String)> = Vec::new();
    for round in 0..3_u8 {
        let (process, mut clients) = Process::start(folder.path(), &embedder.url).await;
        if round == 0 {
            clients.create(COLLECTION).await;
        }
        for (id, hash) in &acknowledged {
            let found = clients.get(id).await.expect("an acknowledged item is there");
            let item = found.item.expect("an item");
            assert_eq!(
                item.content_hash, *hash,
                "`{id}` holds the picture it was acknowledged with"
            );
            assert!(clients.thumbnail(id).await.is_ok(), "`{id}` has its thumbnail");
        }
        let requests = stream::iter((0..200_u8).map(move |key| {
            let image = picture([key, round, 200 - key], 8, 8);
            let new = v1::NewItem { image, ..item(&format!("{round}/{key}"), RED) };
            let (collection, key) = (COLLECTION.to_owned(), u64::from(key));
            v1::IndexItemsRequest { collection, key, item: Some(new) }
        }));
        let mut answers = clients.items.index_items(requests).await.expect("begun").into_inner();
        // Killed in the middle, at another place each time.
        for _ in 0..40 + 30 * round {
            let answer = answers.message().await.expect("the stream goes on").expect("an answer");
            let Some(Acknowledged::Indexed(indexed)) = answer.result else {
                panic!("stored, not {answer:?}");
            };
            let item = indexed.item.expect("an item");
            acknowledged.push((item.id, item.content_hash));
        }
        drop(process);
    }
    let (_process, mut clients) = Process::start(folder.path(), &embedder.url).await;
    assert_eq!(acknowledged.len(), 40 + 70 + 100, "as many as were waited for");
    assert!(clients.count().await >= 210, "none of them is lost");
    for (id, hash) in &acknowledged {
        let item = clients.get(id).await.expect("there").item.expect("an item");
        assert_eq!(item.content_hash, *hash, "`{id}` is whole");
    }
}
