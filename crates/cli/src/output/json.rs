//! The messages of the contracts as JSON documents: the names of the contract, times in RFC 3339.

use jiff::Timestamp;
use prost_types::value::Kind;
use serde::Serialize;
use serde_json::{Map, Value};

use clipmesh_proto::embedder::v1 as embedder;
use clipmesh_proto::search::v1 as search;

/// `clipmesh.search.v1.Item`.
#[derive(Debug, Serialize)]
pub(crate) struct Item {
    pub(crate) id: String,
    uri: String,
    filename: String,
    width: u32,
    height: u32,
    format: String,
    byte_size: u64,
    content_hash: String,
    pixel_hash: String,
    /// In hexadecimal digits, for no double holds 64 bits; empty without a picture.
    perceptual_hash: String,
    create_time: Option<String>,
    update_time: Option<String>,
    metadata: Value,
    etag: String,
}

/// `clipmesh.search.v1.Hit`, with its place.
#[derive(Debug, Serialize)]
pub(crate) struct Hit {
    /// 1 is the best of all, whatever the offset.
    pub(crate) rank: u64,
    pub(crate) score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) word_score: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fused_score: Option<f32>,
    /// As much of it as was asked for.
    #[serde(flatten)]
    pub(crate) item: Value,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) vector: Vec<f32>,
}

/// `clipmesh.search.v1.SearchTiming`.
#[derive(Debug, Serialize)]
pub(crate) struct Timing {
    pub(crate) total_ms: f64,
    pub(crate) embed_ms: f64,
    pub(crate) store_ms: f64,
    pub(crate) cache_ms: f64,
    pub(crate) embedding_cached: bool,
    pub(crate) result_cached: bool,
    pub(crate) cache_bypassed: bool,
}

/// `clipmesh.search.v1.Collection`.
#[derive(Debug, Serialize)]
pub(crate) struct Collection {
    name: String,
    model_fingerprint: String,
    model_name: String,
    dimension: u32,
    distance: &'static str,
    create_time: Option<String>,
    item_count: u64,
    aliases: Vec<String>,
    field_indexes: Vec<FieldIndex>,
    word_fields: Vec<String>,
    vector_index: Option<VectorIndex>,
}

/// `clipmesh.search.v1.FieldIndex`.
#[derive(Debug, Serialize)]
pub(crate) struct FieldIndex {
    key: String,
    kind: &'static str,
    is_built_in: bool,
}

#[derive(Debug, Serialize)]
struct VectorIndex {
    links: Option<u32>,
    build_effort: Option<u32>,
    quantization: &'static str,
}

/// `clipmesh.embedder.v1.Model`.
#[derive(Debug, Serialize)]
pub(crate) struct Model {
    name: String,
    fingerprint: String,
    dimension: u32,
    modalities: Vec<&'static str>,
    device: String,
    dtype: String,
    max_batch_size: u32,
    context_length: u32,
    image_size: u32,
    limits: Option<Limits>,
}

#[derive(Debug, Serialize)]
struct Limits {
    max_inputs: u32,
    max_image_bytes: u64,
    max_image_pixels: u64,
    max_text_bytes: u64,
}

// === impl Item ===

impl Item {
    /// The item with its id and these fields alone, or with all of them if there are none.
    pub(crate) fn only(self, fields: &[String]) -> Result<Value, serde_json::Error> {
        let mut value = serde_json::to_value(self)?;
        if let Some(object) = value.as_object_mut()
            && !fields.is_empty()
        {
            let of_item = |field: &String| field.split('.').next().unwrap_or(field).to_owned();
            let wanted: Vec<String> = fields.iter().map(of_item).collect();
            object.retain(|name, _| name == "id" || wanted.contains(name));
        }
        Ok(value)
    }
}

// === conversions ===

impl From<search::Item> for Item {
    fn from(item: search::Item) -> Self {
        Self {
            id: item.id,
            uri: item.uri,
            filename: item.filename,
            width: item.width,
            height: item.height,
            format: item.format,
            byte_size: item.byte_size,
            perceptual_hash: match item.content_hash.is_empty() {
                true => String::new(),
                false => format!("{:016x}", item.perceptual_hash),
            },
            content_hash: item.content_hash,
            pixel_hash: item.pixel_hash,
            create_time: item.create_time.map(rfc3339),
            update_time: item.update_time.map(rfc3339),
            metadata: object(item.metadata.unwrap_or_default()),
            etag: item.etag,
        }
    }
}

impl From<search::SearchTiming> for Timing {
    fn from(timing: search::SearchTiming) -> Self {
        Self {
            total_ms: timing.total_ms,
            embed_ms: timing.embed_ms,
            store_ms: timing.store_ms,
            cache_ms: timing.cache_ms,
            embedding_cached: timing.embedding_cached,
            result_cached: timing.result_cached,
            cache_bypassed: timing.cache_bypassed,
        }
    }
}

