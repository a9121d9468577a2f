use clipmesh_proto::code::Reason;
use clipmesh_proto::search::v1;
use clipmesh_proto::search::v1::condition::Test;
use clipmesh_proto::search::v1::delete_items_request::Which;
use prost_types::value::Kind;

use crate::sandbox::{COLLECTION, Clients, Sandbox, assert_refused, metadata, ready};

fn those(ids: &[&str]) -> Which {
    Which::Ids(v1::ItemIds { ids: ids.iter().map(|id| (*id).to_owned()).collect() })
}

fn below(rating: f64) -> v1::Filter {
    let range = v1::Range { lt: Some(rating), ..v1::Range::default() };
    let condition =
        v1::Condition { key: "metadata.rating".to_owned(), test: Some(Test::Range(range)) };
    v1::Filter { must: vec![condition], ..v1::Filter::default() }
}

async fn delete(clients: &mut Clients, which: Which) -> Result<u64, tonic::Status> {
    Ok(answer(clients, which).await?.deleted_count)
}

async fn answer(
    clients: &mut Clients,
    which: Which,
) -> Result<v1::DeleteItemsResponse, tonic::Status> {
    let request = v1::DeleteItemsRequest { collection: COLLECTION.to_owned(), which: Some(which) };
    clients.items.delete_items(request).await.map(tonic::Response::into_inner)
}

/// Files under the folder of thumbnails.
fn files(sandbox: &Sandbox) -> usize {
    let mut count = 0;
    let mut folders = vec![sandbox.folder.path().join("thumbnails")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("readable") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { folders.push(path) } else { count += 1 }
        }
    }
    count
}

#[tokio::test]
async fn deletes_those_of_some_ids_that_are_there() {
    let (sandbox, mut clients) = Sandbox::with_colours().await;
    let deleted = delete(&mut clients, those(&["red", "nobody", "blue", "red"])).await;
    assert_eq!(deleted.expect("deleted"), 2, "each once, and nobody is passed over");
    assert_eq!(clients.count().await, 2, "the others are there");
    assert!(clients.get("red").await.is_err(), "it is gone");
    assert_eq!(files(&sandbox), 2, "with its thumbnail");
    let again = delete(&mut clients, those(&["red", "blue"])).await;
    assert_eq!(again.expect("nothing to do"), 0, "they are not there any more");
}

#[tokio::test]
async fn deletes_all_that_pass_a_filter() {
    let (_sandbox, mut clients) = Sandbox::start().await;
    // More than are deleted at once.
    for i in 0..300 {
        let metadata = metadata(&[("rating", Kind::NumberValue(f64::from(i)))]);
        let new = v1::NewItem { metadata, ..ready(&format!("{i}"), &[1.0; 4]) };
        clients.index(new).await.expect("stored");
    }
    let deleted = delete(&mut clients, Which::Filter(below(290.0))).await.expect("deleted");
    assert_eq!(deleted, 290, "all of them");
    assert_eq!(clients.count().await, 10, "the others are there");
    assert!(clients.get("290").await.is_ok(), "the least of them");
    let nothing = answer(&mut clients, Which::Filter(below(290.0))).await.expect("an answer");
    assert_eq!(nothing.deleted_count, 0, "nothing is left to delete");
    assert_eq!(nothing.unindexed_fields, ["metadata.rating"], "it was looked for one by one");
    let by_id = answer(&mut clients, those(&["290"])).await.expect("deleted");
    assert!(by_id.unindexed_fields.is_empty(), "by id nothing is looked for: {by_id:?}");
}

#[tokio::test]
async fn refuses_to_delete_everything() {
    let (_sandbox, mut clients) = Sandbox::with_colours().await;
    let all = delete(&mut clients, Which::Filter(v1::Filter::default())).await;
    assert_refused(all, "filter", Reason::Empty);
    assert_refused(delete(&mut clients, those(&[])).await, "ids.ids", Reason::Empty);
    let neither = v1::DeleteItemsRequest { collection: COLLECTION.to_owned(), which: None };
    assert_refused(clients.items.delete_items(neither).await, "which", Reason::Missing);
    assert_eq!(clients.count().await, 4, "all are there");
}
