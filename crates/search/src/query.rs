//! The use case that the service is named after.
//!
//! ```text
//! collection ─► result cache ─► vector ─► store ─► plan ─► fill the result cache
//!                                 │                 │
//!                                 │                 └ as they are, in groups, diverse, or fused
//!                 one, or the weighted sum of several:
//!                                 ├ given, or that of a stored item
//!                                 └ embedding cache ─► embedder
//! ```
//!
//! One search is a batch of one: the vectors of a batch are obtained at the same time, and the
//! store answers what is asked of one collection in one call. Callers that want the same answer at
//! the same time share one search.

mod ask;
mod direction;
mod diversity;
mod fields;
mod flight;
mod fusion;
mod mix;
mod part;
mod plan;
mod resolved;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use clipmesh_proto::Embedding;
use clipmesh_proto::code::{FieldViolation, Reason};
use clipmesh_proto::ids::CollectionName;
use clipmesh_proto::search::v1;
use futures::future::{join_all, try_join_all};
use serde::Serialize;
use tokio::time::Instant;

use crate::cache::{Caches, Ticket};
use crate::error::Error;
use crate::filter::{Field, Filter};
use crate::item::{Item, Scalar};
use crate::store::index::{Kind, VectorIndex};
use crate::store::{self, Collection, VectorStore};
use crate::vectors::Vectors;

use part::Source;
use resolved::Resolved;

pub(crate) use direction::Direction;
pub(crate) use fields::Fields;
pub(crate) use flight::Flights;
pub(crate) use part::{Example, Part};

/// A search, checked as far as it can be without its collection.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) collection: CollectionName,
    /// What to look for: one thing, or the parts of a mix; empty for words alone.
    pub(crate) query: Vec<Part>,
    pub(crate) way: Way,
    pub(crate) filter: Filter,
    /// Most hits, or most groups.
    pub(crate) limit: usize,
    pub(crate) offset: usize,
    pub(crate) threshold: Option<f32>,
    pub(crate) exact: bool,
    /// `None`: the store's own.
    pub(crate) effort: Option<usize>,
    /// What of items is shown.
    pub(crate) fields: Fields,
    /// Whether their vectors are shown.
    pub(crate) vectors: bool,
}

/// Which of what is near, or worded so, are the hits.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) enum Way {
    /// The nearest.
    Nearest,
    /// The nearest of each value of a field.
    Groups { field: Field, size: usize },
    /// Of so many of the nearest, those that differ from one another.
    Diverse { weight: f32, candidates: usize },
    /// The best by words; with a query, the best by both.
    Words { words: Vec<String>, weight: f32, query_weight: f32 },
}

/// What a search finds.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    Hits(Vec<Ranked>),
    Groups { field: Field, groups: Vec<(Scalar, Vec<Ranked>)> },
}

/// An item that was found, and by what.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ranked {
    pub(crate) item: Item,
    /// Cosine similarity to the query; 0 without one.
    pub(crate) score: f32,
    pub(crate) word_score: f32,
    pub(crate) fused_score: f32,
    /// It may be there without having been asked for.
    pub(crate) vector: Option<Embedding>,
}

/// Answers searches.
#[derive(Debug)]
pub(crate) struct Searches {
    pub(crate) store: Arc<dyn VectorStore>,
    pub(crate) vectors: Arc<Vectors>,
    pub(crate) caches: Caches,
    pub(crate) max_image_bytes: ByteSize,
    pub(crate) flights: Flights,
}

/// What a caller is told, and how it was come by.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    /// Without its timing.
    pub(crate) response: v1::SearchResponse,
    pub(crate) timing: Timing,
}

/// Where the time went.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Timing {
    pub(crate) total: Duration,
    pub(crate) embed: Duration,
    pub(crate) store: Duration,
    /// The look-ups in a cache that is not in this process.
    pub(crate) cache: Duration,
    pub(crate) embedding_cached: bool,
    pub(crate) result_cached: bool,
    /// Whether the cache was not asked for the answer.
    pub(crate) cache_bypassed: bool,
}

/// Everything that the answer depends on, beside the items of the collection.
#[derive(Debug, Serialize)]
struct Identity<'a> {
    query: Vec<part::Identity<'a>>,
    way: &'a Way,
    filter: &'a Filter,
    limit: usize,
    offset: usize,
    threshold: Option<u32>,
    exact: bool,
    effort: Option<usize>,
    fields: &'a Fields,
    vectors: bool,
    unindexed: &'a [Field],
    index: &'a VectorIndex,
}

/// How far a search came before the store is asked.
#[derive(Debug)]
enum Step {
    Known(Answer),
    Open(Box<Open>),
}

/// A search that the store has to answer.
#[derive(Debug)]
struct Open {
    ticket: Ticket,
    resolved: Arc<Resolved>,
    /// Where the time went so far.
    timing: Timing,
}

impl Searches {
    /// Finds the items nearest to a query, best first.
    pub(crate) async fn search(&self, request: Request) -> Result<Answer, Error> {
        let nothing = || Err(Error::Internal("a search has no answer".to_owned()));
        self.search_all(vec![Ok(request)]).await.pop().unwrap_or_else(nothing)
    }

