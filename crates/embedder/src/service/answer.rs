//! From answers to messages.

use std::time::Duration;

use bytes::Bytes;
use clipmesh_proto::code::{self, FieldViolation, Reason};
use clipmesh_proto::embedder::v1 as proto;
use clipmesh_proto::embedder::v1::embed_result::Outcome;
use half::f16;
use half::slice::HalfFloatSliceExt as _;

use super::pipeline::{Embedded, Refused, Seen};
use crate::metrics;
use crate::preprocess::{Facts, Wanted};

/// Longest side of a thumbnail in pixels: sharp at twice the size of a list's usual tile.
const MAX_THUMBNAIL_SIDE: u32 = 512;

/// How a vector is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Floats,
    RawF32,
    RawF16,
}

// === impl Encoding ===

impl Encoding {
    /// Reads a request's `encoding`.
    ///
    /// # Errors
    /// A number that this version has no name for.
    pub(super) fn read(encoding: i32) -> Result<Self, FieldViolation> {
        match proto::VectorEncoding::try_from(encoding) {
            Ok(proto::VectorEncoding::Unspecified) => Ok(Self::Floats),
            Ok(proto::VectorEncoding::RawF32) => Ok(Self::RawF32),
            Ok(proto::VectorEncoding::RawF16) => Ok(Self::RawF16),
            Err(_) => {
                let message = format!("{encoding} is no encoding of vectors");
                Err(FieldViolation::new("encoding", Reason::OutOfRange, message))
            }
        }
    }

    fn write(self, values: Vec<f32>) -> proto::Embedding {
        let (values, raw) = match self {
            Self::Floats => (values, Bytes::new()),
            Self::RawF32 => (Vec::new(), values.iter().flat_map(|v| v.to_le_bytes()).collect()),
            Self::RawF16 => {
                // The CPU's own instruction where it has one.
                let mut halves = vec![f16::ZERO; values.len()];
                halves.convert_from_f32_slice(&values);
                (Vec::new(), halves.iter().flat_map(|half| half.to_le_bytes()).collect())
            }
        };
        proto::Embedding { values, raw, image: None }
    }
}

/// Reads a request's `image_facts`.
///
/// # Errors
/// A thumbnail larger than is made.
pub(super) fn read_wanted(facts: Option<proto::ImageFacts>) -> Result<Wanted, FieldViolation> {
    let proto::ImageFacts { hashes, thumbnail_side } = facts.unwrap_or_default();
    if thumbnail_side > MAX_THUMBNAIL_SIDE {
        let message = format!("must be at most {MAX_THUMBNAIL_SIDE}, not {thumbnail_side}");
        let field = "image_facts.thumbnail_side";
        return Err(FieldViolation::new(field, Reason::OutOfRange, message));
    }
    let thumbnail_side = (thumbnail_side > 0).then_some(thumbnail_side);
    Ok(Wanted { facts: hashes, thumbnail_side })
}

/// The result of an input that was embedded.
pub(super) fn embedded(embedded: Embedded, encoding: Encoding) -> proto::EmbedResult {
    let Embedded { answer, seen, decode_wait, decode } = embedded;
    let image = seen.map(image_info);
    let embedding = encoding.write(answer.vector.into_values());
    let limited_by = longest(decode_wait + decode, answer.queued, answer.computed);
    let millis = |duration: Duration| duration.as_secs_f64() * 1e3;
    proto::EmbedResult {
        outcome: Some(Outcome::Embedding(proto::Embedding { image, ..embedding })),
        timing: Some(proto::EmbedTiming {
            decode_ms: millis(decode),
            queue_ms: millis(answer.queued),
            compute_ms: millis(answer.computed),
            batch_size: u32::try_from(answer.batch_size).unwrap_or(u32::MAX),
            decode_wait_ms: millis(decode_wait),
            limited_by: limited_by.into(),
        }),
    }
}

