use clipmesh_proto::code::Reason;
use clipmesh_proto::ids::ContentHash;
use clipmesh_proto::search::v1;
use clipmesh_proto::search::v1::condition::Test;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use tonic::Code;

use crate::sandbox::{
    BLUE, COLLECTION, Clients, GREEN, RED, Sandbox, assert_refused, item, picture,
};

fn number(number: f64) -> Value {
    Value { kind: Some(Kind::NumberValue(number)) }
}

fn metadata(rating: f64) -> Option<Struct> {
    Some(Struct { fields: [("rating".to_owned(), number(rating))].into() })
}

fn at_least(rating: f64) -> Option<v1::Filter> {
    let range = v1::Range { gte: Some(rating), ..v1::Range::default() };
    let condition =
        v1::Condition { key: "metadata.rating".to_owned(), test: Some(Test::Range(range)) };
    Some(v1::Filter { must: vec![condition], ..v1::Filter::default() })
}

fn list(page_size: u32, token: &str, filter: Option<v1::Filter>) -> v1::ListItemsRequest {
    let (collection, page_token) = (COLLECTION.to_owned(), token.to_owned());
    v1::ListItemsRequest {
        collection,
        filter,
        page_size,
        page_token,
        ..v1::ListItemsRequest::default()
    }
}

async fn delete(clients: &mut Clients, id: &str) -> Result<(), tonic::Status> {
    let request = v1::DeleteItemRequest {
        collection: COLLECTION.to_owned(),
        id: id.to_owned(),
        ..v1::DeleteItemRequest::default()
    };
    clients.items.delete_item(request).await.map(|_| ())
}

#[tokio::test]
async fn keeps_what_is_known_of_a_picture() {
    let (_sandbox, mut clients) = Sandbox::start().await;
    let new = v1::NewItem {
        uri: "file:///red.png".to_owned(),
        metadata: metadata(4.5),
        ..item("photos/röd 1", RED)
    };
    let response = clients.index(new.clone()).await.expect("stored");
    assert_eq!(response.outcome(), v1::IndexOutcome::Created, "it is new");

    let found = clients.get("photos/röd 1").await.expect("there");
    let item = found.item.expect("an item");
    assert_eq!(Some(&item), response.item.as_ref(), "as it was acknowledged");
    assert_eq!((item.width, item.height), (600, 300), "as the embedder saw it");
    assert_eq!(item.format, "png", "as the embedder found it");
    assert_eq!(item.byte_size, new.image.len() as u64, "the file's length");
    assert_eq!(item.content_hash, ContentHash::of(&new.image).to_string(), "the file's hash");
    assert_eq!((&item.uri, &item.filename), (&new.uri, &new.filename), "as given");
    assert_eq!(item.metadata, new.metadata, "as given");
    assert_eq!(item.create_time, item.update_time, "never changed");
    let length: f32 = found.vector.iter().map(|value| value * value).sum();
    assert!((length - 1.0).abs() < 1e-5, "a unit vector: {:?}", found.vector);

    let thumbnail = clients.thumbnail("photos/röd 1").await.expect("there");
    let thumbnail = image::load_from_memory(&thumbnail).expect("an image").to_rgb8();
    assert_eq!(thumbnail.dimensions(), (256, 128), "small, and of the same shape");
    assert!(thumbnail.get_pixel(9, 9).0[0] > 200, "and as red");
}

#[tokio::test]
async fn the_embedder_makes_the_thumbnail_where_it_is_asked_for_the_vector() {
    let (sandbox, mut clients) = Sandbox::start().await;
    sandbox.embedder.make_thumbnails(b"made by the embedder");
    clients.index(item("new", RED)).await.expect("stored");
    let thumbnail = clients.thumbnail("new").await.expect("there");
    assert_eq!(thumbnail, "made by the embedder", "and nobody decodes the picture again");

    let calls = sandbox.embedder.calls();
    clients.index(item("copy", RED)).await.expect("stored");
    assert_eq!(sandbox.embedder.calls(), calls, "the vector is known already");
    let thumbnail = clients.thumbnail("copy").await.expect("there");
    assert!(image::load_from_memory(&thumbnail).is_ok(), "so it is made here");
}

#[tokio::test]
async fn a_picture_without_id_is_called_by_its_content() {
    let (_sandbox, mut clients) = Sandbox::start().await;
    let new = item("", RED);
    let hash = ContentHash::of(&new.image).to_string();
    let stored = clients.index(new).await.expect("stored").item.expect("an item");
    assert_eq!(stored.id, hash, "its content hash");
    assert_eq!(stored.content_hash, hash, "of the same bytes");
}

