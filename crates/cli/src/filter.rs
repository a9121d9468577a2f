//! Conditions on items as they are typed: `--filter format=jpeg --filter 'width>=800'`.
//!
//! ```text
//!   key=value   equal               key~text    contains the text, in any letter case
//!   key!=value  not equal           key?        is there at all
//!   key>n  key>=n  key<n  key<=n    !condition  turns a condition round
//! ```
//!
//! `key` is a field of the item (`id`, `uri`, `filename`, `format`, `content_hash`, `width`,
//! `height`, `byte_size`), and anything else a name in the caller's metadata;
//! `metadata.width` is the caller's own `width`. Metadata values are told apart as JSON does: a
//! number, `true` or `false`, else text; in double quotes (`year="2020"`) it is always text.

use std::collections::BTreeMap;

use prost_types::value::Kind;
use prost_types::{Struct, Value};

use clipmesh_proto::search::v1::condition::Test;
use clipmesh_proto::search::v1::{AnyOf, Condition, Filter, Range};

/// The lines above, for `--help`.
pub(crate) const HELP: &str = "\
Filters (repeat --filter to ask for several at once):
  key=value   equal               key~text    contains the text, in any letter case
  key!=value  not equal           key?        is there at all
  key>n  key>=n  key<n  key<=n    !condition  turns a condition round
  Keys: id uri filename format content_hash width height byte_size; anything else is a name in
  the metadata (`metadata.width` is your own width). Values in metadata are numbers, true, false
  or text; year=\"2020\" is text.";

const TEXT_FIELDS: [&str; 5] = ["id", "uri", "filename", "format", "content_hash"];
const NUMBER_FIELDS: [&str; 3] = ["width", "height", "byte_size"];
const METADATA_PREFIX: &str = "metadata.";
const MAX_NAME_CHARS: usize = 64;

/// One `--filter`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Term {
    condition: Condition,
    is_negated: bool,
}

/// One `--metadata`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Field {
    name: String,
    value: Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Contains,
    AtLeast,
    Above,
    AtMost,
    Below,
    Exists,
}

/// All terms must hold; `None` when there are none.
pub(crate) fn all_of(terms: &[Term]) -> Option<Filter> {
    let mut filter = Filter::default();
    for term in terms {
        let list = if term.is_negated { &mut filter.must_not } else { &mut filter.must };
        list.push(term.condition.clone());
    }
    (!terms.is_empty()).then_some(filter)
}

/// Items whose picture is one of these.
pub(crate) fn content_hash_any_of(hashes: impl Iterator<Item = String>) -> Filter {
    let values = hashes.map(text_value).collect();
    only(Condition { key: "content_hash".to_owned(), test: Some(Test::AnyOf(AnyOf { values })) })
}

/// Items whose id contains this text.
pub(crate) fn id_contains(text: &str) -> Filter {
    only(Condition { key: "id".to_owned(), test: Some(Test::Text(text.to_owned())) })
}

/// Reads one `--filter`.
pub(crate) fn parse_term(text: &str) -> Result<Term, String> {
    if let Some(rest) = text.strip_prefix('!') {
        let term = parse_term(rest)?;
        return Ok(Term { is_negated: !term.is_negated, ..term });
    }
    let (name, operator, operand) = split(text)?;
    let key = key(name)?;
    let test = test(&key, operator, operand)?;
    let condition = Condition { key, test: Some(test) };
    Ok(Term { condition, is_negated: operator == Operator::NotEqual })
}

/// Reads one `--metadata`.
pub(crate) fn parse_field(text: &str) -> Result<Field, String> {
    let (name, value) = text.split_once('=').ok_or("it must be `name=value`")?;
    check_name(name)?;
    Ok(Field { name: name.to_owned(), value: metadata_value(value) })
}

/// The fields as one object. A name given more than once holds the list of its values.
pub(crate) fn metadata(fields: &[Field]) -> Option<Struct> {
    let mut values: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for field in fields {
        values.entry(field.name.clone()).or_default().push(field.value.clone());
    }
    let one = |mut values: Vec<Value>| match values.pop() {
        Some(value) if values.is_empty() => value,
        Some(value) => {
            values.push(value);
            Value { kind: Some(Kind::ListValue(prost_types::ListValue { values })) }
        }
        None => Value { kind: None },
    };
    let fields: BTreeMap<String, Value> =
        values.into_iter().map(|(name, values)| (name, one(values))).collect();
    (!fields.is_empty()).then_some(Struct { fields })
}

fn only(condition: Condition) -> Filter {
    Filter { must: vec![condition], ..Filter::default() }
}

/// Cuts at the first operator, so that a value may hold any character.
fn split(text: &str) -> Result<(&str, Operator, &str), String> {
    const LONGEST_FIRST: [(&str, Operator); 8] = [
        ("!=", Operator::NotEqual),
        (">=", Operator::AtLeast),
        ("<=", Operator::AtMost),
        ("=", Operator::Equal),
        ("~", Operator::Contains),
        (">", Operator::Above),
        ("<", Operator::Below),
        ("?", Operator::Exists),
    ];
    let at = text.find(['=', '!', '~', '<', '>', '?']).ok_or("it has no operator such as `=`")?;
    let (name, rest) = text.split_at(at);
    for (symbol, operator) in LONGEST_FIRST {
        if let Some(operand) = rest.strip_prefix(symbol) {
            return Ok((name, operator, operand));
        }
    }
    Err("`!` stands before a condition or in `!=`".to_owned())
}

