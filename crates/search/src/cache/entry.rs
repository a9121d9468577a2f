//! The bytes of what is kept: a version, what it cost, and a message of the contract.

use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use clipmesh_proto::code::{self, FieldViolation, Reason};
use clipmesh_proto::embedder::v1::Embedding as StoredEmbedding;
use clipmesh_proto::google::rpc;
use clipmesh_proto::search::v1;
use prost::Message;

use crate::embedder::Embedded;

/// Raised with every change of the form, so that what another release wrote counts as unreadable.
const VERSION: u8 = 1;

const EMBEDDED: u8 = 0;
const REFUSED: u8 = 1;

/// What is known of a picture or text without asking the embedder.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Known {
    Embedded(Embedded),
    /// There is no vector of it, whoever asks.
    Refused(FieldViolation),
}

/// How often a collection was changed. Answers found at one are not given at another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Generation {
    /// As the store counts; 0 for one that does not.
    pub(super) store: u64,
    /// As the cache counts.
    pub(super) counter: u64,
}

/// A value, and what it had cost to compute.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Valued<T> {
    pub(super) value: T,
    pub(super) cost: Duration,
}

/// An answer that may be out of date.
#[derive(Debug, PartialEq)]
pub(super) enum Found {
    Current(Valued<v1::SearchResponse>),
    /// Found at another generation.
    Stale,
}

// === impl Known ===

impl Known {
    /// Whether an error is one of what was to be embedded, and not of a limit that is a setting,
    /// nor of how the embedder does just now.
    pub(crate) fn is_lasting(violation: &FieldViolation) -> bool {
        matches!(violation.reason, Reason::NotAnImage | Reason::Corrupt | Reason::Unsupported)
    }

    pub(super) fn encode(&self, cost: Duration) -> Bytes {
        match self {
            Self::Embedded(embedded) => {
                // The embedder's own message: floats as they lie in memory, and what it saw of a
                // picture.
                write(&[EMBEDDED], cost, &StoredEmbedding::from(embedded.clone()))
            }
            Self::Refused(violation) => {
                write(&[REFUSED], cost, &code::to_rpc(&violation.clone().into_status()))
            }
        }
    }

    /// `None` for what is none.
    pub(super) fn decode(bytes: Bytes) -> Option<Valued<Self>> {
        let (mut bytes, cost) = open(bytes)?;
        let value = match bytes.try_get_u8().ok()? {
            EMBEDDED => {
                let stored = StoredEmbedding::decode(bytes).ok()?;
                Self::Embedded(Embedded::try_from(stored).ok()?)
            }
            REFUSED => {
                let status = code::from_rpc(&rpc::Status::decode(bytes).ok()?);
                Self::Refused(FieldViolation::from_status(&status)?)
            }
            _ => return None,
        };
        Some(Valued { value, cost })
    }
}

// === impl Found ===

impl Found {
    pub(super) fn encode(
        response: &v1::SearchResponse,
        generation: Generation,
        cost: Duration,
    ) -> Bytes {
        let mut header = [0; 16];
        header[..8].copy_from_slice(&generation.store.to_le_bytes());
        header[8..].copy_from_slice(&generation.counter.to_le_bytes());
        write(&header, cost, response)
    }

    /// `None` for what is none. What is stale is not read further.
    pub(super) fn decode(bytes: Bytes, now: Generation) -> Option<Self> {
        let (mut bytes, cost) = open(bytes)?;
        let store = bytes.try_get_u64_le().ok()?;
        let counter = bytes.try_get_u64_le().ok()?;
        if (Generation { store, counter }) != now {
            return Some(Self::Stale);
        }
        let value = v1::SearchResponse::decode(bytes).ok()?;
        Some(Self::Current(Valued { value, cost }))
    }
}

fn write(header: &[u8], cost: Duration, message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::with_capacity(5 + header.len() + message.encoded_len());
    bytes.put_u8(VERSION);
    bytes.put_u32_le(u32::try_from(cost.as_micros()).unwrap_or(u32::MAX));
    bytes.put_slice(header);
    message.encode(&mut bytes).expect("it has room for all of it");
    bytes.freeze()
}

