//! Filters, as `filter.proto` has them.

use clipmesh_proto::code::{FieldViolation, Reason};
use clipmesh_proto::search::v1;
use clipmesh_proto::search::v1::condition::Test as WireTest;
use prost_types::Value as WireValue;
use prost_types::value::Kind;

use super::item::is_metadata_name;
use crate::filter::{Clause, Condition, Field, Filter, Range, Test};
use crate::item::Scalar;

/// Conditions in one filter.
const MAX_CONDITIONS: usize = 64;
/// Values in one `any_of`.
const MAX_ANY_OF: usize = 1_000;
/// What the keys of the caller's own fields start with.
const METADATA_PREFIX: &str = "metadata.";

/// Checks a filter that came in the field `filter`.
pub(crate) fn read(filter: Option<v1::Filter>) -> Result<Filter, FieldViolation> {
    let v1::Filter { must, should, must_not } = filter.unwrap_or_default();
    let count = must.len() + should.len() + must_not.len();
    if count > MAX_CONDITIONS {
        let message = format!("must have at most {MAX_CONDITIONS} conditions, not {count}");
        return Err(FieldViolation::new("filter", Reason::TooMany, message));
    }
    Ok(Filter {
        must: conditions("must", must)?,
        should: conditions("should", should)?,
        must_not: conditions("must_not", must_not)?,
    })
}

fn conditions(part: &str, conditions: Vec<v1::Condition>) -> Result<Vec<Clause>, FieldViolation> {
    let numbered = conditions.into_iter().enumerate();
    numbered
        .map(|(i, condition)| {
            read_condition(&format!("filter.{part}[{i}]"), condition).map(Clause::Condition)
        })
        .collect()
}

fn read_condition(path: &str, condition: v1::Condition) -> Result<Condition, FieldViolation> {
    let Some(field) = read_key(&condition.key) else {
        let message = if condition.key.is_empty() {
            "must name a field".to_owned()
        } else {
            let key: String = condition.key.chars().take(80).collect();
            format!("`{key}` is neither `metadata.NAME` nor a field of an item")
        };
        return Err(FieldViolation::new(format!("{path}.key"), Reason::Malformed, message));
    };
    let test = match condition.test {
        None => {
            let message = "must have one of `match`, `any_of`, `range`, `text` and `exists`";
            return Err(FieldViolation::new(path, Reason::Missing, message));
        }
        Some(WireTest::Match(value)) => Test::Match(read_scalar(&format!("{path}.match"), value)?),
        Some(WireTest::AnyOf(values)) => {
            Test::AnyOf(read_any_of(&format!("{path}.any_of"), values.values)?)
        }
        Some(WireTest::Range(range)) => Test::Range(read_range(&format!("{path}.range"), range)?),
        Some(WireTest::Text(text)) => {
            if text.is_empty() {
                let path = format!("{path}.text");
                return Err(FieldViolation::new(path, Reason::Empty, "must not be empty"));
            }
            Test::Text(text)
        }
        Some(WireTest::Exists(wanted)) => Test::Exists(wanted),
        Some(_) => return Err(FieldViolation::new(path, Reason::Missing, "not yet")),
    };
    Ok(Condition { field, test })
}

fn read_key(key: &str) -> Option<Field> {
    Some(match key {
        "id" => Field::Id,
        "uri" => Field::Uri,
        "filename" => Field::Filename,
        "format" => Field::Format,
        "content_hash" => Field::ContentHash,
        "width" => Field::Width,
        "height" => Field::Height,
        "byte_size" => Field::ByteSize,
        _ => {
            let name = key.strip_prefix(METADATA_PREFIX).filter(|name| is_metadata_name(name))?;
            Field::Metadata(name.to_owned())
        }
    })
}

fn read_any_of(path: &str, values: Vec<WireValue>) -> Result<Vec<Scalar>, FieldViolation> {
    if values.is_empty() {
        return Err(FieldViolation::new(path, Reason::Empty, "must hold at least one value"));
    }
    if values.len() > MAX_ANY_OF {
        let message = format!("must hold at most {MAX_ANY_OF} values, not {}", values.len());
        return Err(FieldViolation::new(path, Reason::TooMany, message));
    }
    let numbered = values.into_iter().enumerate();
    let scalars = numbered
        .map(|(i, value)| read_scalar(&format!("{path}.values[{i}]"), value))
        .collect::<Result<Vec<_>, _>>()?;
    if scalars.iter().any(|scalar| scalar.kind() != scalars[0].kind()) {
        let message = "must hold values of one type";
        return Err(FieldViolation::new(path, Reason::Malformed, message));
    }
    Ok(scalars)
}

fn read_range(path: &str, range: v1::Range) -> Result<Range, FieldViolation> {
    let v1::Range { gt, gte, lt, lte } = range;
    let bounds = [gt, gte, lt, lte];
    if bounds.iter().all(Option::is_none) {
        return Err(FieldViolation::new(path, Reason::Missing, "must have at least one bound"));
    }
    if bounds.iter().flatten().any(|bound| !bound.is_finite()) {
        return Err(FieldViolation::new(path, Reason::NotFinite, "must have finite bounds"));
    }
    Ok(Range { gt, gte, lt, lte })
}

