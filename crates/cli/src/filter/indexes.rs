//! Which index would have made a filter quick.

use prost_types::Value;
use prost_types::value::Kind;

use clipmesh_proto::ids::CollectionName;
use clipmesh_proto::search::v1::condition::Test;
use clipmesh_proto::search::v1::{Condition, Filter};

use crate::output;

/// Says which fields of a filter had no index that fits, and how to make one. The answer is right
/// all the same, so this goes beside it.
pub(crate) fn note_unindexed(
    collection: &CollectionName,
    filter: Option<&Filter>,
    fields: &[String],
) {
    for note in unindexed_notes(collection, filter, fields) {
        output::note(note);
    }
}

/// What there is to say, for each of the fields.
pub(crate) fn unindexed_notes(
    collection: &CollectionName,
    filter: Option<&Filter>,
    fields: &[String],
) -> impl Iterator<Item = String> {
    fields.iter().map(move |field| note(collection, filter, field))
}

fn note(collection: &CollectionName, filter: Option<&Filter>, field: &str) -> String {
    let slow = format!("note: no index on `{field}` fits, so that items were read one by one");
    match filter.and_then(|filter| kind(filter, field)) {
        Some(kind) => {
            format!(
                "{slow}; `clipmesh collections index add {collection} {field}:{kind}` makes one"
            )
        }
        None => slow,
    }
}

/// The kind of index that the first condition on a field needs; none helps to find a part of a
/// string.
fn kind(filter: &Filter, field: &str) -> Option<&'static str> {
    let conditions = filter.must.iter().chain(&filter.should).chain(&filter.must_not);
    conditions.filter_map(|condition| kind_of(condition, field)).next()
}

fn kind_of(condition: &Condition, field: &str) -> Option<&'static str> {
    let test = condition.test.as_ref()?;
    if let Test::Filter(filter) = test {
        return kind(filter, field);
    }
    // Of the item's own fields all have the index that they can have.
    if condition.key != field || !field.starts_with("metadata.") {
        return None;
    }
    match test {
        Test::Match(value) => kind_of_value(value),
        Test::AnyOf(any) => any.values.first().and_then(kind_of_value),
        Test::Range(_) => Some("float"),
        Test::TimeRange(_) => Some("time"),
        Test::GeoRadius(_) => Some("geo"),
        Test::Words(_) => Some("words"),
        Test::Exists(_) => Some("keyword"),
        Test::Text(_) | Test::Filter(_) => None,
    }
}

fn kind_of_value(value: &Value) -> Option<&'static str> {
    match value.kind.as_ref()? {
        Kind::StringValue(_) => Some("keyword"),
        Kind::NumberValue(number) if number.fract() == 0.0 => Some("integer"),
        Kind::NumberValue(_) => Some("float"),
        Kind::BoolValue(_) => Some("boolean"),
        Kind::NullValue(_) | Kind::ListValue(_) | Kind::StructValue(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::{Filters, syntax};

    fn told(condition: &str, field: &str) -> String {
        let conditions = vec![syntax::parse(condition).expect(condition)];
        let filter = Filters { conditions, document: None }.message();
        let collection = "images".to_owned().try_into().expect("a name");
        note(&collection, filter.as_ref(), field)
    }

    #[test]
    fn the_command_that_makes_the_index_is_told() {
        let table = [
            ("album=x|y", "metadata.album:keyword"),
            ("album=7", "metadata.album:integer"),
            ("album=7.5", "metadata.album:float"),
            ("album=true", "metadata.album:boolean"),
            ("album>7", "metadata.album:float"),
            ("album>2026-03-01", "metadata.album:time"),
            ("album@1,2,3", "metadata.album:geo"),
            ("album:red", "metadata.album:words"),
            ("a=1 or !(b=2 and album=x)", "metadata.album:keyword"),
        ];
        for (condition, argument) in table {
            let note = told(condition, "metadata.album");
            let command = format!("`clipmesh collections index add images {argument}`");
            assert!(note.contains(&command), "{condition}: {note}");
        }
    }

    #[test]
    fn no_index_is_advised_where_none_helps() {
        assert!(!told("album~x", "metadata.album").contains("index add"), "a part of a string");
        assert!(!told("uri~x", "uri").contains("index add"), "a field of the item itself");
    }
}