fn key(name: &str) -> Result<String, String> {
    if TEXT_FIELDS.contains(&name) || NUMBER_FIELDS.contains(&name) {
        return Ok(name.to_owned());
    }
    let name = name.strip_prefix(METADATA_PREFIX).unwrap_or(name);
    check_name(name)?;
    Ok(format!("{METADATA_PREFIX}{name}"))
}

/// Whether a field of the caller's own may have this name.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() {
        return Err("it names no field".to_owned());
    }
    if name.len() > MAX_NAME_CHARS || !name.chars().all(is_fine) {
        return Err(format!(
            "`{name}` is no field: a name has 1 to {MAX_NAME_CHARS} letters, digits, `_` and `-`"
        ));
    }
    Ok(())
}

fn test(key: &str, operator: Operator, operand: &str) -> Result<Test, String> {
    let range = |bound: fn(&mut Range, f64)| {
        if TEXT_FIELDS.contains(&key) {
            return Err(format!("`{key}` is text and has no order"));
        }
        let mut range = Range::default();
        bound(&mut range, number(key, operand)?);
        Ok(Test::Range(range))
    };
    match operator {
        Operator::Equal | Operator::NotEqual => Ok(Test::Match(value(key, operand)?)),
        Operator::Contains if operand.is_empty() => Err(format!("`{key}~` needs a text")),
        Operator::Contains if NUMBER_FIELDS.contains(&key) => {
            Err(format!("`{key}` is a number and contains no text"))
        }
        Operator::Contains => Ok(Test::Text(unquoted(operand).to_owned())),
        Operator::AtLeast => range(|range, bound| range.gte = Some(bound)),
        Operator::Above => range(|range, bound| range.gt = Some(bound)),
        Operator::AtMost => range(|range, bound| range.lte = Some(bound)),
        Operator::Below => range(|range, bound| range.lt = Some(bound)),
        Operator::Exists if operand.is_empty() => Ok(Test::Exists(true)),
        Operator::Exists => Err(format!("nothing may follow `{key}?`")),
    }
}

fn value(key: &str, text: &str) -> Result<Value, String> {
    if TEXT_FIELDS.contains(&key) {
        return Ok(text_value(unquoted(text)));
    }
    if NUMBER_FIELDS.contains(&key) {
        return number(key, text).map(number_value);
    }
    Ok(metadata_value(text))
}

fn metadata_value(text: &str) -> Value {
    if unquoted(text) != text {
        return text_value(unquoted(text));
    }
    match text.parse::<f64>() {
        _ if text == "true" || text == "false" => {
            Value { kind: Some(Kind::BoolValue(text == "true")) }
        }
        // `inf` and `nan` parse too, and are words here.
        Ok(number) if number.is_finite() => number_value(number),
        _ => text_value(text),
    }
}

fn unquoted(text: &str) -> &str {
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text)
}

fn number(key: &str, text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
    number.ok_or_else(|| format!("`{key}` is compared with a number, and `{text}` is none"))
}

fn text_value(text: impl Into<String>) -> Value {
    Value { kind: Some(Kind::StringValue(text.into())) }
}

fn number_value(number: f64) -> Value {
    Value { kind: Some(Kind::NumberValue(number)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn term(text: &str) -> (String, Test, bool) {
        let term = parse_term(text).expect(text);
        (term.condition.key, term.condition.test.expect("a test"), term.is_negated)
    }

    fn refusal(text: &str) -> String {
        parse_term(text).expect_err(text)
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
        assert_eq!(term("camera?").1, Test::Exists(true), "?");
        assert_eq!(term("a=b=c>d").1, Test::Match(text_value("b=c>d")), "the first one counts");
    }

    #[test]
    fn negation_goes_to_must_not() {
        assert!(term("format!=png").2, "!=");
        assert!(term("!camera?").2, "!condition");
        assert!(!term("!format!=png").2, "twice is not at all");
        let terms = ["format=png", "width>9", "!tag~x"].map(|text| parse_term(text).expect(text));
        let filter = all_of(&terms).expect("a filter");
        assert_eq!((filter.must.len(), filter.must_not.len()), (2, 1), "each to its list");
        assert_eq!(all_of(&[]), None, "no terms, no filter");
    }

    #[test]
    fn says_what_is_wrong_with_a_filter() {
        assert!(refusal("format").contains("no operator"), "no operator");
        assert!(refusal("=x").contains("names no field"), "no key");
        assert!(refusal("a b=x").contains("`a b`"), "a space in the name");
        assert!(refusal("filename>3").contains("no order"), "text has no order");
        assert!(refusal("camera?x").contains("nothing may follow"), "a test for presence");
        assert!(refusal("uri~").contains("needs a text"), "an empty text");
        assert!(refusal("a!b").contains("`!`"), "a lone exclamation mark");
    }

    #[test]
    fn a_name_given_twice_holds_a_list() {
        let fields = ["tag=a", "tag=b", "year=2020"].map(|text| parse_field(text).expect(text));
        let object = metadata(&fields).expect("an object");
        let values = vec![text_value("a"), text_value("b")];
        let list = Value { kind: Some(Kind::ListValue(prost_types::ListValue { values })) };
        assert_eq!(object.fields["tag"], list, "both values in order");
        assert_eq!(object.fields["year"], number_value(2020.0), "one value is no list");
        assert!(parse_field("tag").is_err(), "no value");
    }
}
