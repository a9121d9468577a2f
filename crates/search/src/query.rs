//! The use case that the service is named after.
//!
//! ```text
//! collection ─► result cache ─► vector ─► store ─► fill the result cache
//!                                 │
//!                 one, or the weighted sum of several:
//!                                 ├ given, or that of a stored item
//!                                 └ embedding cache ─► embedder
//! ```

mod mix;
mod part;

use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use clipmesh_proto::Embedding;
use clipmesh_proto::ids::CollectionName;
use clipmesh_proto::search::v1;
use futures::future::try_join_all;
use serde::Serialize;
use tokio::time::Instant;

use crate::cache::{Key, Results};
use crate::convert;
use crate::embedder::{Ask, Lane};
use crate::error::Error;
use crate::filter::Filter;
use crate::store::{Collection, Search, Target, VectorStore};
use crate::vectors::{Obtained, Vectors};

use part::{Content, Source};
pub(crate) use part::{Example, Part};

/// A search, checked as far as it can be without its collection.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) collection: CollectionName,
    /// What to look for: one thing, or the parts of a mix; never empty.
    pub(crate) query: Vec<Part>,
    pub(crate) filter: Filter,
    pub(crate) limit: usize,
    pub(crate) offset: usize,
    pub(crate) threshold: Option<f32>,
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

/// Everything that the hits depend on, beside the collection.
#[derive(Debug, Serialize)]
struct Identity<'a> {
    query: Vec<part::Identity<'a>>,
    filter: &'a Filter,
    limit: usize,
    offset: usize,
    threshold: Option<u32>,
}

impl Searches {
    /// Finds the items nearest to a query, best first.
    pub(crate) async fn search(&self, request: Request) -> Result<Answer, Error> {
        let start = Instant::now();
        let collection = self.store.resolve(request.collection.clone()).await?;
        let max_image_bytes = self.max_image_bytes.as_u64();
        let parts = request.query.into_iter();
        let sources = parts.map(|part| part.check(&collection, max_image_bytes));
        let sources = try_join_all(sources).await?;
        let identity = Identity {
            query: sources.iter().map(Source::identity).collect(),
            filter: &request.filter,
            limit: request.limit,
            offset: request.offset,
            threshold: request.threshold.map(f32::to_bits),
        };
        let key = Key::result(&collection, &identity.to_bytes()?);
        if let Some(hits) = self.results.get(key).await {
            let total = start.elapsed();
            return Ok(Answer { hits, total, result_cached: true, ..Answer::default() });
        }

        let exclude = sources.iter().filter_map(Source::item).cloned().collect();
        // Parts that need the embedder ask it at the same time, so that it runs them as one batch.
        let found = sources.into_iter().map(|source| self.find(source, &collection));
        let found = try_join_all(found).await?;
        let mut answer = Answer::of(&found);
        let vectors = found.into_iter().map(|found| (found.weight, found.vector));
        let vector = mix::combine(vectors.collect())?;

        let asked = Instant::now();
        let search = Search {
            target: Target::Vector(vector),
            filter: request.filter,
            exclude,
            offset: request.offset,
            limit: request.limit,
            threshold: request.threshold,
            exact: false,
            effort: None,
            vectors: false,
        };
        let answers = self.store.search(collection.name.clone(), vec![search]).await?;
        let hits = answers.into_iter().flatten();
        answer.store += asked.elapsed();
        answer.hits = hits.map(convert::query::write_hit).collect();
        self.results.put(key, &answer.hits).await;
        answer.total = start.elapsed();
        Ok(answer)
    }

    /// The vector of one part.
    async fn find(&self, source: Source, collection: &Collection) -> Result<Found, Error> {
        let Source { field, weight, content } = source;
        let (obtained, field) = match content {
            Content::Vector(vector) => return Ok(Found::given(weight, vector)),
            Content::Item(id) => {
                let asked = Instant::now();
                let point = self.store.point(collection.name.clone(), id.clone()).await?;
                let collection = collection.name.clone();
                let vector = point.ok_or(Error::NoItem { collection, id })?.vector;
                return Ok(Found { store: asked.elapsed(), ..Found::given(weight, vector) });
            }
            Content::Text(text) => {
                (self.vectors.of_text(text, collection).await, format!("{field}.text"))
            }
            Content::Image { bytes, hash } => {
                let ask = Ask { lane: Lane::Interactive, facts: false };
                let obtained = self.vectors.of_image(bytes, &hash, ask, collection).await;
                (obtained, format!("{field}.image"))
            }
        };
        let Obtained { embedded, is_cached, took } =
            obtained.map_err(|error| error.in_field(&field))?;
        let found = Found::given(weight, embedded.vector);
        Ok(Found { embed: took, is_cached: Some(is_cached), ..found })
    }
}

/// The vector of one part, and how it was come by.
#[derive(Debug)]
struct Found {
    weight: f32,
    vector: Embedding,
    embed: Duration,
    store: Duration,
    /// `None` for what is never embedded.
    is_cached: Option<bool>,
}

impl Found {
    fn given(weight: f32, vector: Embedding) -> Self {
        Self { weight, vector, embed: Duration::ZERO, store: Duration::ZERO, is_cached: None }
    }
}

impl Answer {
    /// An answer without hits yet. The parts were found at the same time, so that the longest wait
    /// is the wait for all.
    fn of(found: &[Found]) -> Self {
        let longest = |wait: fn(&Found) -> Duration| found.iter().map(wait).max();
        let mut cached = found.iter().filter_map(|found| found.is_cached).peekable();
        Self {
            embed: longest(|found| found.embed).unwrap_or_default(),
            store: longest(|found| found.store).unwrap_or_default(),
            embedding_cached: cached.peek().is_some() && cached.all(|is_cached| is_cached),
            ..Self::default()
        }
    }
}

impl Identity<'_> {
    fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        serde_json::to_vec(self)
            .map_err(|error| Error::Internal(format!("write down a query: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(is_cached: Option<bool>, embed: u64, store: u64) -> Found {
        let vector = Embedding::new(vec![1.0]).expect("a direction");
        let (embed, store) = (Duration::from_millis(embed), Duration::from_millis(store));
        Found { embed, store, is_cached, ..Found::given(1.0, vector) }
    }

    #[test]
    fn an_answer_sums_up_how_its_parts_were_come_by() {
        let of = |parts: &[Found]| {
            let answer = Answer::of(parts);
            (answer.embed.as_millis(), answer.store.as_millis(), answer.embedding_cached)
        };
        let known = || found(Some(true), 0, 0);
        let item = || found(None, 0, 3);
        assert_eq!(of(&[found(Some(false), 9, 0), known()]), (9, 0, false), "one was embedded");
        assert_eq!(of(&[known(), item(), known()]), (0, 3, true), "all embeddings were cached");
        assert_eq!(of(&[item(), found(None, 0, 5)]), (0, 5, false), "there were none");
        let two = [found(Some(false), 9, 0), found(Some(false), 7, 0)];
        assert_eq!(of(&two), (9, 0, false), "at the same time, not one after the other");
    }
}
