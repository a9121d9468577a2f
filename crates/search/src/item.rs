//! What is known of a picture, in our own types.

use std::collections::BTreeMap;

use clipmesh_proto::ids::{ContentHash, ItemId, PerceptualHash, PixelHash};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Bits of a [`lot`]: what a float holds exactly.
pub(crate) const LOT_BITS: u32 = 53;

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
    /// Hash of the file's bytes. `None` for an item of a ready vector, whose other facts are zero
    /// and empty.
    pub content_hash: Option<ContentHash>,
    /// Hash of what the picture shows, as the embedder defines it.
    pub pixel_hash: Option<PixelHash>,
    /// 64 bits of which pictures that look alike have most in common.
    pub perceptual_hash: Option<PerceptualHash>,
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
    Place(Place),
}

/// A point on the earth.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// Degrees north: -90 to 90.
    pub lat: f64,
    /// Degrees east: -180 to 180.
    pub lon: f64,
}

/// What an item is known by until it is changed. Only good for being compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Etag(String);

// === impl Item ===

impl Item {
    /// Differs between any two states of an item, be it only by the time of the change.
    pub fn etag(&self) -> Etag {
        let mut hasher = blake3::Hasher::new();
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        for text in [self.id.as_str(), &self.uri, &self.filename, &self.format] {
            part(text.as_bytes());
        }
        part(self.content_hash.as_ref().map_or(&[][..], |hash| hash.as_bytes()));
        part(&self.update_time.as_microsecond().to_le_bytes());
        // Written without fail: all keys are strings and all numbers finite.
        part(&serde_json::to_vec(&self.metadata).unwrap_or_default());
        Etag(hasher.finalize().to_hex()[..16].to_owned())
    }
}

// === impl Etag ===

impl Etag {
    /// One that a caller got from an earlier answer. Any other text is the etag of no item.
    pub fn of_caller(text: String) -> Self {
        Self(text)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
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
            Self::Number(_) | Self::Bool(_) | Self::Place(_) => None,
        }
    }

    /// What the type is called in messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::String(_) => "string",
            Self::Number(_) => "number",
            Self::Bool(_) => "boolean",
            Self::Place(_) => "place",
        }
    }
}

/// The time that a text tells in the form of RFC 3339, in microseconds since 1970. Every store uses
/// this one function, so that all agree on which texts are times.
pub(crate) fn microseconds(text: &str) -> Option<i64> {
    text.parse::<Timestamp>().ok().map(Timestamp::as_microsecond)
}

/// A number that is drawn for an item once and for all by its id: below 2^53, and evenly spread.
/// Items in order of it are in random order.
pub(crate) fn lot(id: &ItemId) -> u64 {
    let hash = blake3::hash(id.as_str().as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_bytes()[..8]);
    u64::from_le_bytes(first) >> (u64::BITS - LOT_BITS)
}

/// The present, as precisely as every store keeps it.
pub(crate) fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}
