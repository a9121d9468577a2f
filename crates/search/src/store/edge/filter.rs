//! Our filters in the engine's terms.

use clipmesh_proto::ids::ItemId;
use qdrant_edge::external::ordered_float::OrderedFloat;
use qdrant_edge::{
    AnyVariants, Condition as EngineCondition, FieldCondition, Filter as EngineFilter,
    HasIdCondition, IsEmptyCondition, JsonPath, Match, MatchAny, MatchSubstring, MatchValue,
    PointId, Range as EngineRange, ValueVariants,
};

use super::payload::{FOLDED, METADATA, integer, lasting};
use super::shard::point_id;
use crate::filter::{Condition, Field, Filter, Range, Test, fold_case};
use crate::item::Scalar;
use crate::store::Error;

/// Translates a filter, with some items taken out of what it passes. `None` passes everything.
pub(super) fn translate(
    filter: &Filter,
    exclude: &[ItemId],
) -> Result<Option<EngineFilter>, Error> {
    if filter.is_empty() && exclude.is_empty() {
        return Ok(None);
    }
    let mut must_not = conditions(&filter.must_not)?;
    if !exclude.is_empty() {
        must_not.push(has_id(exclude.iter().map(|id| point_id(id.as_str()))));
    }
    Ok(Some(EngineFilter {
        must: non_empty(conditions(&filter.must)?),
        should: non_empty(conditions(&filter.should)?),
        must_not: non_empty(must_not),
        min_should: None,
    }))
}

fn conditions(conditions: &[Condition]) -> Result<Vec<EngineCondition>, Error> {
    conditions.iter().map(condition).collect()
}

/// The engine takes an empty list of alternatives as one that nothing passes.
fn non_empty(conditions: Vec<EngineCondition>) -> Option<Vec<EngineCondition>> {
    (!conditions.is_empty()).then_some(conditions)
}

fn condition(condition: &Condition) -> Result<EngineCondition, Error> {
    let Condition { field, test } = condition;
    let path = path(&key(field))?;
    Ok(match test {
        Test::Match(wanted) => one_of(field, path, std::slice::from_ref(wanted)),
        Test::AnyOf(wanted) => one_of(field, path, wanted),
        Test::Range(range) => in_range(path, range),
        Test::Text(text) => {
            let folded = self::path(&format!("{FOLDED}.{}", key(field)))?;
            let substring = MatchSubstring { substring: fold_case(text) };
            matches(folded, Match::Substring(substring))
        }
        Test::Exists(wanted) => {
            let is_absent = EngineCondition::IsEmpty(IsEmptyCondition::from(path));
            if *wanted {
                EngineCondition::Filter(EngineFilter::new_must_not(is_absent))
            } else {
                is_absent
            }
        }
    })
}

/// A field that equals one of some scalars. Each type of scalar takes another kind of match.
fn one_of(field: &Field, path: JsonPath, wanted: &[Scalar]) -> EngineCondition {
    let mut strings = Vec::new();
    let mut integers = Vec::new();
    let mut alternatives = Vec::new();
    for scalar in wanted {
        match scalar {
            Scalar::String(string) => strings.push(string.clone()),
            Scalar::Bool(flag) => {
                let value = MatchValue { value: ValueVariants::Bool(*flag) };
                alternatives.push(matches(path.clone(), Match::Value(value)));
            }
            Scalar::Number(number) => match integer(*number) {
                Some(integer) => integers.push(integer),
                None => {
                    let bound = Some(*number);
                    let only = Range { gte: bound, lte: bound, ..Range::default() };
                    alternatives.push(in_range(path.clone(), &only));
                }
            },
        }
    }
    if !strings.is_empty() && *field == Field::Id {
        // A look-up instead of a search through payloads.
        alternatives.push(has_id(strings.iter().map(|id| point_id(id))));
    } else if !strings.is_empty() {
        let any = AnyVariants::Strings(strings.into_iter().collect());
        alternatives.push(matches(path.clone(), Match::Any(MatchAny { any })));
    }
    if !integers.is_empty() {
        let any = AnyVariants::Integers(integers.into_iter().collect());
        alternatives.push(matches(path, Match::Any(MatchAny { any })));
    }
    match <[EngineCondition; 1]>::try_from(alternatives) {
        Ok([only]) => only,
        Err(alternatives) => {
            let should = Some(alternatives);
            EngineCondition::Filter(EngineFilter { should, ..EngineFilter::default() })
        }
    }
}

fn in_range(path: JsonPath, range: &Range) -> EngineCondition {
    let bound = |bound: Option<f64>| bound.map(lasting).map(OrderedFloat);
    let range = EngineRange {
        gt: bound(range.gt),
        gte: bound(range.gte),
        lt: bound(range.lt),
        lte: bound(range.lte),
    };
    EngineCondition::Field(FieldCondition::new_range(path, range))
}

fn matches(path: JsonPath, wanted: Match) -> EngineCondition {
    EngineCondition::Field(FieldCondition::new_match(path, wanted))
}

fn has_id(ids: impl IntoIterator<Item = PointId>) -> EngineCondition {
    EngineCondition::HasId(HasIdCondition::from_iter(ids))
}

fn key(field: &Field) -> String {
    let key = match field {
        Field::Id => "id",
        Field::Uri => "uri",
        Field::Filename => "filename",
        Field::Format => "format",
        Field::ContentHash => "content_hash",
        Field::Width => "width",
        Field::Height => "height",
        Field::ByteSize => "byte_size",
        Field::Metadata(name) => return format!("{METADATA}.{name}"),
    };
    key.to_owned()
}

/// Names of fields are checked where they come in, so that each is one step of a path.
pub(super) fn path(key: &str) -> Result<JsonPath, Error> {
    key.parse().map_err(|()| Error::Failed(format!("`{key}` is not a path into an item")))
}
