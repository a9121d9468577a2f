//! One collection in the engine. Everything here blocks.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use clipmesh_proto::Embedding;
use clipmesh_proto::ids::ItemId;
use qdrant_edge::{
    CountRequestBuilder, CreateIndex, Distance as EngineDistance, EdgeConfig, EdgeConfigBuilder,
    EdgeShard, EdgeVectorParamsBuilder, FieldIndexOperations, HnswIndexConfig,
    IntegerIndexParamsBuilder, KeywordIndexParamsBuilder, NamedQuery, PayloadFieldSchema,
    PayloadSchemaParams, PointId, PointInsertOperations, PointOperations, PointStruct, QueryEnum,
    RetrieveRequestBuilder, ScrollRequestBuilder, SearchParams, SearchRequestBuilder,
    UpdateOperation, VectorInternal, VectorStructInternal, WithPayloadInterface, WithVector,
};
use serde_json::Value as Json;
use uuid::Uuid;

use super::folder::{Folder, Record};
use super::{Config, filter, payload};
use crate::filter::Filter;
use crate::item::Item;
use crate::store::{Collection, Distance, Error, Hit, Page, Point, Search, check_dimension, rank};

/// The namespace of the UUIDs that stand for item ids. Changing it orphans every stored point.
const NAMESPACE: Uuid = Uuid::from_u128(0x6c1d_3c5e_5f0b_4d0e_9f6a_2b8e_7a41_c9d3);

/// Hits fetched beyond those asked for, so that equal scores at the end are seen whole and put in
/// order. Few collections have more copies of one picture.
const TIE_MARGIN: usize = 16;

/// Where the search for the end of a row of equal scores is given up: past it, which of the equal
/// ones are on a page is the engine's choice.
const MAX_FETCH: usize = 65_536;

/// Fields that filters on an item's facts are quick on.
const KEYWORD_FIELDS: [&str; 4] = ["uri", "filename", "format", "content_hash"];
const INTEGER_FIELDS: [&str; 3] = ["width", "height", "byte_size"];

/// The links per point and the effort of building the graph: the engine's own defaults, at which
/// its recall was measured.
const GRAPH_LINKS: usize = 16;
const GRAPH_EFFORT: usize = 100;

const BYTES_PER_KIB: usize = 1024;

/// The points of one collection.
#[derive(Debug)]
pub(super) struct Shard {
    /// Declared first, so that it is closed before its folder may go.
    engine: EdgeShard,
    folder: Folder,
    dimension: usize,
    search_effort: usize,
    /// Writes that the engine has taken, and the last of them that is known to be on the disk.
    written: AtomicU64,
    synced: Mutex<u64>,
    dirty: AtomicBool,
    /// Points at the end of the last optimisation.
    optimized_points: AtomicU64,
}

// === impl Shard ===

impl Shard {
    /// Makes an empty one with its record, and brings both onto the disk; or leaves nothing there.
    pub(super) fn create(
        folder: Folder,
        collection: &Collection,
        config: &Config,
    ) -> Result<Self, Error> {
        // Whatever fails on the way takes the folder along: a record that was written but not
        // brought onto the disk would be a collection at the next start.
        folder.doom();
        folder.create().map_err(failed)?;
        let engine_config = engine_config(collection.dimension, collection.distance, config);
        let engine = EdgeShard::new(&folder.shard(), engine_config).map_err(failed)?;
        for (field, schema) in indexes() {
            let create =
                CreateIndex { field_name: filter::path(field)?, field_schema: Some(schema) };
            let create = FieldIndexOperations::CreateIndex(create);
            engine.update(UpdateOperation::FieldIndexOperation(create)).map_err(failed)?;
        }
        engine.flush().map_err(failed)?;
        let shard = Self::new(engine, folder, collection.dimension, config);
        shard.folder.write_record(&Record::new(collection)).map_err(failed)?;
        shard.folder.spare();
        Ok(shard)
    }

    /// Opens one, and takes in again what a crash left in its log.
    pub(super) fn open(
        folder: Folder,
        collection: &Collection,
        config: &Config,
    ) -> Result<Self, Error> {
        let engine_config = engine_config(collection.dimension, collection.distance, config);
        let engine = EdgeShard::load(&folder.shard(), Some(engine_config)).map_err(failed)?;
        // Replayed writes are trimmed from the log by the first flush. Until then they may be in
        // memory only: a log that outlives its process need not be on the disk.
        let shard = Self::new(engine, folder, collection.dimension, config);
        shard.written.store(1, Ordering::Release);
        shard.dirty.store(true, Ordering::Release);
        Ok(shard)
    }

    fn new(engine: EdgeShard, folder: Folder, dimension: usize, config: &Config) -> Self {
        Self {
            engine,
            folder,
            dimension,
            search_effort: config.search_effort.get(),
            written: AtomicU64::new(0),
            synced: Mutex::new(0),
            dirty: AtomicBool::new(false),
            optimized_points: AtomicU64::new(0),
        }
    }

