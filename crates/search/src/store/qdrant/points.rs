//! Writes of points, and reads by id, by filter and in order.

use clipmesh_proto::ids::{CollectionName, ItemId};
use qdrant_client::qdrant::order_value::Variant;
use qdrant_client::qdrant::points_selector::PointsSelectorOneOf;
use qdrant_client::qdrant::{
    Condition, CountPoints, DeletePoints, Direction, Filter as OuterFilter, GetPoints, OrderBy,
    PointId, PointsIdsList, PointsSelector, RetrievedPoint, ScrollPoints, UpdateMode, UpdateResult,
    UpdateStatus, UpsertPoints, WithPayloadSelector, WithVectorsSelector, WriteOrdering,
    WriteOrderingType,
};

use super::error::failed_on;
use super::{Inner, convert};
use crate::filter::{Field, Filter};
use crate::item::Etag;
use crate::store::index::{FieldIndex, Kind};
use crate::store::lower::{self, point_id};
use crate::store::payload::ETAG;
use crate::store::{
    Collection, Error, Ordered, Page, Point, Record, check_dimension, check_length,
};

/// What there must be of an item before it is written.
#[derive(Clone, Copy, Debug)]
enum Place<'a> {
    Any,
    /// Nothing.
    Free,
    /// The item with this etag.
    Taken(&'a Etag),
}

impl Inner {
    pub(super) async fn upsert(
        &self,
        name: &CollectionName,
        points: Vec<Point>,
    ) -> Result<(), Error> {
        let collection = self.describe(name).await?;
        check_dimension(&points, collection.dimension)?;
        if points.is_empty() {
            return Ok(());
        }
        self.put(&collection, points, Place::Any).await
    }

    pub(super) async fn replace(
        &self,
        name: &CollectionName,
        point: Point,
        expected: Option<&Etag>,
    ) -> Result<bool, Error> {
        let collection = self.describe(name).await?;
        check_length(&point.vector, collection.dimension)?;
        let (id, etag) = (point.item.id.clone(), point.item.etag());
        self.put(&collection, vec![point], expected.map_or(Place::Free, Place::Taken)).await?;
        // The server does not say what it did. If the point has been changed once more since, by
        // somebody who then knew of this change, that is taken for a change before it: its caller
        // is told to look again, and finds both.
        let etag_field: WithPayloadSelector = vec![ETAG].into();
        let found = self.points_by_id(name, &[id], etag_field, false.into()).await?;
        let is_applied = |point: &RetrievedPoint| {
            point.payload.get(ETAG).and_then(|value| value.as_str().map(String::as_str))
                == Some(etag.as_str())
        };
        Ok(found.iter().any(is_applied))
    }

    /// Writes those points whose place is as it should be.
    async fn put(
        &self,
        collection: &Collection,
        points: Vec<Point>,
        place: Place<'_>,
    ) -> Result<(), Error> {
        let (mode, filter) = match place {
            Place::Any => (UpdateMode::Upsert, None),
            Place::Free => (UpdateMode::InsertOnly, None),
            Place::Taken(etag) => (UpdateMode::UpdateOnly, Some(OuterFilter::must([has(etag)]))),
        };
        let points = points.into_iter().map(|point| convert::point(collection, point));
        let request = UpsertPoints {
            collection_name: self.outer_name(&collection.name),
            wait: Some(true),
            points: points.collect(),
            ordering: Some(ordering()),
            update_filter: filter,
            update_mode: Some(mode.into()),
            ..UpsertPoints::default()
        };
        let answer = self.points.clone().upsert(request).await;
        let answer = answer.map_err(|status| failed_on(&collection.name, &status))?;
        completed(answer.into_inner().result)
    }

    pub(super) async fn delete(&self, name: &CollectionName, ids: &[ItemId]) -> Result<(), Error> {
        // The names on the server are the same whatever the collection is like, but an alias or
        // somebody else's collection must not be written to.
        let collection = self.describe(name).await?;
        if ids.is_empty() {
            return Ok(());
        }
        let ids = PointsIdsList { ids: ids.iter().map(outer_id).collect() };
        self.take_out(&collection, PointsSelectorOneOf::Points(ids)).await
    }

