use clipmesh_proto::code::{self, Reason};
use clipmesh_proto::search::v1;
use prost_types::FieldMask;
use prost_types::value::Kind;
use tonic::{Code, Status};

use crate::sandbox::{
    BLUE, COLLECTION, Clients, GREEN, RED, Sandbox, assert_refused, item, metadata, picture,
};

fn number(number: f64) -> Kind {
    Kind::NumberValue(number)
}

fn text(text: &str) -> Kind {
    Kind::StringValue(text.to_owned())
}

async fn update(
    clients: &mut Clients,
    item: v1::Item,
    paths: &[&str],
    etag: &str,
) -> Result<v1::Item, Status> {
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    let request = v1::UpdateItemRequest {
        collection: COLLECTION.to_owned(),
        item: Some(item),
        update_mask: Some(FieldMask { paths }),
        etag: etag.to_owned(),
    };
    let response = clients.items.update_item(request).await?.into_inner();
    Ok(response.item.expect("an item"))
}

async fn replace(
    clients: &mut Clients,
    id: &str,
    colour: [u8; 3],
    etag: &str,
) -> Result<v1::ReplaceImageResponse, Status> {
    let request = v1::ReplaceImageRequest {
        collection: COLLECTION.to_owned(),
        id: id.to_owned(),
        image: picture(colour, 600, 300),
        etag: etag.to_owned(),
    };
    clients.items.replace_image(request).await.map(tonic::Response::into_inner)
}

fn known(id: &str) -> v1::Item {
    v1::Item { id: id.to_owned(), ..v1::Item::default() }
}

#[track_caller]
fn assert_aborted<T: std::fmt::Debug>(result: Result<T, Status>) {
    let status = result.expect_err("somebody was faster");
    assert_eq!(status.code(), Code::Aborted, "{status:?}");
    assert_eq!(code::reason(&status).as_deref(), Some("ETAG_MISMATCH"), "{status:?}");
}

#[tokio::test]
async fn metadata_is_merged_replaced_and_removed() {
    let (sandbox, mut clients) = Sandbox::start().await;
    let fields = metadata(&[("album", text("trip")), ("rating", number(3.0))]);
    let new = v1::NewItem { metadata: fields, ..item("a", RED) };
    let first = clients.index(new).await.expect("stored").item.expect("an item");
    let before = clients.get("a").await.expect("there");

    let told = v1::Item { metadata: metadata(&[("rating", number(5.0))]), ..known("a") };
    let merged = update(&mut clients, told, &[], "").await.expect("changed");
    let expected = metadata(&[("album", text("trip")), ("rating", number(5.0))]);
    assert_eq!(merged.metadata, expected, "what is set is merged");
    assert_ne!(merged.etag, first.etag, "changed");
    assert!(merged.update_time != first.update_time, "just now");
    let expected = v1::Item {
        metadata: merged.metadata.clone(),
        etag: merged.etag.clone(),
        update_time: merged.update_time,
        ..first.clone()
    };
    assert_eq!(merged, expected, "and nothing else");
    let after = clients.get("a").await.expect("there");
    assert_eq!(after.item.as_ref(), Some(&merged), "as it is stored");
    assert_eq!(after.vector, before.vector, "its vector stays");
    assert!(clients.thumbnail("a").await.is_ok(), "and its thumbnail");
    assert_eq!(sandbox.embedder.calls(), 1, "nothing is embedded again");

    let mask = ["metadata.album", "filename"];
    let told = v1::Item { uri: "ignored".to_owned(), ..known("a") };
    let removed = update(&mut clients, told, &mask, "").await.expect("changed");
    assert_eq!(removed.metadata, metadata(&[("rating", number(5.0))]), "what is not given goes");
    assert_eq!((removed.filename.as_str(), removed.uri.as_str()), ("", ""), "by the mask");

    let told = v1::Item { metadata: metadata(&[("year", number(2026.0))]), ..known("a") };
    let replaced = update(&mut clients, told.clone(), &["metadata"], "").await.expect("changed");
    assert_eq!(replaced.metadata, metadata(&[("year", number(2026.0))]), "as a whole");
    let again = update(&mut clients, told, &["metadata"], "").await.expect("unchanged");
    assert_eq!(again, replaced, "what changes nothing does nothing");
}

#[tokio::test]
async fn changes_are_refused_by_field_and_reason() {
    let (_sandbox, mut clients) = Sandbox::with_colours().await;
    let bad = update(&mut clients, known("red"), &["width"], "").await;
    assert_refused(bad, "update_mask.paths[0]", Reason::Malformed);
    let long = v1::Item { uri: "x".repeat(2_049), ..known("red") };
    assert_refused(update(&mut clients, long, &[], "").await, "item.uri", Reason::TextTooLong);
    assert_refused(update(&mut clients, known(""), &["uri"], "").await, "item.id", Reason::Empty);
    let none = v1::UpdateItemRequest { collection: COLLECTION.to_owned(), ..Default::default() };
    assert_refused(clients.items.update_item(none).await, "item", Reason::Missing);
    let absent = update(&mut clients, known("nobody"), &["uri"], "").await;
    assert_eq!(absent.expect_err("refused").code(), Code::NotFound, "no such item");
    let absent = replace(&mut clients, "nobody", RED, "").await;
    assert_eq!(absent.expect_err("refused").code(), Code::NotFound, "no such item");
    let words = v1::ReplaceImageRequest {
        collection: COLLECTION.to_owned(),
        id: "red".to_owned(),
        image: bytes::Bytes::from_static(b"words"),
        etag: String::new(),
    };
    assert_refused(clients.items.replace_image(words).await, "image", Reason::NotAnImage);
}

