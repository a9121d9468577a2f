//! Changes of what a collection is: its indexes and its graph.
//!
//! The record is written first and says what is wanted; a start after a crash makes the engine
//! agree with it ([`Shard::make_indexes`], and the engine's configuration is made of it anyway).

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use qdrant_edge::{
    Condition, CountRequestBuilder, CreateIndex, FieldIndexOperations, Filter as EngineFilter,
    HasVectorCondition, UpdateOperation,
};

use super::super::engine::{WORDS_VECTOR, index, type_of};
use super::super::record::Record;
use super::super::{failed, filter};
use super::Shard;
use crate::filter::Field;
use crate::store::index::FieldIndex;
use crate::store::lower::{self, Schema};
use crate::store::{Collection, Error, Status, VectorIndexChange};

// === impl Shard ===

impl Shard {
    pub(in super::super) fn create_index(&self, index: FieldIndex) -> Result<Collection, Error> {
        let mut record = self.change()?;
        let mut wanted = (*self.collection()).clone();
        if !wanted.lacks_index(&index)? {
            return Ok(self.describe());
        }
        wanted.indexes.insert(index);
        self.record_change(&mut record, &wanted)?;
        self.agree_with(&wanted)?;
        self.publish(wanted);
        Ok(self.describe())
    }

    pub(in super::super) fn remove_index(&self, field: &Field) -> Result<Collection, Error> {
        let mut record = self.change()?;
        let mut wanted = (*self.collection()).clone();
        if !wanted.indexes.remove(field) {
            return Err(Error::NotIndexed(field.key()));
        }
        self.record_change(&mut record, &wanted)?;
        // First, so that nobody counts on an index that is going.
        self.publish(wanted.clone());
        self.agree_with(&wanted)?;
        Ok(self.describe())
    }

    pub(in super::super) fn set_vector_index(
        &self,
        change: VectorIndexChange,
    ) -> Result<Collection, Error> {
        let mut record = self.change()?;
        let before = self.collection();
        let vector_index = change.of(before.vector_index);
        if vector_index == before.vector_index {
            return Ok(self.describe());
        }
        let wanted = Collection { vector_index, ..(*before).clone() };
        self.record_change(&mut record, &wanted)?;
        self.publish(wanted);
        self.progress.graph_changed();
        Ok(self.describe())
    }

    pub(in super::super) fn status(&self) -> Result<Status, Error> {
        let info = self.engine.run(|shard| shard.info())?;
        let mut indexed = info.indexed_vectors_count;
        if !self.collection().word_fields.is_empty() {
            // They are all indexed, and counted along with those that matter here.
            indexed = indexed.saturating_sub(self.count_texts()?);
        }
        let unindexed = info.points_count.saturating_sub(indexed);
        let state = self.progress.state();
        let disk_bytes = self.folder.disk_bytes().map_err(failed)?;
        Ok(Status { unindexed: unindexed as u64, state, disk_bytes: Some(disk_bytes) })
    }

    /// About how many items have words.
    fn count_texts(&self) -> Result<usize, Error> {
        let has_words = HasVectorCondition::from(WORDS_VECTOR.to_owned());
        let filter = EngineFilter::new_must(Condition::HasVector(has_words));
        let request = CountRequestBuilder::new().exact(false).filter(filter).build();
        self.engine.run(|shard| shard.count(request))
    }

    /// Makes the engine's indexes those that the collection has.
    pub(super) fn make_indexes(&self) -> Result<(), Error> {
        let wanted = self.collection();
        self.agree_with(&wanted)
    }

    fn agree_with(&self, wanted: &Collection) -> Result<(), Error> {
        let there = self.engine.run(|shard| shard.info())?.payload_schema;
        let mut missing = BTreeMap::new();
        for (path, schema) in wanted.indexes.all().flat_map(|index| lower::indexes(&index)) {
            missing.insert(filter::path(&path)?.to_string(), schema);
        }
        for (path, info) in there {
            let schema = missing.get(&path.to_string()).copied();
            if schema.map(type_of) == Some(info.data_type) {
                missing.remove(&path.to_string());
            } else {
                self.change_indexes(FieldIndexOperations::DeleteIndex(path))?;
            }
        }
        for (path, schema) in missing {
            self.make_index(&path, schema)?;
        }
        Ok(())
    }

    fn make_index(&self, path: &str, schema: Schema) -> Result<(), Error> {
        let field_name = filter::path(path)?;
        let create = CreateIndex { field_name, field_schema: Some(index(schema)) };
        self.change_indexes(FieldIndexOperations::CreateIndex(create))
    }

    fn change_indexes(&self, operation: FieldIndexOperations) -> Result<(), Error> {
        self.engine.update(UpdateOperation::FieldIndexOperation(operation))
    }

    fn record_change(&self, record: &mut Record, wanted: &Collection) -> Result<(), Error> {
        let changed = record.changed(wanted);
        self.folder.write_record(&changed).map_err(failed)?;
        *record = changed;
        Ok(())
    }

    fn publish(&self, collection: Collection) {
        let collection = Arc::new(collection);
        *self.collection.write().unwrap_or_else(PoisonError::into_inner) = collection;
    }
}
