//! Fields of items as they are typed: their names, and values of the caller's own.
//!
//! A bare name is a name in the caller's metadata, unless items have a field of that name;
//! `metadata.width` is the caller's own `width`. Values in metadata are told apart as JSON does: a
//! number, `true` or `false`, else text; in double quotes (`year="2020"`) it is always text, and
//! `@LAT,LON` is a place.

pub(crate) mod json;

use std::collections::BTreeMap;

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};

use clipmesh_proto::search::v1::Item;

use crate::output;

/// What an item's own fields hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Text,
    Number,
    Time,
    /// Whatever the caller put there.
    Metadata,
}

const TEXT_FIELDS: [&str; 6] = ["id", "uri", "filename", "format", "content_hash", "pixel_hash"];
const NUMBER_FIELDS: [&str; 3] = ["width", "height", "byte_size"];
const TIME_FIELDS: [&str; 2] = ["create_time", "update_time"];
const METADATA_PREFIX: &str = "metadata.";
const MAX_NAME_CHARS: usize = 64;

/// One `--metadata` or `--set`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Field {
    name: String,
    value: Value,
}

// === impl Field ===

impl Field {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// Reads one `--metadata`.
pub(crate) fn parse_field(text: &str) -> Result<Field, String> {
    let (name, value) = text.split_once('=').ok_or("it must be `name=value`")?;
    check_name(name)?;
    Ok(Field { name: name.to_owned(), value: metadata_value(value)? })
}

/// Reads the name of a field in metadata.
pub(crate) fn parse_name(text: &str) -> Result<String, String> {
    let name = text.strip_prefix(METADATA_PREFIX).unwrap_or(text);
    check_name(name).map(|()| name.to_owned())
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
            Value { kind: Some(Kind::ListValue(ListValue { values })) }
        }
        None => Value { kind: None },
    };
    let fields: BTreeMap<String, Value> =
        values.into_iter().map(|(name, values)| (name, one(values))).collect();
    (!fields.is_empty()).then_some(Struct { fields })
}

/// The field that is meant, as the contract has it: `width`, `metadata.album`.
pub(crate) fn key(name: &str) -> Result<String, String> {
    if type_of(name) != Type::Metadata {
        return Ok(name.to_owned());
    }
    let name = name.strip_prefix(METADATA_PREFIX).unwrap_or(name);
    check_name(name)?;
    Ok(format!("{METADATA_PREFIX}{name}"))
}

/// What the field of this key holds.
pub(crate) fn type_of(key: &str) -> Type {
    if TEXT_FIELDS.contains(&key) {
        Type::Text
    } else if NUMBER_FIELDS.contains(&key) {
        Type::Number
    } else if TIME_FIELDS.contains(&key) {
        Type::Time
    } else {
        Type::Metadata
    }
}

/// What an item has in the field of this key, for a table.
pub(crate) fn cell(item: &Item, key: &str) -> String {
    let time = |time: Option<prost_types::Timestamp>| time.map(output::local_time);
    match key {
        "id" => output::short_id(&item.id).to_owned(),
        "uri" => item.uri.clone(),
        "filename" => item.filename.clone(),
        "format" => item.format.clone(),
        "content_hash" => output::short_id(&item.content_hash).to_owned(),
        "pixel_hash" => output::short_id(&item.pixel_hash).to_owned(),
        "width" => item.width.to_string(),
        "height" => item.height.to_string(),
        "byte_size" => item.byte_size.to_string(),
        "create_time" => time(item.create_time).unwrap_or_default(),
        "update_time" => time(item.update_time).unwrap_or_default(),
        _ => {
            let name = key.strip_prefix(METADATA_PREFIX).unwrap_or(key);
            let value = item.metadata.as_ref().and_then(|metadata| metadata.fields.get(name));
            value.map(plain).unwrap_or_default()
        }
    }
}

/// A value for a person: text without quotes, all else as JSON has it.
pub(crate) fn plain(value: &Value) -> String {
    let json = output::json::value(value.clone());
    json.as_str().map_or_else(|| json.to_string(), str::to_owned)
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

fn metadata_value(text: &str) -> Result<Value, String> {
    match text.strip_prefix('@').and_then(|place| place.split_once(',')) {
        Some((lat, lon)) => match (lat.trim().parse(), lon.trim().parse()) {
            (Ok(lat), Ok(lon)) => place(lat, lon).map_err(str::to_owned),
            // A name that starts with `@`, and no place.
            (_, _) => Ok(scalar(text)),
        },
        None => Ok(scalar(text)),
    }
}

/// A string, number or boolean, whichever it looks like.
pub(crate) fn scalar(text: &str) -> Value {
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

pub(crate) fn unquoted(text: &str) -> &str {
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text)
}

pub(crate) fn text_value(text: impl Into<String>) -> Value {
    Value { kind: Some(Kind::StringValue(text.into())) }
}

pub(crate) fn number_value(number: f64) -> Value {
    Value { kind: Some(Kind::NumberValue(number)) }
}

/// A place in degrees, as metadata has it.
pub(crate) fn place(lat: f64, lon: f64) -> Result<Value, &'static str> {
    check_place(lat, lon)?;
    let fields = [("lat", lat), ("lon", lon)];
    let fields = fields.map(|(name, degrees)| (name.to_owned(), number_value(degrees)));
    Ok(Value { kind: Some(Kind::StructValue(Struct { fields: fields.into() })) })
}

/// Whether a point of the earth lies there.
pub(crate) fn check_place(lat: f64, lon: f64) -> Result<(), &'static str> {
    if !(-90.0..=90.0).contains(&lat) || !(-180.0..=180.0).contains(&lon) {
        return Err("a place has a latitude from -90 to 90 and a longitude from -180 to 180");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_given_twice_holds_a_list() {
        let fields = ["tag=a", "tag=b", "year=2020"].map(|text| parse_field(text).expect(text));
        let object = metadata(&fields).expect("an object");
        let values = vec![text_value("a"), text_value("b")];
        let list = Value { kind: Some(Kind::ListValue(ListValue { values })) };
        assert_eq!(object.fields["tag"], list, "both values in order");
        assert_eq!(object.fields["year"], number_value(2020.0), "one value is no list");
        assert!(parse_field("tag").is_err(), "no value");
    }

    #[test]
    fn a_place_is_two_numbers_after_an_at_sign() {
        let value = |text| parse_field(text).expect(text).value;
        assert_eq!(value("at=@52.5,13.4"), place(52.5, 13.4).expect("Berlin"), "a place");
        assert_eq!(value("by=@anna,ben"), text_value("@anna,ben"), "two people");
        assert!(parse_field("at=@91,0").expect_err("beyond the pole").contains("latitude"), "told");
    }

    #[test]
    fn keys_are_those_of_the_contract() {
        assert_eq!(key("width").as_deref(), Ok("width"), "a field of the item");
        assert_eq!(key("album").as_deref(), Ok("metadata.album"), "the caller's own");
        assert_eq!(key("metadata.width").as_deref(), Ok("metadata.width"), "the caller's own, too");
        assert!(key("a b").is_err(), "no name");
    }

    #[test]
    fn a_cell_shows_what_the_item_has() {
        let fields = ["year=2020", "name=a b"].map(|text| parse_field(text).expect(text));
        let metadata = metadata(&fields);
        let item = Item { id: "ab".repeat(32), metadata, ..Item::default() };
        let row = ["id", "metadata.year", "metadata.name", "metadata.none"];
        let row = row.map(|key| cell(&item, key));
        assert_eq!(row, ["abababababab", "2020", "a b", ""], "without quotes, empty where nothing");
    }
}
