//! Collections and their indexes, as `collection.proto` has them.

use std::ops::RangeInclusive;

use clipmesh_proto::code::{FieldViolation, Reason};
use clipmesh_proto::search::v1;
use prost_types::FieldMask;

use super::timestamp;
use crate::collections::{Described, New, Stats};
use crate::filter::Field;
use crate::store::index::{FieldIndex, Indexes, Kind, Quantization, VectorIndex};
use crate::store::{Distance, IndexState, MAX_INDEXES, VectorIndexChange};

const MAX_WORD_FIELDS: usize = 8;
/// Of the graph; see `VectorIndex` in the contract.
const LINKS: RangeInclusive<u32> = 4..=128;
const BUILD_EFFORT: RangeInclusive<u32> = 4..=1_024;

/// Checks a new collection.
pub(crate) fn read(request: v1::CreateCollectionRequest) -> Result<New, FieldViolation> {
    let name = super::collection_name("name", request.name)?;
    let distance = read_distance(request.distance)?;
    let indexes = read_indexes(request.field_indexes)?;
    let graph = request.vector_index.unwrap_or_default();
    let vector_index = read_vector_index("vector_index", &graph)?.of(VectorIndex::default());
    let word_fields = read_word_fields(request.word_fields)?;
    Ok(New { name, distance, indexes, vector_index, word_fields })
}

/// A collection as callers see it.
pub(crate) fn write(described: Described) -> v1::Collection {
    let Described { collection, item_count, aliases } = described;
    let distance = match collection.distance {
        Distance::Cosine => v1::Distance::Cosine,
    };
    // Lots are our own affair.
    let shown = collection.indexes.all().filter(|index| index.field != Field::Lot);
    let word_fields = collection.word_fields.iter().map(Field::key).collect();
    v1::Collection {
        name: collection.name.to_string(),
        model_fingerprint: collection.fingerprint.to_string(),
        model_name: collection.model_name,
        dimension: u32::try_from(collection.dimension).unwrap_or(u32::MAX),
        distance: distance.into(),
        create_time: Some(timestamp(collection.create_time)),
        item_count,
        field_indexes: shown.map(write_index).collect(),
        vector_index: Some(write_vector_index(collection.vector_index)),
        word_fields,
        aliases: aliases.into_iter().map(|alias| alias.to_string()).collect(),
    }
}

/// Checks an index that came in the field `path`.
pub(crate) fn read_index(path: &str, index: &v1::FieldIndex) -> Result<FieldIndex, FieldViolation> {
    let field = super::field(&format!("{path}.key"), &index.key)?;
    if field == Field::Id {
        let message = "must be another field: items are looked up by `id` without an index";
        return Err(FieldViolation::new(format!("{path}.key"), Reason::Malformed, message));
    }
    let path = format!("{path}.kind");
    let Ok(asked) = v1::FieldIndexKind::try_from(index.kind) else {
        let message = format!("there is no kind with the number {}", index.kind);
        return Err(FieldViolation::new(path, Reason::OutOfRange, message));
    };
    let asked = read_kind(asked);
    let Some(own) = Indexes::built_in(&field) else {
        return Ok(FieldIndex { field, kind: asked.unwrap_or(Kind::Keyword) });
    };
    let shown = shown_kind(&field, own);
    if asked.is_some_and(|asked| asked != shown) {
        let fits = write_kind(shown).as_str_name();
        let message = format!("must be {fits} or not set: no other fits `{}`", field.key());
        return Err(FieldViolation::new(path, Reason::Malformed, message));
    }
    Ok(FieldIndex { field, kind: own })
}

/// An index as callers see it.
pub(crate) fn write_index(index: FieldIndex) -> v1::FieldIndex {
    let is_built_in = Indexes::built_in(&index.field).is_some();
    let kind = write_kind(shown_kind(&index.field, index.kind));
    v1::FieldIndex { key: index.field.key(), kind: kind.into(), is_built_in }
}

/// Checks what is to be changed of how a collection is searched.
pub(crate) fn read_update(
    collection: &v1::Collection,
    mask: Option<FieldMask>,
) -> Result<VectorIndexChange, FieldViolation> {
    let graph = collection.vector_index.unwrap_or_default();
    let set = read_vector_index("collection.vector_index", &graph)?;
    let paths = mask.map(|mask| mask.paths).unwrap_or_default();
    if paths.is_empty() {
        return Ok(set);
    }
    let whole = set.of(VectorIndex::default());
    let mut change = VectorIndexChange::default();
    for (i, path) in paths.iter().enumerate() {
        match path.as_str() {
            "vector_index" => {
                change = VectorIndexChange {
                    links: Some(whole.links),
                    build_effort: Some(whole.build_effort),
                    quantization: Some(whole.quantization),
                };
            }
            "vector_index.links" => change.links = Some(whole.links),
            "vector_index.build_effort" => change.build_effort = Some(whole.build_effort),
            "vector_index.quantization" => change.quantization = Some(whole.quantization),
            _ => {
                let message = "only `vector_index` and paths in it can be changed";
                let field = format!("update_mask.paths[{i}]");
                return Err(FieldViolation::new(field, Reason::Malformed, message));
            }
        }
    }
    Ok(change)
}

