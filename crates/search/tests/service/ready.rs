use clipmesh_proto::code::Reason;
use clipmesh_proto::search::v1;
use clipmesh_proto::search::v1::index_items_response::Result as Acknowledged;
use futures::{StreamExt as _, stream};
use tonic::Code;

use crate::sandbox::{COLLECTION, RED, Sandbox, along, assert_refused, ids, item, metadata, ready};

#[tokio::test]
async fn a_ready_vector_needs_no_embedder() {
    let (mut sandbox, mut clients) = Sandbox::start().await;
    sandbox.stop_embedder().await;
    let fields = metadata(&[("shop", prost_types::value::Kind::StringValue("a".to_owned()))]);
    let new = v1::NewItem {
        uri: "shop://1".to_owned(),
        metadata: fields.clone(),
        ..ready("product 1", &[0.0, 3.0, 4.0, 0.0])
    };
    let response = clients.index(new.clone()).await.expect("stored");
    assert_eq!(response.outcome(), v1::IndexOutcome::Created, "it is new");
    let found = clients.get("product 1").await.expect("there");
    let stored = found.item.expect("an item");
    assert_eq!(Some(&stored), response.item.as_ref(), "as it was acknowledged");
    assert_eq!(found.vector, [0.0, 0.6, 0.8, 0.0], "of length 1");
    assert_eq!((stored.uri.as_str(), &stored.metadata), ("shop://1", &fields), "as given");
    let facts = (stored.width, stored.height, stored.byte_size, stored.perceptual_hash);
    assert_eq!(facts, (0, 0, 0, 0), "nothing is known of its picture");
    let hashes = (stored.format, stored.content_hash, stored.pixel_hash);
    assert_eq!(hashes, (String::new(), String::new(), String::new()), "nor this");
    let missing = clients.thumbnail("product 1").await.expect_err("it has no picture");
    assert_eq!(missing.code(), Code::NotFound, "{missing:?}");
    let hits = clients.search(along(&[0.0, 3.0, 4.0, 0.0])).await.expect("an answer");
    assert_eq!(ids(&hits), ["product 1"], "and it is found");

    let same = v1::NewItem { vector: ready("", &[0.0, 6.0, 8.0, 0.0]).vector, ..new.clone() };
    let same = clients.index(same).await.expect("taken");
    assert_eq!(same.outcome(), v1::IndexOutcome::Unchanged, "the same direction");
    let other = v1::NewItem { vector: ready("", &[1.0, 0.0, 0.0, 0.0]).vector, ..new };
    let other = clients.index(other).await.expect("taken");
    assert_eq!(other.outcome(), v1::IndexOutcome::Replaced, "another");
    let create_time = other.item.expect("an item").create_time;
    assert_eq!(create_time, stored.create_time, "as old as before");
}

#[tokio::test]
async fn a_vector_takes_the_place_of_a_picture_and_back() {
    let (_sandbox, mut clients) = Sandbox::start().await;
    clients.index(item("a", RED)).await.expect("stored");
    let vector = clients.index(ready("a", &[0.0, 1.0, 0.0, 0.0])).await.expect("stored");
    assert_eq!(vector.outcome(), v1::IndexOutcome::Replaced, "the picture is gone");
    assert!(clients.thumbnail("a").await.is_err(), "with its thumbnail");
    let picture = clients.index(item("a", RED)).await.expect("stored");
    assert_eq!(picture.outcome(), v1::IndexOutcome::Replaced, "the vector is gone");
    assert_eq!(picture.item.expect("an item").width, 600, "it has its facts");
    assert!(clients.thumbnail("a").await.is_ok(), "and its thumbnail");
}

#[tokio::test]
async fn vectors_are_refused_by_field_and_reason() {
    let (_sandbox, mut clients) = Sandbox::start().await;
    let short = clients.index(ready("a", &[1.0, 2.0])).await;
    assert_refused(short, "item.vector.values", Reason::WrongDimension);
    let unnamed = clients.index(ready("", &[1.0; 4])).await;
    assert_refused(unnamed, "item.id", Reason::Missing);
    let both = v1::NewItem { image: item("a", RED).image, ..ready("a", &[1.0; 4]) };
    assert_refused(clients.index(both).await, "item.vector", Reason::Malformed);
    let mut own = ready("a", &[1.0; 4]);
    let mut of = |digit: &str| {
        own.vector.as_mut().expect("a vector").model_fingerprint = digit.repeat(64);
        own.clone()
    };
    let (strange, own) = (of("b"), of("a"));
    let strange = clients.index(strange).await.expect_err("of another model");
    assert_eq!(strange.code(), Code::FailedPrecondition, "{strange:?}");
    for digit in ["a", "b"] {
        assert!(strange.message().contains(&digit.repeat(64)), "both are named: {strange:?}");
    }
    assert!(clients.index(own).await.is_ok(), "of its own model");
}

#[tokio::test]
async fn a_stream_takes_vectors_and_pictures() {
    let (sandbox, mut clients) = Sandbox::start().await;
    let items = [ready("1", &[1.0, 0.0, 0.0, 0.0]), item("2", RED), ready("3", &[1.0, 2.0])];
    let requests = items.into_iter().enumerate().map(|(key, item)| v1::IndexItemsRequest {
        collection: COLLECTION.to_owned(),
        key: key as u64,
        item: Some(item),
    });
    let requests = stream::iter(requests.collect::<Vec<_>>());
    let answers = clients.items.index_items(requests).await.expect("begun").into_inner();
    let mut stored: Vec<_> = answers
        .map(|answer| answer.expect("the stream goes on"))
        .filter_map(async |answer| match answer.result {
            Some(Acknowledged::Indexed(_)) => Some(answer.key),
            Some(Acknowledged::Error(_)) | None => None,
        })
        .collect()
        .await;
    stored.sort_unstable();
    assert_eq!(stored, [0, 1], "all but the short one");
    assert_eq!(sandbox.embedder.calls(), 1, "the picture alone is embedded");
}
