//! What a search or a vote looks for, as `search.proto` has it.

use clipmesh_proto::code::{FieldViolation, Reason};
use clipmesh_proto::search::v1;
use clipmesh_proto::search::v1::query::Kind;
use clipmesh_proto::search::v1::query_part::Kind as PartKind;

use crate::query::{Example, Part};

const MAX_PARTS: usize = 16;
const DEFAULT_WEIGHT: f32 = 1.0;
const MAX_WEIGHT: f32 = 10.0;

/// Checks what came in the field `query`. What depends on its collection is checked later.
pub(crate) fn read(query: Option<v1::Query>) -> Result<Vec<Part>, FieldViolation> {
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
        PartKind::Vector(vector) => {
            let (values, fingerprint) = super::vector(&format!("{field}.vector"), vector)?;
            Ok(Example::Vector { values, fingerprint })
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

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
    fn a_plain_query_is_one_part() {
        let parts = read(query(Kind::Text("a dog".to_owned()))).expect("accepted");
        let [plain] = parts.as_slice() else { panic!("one part: {parts:?}") };
        assert_eq!((plain.field.as_str(), plain.weight), ("query", 1.0), "{plain:?}");
    }

    #[test]
    fn a_mix_keeps_its_weights_and_places() {
        let id = PartKind::ItemId("rex".to_owned());
        let parts = vec![part(None, id), words(-10.0), words(10.0), words(f32::MIN_POSITIVE)];
        let parts = read(mix(parts)).expect("accepted");
        let weights: Vec<_> = parts.iter().map(|part| part.weight).collect();
        assert_eq!(weights, [1.0, -10.0, 10.0, f32::MIN_POSITIVE], "1 where none is given");
        assert_eq!(parts[3].field, "query.mix.parts[3]", "named for its errors");
        let most = read(mix(vec![words(1.0); 16]));
        assert_eq!(most.expect("accepted").len(), 16, "as many as may be");
    }

    #[test]
    fn refuses_by_field_and_reason() {
        let values = "query.vector.values";
        let cases = [
            (None, "query", Reason::Missing),
            (Some(v1::Query { kind: None }), "query", Reason::Missing),
            (query(Kind::Image(Bytes::new())), "query.image", Reason::Empty),
            (query(Kind::Text(String::new())), "query.text", Reason::Empty),
            (query(Kind::ItemId(String::new())), "query.item_id", Reason::Empty),
            (vector(&[], ""), values, Reason::Empty),
            (vector(&[1.0, f32::NAN], ""), values, Reason::NotFinite),
            (vector(&[0.0, 0.0], ""), values, Reason::OutOfRange),
            (vector(&[1.0], "abc"), "query.vector.model_fingerprint", Reason::Malformed),
        ];
        for (query, field, reason) in cases {
            assert_refused(query, field, reason);
        }
    }

    #[track_caller]
    fn assert_refused(query: Option<v1::Query>, field: &str, reason: Reason) {
        let violation = read(query).expect_err("refused");
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
            assert_refused(mix(parts), field, reason);
        }
    }
}