    pub(super) async fn delete_unchanged(
        &self,
        name: &CollectionName,
        id: &ItemId,
        expected: &Etag,
    ) -> Result<bool, Error> {
        let collection = self.describe(name).await?;
        let as_expected = OuterFilter::must([Condition::has_id([outer_id(id)]), has(expected)]);
        self.take_out(&collection, PointsSelectorOneOf::Filter(as_expected)).await?;
        // The server does not say what it did. Whoever has stored the item anew since has changed
        // it, as far as the caller can tell.
        let found = self.points_by_id(name, std::slice::from_ref(id), false.into(), false.into());
        Ok(found.await?.is_empty())
    }

    async fn take_out(
        &self,
        collection: &Collection,
        which: PointsSelectorOneOf,
    ) -> Result<(), Error> {
        let request = DeletePoints {
            collection_name: self.outer_name(&collection.name),
            wait: Some(true),
            points: Some(PointsSelector { points_selector_one_of: Some(which) }),
            ordering: Some(ordering()),
            ..DeletePoints::default()
        };
        let answer = self.points.clone().delete(request).await;
        let answer = answer.map_err(|status| failed_on(&collection.name, &status))?;
        completed(answer.into_inner().result)
    }

    pub(super) async fn get(
        &self,
        name: &CollectionName,
        ids: &[ItemId],
        vectors: bool,
    ) -> Result<Vec<Record>, Error> {
        let collection = self.describe(name).await?;
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let vectors = convert::read_vectors(&collection, vectors);
        let points = self.points_by_id(name, ids, convert::read_fields(), vectors).await?;
        let mut records = Vec::with_capacity(points.len());
        for point in points {
            records.push(record(point)?);
        }
        // Two ids of one hash are as good as impossible, and yet one is not the other.
        records.retain(|record| ids.contains(&record.item.id));
        Ok(records)
    }

    pub(super) async fn points_by_id(
        &self,
        name: &CollectionName,
        ids: &[ItemId],
        fields: WithPayloadSelector,
        vectors: WithVectorsSelector,
    ) -> Result<Vec<RetrievedPoint>, Error> {
        let request = GetPoints {
            collection_name: self.outer_name(name),
            ids: ids.iter().map(outer_id).collect(),
            with_payload: Some(fields),
            with_vectors: Some(vectors),
            ..GetPoints::default()
        };
        let answer = self.points.clone().get(request).await;
        Ok(answer.map_err(|status| failed_on(name, &status))?.into_inner().result)
    }

    pub(super) async fn count(&self, name: &CollectionName, filter: &Filter) -> Result<u64, Error> {
        let collection = self.describe(name).await?;
        let request = CountPoints {
            collection_name: self.outer_name(name),
            filter: outer_filter(&collection, filter),
            exact: Some(true),
            ..CountPoints::default()
        };
        let answer = self.points.clone().count(request).await;
        let counted = answer.map_err(|status| failed_on(name, &status))?.into_inner().result;
        // An answer without a number is no zero.
        let counted = counted.ok_or_else(|| incomplete("a count"))?;
        Ok(counted.count)
    }

    pub(super) async fn scroll(
        &self,
        name: &CollectionName,
        page: Page,
    ) -> Result<Vec<Record>, Error> {
        let collection = self.describe(name).await?;
        // The server's offset is the first point to return, ours the last that was returned.
        let after = page.after.as_ref().map(outer_id);
        let request = ScrollPoints {
            collection_name: self.outer_name(name),
            filter: outer_filter(&collection, &page.filter),
            offset: after.clone(),
            limit: Some(at_most(page.limit.saturating_add(1))),
            with_payload: Some(convert::read_fields()),
            with_vectors: Some(convert::read_vectors(&collection, page.vectors)),
            ..ScrollPoints::default()
        };
        let points = self.scrolled(name, request).await?.into_iter();
        let rest = points.filter(|point| after.is_none() || point.id != after);
        rest.take(page.limit).map(record).collect()
    }

