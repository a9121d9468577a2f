//! One condition: a key, an operator, and what stands after it.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use prost_types::Value;

use clipmesh_proto::search::v1::condition::Test;
use clipmesh_proto::search::v1::{AnyOf, Condition, GeoRadius, Range, TimeRange};

use super::Term;
use crate::fields::{
    Type, check_place, json, key, number_value, scalar, text_value, type_of, unquoted,
};

/// Half way round the earth: no place is further.
const MAX_METERS: f64 = 20_037_509.0;

/// In the order in which they are looked for: the longest first.
const OPERATORS: [(&str, Operator); 10] = [
    ("!=", Operator::NotEqual),
    (">=", Operator::Bound(Bound::AtLeast)),
    ("<=", Operator::Bound(Bound::AtMost)),
    ("=", Operator::Equal),
    ("~", Operator::Contains),
    (">", Operator::Bound(Bound::Above)),
    ("<", Operator::Bound(Bound::Below)),
    ("?", Operator::Exists),
    (":", Operator::Words),
    ("@", Operator::Near),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Contains,
    Bound(Bound),
    Exists,
    Words,
    Near,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    AtLeast,
    Above,
    AtMost,
    Below,
}

/// Whether a quotation mark after this character starts a value.
pub(super) fn precedes_value(character: char) -> bool {
    matches!(character, '=' | '~' | '<' | '>' | ':' | '|')
}

/// Reads one condition.
pub(super) fn parse(text: &str) -> Result<Term, String> {
    let (name, operator, operand) = split(text)?;
    let key = key(name)?;
    let test = test(&key, operator, operand)?;
    let condition = Condition { key, test: Some(test) };
    Ok(Term { condition, is_negated: operator == Operator::NotEqual })
}

/// Reads a time. Without an offset from UTC it is that of this machine, and a date is its first
/// moment.
fn parse_time(text: &str) -> Option<Timestamp> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    let local = text.parse::<DateTime>().ok()?;
    Some(local.to_zoned(TimeZone::system()).ok()?.timestamp())
}

/// Cuts at the first operator, so that a value may hold any character.
fn split(text: &str) -> Result<(&str, Operator, &str), String> {
    let at = text
        .find(['=', '!', '~', '<', '>', '?', ':', '@'])
        .ok_or_else(|| format!("`{text}` has no operator such as `=`"))?;
    let (name, rest) = text.split_at(at);
    for (symbol, operator) in OPERATORS {
        if let Some(operand) = rest.strip_prefix(symbol) {
            return Ok((name, operator, operand));
        }
    }
    Err("`!` stands before a condition or in `!=`".to_owned())
}

fn test(key: &str, operator: Operator, operand: &str) -> Result<Test, String> {
    let type_of_key = type_of(key);
    let is_text = matches!(type_of_key, Type::Text | Type::Metadata);
    match operator {
        Operator::Equal | Operator::NotEqual => equal(key, operand),
        Operator::Bound(bound) => bounded(key, bound, operand),
        Operator::Exists if operand.is_empty() => Ok(Test::Exists(true)),
        Operator::Exists => Err(format!("nothing may follow `{key}?`")),
        Operator::Contains | Operator::Words if !is_text => {
            Err(format!("`{key}` is no text and contains none"))
        }
        Operator::Contains | Operator::Words if unquoted(operand).is_empty() => {
            Err(format!("there is no text after `{key}`"))
        }
        Operator::Contains => Ok(Test::Text(unquoted(operand).to_owned())),
        Operator::Words => Ok(Test::Words(unquoted(operand).to_owned())),
        Operator::Near if type_of_key != Type::Metadata => Err(format!("`{key}` is no place")),
        Operator::Near => near(operand).map(Test::GeoRadius),
    }
}

/// A value, or several with `|` between them.
fn equal(key: &str, operand: &str) -> Result<Test, String> {
    let values: Vec<&str> = alternatives(operand);
    let values = values.into_iter().map(|text| value(key, text));
    let mut values = values.collect::<Result<Vec<Value>, String>>()?;
    if !values.windows(2).all(|pair| json::is_same_type(&pair[0], &pair[1])) {
        let hint = "in double quotes they are all text";
        return Err(format!("`{operand}` are values of more than one type; {hint}"));
    }
    match values.pop() {
        Some(value) if values.is_empty() => Ok(Test::Match(value)),
        last => {
            values.extend(last);
            Ok(Test::AnyOf(AnyOf { values }))
        }
    }
}

