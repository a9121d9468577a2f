//! Metadata and filters, in the words of the tests.

use clipmesh_proto::search::v1 as search;
use clipmesh_proto::search::v1::condition::Test;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};

pub fn text(text: &str) -> Value {
    value(Kind::StringValue(text.to_owned()))
}

pub fn number(number: f64) -> Value {
    value(Kind::NumberValue(number))
}

pub fn boolean(boolean: bool) -> Value {
    value(Kind::BoolValue(boolean))
}

/// A list of strings.
pub fn list(texts: &[&str]) -> Value {
    value(Kind::ListValue(ListValue {
        values: texts.iter().map(|element| text(element)).collect(),
    }))
}

/// Metadata, for where a message has it.
pub fn metadata(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Option<Struct> {
    let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Some(Struct { fields })
}

/// What an item has in a field of its metadata, if that is a number.
pub fn number_of(item: &search::Item, name: &str) -> Option<f64> {
    match item.metadata.as_ref()?.fields.get(name)?.kind {
        Some(Kind::NumberValue(number)) => Some(number),
        _ => None,
    }
}

pub fn condition(key: &str, test: Test) -> search::Condition {
    search::Condition { key: key.to_owned(), test: Some(test) }
}

/// A filter of one condition.
pub fn must(key: &str, test: Test) -> search::Filter {
    search::Filter { must: vec![condition(key, test)], ..search::Filter::default() }
}

/// Items whose field is this string.
pub fn is(key: &str, value: &str) -> search::Filter {
    must(key, Test::Match(text(value)))
}

fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}
