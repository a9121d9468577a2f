//! What tests have to know of the engine, and to do to it behind the store's back.

use qdrant_edge::{
    Condition, DeletePayloadOp, FieldIndexOperations, Filter as EngineFilter, HasIdCondition,
    PayloadOps, PointId, UpdateOperation,
};

use super::super::filter;
use super::Shard;
use crate::filter::{Field, Filter};
use crate::store::lower::{path, point_id};
use crate::store::{Error, Page};

// === impl Shard ===

impl Shard {
    pub(in super::super) fn has_in_engine(&self, field: &Field) -> Result<bool, Error> {
        let path = filter::path(&path(field))?;
        Ok(self.engine.run(|shard| shard.info())?.payload_schema.contains_key(&path))
    }

    pub(in super::super) fn remove_from_engine(&self, field: &Field) -> Result<(), Error> {
        let delete = FieldIndexOperations::DeleteIndex(filter::path(&path(field))?);
        self.engine.update(UpdateOperation::FieldIndexOperation(delete))
    }

    /// Takes keys out of all payloads.
    pub(in super::super) fn forget_in_engine(&self, keys: &[&str]) -> Result<(), Error> {
        let page = Page { filter: Filter::default(), after: None, limit: 100, vectors: false };
        let records = self.scroll(&page)?;
        let points = records.iter().map(|record| PointId::Uuid(point_id(record.item.id.as_str())));
        let delete = DeletePayloadOp {
            keys: keys.iter().map(|key| filter::path(key)).collect::<Result<_, _>>()?,
            points: None,
            filter: Some(EngineFilter::new_must(Condition::HasId(HasIdCondition::from_iter(
                points,
            )))),
        };
        let delete = UpdateOperation::PayloadOperation(PayloadOps::DeletePayload(delete));
        self.engine.update(delete)
    }

    /// Links, effort of building, and whether vectors have short forms.
    pub(in super::super) fn graph_in_engine(&self) -> Result<(usize, usize, bool), Error> {
        self.engine.run(|shard| {
            let vectors = shard.config().vectors[""].clone();
            let graph = vectors.hnsw_config.unwrap_or_default();
            Ok((graph.m, graph.ef_construct, vectors.quantization_config.is_some()))
        })
    }

    /// Parts that points are in, with a graph each or without.
    pub(in super::super) fn segments(&self) -> Result<usize, Error> {
        Ok(self.engine.run(|shard| shard.info())?.segments_count)
    }

    /// Vectors that are in a graph.
    pub(in super::super) fn indexed(&self) -> Result<usize, Error> {
        Ok(self.engine.run(|shard| shard.info())?.indexed_vectors_count)
    }
}
