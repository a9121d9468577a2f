//! The engine itself: what it is told of a collection, and the lock around it.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError, RwLock};

use qdrant_edge::{
    BinaryQuantizationConfig, BoolIndexParamsBuilder, Distance as EngineDistance, EdgeConfig,
    EdgeConfigBuilder, EdgeOptimizersConfig, EdgeShard, EdgeSparseVectorParamsBuilder,
    EdgeVectorParamsBuilder, FloatIndexParamsBuilder, GeoIndexParamsBuilder, HnswIndexConfig,
    IntegerIndexParamsBuilder, KeywordIndexParamsBuilder, Memory, Modifier, OperationResult,
    PayloadFieldSchema, PayloadSchemaParams, PayloadSchemaType, QuantizationConfig,
    ScalarQuantizationConfig, ScalarType, UpdateOperation,
};

use super::upkeep::BUILDING_THREADS;
use super::{Config, failed};
use crate::store::index::{Quantization, VectorIndex};
use crate::store::lower::Schema;
use crate::store::{Collection, Distance, Error};

/// What the sparse vector of an item's words is called.
pub(super) const WORDS_VECTOR: &str = "words";

/// The part of all values that short forms of a byte tell apart; those beyond are cut off. The
/// value that Qdrant's documentation recommends.
const SCALAR_QUANTILE: f32 = 0.99;

const BYTES_PER_KIB: usize = 1024;

/// Graphs that are aimed at, up to [`MAX_SEGMENT_KIB`]: a search walks through each of them. The
/// engine would have one for every two CPUs.
const SEGMENTS: usize = 2;
/// The most vectors of one graph: half a million of 512 floats. More of them are built into another,
/// since adding to a graph means to copy what it is on.
const MAX_SEGMENT_KIB: usize = 1_000_000;

/// The engine of one collection, which can be closed and opened again behind its users' backs.
#[derive(Debug)]
pub(super) struct Engine {
    path: PathBuf,
    /// Held by each update and by each flush. A flush takes what it finds for the whole of the
    /// updates that made it, and those out of the log: what it found half done, a crash would leave
    /// so. Reads have no part in it, and updates would wait for the flush anyway.
    changing: Mutex<()>,
    /// `None` where it could not be opened again.
    shard: RwLock<Option<EdgeShard>>,
}

// === impl Engine ===

impl Engine {
    /// Makes an empty one in a folder where there is none.
    pub(super) fn create(path: PathBuf, config: EdgeConfig) -> Result<Self, Error> {
        let shard = EdgeShard::new(&path, config).map_err(failed)?;
        Ok(Self::of(path, shard))
    }

    /// Opens one, and takes in again what a crash left in its log.
    pub(super) fn open(path: PathBuf, config: EdgeConfig) -> Result<Self, Error> {
        let shard = EdgeShard::load(&path, Some(config)).map_err(failed)?;
        Ok(Self::of(path, shard))
    }

    fn of(path: PathBuf, shard: EdgeShard) -> Self {
        Self { path, changing: Mutex::new(()), shard: RwLock::new(Some(shard)) }
    }

    /// Lets others work at the same time. Must not be nested: who waits to reopen it would keep
    /// the inner one waiting for ever.
    pub(super) fn run<T>(
        &self,
        work: impl FnOnce(&EdgeShard) -> OperationResult<T>,
    ) -> Result<T, Error> {
        let shard = self.shard.read().unwrap_or_else(PoisonError::into_inner);
        let shard = shard.as_ref().ok_or_else(|| failed("the engine could not be opened again"))?;
        work(shard).map_err(failed)
    }

    /// Changes what is in it.
    pub(super) fn update(&self, operation: UpdateOperation) -> Result<(), Error> {
        self.change(|shard| shard.update(operation))
    }

    /// Brings it onto the disk.
    pub(super) fn flush(&self) -> Result<(), Error> {
        self.change(EdgeShard::flush)
    }

    /// One at a time, beside whoever reads.
    fn change<T>(&self, work: impl FnOnce(&EdgeShard) -> OperationResult<T>) -> Result<T, Error> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.run(work)
    }

    /// Opens it with another configuration, once nobody works in it; everybody waits meanwhile.
    pub(super) fn reopen(&self, config: EdgeConfig) -> Result<(), Error> {
        let mut shard = self.shard.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = shard.take() {
            // What can't be flushed is in its log, which the next one reads.
            drop(open);
        }
        *shard = Some(EdgeShard::load(&self.path, Some(config)).map_err(failed)?);
        Ok(())
    }
}