    pub(super) async fn ordered(
        &self,
        name: &CollectionName,
        page: Ordered,
    ) -> Result<Vec<(Record, f64)>, Error> {
        let collection = self.describe(name).await?;
        let kind = index_kind(&collection, &page.field, &[Kind::Integer, Kind::Float, Kind::Time])?;
        if page.limit == 0 {
            return Ok(Vec::new());
        }
        let direction = if page.descending { Direction::Desc } else { Direction::Asc };
        let key = lower::order(&FieldIndex { field: page.field, kind });
        let order_by = OrderBy { key, direction: Some(direction.into()), start_from: None };
        let request = ScrollPoints {
            collection_name: self.outer_name(name),
            filter: outer_filter(&collection, &page.filter),
            limit: Some(at_most(page.limit)),
            order_by: Some(order_by),
            with_payload: Some(convert::read_fields()),
            with_vectors: Some(false.into()),
            ..ScrollPoints::default()
        };
        let points = self.scrolled(name, request).await?.into_iter();
        let numbered = points.map(|point| {
            let number = match point.order_value.and_then(|value| value.variant) {
                Some(Variant::Int(number)) => number as f64,
                Some(Variant::Float(number)) => number,
                None => return Err(incomplete("an item in order of a number")),
            };
            Ok((record(point)?, number))
        });
        numbered.collect()
    }

    async fn scrolled(
        &self,
        name: &CollectionName,
        request: ScrollPoints,
    ) -> Result<Vec<RetrievedPoint>, Error> {
        let answer = self.points.clone().scroll(request).await;
        Ok(answer.map_err(|status| failed_on(name, &status))?.into_inner().result)
    }
}

/// Whether a change was made, which is not so just because it was taken in.
pub(super) fn completed(result: Option<UpdateResult>) -> Result<(), Error> {
    let status = result.map(|result| result.status()).unwrap_or_default();
    match status {
        UpdateStatus::Completed => Ok(()),
        // In the log, but not yet there for others to see.
        UpdateStatus::Acknowledged | UpdateStatus::WaitTimeout => Err(Error::TimedOut),
        UpdateStatus::UnknownUpdateStatus | UpdateStatus::ClockRejected => {
            Err(Error::Failed(format!("the server answers a write with {status:?}")))
        }
    }
}

/// The kind of index on a field, if it is one of those that are needed.
pub(super) fn index_kind(
    collection: &Collection,
    field: &Field,
    fitting: &[Kind],
) -> Result<Kind, Error> {
    let kind = collection.indexes.kind(field).filter(|kind| fitting.contains(kind));
    kind.ok_or_else(|| Error::NotIndexed(field.key()))
}

pub(super) fn outer_filter(collection: &Collection, filter: &Filter) -> Option<OuterFilter> {
    lower::filter(filter, &[], &collection.indexes).as_ref().map(convert::filter)
}

pub(super) fn incomplete(what: &str) -> Error {
    Error::Failed(format!("the server sent {what} without its value"))
}

/// What an item passes that has an etag.
fn has(etag: &Etag) -> Condition {
    Condition::matches(ETAG, etag.as_str().to_owned())
}

fn outer_id(id: &ItemId) -> PointId {
    convert::id(point_id(id.as_str()))
}

fn record(point: RetrievedPoint) -> Result<Record, Error> {
    Ok(Record { item: convert::item(point.payload)?, vector: convert::embedding(point.vectors)? })
}

fn ordering() -> WriteOrdering {
    WriteOrdering { r#type: WriteOrderingType::Medium.into() }
}

fn at_most(limit: usize) -> u32 {
    u32::try_from(limit).unwrap_or(u32::MAX)
}
