use bytes::Bytes;
use clipmesh_proto::code::Reason;
use clipmesh_proto::search::v1;
use clipmesh_proto::search::v1::query::Kind;
use clipmesh_proto::search::v1::query_part::Kind as PartKind;
use tonic::Code;

use crate::embedder::MAX_TEXT_BYTES;
use crate::sandbox::{
    BLUE, RED, Sandbox, along, assert_refused, eventually, ids, item, picture, request, words,
};

fn part(weight: f32, kind: PartKind) -> v1::QueryPart {
    v1::QueryPart { weight: Some(weight), kind: Some(kind) }
}

fn text(text: &str) -> PartKind {
    PartKind::Text(text.to_owned())
}

fn stored(id: &str) -> PartKind {
    PartKind::ItemId(id.to_owned())
}

fn vector(values: &[f32]) -> PartKind {
    let model_fingerprint = String::new();
    PartKind::Vector(v1::VectorQuery { values: values.to_vec(), model_fingerprint })
}

fn mix(parts: Vec<v1::QueryPart>) -> Kind {
    Kind::Mix(v1::MixQuery { parts })
}

#[tokio::test]
async fn finds_what_lies_between_its_parts() {
    let (_sandbox, mut clients) = Sandbox::with_colours().await;
    for (id, colour) in [("purple", [200, 10, 200]), ("yellow", [200, 200, 10])] {
        clients.index(item(id, colour)).await.expect("stored");
    }
    let image = || PartKind::Image(picture(RED, 50, 50));
    for (what, parts) in [
        ("a picture and words", vec![part(1.0, image()), part(1.0, text("blue"))]),
        ("a picture and a vector", vec![part(1.0, image()), part(1.0, vector(&[0., 0., 9., 0.]))]),
        ("words and an item", vec![part(1.0, text("red")), part(1.0, stored("blue"))]),
    ] {
        let response = clients.search(mix(parts)).await.expect("an answer");
        assert_eq!(ids(&response)[0], "purple", "{what}: between red and blue");
    }
    let mostly_red = vec![part(1.0, image()), part(0.1, text("blue"))];
    let response = clients.search(mix(mostly_red)).await.expect("an answer");
    assert_eq!(ids(&response)[0], "red", "weights count");
    let away = vec![part(1.0, text("red green")), part(-0.9, text("green"))];
    let response = clients.search(mix(away)).await.expect("an answer");
    assert_eq!(ids(&response)[0], "red", "a negative weight leads away");
    let unset = v1::QueryPart { weight: None, kind: Some(text("blue")) };
    let response = clients.search(mix(vec![part(1.0, image()), unset])).await.expect("an answer");
    assert_eq!(ids(&response)[0], "purple", "the default weight is 1");
}

#[tokio::test]
async fn one_part_is_the_plain_query() {
    let (_sandbox, mut clients) = Sandbox::with_colours().await;
    let image = picture([90, 30, 60], 50, 50);
    for (plain, alone) in [
        (Kind::Image(image.clone()), PartKind::Image(image)),
        (words("a red thing"), text("a red thing")),
        (along(&[0.3, 0.1, 0.9, 0.2]), vector(&[0.3, 0.1, 0.9, 0.2])),
        (Kind::ItemId("pink".to_owned()), stored("pink")),
    ] {
        let plain = clients.search(plain).await.expect("an answer");
        for weight in [1.0, 0.3, 10.0] {
            let mixed = mix(vec![part(weight, alone.clone())]);
            let mixed = clients.search(mixed).await.expect("an answer");
            assert_eq!(mixed.hits, plain.hits, "{alone:?} × {weight}");
            let is_cached = mixed.timing.expect("timed").result_cached;
            assert_eq!(is_cached, weight == 1.0, "at weight 1 it is the same question");
        }
    }
}

#[tokio::test]
async fn items_that_it_names_are_not_its_hits() {
    let (_sandbox, mut clients) = Sandbox::with_colours().await;
    let parts = vec![
        part(1.0, stored("red")),
        part(-0.2, stored("green")),
        part(1.0, text("red")),
        part(0.5, stored("red")),
    ];
    let response = clients.search(mix(parts)).await.expect("an answer");
    assert_eq!(ids(&response), ["pink", "blue"], "whatever their weights");
    let nobody = mix(vec![part(1.0, text("red")), part(1.0, stored("nobody"))]);
    let status = clients.search(nobody).await.expect_err("no such item");
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
    assert!(status.message().contains("`nobody`"), "it is named: {status:?}");
}