/// Cuts at each `|` that is not in a quoted value.
fn alternatives(text: &str) -> Vec<&str> {
    let mut is_quoted = false;
    let mut before = '=';
    text.split(|character| {
        let opens = character == '"' && (is_quoted || precedes_value(before));
        is_quoted ^= opens;
        before = character;
        character == '|' && !is_quoted
    })
    .collect()
}

fn value(key: &str, text: &str) -> Result<Value, String> {
    match type_of(key) {
        Type::Text => Ok(text_value(unquoted(text))),
        Type::Number => number(key, text).map(number_value),
        Type::Time => Err(format!("`{key}` is a time: it has bounds, as in `{key}>=2026-03-01`")),
        Type::Metadata => Ok(scalar(text)),
    }
}

fn bounded(key: &str, bound: Bound, operand: &str) -> Result<Test, String> {
    let is_number = operand.parse::<f64>().is_ok();
    match (type_of(key), parse_time(unquoted(operand))) {
        (Type::Text, _) => Err(format!("`{key}` is text and has no order")),
        (Type::Time, Some(time)) => Ok(Test::TimeRange(bound.of_time(time))),
        (Type::Time, None) => {
            Err(format!("`{key}` is compared with a time such as 2026-03-01, not `{operand}`"))
        }
        (Type::Metadata, Some(time)) if !is_number => Ok(Test::TimeRange(bound.of_time(time))),
        (Type::Metadata | Type::Number, _) => {
            Ok(Test::Range(bound.of_number(number(key, operand)?)))
        }
    }
}

// === impl Bound ===

impl Bound {
    fn of_number(self, number: f64) -> Range {
        let number = Some(number);
        match self {
            Self::AtLeast => Range { gte: number, ..Range::default() },
            Self::Above => Range { gt: number, ..Range::default() },
            Self::AtMost => Range { lte: number, ..Range::default() },
            Self::Below => Range { lt: number, ..Range::default() },
        }
    }

    fn of_time(self, time: Timestamp) -> TimeRange {
        let time = Some(super::json::timestamp(time));
        match self {
            Self::AtLeast => TimeRange { gte: time, ..TimeRange::default() },
            Self::Above => TimeRange { gt: time, ..TimeRange::default() },
            Self::AtMost => TimeRange { lte: time, ..TimeRange::default() },
            Self::Below => TimeRange { lt: time, ..TimeRange::default() },
        }
    }
}

fn near(operand: &str) -> Result<GeoRadius, String> {
    let numbers: Vec<Option<f64>> =
        operand.split(',').map(|text| text.trim().parse().ok()).collect();
    let [Some(lat), Some(lon), Some(radius_meters)] = numbers[..] else {
        return Err(format!("`{operand}` is no circle: it must be LAT,LON,METERS"));
    };
    check_place(lat, lon)?;
    if !(radius_meters > 0.0 && radius_meters <= MAX_METERS) {
        return Err(format!(
            "a circle has a radius of more than 0 and at most {MAX_METERS} meters"
        ));
    }
    Ok(GeoRadius { lat, lon, radius_meters })
}

fn number(key: &str, text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
    number.ok_or_else(|| format!("`{key}` is compared with a number, and `{text}` is none"))
}

#[cfg(test)]
mod tests {
    use prost_types::value::Kind;

    use super::*;

    fn term(text: &str) -> (String, Test, bool) {
        let term = parse(text).expect(text);
        (term.condition.key, term.condition.test.expect("a test"), term.is_negated)
    }

    fn refusal(text: &str) -> String {
        parse(text).expect_err(text)
    }

    #[test]
    fn a_bare_key_is_metadata_unless_items_have_it() {
        assert_eq!(term("format=jpeg").0, "format", "a field of the item");
        assert_eq!(term("camera=Leica").0, "metadata.camera", "the caller's own");
        assert_eq!(term("metadata.format=raw").0, "metadata.format", "the caller's own, too");
    }

