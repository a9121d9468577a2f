use std::collections::BTreeSet;

use clipmesh_proto::code::Reason;
use clipmesh_proto::search::v1;
use clipmesh_proto::search::v1::condition::Test;
use prost_types::value::Kind;
use tonic::{Code, Status};

use crate::sandbox::{
    BLUE, COLLECTION, Clients, RED, Sandbox, assert_refused, item, metadata, picture, ready,
};

fn order(order_by: &str, page_size: u32, page_token: &str) -> v1::ListItemsRequest {
    v1::ListItemsRequest {
        collection: COLLECTION.to_owned(),
        page_size,
        page_token: page_token.to_owned(),
        order_by: order_by.to_owned(),
        filter: None,
    }
}

async fn index_field(clients: &mut Clients, key: &str, kind: v1::FieldIndexKind) {
    let index = v1::FieldIndex { key: key.to_owned(), kind: kind.into(), is_built_in: false };
    let request =
        v1::CreateFieldIndexRequest { collection: COLLECTION.to_owned(), field_index: Some(index) };
    clients.collections.create_field_index(request).await.expect("made");
}

/// The ids of all pages.
async fn all(clients: &mut Clients, order_by: &str, page_size: u32) -> Result<Vec<String>, Status> {
    let mut ids = Vec::new();
    let mut token = String::new();
    loop {
        let page = clients.items.list_items(order(order_by, page_size, &token)).await?;
        let page = page.into_inner();
        ids.extend(page.items.into_iter().map(|item| item.id));
        token = page.next_page_token;
        if token.is_empty() {
            return Ok(ids);
        }
    }
}

#[tokio::test]
async fn lists_in_order_of_any_indexed_field() {
    let (_sandbox, mut clients) = Sandbox::start().await;
    let text = |text: &str| Kind::StringValue(text.to_owned());
    let rows = [
        ("a", 3.0, "2026-03-01T00:00:00Z", "pear"),
        ("b", -1.0, "2026-01-01T00:00:00Z", "apple"),
        ("c", 3.0, "2026-02-01T01:00:00+02:00", "Zebra"),
        ("d", 2.5, "2026-02-01T00:00:00Z", "pear"),
    ];
    for (id, price, taken, name) in rows {
        let fields =
            [("price", Kind::NumberValue(price)), ("taken", text(taken)), ("name", text(name))];
        let new = v1::NewItem { metadata: metadata(&fields), ..ready(id, &[1.0; 4]) };
        clients.index(new).await.expect("stored");
    }
    clients.index(ready("none", &[1.0; 4])).await.expect("stored");
    index_field(&mut clients, "metadata.price", v1::FieldIndexKind::Float).await;
    index_field(&mut clients, "metadata.taken", v1::FieldIndexKind::Time).await;
    index_field(&mut clients, "metadata.name", v1::FieldIndexKind::Unspecified).await;
    let cases: [(&str, [&str; 5]); 6] = [
        ("metadata.price", ["b", "d", "a", "c", "none"]),
        ("metadata.price desc", ["a", "c", "d", "b", "none"]),
        ("metadata.taken", ["b", "c", "d", "a", "none"]),
        ("metadata.name desc", ["a", "d", "b", "c", "none"]),
        ("create_time desc", ["none", "d", "c", "b", "a"]),
        ("update_time", ["a", "b", "c", "d", "none"]),
    ];
    for (order_by, expected) in cases {
        for page_size in [1, 2, 100] {
            let found = all(&mut clients, order_by, page_size).await.expect("listed");
            assert_eq!(found, expected, "by `{order_by}`, {page_size} at once");
        }
    }
}

#[tokio::test]
async fn orders_are_refused_by_what_is_wrong_with_them() {
    let (_sandbox, mut clients) = Sandbox::with_colours().await;
    for bad in ["width asc", "nothing", "width, height"] {
        assert_refused(all(&mut clients, bad, 2).await, "order_by", Reason::Malformed);
    }
    let unknown = all(&mut clients, "metadata.price", 2).await.expect_err("no index");
    assert_eq!(unknown.code(), Code::FailedPrecondition, "{unknown:?}");
    assert!(unknown.message().contains("metadata.price"), "it is named: {unknown:?}");
    let page = clients.items.list_items(order("width", 2, "")).await.expect("a page").into_inner();
    let token = page.next_page_token;
    assert!(clients.items.list_items(order("width", 2, &token)).await.is_ok(), "its own listing");
    for other in ["width desc", "height", ""] {
        let strange = clients.items.list_items(order(other, 2, &token)).await;
        assert_refused(strange, "page_token", Reason::Malformed);
    }
}

