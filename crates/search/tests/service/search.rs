use clipmesh_proto::code;
use clipmesh_proto::search::v1;
use clipmesh_proto::search::v1::condition::Test;
use clipmesh_proto::search::v1::query::Kind;
use tonic::Code;

use crate::sandbox::{
    BLUE, GREEN, PINK, RED, Sandbox, along, eventually, ids, item, picture, request, words,
};

#[tokio::test]
async fn finds_by_image_words_vector_and_item() {
    let (_sandbox, mut clients) = Sandbox::with_colours().await;
    let image = Kind::Image(picture(RED, 100, 100));
    let response = clients.search(image).await.expect("an answer");
    assert_eq!(ids(&response)[..2], ["red", "pink"], "by example");
    assert!(response.hits[0].score > 0.999, "the same colour: {}", response.hits[0].score);
    assert!(response.timing.is_some_and(|timing| timing.total_ms > 0.0), "timed");

    let response = clients.search(words("a green thing")).await.expect("an answer");
    assert_eq!(ids(&response)[0], "green", "by words");
    let response = clients.search(along(&[0.0, 0.0, 9.0, 0.0])).await.expect("an answer");
    assert_eq!(ids(&response)[0], "blue", "by a vector of any length");
    let response = clients.search(Kind::ItemId("red".to_owned())).await.expect("an answer");
    let found = ids(&response);
    assert_eq!(found[0], "pink", "by a stored item");
    assert!(!found.contains(&"red".to_owned()), "which is not its own hit");
}

#[tokio::test]
async fn filter_limit_offset_and_threshold_cut_the_hits() {
    let (_sandbox, mut clients) = Sandbox::with_colours().await;
    let base = || request(words("red"));
    let mut search = async |request| {
        let response = clients.search.search(request).await.expect("an answer");
        ids(&response.into_inner())
    };
    let all = search(base()).await;
    assert_eq!(all.len(), 4, "everything is similar to a degree");
    let page = search(v1::SearchRequest { limit: Some(2), offset: 1, ..base() }).await;
    assert_eq!(page, all[1..3], "the second page");
    let near = search(v1::SearchRequest { score_threshold: Some(0.8), ..base() }).await;
    assert_eq!(near, ["red", "pink"], "only what is near");
    let none = search(v1::SearchRequest { score_threshold: Some(1.0), ..base() }).await;
    assert!(none.is_empty(), "nothing similar is no error");
    let text = Test::Text("BLUE.P".to_owned());
    let condition = v1::Condition { key: "filename".to_owned(), test: Some(text) };
    let filter = Some(v1::Filter { must: vec![condition], ..v1::Filter::default() });
    assert_eq!(search(v1::SearchRequest { filter, ..base() }).await, ["blue"], "filtered");
}

#[tokio::test]
async fn answers_from_the_caches_until_the_collection_changes() {
    let (sandbox, mut clients) = Sandbox::with_colours().await;
    let before = sandbox.embedder.calls();
    let first = clients.search(words("red")).await.expect("an answer");
    let timing = first.timing.expect("timed");
    assert!(!timing.embedding_cached && !timing.result_cached, "nothing was known");
    assert!(timing.embed_ms > 0.0 && timing.store_ms > 0.0, "both were asked: {timing:?}");

    let second = clients.search(words("red")).await.expect("an answer");
    assert_eq!(second.hits, first.hits, "the same answer");
    let timing = second.timing.expect("timed");
    assert!(timing.result_cached, "for nothing");
    assert_eq!((timing.embed_ms, timing.store_ms), (0.0, 0.0), "nobody was asked");

    clients.index(item("crimson", [255, 0, 0])).await.expect("stored");
    let third = clients.search(words("red")).await.expect("an answer");
    let timing = third.timing.expect("timed");
    assert!(!timing.result_cached && timing.embedding_cached, "the vector is still good");
    assert_eq!(ids(&third)[0], "crimson", "and finds what is new");
    let request = v1::DeleteItemRequest {
        collection: "colours".to_owned(),
        id: "crimson".to_owned(),
        ..v1::DeleteItemRequest::default()
    };
    clients.items.delete_item(request).await.expect("deleted");
    let fourth = clients.search(words("red")).await.expect("an answer");
    assert_eq!(fourth.hits, first.hits, "and not what is gone");
    assert_eq!(sandbox.embedder.calls() - before, 2, "one text, one new picture");
}

#[tokio::test]
async fn what_many_ask_at_once_is_embedded_once() {
    let (sandbox, clients) = Sandbox::with_colours().await;
    let before = sandbox.embedder.calls();
    sandbox.embedder.hold();
    let mut searches = tokio::task::JoinSet::new();
    for limit in 1..=8 {
        let mut clients = clients.clone();
        // Different answers that need one vector.
        let request = v1::SearchRequest { limit: Some(limit), ..request(words("blue")) };
        searches.spawn(async move { clients.search.search(request).await });
    }
    eventually("a call arrives", || sandbox.embedder.calls() > before).await;
    sandbox.embedder.let_through();
    for response in searches.join_all().await {
        let response = response.expect("an answer").into_inner();
        assert_eq!(ids(&response)[0], "blue", "each has its hits");
    }
    assert_eq!(sandbox.embedder.calls() - before, 1, "the embedder was asked once");
}

