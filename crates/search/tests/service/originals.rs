use clipmesh_proto::search::v1;
use clipmesh_search::Config;
use tonic::{Code, Status};

use crate::sandbox::{BLUE, COLLECTION, Clients, RED, Sandbox, item, ready};

async fn original(clients: &mut Clients, id: &str) -> Result<v1::GetOriginalResponse, Status> {
    let (collection, id) = (COLLECTION.to_owned(), id.to_owned());
    let request = v1::GetOriginalRequest { collection, id };
    clients.items.get_original(request).await.map(tonic::Response::into_inner)
}

#[track_caller]
fn assert_missing(result: Result<v1::GetOriginalResponse, Status>) {
    let status = result.expect_err("there is none");
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
}

fn keeping() -> Config {
    let mut config = Config::default();
    config.blobs.keep_originals = true;
    config
}

#[tokio::test]
async fn files_are_kept_where_that_is_wanted() {
    let (_sandbox, mut clients) = Sandbox::start_with(keeping()).await;
    clients.index(item("a", RED)).await.expect("stored");
    let found = original(&mut clients, "a").await.expect("kept");
    assert_eq!(found.image, item("a", RED).image, "byte by byte");
    assert_eq!(found.media_type, "image/png", "as it was found to be");
    clients.index(item("a", BLUE)).await.expect("replaced");
    let found = original(&mut clients, "a").await.expect("kept");
    assert_eq!(found.image, item("a", BLUE).image, "the file of its new picture");

    clients.index(ready("vector", &[1.0; 4])).await.expect("stored");
    assert_missing(original(&mut clients, "vector").await);
    assert_missing(original(&mut clients, "nobody").await);
    let delete = v1::DeleteItemRequest {
        collection: COLLECTION.to_owned(),
        id: "a".to_owned(),
        etag: String::new(),
    };
    clients.items.delete_item(delete).await.expect("deleted");
    clients.index(ready("a", &[1.0; 4])).await.expect("stored");
    assert_missing(original(&mut clients, "a").await);
}

#[tokio::test]
async fn files_are_not_kept_by_default() {
    let (_sandbox, mut clients) = Sandbox::with_colours().await;
    assert_missing(original(&mut clients, "red").await);
}

#[tokio::test]
async fn files_can_be_kept_elsewhere() {
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let mut config = keeping();
    config.blobs.url = Some(format!("file://{}", folder.path().display()));
    let (sandbox, mut clients) = Sandbox::start_with(config).await;
    clients.index(item("a", RED)).await.expect("stored");
    assert!(original(&mut clients, "a").await.is_ok(), "kept");
    assert!(clients.thumbnail("a").await.is_ok(), "with the small one");
    assert!(!sandbox.folder.path().join("thumbnails").exists(), "not in the data folder");
    let collections = std::fs::read_dir(folder.path()).expect("readable").count();
    assert_eq!(collections, 1, "but there");
}
