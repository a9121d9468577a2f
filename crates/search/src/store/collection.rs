//! Collections, as stores describe them.

use clipmesh_proto::ids::{CollectionName, Fingerprint};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Error;
use super::index::{FieldIndex, Indexes, Quantization, VectorIndex};
use crate::filter::Field;
use crate::item::{Item, Scalar};
use crate::words::Weights;

/// Indexes that a collection may have beside those that every one has: each is kept up to date by
/// every write.
pub const MAX_INDEXES: usize = 32;

/// A collection to be made.
#[derive(Clone, Debug)]
pub struct NewCollection {
    pub name: CollectionName,
    /// The model whose vectors it will hold.
    pub fingerprint: Fingerprint,
    /// What that model is called.
    pub model_name: String,
    /// Length of every vector.
    pub dimension: usize,
    pub distance: Distance,
    pub indexes: Indexes,
    pub vector_index: VectorIndex,
    /// Fields whose strings [`Target::Words`] looks in.
    pub word_fields: Vec<Field>,
}

/// A collection as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Collection {
    pub name: CollectionName,
    /// Differs between two collections that had one name at different times.
    pub uid: String,
    pub fingerprint: Fingerprint,
    pub model_name: String,
    pub dimension: usize,
    pub distance: Distance,
    pub indexes: Indexes,
    pub vector_index: VectorIndex,
    pub word_fields: Vec<Field>,
    pub create_time: Timestamp,
    /// Rises with every write, before the write is answered; never falls, not even by a restart.
    /// What was computed at one generation is valid for that generation only. `None` for a store
    /// that others write to as well: then it has to be counted where all of them see it.
    pub generation: Option<u64>,
}

/// How vectors are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Distance {
    Cosine,
}

/// What to change of how a collection is searched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VectorIndexChange {
    pub links: Option<usize>,
    pub build_effort: Option<usize>,
    pub quantization: Option<Quantization>,
}

/// What a store knows of a collection's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Points that searches compare one by one.
    pub unindexed: u64,
    pub state: IndexState,
    /// `None` where a server does not tell.
    pub disk_bytes: Option<u64>,
}

/// How a graph does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexState {
    Ready,
    Building,
    Failed,
}

// === impl VectorIndexChange ===

impl VectorIndexChange {
    /// How a collection is searched after the change.
    pub fn of(self, index: VectorIndex) -> VectorIndex {
        VectorIndex {
            links: self.links.unwrap_or(index.links),
            build_effort: self.build_effort.unwrap_or(index.build_effort),
            quantization: self.quantization.unwrap_or(index.quantization),
        }
    }
}

// === impl Collection ===

impl Collection {
    /// Whether an index is to be made: not if it is there.
    ///
    /// # Errors
    /// [`Error::TooManyIndexes`] for one more than a collection may have.
    pub(super) fn lacks_index(&self, index: &FieldIndex) -> Result<bool, Error> {
        let before = self.indexes.kind(&index.field);
        if before.is_none() && self.indexes.chosen().count() >= MAX_INDEXES {
            return Err(Error::TooManyIndexes);
        }
        Ok(before != Some(index.kind))
    }

    /// What of an item [`Target::Words`] looks in.
    pub(super) fn words_of(&self, item: &Item) -> Weights {
        let values: Vec<_> = self.word_fields.iter().filter_map(|field| field.of(item)).collect();
        let texts = values.iter().flat_map(|value| value.elements()).filter_map(Scalar::as_str);
        Weights::of_item(texts)
    }
}
