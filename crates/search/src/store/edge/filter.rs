//! Filters in the engine's own types.

use qdrant_edge::external::ordered_float::OrderedFloat;
use qdrant_edge::{
    AnyVariants, Condition, FieldCondition, Filter as EngineFilter, GeoPoint, GeoRadius,
    HasIdCondition, IsEmptyCondition, JsonPath, Match, MatchAny, MatchSubstring, MatchValue,
    PointId, Range as EngineRange, ValueVariants,
};
use uuid::Uuid;

use crate::filter::{Circle, Filter, Range};
use crate::store::Error;
use crate::store::index::Indexes;
use crate::store::lower::{self, Clauses, Question};

/// Translates a filter, with some points taken out of what it passes. `None` passes everything.
pub(super) fn translate(
    filter: &Filter,
    exclude: &[Uuid],
    indexes: &Indexes,
) -> Result<Option<EngineFilter>, Error> {
    lower::filter(filter, exclude, indexes).as_ref().map(all_of).transpose()
}

/// Names of fields are checked where they come in, so that each is one step of a path.
pub(super) fn path(key: &str) -> Result<JsonPath, Error> {
    key.parse().map_err(|()| Error::Failed(format!("`{key}` is not a path into an item")))
}

fn all_of(clauses: &Clauses) -> Result<EngineFilter, Error> {
    Ok(EngineFilter {
        must: conditions(&clauses.must)?,
        should: conditions(&clauses.should)?,
        must_not: conditions(&clauses.must_not)?,
        min_should: None,
    })
}

/// The engine takes an empty list of alternatives as one that nothing passes.
fn conditions(questions: &[Question]) -> Result<Option<Vec<Condition>>, Error> {
    if questions.is_empty() {
        return Ok(None);
    }
    questions.iter().map(condition).collect::<Result<_, _>>().map(Some)
}

fn condition(question: &Question) -> Result<Condition, Error> {
    Ok(match question {
        Question::Keywords { path, any } => {
            let any = AnyVariants::Strings(any.iter().cloned().collect());
            matches(path, Match::Any(MatchAny { any }))?
        }
        Question::Integers { path, any } => {
            let any = AnyVariants::Integers(any.iter().copied().collect());
            matches(path, Match::Any(MatchAny { any }))?
        }
        Question::Boolean { path, value } => {
            let value = ValueVariants::Bool(*value);
            matches(path, Match::Value(MatchValue { value }))?
        }
        Question::Substring { path, text } => {
            matches(path, Match::Substring(MatchSubstring { substring: text.clone() }))?
        }
        Question::Range { path, range } => {
            Condition::Field(FieldCondition::new_range(self::path(path)?, bounds(range)))
        }
        Question::Near { path, circle } => {
            Condition::Field(FieldCondition::new_geo_radius(self::path(path)?, radius(circle)))
        }
        Question::IsEmpty { path } => Condition::IsEmpty(IsEmptyCondition::from(self::path(path)?)),
        Question::Points(points) => {
            let points = points.iter().copied().map(PointId::Uuid);
            Condition::HasId(HasIdCondition::from_iter(points))
        }
        Question::All(clauses) => Condition::Filter(all_of(clauses)?),
    })
}

fn matches(path: &str, wanted: Match) -> Result<Condition, Error> {
    Ok(Condition::Field(FieldCondition::new_match(self::path(path)?, wanted)))
}

fn bounds(range: &Range) -> EngineRange<OrderedFloat<f64>> {
    let Range { gt, gte, lt, lte } = *range;
    let bound = |bound: Option<f64>| bound.map(OrderedFloat);
    EngineRange { gt: bound(gt), gte: bound(gte), lt: bound(lt), lte: bound(lte) }
}

fn radius(Circle { center, radius_meters }: &Circle) -> GeoRadius {
    let center = GeoPoint { lon: OrderedFloat(center.lon), lat: OrderedFloat(center.lat) };
    GeoRadius { center, radius: OrderedFloat(*radius_meters) }
}