fn open(mut bytes: Bytes) -> Option<(Bytes, Duration)> {
    if bytes.try_get_u8().ok()? != VERSION {
        return None;
    }
    let cost = Duration::from_micros(bytes.try_get_u32_le().ok()?.into());
    Some((bytes, cost))
}

#[cfg(test)]
mod tests {
    use clipmesh_proto::Embedding;
    use clipmesh_proto::ids::{PerceptualHash, PixelHash};
    use proptest::prelude::*;

    use super::*;
    use crate::embedder::{Hashes, ImageInfo};

    const COST: Duration = Duration::from_micros(1_234);
    const NOW: Generation = Generation { store: 3, counter: 5 };

    #[test]
    fn vectors_come_back_as_they_were() {
        let embedded = Embedded {
            vector: Embedding::new(vec![0.1, -0.7, 3.0]).expect("a direction"),
            image: Some(ImageInfo {
                width: 3,
                height: 2,
                format: "png".to_owned(),
                hashes: Some(Hashes {
                    pixel: PixelHash::of(1, 1, &[1, 2, 3]),
                    perceptual: PerceptualHash::from(u64::MAX - 7),
                }),
            }),
            thumbnail: Some(Bytes::from_static(b"a picture")),
        };
        let bytes = Known::Embedded(embedded.clone()).encode(COST);
        let Some(Valued { value: Known::Embedded(found), cost }) = Known::decode(bytes) else {
            panic!("it was a vector");
        };
        assert!(found.vector.dot(&embedded.vector) > 0.999_999, "the same direction");
        assert_eq!(found.image, embedded.image, "the same picture");
        assert_eq!(found.thumbnail, None, "which is stored elsewhere");
        assert_eq!(cost, COST, "what it would cost again");
    }

    #[test]
    fn refusals_come_back_as_they_were() {
        let violation = FieldViolation::new("inputs[0].image", Reason::Corrupt, "ends early");
        let bytes = Known::Refused(violation.clone()).encode(COST);
        let known = Known::decode(bytes).map(|valued| valued.value);
        assert_eq!(known, Some(Known::Refused(violation)), "field, reason and words");
    }

    #[test]
    fn only_what_lies_in_the_file_is_remembered() {
        let is_lasting = |reason| Known::is_lasting(&FieldViolation::new("image", reason, "no"));
        for reason in [Reason::NotAnImage, Reason::Corrupt, Reason::Unsupported] {
            assert!(is_lasting(reason), "{reason}");
        }
        for reason in [Reason::TooManyBytes, Reason::TooManyPixels, Reason::TextTooLong] {
            assert!(!is_lasting(reason), "{reason}: another setting, and it is taken");
        }
        assert!(!is_lasting(Reason::TooSlow), "on a day with less to do it is taken");
    }

    #[test]
    fn answers_are_of_one_generation() {
        let hit = v1::Hit { score: 0.5, ..v1::Hit::default() };
        let response = v1::SearchResponse { hits: vec![hit], ..v1::SearchResponse::default() };
        let bytes = Found::encode(&response, NOW, COST);
        let current = Found::Current(Valued { value: response, cost: COST });
        assert_eq!(Found::decode(bytes.clone(), NOW), Some(current), "nothing has changed");
        for other in [Generation { store: 4, ..NOW }, Generation { counter: 4, ..NOW }] {
            assert_eq!(Found::decode(bytes.clone(), other), Some(Found::Stale), "{other:?}");
        }
    }

    #[test]
    fn what_another_release_wrote_is_none() {
        let mut bytes = Found::encode(&v1::SearchResponse::default(), NOW, COST).to_vec();
        bytes[0] += 1;
        assert_eq!(Found::decode(bytes.into(), NOW), None, "its form is not known");
    }

    proptest! {
        /// Whatever lies in the cache, reading it ends.
        #[test]
        fn garbage_is_read_without_a_panic(bytes: Vec<u8>) {
            let versioned: Bytes = [&[VERSION][..], &bytes].concat().into();
            prop_assert_eq!(Known::decode(bytes.into()).is_some(), false);
            Known::decode(versioned.clone());
            Found::decode(versioned, NOW);
        }
    }
}
