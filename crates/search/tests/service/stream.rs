use std::collections::BTreeMap;

use bytes::Bytes;
use clipmesh_proto::code::{self, FieldViolation, Reason};
use clipmesh_proto::embedder::v1::Priority;
use clipmesh_proto::search::v1;
use clipmesh_proto::search::v1::index_items_response::Result as Acknowledged;
use clipmesh_proto::search::v1::query::Kind;
use futures::{StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::sandbox::{
    BLUE, COLLECTION, Clients, GREEN, RED, Sandbox, assert_refused, eventually, item, picture,
    words,
};

fn request(key: u64, item: v1::NewItem) -> v1::IndexItemsRequest {
    let collection = if key == 0 { COLLECTION.to_owned() } else { String::new() };
    v1::IndexItemsRequest { collection, key, item: Some(item) }
}

/// Sends requests, says that these were all, and collects the acknowledgements by key.
async fn index(
    clients: &mut Clients,
    requests: Vec<v1::IndexItemsRequest>,
) -> BTreeMap<u64, Acknowledged> {
    let count = requests.len();
    let response = clients.items.index_items(stream::iter(requests)).await.expect("begun");
    let answers: Vec<_> = response.into_inner().collect().await;
    assert_eq!(answers.len(), count, "an acknowledgement for each");
    let answers = answers.into_iter().map(|answer| answer.expect("the stream goes on"));
    answers.map(|answer| (answer.key, answer.result.expect("a result"))).collect()
}

fn outcome(acknowledged: &Acknowledged) -> Option<v1::IndexOutcome> {
    match acknowledged {
        Acknowledged::Indexed(response) => Some(response.outcome()),
        Acknowledged::Error(_) => None,
    }
}

#[track_caller]
fn assert_item_refused(acknowledged: &Acknowledged, field: &str, reason: Reason) {
    let Acknowledged::Error(error) = acknowledged else {
        panic!("refused, not {acknowledged:?}");
    };
    assert_refused(Err::<(), _>(code::from_rpc(error)), field, reason);
}

#[tokio::test]
async fn a_bad_item_does_not_fail_its_neighbours() {
    let (_sandbox, mut clients) = Sandbox::start().await;
    let elsewhere = v1::IndexItemsRequest {
        collection: "elsewhere".to_owned(),
        ..request(5, item("elsewhere", RED))
    };
    let answers = index(
        &mut clients,
        vec![
            request(0, item("red", RED)),
            request(1, v1::NewItem { image: Bytes::from_static(b"words"), ..item("bad", RED) }),
            request(2, v1::NewItem { image: Bytes::new(), ..item("empty", RED) }),
            request(3, v1::NewItem { uri: "x".repeat(2_049), ..item("long", RED) }),
            v1::IndexItemsRequest { item: None, ..request(4, item("none", RED)) },
            elsewhere,
            request(6, item("blue", BLUE)),
        ],
    )
    .await;
    let created = Some(v1::IndexOutcome::Created);
    assert_eq!(outcome(&answers[&0]), created, "the first");
    assert_item_refused(&answers[&1], "item.image", Reason::NotAnImage);
    assert_item_refused(&answers[&2], "item.image", Reason::Empty);
    assert_item_refused(&answers[&3], "item.uri", Reason::TextTooLong);
    assert_item_refused(&answers[&4], "item", Reason::Missing);
    assert_item_refused(&answers[&5], "collection", Reason::Malformed);
    assert_eq!(outcome(&answers[&6]), created, "the last");
    assert_eq!(clients.count().await, 2, "the good ones are stored");
}

#[tokio::test]
async fn stores_more_items_than_are_worked_on_at_once() {
    let (sandbox, mut clients) = Sandbox::start().await;
    let requests = (0..100_u64).map(|key| {
        let level = u8::try_from(key).expect("small");
        let image = picture([level, 255 - level, 50], 16, 16);
        request(key, v1::NewItem { image, ..item(&format!("item {key}"), RED) })
    });
    let requests: Vec<_> = requests.collect();
    let answers = index(&mut clients, requests.clone()).await;
    assert!(answers.values().all(|one| outcome(one) == Some(v1::IndexOutcome::Created)), "all new");
    assert_eq!(clients.count().await, 100, "all are stored");
    let calls = sandbox.embedder.calls();
    let answers = index(&mut clients, requests).await;
    let unchanged = Some(v1::IndexOutcome::Unchanged);
    assert!(answers.values().all(|one| outcome(one) == unchanged), "a second run finds them");
    assert_eq!(sandbox.embedder.calls(), calls, "and embeds nothing");
}

#[tokio::test]
async fn a_stream_is_embedded_behind_whoever_waits_for_an_answer() {
    let (sandbox, mut clients) = Sandbox::start().await;
    let answers = index(&mut clients, vec![request(0, item("red", RED))]).await;
    assert_eq!(outcome(&answers[&0]), Some(v1::IndexOutcome::Created), "stored");
    assert_eq!(sandbox.embedder.take_priorities(), [Priority::Bulk], "a stream's item");
    clients.index(item("blue", BLUE)).await.expect("stored");
    clients.search(words("green")).await.expect("an answer");
    clients.search(Kind::Image(picture(GREEN, 8, 8))).await.expect("an answer");
    let interactive = [Priority::Interactive; 3];
    assert_eq!(sandbox.embedder.take_priorities(), interactive, "a call, words and a picture");
}

#[tokio::test]
async fn items_of_one_id_are_stored_in_the_order_of_arrival() {
    let (_sandbox, mut clients) = Sandbox::start().await;
    let mut requests: Vec<_> = (0..20)
        .map(|key| {
            request(key, item("one", [RED, GREEN, BLUE][usize::try_from(key % 3).expect("small")]))
        })
        .collect();
    requests.push(request(20, item("one", [1, 2, 3])));
    let answers = index(&mut clients, requests).await;
    assert_eq!(outcome(&answers[&0]), Some(v1::IndexOutcome::Created), "the first makes it");
    let replaced = Some(v1::IndexOutcome::Replaced);
    assert!((1..=20).all(|key| outcome(&answers[&key]) == replaced), "each replaces the last");
    let Acknowledged::Indexed(last) = &answers[&20] else {
        panic!("stored");
    };
    let found = clients.get("one").await.expect("there");
    assert_eq!(found.item, last.item, "the last one stays");
}

#[tokio::test]
async fn a_stream_needs_a_collection_that_is_there() {
    let (_sandbox, mut clients) = Sandbox::start().await;
    let unnamed = stream::iter([request(1, item("a", RED))]);
    let unnamed = clients.items.index_items(unnamed).await.expect("begun").into_inner();
    assert_refused(only(unnamed).await, "collection", Reason::Empty);
    let elsewhere =
        v1::IndexItemsRequest { collection: "elsewhere".to_owned(), ..request(0, item("a", RED)) };
    let elsewhere = clients.items.index_items(stream::iter([elsewhere])).await.expect("begun");
    let refused = only(elsewhere.into_inner()).await.expect_err("refused");
    assert_eq!(refused.code(), Code::NotFound, "told for the stream, and not for each item");
    let nothing = clients.items.index_items(stream::empty()).await.expect("begun");
    assert_eq!(nothing.into_inner().count().await, 0, "nothing in, nothing out");
}

#[tokio::test]
async fn a_client_may_wait_for_the_answer_before_it_sends() {
    let (_sandbox, mut clients) = Sandbox::start().await;
    let (sender, requests) = mpsc::channel(1);
    let response = clients.items.index_items(ReceiverStream::new(requests)).await.expect("begun");
    sender.send(request(0, item("red", RED))).await.expect("sent");
    drop(sender);
    let answer = only(response.into_inner()).await.expect("an acknowledgement");
    assert_eq!(answer.key, 0, "of the item that came after the answer began");
}

/// The one answer of a stream.
async fn only(
    mut answers: tonic::Streaming<v1::IndexItemsResponse>,
) -> Result<v1::IndexItemsResponse, tonic::Status> {
    let answer = answers.message().await?.expect("an answer");
    assert_eq!(answers.message().await?, None, "no other");
    Ok(answer)
}

#[tokio::test]
async fn acknowledges_while_the_client_keeps_the_stream_open() {
    let (_sandbox, mut clients) = Sandbox::start().await;
    let (sender, requests) = mpsc::channel(4);
    sender.send(request(0, item("red", RED))).await.expect("sent");
    let response = clients.items.index_items(ReceiverStream::new(requests)).await.expect("begun");
    let mut answers = response.into_inner();
    let first = answers.message().await.expect("the stream goes on").expect("an answer");
    assert_eq!(first.key, 0, "answered while more may come");
    assert!(clients.get("red").await.is_ok(), "and stored by then");
    sender.send(request(1, item("blue", BLUE))).await.expect("sent");
    let second = answers.message().await.expect("the stream goes on").expect("an answer");
    assert_eq!(second.key, 1, "the next one too");
    drop(sender);
    assert_eq!(answers.message().await.expect("a clean end"), None, "the end");
}

#[tokio::test]
async fn work_ends_when_the_client_goes_away() {
    let (sandbox, mut clients) = Sandbox::start().await;
    sandbox.embedder.hold();
    let (sender, requests) = mpsc::channel(4);
    sender.send(request(0, item("red", RED))).await.expect("sent");
    let response = clients.items.index_items(ReceiverStream::new(requests)).await.expect("begun");
    eventually("the picture is with the embedder", || sandbox.embedder.calls() == 1).await;
    drop(response);
    drop(sender);
    eventually("the embedder is let go", || sandbox.embedder.abandoned() == 1).await;
    sandbox.embedder.let_through();
    assert_eq!(clients.count().await, 0, "nothing was stored that nobody waits for");
}

#[tokio::test]
async fn an_error_of_the_model_is_told_with_each_item() {
    let (sandbox, mut clients) = Sandbox::start().await;
    sandbox.embedder.become_model("b");
    let answers =
        index(&mut clients, vec![request(0, item("a", RED)), request(1, item("b", BLUE))]).await;
    for (key, answer) in &answers {
        let Acknowledged::Error(error) = answer else {
            panic!("{key} is refused");
        };
        let status = code::from_rpc(error);
        assert_eq!(status.code(), Code::FailedPrecondition, "{key}: {status:?}");
        assert_eq!(FieldViolation::from_status(&status), None, "{key}: no field is at fault");
    }
}
