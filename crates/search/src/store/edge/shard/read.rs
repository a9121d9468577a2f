//! Items by id, by filter and in order.

use clipmesh_proto::Embedding;
use clipmesh_proto::ids::ItemId;
use qdrant_edge::{
    CountRequestBuilder, Direction, Filter as EngineFilter, OrderBy, OrderByInterface, OrderValue,
    PointId, Record as Retrieved, RetrieveRequestBuilder, ScrollRequestBuilder, VectorInternal,
    VectorStructInternal, WithPayloadInterface, WithVector,
};

use super::super::filter;
use super::Shard;
use crate::filter::{Field, Filter};
use crate::store::index::{FieldIndex, Kind};
use crate::store::lower::{self, point_id};
use crate::store::{Error, Ordered, Page, Record, payload};

// === impl Shard ===

impl Shard {
    pub(in super::super) fn get(
        &self,
        ids: Vec<ItemId>,
        vectors: bool,
    ) -> Result<Vec<Record>, Error> {
        let points = ids.iter().map(|id| PointId::Uuid(point_id(id.as_str()))).collect();
        let request = RetrieveRequestBuilder::new(points)
            .with_payload(WithPayloadInterface::Bool(true))
            .with_vector(wanted(vectors))
            .build();
        let found = self.engine.run(|shard| shard.retrieve(request))?;
        let records = found.into_iter().map(|found| record(found, vectors));
        // Another id may have the same hash, though nobody will live to see it.
        let is_asked_for = |record: &Record| ids.contains(&record.item.id);
        records.filter(|record| record.as_ref().map_or(true, is_asked_for)).collect()
    }

    pub(in super::super) fn count(&self, filter: &Filter) -> Result<u64, Error> {
        let mut request = CountRequestBuilder::new().exact(true);
        if let Some(filter) = self.translate(filter)? {
            request = request.filter(filter);
        }
        let count = self.engine.run(|shard| shard.count(request.build()))?;
        Ok(count as u64)
    }

    pub(in super::super) fn scroll(&self, page: &Page) -> Result<Vec<Record>, Error> {
        // The engine's offset is the first point to return, ours the last that was returned.
        let after = page.after.as_ref().map(|id| PointId::Uuid(point_id(id.as_str())));
        let mut request = ScrollRequestBuilder::new()
            .limit(page.limit.saturating_add(1))
            .with_payload(WithPayloadInterface::Bool(true))
            .with_vector(wanted(page.vectors));
        if let Some(after) = after {
            request = request.offset(after);
        }
        if let Some(filter) = self.translate(&page.filter)? {
            request = request.filter(filter);
        }
        let (found, _) = self.engine.run(|shard| shard.scroll(request.build()))?;
        let rest = found.into_iter().filter(|found| Some(found.id) != after);
        rest.take(page.limit).map(|found| record(found, page.vectors)).collect()
    }

    pub(in super::super) fn ordered(&self, page: &Ordered) -> Result<Vec<(Record, f64)>, Error> {
        let fitting = [Kind::Integer, Kind::Float, Kind::Time];
        let key = lower::order(&self.index_on(&page.field, &fitting)?);
        let direction = if page.descending { Direction::Desc } else { Direction::Asc };
        let order =
            OrderBy { key: filter::path(&key)?, direction: Some(direction), start_from: None };
        let mut request = ScrollRequestBuilder::new()
            .limit(page.limit)
            .with_payload(WithPayloadInterface::Bool(true))
            .order_by(OrderByInterface::Struct(order));
        if let Some(filter) = self.translate(&page.filter)? {
            request = request.filter(filter);
        }
        let (found, _) = self.engine.run(|shard| shard.scroll(request.build()))?;
        let numbered = found.into_iter().filter_map(|found| {
            let number = match found.order_value? {
                OrderValue::Int(number) => number as f64,
                OrderValue::Float(number) => number,
            };
            Some(record(found, false).map(|record| (record, number)))
        });
        numbered.collect()
    }

    /// The index on a field, if it is one of those that are needed.
    pub(super) fn index_on(&self, field: &Field, fitting: &[Kind]) -> Result<FieldIndex, Error> {
        let kind = self.collection().indexes.kind(field).filter(|kind| fitting.contains(kind));
        let kind = kind.ok_or_else(|| Error::NotIndexed(field.key()))?;
        Ok(FieldIndex { field: field.clone(), kind })
    }

    pub(super) fn translate(&self, filter: &Filter) -> Result<Option<EngineFilter>, Error> {
        filter::translate(filter, &[], &self.collection().indexes)
    }
}

/// Which vectors to read with an item: never those of its words, which nobody is shown.
pub(super) fn wanted(vectors: bool) -> WithVector {
    if vectors { WithVector::Selector(vec![String::new()]) } else { WithVector::Bool(false) }
}

/// An item as the engine gave it.
pub(super) fn record(found: Retrieved, vectors: bool) -> Result<Record, Error> {
    let missing = |what: &str| Error::Failed(format!("a stored item has no {what}"));
    let item = payload::read(&found.payload.ok_or_else(|| missing("payload"))?.0)?;
    let vector = vectors.then(|| embedding(found.vector.ok_or_else(|| missing("vector"))?));
    Ok(Record { item, vector: vector.transpose()? })
}

fn embedding(vector: VectorStructInternal) -> Result<Embedding, Error> {
    let values = match vector {
        VectorStructInternal::Single(values) => Some(values),
        VectorStructInternal::Named(mut named) => match named.remove("") {
            Some(VectorInternal::Dense(values)) => Some(values),
            Some(VectorInternal::Sparse(_) | VectorInternal::MultiDense(_)) | None => None,
        },
        VectorStructInternal::MultiDense(_) => None,
    };
    let values = values.ok_or_else(|| Error::Failed("a stored item has no vector".to_owned()))?;
    Embedding::new(values).map_err(|error| Error::Failed(format!("a stored vector: {error}")))
}