/// What is known of a collection's size and its caches.
pub(crate) fn write_stats(stats: &Stats) -> v1::GetCollectionStatsResponse {
    let state = match stats.status.state {
        IndexState::Ready => v1::IndexState::Ready,
        IndexState::Building => v1::IndexState::Building,
        IndexState::Failed => v1::IndexState::Failed,
    };
    v1::GetCollectionStatsResponse {
        item_count: stats.item_count,
        unindexed_count: stats.status.unindexed,
        index_state: state.into(),
        disk_bytes: stats.status.disk_bytes.unwrap_or_default(),
        vector_bytes: stats.vector_bytes,
        generation: stats.generation,
        result_cache: Some(stats.caches.results),
        embedding_cache: Some(stats.caches.embeddings),
    }
}

fn read_distance(number: i32) -> Result<Distance, FieldViolation> {
    match v1::Distance::try_from(number) {
        Ok(v1::Distance::Unspecified | v1::Distance::Cosine) => Ok(Distance::Cosine),
        Err(_) => {
            let message = format!("there is no distance with the number {number}");
            Err(FieldViolation::new("distance", Reason::OutOfRange, message))
        }
    }
}

fn read_indexes(indexes: Vec<v1::FieldIndex>) -> Result<Indexes, FieldViolation> {
    if indexes.len() > MAX_INDEXES {
        let message = format!("must be at most {MAX_INDEXES} indexes, not {}", indexes.len());
        return Err(FieldViolation::new("field_indexes", Reason::TooMany, message));
    }
    let mut read: Vec<FieldIndex> = Vec::new();
    for (i, index) in indexes.iter().enumerate() {
        let path = format!("field_indexes[{i}]");
        let index = read_index(&path, index)?;
        if read.iter().any(|other| other.field == index.field) {
            let message = format!("`{}` has an index already", index.field.key());
            return Err(FieldViolation::new(format!("{path}.key"), Reason::Duplicate, message));
        }
        read.push(index);
    }
    // Every collection has the others.
    Ok(Indexes::new(read.into_iter().filter(|index| Indexes::built_in(&index.field).is_none())))
}

fn read_word_fields(keys: Vec<String>) -> Result<Vec<Field>, FieldViolation> {
    if keys.len() > MAX_WORD_FIELDS {
        let message = format!("must be at most {MAX_WORD_FIELDS} fields, not {}", keys.len());
        return Err(FieldViolation::new("word_fields", Reason::TooMany, message));
    }
    let mut fields: Vec<Field> = Vec::new();
    for (i, key) in keys.iter().enumerate() {
        let path = format!("word_fields[{i}]");
        let field = super::field(&path, key)?;
        if Indexes::built_in(&field).is_some_and(|kind| kind != Kind::Keyword) {
            let message = format!("`{key}` holds no words");
            return Err(FieldViolation::new(path, Reason::Malformed, message));
        }
        if fields.contains(&field) {
            let message = format!("`{key}` is there already");
            return Err(FieldViolation::new(path, Reason::Duplicate, message));
        }
        fields.push(field);
    }
    Ok(fields)
}

/// What is set of it.
fn read_vector_index(
    path: &str,
    index: &v1::VectorIndex,
) -> Result<VectorIndexChange, FieldViolation> {
    let within = |name: &str, number: Option<u32>, range: RangeInclusive<u32>| match number {
        Some(number) if !range.contains(&number) => {
            let message = format!("must be {} to {}, not {number}", range.start(), range.end());
            Err(FieldViolation::new(format!("{path}.{name}"), Reason::OutOfRange, message))
        }
        number => Ok(number.map(|number| number as usize)),
    };
    let quantization = match v1::Quantization::try_from(index.quantization) {
        Ok(v1::Quantization::Unspecified) => None,
        Ok(v1::Quantization::None) => Some(Quantization::None),
        Ok(v1::Quantization::Scalar) => Some(Quantization::Scalar),
        Ok(v1::Quantization::Binary) => Some(Quantization::Binary),
        Err(_) => {
            let message =
                format!("there is no quantization with the number {}", index.quantization);
            let path = format!("{path}.quantization");
            return Err(FieldViolation::new(path, Reason::OutOfRange, message));
        }
    };
    Ok(VectorIndexChange {
        links: within("links", index.links, LINKS)?,
        build_effort: within("build_effort", index.build_effort, BUILD_EFFORT)?,
        quantization,
    })
}