#[tokio::test]
async fn another_picture_keeps_what_was_told() {
    let (_sandbox, mut clients) = Sandbox::start().await;
    let fields = metadata(&[("album", text("trip"))]);
    let new = v1::NewItem { metadata: fields.clone(), ..item("a", RED) };
    let first = clients.index(new).await.expect("stored").item.expect("an item");
    let before = clients.get("a").await.expect("there").vector;

    let same = replace(&mut clients, "a", RED, "").await.expect("taken");
    assert_eq!(same.outcome(), v1::IndexOutcome::Unchanged, "the same picture");
    assert_eq!(same.item.as_ref(), Some(&first), "nothing was touched");

    let other = replace(&mut clients, "a", BLUE, "").await.expect("taken");
    assert_eq!(other.outcome(), v1::IndexOutcome::Replaced, "another picture");
    let other = other.item.expect("an item");
    assert_eq!((&other.metadata, &other.filename), (&fields, &first.filename), "as told before");
    assert_eq!(other.create_time, first.create_time, "as old as before");
    assert_ne!(other.content_hash, first.content_hash, "another file");
    assert_ne!(other.pixel_hash, first.pixel_hash, "which shows something else");
    let after = clients.get("a").await.expect("there").vector;
    assert_ne!(after, before, "it is found by another vector");
    let thumbnail = clients.thumbnail("a").await.expect("there");
    let thumbnail = image::load_from_memory(&thumbnail).expect("an image").to_rgb8();
    assert!(thumbnail.get_pixel(9, 9).0[2] > 200, "and has its own thumbnail");
}

#[tokio::test]
async fn a_change_is_made_only_to_what_its_caller_knew() {
    let (_sandbox, mut clients) = Sandbox::start().await;
    let new = |etag: &str, colour| v1::NewItem { etag: etag.to_owned(), ..item("a", colour) };
    assert_aborted(clients.index(new("0123456789abcdef", RED)).await);
    let first = clients.index(new("", RED)).await.expect("stored").item.expect("an item").etag;
    let told = |uri: &str| v1::Item { uri: uri.to_owned(), ..known("a") };
    let second = update(&mut clients, told("1"), &[], &first).await.expect("as it was known").etag;
    assert_ne!(second, first, "it is another now");

    assert_aborted(update(&mut clients, told("2"), &[], &first).await);
    assert_aborted(clients.index(new(&first, BLUE)).await);
    assert_aborted(replace(&mut clients, "a", BLUE, &first).await);
    let delete = |etag: &str| v1::DeleteItemRequest {
        collection: COLLECTION.to_owned(),
        id: "a".to_owned(),
        etag: etag.to_owned(),
    };
    assert_aborted(clients.items.delete_item(delete(&first)).await);
    let found = clients.get("a").await.expect("there").item.expect("an item");
    assert_eq!((found.uri.as_str(), &found.etag), ("1", &second), "none of it was done");

    let third = replace(&mut clients, "a", GREEN, &second).await.expect("as it was known");
    let third = third.item.expect("an item").etag;
    let fourth = clients.index(new(&third, BLUE)).await.expect("as it was known");
    let fourth = fourth.item.expect("an item").etag;
    clients.items.delete_item(delete(&fourth)).await.expect("as it was known");
    assert_eq!(clients.count().await, 0, "deleted");
    assert!(clients.thumbnail("a").await.is_err(), "with its thumbnail");
}

#[tokio::test]
async fn of_many_that_knew_an_item_one_may_change_it() {
    let (_sandbox, mut clients) = Sandbox::start().await;
    let first = clients.index(item("a", RED)).await.expect("stored").item.expect("an item");
    let mut writers = tokio::task::JoinSet::new();
    for i in 0..12 {
        let (mut clients, etag) = (clients.clone(), first.etag.clone());
        writers.spawn(async move {
            let told = v1::Item { uri: format!("{i}"), ..known("a") };
            update(&mut clients, told, &["uri"], &etag).await
        });
    }
    let outcomes = writers.join_all().await;
    let (done, refused): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!((done.len(), refused.len()), (1, 11), "one of them was first");
    refused.into_iter().for_each(assert_aborted);
    let found = clients.get("a").await.expect("there").item;
    assert_eq!(found, done.into_iter().flatten().next(), "and its change is there");
}