#[tokio::test]
async fn indexing_again_costs_no_more_than_it_must() {
    let (sandbox, mut clients) = Sandbox::start().await;
    let first = clients.index(item("a", RED)).await.expect("stored").item.expect("an item");
    assert_eq!(sandbox.embedder.calls(), 1, "a new picture is embedded");

    let same = clients.index(item("a", RED)).await.expect("stored");
    assert_eq!(same.outcome(), v1::IndexOutcome::Unchanged, "nothing is new");
    assert_eq!(same.item.as_ref(), Some(&first), "nothing was touched");

    let told = v1::NewItem { metadata: metadata(1.0), ..item("a", RED) };
    let told = clients.index(told).await.expect("stored");
    assert_eq!(told.outcome(), v1::IndexOutcome::Replaced, "other metadata");
    let told = told.item.expect("an item");
    assert_eq!(told.metadata, metadata(1.0), "as given");
    assert_eq!(told.create_time, first.create_time, "as old as before");
    assert!(clients.thumbnail("a").await.is_ok(), "with its thumbnail");
    assert_eq!(sandbox.embedder.calls(), 1, "the same picture is not embedded again");

    let copy = clients.index(item("copy", RED)).await.expect("stored");
    let copy = copy.item.expect("an item");
    assert_eq!((copy.width, copy.format.as_str()), (600, "png"), "with all its facts");
    assert_eq!(sandbox.embedder.calls(), 1, "nor for another item: its vector is cached");

    let other = clients.index(item("a", BLUE)).await.expect("stored");
    assert_eq!(other.outcome(), v1::IndexOutcome::Replaced, "another picture");
    assert_eq!(sandbox.embedder.calls(), 2, "which is embedded");
    let thumbnail = clients.thumbnail("a").await.expect("there");
    let thumbnail = image::load_from_memory(&thumbnail).expect("an image").to_rgb8();
    assert!(thumbnail.get_pixel(9, 9).0[2] > 200, "and has its own thumbnail");
    assert_eq!(clients.count().await, 2, "`a` and its copy");
}

#[tokio::test]
async fn deletes_an_item_and_its_thumbnail() {
    let (sandbox, mut clients) = Sandbox::with_colours().await;
    delete(&mut clients, "red").await.expect("deleted");
    assert_eq!(clients.get("red").await.expect_err("gone").code(), Code::NotFound, "no item");
    assert_eq!(clients.thumbnail("red").await.expect_err("gone").code(), Code::NotFound, "nor");
    assert_eq!(delete(&mut clients, "red").await.expect_err("gone").code(), Code::NotFound, "once");
    assert_eq!(clients.count().await, 3, "the others are there");
    let mut files = Vec::new();
    let mut folders = vec![sandbox.folder.path().join("thumbnails")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("readable") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    assert_eq!(files.len(), 3, "three thumbnails are left: {files:?}");
}

#[tokio::test]
async fn lists_in_pages_each_item_once() {
    let (_sandbox, mut clients) = Sandbox::start().await;
    for i in 0..7_u8 {
        let new = v1::NewItem {
            image: picture([i * 30, 255 - i, 9], 8, 8),
            metadata: metadata(f64::from(i)),
            ..item(&format!("item {i}"), RED)
        };
        clients.index(new).await.expect("stored");
    }
    let mut found = Vec::new();
    let mut token = String::new();
    loop {
        let request = list(2, &token, at_least(2.0));
        let page = clients.items.list_items(request).await.expect("a page").into_inner();
        assert!(page.items.len() <= 2, "at most the page size");
        found.extend(page.items.into_iter().map(|item| item.id));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    found.sort();
    assert_eq!(found, ["item 2", "item 3", "item 4", "item 5", "item 6"], "filtered, each once");

    let request =
        v1::CountItemsRequest { collection: COLLECTION.to_owned(), filter: at_least(2.0) };
    let count = clients.items.count_items(request).await.expect("counted").into_inner().count;
    assert_eq!(count, 5, "as many as listed");
    let whole = clients.items.list_items(list(0, "", None)).await.expect("a page").into_inner();
    assert_eq!((whole.items.len(), whole.next_page_token.as_str()), (7, ""), "a default size");
}

#[tokio::test]
async fn refuses_page_tokens_of_other_listings() {
    let (_sandbox, mut clients) = Sandbox::with_colours().await;
    let page = clients.items.list_items(list(1, "", None)).await.expect("a page").into_inner();
    let token = page.next_page_token;
    assert!(clients.items.list_items(list(1, &token, None)).await.is_ok(), "its own listing");
    let filtered = clients.items.list_items(list(1, &token, at_least(1.0))).await;
    assert_refused(filtered, "page_token", Reason::Malformed);
    let cut = clients.items.list_items(list(1, &token[..token.len() - 2], None)).await;
    assert_refused(cut, "page_token", Reason::Malformed);
    let made_up = clients.items.list_items(list(1, "next", None)).await;
    assert_refused(made_up, "page_token", Reason::Malformed);
}

#[tokio::test]
async fn concurrent_writers_of_one_id_leave_one_whole_item() {
    let (_sandbox, clients) = Sandbox::start().await;
    let mut writers = tokio::task::JoinSet::new();
    for i in 0..12 {
        let mut clients = clients.clone();
        let colour = [RED, GREEN, BLUE][i % 3];
        writers.spawn(async move { clients.index(item("one", colour)).await });
    }
    let outcomes = writers.join_all().await;
    let created = outcomes
        .iter()
        .flatten()
        .filter(|response| response.outcome() == v1::IndexOutcome::Created);
    assert_eq!(created.count(), 1, "one of them created it");
    assert!(outcomes.iter().all(Result::is_ok), "none failed");
    let mut clients = clients;
    assert_eq!(clients.count().await, 1, "one item");
    assert!(clients.thumbnail("one").await.is_ok(), "with the thumbnail of its picture");
}