    /// Answers several searches, each by itself and in their order; those that could not be read
    /// with what is wrong with them.
    pub(crate) async fn search_all(
        &self,
        requests: Vec<Result<Request, FieldViolation>>,
    ) -> Vec<Result<Answer, Error>> {
        let start = Instant::now();
        let collections = self.resolve_all(&requests).await;
        let steps = requests.into_iter().map(async |request| {
            let request = request?;
            let collection = collections[&request.collection].as_ref();
            self.prepare(request, collection.map_err(Clone::clone)?).await
        });
        let mut answers = Vec::new();
        let mut open = Vec::new();
        for (at, step) in join_all(steps).await.into_iter().enumerate() {
            match step {
                Ok(Step::Open(one)) => {
                    open.push((at, one));
                    answers.push(Ok(Answer::default()));
                }
                Ok(Step::Known(answer)) => answers.push(Ok(answer)),
                Err(error) => answers.push(Err(error)),
            }
        }
        for (at, answer) in self.ask(open).await {
            answers[at] = answer;
        }
        let total = start.elapsed();
        for answer in answers.iter_mut().flatten() {
            answer.timing.total = total;
        }
        answers
    }

    /// Checks the parts of a query against its collection.
    pub(crate) async fn check(
        &self,
        query: Vec<Part>,
        collection: &Collection,
    ) -> Result<Vec<Source>, Error> {
        let max_image_bytes = self.max_image_bytes.as_u64();
        let sources = query.into_iter().map(|part| part.check(collection, max_image_bytes));
        try_join_all(sources).await
    }

    async fn resolve_all(
        &self,
        requests: &[Result<Request, FieldViolation>],
    ) -> BTreeMap<CollectionName, Result<Collection, store::Error>> {
        let names: BTreeSet<_> =
            requests.iter().flatten().map(|request| &request.collection).collect();
        let resolved = names.into_iter().map(async |name| {
            let collection = self.store.resolve(name.clone()).await;
            (name.clone(), collection)
        });
        join_all(resolved).await.into_iter().collect()
    }

    /// Takes a search as far as the store's answer, or to the answer if it is known.
    async fn prepare(&self, mut request: Request, collection: &Collection) -> Result<Step, Error> {
        request.way.check(collection)?;
        let query = std::mem::take(&mut request.query);
        let mut sources = self.check(query, collection).await?;
        let unindexed = collection.indexes.missing_for(&request.filter);
        let identity = Identity::of(&request, &sources, collection, &unindexed).to_bytes()?;
        let keys: Vec<_> = sources.iter().filter_map(|source| source.key(collection)).collect();
        let looked_up = self.caches.look_up(collection, &identity, &keys).await;
        let (cache, cache_bypassed) = (looked_up.took, looked_up.bypassed);
        if let Some(response) = looked_up.answer {
            let timing = Timing { cache, result_cached: true, ..Timing::default() };
            return Ok(Step::Known(Answer { response, timing }));
        }
        part::tell(&mut sources, collection, looked_up.vectors);
        let exclude = sources.iter().filter_map(Source::item).cloned().collect();
        let direction = if sources.is_empty() {
            None
        } else {
            Some(self.direction(sources, collection).await?)
        };
        let timing = direction.as_ref().map(Direction::timing).unwrap_or_default();
        let vector = direction.map(|direction| direction.vector);
        let collection = collection.name.clone();
        let resolved = Arc::new(Resolved { request, collection, unindexed, exclude, vector });
        let timing = Timing { cache, cache_bypassed, ..timing };
        Ok(Step::Open(Box::new(Open { ticket: looked_up.ticket, resolved, timing })))
    }
}

// === impl Way ===

impl Way {
    /// Refuses what the collection has not been made for.
    fn check(&self, collection: &Collection) -> Result<(), Error> {
        match self {
            Self::Groups { field, .. } => match collection.indexes.kind(field) {
                Some(Kind::Keyword | Kind::Integer) => Ok(()),
                Some(Kind::Float | Kind::Boolean | Kind::Time | Kind::Words | Kind::Geo) | None => {
                    Err(Error::NotIndexed(field.key()))
                }
            },
            Self::Words { .. } if collection.word_fields.is_empty() => {
                let message = format!(
                    "collection `{}` has no fields to look for words in; they are named as \
                     `word_fields` when a collection is made",
                    collection.name
                );
                Err(FieldViolation::new("words", Reason::Conflict, message).into())
            }
            Self::Words { .. } | Self::Nearest | Self::Diverse { .. } => Ok(()),
        }
    }
}

// === impl Identity ===

impl<'a> Identity<'a> {
    fn of(
        request: &'a Request,
        sources: &'a [Source],
        collection: &'a Collection,
        unindexed: &'a [Field],
    ) -> Self {
        Self {
            query: sources.iter().map(Source::identity).collect(),
            way: &request.way,
            filter: &request.filter,
            limit: request.limit,
            offset: request.offset,
            threshold: request.threshold.map(f32::to_bits),
            exact: request.exact,
            effort: request.effort,
            fields: &request.fields,
            vectors: request.vectors,
            unindexed,
            // Whoever changes it wants to see what that does.
            index: &collection.vector_index,
        }
    }

    fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        serde_json::to_vec(self)
            .map_err(|error| Error::Internal(format!("write down a query: {error}")))
    }
}