fn image_info(Seen { info, thumbnail }: Seen) -> proto::ImageInfo {
    let told = proto::ImageInfo {
        width: info.width,
        height: info.height,
        format: info.format.to_owned(),
        thumbnail: thumbnail.map(Bytes::from).unwrap_or_default(),
        ..proto::ImageInfo::default()
    };
    let Some(Facts { content_hash, pixel_hash, perceptual_hash }) = info.facts else {
        return told;
    };
    proto::ImageInfo {
        content_hash: content_hash.to_string(),
        pixel_hash: pixel_hash.to_string(),
        perceptual_hash: perceptual_hash.into(),
        ..told
    }
}

/// The result of an input that is at fault. `field` is its place in the request.
pub(super) fn refused(Refused { fault, part }: &Refused, field: &str) -> proto::EmbedResult {
    metrics::fault(fault.reason().as_str());
    let field = format!("{field}{part}");
    failed(&FieldViolation::new(field, fault.reason(), fault.to_string()).into_status())
}

/// The result of an input that came to nothing.
pub(super) fn failed(status: &tonic::Status) -> proto::EmbedResult {
    proto::EmbedResult { outcome: Some(Outcome::Error(code::to_rpc(status))), timing: None }
}

/// The stage that took longest; of two equal ones the later, which the earlier had to wait for.
fn longest(decode: Duration, queue: Duration, compute: Duration) -> proto::Stage {
    if compute >= decode.max(queue) {
        proto::Stage::Compute
    } else if queue >= decode {
        proto::Stage::Queue
    } else {
        proto::Stage::Decode
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_written_as_asked() {
        let values = vec![0.6, -0.8, 0.0];
        let floats = Encoding::Floats.write(values.clone());
        assert_eq!((&floats.values, floats.raw.len()), (&values, 0), "floats only");

        let raw = Encoding::RawF32.write(values.clone());
        assert!(raw.values.is_empty(), "bytes only");
        let read: Vec<f32> = raw
            .raw
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes(bytes.try_into().expect("four")))
            .collect();
        assert_eq!(read, values, "the same numbers");

        let raw = Encoding::RawF16.write(values.clone());
        assert_eq!(raw.raw.len(), 6, "two bytes each");
        // 0.6 is 1.2 * 2^-1: exponent 14 of 5 bits, and 0.2 * 1024 = 205 of 10 bits.
        assert_eq!(raw.raw[..2], [0xCD, 0x38], "little-endian");
        for (bytes, value) in raw.raw.chunks_exact(2).zip(&values) {
            let read = f16::from_le_bytes(bytes.try_into().expect("two")).to_f32();
            assert!((read - value).abs() <= value.abs() / 2048.0, "{read} is not {value}");
        }
    }

    #[test]
    fn an_unknown_encoding_is_refused_by_name() {
        let violation = Encoding::read(9).expect_err("no such encoding");
        assert_eq!((violation.field.as_str(), violation.reason), ("encoding", Reason::OutOfRange));
    }

    #[test]
    fn a_thumbnail_has_bounds() {
        let wanted = |thumbnail_side| {
            let facts = proto::ImageFacts { hashes: false, thumbnail_side };
            read_wanted(Some(facts)).map(|wanted| wanted.thumbnail_side)
        };
        assert_eq!(wanted(0), Ok(None), "none");
        assert_eq!(wanted(512), Ok(Some(512)), "the largest");
        let violation = wanted(513).expect_err("too large");
        assert_eq!(violation.field, "image_facts.thumbnail_side", "by name");
        assert_eq!(read_wanted(None), Ok(Wanted::default()), "nothing where nothing is asked for");
    }

    #[test]
    fn the_longest_stage_is_the_limit() {
        let of = |decode, queue, compute| {
            let millis = Duration::from_millis;
            longest(millis(decode), millis(queue), millis(compute))
        };
        assert_eq!(of(3, 2, 1), proto::Stage::Decode, "decoding");
        assert_eq!(of(1, 3, 2), proto::Stage::Queue, "the device was taken");
        assert_eq!(of(1, 2, 3), proto::Stage::Compute, "the forward pass");
        assert_eq!(of(2, 2, 1), proto::Stage::Queue, "the later of two");
    }
}
