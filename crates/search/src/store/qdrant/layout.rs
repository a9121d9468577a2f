//! How a collection lies on the server: its vectors, its graph, their short forms, its copies.

use std::collections::HashMap;

use qdrant_client::qdrant::payload_index_params::IndexParams;
use qdrant_client::qdrant::{
    BinaryQuantization, BoolIndexParams, CreateCollection, Disabled, Distance as EngineDistance,
    FieldType, FloatIndexParams, GeoIndexParams, HnswConfigDiff, IntegerIndexParams,
    KeywordIndexParams, Modifier, QuantizationConfig, QuantizationConfigDiff, QuantizationType,
    ScalarQuantization, SparseVectorConfig, SparseVectorParams, UpdateCollection, VectorParams,
    VectorParamsMap, VectorsConfig, quantization_config, quantization_config_diff, vectors_config,
};

use super::config::Config;
use super::convert::WORDS_VECTOR;
use super::record::{self, Record};
use crate::store::index::{Quantization, VectorIndex};
use crate::store::lower::Schema;
use crate::store::{Distance, Error, NewCollection};

const BYTES_PER_KIB: usize = 1024;

/// Values beyond this share of all are cut off where values become bytes, so that a few extreme
/// ones don't cost the others their precision. Qdrant's own advice.
const QUANTILE: f32 = 0.99;

/// What makes a collection.
#[expect(deprecated, reason = "servers before 1.20 don't know what comes in place of `on_disk`")]
pub(super) fn create(
    outer_name: String,
    new: &NewCollection,
    record: &Record,
    config: &Config,
) -> Result<CreateCollection, Error> {
    let Distance::Cosine = new.distance;
    let dense = VectorParams {
        size: new.dimension as u64,
        distance: EngineDistance::Cosine.into(),
        on_disk: Some(config.on_disk_vectors),
        ..VectorParams::default()
    };
    let map = HashMap::from([(record::vector_name(&new.fingerprint), dense)]);
    let vectors = vectors_config::Config::ParamsMap(VectorParamsMap { map });
    // Below this size a filter is answered by comparing with each item that passes it: right, and
    // cheaper than the extra links that a filtered walk through the graph would need.
    let full_scan_bytes =
        config.full_scan_points.get().saturating_mul(new.dimension * size_of::<f32>());
    let graph = HnswConfigDiff {
        full_scan_threshold: Some((full_scan_bytes / BYTES_PER_KIB).max(1) as u64),
        on_disk: Some(config.on_disk_hnsw),
        ..graph(new.vector_index)
    };
    let quantization = quantization(new.vector_index.quantization);
    Ok(CreateCollection {
        collection_name: outer_name,
        vectors_config: Some(VectorsConfig { config: Some(vectors) }),
        sparse_vectors_config: (!new.word_fields.is_empty()).then(words),
        hnsw_config: Some(graph),
        quantization_config: quantization
            .map(|quantization| QuantizationConfig { quantization: Some(quantization) }),
        shard_number: Some(config.shard_number.get()),
        replication_factor: Some(config.replication_factor.get()),
        write_consistency_factor: Some(config.write_consistency_factor.get()),
        on_disk_payload: Some(config.on_disk_payload),
        metadata: record.write()?,
        ..CreateCollection::default()
    })
}

/// What changes how a collection is searched, and its record with it.
pub(super) fn update(
    outer_name: String,
    record: &Record,
    index: VectorIndex,
) -> Result<UpdateCollection, Error> {
    use quantization_config_diff::Quantization as Diff;
    let quantization = match quantization(index.quantization) {
        Some(quantization_config::Quantization::Scalar(scalar)) => Diff::Scalar(scalar),
        Some(quantization_config::Quantization::Binary(binary)) => Diff::Binary(binary),
        Some(
            quantization_config::Quantization::Product(_)
            | quantization_config::Quantization::Turboquant(_),
        )
        | None => Diff::Disabled(Disabled {}),
    };
    Ok(UpdateCollection {
        collection_name: outer_name,
        hnsw_config: Some(graph(index)),
        quantization_config: Some(QuantizationConfigDiff { quantization: Some(quantization) }),
        metadata: record.write()?,
        ..UpdateCollection::default()
    })
}

fn graph(index: VectorIndex) -> HnswConfigDiff {
    HnswConfigDiff {
        m: Some(index.links as u64),
        ef_construct: Some(index.build_effort as u64),
        ..HnswConfigDiff::default()
    }
}

/// Short forms are what searches go through, so they are kept in memory wherever the rest is.
#[expect(deprecated, reason = "servers before 1.20 don't know what comes in place of `always_ram`")]
fn quantization(quantization: Quantization) -> Option<quantization_config::Quantization> {
    match quantization {
        Quantization::None => None,
        Quantization::Scalar => {
            Some(quantization_config::Quantization::Scalar(ScalarQuantization {
                r#type: QuantizationType::Int8.into(),
                quantile: Some(QUANTILE),
                always_ram: Some(true),
                memory: None,
            }))
        }
        Quantization::Binary => {
            Some(quantization_config::Quantization::Binary(BinaryQuantization {
                always_ram: Some(true),
                ..BinaryQuantization::default()
            }))
        }
    }
}

/// The server knows how rare a word is, and weighs it by that.
fn words() -> SparseVectorConfig {
    let params = SparseVectorParams { index: None, modifier: Some(Modifier::Idf.into()) };
    SparseVectorConfig { map: HashMap::from([(WORDS_VECTOR.to_owned(), params)]) }
}

/// What the server calls a kind of index.
pub(super) fn field_type(schema: Schema) -> FieldType {
    match schema {
        Schema::Keyword => FieldType::Keyword,
        Schema::Integer => FieldType::Integer,
        Schema::Float => FieldType::Float,
        Schema::Boolean => FieldType::Bool,
        Schema::Geo => FieldType::Geo,
    }
}

/// The settings of an index, with links in the graph or without.
pub(super) fn index_params(schema: Schema, enable_hnsw: Option<bool>) -> IndexParams {
    match schema {
        Schema::Keyword => IndexParams::KeywordIndexParams(KeywordIndexParams {
            enable_hnsw,
            ..KeywordIndexParams::default()
        }),
        Schema::Integer => IndexParams::IntegerIndexParams(IntegerIndexParams {
            lookup: Some(true),
            range: Some(true),
            enable_hnsw,
            ..IntegerIndexParams::default()
        }),
        Schema::Float => IndexParams::FloatIndexParams(FloatIndexParams {
            enable_hnsw,
            ..FloatIndexParams::default()
        }),
        Schema::Boolean => IndexParams::BoolIndexParams(BoolIndexParams {
            enable_hnsw,
            ..BoolIndexParams::default()
        }),
        Schema::Geo => {
            IndexParams::GeoIndexParams(GeoIndexParams { enable_hnsw, ..GeoIndexParams::default() })
        }
    }
}
