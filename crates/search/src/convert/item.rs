//! Items and their metadata, as `item.proto` has them.

use clipmesh_proto::code::{FieldViolation, Reason};
use clipmesh_proto::ids::{ContentHash, ItemId};
use clipmesh_proto::search::v1;
use clipmesh_proto::search::v1::delete_items_request::Which as WireWhich;
use prost::Message as _;
use prost_types::value::Kind;
use prost_types::{FieldMask, ListValue, Struct, Value as WireValue};

use super::timestamp;
use crate::item::{Item, Metadata, Place, Scalar, Shape, Value};
use crate::items::{Change, Content, MAX_SAMPLE, MetadataChange, NewItem, Which};

/// Longest `uri` and `filename`, in bytes.
const MAX_URI_BYTES: usize = 2_048;
const MAX_FILENAME_BYTES: usize = 512;
/// Fields of the caller's own, the characters of their names, and their size in all.
const MAX_FIELDS: usize = 64;
const MAX_NAME_CHARS: usize = 64;
const MAX_METADATA_BYTES: usize = 32 * 1024;
/// Ids in one request.
const MAX_IDS: usize = 1_000;

/// Checks a new item that came in the field `item`. Its picture is looked at later.
pub(crate) fn read(item: Option<v1::NewItem>) -> Result<NewItem, FieldViolation> {
    let item = item.ok_or_else(missing)?;
    let id = match item.id {
        id if id.is_empty() => None,
        id => Some(super::item_id("item.id", id)?),
    };
    check_length("item.uri", &item.uri, MAX_URI_BYTES)?;
    check_length("item.filename", &item.filename, MAX_FILENAME_BYTES)?;
    let metadata = read_metadata(item.metadata.unwrap_or_default())?;
    let content = match item.vector {
        None => Content::Image(item.image),
        Some(_) if !item.image.is_empty() => {
            let message = "must not be set beside `image`";
            return Err(FieldViolation::new("item.vector", Reason::Malformed, message));
        }
        Some(_) if id.is_none() => {
            let message = "must be set for a vector, which has no content to be called by";
            return Err(FieldViolation::new("item.id", Reason::Missing, message));
        }
        Some(vector) => {
            let (values, fingerprint) = super::vector("item.vector", vector)?;
            Content::Vector { values, fingerprint }
        }
    };
    let etag = super::etag(item.etag);
    Ok(NewItem { id, content, uri: item.uri, filename: item.filename, metadata, etag })
}

/// Checks what is to be changed of an item: `item` holds the new values, the mask says which of
/// them count.
pub(crate) fn read_change(
    item: v1::Item,
    mask: Option<FieldMask>,
) -> Result<Change, FieldViolation> {
    check_length("item.uri", &item.uri, MAX_URI_BYTES)?;
    check_length("item.filename", &item.filename, MAX_FILENAME_BYTES)?;
    let mut metadata = read_metadata(item.metadata.unwrap_or_default())?;
    let paths = mask.map(|mask| mask.paths).unwrap_or_default();
    if paths.is_empty() {
        let set = |text: String| Some(text).filter(|text| !text.is_empty());
        let metadata = MetadataChange::Merge { set: metadata, remove: Vec::new() };
        return Ok(Change { uri: set(item.uri), filename: set(item.filename), metadata });
    }
    let mut change = Change::default();
    let (mut set, mut remove) = (Metadata::new(), Vec::new());
    let is_whole = paths.iter().any(|path| path == "metadata");
    for (i, path) in paths.into_iter().enumerate() {
        let name = path.strip_prefix("metadata.").filter(|name| is_metadata_name(name));
        match (path.as_str(), name) {
            ("uri", _) => change.uri = Some(item.uri.clone()),
            ("filename", _) => change.filename = Some(item.filename.clone()),
            ("metadata", _) => {}
            // Is changed with the rest of it.
            (_, Some(_)) if is_whole => {}
            (_, Some(name)) => match metadata.remove_entry(name) {
                Some((name, value)) => {
                    set.insert(name, value);
                }
                None if set.contains_key(name) => {}
                None => remove.push(name.to_owned()),
            },
            (_, None) => {
                let path: String = path.chars().take(MAX_NAME_CHARS).collect();
                let message = format!(
                    "`{path}` is none of `uri`, `filename`, `metadata` and `metadata.NAME`"
                );
                let field = format!("update_mask.paths[{i}]");
                return Err(FieldViolation::new(field, Reason::Malformed, message));
            }
        }
    }
    change.metadata = if is_whole {
        MetadataChange::Replace(metadata)
    } else {
        MetadataChange::Merge { set, remove }
    };
    Ok(change)
}

