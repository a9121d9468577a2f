//! Searches, as `search.proto` has them.

use clipmesh_proto::Embedding;
use clipmesh_proto::code::{FieldViolation, Reason};
use clipmesh_proto::embedding;
use clipmesh_proto::search::v1;
use clipmesh_proto::search::v1::query::Kind;
use clipmesh_proto::search::v1::query_part::Kind as PartKind;

use crate::query::{Example, Part, Request};
use crate::store::Hit;

const DEFAULT_LIMIT: u32 = 10;
const MAX_LIMIT: u32 = 1_000;
const MAX_OFFSET: u32 = 10_000;
const MAX_PARTS: usize = 16;
const DEFAULT_WEIGHT: f32 = 1.0;
const MAX_WEIGHT: f32 = 10.0;

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
    v1::Hit { item: Some(super::item::write(hit.item)), score: hit.score, ..v1::Hit::default() }
}

fn read_query(query: Option<v1::Query>) -> Result<Vec<Part>, FieldViolation> {
    let kind = match query.and_then(|query| query.kind) {
        Some(Kind::Mix(mix)) => return read_mix(mix),
        Some(Kind::Image(image)) => Some(PartKind::Image(image)),
        Some(Kind::Text(text)) => Some(PartKind::Text(text)),
        Some(Kind::Vector(vector)) => Some(PartKind::Vector(vector)),
        Some(Kind::ItemId(id)) => Some(PartKind::ItemId(id)),
        None => None,
    };
    let Some(kind) = kind else {
        let message = "must be one of `image`, `text`, `vector`, `item_id` and `mix`";
        return Err(FieldViolation::new("query", Reason::Missing, message));
    };
    let field = "query".to_owned();
    let example = read_example(&field, kind)?;
    Ok(vec![Part { field, weight: 1.0, example }])
}

fn read_mix(mix: v1::MixQuery) -> Result<Vec<Part>, FieldViolation> {
    let field = "query.mix.parts";
    if mix.parts.is_empty() {
        let message = format!("must have 1 to {MAX_PARTS} parts");
        return Err(FieldViolation::new(field, Reason::Empty, message));
    }
    if mix.parts.len() > MAX_PARTS {
        let message = format!("must have at most {MAX_PARTS} parts, not {}", mix.parts.len());
        return Err(FieldViolation::new(field, Reason::TooMany, message));
    }
    let parts = mix.parts.into_iter().enumerate();
    parts.map(|(i, part)| read_part(format!("{field}[{i}]"), part)).collect()
}

fn read_part(field: String, part: v1::QueryPart) -> Result<Part, FieldViolation> {
    let weight = part.weight.unwrap_or(DEFAULT_WEIGHT);
    check_weight(weight).map_err(|violation| violation.renamed(format!("{field}.weight")))?;
    let Some(kind) = part.kind else {
        let message = "must be one of `image`, `text`, `vector` and `item_id`";
        return Err(FieldViolation::new(field, Reason::Missing, message));
    };
    let example = read_example(&field, kind)?;
    Ok(Part { field, weight, example })
}

fn check_weight(weight: f32) -> Result<(), FieldViolation> {
    let refuse = |reason, message| Err(FieldViolation::new("weight", reason, message));
    if !weight.is_finite() {
        return refuse(Reason::NotFinite, format!("must be a finite number, not {weight}"));
    }
    if weight == 0.0 || weight.abs() > MAX_WEIGHT {
        let message = format!("must be -{MAX_WEIGHT} to {MAX_WEIGHT} and not 0, not {weight}");
        return refuse(Reason::OutOfRange, message);
    }
    Ok(())
}

fn read_example(field: &str, kind: PartKind) -> Result<Example, FieldViolation> {
    let empty = |kind| {
        let field = format!("{field}.{kind}");
        Err(FieldViolation::new(field, Reason::Empty, "must not be empty"))
    };
    match kind {
        PartKind::Image(image) if image.is_empty() => empty("image"),
        PartKind::Image(image) => Ok(Example::Image(image)),
        PartKind::Text(text) if text.is_empty() => empty("text"),
        PartKind::Text(text) => Ok(Example::Text(text)),
        PartKind::ItemId(id) => super::item_id(&format!("{field}.item_id"), id).map(Example::Item),
        PartKind::Vector(vector) => read_vector(&format!("{field}.vector"), vector),
    }
}

