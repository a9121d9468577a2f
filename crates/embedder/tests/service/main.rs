//! The embedder over a real socket, with a small random model.
#![cfg(feature = "torch")]

mod answers;
mod fixture;
mod stream;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use bytesize::ByteSize;
use clipmesh_embedder::model::Dtype;
use clipmesh_embedder::model::random::{self, Architecture};
use clipmesh_embedder::{App, Config};
use clipmesh_proto::code::{FieldViolation, Reason};
use clipmesh_proto::embedder::v1 as proto;
use clipmesh_proto::embedder::v1::embed_input::Content;
use tokio::net::TcpListener;
use tonic::Code;

use crate::fixture::{Fixture, embedding, picture, request, text, violation};

#[tokio::test]
async fn pictures_and_texts_become_unit_vectors() {
    let mut fixture = Fixture::start(|_| {}).await;
    let inputs = vec![picture(1, 40, 30), text("a cat"), picture(1, 40, 30), picture(9, 33, 64)];
    let response = fixture.embed(inputs).await.expect("an answer");
    assert_eq!(response.results.len(), 4, "one per input");
    for result in &response.results {
        let values = &embedding(result).values;
        assert_eq!(values.len(), 32, "the model's dimension");
        let length = values.iter().map(|value| value * value).sum::<f32>();
        assert!((length - 1.0).abs() < 1e-5, "of length 1, not {length}");
        let timing = result.timing.expect("where the time went");
        assert!(timing.batch_size >= 1 && timing.compute_ms > 0.0, "it was computed: {timing:?}");
    }
    let [first, words, again, other] = [0, 1, 2, 3].map(|i| embedding(&response.results[i]));
    let info = first.image.clone().expect("what was learned of the picture");
    assert_eq!((info.width, info.height, info.format.as_str()), (40, 30, "png"), "from its bytes");
    assert_eq!(words.image, None, "nothing to learn of a text");
    let dot = |a: &proto::Embedding, b: &proto::Embedding| -> f32 {
        a.values.iter().zip(&b.values).map(|(a, b)| a * b).sum()
    };
    assert!(dot(first, again) > 0.9999, "the same picture, the same vector");
    assert!(dot(first, other) < 0.99, "another picture, another vector");
    fixture.stop().await;
}

#[tokio::test]
async fn a_bad_input_fails_no_neighbour() {
    let mut fixture = Fixture::start(|config| config.limits.max_text_bytes = ByteSize::b(20)).await;
    let image = |bytes: &'static [u8]| Some(Content::Image(Bytes::from_static(bytes)));
    let inputs = vec![
        picture(1, 20, 20),
        image(b""),
        image(b"no image"),
        None,
        text(""),
        text("far too long a text for this server"),
        text("fine"),
    ];
    let response = fixture.embed(inputs).await.expect("an answer for each");
    let faults: Vec<_> = response.results[1..6]
        .iter()
        .map(|result| (violation(result).field, violation(result).reason))
        .collect();
    let expected = [
        ("inputs[1].image", Reason::Empty),
        ("inputs[2].image", Reason::NotAnImage),
        ("inputs[3]", Reason::Missing),
        ("inputs[4].text", Reason::Empty),
        ("inputs[5].text", Reason::TextTooLong),
    ]
    .map(|(field, reason)| (field.to_owned(), reason));
    assert_eq!(faults, expected, "each fault by name");
    assert_eq!(embedding(&response.results[0]).values.len(), 32, "the first neighbour");
    assert_eq!(embedding(&response.results[6]).values.len(), 32, "the last neighbour");
    fixture.stop().await;
}

