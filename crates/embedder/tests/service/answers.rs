//! What a call may choose about its answers.

use clipmesh_proto::code::{FieldViolation, Reason};
use clipmesh_proto::embedder::v1 as proto;
use clipmesh_proto::embedder::v1::{Priority, Stage, VectorEncoding};

use crate::fixture::{Fixture, embedding, picture, text};

fn request(encoding: i32, priority: i32) -> proto::EmbedRequest {
    let inputs = vec![proto::EmbedInput { content: picture(4, 50, 40) }];
    proto::EmbedRequest { inputs, encoding, priority }
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
async fn either_lane_answers_and_an_unknown_one_is_refused() {
    let mut fixture = Fixture::start(|_| {}).await;
    for priority in [Priority::Unspecified, Priority::Interactive, Priority::Bulk] {
        let response = fixture.client.embed(request(0, priority.into())).await.expect("an answer");
        assert_eq!(embedding(&response.into_inner().results[0]).values.len(), 32, "{priority:?}");
    }
    for (request, field) in [(request(0, 7), "priority"), (request(7, 0), "encoding")] {
        let status = fixture.client.embed(request).await.expect_err("refused");
        let violation = FieldViolation::from_status(&status).expect("a field's violation");
        assert_eq!((violation.field.as_str(), violation.reason), (field, Reason::OutOfRange));
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
