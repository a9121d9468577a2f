//! What Qdrant's filters mean, on payloads as JSON: written from its documentation, not from what
//! the store makes of ours.

use std::collections::HashMap;

use qdrant_client::qdrant::condition::ConditionOneOf;
use qdrant_client::qdrant::r#match::MatchValue;
use qdrant_client::qdrant::{Condition, FieldCondition, Filter, GeoRadius, Range};
use serde_json::{Map, Value as Json};
use tonic::Status;

/// The mean radius of the earth, in meters.
const EARTH_RADIUS: f64 = 6_371_008.8;

/// A point as the server keeps it.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    /// A UUID.
    pub(super) id: String,
    pub(super) payload: Map<String, Json>,
    /// By name, of length 1.
    pub(super) dense: HashMap<String, Vec<f32>>,
    /// By name: values by dimension.
    pub(super) sparse: HashMap<String, HashMap<u32, f32>>,
}

/// Whether a point passes a filter.
pub(super) fn passes(filter: &Filter, point: &Stored) -> Result<bool, Status> {
    let mut holds = true;
    for condition in &filter.must {
        holds &= passes_one(condition, point)?;
    }
    for condition in &filter.must_not {
        holds &= !passes_one(condition, point)?;
    }
    let mut any = filter.should.is_empty();
    for condition in &filter.should {
        any |= passes_one(condition, point)?;
    }
    Ok(holds && any)
}

/// The values at a path, those of a list one by one.
pub(super) fn values<'a>(payload: &'a Map<String, Json>, path: &str) -> Vec<&'a Json> {
    let mut steps = path.split('.');
    let mut value = steps.next().and_then(|step| payload.get(step));
    for step in steps {
        value = value.and_then(|value| value.get(step));
    }
    match value {
        Some(Json::Array(elements)) => elements.iter().collect(),
        Some(value) => vec![value],
        None => Vec::new(),
    }
}

/// What an index of whole numbers makes of a value: one that is written as a float counts, too.
pub(super) fn whole(value: &Json) -> Option<i64> {
    let of_float = |number: f64| (number as i64 as f64 == number).then_some(number as i64);
    value.as_i64().or_else(|| value.as_f64().and_then(of_float))
}

fn passes_one(condition: &Condition, point: &Stored) -> Result<bool, Status> {
    let one = condition.condition_one_of.as_ref();
    match one.ok_or_else(|| Status::invalid_argument("a condition asks nothing"))? {
        ConditionOneOf::Field(field) => field_passes(field, point),
        ConditionOneOf::IsEmpty(empty) => {
            Ok(values(&point.payload, &empty.key).iter().all(|value| value.is_null()))
        }
        ConditionOneOf::HasId(ids) => {
            let own = Some(qdrant_client::qdrant::PointId::from(point.id.clone()));
            Ok(ids.has_id.iter().any(|id| Some(id) == own.as_ref()))
        }
        ConditionOneOf::Filter(filter) => passes(filter, point),
        ConditionOneOf::HasVector(vector) => {
            let name = &vector.has_vector;
            Ok(point.dense.contains_key(name) || point.sparse.contains_key(name))
        }
        ConditionOneOf::IsNull(_) | ConditionOneOf::Nested(_) | ConditionOneOf::Slice(_) => {
            Err(Status::unimplemented("the store does not ask this"))
        }
    }
}

fn field_passes(condition: &FieldCondition, point: &Stored) -> Result<bool, Status> {
    let values = values(&point.payload, &condition.key);
    let any = |test: &dyn Fn(&Json) -> bool| Ok(values.iter().any(|value| test(value)));
    let wanted = condition.r#match.as_ref().and_then(|wanted| wanted.match_value.as_ref());
    match (wanted, &condition.range, &condition.geo_radius) {
        (Some(wanted), None, None) => any(&|value| matches(wanted, value)),
        (None, Some(range), None) => any(&|value| value.as_f64().is_some_and(|n| within(range, n))),
        (None, None, Some(radius)) => any(&|value| is_near(radius, value)),
        _ => Err(Status::invalid_argument("a condition asks nothing, or too much")),
    }
}

fn matches(wanted: &MatchValue, value: &Json) -> bool {
    match (wanted, value) {
        (MatchValue::Keyword(wanted), Json::String(own)) => own == wanted,
        (MatchValue::Keywords(wanted), Json::String(own)) => wanted.strings.contains(own),
        // There is never a text index, and so it is a substring.
        (MatchValue::Text(wanted), Json::String(own)) => own.contains(wanted),
        (MatchValue::Integer(wanted), Json::Number(own)) => own.as_i64() == Some(*wanted),
        (MatchValue::Integers(wanted), Json::Number(own)) => {
            own.as_i64().is_some_and(|own| wanted.integers.contains(&own))
        }
        (MatchValue::Boolean(wanted), Json::Bool(own)) => own == wanted,
        _ => false,
    }
}

fn within(range: &Range, number: f64) -> bool {
    range.lt.is_none_or(|bound| number < bound)
        && range.gt.is_none_or(|bound| number > bound)
        && range.gte.is_none_or(|bound| number >= bound)
        && range.lte.is_none_or(|bound| number <= bound)
}

fn is_near(circle: &GeoRadius, value: &Json) -> bool {
    let Some(center) = &circle.center else {
        return false;
    };
    let degrees = |key: &str| value.get(key).and_then(Json::as_f64);
    let (Some(lat), Some(lon)) = (degrees("lat"), degrees("lon")) else {
        return false;
    };
    // The angle between two directions from the earth's center.
    let direction = |lat: f64, lon: f64| {
        let (lat, lon) = (lat.to_radians(), lon.to_radians());
        [lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()]
    };
    let (a, b) = (direction(center.lat, center.lon), direction(lat, lon));
    let chord: f64 = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum();
    2.0 * (chord.sqrt() / 2.0).min(1.0).asin() * EARTH_RADIUS < f64::from(circle.radius)
}
