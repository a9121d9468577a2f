//! Filters, as `filter.proto` has them.

use clipmesh_proto::code::{FieldViolation, Reason};
use clipmesh_proto::search::v1;
use clipmesh_proto::search::v1::condition::Test as WireTest;
use prost_types::value::Kind;
use prost_types::{Timestamp as WireTime, Value as WireValue};

use crate::filter::{Circle, Clause, Condition, Field, Filter, Range, Test};
use crate::item::{Place, Scalar};
use crate::words;

/// Conditions in one filter, with those of filters in it.
const MAX_CONDITIONS: usize = 64;
/// Filters in filters, the outermost included.
const MAX_LEVELS: usize = 8;
/// Values in one `any_of`.
const MAX_ANY_OF: usize = 1_000;
/// Different words in one `words`: the store asks for each by itself.
const MAX_WORDS: usize = 64;
/// Half way round the earth.
const MAX_RADIUS_METERS: f64 = 20_037_509.0;
/// The years 1 to 9999, as seconds since 1970: what a timestamp of protobuf may hold.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// Checks a filter that came in the field `filter`.
pub(crate) fn read(filter: Option<v1::Filter>) -> Result<Filter, FieldViolation> {
    let filter = filter.unwrap_or_default();
    let count = count(&filter);
    if count > MAX_CONDITIONS {
        let message = format!("must have at most {MAX_CONDITIONS} conditions in all, not {count}");
        return Err(FieldViolation::new("filter", Reason::TooMany, message));
    }
    read_filter("filter", filter, 1)
}

/// Conditions of a filter, with those of filters in it. No deeper than a message may be nested.
fn count(filter: &v1::Filter) -> usize {
    let conditions = filter.must.iter().chain(&filter.should).chain(&filter.must_not);
    let counts = conditions.map(|condition| match &condition.test {
        Some(WireTest::Filter(nested)) => 1 + count(nested),
        Some(_) | None => 1,
    });
    counts.sum()
}

fn read_filter(path: &str, filter: v1::Filter, level: usize) -> Result<Filter, FieldViolation> {
    if level > MAX_LEVELS {
        let message = format!("must be nested at most {MAX_LEVELS} levels deep");
        return Err(FieldViolation::new(path, Reason::TooMany, message));
    }
    let clauses = |part: &str, conditions: Vec<v1::Condition>| {
        let numbered = conditions.into_iter().enumerate();
        numbered
            .map(|(i, condition)| read_clause(&format!("{path}.{part}[{i}]"), condition, level))
            .collect::<Result<Vec<_>, _>>()
    };
    Ok(Filter {
        must: clauses("must", filter.must)?,
        should: clauses("should", filter.should)?,
        must_not: clauses("must_not", filter.must_not)?,
    })
}

fn read_clause(
    path: &str,
    condition: v1::Condition,
    level: usize,
) -> Result<Clause, FieldViolation> {
    let Some(test) = condition.test else {
        let message = "must have one of `match`, `any_of`, `range`, `text`, `exists`, \
                       `time_range`, `geo_radius`, `words` and `filter`";
        return Err(FieldViolation::new(path, Reason::Missing, message));
    };
    if let WireTest::Filter(nested) = test {
        if !condition.key.is_empty() {
            let message = "must be empty beside `filter`";
            return Err(FieldViolation::new(format!("{path}.key"), Reason::Malformed, message));
        }
        let path = format!("{path}.filter");
        if nested == v1::Filter::default() {
            // Which lets everything pass where nobody sees it: beside it, the other alternatives of
            // a `should` count for nothing.
            let message = "must have a condition: without one, everything passes";
            return Err(FieldViolation::new(path, Reason::Empty, message));
        }
        return read_filter(&path, nested, level + 1).map(Clause::Filter);
    }
    let field = super::field(&format!("{path}.key"), &condition.key)?;
    let test = read_test(path, &field, test)?;
    Ok(Clause::Condition(Condition { field, test }))
}