#[tokio::test]
async fn one_caller_going_away_strands_nobody() {
    let (sandbox, clients) = Sandbox::with_colours().await;
    let before = sandbox.embedder.calls();
    sandbox.embedder.hold();
    let ask = |limit| {
        let mut clients = clients.clone();
        let request = v1::SearchRequest { limit: Some(limit), ..request(words("green")) };
        tokio::spawn(async move { clients.search.search(request).await })
    };
    let first = ask(1);
    eventually("the first call arrives", || sandbox.embedder.calls() > before).await;
    let second = ask(2);
    first.abort();
    assert!(first.await.is_err(), "the first caller is gone");
    sandbox.embedder.let_through();
    let response = second.await.expect("no panic").expect("an answer").into_inner();
    assert_eq!(ids(&response)[0], "green", "the second has its answer");
}

#[tokio::test]
async fn serves_what_it_can_without_an_embedder() {
    let (mut sandbox, mut clients) = Sandbox::with_colours().await;
    let known = clients.search(words("red")).await.expect("an answer");
    sandbox.stop_embedder().await;

    let cached = clients.search(words("red")).await.expect("a cached answer");
    assert_eq!(cached.hits, known.hits, "cached queries");
    let narrower = v1::SearchRequest { limit: Some(1), ..request(words("red")) };
    let narrower = clients.search.search(narrower).await.expect("an answer").into_inner();
    assert_eq!(ids(&narrower), ["red"], "new queries with a cached vector");
    let image = Kind::Image(picture(PINK, 600, 300));
    let image = clients.search(image).await.expect("an answer");
    assert_eq!(ids(&image)[0], "pink", "pictures that were indexed");
    let vector = clients.search(along(&[0.0, 1.0, 0.0, 0.0])).await.expect("an answer");
    assert_eq!(ids(&vector)[0], "green", "vectors");
    let stored = clients.search(Kind::ItemId("red".to_owned())).await.expect("an answer");
    assert_eq!(ids(&stored)[0], "pink", "stored items");

    let image = Kind::Image(picture([1, 2, 3], 9, 9));
    let index = clients.index(item("new", [3, 2, 1])).await.map(|_| ());
    for (what, result) in [
        ("unknown words", clients.search(words("blue")).await.map(|_| ())),
        ("an unknown picture", clients.search(image).await.map(|_| ())),
        ("a new item", index),
    ] {
        let status = result.expect_err(what);
        assert_eq!(status.code(), Code::Unavailable, "{what}: {status:?}");
        assert!(code::retry_after(&status).is_some(), "{what}: when to try again: {status:?}");
    }
}

#[tokio::test]
async fn tells_when_the_embedder_is_busy() {
    let (sandbox, mut clients) = Sandbox::with_colours().await;
    sandbox.embedder.be_busy();
    let status = clients.search(words("blue")).await.expect_err("turned away");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let retry_after = code::retry_after(&status).map(|delay| delay.as_millis());
    assert_eq!(retry_after, Some(1_500), "as the embedder asks");
}

#[tokio::test]
async fn never_mixes_the_vectors_of_two_models() {
    let (sandbox, mut clients) = Sandbox::with_colours().await;
    sandbox.embedder.become_model("b");
    let index = clients.index(item("new", [7, 7, 7])).await.map(|_| ());
    let given = Kind::Vector(v1::VectorQuery {
        values: vec![1.0, 0.0, 0.0, 0.0],
        model_fingerprint: "b".repeat(64),
    });
    for (what, result) in [
        ("words", clients.search(words("blue")).await.map(|_| ())),
        ("a new item", index),
        ("a vector of that model", clients.search(given).await.map(|_| ())),
    ] {
        let status = result.expect_err(what);
        assert_eq!(status.code(), Code::FailedPrecondition, "{what}: {status:?}");
        for digit in ["a", "b"] {
            assert!(status.message().contains(&digit.repeat(64)), "{what}: both are named");
        }
    }
    let vector = clients.search(along(&[1.0, 0.0, 0.0, 0.0])).await.expect("an answer");
    assert_eq!(ids(&vector)[0], "red", "what needs no model is served");

    sandbox.embedder.become_model("a");
    let back = clients.search(words("blue")).await.expect("an answer");
    assert_eq!(ids(&back)[0], "blue", "the right model is noticed when it is back");
    for colour in [GREEN, BLUE] {
        clients.index(item("again", colour)).await.expect("stored");
    }
}
