//! Ours in the types of Qdrant's protocol, and back.

use std::collections::HashMap;

use clipmesh_proto::Embedding;
use qdrant_client::qdrant::vector_input::Variant;
use qdrant_client::qdrant::vectors_output::VectorsOptions;
use qdrant_client::qdrant::with_payload_selector::SelectorOptions;
use qdrant_client::qdrant::{
    Condition, DenseVector, Filter, GeoPoint, GeoRadius, NamedVectors, PayloadExcludeSelector,
    PointId, PointStruct, Query, Range, SparseVector, Value, Vector, VectorInput, VectorOutput,
    Vectors, VectorsOutput, WithPayloadSelector, WithVectorsSelector, query, vector, vector_output,
    vectors,
};
use serde_json::{Map, Value as Json};
use uuid::Uuid;

use super::record;
use crate::filter;
use crate::item::Item;
use crate::store::lower::{Clauses, Question, point_id};
use crate::store::payload::{self, ETAG, FOLDED, TIMES, WORDS};
use crate::store::{Collection, Error, Point};
use crate::words::Weights;

/// A payload of the protocol.
pub(super) type Payload = HashMap<String, Value>;

/// The name of the sparse vector of an item's words.
pub(super) const WORDS_VECTOR: &str = "words";

pub(super) fn id(uuid: Uuid) -> PointId {
    uuid.to_string().into()
}

pub(super) fn filter(clauses: &Clauses) -> Filter {
    let all = |questions: &[Question]| questions.iter().map(condition).collect();
    Filter {
        must: all(&clauses.must),
        should: all(&clauses.should),
        must_not: all(&clauses.must_not),
        min_should: None,
    }
}

fn condition(question: &Question) -> Condition {
    match question {
        Question::Keywords { path, any } => Condition::matches(path, any.clone()),
        Question::Integers { path, any } => Condition::matches(path, any.clone()),
        Question::Boolean { path, value } => Condition::matches(path, *value),
        Question::Range { path, range } => {
            let filter::Range { gt, gte, lt, lte } = *range;
            Condition::range(path, Range { lt, gt, gte, lte })
        }
        // Without a text index, and nothing makes one, the server looks for the text as it is.
        // Servers before 1.20 have no other question for that.
        Question::Substring { path, text } => Condition::matches_text(path, text),
        Question::IsEmpty { path } => Condition::is_empty(path),
        Question::Near { path, circle } => {
            let center = GeoPoint { lon: circle.center.lon, lat: circle.center.lat };
            // The protocol's radius is a short float.
            let radius = circle.radius_meters as f32;
            Condition::geo_radius(path, GeoRadius { center: Some(center), radius })
        }
        Question::Points(uuids) => Condition::has_id(uuids.iter().copied().map(id)),
        Question::All(clauses) => filter(clauses).into(),
    }
}

/// Everything of an item that is read back: not the forms that only searches look at.
pub(super) fn read_fields() -> WithPayloadSelector {
    let fields = [FOLDED, WORDS, TIMES, ETAG].map(str::to_owned).to_vec();
    SelectorOptions::Exclude(PayloadExcludeSelector { fields }).into()
}

/// The vector of a collection's items, if it is wanted.
pub(super) fn read_vectors(collection: &Collection, wanted: bool) -> WithVectorsSelector {
    if wanted { vec![&*record::vector_name(&collection.fingerprint)].into() } else { false.into() }
}

pub(super) fn point(collection: &Collection, point: Point) -> PointStruct {
    let payload = payload::write(&point.item);
    let dense = DenseVector { data: point.vector.into_values() };
    let mut named = HashMap::from([(
        record::vector_name(&collection.fingerprint),
        vector(vector::Vector::Dense(dense)),
    )]);
    let Weights { words, weights } = collection.words_of(&point.item);
    if !words.is_empty() {
        let sparse = SparseVector { values: weights, indices: words };
        named.insert(WORDS_VECTOR.to_owned(), vector(vector::Vector::Sparse(sparse)));
    }
    let vectors = vectors::VectorsOptions::Vectors(NamedVectors { vectors: named });
    PointStruct {
        id: Some(id(point_id(point.item.id.as_str()))),
        payload: payload.into_iter().map(|(key, value)| (key, value.into())).collect(),
        vectors: Some(Vectors { vectors_options: Some(vectors) }),
    }
}

fn vector(vector: vector::Vector) -> Vector {
    Vector { vector: Some(vector), ..Vector::default() }
}

/// What is nearest to a vector.
pub(super) fn nearest(vector: &Embedding) -> Query {
    nearest_to(Variant::Dense(DenseVector { data: vector.values().to_vec() }))
}

/// What fits words best.
pub(super) fn fitting(words: &[String]) -> Query {
    let Weights { words, weights } = Weights::of_query(words);
    nearest_to(Variant::Sparse(SparseVector { values: weights, indices: words }))
}

fn nearest_to(input: Variant) -> Query {
    let input = VectorInput { variant: Some(input) };
    Query { variant: Some(query::Variant::Nearest(input)) }
}

pub(super) fn item(payload: Payload) -> Result<Item, Error> {
    let payload: Map<_, _> =
        payload.into_iter().map(|(key, value)| (key, Json::from(value))).collect();
    payload::read(&payload)
}

/// The dense vector among those of a point, if any came along.
pub(super) fn embedding(vectors: Option<VectorsOutput>) -> Result<Option<Embedding>, Error> {
    let outputs: Vec<VectorOutput> = match vectors.and_then(|vectors| vectors.vectors_options) {
        Some(VectorsOptions::Vector(one)) => vec![one],
        Some(VectorsOptions::Vectors(named)) => named.vectors.into_values().collect(),
        None => Vec::new(),
    };
    let dense = outputs.into_iter().find_map(|output| match output.into_vector() {
        vector_output::Vector::Dense(dense) => Some(dense.data),
        vector_output::Vector::Sparse(_) | vector_output::Vector::MultiDense(_) => None,
    });
    let embedding = dense.map(Embedding::new).transpose();
    embedding.map_err(|error| Error::Failed(format!("a stored vector: {error}")))
}