fn read_test(path: &str, field: &Field, test: WireTest) -> Result<Test, FieldViolation> {
    let part = |name: &str| format!("{path}.{name}");
    Ok(match test {
        WireTest::Match(value) => {
            let path = part("match");
            refuse_times(&path, field)?;
            Test::Match(read_scalar(&path, value)?)
        }
        WireTest::AnyOf(values) => {
            let path = part("any_of");
            refuse_times(&path, field)?;
            Test::AnyOf(read_any_of(&path, values.values)?)
        }
        WireTest::Range(range) => {
            let path = part("range");
            refuse_times(&path, field)?;
            Test::Range(read_range(&path, range)?)
        }
        WireTest::Text(text) if text.is_empty() => {
            return Err(FieldViolation::new(part("text"), Reason::Empty, "must not be empty"));
        }
        WireTest::Text(text) => Test::Text(text),
        WireTest::Exists(wanted) => Test::Exists(wanted),
        WireTest::TimeRange(range) => Test::Time(read_times(&part("time_range"), range)?),
        WireTest::GeoRadius(circle) => Test::Near(read_circle(&part("geo_radius"), circle)?),
        WireTest::Words(text) => Test::Words(read_words(&part("words"), &text)?),
        // Read where it stands, since it has no field.
        WireTest::Filter(_) => {
            return Err(FieldViolation::new(path, Reason::Malformed, "must be a test of a field"));
        }
    })
}

/// What a time is kept as is no number of the caller's.
fn refuse_times(path: &str, field: &Field) -> Result<(), FieldViolation> {
    if !matches!(field, Field::CreateTime | Field::UpdateTime) {
        return Ok(());
    }
    let message = format!("can't be asked of `{}`; `time_range` can", field.key());
    Err(FieldViolation::new(path, Reason::Malformed, message))
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
    check_bounds(path, Range { gt, gte, lt, lte })
}

fn read_times(path: &str, range: v1::TimeRange) -> Result<Range, FieldViolation> {
    let bound = |name: &str, time: Option<WireTime>| {
        time.map(|time| read_time(&format!("{path}.{name}"), time)).transpose()
    };
    let range = Range {
        gt: bound("gt", range.gt)?,
        gte: bound("gte", range.gte)?,
        lt: bound("lt", range.lt)?,
        lte: bound("lte", range.lte)?,
    };
    check_bounds(path, range)
}

fn check_bounds(path: &str, range: Range) -> Result<Range, FieldViolation> {
    let bounds = [range.gt, range.gte, range.lt, range.lte];
    if bounds.iter().all(Option::is_none) {
        return Err(FieldViolation::new(path, Reason::Missing, "must have at least one bound"));
    }
    if bounds.iter().flatten().any(|bound| !bound.is_finite()) {
        return Err(FieldViolation::new(path, Reason::NotFinite, "must have finite bounds"));
    }
    Ok(range)
}

/// Whole microseconds since 1970.
fn read_time(path: &str, time: WireTime) -> Result<f64, FieldViolation> {
    if !SECONDS.contains(&time.seconds) || !(0..1_000_000_000).contains(&time.nanos) {
        let message = "must be a time in the years 1 to 9999";
        return Err(FieldViolation::new(path, Reason::OutOfRange, message));
    }
    Ok((time.seconds * 1_000_000 + i64::from(time.nanos / 1_000)) as f64)
}

