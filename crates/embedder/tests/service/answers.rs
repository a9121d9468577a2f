//! What a call may choose about its answers.

use clipmesh_proto::code::{FieldViolation, Reason};
use clipmesh_proto::embedder::v1 as proto;
use clipmesh_proto::embedder::v1::embed_input::Content;
use clipmesh_proto::embedder::v1::{Priority, Stage, VectorEncoding};
use clipmesh_proto::ids::{ContentHash, PixelHash};

use crate::fixture::{Fixture, embedding, picture, text};

fn request(encoding: i32, priority: i32) -> proto::EmbedRequest {
    let inputs = vec![proto::EmbedInput { content: picture(4, 50, 40) }];
    proto::EmbedRequest { inputs, encoding, priority, image_facts: None }
}

#[tokio::test]
async fn vectors_come_as_floats_or_as_bytes() {
    let mut fixture = Fixture::start(|_| {}).await;
    let mut vectors = Vec::new();
    for encoding in [VectorEncoding::Unspecified, VectorEncoding::RawF32, VectorEncoding::RawF16] {
        let response = fixture.client.embed(request(encoding.into(), 0)).await.expect("an answer");
        vectors.push(embedding(&response.into_inner().results[0]).clone());
    }
    let [floats, raw, half] = vectors.try_into().expect("three");
    assert_eq!((floats.values.len(), floats.raw.len()), (32, 0), "floats and no bytes");
    assert_eq!((raw.values.len(), raw.raw.len()), (0, 4 * 32), "bytes and no floats");
    assert_eq!((half.values.len(), half.raw.len()), (0, 2 * 32), "half as many");
    let exact: Vec<u8> = floats.values.iter().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(raw.raw, exact, "the same numbers, little-endian");
    for (bytes, value) in half.raw.chunks_exact(2).zip(&floats.values) {
        let read = half::f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
        assert!((read - value).abs() <= value.abs() / 1024.0, "{read} stands for {value}");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn either_lane_answers_and_what_is_unknown_is_refused() {
    let mut fixture = Fixture::start(|_| {}).await;
    for priority in [Priority::Unspecified, Priority::Interactive, Priority::Bulk] {
        let response = fixture.client.embed(request(0, priority.into())).await.expect("an answer");
        assert_eq!(embedding(&response.into_inner().results[0]).values.len(), 32, "{priority:?}");
    }
    let facts = Some(proto::ImageFacts { hashes: false, thumbnail_side: 513 });
    for (request, field) in [
        (request(0, 7), "priority"),
        (request(7, 0), "encoding"),
        (proto::EmbedRequest { image_facts: facts, ..request(0, 0) }, "image_facts.thumbnail_side"),
    ] {
        let status = fixture.client.embed(request).await.expect_err("refused");
        let violation = FieldViolation::from_status(&status).expect("a field's violation");
        assert_eq!((violation.field.as_str(), violation.reason), (field, Reason::OutOfRange));
    }
    fixture.stop().await;
}

#[tokio::test]
async fn facts_of_a_picture_are_told_when_they_are_asked_for() {
    let mut fixture = Fixture::start(|_| {}).await;
    let mut told = Vec::new();
    for (hashes, thumbnail_side) in [(false, 0), (true, 0), (false, 20), (true, 512)] {
        let facts = Some(proto::ImageFacts { hashes, thumbnail_side });
        let request = proto::EmbedRequest { image_facts: facts, ..request(0, 0) };
        let response = fixture.client.embed(request).await.expect("an answer").into_inner();
        let embedding = embedding(&response.results[0]).clone();
        assert_eq!(embedding.values.len(), 32, "the vector comes all the same");
        let image = embedding.image.expect("what was seen of the picture");
        assert_eq!((image.width, image.height), (50, 40), "its size, always");
        assert_eq!(image.content_hash.len(), if hashes { 64 } else { 0 }, "hashes as asked");
        assert_eq!(image.thumbnail.is_empty(), thumbnail_side == 0, "a thumbnail as asked");
        told.push(image);
    }
    let Some(Content::Image(file)) = picture(4, 50, 40) else { panic!("a file") };
    assert_eq!(told[1].content_hash, ContentHash::of(&file).to_string(), "of the file");
    let pixels = image::load_from_memory(&file).expect("a PNG").to_rgb8();
    assert_eq!(told[1].pixel_hash, PixelHash::of(50, 40, &pixels).to_string(), "of its levels");
    assert_eq!(told[3].perceptual_hash, told[1].perceptual_hash, "of the same picture");
    for (told, size) in [(&told[2], (20, 16)), (&told[3], (50, 40))] {
        let small = image::load_from_memory(&told.thumbnail).expect("a JPEG");
        assert_eq!((small.width(), small.height()), size, "fitted in, and never enlarged");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn an_answer_says_where_its_time_went() {
    let mut fixture = Fixture::start(|_| {}).await;
    let response = fixture.embed(vec![picture(1, 64, 64), text("a cat")]).await.expect("an answer");
    for result in &response.results {
        let timing = result.timing.expect("where the time went");
        let decode = timing.decode_wait_ms + timing.decode_ms;
        let stages = [
            (Stage::Decode, decode),
            (Stage::Queue, timing.queue_ms),
            (Stage::Compute, timing.compute_ms),
        ];
        let (_, limit) = stages
            .into_iter()
            .find(|(stage, _)| *stage == timing.limited_by())
            .expect("one of the three stages");
        assert!(stages.iter().all(|(_, took)| *took <= limit), "no other took longer: {timing:?}");
        assert!(limit > 0.0, "it took some time: {timing:?}");
    }
    fixture.stop().await;
}