fn write_vector_index(index: VectorIndex) -> v1::VectorIndex {
    let number = |number| Some(u32::try_from(number).unwrap_or(u32::MAX));
    let quantization = match index.quantization {
        Quantization::None => v1::Quantization::None,
        Quantization::Scalar => v1::Quantization::Scalar,
        Quantization::Binary => v1::Quantization::Binary,
    };
    v1::VectorIndex {
        links: number(index.links),
        build_effort: number(index.build_effort),
        quantization: quantization.into(),
    }
}

/// The store keeps the times of an item as numbers; to callers they are times.
fn shown_kind(field: &Field, kind: Kind) -> Kind {
    if matches!(field, Field::CreateTime | Field::UpdateTime) { Kind::Time } else { kind }
}

fn read_kind(kind: v1::FieldIndexKind) -> Option<Kind> {
    match kind {
        v1::FieldIndexKind::Unspecified => None,
        v1::FieldIndexKind::Keyword => Some(Kind::Keyword),
        v1::FieldIndexKind::Integer => Some(Kind::Integer),
        v1::FieldIndexKind::Float => Some(Kind::Float),
        v1::FieldIndexKind::Boolean => Some(Kind::Boolean),
        v1::FieldIndexKind::Time => Some(Kind::Time),
        v1::FieldIndexKind::Words => Some(Kind::Words),
        v1::FieldIndexKind::Geo => Some(Kind::Geo),
    }
}