fn read_scalar(path: &str, value: WireValue) -> Result<Scalar, FieldViolation> {
    match value.kind {
        Some(Kind::StringValue(text)) => Ok(Scalar::String(text)),
        Some(Kind::BoolValue(flag)) => Ok(Scalar::Bool(flag)),
        Some(Kind::NumberValue(number)) if number.is_finite() => Ok(Scalar::Number(number)),
        Some(Kind::NumberValue(_)) => {
            Err(FieldViolation::new(path, Reason::NotFinite, "must be a finite number"))
        }
        Some(Kind::NullValue(_) | Kind::StructValue(_) | Kind::ListValue(_)) | None => {
            let message = "must be a string, a number or a boolean";
            Err(FieldViolation::new(path, Reason::Malformed, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &str) -> WireValue {
        WireValue { kind: Some(Kind::StringValue(text.to_owned())) }
    }

    fn the(clause: &Clause) -> &Condition {
        match clause {
            Clause::Condition(condition) => condition,
            Clause::Filter(_) => panic!("a condition, not {clause:?}"),
        }
    }

    fn number(number: f64) -> WireValue {
        WireValue { kind: Some(Kind::NumberValue(number)) }
    }

    fn condition(key: &str, test: Option<WireTest>) -> v1::Condition {
        v1::Condition { key: key.to_owned(), test }
    }

    fn any_of(values: Vec<WireValue>) -> Option<WireTest> {
        Some(WireTest::AnyOf(v1::AnyOf { values }))
    }

    fn refusal(must: Vec<v1::Condition>) -> (String, Reason) {
        let filter = v1::Filter { must, ..v1::Filter::default() };
        let violation = read(Some(filter)).expect_err("refused");
        (violation.field, violation.reason)
    }

    #[test]
    fn an_absent_filter_passes_everything() {
        assert_eq!(read(None), Ok(Filter::default()), "no conditions");
    }

    #[test]
    fn reads_every_field_and_every_test() {
        let range = v1::Range { gt: Some(1.0), ..v1::Range::default() };
        let filter = v1::Filter {
            must: vec![
                condition("metadata.a-b_1", Some(WireTest::Match(string("x")))),
                condition("id", any_of(vec![string("x"), string("y")])),
            ],
            should: vec![condition("width", Some(WireTest::Range(range)))],
            must_not: vec![
                condition("filename", Some(WireTest::Text("x".to_owned()))),
                condition("uri", Some(WireTest::Exists(true))),
            ],
        };
        let filter = read(Some(filter)).expect("accepted");
        assert_eq!(
            the(&filter.must[0]).field,
            Field::Metadata("a-b_1".to_owned()),
            "without prefix"
        );
        assert_eq!(the(&filter.must[0]).test, Test::Match(Scalar::String("x".to_owned())), "match");
        let range = Range { gt: Some(1.0), ..Range::default() };
        assert_eq!(the(&filter.should[0]).test, Test::Range(range), "range");
        assert_eq!(the(&filter.must_not[1]).test, Test::Exists(true), "exists");
    }

    #[test]
    fn refuses_conditions_by_their_place_and_reason() {
        let good = || condition("id", Some(WireTest::Exists(true)));
        let text = |text: &str| Some(WireTest::Text(text.to_owned()));
        let range = |gt| Some(WireTest::Range(v1::Range { gt, ..v1::Range::default() }));
        let null = WireValue { kind: Some(Kind::NullValue(0)) };
        let many = vec![string("x"); MAX_ANY_OF + 1];
        let cases = [
            (condition("", text("x")), "filter.must[1].key", Reason::Malformed),
            (condition("colour", text("x")), "filter.must[1].key", Reason::Malformed),
            (condition("create_time", text("x")), "filter.must[1].key", Reason::Malformed),
            (condition("metadata.", text("x")), "filter.must[1].key", Reason::Malformed),
            (condition("metadata.a.b", text("x")), "filter.must[1].key", Reason::Malformed),
            (condition("metadata.a[]", text("x")), "filter.must[1].key", Reason::Malformed),
            (condition("id", None), "filter.must[1]", Reason::Missing),
            (condition("id", text("")), "filter.must[1].text", Reason::Empty),
            (condition("width", range(None)), "filter.must[1].range", Reason::Missing),
            (condition("width", range(Some(f64::NAN))), "filter.must[1].range", Reason::NotFinite),
            (condition("id", any_of(vec![])), "filter.must[1].any_of", Reason::Empty),
            (condition("id", any_of(many)), "filter.must[1].any_of", Reason::TooMany),
            (
                condition("id", any_of(vec![string("x"), number(1.0)])),
                "filter.must[1].any_of",
                Reason::Malformed,
            ),
            (
                condition("id", any_of(vec![string("x"), null.clone()])),
                "filter.must[1].any_of.values[1]",
                Reason::Malformed,
            ),
            (
                condition("id", Some(WireTest::Match(null))),
                "filter.must[1].match",
                Reason::Malformed,
            ),
            (
                condition("width", Some(WireTest::Match(number(f64::INFINITY)))),
                "filter.must[1].match",
                Reason::NotFinite,
            ),
        ];
        for (bad, field, reason) in cases {
            let refusal = refusal(vec![good(), bad.clone()]);
            assert_eq!(refusal, (field.to_owned(), reason), "{bad:?}");
        }
        let refusal = refusal(vec![good(); MAX_CONDITIONS + 1]);
        assert_eq!(refusal, ("filter".to_owned(), Reason::TooMany), "65 conditions");
    }
}
