//! Items and their metadata, as `item.proto` has them.

use clipmesh_proto::code::{FieldViolation, Reason};
use clipmesh_proto::search::v1;
use prost::Message as _;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value as WireValue};

use super::timestamp;
use crate::item::{Item, Metadata, Place, Scalar, Shape, Value};
use crate::items::NewItem;

/// Longest `uri` and `filename`, in bytes.
const MAX_URI_BYTES: usize = 2_048;
const MAX_FILENAME_BYTES: usize = 512;
/// Fields of the caller's own, the characters of their names, and their size in all.
const MAX_FIELDS: usize = 64;
const MAX_NAME_CHARS: usize = 64;
const MAX_METADATA_BYTES: usize = 32 * 1024;

/// Checks a new item that came in the field `item`. Its picture is looked at later.
pub(crate) fn read(item: Option<v1::NewItem>) -> Result<NewItem, FieldViolation> {
    let Some(item) = item else {
        return Err(FieldViolation::new("item", Reason::Missing, "must be set"));
    };
    let id = match item.id {
        id if id.is_empty() => None,
        id => Some(super::item_id("item.id", id)?),
    };
    check_length("item.uri", &item.uri, MAX_URI_BYTES)?;
    check_length("item.filename", &item.filename, MAX_FILENAME_BYTES)?;
    let metadata = read_metadata(item.metadata.unwrap_or_default())?;
    Ok(NewItem { id, image: item.image, uri: item.uri, filename: item.filename, metadata })
}

/// An item as callers see it.
pub(crate) fn write(item: Item) -> v1::Item {
    let etag = item.etag().as_str().to_owned();
    let metadata = item.metadata.into_iter().map(|(name, value)| (name, write_value(&value)));
    v1::Item {
        id: item.id.to_string(),
        uri: item.uri,
        filename: item.filename,
        width: item.width,
        height: item.height,
        format: item.format,
        byte_size: item.byte_size,
        content_hash: item.content_hash.map(|hash| hash.to_string()).unwrap_or_default(),
        create_time: Some(timestamp(item.create_time)),
        update_time: Some(timestamp(item.update_time)),
        metadata: Some(Struct { fields: metadata.collect() }),
        etag,
        pixel_hash: item.pixel_hash.map(|hash| hash.to_string()).unwrap_or_default(),
        perceptual_hash: item.perceptual_hash.map(u64::from).unwrap_or_default(),
    }
}

/// Whether a field of the caller's own may have this name.
pub(super) fn is_metadata_name(name: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    !name.is_empty() && name.len() <= MAX_NAME_CHARS && name.chars().all(is_allowed)
}

fn check_length(field: &str, text: &str, max: usize) -> Result<(), FieldViolation> {
    if text.len() <= max {
        return Ok(());
    }
    let message = format!("must be at most {max} bytes long, not {}", text.len());
    Err(FieldViolation::new(field, Reason::TextTooLong, message))
}

fn read_metadata(metadata: Struct) -> Result<Metadata, FieldViolation> {
    let refuse = |reason, message| Err(FieldViolation::new("item.metadata", reason, message));
    let (bytes, fields) = (metadata.encoded_len(), metadata.fields.len());
    if fields > MAX_FIELDS {
        let message = format!("must have at most {MAX_FIELDS} fields, not {fields}");
        return refuse(Reason::TooMany, message);
    }
    if bytes > MAX_METADATA_BYTES {
        let message = format!("must be at most {MAX_METADATA_BYTES} bytes long, not {bytes}");
        return refuse(Reason::TooManyBytes, message);
    }
    let mut read = Metadata::new();
    for (name, value) in metadata.fields {
        if !is_metadata_name(&name) {
            let name: String = name.chars().take(MAX_NAME_CHARS).collect();
            let message = format!(
                "`{name}` is no name: 1 to {MAX_NAME_CHARS} letters, digits, `_` and `-` are"
            );
            return refuse(Reason::Malformed, message);
        }
        let value = read_value(value).map_err(|(reason, message)| {
            FieldViolation::new(format!("item.metadata.{name}"), reason, message)
        })?;
        read.insert(name, value);
    }
    Ok(read)
}

fn read_value(value: WireValue) -> Result<Value, (Reason, &'static str)> {
    let Some(Kind::ListValue(list)) = value.kind else {
        return read_scalar(value).map(Value::One);
    };
    let scalars = list.values.into_iter().map(read_scalar).collect::<Result<Vec<_>, _>>()?;
    if scalars.iter().any(|scalar| scalar.kind() != scalars[0].kind()) {
        return Err((Reason::Malformed, "must be a list of one type"));
    }
    Ok(Value::Many(scalars))
}

fn read_scalar(value: WireValue) -> Result<Scalar, (Reason, &'static str)> {
    match value.kind {
        Some(Kind::StringValue(text)) => Ok(Scalar::String(text)),
        Some(Kind::BoolValue(flag)) => Ok(Scalar::Bool(flag)),
        Some(Kind::NumberValue(number)) if number.is_finite() => Ok(Scalar::Number(number)),
        Some(Kind::NumberValue(_)) => Err((Reason::NotFinite, "must be finite")),
        Some(Kind::NullValue(_) | Kind::StructValue(_) | Kind::ListValue(_)) | None => {
            let message = "must be a string, a number, a boolean, or a list of one of these";
            Err((Reason::Malformed, message))
        }
    }
}