fn write_kind(kind: Kind) -> v1::FieldIndexKind {
    match kind {
        Kind::Keyword => v1::FieldIndexKind::Keyword,
        Kind::Integer => v1::FieldIndexKind::Integer,
        Kind::Float => v1::FieldIndexKind::Float,
        Kind::Boolean => v1::FieldIndexKind::Boolean,
        Kind::Time => v1::FieldIndexKind::Time,
        Kind::Words => v1::FieldIndexKind::Words,
        Kind::Geo => v1::FieldIndexKind::Geo,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new() -> v1::CreateCollectionRequest {
        v1::CreateCollectionRequest { name: "pets".to_owned(), ..Default::default() }
    }

    fn index(key: &str, kind: v1::FieldIndexKind) -> v1::FieldIndex {
        v1::FieldIndex { key: key.to_owned(), kind: kind.into(), is_built_in: false }
    }

    fn indexed(field_indexes: Vec<v1::FieldIndex>) -> v1::CreateCollectionRequest {
        v1::CreateCollectionRequest { field_indexes, ..new() }
    }

    fn searched(vector_index: v1::VectorIndex) -> v1::CreateCollectionRequest {
        v1::CreateCollectionRequest { vector_index: Some(vector_index), ..new() }
    }

    fn worded(keys: &[&str]) -> v1::CreateCollectionRequest {
        let word_fields = keys.iter().map(|key| (*key).to_owned()).collect();
        v1::CreateCollectionRequest { word_fields, ..new() }
    }

    #[test]
    fn has_the_defaults_of_the_contract() {
        let read = read(new()).expect("accepted");
        assert_eq!(read.vector_index, VectorIndex::default(), "the store's own");
        assert_eq!(read.indexes, Indexes::default(), "none");
        assert!(read.word_fields.is_empty(), "none");
    }

    #[test]
    fn reads_what_is_asked_for() {
        let graph = v1::VectorIndex {
            links: Some(128),
            build_effort: Some(4),
            quantization: v1::Quantization::Scalar.into(),
        };
        let request = v1::CreateCollectionRequest {
            field_indexes: vec![
                index("metadata.tag", v1::FieldIndexKind::Unspecified),
                index("metadata.taken", v1::FieldIndexKind::Time),
                index("width", v1::FieldIndexKind::Integer),
                index("create_time", v1::FieldIndexKind::Time),
            ],
            vector_index: Some(graph),
            word_fields: vec!["metadata.caption".to_owned(), "filename".to_owned()],
            ..new()
        };
        let read = read(request).expect("accepted");
        let field = |name: &str| Field::Metadata(name.to_owned());
        let expected = [(field("tag"), Kind::Keyword), (field("taken"), Kind::Time)];
        let expected = expected.map(|(field, kind)| FieldIndex { field, kind });
        assert_eq!(read.indexes, Indexes::new(expected), "without those that are there anyway");
        let expected =
            VectorIndex { links: 128, build_effort: 4, quantization: Quantization::Scalar };
        assert_eq!(read.vector_index, expected, "on its bounds");
        assert_eq!(read.word_fields, [field("caption"), Field::Filename], "as they stand");
    }

    #[test]
    fn refuses_by_field_and_reason() {
        use v1::FieldIndexKind as Wire;
        let links = |links| searched(v1::VectorIndex { links: Some(links), ..Default::default() });
        let effort = |build_effort| {
            searched(v1::VectorIndex { build_effort: Some(build_effort), ..Default::default() })
        };
        let tag = || index("metadata.tag", Wire::Keyword);
        let odd = v1::FieldIndex { kind: 77, ..tag() };
        let many = (0..33).map(|i| index(&format!("metadata.f{i}"), Wire::Keyword)).collect();
        let quantization = v1::VectorIndex { quantization: 77, ..Default::default() };
        let cases = [
            (links(3), "vector_index.links", Reason::OutOfRange),
            (links(129), "vector_index.links", Reason::OutOfRange),
            (effort(3), "vector_index.build_effort", Reason::OutOfRange),
            (effort(1_025), "vector_index.build_effort", Reason::OutOfRange),
            (searched(quantization), "vector_index.quantization", Reason::OutOfRange),
            (indexed(many), "field_indexes", Reason::TooMany),
            (indexed(vec![tag(), tag()]), "field_indexes[1].key", Reason::Duplicate),
            (indexed(vec![index("", Wire::Float)]), "field_indexes[0].key", Reason::Malformed),
            (indexed(vec![index("lot", Wire::Integer)]), "field_indexes[0].key", Reason::Malformed),
            (indexed(vec![index("id", Wire::Keyword)]), "field_indexes[0].key", Reason::Malformed),
            (indexed(vec![odd]), "field_indexes[0].kind", Reason::OutOfRange),
            (
                indexed(vec![tag(), index("width", Wire::Keyword)]),
                "field_indexes[1].kind",
                Reason::Malformed,
            ),
            (
                indexed(vec![index("create_time", Wire::Integer)]),
                "field_indexes[0].kind",
                Reason::Malformed,
            ),
            (worded(&["uri"; 9]), "word_fields", Reason::TooMany),
            (worded(&["uri", "uri"]), "word_fields[1]", Reason::Duplicate),
            (worded(&["uri", "width"]), "word_fields[1]", Reason::Malformed),
            (worded(&["caption"]), "word_fields[0]", Reason::Malformed),
        ];
        for (request, field, reason) in cases {
            let violation = read(request.clone()).expect_err("refused");
            let refusal = (violation.field.as_str(), violation.reason);
            assert_eq!(refusal, (field, reason), "{request:?}");
        }
    }

    #[test]
    fn built_in_indexes_are_shown_as_callers_know_them() {
        let shown = |field, kind| write_index(FieldIndex { field, kind });
        let time = shown(Field::CreateTime, Kind::Integer);
        assert_eq!(time.kind(), v1::FieldIndexKind::Time, "a time, whatever it is kept as");
        assert!(time.is_built_in, "every collection has it");
        let own = shown(Field::Metadata("a".to_owned()), Kind::Geo);
        assert_eq!((own.key.as_str(), own.kind()), ("metadata.a", v1::FieldIndexKind::Geo));
        assert!(!own.is_built_in, "not every collection has it");
    }

    fn update(graph: Option<v1::VectorIndex>, paths: &[&str]) -> Result<VectorIndexChange, String> {
        let collection = v1::Collection { vector_index: graph, ..v1::Collection::default() };
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        read_update(&collection, Some(FieldMask { paths })).map_err(|violation| violation.field)
    }

    #[test]
    fn an_update_changes_what_its_mask_says() {
        let graph = v1::VectorIndex { links: Some(32), ..Default::default() };
        let links = VectorIndexChange { links: Some(32), ..VectorIndexChange::default() };
        assert_eq!(update(Some(graph), &[]), Ok(links), "what is set");
        assert_eq!(update(Some(graph), &["vector_index.links"]), Ok(links), "what is named");
        let effort = VectorIndexChange { build_effort: Some(100), ..Default::default() };
        let cleared = update(Some(graph), &["vector_index.build_effort"]);
        assert_eq!(cleared, Ok(effort), "back to the default, since it is not set");
        let whole = VectorIndexChange {
            links: Some(32),
            build_effort: Some(100),
            quantization: Some(Quantization::None),
        };
        assert_eq!(update(Some(graph), &["vector_index"]), Ok(whole), "all of it");
        assert_eq!(update(None, &[]), Ok(VectorIndexChange::default()), "nothing");
        let refused = update(Some(graph), &["vector_index", "distance"]);
        assert_eq!(refused, Err("update_mask.paths[1]".to_owned()), "can't be changed");
        let bad = v1::VectorIndex { links: Some(1), ..Default::default() };
        let refused = update(Some(bad), &[]);
        assert_eq!(refused, Err("collection.vector_index.links".to_owned()), "out of range");
    }
}
