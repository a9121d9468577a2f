//! `EmbedStream`.

use std::collections::BTreeMap;

use bytesize::ByteSize;
use clipmesh_proto::code::Reason;
use clipmesh_proto::embedder::v1 as proto;
use clipmesh_proto::embedder::v1::VectorEncoding;
use clipmesh_proto::embedder::v1::embed_input::Content;
use futures::StreamExt as _;
use futures::stream;
use tokio::sync::mpsc;
use tonic::{Code, Status, Streaming};

use crate::fixture::{Fixture, embedding, picture, text, violation};

fn item(key: u64, content: Option<Content>) -> proto::EmbedStreamRequest {
    proto::EmbedStreamRequest {
        key,
        input: Some(proto::EmbedInput { content }),
        ..proto::EmbedStreamRequest::default()
    }
}

/// Opens a stream that a test sends to bit by bit.
async fn open(
    fixture: &Fixture,
) -> (mpsc::Sender<proto::EmbedStreamRequest>, Streaming<proto::EmbedStreamResponse>) {
    let (sender, mut requests) = mpsc::channel(1);
    let requests = stream::poll_fn(move |cx| requests.poll_recv(cx));
    let answers = fixture.client.clone().embed_stream(requests).await.expect("the stream opens");
    (sender, answers.into_inner())
}

async fn all(
    mut answers: Streaming<proto::EmbedStreamResponse>,
) -> (BTreeMap<u64, proto::EmbedStreamResponse>, Result<(), Status>) {
    let mut by_key = BTreeMap::new();
    loop {
        match answers.next().await {
            Some(Ok(answer)) => {
                let key = answer.key;
                assert!(by_key.insert(key, answer).is_none(), "{key} is answered once");
            }
            Some(Err(status)) => return (by_key, Err(status)),
            None => return (by_key, Ok(())),
        }
    }
}

#[tokio::test]
async fn every_input_is_answered_under_its_key_and_the_stream_ends() {
    let mut fixture = Fixture::start(|config| config.queue.stream_window = 4).await;
    let contents: Vec<_> = (0..20).map(|seed| picture(seed, 40, 30)).collect();
    let mut requests: Vec<_> = (0..20).zip(contents.clone()).map(|(i, c)| item(i, c)).collect();
    requests.push(item(100, text("a cat")));
    requests.push(item(101, None));
    requests.push(item(102, Some(Content::Image((&b"no image"[..]).into()))));
    requests.push(proto::EmbedStreamRequest { input: None, ..item(103, None) });
    requests.push(proto::EmbedStreamRequest { encoding: 99, ..item(104, text("a cat")) });
    let raw = VectorEncoding::RawF32.into();
    requests.push(proto::EmbedStreamRequest { encoding: raw, ..item(105, text("a cat")) });
    let answers = fixture.client.clone().embed_stream(stream::iter(requests)).await;
    let (answers, end) = all(answers.expect("the stream opens").into_inner()).await;
    assert!(end.is_ok(), "it ends as the client's side did: {end:?}");
    assert_eq!(answers.len(), 26, "an answer for each");

    let alone = fixture.embed(contents).await.expect("the same in one call");
    let result = |key: u64| answers[&key].result.as_ref().expect("a result");
    for (key, alone) in (0..20).zip(&alone.results) {
        let pairs = embedding(result(key)).values.iter().zip(&embedding(alone).values);
        let cosine: f32 = pairs.map(|(a, b)| a * b).sum();
        assert!(cosine > 0.9999, "{key} has the vector of its own picture: {cosine}");
    }
    for answer in answers.values() {
        assert_eq!(answer.model_fingerprint, alone.model_fingerprint, "the model is named");
    }
    let faults: Vec<_> = (101..105).map(|key| violation(result(key))).collect();
    let faults: Vec<_> = faults.iter().map(|one| (one.field.as_str(), one.reason)).collect();
    let expected = [
        ("input", Reason::Missing),
        ("input.image", Reason::NotAnImage),
        ("input", Reason::Missing),
        ("encoding", Reason::OutOfRange),
    ];
    assert_eq!(faults, expected, "each fault by name");
    assert_eq!(embedding(result(105)).raw.len(), 4 * 32, "as bytes, as asked");
    fixture.stop().await;
}