/// Refuses more metadata than an item may have: what was there and what is added, together.
pub(crate) fn check_metadata(metadata: &Metadata) -> Result<(), FieldViolation> {
    let fields = metadata.iter().map(|(name, value)| (name.clone(), write_value(value)));
    check_size(&Struct { fields: fields.collect() })
}

/// Refuses a request without its item.
pub(crate) fn missing() -> FieldViolation {
    FieldViolation::new("item", Reason::Missing, "must be set")
}

/// Checks which ids and content hashes are asked about.
pub(crate) fn read_check(
    ids: Vec<String>,
    hashes: Vec<String>,
) -> Result<(Vec<ItemId>, Vec<ContentHash>), FieldViolation> {
    let count = ids.len() + hashes.len();
    if count > MAX_IDS {
        let message = format!("must be at most {MAX_IDS} with `content_hashes`, not {count}");
        return Err(FieldViolation::new("ids", Reason::TooMany, message));
    }
    let hash = |(i, text): (usize, String)| {
        text.parse().map_err(|error| super::bad_id(&format!("content_hashes[{i}]"), error))
    };
    let hashes = hashes.into_iter().enumerate().map(hash).collect::<Result<_, _>>()?;
    Ok((read_ids("ids", ids)?, hashes))
}

/// Checks which items are to be deleted.
pub(crate) fn read_which(which: Option<WireWhich>) -> Result<Which, FieldViolation> {
    match which {
        None => {
            let message = "must be one of `ids` and `filter`";
            Err(FieldViolation::new("which", Reason::Missing, message))
        }
        Some(WireWhich::Ids(v1::ItemIds { ids })) if ids.is_empty() => {
            let message = format!("must be 1 to {MAX_IDS} ids");
            Err(FieldViolation::new("ids.ids", Reason::Empty, message))
        }
        Some(WireWhich::Ids(v1::ItemIds { ids })) if ids.len() > MAX_IDS => {
            let message = format!("must be at most {MAX_IDS} ids, not {}", ids.len());
            Err(FieldViolation::new("ids.ids", Reason::TooMany, message))
        }
        Some(WireWhich::Ids(v1::ItemIds { ids })) => read_ids("ids.ids", ids).map(Which::Ids),
        Some(WireWhich::Filter(filter)) => {
            // One in it that has none is refused as it is read.
            if filter == v1::Filter::default() {
                let message = "must have a condition: without one, everything passes";
                return Err(FieldViolation::new("filter", Reason::Empty, message));
            }
            super::filter::read(Some(filter)).map(Which::Filter)
        }
    }
}

/// How many items to draw.
pub(crate) fn read_sample_size(size: Option<u32>) -> Result<usize, FieldViolation> {
    let size = size.unwrap_or(1) as usize;
    if !(1..=MAX_SAMPLE).contains(&size) {
        let message = format!("must be 1 to {MAX_SAMPLE}, not {size}");
        return Err(FieldViolation::new("size", Reason::OutOfRange, message));
    }
    Ok(size)
}