#[tokio::test]
async fn a_filter_without_an_index_is_told() {
    let (_sandbox, mut clients) = Sandbox::with_colours().await;
    let range = Test::Range(v1::Range { gt: Some(0.0), ..v1::Range::default() });
    let condition = |key: &str, test| v1::Condition { key: key.to_owned(), test: Some(test) };
    let filter = || {
        let must =
            vec![condition("metadata.rating", range.clone()), condition("width", range.clone())];
        Some(v1::Filter { must, ..v1::Filter::default() })
    };
    let collection = || COLLECTION.to_owned();
    let unindexed = async |clients: &mut Clients| {
        let list = v1::ListItemsRequest { filter: filter(), ..order("", 0, "") };
        let list = clients.items.list_items(list).await.expect("listed").into_inner();
        let count = v1::CountItemsRequest { collection: collection(), filter: filter() };
        let count = clients.items.count_items(count).await.expect("counted").into_inner();
        let sample = v1::SampleItemsRequest {
            collection: collection(),
            filter: filter(),
            ..Default::default()
        };
        let sample = clients.items.sample_items(sample).await.expect("drawn").into_inner();
        [list.unindexed_fields, count.unindexed_fields, sample.unindexed_fields]
    };
    let slow = vec!["metadata.rating".to_owned()];
    assert_eq!(unindexed(&mut clients).await, [slow.clone(), slow.clone(), slow], "it is slow");
    index_field(&mut clients, "metadata.rating", v1::FieldIndexKind::Float).await;
    assert_eq!(unindexed(&mut clients).await, <[Vec<String>; 3]>::default(), "it is quick");
}

#[tokio::test]
async fn tells_which_ids_and_files_are_there() {
    let (_sandbox, mut clients) = Sandbox::with_colours().await;
    clients.index(item("copy", RED)).await.expect("stored");
    clients.index(ready("vector", &[1.0; 4])).await.expect("stored");
    let hash =
        |colour| clipmesh_proto::ids::ContentHash::of(&picture(colour, 600, 300)).to_string();
    let (red, blue, other) = (hash(RED), hash(BLUE), hash([1, 2, 3]));
    let request = v1::CheckItemsRequest {
        collection: COLLECTION.to_owned(),
        ids: ["vector", "nobody", "red", "copy"].map(str::to_owned).to_vec(),
        content_hashes: vec![other, red.clone(), blue.to_uppercase()],
    };
    let found = clients.items.check_items(request).await.expect("an answer").into_inner();
    assert_eq!(found.ids, ["vector", "red", "copy"], "in the order of the request");
    assert_eq!(found.content_hashes, [red, blue], "however often they are there");
    let bad = v1::CheckItemsRequest {
        collection: COLLECTION.to_owned(),
        ids: Vec::new(),
        content_hashes: vec!["ab".to_owned()],
    };
    assert_refused(clients.items.check_items(bad).await, "content_hashes[0]", Reason::Malformed);
}

fn sample(size: u32, seed: Option<u64>) -> v1::SampleItemsRequest {
    let collection = COLLECTION.to_owned();
    v1::SampleItemsRequest { collection, filter: None, size: Some(size), seed }
}

async fn drawn(clients: &mut Clients, request: v1::SampleItemsRequest) -> Vec<String> {
    let response = clients.items.sample_items(request).await.expect("drawn").into_inner();
    response.items.into_iter().map(|item| item.id).collect()
}

#[tokio::test]
async fn draws_at_random_and_again_by_the_seed() {
    let (_sandbox, mut clients) = Sandbox::start().await;
    for i in 0..300 {
        clients.index(ready(&format!("{i}"), &[1.0; 4])).await.expect("stored");
    }
    let first = drawn(&mut clients, sample(20, Some(7))).await;
    let different: BTreeSet<_> = first.iter().collect();
    assert_eq!(different.len(), 20, "no two the same");
    assert_eq!(drawn(&mut clients, sample(20, Some(7))).await, first, "the same by the seed");
    assert_ne!(drawn(&mut clients, sample(20, Some(8))).await, first, "others by another");

    let mut counts = std::collections::BTreeMap::new();
    for seed in 0..150 {
        for id in drawn(&mut clients, sample(20, Some(seed))).await {
            *counts.entry(id).or_insert(0) += 1;
        }
    }
    // Each is drawn 10 times on average; the seeds are fixed, and so is what comes of them.
    assert!(counts.len() > 290, "everyone has a chance: {} were drawn", counts.len());
    assert!(counts.values().all(|count| *count <= 30), "and nobody a great one: {counts:?}");

    let request = sample(256, None);
    let response = clients.items.sample_items(request).await.expect("drawn").into_inner();
    let ids: Vec<_> = response.items.into_iter().map(|item| item.id).collect();
    assert_eq!(ids.len(), 256, "as many as may be");
    let again = drawn(&mut clients, sample(256, Some(response.seed))).await;
    assert_eq!(again, ids, "the seed of an answer is told");
}

#[tokio::test]
async fn draws_all_where_there_are_few() {
    let (_sandbox, mut clients) = Sandbox::with_colours().await;
    let mut all = drawn(&mut clients, sample(9, None)).await;
    all.sort();
    assert_eq!(all, ["blue", "green", "pink", "red"], "fewer than asked for");
    let one = v1::SampleItemsRequest { size: None, ..sample(1, None) };
    assert_eq!(drawn(&mut clients, one).await.len(), 1, "one by default");
    for size in [0, 257] {
        let bad = clients.items.sample_items(sample(size, None)).await;
        assert_refused(bad, "size", Reason::OutOfRange);
    }
    let condition = v1::Condition { key: "id".to_owned(), test: Some(Test::Exists(false)) };
    let filter = Some(v1::Filter { must: vec![condition], ..v1::Filter::default() });
    let none = v1::SampleItemsRequest { filter, ..sample(9, None) };
    assert!(drawn(&mut clients, none).await.is_empty(), "none passes");
}