fn read_vector(field: &str, vector: v1::VectorQuery) -> Result<Example, FieldViolation> {
    let fingerprint = match vector.model_fingerprint {
        text if text.is_empty() => None,
        text => Some(super::fingerprint(&format!("{field}.model_fingerprint"), text)?),
    };
    let values = Embedding::new(vector.values).map_err(|error| {
        let reason = match error {
            embedding::Error::Empty => Reason::Empty,
            embedding::Error::NotFinite { .. } => Reason::NotFinite,
            embedding::Error::Zero => Reason::OutOfRange,
        };
        FieldViolation::new(format!("{field}.values"), reason, error.to_string())
    })?;
    Ok(Example::Vector { values, fingerprint })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

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

    fn part(weight: Option<f32>, kind: PartKind) -> v1::QueryPart {
        v1::QueryPart { weight, kind: Some(kind) }
    }

    fn words(weight: f32) -> v1::QueryPart {
        part(Some(weight), PartKind::Text("a dog".to_owned()))
    }

    fn mix(parts: Vec<v1::QueryPart>) -> Option<v1::Query> {
        query(Kind::Mix(v1::MixQuery { parts }))
    }

    #[test]
    fn has_the_defaults_of_the_contract() {
        let read = read(request()).expect("accepted");
        assert_eq!((read.limit, read.offset, read.threshold), (10, 0, None), "defaults");
        assert!(read.filter.is_empty(), "no filter");
        let [plain] = read.query.as_slice() else { panic!("one part: {read:?}") };
        assert_eq!((plain.field.as_str(), plain.weight), ("query", 1.0), "{plain:?}");
    }

    #[test]
    fn a_mix_keeps_its_weights_and_places() {
        let id = PartKind::ItemId("rex".to_owned());
        let parts = vec![part(None, id), words(-10.0), words(10.0), words(f32::MIN_POSITIVE)];
        let request = v1::SearchRequest { query: mix(parts), ..request() };
        let parts = read(request).expect("accepted").query;
        let weights: Vec<_> = parts.iter().map(|part| part.weight).collect();
        assert_eq!(weights, [1.0, -10.0, 10.0, f32::MIN_POSITIVE], "1 where none is given");
        assert_eq!(parts[3].field, "query.mix.parts[3]", "named for its errors");
        let most = v1::SearchRequest { query: mix(vec![words(1.0); 16]), ..self::request() };
        assert_eq!(read(most).expect("accepted").query.len(), 16, "as many as may be");
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
            assert_refused(request, field, reason);
        }
    }

    #[track_caller]
    fn assert_refused(request: v1::SearchRequest, field: &str, reason: Reason) {
        let violation = read(request).expect_err("refused");
        assert_eq!((violation.field.as_str(), violation.reason), (field, reason), "{violation}");
    }

    #[test]
    fn refuses_parts_by_their_place() {
        let (nan, infinite) = (f32::NAN, f32::INFINITY);
        let id = || PartKind::ItemId("a\nb".to_owned());
        let vector = || {
            let values = vec![0.0, nan];
            PartKind::Vector(v1::VectorQuery { values, model_fingerprint: String::new() })
        };
        let weight = "query.mix.parts[1].weight";
        let cases = [
            (vec![], "query.mix.parts", Reason::Empty),
            (vec![words(1.0); 17], "query.mix.parts", Reason::TooMany),
            (vec![words(1.0), words(0.0)], weight, Reason::OutOfRange),
            (vec![words(1.0), words(-0.0)], weight, Reason::OutOfRange),
            (vec![words(1.0), words(10.1)], weight, Reason::OutOfRange),
            (vec![words(1.0), words(-10.1)], weight, Reason::OutOfRange),
            (vec![words(1.0), words(nan)], weight, Reason::NotFinite),
            (vec![words(1.0), words(-infinite)], weight, Reason::NotFinite),
            (vec![v1::QueryPart::default()], "query.mix.parts[0]", Reason::Missing),
            (
                vec![words(1.0), words(1.0), part(None, PartKind::Image(Bytes::new()))],
                "query.mix.parts[2].image",
                Reason::Empty,
            ),
            (
                vec![part(None, PartKind::Text(String::new()))],
                "query.mix.parts[0].text",
                Reason::Empty,
            ),
            (vec![part(None, id())], "query.mix.parts[0].item_id", Reason::Malformed),
            (vec![part(None, vector())], "query.mix.parts[0].vector.values", Reason::NotFinite),
        ];
        for (parts, field, reason) in cases {
            assert_refused(v1::SearchRequest { query: mix(parts), ..request() }, field, reason);
        }
    }
}
