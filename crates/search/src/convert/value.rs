//! Bounds of numbers, and values of fields.

use std::fmt::Display;
use std::ops::RangeInclusive;

use clipmesh_proto::code::{FieldViolation, Reason};
use jiff::Timestamp;
use prost_types::Value as WireValue;
use prost_types::value::Kind;

use crate::filter::Field;
use crate::item::{Scalar, Value};

/// Refuses a number beyond its bounds. A NaN is within none.
pub(super) fn within<T: PartialOrd + Display>(
    field: &str,
    number: T,
    bounds: RangeInclusive<T>,
) -> Result<T, FieldViolation> {
    if bounds.contains(&number) {
        return Ok(number);
    }
    let message = format!("must be {} to {}, not {number}", bounds.start(), bounds.end());
    Err(FieldViolation::new(field, Reason::OutOfRange, message))
}

/// An element of a field as callers see it: times of the item itself as text, as in answers that
/// are written as JSON.
pub(super) fn write(field: &Field, scalar: &Scalar) -> WireValue {
    if let (Field::CreateTime | Field::UpdateTime, Scalar::Number(micros)) = (field, scalar) {
        // Whole, and far below 2^53.
        if let Ok(time) = Timestamp::from_microsecond(*micros as i64) {
            return WireValue { kind: Some(Kind::StringValue(time.to_string())) };
        }
    }
    super::item::write_value(&Value::One(scalar.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::Place;

    #[test]
    fn bounds_belong_to_what_they_bound() {
        for number in [-1.0, 0.5, 1.0] {
            assert_eq!(within("f", number, -1.0..=1.0), Ok(number), "{number}");
        }
        for number in [-1.1, 1.1, f32::NAN, f32::INFINITY] {
            let violation = within("f", number, -1.0..=1.0).expect_err("refused");
            assert_eq!(violation.field, "f", "{number}");
            assert_eq!(violation.reason, Reason::OutOfRange, "{number}");
        }
    }

    #[test]
    fn values_keep_their_type() {
        let album = Field::Metadata("album".to_owned());
        let kind = |field: &Field, scalar| write(field, &scalar).kind.expect("one");
        let text = Scalar::String("x".to_owned());
        assert_eq!(kind(&album, text), Kind::StringValue("x".to_owned()), "a string");
        assert_eq!(kind(&album, Scalar::Number(1.5)), Kind::NumberValue(1.5), "a number");
        assert_eq!(kind(&album, Scalar::Bool(false)), Kind::BoolValue(false), "a boolean");
        let time = Kind::StringValue("2001-09-09T01:46:40.000001Z".to_owned());
        let micros = Scalar::Number(1_000_000_000_000_001.0);
        assert_eq!(kind(&Field::CreateTime, micros.clone()), time, "a time");
        assert_eq!(kind(&album, micros), Kind::NumberValue(1_000_000_000_000_001.0), "a number");
        let place = Scalar::Place(Place { lat: 52.5, lon: 13.4 });
        let Kind::StructValue(place) = kind(&album, place) else { panic!("a place") };
        assert_eq!(place.fields["lat"].kind, Some(Kind::NumberValue(52.5)), "{place:?}");
    }
}
