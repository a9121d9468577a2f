//! Searches, as `search.proto` has them.

use bytes::Bytes;
use clipmesh_proto::Embedding;
use clipmesh_proto::code::{FieldViolation, Reason};
use clipmesh_proto::embedding;
use clipmesh_proto::search::v1;
use clipmesh_proto::search::v1::query::Kind;

use crate::query::{Query, Request};
use crate::store::Hit;

const DEFAULT_LIMIT: u32 = 10;
const MAX_LIMIT: u32 = 1_000;
const MAX_OFFSET: u32 = 10_000;

/// Checks a search. What depends on its collection is checked later.
pub(crate) fn read(request: v1::SearchRequest) -> Result<Request, FieldViolation> {
    let limit = request.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        let message = format!("must be 1 to {MAX_LIMIT}, not {limit}");
        return Err(FieldViolation::new("limit", Reason::OutOfRange, message));
    }
    if request.offset > MAX_OFFSET {
        let message = format!("must be at most {MAX_OFFSET}, not {}", request.offset);
        return Err(FieldViolation::new("offset", Reason::OutOfRange, message));
    }
    if let Some(threshold) = request.score_threshold {
        // A NaN is in no range.
        if !(-1.0..=1.0).contains(&threshold) {
            let message = format!("must be -1 to 1, not {threshold}");
            return Err(FieldViolation::new("score_threshold", Reason::OutOfRange, message));
        }
    }
    Ok(Request {
        collection: super::collection_name("collection", request.collection)?,
        query: read_query(request.query)?,
        filter: super::filter::read(request.filter)?,
        limit: limit as usize,
        offset: request.offset as usize,
        threshold: request.score_threshold,
    })
}

/// A hit as callers see it.
pub(crate) fn write_hit(hit: Hit) -> v1::Hit {
    v1::Hit { item: Some(super::item::write(hit.item)), score: hit.score }
}

fn read_query(query: Option<v1::Query>) -> Result<Query, FieldViolation> {
    let Some(kind) = query.and_then(|query| query.kind) else {
        let message = "must be one of `image`, `text`, `vector` and `item_id`";
        return Err(FieldViolation::new("query", Reason::Missing, message));
    };
    match kind {
        Kind::Image(image) => read_image(image),
        Kind::Text(text) if text.is_empty() => {
            Err(FieldViolation::new("query.text", Reason::Empty, "must not be empty"))
        }
        Kind::Text(text) => Ok(Query::Text(text)),
        Kind::ItemId(id) => super::item_id("query.item_id", id).map(Query::Item),
        Kind::Vector(vector) => read_vector(vector),
    }
}

fn read_image(image: Bytes) -> Result<Query, FieldViolation> {
    if image.is_empty() {
        return Err(FieldViolation::new("query.image", Reason::Empty, "must not be empty"));
    }
    Ok(Query::Image(image))
}

fn read_vector(vector: v1::VectorQuery) -> Result<Query, FieldViolation> {
    let fingerprint = match vector.model_fingerprint {
        text if text.is_empty() => None,
        text => Some(super::fingerprint("query.vector.model_fingerprint", text)?),
    };
    let values = Embedding::new(vector.values).map_err(|error| {
        let reason = match error {
            embedding::Error::Empty => Reason::Empty,
            embedding::Error::NotFinite { .. } => Reason::NotFinite,
            embedding::Error::Zero => Reason::OutOfRange,
        };
        FieldViolation::new("query.vector.values", reason, error.to_string())
    })?;
    Ok(Query::Vector { values, fingerprint })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> v1::SearchRequest {
        v1::SearchRequest {
            collection: "pets".to_owned(),
            query: query(Kind::Text("a dog".to_owned())),
            ..v1::SearchRequest::default()
        }
    }

    fn query(kind: Kind) -> Option<v1::Query> {
        Some(v1::Query { kind: Some(kind) })
    }

    fn vector(values: &[f32], fingerprint: &str) -> Option<v1::Query> {
        let model_fingerprint = fingerprint.to_owned();
        query(Kind::Vector(v1::VectorQuery { values: values.to_vec(), model_fingerprint }))
    }

    #[test]
    fn has_the_defaults_of_the_contract() {
        let read = read(request()).expect("accepted");
        assert_eq!((read.limit, read.offset, read.threshold), (10, 0, None), "defaults");
        assert!(read.filter.is_empty(), "no filter");
    }

    #[test]
    fn takes_what_lies_on_its_bounds() {
        for (limit, offset, threshold) in [(1, 0, -1.0), (1_000, 10_000, 1.0)] {
            let request = v1::SearchRequest {
                limit: Some(limit),
                offset,
                score_threshold: Some(threshold),
                ..request()
            };
            assert!(read(request.clone()).is_ok(), "{request:?}");
        }
    }

    #[test]
    fn refuses_by_field_and_reason() {
        let threshold = |threshold| v1::SearchRequest { score_threshold: threshold, ..request() };
        let limit = |limit| v1::SearchRequest { limit: Some(limit), ..request() };
        let asking = |query| v1::SearchRequest { query, ..request() };
        let collection =
            |name: &str| v1::SearchRequest { collection: name.to_owned(), ..request() };
        let values = "query.vector.values";
        let cases = [
            (limit(0), "limit", Reason::OutOfRange),
            (limit(1_001), "limit", Reason::OutOfRange),
            (v1::SearchRequest { offset: 10_001, ..request() }, "offset", Reason::OutOfRange),
            (threshold(Some(1.001)), "score_threshold", Reason::OutOfRange),
            (threshold(Some(f32::NAN)), "score_threshold", Reason::OutOfRange),
            (threshold(Some(f32::NEG_INFINITY)), "score_threshold", Reason::OutOfRange),
            (collection(""), "collection", Reason::Empty),
            (collection("No"), "collection", Reason::Malformed),
            (asking(None), "query", Reason::Missing),
            (asking(Some(v1::Query { kind: None })), "query", Reason::Missing),
            (asking(query(Kind::Image(Bytes::new()))), "query.image", Reason::Empty),
            (asking(query(Kind::Text(String::new()))), "query.text", Reason::Empty),
            (asking(query(Kind::ItemId(String::new()))), "query.item_id", Reason::Empty),
            (asking(vector(&[], "")), values, Reason::Empty),
            (asking(vector(&[1.0, f32::NAN], "")), values, Reason::NotFinite),
            (asking(vector(&[0.0, 0.0], "")), values, Reason::OutOfRange),
            (asking(vector(&[1.0], "abc")), "query.vector.model_fingerprint", Reason::Malformed),
        ];
        for (request, field, reason) in cases {
            let violation = read(request).expect_err("refused");
            assert_eq!(
                (violation.field.as_str(), violation.reason),
                (field, reason),
                "{violation}"
            );
        }
    }
}