fn read_ids(path: &str, ids: Vec<String>) -> Result<Vec<ItemId>, FieldViolation> {
    let numbered = ids.into_iter().enumerate();
    numbered.map(|(i, id)| super::item_id(&format!("{path}[{i}]"), id)).collect()
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

fn check_size(metadata: &Struct) -> Result<(), FieldViolation> {
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
    Ok(())
}

fn read_metadata(metadata: Struct) -> Result<Metadata, FieldViolation> {
    check_size(&metadata)?;
    let mut read = Metadata::new();
    for (name, value) in metadata.fields {
        if !is_metadata_name(&name) {
            let name: String = name.chars().take(MAX_NAME_CHARS).collect();
            let message = format!(
                "`{name}` is no name: 1 to {MAX_NAME_CHARS} letters, digits, `_` and `-` are"
            );
            return Err(FieldViolation::new("item.metadata", Reason::Malformed, message));
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
        Some(Kind::StructValue(place)) => read_place(&place).map(Scalar::Place),
        Some(Kind::NullValue(_) | Kind::ListValue(_)) | None => {
            let message =
                "must be a string, a number, a boolean, a place, or a list of one of these";
            Err((Reason::Malformed, message))
        }
    }
}

/// The only object that metadata may hold.
fn read_place(place: &Struct) -> Result<Place, (Reason, &'static str)> {
    let degrees = |name: &str| match place.fields.get(name)?.kind {
        Some(Kind::NumberValue(degrees)) => Some(degrees),
        Some(_) | None => None,
    };
    let (Some(lat), Some(lon), 2) = (degrees("lat"), degrees("lon"), place.fields.len()) else {
        return Err((
            Reason::Malformed,
            "must be a place, of the form {\"lat\": 52.5, \"lon\": 13.4}",
        ));
    };
    if !lat.is_finite() || !lon.is_finite() {
        return Err((Reason::NotFinite, "must have a finite `lat` and `lon`"));
    }
    if lat.abs() > 90.0 || lon.abs() > 180.0 {
        return Err((
            Reason::OutOfRange,
            "must have a `lat` of -90 to 90 and a `lon` of -180 to 180",
        ));
    }
    Ok(Place { lat, lon })
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

    fn number(number: f64) -> WireValue {
        value(Kind::NumberValue(number))
    }

    fn object(fields: &[(&str, WireValue)]) -> WireValue {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        value(Kind::StructValue(Struct { fields: fields.collect() }))
    }

    fn place(lat: f64, lon: f64) -> WireValue {
        object(&[("lat", number(lat)), ("lon", number(lon))])
    }

    #[test]
    fn metadata_comes_back_as_it_was_given() {
        let fields = [
            ("s", string("x")),
            ("n", value(Kind::NumberValue(-1.5))),
            ("b", value(Kind::BoolValue(true))),
            ("l", list(vec![string("x"), string("y")])),
            ("e", list(vec![])),
            ("p", place(-90.0, 180.0)),
            ("q", list(vec![place(52.5, 13.4), place(0.0, -0.0)])),
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
        let long = "x".repeat(MAX_METADATA_BYTES);
        let cases = [
            (with("f", value(Kind::NullValue(0))), "item.metadata.f", Reason::Malformed),
            (with("f", WireValue { kind: None }), "item.metadata.f", Reason::Malformed),
            (
                with("f", value(Kind::StructValue(Struct::default()))),
                "item.metadata.f",
                Reason::Malformed,
            ),
            (with("f", object(&[("lat", number(1.0))])), "item.metadata.f", Reason::Malformed),
            (
                with("f", object(&[("lat", number(1.0)), ("lon", string("x"))])),
                "item.metadata.f",
                Reason::Malformed,
            ),
            (
                with(
                    "f",
                    object(&[("lat", number(1.0)), ("lon", number(1.0)), ("x", string("x"))]),
                ),
                "item.metadata.f",
                Reason::Malformed,
            ),
            (with("f", place(90.5, 0.0)), "item.metadata.f", Reason::OutOfRange),
            (with("f", place(0.0, -180.5)), "item.metadata.f", Reason::OutOfRange),
            (with("f", place(0.0, f64::NAN)), "item.metadata.f", Reason::NotFinite),
            (
                with("f", list(vec![place(0.0, 0.0), string("x")])),
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
        let along = |values: &[f32], fingerprint: &str| {
            let model_fingerprint = fingerprint.to_owned();
            let vector = v1::VectorQuery { values: values.to_vec(), model_fingerprint };
            Some(v1::NewItem { id: "a".to_owned(), vector: Some(vector), ..new() })
        };
        let unnamed =
            |item: Option<v1::NewItem>| item.map(|item| v1::NewItem { id: String::new(), ..item });
        let with_image = |item: Option<v1::NewItem>| {
            item.map(|item| v1::NewItem { image: bytes::Bytes::from_static(b"x"), ..item })
        };
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
            (with_image(along(&[1.0], "")), "item.vector", Reason::Malformed),
            (unnamed(along(&[1.0], "")), "item.id", Reason::Missing),
            (along(&[], ""), "item.vector.values", Reason::Empty),
            (along(&[1.0, f32::NAN], ""), "item.vector.values", Reason::NotFinite),
            (along(&[0.0], ""), "item.vector.values", Reason::OutOfRange),
            (along(&[1.0], "abc"), "item.vector.model_fingerprint", Reason::Malformed),
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

    fn metadata(fields: &[(&str, f64)]) -> Metadata {
        let value = |number| Value::One(Scalar::Number(number));
        fields.iter().map(|(name, number)| ((*name).to_owned(), value(*number))).collect()
    }

    fn change(item: v1::Item, paths: &[&str]) -> Result<Change, FieldViolation> {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        read_change(item, Some(FieldMask { paths }))
    }

    fn known() -> v1::Item {
        v1::Item {
            uri: "u".to_owned(),
            metadata: Some(with("a", number(1.0))),
            ..v1::Item::default()
        }
    }

    #[test]
    fn without_a_mask_what_is_set_is_changed() {
        let set = metadata(&[("a", 1.0)]);
        let merge = MetadataChange::Merge { set, remove: Vec::new() };
        let expected = Change { uri: Some("u".to_owned()), filename: None, metadata: merge };
        assert_eq!(read_change(known(), None), Ok(expected.clone()), "no mask");
        assert_eq!(change(known(), &[]), Ok(expected), "an empty mask");
    }

    #[test]
    fn a_mask_says_what_is_changed() {
        let merge = |set: &[(&str, f64)], remove: &[&str]| {
            let remove = remove.iter().map(|name| (*name).to_owned()).collect();
            MetadataChange::Merge { set: metadata(set), remove }
        };
        let nothing = || Change::default();
        let filename = Some(String::new());
        let cases: [(&[&str], Change); 6] = [
            (&["filename"], Change { filename, ..nothing() }),
            (&["uri"], Change { uri: Some("u".to_owned()), ..nothing() }),
            (&["metadata.a"], Change { metadata: merge(&[("a", 1.0)], &[]), ..nothing() }),
            (
                &["metadata.a", "metadata.b", "metadata.a"],
                Change { metadata: merge(&[("a", 1.0)], &["b"]), ..nothing() },
            ),
            (
                &["metadata"],
                Change { metadata: MetadataChange::Replace(metadata(&[("a", 1.0)])), ..nothing() },
            ),
            (
                &["metadata.b", "metadata"],
                Change { metadata: MetadataChange::Replace(metadata(&[("a", 1.0)])), ..nothing() },
            ),
        ];
        for (paths, expected) in cases {
            assert_eq!(change(known(), paths), Ok(expected), "{paths:?}");
        }
        for bad in ["", "id", "etag", "width", "metadata.", "metadata.a.b", "*"] {
            let violation = change(known(), &["uri", bad]).expect_err("refused");
            assert_eq!(violation.field, "update_mask.paths[1]", "{bad}");
            assert_eq!(violation.reason, Reason::Malformed, "{bad}");
        }
        let long = v1::Item { uri: "x".repeat(2049), ..known() };
        assert_eq!(change(long, &["uri"]).expect_err("refused").field, "item.uri", "its length");
    }

    #[test]
    fn metadata_is_measured_as_a_whole() {
        let number = |i: usize| (format!("f{i}"), Value::One(Scalar::Number(0.0)));
        let most: Metadata = (0..MAX_FIELDS).map(number).collect();
        assert_eq!(check_metadata(&most), Ok(()), "as many as allowed");
        let many: Metadata = (0..=MAX_FIELDS).map(number).collect();
        let violation = check_metadata(&many).expect_err("refused");
        assert_eq!(
            (violation.field.as_str(), violation.reason),
            ("item.metadata", Reason::TooMany)
        );
    }

    #[test]
    fn refuses_lists_of_ids_by_their_place() {
        let ids = |count: usize| vec!["a".to_owned(); count];
        let refusal = |violation: FieldViolation| (violation.field, violation.reason);
        let check = |ids, hashes: &[&str]| {
            let hashes = hashes.iter().map(|hash| (*hash).to_owned()).collect();
            read_check(ids, hashes).map_err(refusal)
        };
        let hash = "ab".repeat(32);
        assert!(check(ids(999), &[&hash]).is_ok(), "1000 in all");
        let many = Err(("ids".to_owned(), Reason::TooMany));
        assert_eq!(check(ids(1_000), &[&hash]).map(drop), many, "1001 in all");
        let bad = Err(("content_hashes[1]".to_owned(), Reason::Malformed));
        assert_eq!(check(vec![], &[&hash, "ab"]).map(drop), bad, "no hash");
        let bad = Err(("ids[1]".to_owned(), Reason::Empty));
        assert_eq!(check(vec!["a".to_owned(), String::new()], &[]).map(drop), bad, "no id");

        let which = |which| read_which(which).map(drop).map_err(refusal);
        let those = |ids| which(Some(WireWhich::Ids(v1::ItemIds { ids })));
        assert_eq!(which(None), Err(("which".to_owned(), Reason::Missing)), "neither");
        assert_eq!(those(ids(0)), Err(("ids.ids".to_owned(), Reason::Empty)), "none");
        assert_eq!(those(ids(1_000)), Ok(()), "the most");
        assert_eq!(those(ids(1_001)), Err(("ids.ids".to_owned(), Reason::TooMany)), "too many");
        let bad = vec!["a".to_owned(), "\n".to_owned()];
        assert_eq!(those(bad), Err(("ids.ids[1]".to_owned(), Reason::Malformed)), "no id");
    }

    #[test]
    fn everything_is_deleted_by_nobody_who_forgot_the_filter() {
        let nested = |filter| v1::Condition {
            test: Some(v1::condition::Test::Filter(filter)),
            ..v1::Condition::default()
        };
        let empty = v1::Filter::default;
        let exists = v1::condition::Test::Exists(true);
        let real = v1::Condition { key: "metadata.old".to_owned(), test: Some(exists) };
        let cases = [
            (empty(), "filter"),
            (v1::Filter { must: vec![nested(empty())], ..empty() }, "filter.must[0].filter"),
            (
                v1::Filter { should: vec![real.clone(), nested(empty())], ..empty() },
                "filter.should[1].filter",
            ),
        ];
        for (filter, field) in cases {
            let violation = read_which(Some(WireWhich::Filter(filter))).expect_err("refused");
            let refusal = (violation.field.as_str(), violation.reason);
            assert_eq!(refusal, (field, Reason::Empty), "no condition");
        }
        let filter = v1::Filter { must: vec![real], ..empty() };
        assert!(read_which(Some(WireWhich::Filter(filter))).is_ok(), "a condition");
    }

    #[test]
    fn a_sample_has_a_size() {
        assert_eq!(read_sample_size(None), Ok(1), "the default");
        assert_eq!(read_sample_size(Some(256)), Ok(256), "the most");
        for bad in [0, 257] {
            let violation = read_sample_size(Some(bad)).expect_err("refused");
            let refusal = (violation.field.as_str(), violation.reason);
            assert_eq!(refusal, ("size", Reason::OutOfRange), "{bad}");
        }
    }
}