#[tokio::test]
async fn a_call_without_inputs_or_with_too_many_is_refused() {
    let mut fixture = Fixture::start(|config| config.limits.max_inputs = 2).await;
    for (inputs, reason) in [(vec![], Reason::Missing), (vec![text("a"); 3], Reason::TooMany)] {
        let status = fixture.embed(inputs).await.expect_err("refused");
        let violation = FieldViolation::from_status(&status).expect("a field's violation");
        assert_eq!((violation.field.as_str(), violation.reason), ("inputs", reason), "{status:?}");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn the_model_is_described() {
    let mut fixture = Fixture::start(|_| {}).await;
    let described = fixture.client.get_model(proto::GetModelRequest {}).await.expect("an answer");
    let model = described.into_inner().model.expect("a model");
    assert_eq!((model.name.as_str(), model.dimension), ("tiny", 32), "the folder's name");
    assert_eq!((model.image_size, model.context_length), (32, 77), "its inputs");
    assert_eq!((model.device.as_str(), model.dtype.as_str()), ("cpu", "f32"), "on this machine");
    let limits = model.limits.expect("limits");
    assert_eq!((limits.max_inputs, limits.max_image_pixels), (256, 64_000_000), "the defaults");
    let embedded = fixture.embed(vec![text("a")]).await.expect("an answer");
    assert_eq!(embedded.model_fingerprint, model.fingerprint, "the vectors are this model's");
    assert_eq!(model.fingerprint.len(), 64, "a BLAKE3 hash in hexadecimal");
    fixture.stop().await;
}

/// A family without texts, and a program of its own, whose vectors nothing in its folder describes.
#[tokio::test]
async fn a_model_of_pictures_only_takes_pictures_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut vit = Architecture::PlainB16.config();
    (vit.vision.tower.width, vit.vision.tower.layers, vit.dimension) = (24, 1, 24);
    (vit.vision.image_size, vit.vision.patch_size) = (28, 14);
    random::write(folder.path(), &vit, 1, Dtype::F32).expect("a model");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/families/script");
    for (model, dimension) in [(folder.path(), 24), (&script, 20)] {
        let mut fixture = Fixture::start(|config| config.model = model.into()).await;
        let described = fixture.client.get_model(proto::GetModelRequest {}).await;
        let described = described.expect("an answer").into_inner().model.expect("a model");
        assert_eq!(described.modalities, [i32::from(proto::Modality::Image)], "pictures only");
        assert_eq!((described.image_size, described.context_length), (28, 0), "its inputs");
        assert_eq!(described.dimension, dimension, "its vectors");
        let answer =
            fixture.embed(vec![picture(1, 20, 20), text("a cat")]).await.expect("an answer");
        assert_eq!(embedding(&answer.results[0]).values.len() as u32, dimension, "a vector");
        let violation = violation(&answer.results[1]);
        assert_eq!(
            (violation.field.as_str(), violation.reason),
            ("inputs[1].text", Reason::Unsupported)
        );
        fixture.stop().await;
    }
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused() {
    let mut fixture =
        Fixture::start(|config| config.server.max_message_bytes = ByteSize::kib(64)).await;
    let large = Some(Content::Image(vec![0; 100 << 10].into()));
    let status = fixture.embed(vec![large]).await.expect_err("too large");
    assert_eq!(status.code(), Code::OutOfRange, "gRPC's own answer: {status:?}");
    assert!(fixture.embed(vec![text("fine")]).await.is_ok(), "the connection lives on");
    fixture.stop().await;
}

#[tokio::test]
async fn more_than_the_queue_holds_is_refused_before_it_is_decoded() {
    let mut fixture = Fixture::start(|config| config.queue.max_bytes = ByteSize::b(4000)).await;
    let status = fixture.embed(vec![picture(1, 20, 20); 2]).await.expect_err("too much");
    assert_eq!(status.code(), Code::ResourceExhausted, "3072 bytes of levels each: {status:?}");
    assert!(fixture.embed(vec![picture(1, 20, 20)]).await.is_ok(), "one fits");
    fixture.stop().await;
}

#[tokio::test]
async fn calls_in_flight_are_finished_before_the_end() {
    let mut fixture = Fixture::start(|config| config.batch.max_size = 4).await;
    let first = fixture.embed(vec![text("a")]).await.expect("it runs");
    let mut client = fixture.client.clone();
    let inputs = vec![proto::EmbedInput { content: picture(3, 300, 300) }; 40];
    let call = tokio::spawn(async move { client.embed(request(inputs)).await });
    // The call is under way once the server has begun to refuse nothing: one more answer says so.
    let second = fixture.embed(vec![text("a")]).await.expect("it runs");
    assert_eq!(first.results[0].outcome, second.results[0].outcome, "the same text");
    fixture.stop().await;
    let answer = call.await.expect("no panic");
    if let Err(status) = &answer {
        assert_eq!(status.code(), Code::Unavailable, "refused as a whole, or answered: {status:?}");
    }
}

#[tokio::test]
async fn a_deadline_is_kept() {
    let mut fixture = Fixture::start(|_| {}).await;
    let inputs = vec![proto::EmbedInput { content: picture(3, 900, 900) }; 64];
    let mut request = tonic::Request::new(request(inputs));
    request.set_timeout(Duration::from_millis(1));
    let status = fixture.client.embed(request).await.expect_err("a millisecond is too short");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    fixture.stop().await;
}

#[tokio::test]
async fn a_model_that_can_not_be_read_is_explained() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = Config { model: folder.path().into(), ..Config::default() };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let error = App::build(config, listener).await.expect_err("an empty folder").to_string();
    assert!(error.contains("config.json"), "the missing file: {error}");
}
