//! What is known of a picture, in our own types.

use std::collections::BTreeMap;

use clipmesh_proto::ids::{ContentHash, ItemId};
use jiff::Timestamp;
use serde::Serialize;

/// A picture in a collection, without its vector.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    pub id: ItemId,
    /// Where it comes from, as the caller said; empty counts as absent.
    pub uri: String,
    /// Its file name, as the caller said; empty counts as absent.
    pub filename: String,
    /// Width in pixels, after orientation.
    pub width: u32,
    /// Height in pixels, after orientation.
    pub height: u32,
    /// `jpeg`, `png` and so on, as the embedder found it in the bytes.
    pub format: String,
    /// Length of the file.
    pub byte_size: u64,
    /// Hash of the file's bytes.
    pub content_hash: ContentHash,
    /// When an item of this id was first stored, in whole microseconds.
    pub create_time: Timestamp,
    /// When it was last changed, in whole microseconds.
    pub update_time: Timestamp,
    /// The caller's own fields.
    pub metadata: Metadata,
}

/// The caller's own fields by name.
pub type Metadata = BTreeMap<String, Value>;

/// What one field holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Value {
    One(Scalar),
    /// Elements of one type; may be empty, which counts as absent in filters.
    Many(Vec<Scalar>),
}

/// A single value. Numbers are finite.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Scalar {
    String(String),
    Number(f64),
    Bool(bool),
}

// === impl Value ===

impl Value {
    /// The elements of a list, or the value alone.
    pub fn elements(&self) -> &[Scalar] {
        match self {
            Self::One(scalar) => std::slice::from_ref(scalar),
            Self::Many(scalars) => scalars,
        }
    }

    /// The same value or list, each element passed through `change`.
    pub(crate) fn map<T>(&self, change: impl Fn(&Scalar) -> T) -> Shape<T> {
        match self {
            Self::One(scalar) => Shape::One(change(scalar)),
            Self::Many(scalars) => Shape::Many(scalars.iter().map(change).collect()),
        }
    }
}

/// One thing or a list of things, as the value it was made from.
pub(crate) enum Shape<T> {
    One(T),
    Many(Vec<T>),
}

// === impl Scalar ===

impl Scalar {
    pub(crate) fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            Self::Number(_) | Self::Bool(_) => None,
        }
    }

    /// What the type is called in messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::String(_) => "string",
            Self::Number(_) => "number",
            Self::Bool(_) => "boolean",
        }
    }
}

/// The present, as precisely as every store keeps it.
pub(crate) fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}