#[tokio::test]
async fn answers_come_while_inputs_are_still_sent() {
    let fixture = Fixture::start(|_| {}).await;
    let (sender, mut answers) = open(&fixture).await;
    for key in 0..5 {
        sender.send(item(key, picture(3, 30, 30))).await.expect("the stream is open");
        let answer = answers.next().await.expect("not the end").expect("no error");
        assert_eq!(answer.key, key, "each before the next is sent");
    }
    drop(sender);
    assert!(answers.next().await.is_none(), "and the end of one side is that of the other");
    fixture.stop().await;
}

#[tokio::test]
async fn a_full_queue_makes_a_stream_wait_and_refuses_nothing() {
    // Three quarters are for bulk: room for one picture of 3072 bytes of levels, and its file.
    let fixture = Fixture::start(|config| config.queue.max_bytes = ByteSize::b(5400)).await;
    let streams = (0..2).map(|_| async {
        let requests = stream::iter((0..30).map(|key| item(key, picture(key as u8, 20, 20))));
        let answers = fixture.client.clone().embed_stream(requests).await.expect("it opens");
        let (answers, end) = all(answers.into_inner()).await;
        assert!(end.is_ok(), "no error in the end: {end:?}");
        for answer in answers.values() {
            embedding(answer.result.as_ref().expect("a result"));
        }
        answers.len()
    });
    assert_eq!(futures::future::join_all(streams).await, [30, 30], "every input of both");

    let huge = item(7, Some(Content::Image(vec![0; 2000].into())));
    let requests = stream::iter([huge, item(8, text("a"))]);
    let answers = fixture.client.clone().embed_stream(requests).await.expect("it opens");
    let (answers, end) = all(answers.into_inner()).await;
    assert!(end.is_ok(), "what never fits does not end the stream: {end:?}");
    let error = match &answers[&7].result.as_ref().expect("a result").outcome {
        Some(proto::embed_result::Outcome::Error(error)) => error.code,
        other => panic!("larger than the whole queue, yet {other:?}"),
    };
    assert_eq!(error, Code::ResourceExhausted as i32, "there never will be room for it");
    fixture.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_gives_its_room_back() {
    let mut fixture = Fixture::start(|config| config.queue.max_bytes = ByteSize::b(5400)).await;
    let (sender, mut answers) = open(&fixture).await;
    let sending = tokio::spawn(async move {
        for key in 0.. {
            if sender.send(item(key, picture(1, 20, 20))).await.is_err() {
                break;
            }
        }
    });
    for _ in 0..3 {
        answers.next().await.expect("no end").expect("no error");
    }
    sending.abort();
    drop(answers);
    // The room is the test: while the stream works, it takes all there is.
    loop {
        match fixture.embed(vec![picture(9, 20, 20)]).await {
            Ok(_) => break,
            Err(status) => assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}"),
        }
    }
    for _ in 0..20 {
        let answer = fixture.embed(vec![picture(9, 20, 20)]).await;
        assert!(answer.is_ok(), "nothing else is in hand any more: {answer:?}");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn a_stop_ends_a_stream_after_what_was_under_way() {
    let fixture = Fixture::start(|_| {}).await;
    let (sender, mut answers) = open(&fixture).await;
    for key in 0..8 {
        sender.send(item(key, picture(3, 200, 200))).await.expect("the stream is open");
    }
    let first = answers.next().await.expect("not the end").expect("no error");
    fixture.shutdown.trigger();
    let (mut rest, end) = all(answers).await;
    let status = end.expect_err("the client had more to send");
    assert_eq!(status.code(), Code::Unavailable, "another replica may do it: {status:?}");
    assert!(status.message().contains("stopping"), "and why: {status:?}");
    rest.insert(first.key, first);
    for answer in rest.values() {
        embedding(answer.result.as_ref().expect("a result"));
    }
    // It does not outlast the drain, though the client still holds its side open.
    fixture.stop().await;
    drop(sender);
}

#[tokio::test]
async fn a_message_over_the_limit_ends_the_stream_after_its_answers() {
    let fixture =
        Fixture::start(|config| config.server.max_message_bytes = ByteSize::kib(64)).await;
    let large = Some(Content::Image(vec![0; 100 << 10].into()));
    let requests = stream::iter([item(1, text("fine")), item(2, large), item(3, text("late"))]);
    let answers = fixture.client.clone().embed_stream(requests).await.expect("it opens");
    let (answers, end) = all(answers.into_inner()).await;
    assert_eq!(answers.into_keys().collect::<Vec<_>>(), [1], "what came before is answered");
    assert_eq!(end.expect_err("unreadable").code(), Code::OutOfRange, "gRPC's own answer");
    fixture.stop().await;
}
