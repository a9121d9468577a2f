//! From protobuf to our own types and back. What comes in is checked here once, so that nothing
//! behind it has to; each refusal names its field as the caller knows it.

pub(crate) mod classify;
pub(crate) mod collection;
pub(crate) mod duplicates;
pub(crate) mod filter;
pub(crate) mod item;
pub(crate) mod page;
pub(crate) mod query;
pub(crate) mod search;
mod value;

use clipmesh_proto::code::{FieldViolation, Reason};
use clipmesh_proto::ids::{self, CollectionName, Fingerprint, ItemId};
use clipmesh_proto::search::v1;
use clipmesh_proto::{Embedding, embedding};
use jiff::Timestamp;

use crate::filter::Field;
use crate::item::Etag;

/// How much of a text that is no name is repeated to its sender.
const MAX_QUOTED_CHARS: usize = 80;

/// The name of a collection, from the field `field`.
pub(crate) fn collection_name(field: &str, name: String) -> Result<CollectionName, FieldViolation> {
    CollectionName::try_from(name).map_err(|error| bad_id(field, error))
}

/// The id of an item, from the field `field`.
pub(crate) fn item_id(field: &str, id: String) -> Result<ItemId, FieldViolation> {
    ItemId::try_from(id).map_err(|error| bad_id(field, error))
}

/// The fingerprint of a model, from the field `field`.
pub(crate) fn fingerprint(field: &str, text: String) -> Result<Fingerprint, FieldViolation> {
    Fingerprint::try_from(text).map_err(|error| bad_id(field, error))
}

/// A field of items that can be asked for, named in the field `path`.
pub(crate) fn field(path: &str, key: &str) -> Result<Field, FieldViolation> {
    if key.is_empty() {
        return Err(FieldViolation::new(path, Reason::Malformed, "must name a field"));
    }
    let is_sound = |field: &Field| {
        if let Field::Metadata(name) = field { item::is_metadata_name(name) } else { true }
    };
    Field::of_key(key).filter(is_sound).ok_or_else(|| {
        let key: String = key.chars().take(MAX_QUOTED_CHARS).collect();
        let message = format!("`{key}` is neither `metadata.NAME` nor a field of an item");
        FieldViolation::new(path, Reason::Malformed, message)
    })
}

/// What the item must be known by, if that was told.
pub(crate) fn etag(text: String) -> Option<Etag> {
    Some(text).filter(|text| !text.is_empty()).map(Etag::of_caller)
}

/// A vector from the field `path`, and the model that made it, if that was told.
pub(crate) fn vector(
    path: &str,
    vector: v1::VectorQuery,
) -> Result<(Embedding, Option<Fingerprint>), FieldViolation> {
    let made_by = match vector.model_fingerprint {
        text if text.is_empty() => None,
        text => Some(fingerprint(&format!("{path}.model_fingerprint"), text)?),
    };
    let values = Embedding::new(vector.values).map_err(|error| {
        let reason = match error {
            embedding::Error::Empty => Reason::Empty,
            embedding::Error::NotFinite { .. } => Reason::NotFinite,
            embedding::Error::Zero => Reason::OutOfRange,
        };
        FieldViolation::new(format!("{path}.values"), reason, error.to_string())
    })?;
    Ok((values, made_by))
}

fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    // Before 1970 the nanoseconds of the one count down, of the other up; no item is that old.
    prost_types::Timestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() }
}

fn bad_id(field: &str, error: ids::Error) -> FieldViolation {
    let reason = match error {
        ids::Error::Empty => Reason::Empty,
        ids::Error::TooLong { .. } => Reason::TextTooLong,
        ids::Error::ControlCharacter | ids::Error::CollectionName | ids::Error::Hash => {
            Reason::Malformed
        }
    };
    FieldViolation::new(field, reason, error.to_string())
}
