use clipmesh_proto::code::{self, Reason};
use clipmesh_proto::search::v1;
use clipmesh_search::Config;
use clipmesh_search::config::StoreKind;
use tonic::Code;

use crate::sandbox::{COLLECTION, RED, Sandbox, Service, assert_refused, item};

fn list(page_size: u32, page_token: &str) -> v1::ListCollectionsRequest {
    v1::ListCollectionsRequest { page_size, page_token: page_token.to_owned() }
}

#[tokio::test]
async fn a_collection_is_pinned_to_the_model_that_runs() {
    let (_sandbox, mut clients) = Sandbox::with_colours().await;
    let request = v1::GetCollectionRequest { name: COLLECTION.to_owned() };
    let response = clients.collections.get_collection(request).await.expect("there");
    let collection = response.into_inner().collection.expect("described");
    assert_eq!(collection.name, COLLECTION, "its name");
    assert_eq!(collection.model_fingerprint, "a".repeat(64), "the embedder's model");
    assert_eq!(collection.model_name, "colours", "as the embedder calls it");
    assert_eq!(collection.dimension, 4, "the model's dimension");
    assert_eq!(collection.distance(), v1::Distance::Cosine, "the default");
    assert_eq!(collection.item_count, 4, "four colours");
    assert!(collection.create_time.is_some_and(|time| time.seconds > 0), "a time");
}

#[tokio::test]
async fn names_are_unique_and_well_formed() {
    let (_sandbox, mut clients) = Sandbox::start().await;
    let create = |name: &str| v1::CreateCollectionRequest {
        name: name.to_owned(),
        distance: 0,
        ..v1::CreateCollectionRequest::default()
    };
    let again = clients.collections.create_collection(create(COLLECTION)).await;
    assert_eq!(again.expect_err("refused").code(), Code::AlreadyExists, "one of each name");
    let bad = clients.collections.create_collection(create("../etc")).await;
    assert_refused(bad, "name", Reason::Malformed);
    let empty = clients.collections.create_collection(create("")).await;
    assert_refused(empty, "name", Reason::Empty);
    let odd = v1::CreateCollectionRequest { distance: 77, ..create("odd") };
    let odd = clients.collections.create_collection(odd).await;
    assert_refused(odd, "distance", Reason::OutOfRange);
}

#[tokio::test]
async fn lists_in_pages_in_order_of_name() {
    let (_sandbox, mut clients) = Sandbox::start().await;
    for name in ["d", "a"] {
        clients.create(name).await;
    }
    let mut names = Vec::new();
    let mut token = String::new();
    loop {
        let page = clients.collections.list_collections(list(2, &token)).await.expect("a page");
        let page = page.into_inner();
        names.extend(page.collections.into_iter().map(|collection| collection.name));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["a", COLLECTION, "d"], "each once");
    let bad = clients.collections.list_collections(list(2, "beef")).await;
    assert_refused(bad, "page_token", Reason::Malformed);
}

#[tokio::test]
async fn a_removed_collection_takes_everything_with_it() {
    let (sandbox, mut clients) = Sandbox::with_colours().await;
    let request = || v1::DeleteCollectionRequest { name: COLLECTION.to_owned() };
    clients.collections.delete_collection(request()).await.expect("removed");
    let again = clients.collections.delete_collection(request()).await;
    assert_eq!(again.expect_err("gone").code(), Code::NotFound, "only once");
    assert_eq!(clients.get("red").await.expect_err("gone").code(), Code::NotFound, "no items");
    let index = clients.index(item("red", RED)).await;
    assert_eq!(index.expect_err("gone").code(), Code::NotFound, "nothing is put into it");
    let thumbnails = std::fs::read_dir(sandbox.folder.path().join("thumbnails")).expect("there");
    assert_eq!(thumbnails.count(), 0, "no thumbnails");

    clients.create(COLLECTION).await;
    assert_eq!(clients.count().await, 0, "one of the same name begins empty");
}

#[tokio::test]
async fn files_beside_another_kind_of_store_are_left_alone() {
    let (mut sandbox, _clients) = Sandbox::start().await;
    let data_dir = sandbox.folder.path().to_owned();
    let mut config = Config::default();
    config.store.kind = StoreKind::Qdrant;
    // The server need not be up for the folder to be made.
    Service::start_with(config, &data_dir, &sandbox.embedder.url).await.stop().await;
    let file = |folder: &str| data_dir.join(folder).join("f".repeat(32)).join("00").join("a.jpg");
    let both = ["thumbnails", "thumbnails-qdrant"];
    for folder in both {
        assert!(data_dir.join(folder).is_dir(), "`{folder}` is in use");
        std::fs::create_dir_all(file(folder).parent().expect("a folder")).expect("made");
        std::fs::write(file(folder), b"small").expect("written");
    }
    sandbox.restart().await;
    let is_there = both.map(|folder| file(folder).exists());
    assert_eq!(is_there, [false, true], "what no collection here has, in our own folder only");
}

#[tokio::test]
async fn needs_an_embedder_to_make_one() {
    let (mut sandbox, mut clients) = Sandbox::start().await;
    sandbox.stop_embedder().await;
    let request = v1::CreateCollectionRequest {
        name: "new".to_owned(),
        distance: 0,
        ..v1::CreateCollectionRequest::default()
    };
    let status = clients.collections.create_collection(request).await.expect_err("no model");
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(code::retry_after(&status).is_some(), "says when to try again: {status:?}");
}
