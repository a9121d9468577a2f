//! What we write down of a collection, in the metadata that Qdrant keeps with it. A collection
//! without is none of ours.
//!
//! Which fields are indexed is not in it: Qdrant tells, so an index that took longer than its
//! caller waited, or that an operator made, is known as well.

use std::collections::HashMap;
use std::time::Duration;

use clipmesh_proto::ids::{CollectionName, Fingerprint};
use jiff::Timestamp;
use qdrant_client::qdrant::{CollectionInfo, PayloadSchemaInfo, PayloadSchemaType, Value};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use uuid::Uuid;

use crate::filter::Field;
use crate::item;
use crate::store::index::{FieldIndex, Indexes, Kind, VectorIndex};
use crate::store::payload::{TIMES, WORDS};
use crate::store::{Collection, Distance, Error, NewCollection};

/// Where it is in the metadata.
const KEY: &str = "clipmesh";
/// Raised when the record's fields change their meaning.
const VERSION: u32 = 1;
/// Digits of the fingerprint in the name of a collection's vectors.
const VECTOR_NAME_DIGITS: usize = 16;
/// What is known of a collection beside its points and its indexes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    version: u32,
    /// Whether all its indexes were made. Until then it is not there for anybody.
    ready: bool,
    name: String,
    uid: String,
    fingerprint: String,
    model_name: String,
    dimension: usize,
    distance: Distance,
    vector_index: VectorIndex,
    word_fields: Vec<Field>,
    /// In the notation of RFC 3339.
    create_time: String,
}

/// What the vectors of a model are called in a collection. A process that still believes in a
/// collection that was removed and made anew for another model asks for vectors that are not
/// there, and is refused.
pub(super) fn vector_name(fingerprint: &Fingerprint) -> String {
    fingerprint.as_str().chars().take(VECTOR_NAME_DIGITS).collect()
}

// === impl Record ===

impl Record {
    /// Of a collection that is about to be made.
    pub(super) fn new(new: &NewCollection) -> Self {
        Self {
            version: VERSION,
            ready: false,
            name: new.name.to_string(),
            uid: Uuid::new_v4().simple().to_string(),
            fingerprint: new.fingerprint.to_string(),
            model_name: new.model_name.clone(),
            dimension: new.dimension,
            distance: new.distance,
            vector_index: new.vector_index,
            word_fields: new.word_fields.clone(),
            create_time: item::now().to_string(),
        }
    }

    /// The same of a collection that can be used.
    pub(super) fn ready(self) -> Self {
        Self { ready: true, ..self }
    }

    /// The same with other settings of the graph.
    pub(super) fn with_vector_index(self, vector_index: VectorIndex) -> Self {
        Self { vector_index, ..self }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready
    }

    /// The name that the collection was made under. It may be asked for by an alias.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it was begun so long ago that nobody goes on making it, who takes `longest`.
    pub(super) fn is_abandoned(&self, longest: Duration) -> bool {
        let age = self.create_time.parse().map(|begun| item::now().duration_since(begun));
        !self.ready && age.is_ok_and(|age| age.unsigned_abs() > longest)
    }

    /// Reads the record of a collection; `None` if it is none of ours.
    ///
    /// # Errors
    /// A record of another version, or one that was edited by hand.
    pub(super) fn read(info: &CollectionInfo) -> Result<Option<Self>, Error> {
        let metadata = info.config.as_ref().map(|config| &config.metadata);
        let Some(value) = metadata.and_then(|metadata| metadata.get(KEY)) else {
            return Ok(None);
        };
        let record: Self = serde_json::from_value(Json::from(value.clone()))
            .map_err(|error| Error::Failed(format!("read the record of a collection: {error}")))?;
        if record.version == VERSION { Ok(Some(record)) } else { Err(record.unusable("version")) }
    }

    pub(super) fn write(&self) -> Result<HashMap<String, Value>, Error> {
        let value = serde_json::to_value(self)
            .map_err(|error| Error::Failed(format!("write down a collection: {error}")))?;
        Ok(HashMap::from([(KEY.to_owned(), value.into())]))
    }

    /// The collection with the indexes that the server knows of.
    ///
    /// # Errors
    /// What is wrong with a record that was edited by hand.
    pub(super) fn collection(&self, info: &CollectionInfo) -> Result<Collection, Error> {
        let create_time = self.create_time.parse::<Timestamp>();
        let indexes = info.payload_schema.iter();
        Ok(Collection {
            name: CollectionName::try_from(self.name.clone()).map_err(|_| self.unusable("name"))?,
            uid: self.uid.clone(),
            fingerprint: Fingerprint::try_from(self.fingerprint.clone())
                .map_err(|_| self.unusable("fingerprint"))?,
            model_name: self.model_name.clone(),
            dimension: self.dimension,
            distance: self.distance,
            indexes: Indexes::new(indexes.filter_map(|(path, schema)| index(path, schema))),
            vector_index: self.vector_index,
            word_fields: self.word_fields.clone(),
            create_time: create_time.map_err(|_| self.unusable("create_time"))?,
            generation: None,
        })
    }

