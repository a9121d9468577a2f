//! Metadata as JSON documents have it.

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use serde_json::Value as Json;

use super::{check_name, place};

/// An object as the mesh has it. What is null is left out.
pub(crate) fn object(object: serde_json::Map<String, Json>) -> Result<Struct, String> {
    let mut fields = Struct::default();
    for (name, value) in object {
        check_name(&name)?;
        if let Some(value) = field(value).map_err(|fault| format!("field `{name}` {fault}"))? {
            fields.fields.insert(name, value);
        }
    }
    Ok(fields)
}

/// A string, a number or a boolean.
pub(crate) fn scalar(value: Json) -> Result<Value, &'static str> {
    let kind = match value {
        Json::Bool(flag) => Kind::BoolValue(flag),
        Json::String(text) => Kind::StringValue(text),
        Json::Number(number) => Kind::NumberValue(double(&number)?),
        Json::Object(_) | Json::Null | Json::Array(_) => {
            return Err(
                "must be a string, a number, a boolean, a place, or a list of one of these",
            );
        }
    };
    Ok(Value { kind: Some(kind) })
}

/// Whether both are strings, both numbers, and so on.
pub(crate) fn is_same_type(one: &Value, other: &Value) -> bool {
    let kind = |value: &Value| value.kind.as_ref().map(std::mem::discriminant);
    kind(one) == kind(other)
}

/// A field as the mesh has it; `None` for null.
fn field(value: Json) -> Result<Option<Value>, &'static str> {
    let kind = match value {
        Json::Null => return Ok(None),
        Json::Array(elements) => {
            let values = elements.into_iter().map(element).collect::<Result<Vec<_>, _>>()?;
            if !values.windows(2).all(|pair| is_same_type(&pair[0], &pair[1])) {
                return Err("must be a list of one type");
            }
            Kind::ListValue(ListValue { values })
        }
        Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Object(_) => {
            return element(value).map(Some);
        }
    };
    Ok(Some(Value { kind: Some(kind) }))
}

fn element(value: Json) -> Result<Value, &'static str> {
    let degrees = |name: &str| value.get(name).and_then(Json::as_f64);
    match (value.as_object().map(serde_json::Map::len), degrees("lat"), degrees("lon")) {
        (Some(2), Some(lat), Some(lon)) => place(lat, lon),
        (_, _, _) => scalar(value),
    }
}

/// Numbers are doubles to the mesh. Long integers are mostly ids, and a rounded one is another's.
fn double(number: &serde_json::Number) -> Result<f64, &'static str> {
    let double = number.as_f64().ok_or("must be a number of 64 bits")?;
    match number.as_i128() {
        Some(integer) if double as i128 != integer => {
            Err("is an integer that a double can't hold; in quotes it is text")
        }
        _ => Ok(double),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_objects_of_two_numbers() {
        let read = |text: &str| object(serde_json::from_str(text).expect("an object"));
        let found = read(r#"{"at": {"lat": 52.5, "lon": 13.4}}"#).expect("a place");
        assert_eq!(
            found.fields["at"],
            place(52.5, 13.4).expect("Berlin"),
            "as the contract has it"
        );
        for bad in [r#"{"at": {"lat": 1}}"#, r#"{"at": {"lat": 99, "lon": 1}}"#, r#"{"at": {}}"#] {
            assert!(read(bad).expect_err(bad).starts_with("field `at` "), "{bad} is none");
        }
    }
}