    #[test]
    fn values_have_the_type_of_their_field() {
        assert_eq!(term("filename=42").1, Test::Match(text_value("42")), "names are text");
        assert_eq!(term("width=640").1, Test::Match(number_value(640.0)), "widths are numbers");
        assert_eq!(term("year=2020").1, Test::Match(number_value(2020.0)), "looks like a number");
        assert_eq!(term("year=\"2020\"").1, Test::Match(text_value("2020")), "text in quotes");
        let boolean = Value { kind: Some(Kind::BoolValue(true)) };
        assert_eq!(term("public=true").1, Test::Match(boolean), "a boolean");
        assert_eq!(term("name=nan").1, Test::Match(text_value("nan")), "a word");
        assert!(refusal("width=wide").contains("`wide`"), "not a number");
    }

    #[test]
    fn every_operator_has_its_test() {
        let range = |range: Range| Test::Range(range);
        assert_eq!(term("width>1").1, range(Range { gt: Some(1.0), ..Range::default() }), ">");
        assert_eq!(term("width>=1").1, range(Range { gte: Some(1.0), ..Range::default() }), ">=");
        assert_eq!(term("width<1").1, range(Range { lt: Some(1.0), ..Range::default() }), "<");
        assert_eq!(term("width<=1").1, range(Range { lte: Some(1.0), ..Range::default() }), "<=");
        assert_eq!(term("uri~/cats/").1, Test::Text("/cats/".to_owned()), "~");
        assert_eq!(term("caption:red dress").1, Test::Words("red dress".to_owned()), ":");
        assert_eq!(term("camera?").1, Test::Exists(true), "?");
        assert_eq!(term("a=b=c>d").1, Test::Match(text_value("b=c>d")), "the first one counts");
        assert!(term("format!=png").2, "!=");
    }

    #[test]
    fn a_bar_stands_between_alternatives() {
        let any = |values: &[&str]| {
            Test::AnyOf(AnyOf { values: values.iter().copied().map(text_value).collect() })
        };
        assert_eq!(term("format=png|gif").1, any(&["png", "gif"]), "either");
        assert_eq!(term("name=\"a|b\"|c").1, any(&["a|b", "c"]), "in quotes it is a character");
        assert_eq!(term("name=\"a|b\"").1, Test::Match(text_value("a|b")), "one alone");
        assert!(refusal("year=2020|x").contains("more than one type"), "a number and a word");
    }

    #[test]
    fn bounds_may_be_times() {
        let noon = prost_types::Timestamp { seconds: 1_772_366_400, nanos: 0 };
        let from = |time| Test::TimeRange(TimeRange { gte: Some(time), ..TimeRange::default() });
        assert_eq!(term("create_time>=2026-03-01T12:00:00Z").1, from(noon), "of the item");
        assert_eq!(term("taken>=2026-03-01T13:00:00+01:00").1, from(noon), "of the caller");
        assert!(matches!(term("taken<2026-03-01").1, Test::TimeRange(_)), "a date");
        assert!(matches!(term("year<2026").1, Test::Range(_)), "a number is no date");
        assert!(refusal("create_time=2026-03-01").contains("has bounds"), "a moment");
        assert!(refusal("create_time>soon").contains("`soon`"), "no time");
    }

    #[test]
    fn an_at_sign_stands_before_a_circle() {
        let circle = GeoRadius { lat: 52.5, lon: -13.4, radius_meters: 500.0 };
        assert_eq!(term("at@52.5,-13.4,500").1, Test::GeoRadius(circle), "a circle");
        assert!(refusal("at@52.5,13.4").contains("LAT,LON,METERS"), "no radius");
        assert!(refusal("at@99,13.4,5").contains("latitude"), "no such place");
        assert!(refusal("at@9,13.4,0").contains("radius"), "a point");
        assert!(refusal("width@9,13.4,1").contains("no place"), "a number");
    }

    #[test]
    fn says_what_is_wrong_with_a_condition() {
        assert!(refusal("format").contains("no operator"), "no operator");
        assert!(refusal("=x").contains("names no field"), "no key");
        assert!(refusal("a b=x").contains("`a b`"), "a space in the name");
        assert!(refusal("filename>3").contains("no order"), "text has no order");
        assert!(refusal("camera?x").contains("nothing may follow"), "a test for presence");
        assert!(refusal("uri~").contains("no text"), "an empty text");
        assert!(refusal("width~5").contains("is no text"), "a number");
        assert!(refusal("a!b").contains("`!`"), "a lone exclamation mark");
    }
}
