//! Changes of points, and how they get onto the disk.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use clipmesh_proto::ids::ItemId;
use qdrant_edge::{
    PointId, PointInsertOperations, PointOperations, PointStruct, PointStructPersisted,
    UpdateOperation, Vector, Vectors,
};
use serde_json::Value as Json;

use super::super::engine::WORDS_VECTOR;
use super::super::failed;
use super::Shard;
use crate::filter::Filter;
use crate::item::Etag;
use crate::store::lower::point_id;
use crate::store::{Collection, Error, Page, Point, Record, check_dimension, payload};

/// Points that the engine is given at once. It holds its lock for that long, and searches of what
/// is not indexed yet wait.
const MAX_BATCH: usize = 500;

/// Which writes are on the disk. Numbers count points that were written or removed.
#[derive(Debug, Default)]
pub(super) struct Durability {
    /// What the engine was given. It is counted after the engine has taken it.
    written: AtomicU64,
    /// The last of them that are known to be on the disk.
    synced: AtomicU64,
    /// Held during a flush, so that callers that wait together share one.
    flushing: Mutex<()>,
}

// === impl Shard ===

impl Shard {
    pub(in super::super) fn upsert(&self, points: Vec<Point>) -> Result<(), Error> {
        let _writing = self.write();
        self.insert(points)
    }

    pub(in super::super) fn replace(
        &self,
        point: Point,
        expected: Option<&Etag>,
    ) -> Result<bool, Error> {
        let _writing = self.write();
        check_dimension(std::slice::from_ref(&point), self.collection().dimension)?;
        let stored = self.get(vec![point.item.id.clone()], false)?.pop();
        let is_same = stored.map(|record| record.item.etag()).as_ref() == expected;
        if is_same {
            self.insert(vec![point])?;
        }
        Ok(is_same)
    }

    pub(in super::super) fn delete(&self, ids: &[ItemId]) -> Result<(), Error> {
        let _writing = self.write();
        self.take_out(ids)
    }

    pub(in super::super) fn delete_unchanged(
        &self,
        id: ItemId,
        expected: &Etag,
    ) -> Result<bool, Error> {
        let _writing = self.write();
        let Some(stored) = self.get(vec![id.clone()], false)?.pop() else {
            return Ok(true);
        };
        let is_same = stored.item.etag() == *expected;
        if is_same {
            self.take_out(&[id])?;
        }
        Ok(is_same)
    }

    fn take_out(&self, ids: &[ItemId]) -> Result<(), Error> {
        for batch in ids.chunks(MAX_BATCH) {
            let ids = batch.iter().map(|id| PointId::Uuid(point_id(id.as_str()))).collect();
            self.update(PointOperations::DeletePoints { ids }, batch.len())?;
        }
        Ok(())
    }

    /// Writes every item once more, in today's form, and brings all of them onto the disk.
    pub(super) fn write_anew(&self) -> Result<(), Error> {
        let collection = self.collection().name.clone();
        tracing::info!(%collection, "bringing a collection's items into today's form");
        let mut after = None;
        loop {
            let page = Page { filter: Filter::default(), after, limit: MAX_BATCH, vectors: true };
            let records = self.scroll(&page)?;
            let Some(last) = records.last() else {
                break;
            };
            after = Some(last.item.id.clone());
            let points = records
                .into_iter()
                .filter_map(|Record { item, vector }| Some(Point { item, vector: vector? }));
            self.upsert(points.collect())?;
        }
        self.flush()
    }

    /// The right to change points. What was read of a point stays true while it is held.
    fn write(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, points: Vec<Point>) -> Result<(), Error> {
        let collection = self.collection();
        // The engine would keep the good points of a batch with a bad one, so all are made ready
        // before the first goes in. `Embedding` rules out NaN and zero.
        check_dimension(&points, collection.dimension)?;
        let mut points = points.into_iter().map(|point| persisted(point, &collection));
        let mut points = points.by_ref().collect::<Result<Vec<_>, _>>()?;
        while !points.is_empty() {
            let rest = points.split_off(points.len().min(MAX_BATCH));
            let count = points.len();
            let batch = PointInsertOperations::PointsList(std::mem::replace(&mut points, rest));
            self.update(PointOperations::UpsertPoints(batch), count)?;
        }
        Ok(())
    }

    fn update(&self, operation: PointOperations, points: usize) -> Result<(), Error> {
        let done = self.engine.update(UpdateOperation::PointOperation(operation));
        // Even if it failed: part of it may be there.
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.durability.written.fetch_add(points as u64, Ordering::AcqRel);
        self.progress.points_changed();
        done
    }

    /// Points that were changed and are not known to be on the disk.
    pub(in super::super) fn unflushed(&self) -> u64 {
        let synced = self.durability.synced.load(Ordering::Acquire);
        self.durability.written.load(Ordering::Acquire).saturating_sub(synced)
    }

    /// Brings what the caller can see onto the disk. Callers that wait together share one flush.
    pub(in super::super) fn sync(&self) -> Result<(), Error> {
        let mine = self.durability.written.load(Ordering::Acquire);
        let flushing = self.durability.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.durability.synced.load(Ordering::Acquire) >= mine {
            return Ok(());
        }
        self.flush_holding(&flushing)
    }

    /// Brings everything onto the disk.
    pub(in super::super) fn flush(&self) -> Result<(), Error> {
        let flushing = self.durability.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        self.flush_holding(&flushing)
    }

    fn flush_holding(&self, _flushing: &MutexGuard<'_, ()>) -> Result<(), Error> {
        // Read before: writes that come in during the flush may have missed it.
        let written = self.durability.written.load(Ordering::Acquire);
        self.engine.flush()?;
        self.durability.synced.store(written, Ordering::Release);
        Ok(())
    }
}

/// A point as the engine keeps it.
fn persisted(point: Point, collection: &Collection) -> Result<PointStructPersisted, Error> {
    let id = PointId::Uuid(point_id(point.item.id.as_str()));
    let payload = Json::Object(payload::write(&point.item));
    let words = collection.words_of(&point.item);
    let vector = point.vector.into_values();
    let vectors = if words.words.is_empty() {
        Vectors::from(vector)
    } else {
        let words = Vector::new_sparse(words.words, words.weights).map_err(failed)?;
        Vectors::new_named([("", Vector::new_dense(vector)), (WORDS_VECTOR, words)])
    };
    Ok(PointStruct::new(id, vectors, payload).into())
}
