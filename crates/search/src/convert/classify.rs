//! Votes and counts, as `search.proto` has them.

use clipmesh_proto::code::{FieldViolation, Reason};
use clipmesh_proto::ids::ItemId;
use clipmesh_proto::search::v1;

use super::search::check_threshold;
use super::value::{self, within};
use crate::classify::{self, Prediction, Verdict, Weight};
use crate::facets::{self, Counts};
use crate::filter::Field;

const DEFAULT_NEIGHBOURS: u32 = 10;
const MAX_NEIGHBOURS: u32 = 1_000;
const DEFAULT_VALUES: u32 = 10;
const MAX_VALUES: u32 = 1_000;

/// Checks what is to be classified. What depends on its collection is checked later.
pub(crate) fn read(request: v1::ClassifyRequest) -> Result<classify::Question, FieldViolation> {
    check_threshold(request.score_threshold)?;
    let neighbours = within("k", request.k.unwrap_or(DEFAULT_NEIGHBOURS), 1..=MAX_NEIGHBOURS)?;
    let weight = match v1::VoteWeight::try_from(request.weight) {
        Ok(v1::VoteWeight::Unspecified | v1::VoteWeight::Similarity) => Weight::Similarity,
        Ok(v1::VoteWeight::Uniform) => Weight::Uniform,
        Err(_) => {
            let message = format!("there is no weight with the number {}", request.weight);
            return Err(FieldViolation::new("weight", Reason::OutOfRange, message));
        }
    };
    Ok(classify::Question {
        collection: super::collection_name("collection", request.collection)?,
        query: super::query::read(request.query)?,
        field: super::field("field", &request.field)?,
        filter: super::filter::read(request.filter)?,
        neighbours: neighbours as usize,
        weight,
        threshold: request.score_threshold,
        exact: request.exact,
    })
}

/// The outcome of a vote, as callers see it; without its timing.
pub(crate) fn write(verdict: Verdict) -> v1::ClassifyResponse {
    let Verdict { field, predictions, unindexed, timing: _ } = verdict;
    let prediction = |Prediction { label, score, voters }| {
        let neighbour = |(id, score): (ItemId, f32)| v1::Neighbour { id: id.to_string(), score };
        v1::Prediction {
            label: Some(value::write(&field, &label)),
            score,
            neighbours: voters.into_iter().map(neighbour).collect(),
        }
    };
    v1::ClassifyResponse {
        predictions: predictions.into_iter().map(prediction).collect(),
        timing: None,
        unindexed_fields: unindexed.iter().map(Field::key).collect(),
    }
}

/// Checks what is to be counted.
pub(crate) fn read_facet(request: v1::FacetRequest) -> Result<facets::Question, FieldViolation> {
    let limit = within("limit", request.limit.unwrap_or(DEFAULT_VALUES), 1..=MAX_VALUES)?;
    Ok(facets::Question {
        collection: super::collection_name("collection", request.collection)?,
        field: super::field("key", &request.key)?,
        filter: super::filter::read(request.filter)?,
        limit: limit as usize,
    })
}

/// What was counted, as callers see it.
pub(crate) fn write_facet(counts: Counts) -> v1::FacetResponse {
    let Counts { field, values, unindexed } = counts;
    let values = values.iter().map(|(value, count)| {
        let value = Some(value::write(&field, value));
        v1::FacetValue { value, count: *count }
    });
    v1::FacetResponse {
        values: values.collect(),
        unindexed_fields: unindexed.iter().map(Field::key).collect(),
    }
}

#[cfg(test)]
mod tests {
    use clipmesh_proto::search::v1::query::Kind;

    use super::*;

    fn request() -> v1::ClassifyRequest {
        let query = v1::Query { kind: Some(Kind::ItemId("rex".to_owned())) };
        v1::ClassifyRequest {
            collection: "pets".to_owned(),
            query: Some(query),
            field: "metadata.breed".to_owned(),
            ..v1::ClassifyRequest::default()
        }
    }

    fn facet() -> v1::FacetRequest {
        v1::FacetRequest {
            collection: "pets".to_owned(),
            key: "format".to_owned(),
            ..v1::FacetRequest::default()
        }
    }

    #[test]
    fn has_the_defaults_of_the_contract() {
        let question = read(request()).expect("accepted");
        assert_eq!(question.neighbours, 10, "of whom to ask");
        assert_eq!(question.weight, Weight::Similarity, "how votes count");
        assert_eq!((question.threshold, question.exact), (None, false), "and the rest");
        assert_eq!(read_facet(facet()).expect("accepted").limit, 10, "of values");
        let most = v1::ClassifyRequest { k: Some(1_000), score_threshold: Some(-1.0), ..request() };
        assert!(read(most).is_ok(), "as much as may be");
        assert!(read_facet(v1::FacetRequest { limit: Some(1_000), ..facet() }).is_ok(), "here too");
    }

    #[test]
    fn refuses_by_field_and_reason() {
        let ask = |request: v1::ClassifyRequest| read(request).expect_err("refused");
        let count = |request: v1::FacetRequest| read_facet(request).expect_err("refused");
        let range = Reason::OutOfRange;
        let cases = [
            (ask(v1::ClassifyRequest { k: Some(0), ..request() }), "k", range),
            (ask(v1::ClassifyRequest { k: Some(1_001), ..request() }), "k", range),
            (ask(v1::ClassifyRequest { weight: 9, ..request() }), "weight", range),
            (
                ask(v1::ClassifyRequest { score_threshold: Some(f32::NAN), ..request() }),
                "score_threshold",
                range,
            ),
            (
                ask(v1::ClassifyRequest { field: String::new(), ..request() }),
                "field",
                Reason::Malformed,
            ),
            (
                ask(v1::ClassifyRequest { field: "breed".to_owned(), ..request() }),
                "field",
                Reason::Malformed,
            ),
            (ask(v1::ClassifyRequest { query: None, ..request() }), "query", Reason::Missing),
            (
                ask(v1::ClassifyRequest { collection: String::new(), ..request() }),
                "collection",
                Reason::Empty,
            ),
            (count(v1::FacetRequest { limit: Some(0), ..facet() }), "limit", range),
            (count(v1::FacetRequest { limit: Some(1_001), ..facet() }), "limit", range),
            (count(v1::FacetRequest { key: String::new(), ..facet() }), "key", Reason::Malformed),
            (count(v1::FacetRequest { key: "a".to_owned(), ..facet() }), "key", Reason::Malformed),
            (
                count(v1::FacetRequest { collection: String::new(), ..facet() }),
                "collection",
                Reason::Empty,
            ),
        ];
        for (violation, field, reason) in cases {
            let told = (violation.field.as_str(), violation.reason);
            assert_eq!(told, (field, reason), "{violation}");
        }
    }
}