/// What the engine is told of a collection.
pub(super) fn config(collection: &Collection, config: &Config) -> EdgeConfig {
    let Distance::Cosine = collection.distance;
    let dimension = collection.dimension;
    let mut vectors = EdgeVectorParamsBuilder::new(dimension, EngineDistance::Cosine)
        .hnsw_config(graph(&collection.vector_index, dimension, config));
    if let Some(quantization) = quantization(collection.vector_index.quantization) {
        vectors = vectors.quantization_config(quantization);
    }
    let mut engine = EdgeConfigBuilder::new()
        .vector("", vectors.build())
        .optimizers(optimizers(dimension, config))
        .max_search_threads(config.threads.get());
    if !collection.word_fields.is_empty() {
        let words = EdgeSparseVectorParamsBuilder::new().modifier(Modifier::Idf).build();
        engine = engine.sparse_vector(WORDS_VECTOR, words);
    }
    engine.build()
}

fn graph(index: &VectorIndex, dimension: usize, config: &Config) -> HnswIndexConfig {
    HnswIndexConfig {
        m: index.links,
        ef_construct: index.build_effort,
        // Which way a filtered search goes is decided with each; see `shard/plan.rs`.
        full_scan_threshold: kib_of(config.optimize_after.get(), dimension),
        max_indexing_threads: BUILDING_THREADS,
        ..HnswIndexConfig::default()
    }
}

fn quantization(wanted: Quantization) -> Option<QuantizationConfig> {
    let memory = Some(Memory::Pinned);
    match wanted {
        Quantization::None => None,
        Quantization::Scalar => {
            let quantile = Some(SCALAR_QUANTILE);
            #[expect(deprecated, reason = "the struct has no other constructor")]
            let config = ScalarQuantizationConfig {
                r#type: ScalarType::Int8,
                quantile,
                always_ram: None,
                memory,
            };
            Some(config.into())
        }
        Quantization::Binary => {
            #[expect(deprecated, reason = "the struct has no other constructor")]
            let config = BinaryQuantizationConfig {
                always_ram: None,
                memory,
                encoding: None,
                query_encoding: None,
            };
            Some(config.into())
        }
    }
}

fn optimizers(dimension: usize, config: &Config) -> EdgeOptimizersConfig {
    EdgeOptimizersConfig {
        indexing_threshold: Some(kib_of(config.optimize_after.get(), dimension)),
        default_segment_number: Some(SEGMENTS),
        max_segment_size: Some(MAX_SEGMENT_KIB),
        ..EdgeOptimizersConfig::default()
    }
}

/// What so many vectors take, as the engine counts thresholds; never the 0 that it has other plans
/// with.
fn kib_of(points: usize, dimension: usize) -> usize {
    (points.saturating_mul(dimension * size_of::<f32>()) / BYTES_PER_KIB).max(1)
}

/// An index, without links of its own in the graph of vectors.
pub(super) fn index(schema: Schema) -> PayloadFieldSchema {
    PayloadFieldSchema::FieldParams(match schema {
        Schema::Keyword => {
            let params = KeywordIndexParamsBuilder::new().enable_hnsw(false);
            PayloadSchemaParams::Keyword(params.build())
        }
        Schema::Integer => {
            let params = IntegerIndexParamsBuilder::new().enable_hnsw(false);
            PayloadSchemaParams::Integer(params.build())
        }
        Schema::Float => {
            let params = FloatIndexParamsBuilder::new().enable_hnsw(false);
            PayloadSchemaParams::Float(params.build())
        }
        Schema::Boolean => {
            PayloadSchemaParams::Bool(BoolIndexParamsBuilder::new().enable_hnsw(false).build())
        }
        Schema::Geo => {
            PayloadSchemaParams::Geo(GeoIndexParamsBuilder::new().enable_hnsw(false).build())
        }
    })
}

/// What an index is known as to the engine.
pub(super) fn type_of(schema: Schema) -> PayloadSchemaType {
    match schema {
        Schema::Keyword => PayloadSchemaType::Keyword,
        Schema::Integer => PayloadSchemaType::Integer,
        Schema::Float => PayloadSchemaType::Float,
        Schema::Boolean => PayloadSchemaType::Bool,
        Schema::Geo => PayloadSchemaType::Geo,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::VectorStore as _;
    use crate::store::contract::new_collection;
    use crate::store::exact::Exact;

    #[tokio::test]
    async fn one_changes_it_at_a_time_beside_whoever_reads() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let collection = Exact::default().create(new_collection("c")).await.expect("described");
        let config = config(&collection, &Config::default());
        let engine = Engine::create(folder.path().join("shard"), config).expect("made");
        let changed = engine.change(|_| {
            assert!(engine.changing.try_lock().is_err(), "a flush has to wait");
            assert!(engine.shard.try_read().is_ok(), "a search has not");
            Ok(())
        });
        changed.expect("done");
        engine.flush().expect("its turn");
    }
}
