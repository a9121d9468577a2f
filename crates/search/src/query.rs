//! The use case that the service is named after.
//!
//! ```text
//! collection ─► result cache ─► vector ─► store ─► fill the result cache
//!                                 ├ given, or that of a stored item
//!                                 └ embedding cache ─► embedder
//! ```

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytesize::ByteSize;
use clipmesh_proto::Embedding;
use clipmesh_proto::code::{FieldViolation, Reason};
use clipmesh_proto::ids::{CollectionName, ContentHash, Fingerprint, ItemId};
use clipmesh_proto::search::v1;
use serde::Serialize;
use tokio::time::Instant;

use crate::cache::{Key, Results};
use crate::convert;
use crate::embedder::check_image_bytes;
use crate::error::Error;
use crate::filter::Filter;
use crate::store::{Collection, Search, VectorStore};
use crate::vectors::{Obtained, Vectors, content_hash};

/// A search, checked as far as it can be without its collection.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) collection: CollectionName,
    pub(crate) query: Query,
    pub(crate) filter: Filter,
    pub(crate) limit: usize,
    pub(crate) offset: usize,
    pub(crate) threshold: Option<f32>,
}

/// What to look for.
#[derive(Clone, Debug)]
pub(crate) enum Query {
    /// The bytes of an image file; not empty.
    Image(Bytes),
    /// Not empty.
    Text(String),
    Vector {
        values: Embedding,
        /// The model that made it, if the caller says so.
        fingerprint: Option<Fingerprint>,
    },
    /// An item of the collection.
    Item(ItemId),
}

/// Answers searches.
#[derive(Debug)]
pub(crate) struct Searches {
    pub(crate) store: Arc<dyn VectorStore>,
    pub(crate) vectors: Arc<Vectors>,
    pub(crate) results: Results,
    pub(crate) max_image_bytes: ByteSize,
}

/// The hits, and how they were come by.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) hits: Vec<v1::Hit>,
    pub(crate) total: Duration,
    pub(crate) embed: Duration,
    pub(crate) store: Duration,
    pub(crate) embedding_cached: bool,
    pub(crate) result_cached: bool,
}

/// What a query is looked for in the result cache by: content, not the bytes that carried it.
#[derive(Debug, Serialize)]
enum Identity<'a> {
    Image(String),
    Text(&'a str),
    Vector(Vec<u32>),
    Item(&'a str),
}

impl Searches {
    /// Finds the items nearest to a query, best first.
    pub(crate) async fn search(&self, request: Request) -> Result<Answer, Error> {
        let start = Instant::now();
        let collection = self.store.collection(&request.collection)?;
        self.check(&request.query, &collection)?;
        let image_hash = match &request.query {
            Query::Image(image) => Some(content_hash(image).await?),
            Query::Text(_) | Query::Vector { .. } | Query::Item(_) => None,
        };
        let key = Key::result(&collection, &request.identity(image_hash.as_ref())?);
        if let Some(hits) = self.results.get(key).await {
            let total = start.elapsed();
            return Ok(Answer { hits, total, result_cached: true, ..Answer::default() });
        }

        let mut answer = Answer::default();
        let exclude = match &request.query {
            Query::Item(id) => Some(id.clone()),
            Query::Image(_) | Query::Text(_) | Query::Vector { .. } => None,
        };
        let vector = self.vector(request.query, image_hash, &collection, &mut answer).await?;

        let asked = Instant::now();
        let search = Search {
            vector,
            filter: request.filter,
            exclude,
            offset: request.offset,
            limit: request.limit,
            threshold: request.threshold,
        };
        let hits = self.store.search(request.collection, search).await?;
        answer.store += asked.elapsed();
        answer.hits = hits.into_iter().map(convert::query::write_hit).collect();
        self.results.put(key, &answer.hits).await;
        answer.total = start.elapsed();
        Ok(answer)
    }

    /// What can be said against a query once its collection is known.
    fn check(&self, query: &Query, collection: &Collection) -> Result<(), Error> {
        match query {
            Query::Image(image) => check_image_bytes(image, self.max_image_bytes.as_u64())
                .map_err(|violation| violation.renamed("query.image").into()),
            Query::Vector { values, fingerprint } => check_vector(values, fingerprint, collection),
            Query::Text(_) | Query::Item(_) => Ok(()),
        }
    }

    async fn vector(
        &self,
        query: Query,
        image_hash: Option<ContentHash>,
        collection: &Collection,
        answer: &mut Answer,
    ) -> Result<Embedding, Error> {
        let (obtained, field) = match query {
            Query::Vector { values, .. } => return Ok(values),
            Query::Item(id) => {
                let asked = Instant::now();
                let found = self.store.get(collection.name.clone(), id.clone()).await?;
                answer.store = asked.elapsed();
                let collection = collection.name.clone();
                return Ok(found.ok_or(Error::NoItem { collection, id })?.vector);
            }
            Query::Text(text) => (self.vectors.of_text(text, collection).await, "query.text"),
            Query::Image(image) => {
                let hash = match image_hash {
                    Some(hash) => hash,
                    None => content_hash(&image).await?,
                };
                (self.vectors.of_image(image, &hash, collection).await, "query.image")
            }
        };
        let Obtained { embedded, is_cached, took } =
            obtained.map_err(|error| error.in_field(field))?;
        answer.embed = took;
        answer.embedding_cached = is_cached;
        Ok(embedded.vector)
    }
}

impl Request {
    /// Everything that the hits depend on, beside the collection.
    fn identity(&self, image_hash: Option<&ContentHash>) -> Result<Vec<u8>, Error> {
        let query = match &self.query {
            Query::Image(_) => {
                Identity::Image(image_hash.map(ToString::to_string).unwrap_or_default())
            }
            Query::Text(text) => Identity::Text(text),
            Query::Vector { values, .. } => {
                Identity::Vector(values.values().iter().map(|value| value.to_bits()).collect())
            }
            Query::Item(id) => Identity::Item(id.as_str()),
        };
        let threshold = self.threshold.map(f32::to_bits);
        serde_json::to_vec(&(query, &self.filter, self.limit, self.offset, threshold))
            .map_err(|error| Error::Internal(format!("write down a query: {error}")))
    }
}

fn check_vector(
    values: &Embedding,
    fingerprint: &Option<Fingerprint>,
    collection: &Collection,
) -> Result<(), Error> {
    if let Some(actual) = fingerprint
        && *actual != collection.fingerprint
    {
        return Err(Error::ModelMismatch {
            collection: collection.name.clone(),
            expected: collection.fingerprint.clone(),
            actual: actual.clone(),
        });
    }
    let (expected, actual) = (collection.dimension, values.dimension());
    if actual != expected {
        let message = format!("must have {expected} values, not {actual}");
        let field = "query.vector.values";
        return Err(FieldViolation::new(field, Reason::WrongDimension, message).into());
    }
    Ok(())
}
