use bytes::Bytes;
use clipmesh_proto::code::{FieldViolation, Reason};
use clipmesh_proto::search::v1;
use clipmesh_proto::search::v1::condition::Test;
use clipmesh_proto::search::v1::query::Kind;
use prost_types::{Struct, Value};
use tonic::{Code, Status};

use crate::embedder::MAX_TEXT_BYTES;
use crate::sandbox::{RED, Sandbox, along, assert_refused, item, picture, request, words};

#[tokio::test]
async fn searches_are_refused_by_field_and_reason() {
    let (sandbox, mut clients) = Sandbox::with_colours().await;
    let before = sandbox.embedder.calls();
    let base = || request(words("red"));
    let bad_filter = v1::Condition { key: "metadata.a".to_owned(), test: None };
    let empty_range = Some(Test::Range(v1::Range::default()));
    let range = v1::Condition { key: "width".to_owned(), test: empty_range };
    let good = v1::Condition { key: "id".to_owned(), test: Some(Test::Exists(true)) };
    let must = |must| Some(v1::Filter { must, ..v1::Filter::default() });
    let large = Kind::Image(Bytes::from(vec![0; (20 << 20) + 1]));
    let long = "x".repeat(usize::try_from(MAX_TEXT_BYTES).expect("small") + 1);
    let over_embedder = Kind::Image(Bytes::from(vec![0; (1 << 20) + 1]));
    let values = "query.vector.values";
    let cases = [
        (v1::SearchRequest { limit: Some(0), ..base() }, "limit", Reason::OutOfRange),
        (v1::SearchRequest { limit: Some(1_001), ..base() }, "limit", Reason::OutOfRange),
        (v1::SearchRequest { offset: 10_001, ..base() }, "offset", Reason::OutOfRange),
        (
            v1::SearchRequest { score_threshold: Some(f32::NAN), ..base() },
            "score_threshold",
            Reason::OutOfRange,
        ),
        (v1::SearchRequest { query: None, ..base() }, "query", Reason::Missing),
        (
            v1::SearchRequest { filter: must(vec![bad_filter]), ..base() },
            "filter.must[0]",
            Reason::Missing,
        ),
        (
            v1::SearchRequest { filter: must(vec![good.clone(), good, range]), ..base() },
            "filter.must[2].range",
            Reason::Missing,
        ),
        (request(along(&[1.0, 2.0, 3.0])), values, Reason::WrongDimension),
        (request(along(&[1.0, f32::NAN, 3.0, 4.0])), values, Reason::NotFinite),
        (request(along(&[0.0; 4])), values, Reason::OutOfRange),
        (request(Kind::Image(Bytes::new())), "query.image", Reason::Empty),
        (request(large), "query.image", Reason::TooManyBytes),
        (request(over_embedder), "query.image", Reason::TooManyBytes),
        (request(words("")), "query.text", Reason::Empty),
        (request(words(&long)), "query.text", Reason::TextTooLong),
    ];
    for (request, field, reason) in cases {
        assert_refused(clients.search.search(request).await, field, reason);
    }
    assert_eq!(sandbox.embedder.calls(), before, "none of it reached the embedder");

    let words = Kind::Image(Bytes::from_static(b"just words, called .jpg"));
    assert_refused(clients.search(words).await, "query.image", Reason::NotAnImage);
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let (_sandbox, mut clients) = Sandbox::with_colours().await;
    let elsewhere =
        || v1::SearchRequest { collection: "elsewhere".to_owned(), ..request(words("x")) };
    let count = v1::CountItemsRequest { collection: "elsewhere".to_owned(), filter: None };
    let get = v1::GetCollectionRequest { name: "elsewhere".to_owned() };
    let cases: [(&str, Result<(), Status>); 6] = [
        ("a collection to search", clients.search.search(elsewhere()).await.map(|_| ())),
        ("a collection to count", clients.items.count_items(count).await.map(|_| ())),
        ("a collection", clients.collections.get_collection(get).await.map(|_| ())),
        ("an item", clients.get("nobody").await.map(|_| ())),
        ("a thumbnail", clients.thumbnail("nobody").await.map(|_| ())),
        (
            "an item to search by",
            clients.search(Kind::ItemId("nobody".to_owned())).await.map(|_| ()),
        ),
    ];
    for (what, result) in cases {
        assert_eq!(result.expect_err(what).code(), Code::NotFound, "{what}");
    }
}

#[tokio::test]
async fn items_are_refused_by_field_and_reason() {
    let (_sandbox, mut clients) = Sandbox::start().await;
    let new = || item("a", RED);
    let nested = Value { kind: Some(prost_types::value::Kind::StructValue(Struct::default())) };
    let metadata = Some(Struct { fields: [("deep".to_owned(), nested)].into() });
    let cases = [
        (v1::NewItem { image: Bytes::new(), ..new() }, "item.image", Reason::Empty),
        (
            v1::NewItem { image: Bytes::from_static(b"words"), ..new() },
            "item.image",
            Reason::NotAnImage,
        ),
        (
            v1::NewItem { image: Bytes::from(vec![0; (1 << 20) + 1]), ..new() },
            "item.image",
            Reason::TooManyBytes,
        ),
        (v1::NewItem { id: "a\nb".to_owned(), ..new() }, "item.id", Reason::Malformed),
        (v1::NewItem { id: "x".repeat(257), ..new() }, "item.id", Reason::TextTooLong),
        (v1::NewItem { uri: "x".repeat(2_049), ..new() }, "item.uri", Reason::TextTooLong),
        (v1::NewItem { filename: "x".repeat(513), ..new() }, "item.filename", Reason::TextTooLong),
        (v1::NewItem { metadata, ..new() }, "item.metadata.deep", Reason::Malformed),
    ];
    for (item, field, reason) in cases {
        assert_refused(clients.index(item).await, field, reason);
    }
    let request = v1::IndexItemRequest { collection: "colours".to_owned(), item: None };
    assert_refused(clients.items.index_item(request).await, "item", Reason::Missing);
    assert_eq!(clients.count().await, 0, "nothing was stored");
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_before_it_is_read() {
    let (_sandbox, mut clients) = Sandbox::start().await;
    let huge = Kind::Image(Bytes::from(vec![0; 33 << 20]));
    let status = clients.search(huge).await.expect_err("too long");
    assert_eq!(status.code(), Code::OutOfRange, "tonic's code for it: {status:?}");
    assert_eq!(FieldViolation::from_status(&status), None, "no field: nothing was read");
    let after = clients.search(Kind::Image(picture(RED, 9, 9))).await;
    assert!(after.is_ok(), "the service goes on: {after:?}");
}