    /// Where it lives.
    pub(super) fn folder(&self) -> &Folder {
        &self.folder
    }

    pub(super) fn upsert(&self, points: Vec<Point>) -> Result<(), Error> {
        // The engine would keep the good points of a batch with a bad one, so all are looked at
        // before the first goes in. `Embedding` rules out NaN and zero.
        check_dimension(&points, self.dimension)?;
        let points = points.into_iter().map(|point| {
            let id = point_id(point.item.id.as_str());
            let payload = Json::Object(payload::write(&point.item));
            PointStruct::new(id, point.vector.into_values(), payload).into()
        });
        let points = PointInsertOperations::PointsList(points.collect());
        self.write(PointOperations::UpsertPoints(points))
    }

    pub(super) fn delete(&self, ids: &[ItemId]) -> Result<(), Error> {
        let ids = ids.iter().map(|id| point_id(id.as_str())).collect();
        self.write(PointOperations::DeletePoints { ids })
    }

    fn write(&self, operation: PointOperations) -> Result<(), Error> {
        let done = self.engine.update(UpdateOperation::PointOperation(operation)).map_err(failed);
        self.written.fetch_add(1, Ordering::AcqRel);
        self.dirty.store(true, Ordering::Release);
        done
    }

    pub(super) fn get(&self, id: &ItemId) -> Result<Option<Point>, Error> {
        let request = RetrieveRequestBuilder::new(vec![point_id(id.as_str())])
            .with_payload(WithPayloadInterface::Bool(true))
            .with_vector(WithVector::Bool(true))
            .build();
        let record = self.engine.retrieve(request).map_err(failed)?.into_iter().next();
        let Some((Some(payload), Some(vector))) =
            record.map(|record| (record.payload, record.vector))
        else {
            return Ok(None);
        };
        let item = payload::read(&payload.0)?;
        if item.id != *id {
            return Ok(None);
        }
        Ok(Some(Point { item, vector: embedding(vector)? }))
    }

    pub(super) fn count(&self, filter: &Filter) -> Result<u64, Error> {
        let mut request = CountRequestBuilder::new().exact(true);
        if let Some(filter) = filter::translate(filter, &[])? {
            request = request.filter(filter);
        }
        self.engine.count(request.build()).map(|count| count as u64).map_err(failed)
    }

    pub(super) fn scroll(&self, page: &Page) -> Result<Vec<Item>, Error> {
        // The engine's offset is the first point to return, ours the last that was returned.
        let after = page.after.as_ref().map(|id| point_id(id.as_str()));
        let mut request = ScrollRequestBuilder::new()
            .limit(page.limit + 1)
            .with_payload(WithPayloadInterface::Bool(true));
        if let Some(after) = after {
            request = request.offset(after);
        }
        if let Some(filter) = filter::translate(&page.filter, &[])? {
            request = request.filter(filter);
        }
        let (records, _) = self.engine.scroll(request.build()).map_err(failed)?;
        let rest = records.into_iter().filter(|record| Some(record.id) != after);
        let payloads = rest.filter_map(|record| record.payload).take(page.limit);
        payloads.map(|payload| payload::read(&payload.0)).collect()
    }

    pub(super) fn search(&self, search: &Search) -> Result<Vec<Hit>, Error> {
        let actual = search.vector.dimension();
        if actual != self.dimension {
            return Err(Error::WrongDimension { expected: self.dimension, actual });
        }
        let wanted = search.offset + search.limit;
        let mut fetch = wanted + TIE_MARGIN;
        let scored = loop {
            let scored = self.nearest(search, fetch)?;
            let has_all = scored.len() < fetch || fetch >= MAX_FETCH;
            if has_all || is_settled(&scored, wanted) {
                break scored;
            }
            fetch = (fetch * 4).min(MAX_FETCH);
        };
        self.hits(rank(scored, search))
    }

    /// Ids and scores, best first; equal scores in any order.
    fn nearest(&self, search: &Search, fetch: usize) -> Result<Vec<(String, f32)>, Error> {
        let vector = search.vector.values().to_vec();
        let query = QueryEnum::Nearest(NamedQuery::default_dense(vector));
        let params =
            SearchParams { hnsw_ef: Some(self.search_effort.max(fetch)), ..Default::default() };
        let mut request = SearchRequestBuilder::new(query, fetch)
            .params(params)
            .with_payload(WithPayloadInterface::Fields(vec![filter::path("id")?]));
        if let Some(filter) = filter::translate(&search.filter, &search.exclude)? {
            request = request.filter(filter);
        }
        let points = self.engine.search(request.build()).map_err(failed)?;
        let scored = points.into_iter().filter_map(|point| {
            let id = point.payload?.0.get("id")?.as_str()?.to_owned();
            Some((id, point.score))
        });
        Ok(scored.collect())
    }