pub(super) fn write_value(value: &Value) -> WireValue {
    let scalar = |scalar: &Scalar| {
        let kind = match scalar {
            Scalar::String(text) => Kind::StringValue(text.clone()),
            Scalar::Number(number) => Kind::NumberValue(*number),
            Scalar::Bool(flag) => Kind::BoolValue(*flag),
            Scalar::Place(Place { lat, lon }) => {
                let degrees = |degrees| WireValue { kind: Some(Kind::NumberValue(degrees)) };
                let fields = [("lat", degrees(*lat)), ("lon", degrees(*lon))]
                    .map(|(k, v)| (k.to_owned(), v));
                Kind::StructValue(Struct { fields: fields.into() })
            }
        };
        WireValue { kind: Some(kind) }
    };
    match value.map(scalar) {
        Shape::One(value) => value,
        Shape::Many(values) => WireValue { kind: Some(Kind::ListValue(ListValue { values })) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(kind: Kind) -> WireValue {
        WireValue { kind: Some(kind) }
    }

    fn string(text: &str) -> WireValue {
        value(Kind::StringValue(text.to_owned()))
    }

    fn list(values: Vec<WireValue>) -> WireValue {
        value(Kind::ListValue(ListValue { values }))
    }

    fn with(name: &str, value: WireValue) -> Struct {
        Struct { fields: [(name.to_owned(), value)].into() }
    }

    #[test]
    fn metadata_comes_back_as_it_was_given() {
        let fields = [
            ("s", string("x")),
            ("n", value(Kind::NumberValue(-1.5))),
            ("b", value(Kind::BoolValue(true))),
            ("l", list(vec![string("x"), string("y")])),
            ("e", list(vec![])),
        ];
        let metadata = Struct {
            fields: fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        };
        let read = read_metadata(metadata.clone()).expect("accepted");
        let written = read.iter().map(|(name, value)| (name.clone(), write_value(value)));
        assert_eq!(Struct { fields: written.collect() }, metadata, "nothing changed");
    }

    #[test]
    fn refuses_metadata_by_its_field_and_reason() {
        let many = (0..=MAX_FIELDS).map(|i| (format!("f{i}"), string("x")));
        let number = |number| value(Kind::NumberValue(number));
        let long = "x".repeat(MAX_METADATA_BYTES);
        let cases = [
            (with("f", value(Kind::NullValue(0))), "item.metadata.f", Reason::Malformed),
            (with("f", WireValue { kind: None }), "item.metadata.f", Reason::Malformed),
            (
                with("f", value(Kind::StructValue(Struct::default()))),
                "item.metadata.f",
                Reason::Malformed,
            ),
            (with("f", number(f64::NAN)), "item.metadata.f", Reason::NotFinite),
            (with("f", list(vec![list(vec![])])), "item.metadata.f", Reason::Malformed),
            (with("f", list(vec![string("x"), number(1.0)])), "item.metadata.f", Reason::Malformed),
            (with("f", string(&long)), "item.metadata", Reason::TooManyBytes),
            (with("", string("x")), "item.metadata", Reason::Malformed),
            (with("a.b", string("x")), "item.metadata", Reason::Malformed),
            (with(&"n".repeat(65), string("x")), "item.metadata", Reason::Malformed),
            (Struct { fields: many.collect() }, "item.metadata", Reason::TooMany),
        ];
        for (metadata, field, reason) in cases {
            let violation = read_metadata(metadata).expect_err("refused");
            assert_eq!(
                (violation.field.as_str(), violation.reason),
                (field, reason),
                "{violation}"
            );
        }
    }

    #[test]
    fn refuses_items_by_their_field_and_reason() {
        let new = v1::NewItem::default;
        let cases = [
            (None, "item", Reason::Missing),
            (Some(v1::NewItem { id: "a\u{7}".to_owned(), ..new() }), "item.id", Reason::Malformed),
            (Some(v1::NewItem { id: "x".repeat(257), ..new() }), "item.id", Reason::TextTooLong),
            (Some(v1::NewItem { uri: "x".repeat(2049), ..new() }), "item.uri", Reason::TextTooLong),
            (
                Some(v1::NewItem { filename: "x".repeat(513), ..new() }),
                "item.filename",
                Reason::TextTooLong,
            ),
        ];
        for (item, field, reason) in cases {
            let violation = read(item).expect_err("refused");
            assert_eq!(
                (violation.field.as_str(), violation.reason),
                (field, reason),
                "{violation}"
            );
        }
        let longest = v1::NewItem {
            id: "x".repeat(256),
            uri: "x".repeat(2048),
            filename: "x".repeat(512),
            ..new()
        };
        assert!(read(Some(longest)).is_ok(), "what is as long as allowed is accepted");
        assert_eq!(read(Some(new())).expect("accepted").id, None, "an empty id is none");
    }
}
