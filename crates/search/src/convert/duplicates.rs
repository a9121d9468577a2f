//! Duplicates, as `search.proto` has them.

use clipmesh_proto::code::{FieldViolation, Reason};
use clipmesh_proto::search::v1;

use super::search::check_threshold;
use super::value::within;
use crate::duplicates::{Duplicate, Group, Kind, Question};

const DEFAULT_THRESHOLD: f32 = 0.95;
const MAX_HASH_DISTANCE: u32 = 64;
const DEFAULT_LIMIT: u32 = 1_000;
const MAX_LIMIT: u32 = 10_000;

/// Checks what duplicates are looked for.
pub(crate) fn read(request: v1::FindDuplicatesRequest) -> Result<Question, FieldViolation> {
    let limit = within("limit", request.limit.unwrap_or(DEFAULT_LIMIT), 1..=MAX_LIMIT)?;
    Ok(Question {
        kind: read_kind(&request)?,
        collection: super::collection_name("collection", request.collection)?,
        filter: super::filter::read(request.filter)?,
        limit: limit as usize,
    })
}

/// A group as callers see it.
pub(crate) fn write(group: Group) -> v1::FindDuplicatesResponse {
    let Group { representative, duplicates, count } = group;
    let duplicate = |one: Duplicate| v1::Duplicate {
        item: Some(super::item::write(one.item)),
        score: one.score,
        hash_distance: one.hash_distance,
        same_bytes: one.same_bytes,
        same_pixels: one.same_pixels,
    };
    let group = v1::DuplicateGroup {
        representative: Some(super::item::write(representative)),
        duplicates: duplicates.into_iter().map(duplicate).collect(),
        item_count: count as u64,
    };
    v1::FindDuplicatesResponse { group: Some(group), unindexed_fields: Vec::new() }
}

fn read_kind(request: &v1::FindDuplicatesRequest) -> Result<Kind, FieldViolation> {
    let (threshold, distance) = (request.score_threshold, request.max_hash_distance);
    match v1::DuplicateKind::try_from(request.kind) {
        Ok(v1::DuplicateKind::Exact) => {
            let set = [
                ("score_threshold", threshold.is_some()),
                ("max_hash_distance", distance.is_some()),
            ];
            if let Some((field, _)) = set.into_iter().find(|(_, is_set)| *is_set) {
                let message = "is for DUPLICATE_KIND_NEAR";
                return Err(FieldViolation::new(field, Reason::Conflict, message));
            }
            Ok(Kind::Exact)
        }
        Ok(v1::DuplicateKind::Near) => {
            check_threshold(threshold)?;
            let bits =
                distance.map(|bits| within("max_hash_distance", bits, 0..=MAX_HASH_DISTANCE));
            let threshold = threshold.unwrap_or(DEFAULT_THRESHOLD);
            Ok(Kind::Near { threshold, max_hash_distance: bits.transpose()? })
        }
        Ok(v1::DuplicateKind::Unspecified) => {
            let message = "must be DUPLICATE_KIND_EXACT or DUPLICATE_KIND_NEAR";
            Err(FieldViolation::new("kind", Reason::Missing, message))
        }
        Err(_) => {
            let message = format!("there is no kind with the number {}", request.kind);
            Err(FieldViolation::new("kind", Reason::OutOfRange, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(kind: v1::DuplicateKind) -> v1::FindDuplicatesRequest {
        v1::FindDuplicatesRequest {
            collection: "pets".to_owned(),
            kind: kind.into(),
            ..v1::FindDuplicatesRequest::default()
        }
    }

    fn near() -> v1::FindDuplicatesRequest {
        request(v1::DuplicateKind::Near)
    }

    #[test]
    fn has_the_defaults_of_the_contract() {
        let question = read(near()).expect("accepted");
        let kind = Kind::Near { threshold: 0.95, max_hash_distance: None };
        assert_eq!((question.kind, question.limit), (kind, 1_000), "near ones");
        let question = read(request(v1::DuplicateKind::Exact)).expect("accepted");
        assert_eq!((question.kind, question.limit), (Kind::Exact, 1_000), "exact ones");
        for (threshold, bits, limit) in [(-1.0, 0, 1), (1.0, 64, 10_000)] {
            let request = v1::FindDuplicatesRequest {
                score_threshold: Some(threshold),
                max_hash_distance: Some(bits),
                limit: Some(limit),
                ..near()
            };
            assert!(read(request.clone()).is_ok(), "{request:?}");
        }
    }

    #[test]
    fn refuses_by_field_and_reason() {
        let exact = || request(v1::DuplicateKind::Exact);
        let scored = |request| v1::FindDuplicatesRequest { score_threshold: Some(0.5), ..request };
        let hashed =
            |request, bits| v1::FindDuplicatesRequest { max_hash_distance: Some(bits), ..request };
        let limited = |limit| v1::FindDuplicatesRequest { limit: Some(limit), ..near() };
        let range = Reason::OutOfRange;
        let cases = [
            (request(v1::DuplicateKind::Unspecified), "kind", Reason::Missing),
            (v1::FindDuplicatesRequest { kind: 9, ..near() }, "kind", range),
            (scored(exact()), "score_threshold", Reason::Conflict),
            (hashed(exact(), 1), "max_hash_distance", Reason::Conflict),
            (
                v1::FindDuplicatesRequest { score_threshold: Some(1.1), ..near() },
                "score_threshold",
                range,
            ),
            (hashed(near(), 65), "max_hash_distance", range),
            (limited(0), "limit", range),
            (limited(10_001), "limit", range),
            (
                v1::FindDuplicatesRequest { collection: String::new(), ..near() },
                "collection",
                Reason::Empty,
            ),
        ];
        for (request, field, reason) in cases {
            let violation = read(request).expect_err("refused");
            let told = (violation.field.as_str(), violation.reason);
            assert_eq!(told, (field, reason), "{violation}");
        }
    }
}