    fn unusable(&self, key: &str) -> Error {
        Error::Failed(format!("the record of `{}` has no usable `{key}`", self.name))
    }
}

/// The index that one of the server's is, unless every collection has it or it is none of ours.
fn index(path: &str, schema: &PayloadSchemaInfo) -> Option<FieldIndex> {
    let under = |parent: &str| path.strip_prefix(parent)?.strip_prefix('.');
    let (key, kind) = match (schema.data_type(), under(TIMES), under(WORDS)) {
        (PayloadSchemaType::Integer, Some(key), _) => (key, Kind::Time),
        (PayloadSchemaType::Keyword, _, Some(key)) => (key, Kind::Words),
        (PayloadSchemaType::Keyword, ..) => (path, Kind::Keyword),
        (PayloadSchemaType::Integer, ..) => (path, Kind::Integer),
        (PayloadSchemaType::Float, ..) => (path, Kind::Float),
        (PayloadSchemaType::Bool, ..) => (path, Kind::Boolean),
        (PayloadSchemaType::Geo, ..) => (path, Kind::Geo),
        (
            PayloadSchemaType::UnknownType
            | PayloadSchemaType::Text
            | PayloadSchemaType::Datetime
            | PayloadSchemaType::Uuid,
            ..,
        ) => return None,
    };
    let field = Field::of_key(key).filter(|field| Indexes::built_in(field).is_none())?;
    Some(FieldIndex { field, kind })
}

#[cfg(test)]
mod tests {
    use qdrant_client::qdrant::CollectionConfig;

    use super::*;
    use crate::store::contract::new_collection;
    use crate::store::lower::{self, Schema};

    fn info(metadata: HashMap<String, Value>) -> CollectionInfo {
        let config = CollectionConfig { metadata, ..CollectionConfig::default() };
        CollectionInfo { config: Some(config), ..CollectionInfo::default() }
    }

    #[test]
    fn a_record_comes_back_as_it_was_written() {
        let record = Record::new(&new_collection("c"));
        let info = info(record.write().expect("written"));
        assert_eq!(Record::read(&info), Ok(Some(record.clone())), "by way of the metadata");
        let collection = record.collection(&info).expect("usable");
        assert_eq!(collection.model_name, "tiny", "it describes the collection");
        assert_eq!(collection.generation, None, "others write there, too");
    }

    #[test]
    fn a_collection_without_a_record_is_none_of_ours() {
        assert_eq!(Record::read(&CollectionInfo::default()), Ok(None), "no config");
        let other = HashMap::from([("owner".to_owned(), Value::from("somebody"))]);
        assert_eq!(Record::read(&info(other)), Ok(None), "somebody else's metadata");
    }

    #[test]
    fn a_record_of_another_version_is_refused() {
        let record = Record { version: VERSION + 1, ..Record::new(&new_collection("c")) };
        let read = Record::read(&info(record.write().expect("written")));
        let Err(Error::Failed(text)) = read else {
            panic!("refused: {read:?}");
        };
        assert!(text.contains("`version`"), "the field is named: {text}");
    }

    #[test]
    fn only_what_was_begun_long_ago_and_is_not_ready_is_abandoned() {
        let young = Record::new(&new_collection("c"));
        let longest = Duration::from_secs(3600);
        assert!(!young.is_abandoned(longest), "somebody is making it");
        let old = Record { create_time: "2020-01-01T00:00:00Z".to_owned(), ..young };
        assert!(old.is_abandoned(longest), "nobody takes that long");
        assert!(!old.ready().is_abandoned(longest), "it is done");
    }

    #[test]
    fn every_index_is_known_again_by_where_the_server_has_it() {
        let kinds = [
            Kind::Keyword,
            Kind::Integer,
            Kind::Float,
            Kind::Boolean,
            Kind::Time,
            Kind::Words,
            Kind::Geo,
        ];
        for kind in kinds {
            let wanted = FieldIndex { field: Field::Metadata("f".to_owned()), kind };
            let (path, schema) = lower::index(&wanted);
            let data_type = match schema {
                Schema::Keyword => PayloadSchemaType::Keyword,
                Schema::Integer => PayloadSchemaType::Integer,
                Schema::Float => PayloadSchemaType::Float,
                Schema::Boolean => PayloadSchemaType::Bool,
                Schema::Geo => PayloadSchemaType::Geo,
            };
            let schema =
                PayloadSchemaInfo { data_type: data_type.into(), params: None, points: None };
            assert_eq!(index(&path, &schema), Some(wanted), "{kind:?} at `{path}`");
        }
        let keyword = PayloadSchemaType::Keyword.into();
        let schema = PayloadSchemaInfo { data_type: keyword, params: None, points: None };
        assert_eq!(index("uri", &schema), None, "every collection has it");
        assert_eq!(index("somebody.else", &schema), None, "none of ours");
    }
}