fn read_circle(path: &str, circle: v1::GeoRadius) -> Result<Circle, FieldViolation> {
    let v1::GeoRadius { lat, lon, radius_meters } = circle;
    let refuse = |name: &str, reason, message: String| {
        Err(FieldViolation::new(format!("{path}.{name}"), reason, message))
    };
    for (name, degrees, max) in [("lat", lat, 90.0), ("lon", lon, 180.0)] {
        if !degrees.is_finite() {
            return refuse(name, Reason::NotFinite, "must be finite".to_owned());
        }
        if degrees.abs() > max {
            let message = format!("must be -{max} to {max}, not {degrees}");
            return refuse(name, Reason::OutOfRange, message);
        }
    }
    if !radius_meters.is_finite() {
        return refuse("radius_meters", Reason::NotFinite, "must be finite".to_owned());
    }
    if radius_meters <= 0.0 || radius_meters > MAX_RADIUS_METERS {
        let message =
            format!("must be more than 0 and at most {MAX_RADIUS_METERS}, not {radius_meters}");
        return refuse("radius_meters", Reason::OutOfRange, message);
    }
    Ok(Circle { center: Place { lat, lon }, radius_meters })
}

fn read_words(path: &str, text: &str) -> Result<Vec<String>, FieldViolation> {
    let mut different: Vec<String> = Vec::new();
    for word in words::of(text) {
        if !different.contains(&word) {
            different.push(word);
        }
        if different.len() > MAX_WORDS {
            let message = format!("must have at most {MAX_WORDS} different words");
            return Err(FieldViolation::new(path, Reason::TooMany, message));
        }
    }
    if different.is_empty() {
        let message = "must have at least one word";
        return Err(FieldViolation::new(path, Reason::Empty, message));
    }
    Ok(different)
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
            (condition("lot", text("x")), "filter.must[1].key", Reason::Malformed),
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

    fn time(seconds: i64, nanos: i32) -> Option<WireTime> {
        Some(WireTime { seconds, nanos })
    }

    fn nested(filter: v1::Filter) -> v1::Condition {
        condition("", Some(WireTest::Filter(filter)))
    }

    fn must(must: Vec<v1::Condition>) -> v1::Filter {
        v1::Filter { must, ..v1::Filter::default() }
    }

    #[test]
    fn reads_times_places_and_words() {
        let times = v1::TimeRange {
            gte: time(-1, 999_999_999),
            lt: time(1_700_000_000, 123_456_789),
            ..v1::TimeRange::default()
        };
        let circle = v1::GeoRadius { lat: -90.0, lon: 180.0, radius_meters: MAX_RADIUS_METERS };
        let filter = must(vec![
            condition("create_time", Some(WireTest::TimeRange(times))),
            condition("metadata.place", Some(WireTest::GeoRadius(circle))),
            condition("metadata.caption", Some(WireTest::Words("A red, RED cat".to_owned()))),
            condition("pixel_hash", Some(WireTest::Match(string("ab")))),
            condition("update_time", Some(WireTest::Exists(true))),
        ]);
        let filter = read(Some(filter)).expect("accepted");
        let test = |i: usize| &the(&filter.must[i]).test;
        let range =
            Range { gte: Some(-1.0), lt: Some(1_700_000_000_123_456.0), ..Range::default() };
        assert_eq!(*test(0), Test::Time(range), "whole microseconds");
        let center = Place { lat: -90.0, lon: 180.0 };
        assert_eq!(*test(1), Test::Near(Circle { center, radius_meters: MAX_RADIUS_METERS }));
        let words = ["a", "red", "cat"].map(str::to_owned).to_vec();
        assert_eq!(*test(2), Test::Words(words), "each word once");
        assert_eq!(the(&filter.must[3]).field, Field::PixelHash, "a hash");
        assert_eq!(the(&filter.must[4]).field, Field::UpdateTime, "a time");
    }

    #[test]
    fn reads_filters_in_filters() {
        let inner = v1::Filter {
            should: vec![condition("id", Some(WireTest::Exists(true)))],
            ..v1::Filter::default()
        };
        let filter = read(Some(must(vec![nested(inner)]))).expect("accepted");
        let Clause::Filter(inner) = &filter.must[0] else { panic!("a filter: {filter:?}") };
        assert_eq!(the(&inner.should[0]).test, Test::Exists(true), "its condition");

        let levels = |count: usize| {
            let leaf = must(vec![condition("id", Some(WireTest::Exists(true)))]);
            (1..count).fold(leaf, |filter, _| must(vec![nested(filter)]))
        };
        assert!(read(Some(levels(MAX_LEVELS))).is_ok(), "as deep as allowed");
        let violation = read(Some(levels(MAX_LEVELS + 1))).expect_err("too deep");
        assert_eq!(violation.reason, Reason::TooMany, "{violation}");
        let path = format!("filter{}", ".must[0].filter".repeat(MAX_LEVELS));
        assert_eq!(violation.field, path, "where it is too deep");
    }

    #[test]
    fn conditions_in_filters_in_filters_count() {
        let leaf = || condition("id", Some(WireTest::Exists(true)));
        // A nested filter is a condition, too.
        let most = must(vec![nested(must(vec![leaf(); 31])), nested(must(vec![leaf(); 31]))]);
        assert!(read(Some(most)).is_ok(), "64 in all");
        let many = must(vec![nested(must(vec![leaf(); 32])), nested(must(vec![leaf(); 31]))]);
        let violation = read(Some(many)).expect_err("65 in all");
        assert_eq!((violation.field.as_str(), violation.reason), ("filter", Reason::TooMany));
    }

    #[test]
    fn refuses_what_lies_in_nested_filters_by_its_place() {
        let circle = |lat, lon, radius_meters| {
            Some(WireTest::GeoRadius(v1::GeoRadius { lat, lon, radius_meters }))
        };
        let times = |gt, lte| {
            Some(WireTest::TimeRange(v1::TimeRange { gt, lte, ..v1::TimeRange::default() }))
        };
        let words = |text: &str| Some(WireTest::Words(text.to_owned()));
        let many = (0..=MAX_WORDS).map(|i| format!("w{i} ")).collect::<String>();
        let range = v1::Range { gt: Some(0.0), ..v1::Range::default() };
        let (range, matched) = (Some(WireTest::Range(range)), WireTest::Match(number(1.0)));
        let key = "metadata.f";
        let cases = [
            (condition(key, circle(90.1, 0.0, 1.0)), "geo_radius.lat", Reason::OutOfRange),
            (condition(key, circle(f64::NAN, 0.0, 1.0)), "geo_radius.lat", Reason::NotFinite),
            (condition(key, circle(0.0, -180.1, 1.0)), "geo_radius.lon", Reason::OutOfRange),
            (condition(key, circle(0.0, 0.0, 0.0)), "geo_radius.radius_meters", Reason::OutOfRange),
            (
                condition(key, circle(0.0, 0.0, 20_037_510.0)),
                "geo_radius.radius_meters",
                Reason::OutOfRange,
            ),
            (
                condition(key, circle(0.0, 0.0, f64::INFINITY)),
                "geo_radius.radius_meters",
                Reason::NotFinite,
            ),
            (condition(key, times(None, None)), "time_range", Reason::Missing),
            (condition(key, times(time(0, -1), None)), "time_range.gt", Reason::OutOfRange),
            (
                condition(key, times(None, time(253_402_300_800, 0))),
                "time_range.lte",
                Reason::OutOfRange,
            ),
            (condition(key, words("… !")), "words", Reason::Empty),
            (condition(key, words(&many)), "words", Reason::TooMany),
            (condition("create_time", range), "range", Reason::Malformed),
            (condition("update_time", Some(matched)), "match", Reason::Malformed),
            (condition("update_time", any_of(vec![number(1.0)])), "any_of", Reason::Malformed),
            (condition("id", Some(WireTest::Filter(must(vec![])))), "key", Reason::Malformed),
            (nested(must(vec![])), "filter", Reason::Empty),
        ];
        let good = || condition("id", Some(WireTest::Exists(true)));
        for (bad, place, reason) in cases {
            let inner = v1::Filter { should: vec![bad.clone()], ..v1::Filter::default() };
            let refusal = refusal(vec![good(), nested(inner)]);
            let field = format!("filter.must[1].filter.should[0].{place}");
            assert_eq!(refusal, (field, reason), "{bad:?}");
        }
    }
}
