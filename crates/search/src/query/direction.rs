//! From the parts of a query to the one vector that is looked for.

use std::time::Duration;

use clipmesh_proto::Embedding;
use clipmesh_proto::code::FieldViolation;
use futures::future::try_join_all;
use tokio::time::Instant;

use super::part::{Content, Source};
use super::{Searches, Timing, mix};
use crate::embedder::{Ask, Lane};
use crate::error::Error;
use crate::store::Collection;
use crate::vectors::Obtained;

/// What is looked for, and how it was come by.
#[derive(Clone, Debug)]
pub(crate) struct Direction {
    pub(crate) vector: Embedding,
    pub(crate) embed: Duration,
    pub(crate) store: Duration,
    /// Whether something had to be embedded, and all of it was known.
    pub(crate) is_cached: bool,
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

impl Searches {
    /// The vector of all parts together; at least one.
    pub(crate) async fn direction(
        &self,
        sources: Vec<Source>,
        collection: &Collection,
    ) -> Result<Direction, Error> {
        // Parts that need the embedder ask it at the same time, so that it runs them as one batch.
        let found = sources.into_iter().map(|source| self.find(source, collection));
        let found = try_join_all(found).await?;
        Ok(Direction::of(found)?)
    }

    /// The vector of one part.
    async fn find(&self, source: Source, collection: &Collection) -> Result<Found, Error> {
        let Source { field, weight, content, looked_up } = source;
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
                let obtained = self.vectors.of_text(text, collection, looked_up).await;
                (obtained, format!("{field}.text"))
            }
            Content::Image { bytes, hash } => {
                let ask = Ask { lane: Lane::Interactive, facts: false };
                let obtained =
                    self.vectors.of_image(bytes, &hash, ask, collection, looked_up).await;
                (obtained, format!("{field}.image"))
            }
        };
        let Obtained { embedded, is_cached, took } =
            obtained.map_err(|error| error.in_field(&field))?;
        let found = Found::given(weight, embedded.vector);
        Ok(Found { embed: took, is_cached: Some(is_cached), ..found })
    }
}

// === impl Found ===

impl Found {
    fn given(weight: f32, vector: Embedding) -> Self {
        Self { weight, vector, embed: Duration::ZERO, store: Duration::ZERO, is_cached: None }
    }
}

// === impl Direction ===

impl Direction {
    /// The parts were found at the same time, so that the longest wait is the wait for all.
    fn of(found: Vec<Found>) -> Result<Self, FieldViolation> {
        let longest = |wait: fn(&Found) -> Duration| found.iter().map(wait).max();
        let embed = longest(|found| found.embed).unwrap_or_default();
        let store = longest(|found| found.store).unwrap_or_default();
        let mut cached = found.iter().filter_map(|found| found.is_cached).peekable();
        let is_cached = cached.peek().is_some() && cached.all(|is_cached| is_cached);
        let parts = found.into_iter().map(|found| (found.weight, found.vector)).collect();
        Ok(Self { vector: mix::combine(parts)?, embed, store, is_cached })
    }

    /// Where the time went so far.
    pub(crate) fn timing(&self) -> Timing {
        let Self { embed, store, is_cached, .. } = *self;
        Timing { embed, store, embedding_cached: is_cached, ..Timing::default() }
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
    fn sums_up_how_its_parts_were_come_by() {
        let of = |parts: Vec<Found>| {
            let direction = Direction::of(parts).expect("one direction");
            (direction.embed.as_millis(), direction.store.as_millis(), direction.is_cached)
        };
        let known = || found(Some(true), 0, 0);
        let item = || found(None, 0, 3);
        assert_eq!(of(vec![found(Some(false), 9, 0), known()]), (9, 0, false), "one was embedded");
        assert_eq!(of(vec![known(), item(), known()]), (0, 3, true), "all embeddings were cached");
        assert_eq!(of(vec![item(), found(None, 0, 5)]), (0, 5, false), "there were none");
        let two = vec![found(Some(false), 9, 0), found(Some(false), 7, 0)];
        assert_eq!(of(two), (9, 0, false), "at the same time, not one after the other");
    }
}