impl From<search::Collection> for Collection {
    fn from(collection: search::Collection) -> Self {
        let distance = match collection.distance() {
            search::Distance::Cosine => "cosine",
            search::Distance::Unspecified => "unspecified",
        };
        Self {
            name: collection.name,
            model_fingerprint: collection.model_fingerprint,
            model_name: collection.model_name,
            dimension: collection.dimension,
            distance,
            create_time: collection.create_time.map(rfc3339),
            item_count: collection.item_count,
            aliases: collection.aliases,
            field_indexes: collection.field_indexes.into_iter().map(FieldIndex::from).collect(),
            word_fields: collection.word_fields,
            vector_index: collection.vector_index.map(|index| VectorIndex {
                links: index.links,
                build_effort: index.build_effort,
                quantization: quantization(index.quantization()),
            }),
        }
    }
}

impl From<search::FieldIndex> for FieldIndex {
    fn from(index: search::FieldIndex) -> Self {
        let kind = index_kind(index.kind());
        Self { key: index.key, kind, is_built_in: index.is_built_in }
    }
}

impl From<embedder::Model> for Model {
    fn from(model: embedder::Model) -> Self {
        Self {
            modalities: model.modalities().map(modality).collect(),
            name: model.name,
            fingerprint: model.fingerprint,
            dimension: model.dimension,
            device: model.device,
            dtype: model.dtype,
            max_batch_size: model.max_batch_size,
            context_length: model.context_length,
            image_size: model.image_size,
            limits: model.limits.map(|limits| Limits {
                max_inputs: limits.max_inputs,
                max_image_bytes: limits.max_image_bytes,
                max_image_pixels: limits.max_image_pixels,
                max_text_bytes: limits.max_text_bytes,
            }),
        }
    }
}

pub(crate) fn modality(modality: embedder::Modality) -> &'static str {
    match modality {
        embedder::Modality::Image => "image",
        embedder::Modality::Text => "text",
        embedder::Modality::Unspecified => "unspecified",
    }
}

/// What a kind of index is called on the command line.
pub(crate) fn index_kind(kind: search::FieldIndexKind) -> &'static str {
    match kind {
        search::FieldIndexKind::Keyword => "keyword",
        search::FieldIndexKind::Integer => "integer",
        search::FieldIndexKind::Float => "float",
        search::FieldIndexKind::Boolean => "boolean",
        search::FieldIndexKind::Time => "time",
        search::FieldIndexKind::Words => "words",
        search::FieldIndexKind::Geo => "geo",
        search::FieldIndexKind::Unspecified => "unspecified",
    }
}

pub(crate) fn quantization(quantization: search::Quantization) -> &'static str {
    match quantization {
        search::Quantization::None => "none",
        search::Quantization::Scalar => "scalar",
        search::Quantization::Binary => "binary",
        search::Quantization::Unspecified => "unspecified",
    }
}

/// A time as `2026-03-01T12:00:00Z`; a time that no calendar has as the number it is.
fn rfc3339(time: prost_types::Timestamp) -> String {
    match timestamp(time) {
        Some(time) => time.to_string(),
        None => time.seconds.to_string(),
    }
}

pub(crate) fn timestamp(time: prost_types::Timestamp) -> Option<Timestamp> {
    Timestamp::new(time.seconds, time.nanos).ok()
}

pub(crate) fn object(fields: prost_types::Struct) -> Value {
    let fields = fields.fields.into_iter().map(|(name, field)| (name, value(field)));
    Value::Object(fields.collect::<Map<_, _>>())
}

pub(crate) fn value(field: prost_types::Value) -> Value {
    match field.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(boolean)) => Value::Bool(boolean),
        Some(Kind::NumberValue(number)) => plain_number(number),
        Some(Kind::StringValue(text)) => Value::String(text),
        Some(Kind::ListValue(list)) => list.values.into_iter().map(value).collect(),
        Some(Kind::StructValue(fields)) => object(fields),
    }
}

/// The contract knows only doubles; a whole one is written as people wrote it, without `.0`.
fn plain_number(number: f64) -> Value {
    const LARGEST_EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() < LARGEST_EXACT {
        return Value::from(number as i64);
    }
    Value::from(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_comes_back_as_it_was_given() {
        let number = |number| prost_types::Value { kind: Some(Kind::NumberValue(number)) };
        let fields = prost_types::Struct {
            fields: [("year".to_owned(), number(2020.0)), ("score".to_owned(), number(0.5))].into(),
        };
        let text = object(fields).to_string();
        assert_eq!(text, r#"{"score":0.5,"year":2020}"#, "whole numbers stay whole");
    }

    #[test]
    fn an_item_can_be_shown_in_part() {
        let item = search::Item { id: "a".to_owned(), width: 5, ..search::Item::default() };
        let fields = ["metadata.year".to_owned(), "width".to_owned()];
        let shown = Item::from(item).only(&fields).expect("a document");
        let expected = serde_json::json!({"id": "a", "width": 5, "metadata": {}});
        assert_eq!(shown, expected, "what was asked for");
    }

    #[test]
    fn times_are_rfc_3339() {
        let noon = prost_types::Timestamp { seconds: 1_772_366_400, nanos: 0 };
        assert_eq!(rfc3339(noon), "2026-03-01T12:00:00Z", "a time");
        let never = prost_types::Timestamp { seconds: i64::MAX, nanos: 0 };
        assert_eq!(rfc3339(never), i64::MAX.to_string(), "beyond the calendar");
    }
}