#[tokio::test]
async fn parts_share_the_caches_with_plain_queries() {
    let (sandbox, mut clients) = Sandbox::with_colours().await;
    let before = sandbox.embedder.calls();
    clients.search(words("blue")).await.expect("an answer");
    let image = || part(1.0, PartKind::Image(picture(RED, 600, 300)));
    let both = || mix(vec![image(), part(0.5, text("blue")), part(1.0, stored("green"))]);
    let known = clients.search(both()).await.expect("an answer");
    let timing = known.timing.expect("timed");
    assert!(timing.embedding_cached && !timing.result_cached, "an indexed picture: {timing:?}");
    assert_eq!(timing.embed_ms, 0.0, "nobody was asked");
    assert!(timing.store_ms > 0.0, "but the store");
    assert_eq!(sandbox.embedder.calls() - before, 1, "known parts cost no inference");

    let again = clients.search(both()).await.expect("an answer");
    assert!(again.timing.expect("timed").result_cached, "the same mix");
    assert_eq!(again.hits, known.hits, "the same answer");
    let other = mix(vec![image(), part(-0.5, text("blue")), part(1.0, stored("green"))]);
    let other = clients.search(other).await.expect("an answer");
    assert!(!other.timing.expect("timed").result_cached, "other weights are another question");

    let new = mix(vec![image(), part(1.0, text("red blue"))]);
    let timing = clients.search(new).await.expect("an answer").timing.expect("timed");
    assert!(!timing.embedding_cached && timing.embed_ms > 0.0, "one part was not known");
    let plain = clients.search(words("red blue")).await.expect("an answer");
    assert!(plain.timing.expect("timed").embedding_cached, "a mix fills the cache for all");
}

#[tokio::test]
async fn parts_are_embedded_at_the_same_time_and_each_once() {
    let (sandbox, mut clients) = Sandbox::with_colours().await;
    let before = sandbox.embedder.calls();
    sandbox.embedder.hold();
    let image = |weight, colour| part(weight, PartKind::Image(picture(colour, 7, 7)));
    let parts =
        vec![part(1.0, text("red")), image(1.0, BLUE), part(0.5, text("red")), image(-0.1, RED)];
    let searching = tokio::spawn(async move { clients.search(mix(parts)).await });
    // None is answered before all have come.
    eventually("all parts arrive", || sandbox.embedder.calls() == before + 3).await;
    sandbox.embedder.let_through();
    searching.await.expect("no panic").expect("an answer");
    assert_eq!(sandbox.embedder.calls(), before + 3, "the words that came twice went once");
}

#[tokio::test]
async fn a_bad_part_is_refused_by_its_place() {
    let (sandbox, mut clients) = Sandbox::with_colours().await;
    let before = sandbox.embedder.calls();
    let good = || part(1.0, stored("red"));
    let large = PartKind::Image(Bytes::from(vec![0; (20 << 20) + 1]));
    let over_embedder = PartKind::Image(Bytes::from(vec![0; (1 << 20) + 1]));
    let long = "x".repeat(usize::try_from(MAX_TEXT_BYTES).expect("small") + 1);
    let weighed = |weight| vec![good(), good(), part(weight, text("red"))];
    let weight = "query.mix.parts[2].weight";
    let cases = [
        (vec![], "query.mix.parts", Reason::Empty),
        (vec![good(); 17], "query.mix.parts", Reason::TooMany),
        (weighed(0.0), weight, Reason::OutOfRange),
        (weighed(-10.5), weight, Reason::OutOfRange),
        (weighed(f32::NAN), weight, Reason::NotFinite),
        (weighed(f32::INFINITY), weight, Reason::NotFinite),
        (vec![good(), v1::QueryPart::default()], "query.mix.parts[1]", Reason::Missing),
        (
            vec![good(), part(1.0, vector(&[1.0, 2.0, 3.0]))],
            "query.mix.parts[1].vector.values",
            Reason::WrongDimension,
        ),
        (vec![good(), part(1.0, large)], "query.mix.parts[1].image", Reason::TooManyBytes),
        (vec![good(), part(1.0, over_embedder)], "query.mix.parts[1].image", Reason::TooManyBytes),
        (vec![part(1.0, text(&long)), good()], "query.mix.parts[0].text", Reason::TextTooLong),
        (vec![good(), part(-1.0, stored("red"))], "query.mix", Reason::CancelsOut),
    ];
    for (parts, field, reason) in cases {
        assert_refused(clients.search.search(request(mix(parts))).await, field, reason);
    }
    assert_eq!(sandbox.embedder.calls(), before, "none of it reached the embedder");
    let most = clients.search(mix(vec![good(); 16])).await.expect("as many as may be");
    assert_eq!(ids(&most)[0], "pink", "all of one item");

    let image = PartKind::Image(Bytes::from_static(b"just words, called .jpg"));
    let parts = vec![part(1.0, text("red")), good(), part(-0.5, image)];
    let field = "query.mix.parts[2].image";
    assert_refused(clients.search(mix(parts)).await, field, Reason::NotAnImage);
}

#[tokio::test]
async fn a_vector_of_another_model_is_refused_in_a_mix_too() {
    let (_sandbox, mut clients) = Sandbox::with_colours().await;
    let strange = PartKind::Vector(v1::VectorQuery {
        values: vec![1.0, 0.0, 0.0, 0.0],
        model_fingerprint: "b".repeat(64),
    });
    let parts = vec![part(1.0, stored("red")), part(1.0, strange)];
    let status = clients.search(mix(parts)).await.expect_err("vectors of two models");
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    for digit in ["a", "b"] {
        assert!(status.message().contains(&digit.repeat(64)), "both are named: {status:?}");
    }
}
