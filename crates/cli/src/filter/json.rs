//! Filters as documents: `clipmesh.search.v1.Filter` in protobuf's JSON, with the names of the
//! contract or their camel case.

use jiff::Timestamp;
use serde::Deserialize;

use clipmesh_proto::search::v1 as search;
use clipmesh_proto::search::v1::condition::Test;

use crate::error::io_reason;
use crate::fields::json::scalar;

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Filter {
    must: Vec<Condition>,
    should: Vec<Condition>,
    #[serde(alias = "mustNot")]
    must_not: Vec<Condition>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Condition {
    key: String,
    r#match: Option<serde_json::Value>,
    #[serde(alias = "anyOf")]
    any_of: Option<AnyOf>,
    range: Option<Bounds<f64>>,
    text: Option<String>,
    exists: Option<bool>,
    #[serde(alias = "timeRange")]
    time_range: Option<Bounds<String>>,
    #[serde(alias = "geoRadius")]
    geo_radius: Option<GeoRadius>,
    words: Option<String>,
    filter: Option<Filter>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnyOf {
    values: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bounds<T> {
    gt: Option<T>,
    gte: Option<T>,
    lt: Option<T>,
    lte: Option<T>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GeoRadius {
    lat: f64,
    lon: f64,
    #[serde(alias = "radiusMeters")]
    radius_meters: f64,
}

/// Reads one `--filter-json`: a document, or the name of a file with one after `@`.
pub(super) fn parse(text: &str) -> Result<search::Filter, String> {
    let document = match text.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path)
            .map_err(|error| format!("{path}: {}", io_reason(&error)))?,
        None => text.to_owned(),
    };
    let filter: Filter = serde_json::from_str(&document).map_err(|error| error.to_string())?;
    filter.message()
}

/// A time as the contract has it.
pub(super) fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    // Nanoseconds are of the sign of the seconds here, and never negative there.
    let nanos = time.subsec_nanosecond();
    let borrowed = i64::from(nanos < 0);
    prost_types::Timestamp {
        seconds: time.as_second() - borrowed,
        nanos: nanos + 1_000_000_000 * i32::from(nanos < 0),
    }
}

// === impl Filter ===

impl Filter {
    fn message(self) -> Result<search::Filter, String> {
        let list = |conditions: Vec<Condition>| {
            conditions.into_iter().map(Condition::message).collect::<Result<Vec<_>, String>>()
        };
        Ok(search::Filter {
            must: list(self.must)?,
            should: list(self.should)?,
            must_not: list(self.must_not)?,
        })
    }
}

// === impl Condition ===

impl Condition {
    fn message(self) -> Result<search::Condition, String> {
        let of_key = |error: &str| format!("condition on `{}`: {error}", self.key);
        let value = |value| scalar(value).map_err(|error| of_key(&format!("a value {error}")));
        let any_of = |list: AnyOf| {
            let values = list.values.into_iter().map(value).collect::<Result<_, String>>()?;
            Ok::<_, String>(Test::AnyOf(search::AnyOf { values }))
        };
        let times = |bounds: Bounds<String>| bounds.times().map_err(|error| of_key(&error));
        let tests = [
            self.r#match.map(value).transpose()?.map(Test::Match),
            self.any_of.map(any_of).transpose()?,
            self.range.map(|bounds| Test::Range(bounds.numbers())),
            self.text.map(Test::Text),
            self.exists.map(Test::Exists),
            self.time_range.map(times).transpose()?.map(Test::TimeRange),
            self.geo_radius.map(|circle| Test::GeoRadius(circle.message())),
            self.words.map(Test::Words),
            self.filter.map(Filter::message).transpose()?.map(Test::Filter),
        ];
        let mut tests = tests.into_iter().flatten();
        match (tests.next(), tests.next()) {
            (Some(test), None) => Ok(search::Condition { key: self.key, test: Some(test) }),
            (None, _) => Err(of_key("it has no test")),
            (Some(_), Some(_)) => Err(of_key("it has more than one test")),
        }
    }
}

// === impl Bounds ===

impl Bounds<f64> {
    fn numbers(self) -> search::Range {
        search::Range { gt: self.gt, gte: self.gte, lt: self.lt, lte: self.lte }
    }
}

impl Bounds<String> {
    fn times(self) -> Result<search::TimeRange, String> {
        let time = |text: Option<String>| {
            let parse = |text: String| match text.parse::<Timestamp>() {
                Ok(time) => Ok(timestamp(time)),
                Err(_) => Err(format!("`{text}` is no time of the form 2026-03-01T12:00:00Z")),
            };
            text.map(parse).transpose()
        };
        let (gt, gte, lt, lte) = (time(self.gt)?, time(self.gte)?, time(self.lt)?, time(self.lte)?);
        Ok(search::TimeRange { gt, gte, lt, lte })
    }
}

// === impl GeoRadius ===

impl GeoRadius {
    fn message(self) -> search::GeoRadius {
        let Self { lat, lon, radius_meters } = self;
        search::GeoRadius { lat, lon, radius_meters }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(condition: &str) -> Test {
        let filter = parse(&format!(r#"{{"must": [{condition}]}}"#)).expect(condition);
        filter.must[0].test.clone().expect("a test")
    }

    fn refusal(condition: &str) -> String {
        parse(&format!(r#"{{"must": [{condition}]}}"#)).expect_err(condition)
    }

    #[test]
    fn every_test_of_the_contract_can_be_written() {
        let noon = Some(prost_types::Timestamp { seconds: 1_772_366_400, nanos: 0 });
        let table = [
            (r#""match": 2020"#, Test::Match(crate::fields::number_value(2020.0))),
            (
                r#""anyOf": {"values": ["a"]}"#,
                Test::AnyOf(search::AnyOf { values: vec![crate::fields::text_value("a")] }),
            ),
            (
                r#""range": {"gte": 1, "lt": 2.5}"#,
                Test::Range(search::Range { gte: Some(1.0), lt: Some(2.5), ..Default::default() }),
            ),
            (r#""text": "x""#, Test::Text("x".to_owned())),
            (r#""exists": false"#, Test::Exists(false)),
            (
                r#""time_range": {"gt": "2026-03-01T12:00:00Z"}"#,
                Test::TimeRange(search::TimeRange { gt: noon, ..Default::default() }),
            ),
            (
                r#""geoRadius": {"lat": 1, "lon": 2, "radiusMeters": 3}"#,
                Test::GeoRadius(search::GeoRadius { lat: 1.0, lon: 2.0, radius_meters: 3.0 }),
            ),
            (r#""words": "red dress""#, Test::Words("red dress".to_owned())),
            (r#""filter": {}"#, Test::Filter(search::Filter::default())),
        ];
        for (text, expected) in table {
            assert_eq!(test(&format!(r#"{{"key": "metadata.x", {text}}}"#)), expected, "{text}");
        }
    }

    #[test]
    fn a_document_can_be_in_a_file() {
        let folder = tempfile::tempdir().expect("make a folder");
        let path = folder.path().join("filter.json");
        std::fs::write(&path, r#"{"mustNot": [{"key": "format", "match": "png"}]}"#)
            .expect("write a file");
        let filter = parse(&format!("@{}", path.display())).expect("a filter");
        assert_eq!(filter.must_not.len(), 1, "read");
        assert!(parse("@no/such/file").expect_err("no file").contains("no/such/file"), "named");
    }

    #[test]
    fn times_before_1970_have_positive_nanoseconds() {
        let time = "1969-12-31T23:59:58.75Z".parse().expect("a time");
        let expected = prost_types::Timestamp { seconds: -2, nanos: 750_000_000 };
        assert_eq!(timestamp(time), expected, "as the contract has it");
    }

    #[test]
    fn says_what_is_wrong() {
        assert!(refusal(r#"{"key": "id"}"#).contains("no test"), "nothing to test");
        assert!(
            refusal(r#"{"key": "id", "text": "a", "words": "b"}"#).contains("more than"),
            "two"
        );
        assert!(refusal(r#"{"key": "id", "like": "a"}"#).contains("like"), "no such test");
        assert!(refusal(r#"{"key": "id", "match": [1]}"#).contains("`id`"), "the key is named");
        assert!(refusal(r#"{"timeRange": {"gt": "soon"}}"#).contains("`soon`"), "no time");
    }
}
