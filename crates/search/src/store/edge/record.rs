//! What is known of a collection beside its points, as it is written down.

use std::io;
use std::path::Path;

use clipmesh_proto::ids::{CollectionName, Fingerprint};
use serde::{Deserialize, Serialize};

use crate::filter::Field;
use crate::store::index::{Indexes, VectorIndex};
use crate::store::{Collection, Distance, Error};

/// Raised when the record's fields, or what items are stored as, change their meaning.
const VERSION: u32 = 2;
/// The first one: without what is marked as a default, and with items that only some of today's
/// filters find.
const FIRST_VERSION: u32 = 1;
/// Room for the writes between two openings.
const GENERATIONS_PER_OPENING: u64 = 1 << 32;

/// What is known of a collection beside its points.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    version: u32,
    pub(super) name: String,
    uid: String,
    fingerprint: String,
    model_name: String,
    dimension: usize,
    distance: Distance,
    /// In the notation of RFC 3339.
    create_time: String,
    /// How often it was opened; the upper half of its generations.
    openings: u64,
    #[serde(default)]
    indexes: Indexes,
    #[serde(default)]
    vector_index: VectorIndex,
    #[serde(default)]
    word_fields: Vec<Field>,
}

// === impl Record ===

impl Record {
    /// Of a collection that was never opened before.
    pub(super) fn new(collection: &Collection) -> Self {
        Self {
            version: VERSION,
            name: collection.name.to_string(),
            uid: collection.uid.clone(),
            fingerprint: collection.fingerprint.to_string(),
            model_name: collection.model_name.clone(),
            dimension: collection.dimension,
            distance: collection.distance,
            create_time: collection.create_time.to_string(),
            openings: 0,
            indexes: collection.indexes.clone(),
            vector_index: collection.vector_index,
            word_fields: collection.word_fields.clone(),
        }
    }

    /// Reads one.
    ///
    /// # Errors
    /// The file and what is wrong with it.
    pub(super) fn parse(path: &Path, json: &[u8]) -> io::Result<Self> {
        let refuse = |why: String| {
            let message = format!("`{}` can't be used: {why}", path.display());
            io::Error::new(io::ErrorKind::InvalidData, message)
        };
        let record: Self =
            serde_json::from_slice(json).map_err(|error| refuse(error.to_string()))?;
        if !(FIRST_VERSION..=VERSION).contains(&record.version) {
            return Err(refuse(format!("it is of version {}", record.version)));
        }
        Ok(record)
    }

    /// The record after one more opening, whose generations lie above all earlier ones.
    pub(super) fn opened(self) -> Self {
        Self { openings: self.openings + 1, ..self }
    }

    /// Whether items have to be written anew to be found by everything that can be asked.
    pub(super) fn is_outdated(&self) -> bool {
        self.version < VERSION
    }

    /// The record once they are.
    pub(super) fn updated(self) -> Self {
        Self { version: VERSION, ..self }
    }

    /// The record after a change of what can be changed.
    pub(super) fn changed(&self, collection: &Collection) -> Self {
        Self {
            indexes: collection.indexes.clone(),
            vector_index: collection.vector_index,
            ..self.clone()
        }
    }

    /// # Errors
    /// What is wrong with a record that was edited by hand.
    pub(super) fn collection(&self) -> Result<Collection, Error> {
        let create_time = self.create_time.parse();
        Ok(Collection {
            name: CollectionName::try_from(self.name.clone()).map_err(|_| self.unusable("name"))?,
            uid: self.uid.clone(),
            fingerprint: Fingerprint::try_from(self.fingerprint.clone())
                .map_err(|_| self.unusable("fingerprint"))?,
            model_name: self.model_name.clone(),
            dimension: self.dimension,
            distance: self.distance,
            indexes: self.indexes.clone(),
            vector_index: self.vector_index,
            word_fields: self.word_fields.clone(),
            create_time: create_time.map_err(|_| self.unusable("create_time"))?,
            generation: Some(self.openings * GENERATIONS_PER_OPENING),
        })
    }

    fn unusable(&self, key: &str) -> Error {
        Error::Failed(format!("the record of `{}` has no usable `{key}`", self.name))
    }
}