    /// Fetches the items of a page; one that was deleted in between is left out.
    fn hits(&self, ranked: Vec<(String, f32)>) -> Result<Vec<Hit>, Error> {
        let ids = ranked.iter().map(|(id, _)| point_id(id)).collect();
        let request =
            RetrieveRequestBuilder::new(ids).with_payload(WithPayloadInterface::Bool(true)).build();
        let records = self.engine.retrieve(request).map_err(failed)?;
        let mut payloads: HashMap<PointId, _> =
            records.into_iter().map(|record| (record.id, record.payload)).collect();
        let mut hits = Vec::with_capacity(ranked.len());
        for (id, score) in ranked {
            if let Some(payload) = payloads.remove(&point_id(&id)).flatten() {
                hits.push(Hit { item: payload::read(&payload.0)?, score });
            }
        }
        Ok(hits)
    }

    /// Brings what the caller can see onto the disk. Callers that wait together share one flush.
    pub(super) fn sync(&self) -> Result<(), Error> {
        let mine = self.written.load(Ordering::Acquire);
        let mut synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        if *synced >= mine { Ok(()) } else { self.flush_up_to(&mut synced) }
    }

    /// Brings all writes onto the disk, if there were any since the last time.
    pub(super) fn flush(&self) -> Result<(), Error> {
        if !self.dirty.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let mut synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        let done = self.flush_up_to(&mut synced);
        if done.is_err() {
            self.dirty.store(true, Ordering::Release);
        }
        done
    }

    fn flush_up_to(&self, synced: &mut u64) -> Result<(), Error> {
        // Read before: writes that come in during the flush may have missed it.
        let written = self.written.load(Ordering::Acquire);
        self.engine.flush().map_err(failed)?;
        *synced = written;
        Ok(())
    }

    /// Whether enough points are searched one by one that building their graph pays.
    pub(super) fn wants_optimizing(&self, threshold: NonZeroUsize) -> Result<bool, Error> {
        let info = self.engine.info().map_err(failed)?;
        let tail = info.points_count.saturating_sub(info.indexed_vectors_count);
        // Small vectors stay below the engine's own threshold for ever; asking again before
        // there are more of them is in vain.
        let before = self.optimized_points.load(Ordering::Acquire);
        let new = (info.points_count as u64).saturating_sub(before);
        Ok(tail >= threshold.get() && (before == 0 || new >= threshold.get() as u64))
    }

    /// Builds graphs. Takes minutes where there are many points, and can't be stopped; reads and
    /// writes go on meanwhile.
    pub(super) fn optimize(&self) -> Result<(), Error> {
        self.engine.optimize().map_err(failed)?;
        let info = self.engine.info().map_err(failed)?;
        self.optimized_points.store(info.points_count as u64, Ordering::Release);
        Ok(())
    }
}

/// The engine's name for an item: it takes only numbers and UUIDs.
pub(super) fn point_id(id: &str) -> PointId {
    PointId::Uuid(Uuid::new_v5(&NAMESPACE, id.as_bytes()))
}

fn engine_config(dimension: usize, Distance::Cosine: Distance, config: &Config) -> EdgeConfig {
    let bytes_per_vector = dimension * size_of::<f32>();
    let graph = HnswIndexConfig {
        m: GRAPH_LINKS,
        ef_construct: GRAPH_EFFORT,
        // Below this many candidates a filter is answered by comparing with each of them: right,
        // and cheaper than the extra links that a filtered walk through the graph would need.
        full_scan_threshold: config.full_scan_points.get() * bytes_per_vector / BYTES_PER_KIB,
        // Searches come first; one thread builds.
        max_indexing_threads: 1,
        ..HnswIndexConfig::default()
    };
    EdgeConfigBuilder::new()
        .vector("", EdgeVectorParamsBuilder::new(dimension, EngineDistance::Cosine).build())
        .hnsw_config(graph)
        .max_search_threads(config.threads.get())
        .build()
}

/// Without links in the graph: they cost more to build than the rest of it, and filters do
/// without (see `full_scan_threshold`).
fn indexes() -> impl Iterator<Item = (&'static str, PayloadFieldSchema)> {
    let keyword = || {
        let params = KeywordIndexParamsBuilder::new().enable_hnsw(false).build();
        PayloadFieldSchema::FieldParams(PayloadSchemaParams::Keyword(params))
    };
    let integer = || {
        let params = IntegerIndexParamsBuilder::new().enable_hnsw(false).build();
        PayloadFieldSchema::FieldParams(PayloadSchemaParams::Integer(params))
    };
    let keywords = KEYWORD_FIELDS.into_iter().map(move |field| (field, keyword()));
    keywords.chain(INTEGER_FIELDS.into_iter().map(move |field| (field, integer())))
}

/// Whether no score equal to that of the last wanted hit can be missing.
fn is_settled(scored: &[(String, f32)], wanted: usize) -> bool {
    let last_wanted = wanted.checked_sub(1).and_then(|last| scored.get(last));
    match (last_wanted, scored.last()) {
        (Some((_, wanted)), Some((_, last))) => wanted > last,
        (None, _) | (_, None) => true,
    }
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

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Failed(error.to_string())
}
