//! The way of one search through the cache: what it finds, and how its answer is kept.

use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use clipmesh_proto::search::v1;
use tokio::time::Instant;

use super::entry::{Found, Generation, Known, Valued};
use super::key::Key;
use super::seen::Seen;
use super::tally::Outcome;
use super::{Caches, Entry, Rerun};
use crate::metrics;
use crate::store::Collection;

/// What was found for one search.
#[derive(Debug)]
pub(crate) struct LookUp {
    pub(crate) answer: Option<v1::SearchResponse>,
    /// One for each key that was asked for.
    pub(crate) vectors: Vec<Option<Known>>,
    /// For keeping an answer that was not found.
    pub(crate) ticket: Ticket,
    /// Whether the cache was not asked for the answer, because it is off or out of reach.
    pub(crate) bypassed: bool,
    /// Zero for a cache in this process.
    pub(crate) took: Duration,
}

/// What an answer is to be kept under. It is of the moment before the store was asked: what is
/// written afterwards makes the answer out of date, even if it was found before.
#[derive(Debug)]
pub(crate) struct Ticket {
    uid: String,
    key: Key,
    /// `None` if it is not known.
    generation: Option<Generation>,
    is_worth_keeping: bool,
}

/// Which answer it is. Whoever looks for the same one may be given it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct AnswerId {
    key: Key,
    generation: Generation,
}

/// What the replies to a look-up mean.
struct Reading {
    outcome: Outcome,
    answer: Option<v1::SearchResponse>,
    generation: Option<Generation>,
    is_stale: bool,
}

impl Caches {
    /// Looks for an answer and for vectors, in one trip. `query` is all that the answer depends on
    /// beside the collection.
    pub(crate) async fn look_up(
        &self,
        collection: &Collection,
        query: &[u8],
        vectors: &[Key],
    ) -> LookUp {
        let start = Instant::now();
        let uid = &collection.uid;
        let (key, counter) = (Key::answer(uid, query), Key::generation(uid));
        let is_kept = self.keeps_answers(collection);
        let is_asked = is_kept && !self.0.raises.is_pending(counter);
        let mut keys = Vec::with_capacity(vectors.len() + 2);
        if is_asked {
            keys.extend([counter, key]);
        }
        keys.extend(vectors);
        let fetched = self.fetch(keys).await;
        let is_reached = fetched.is_ok();
        let mut values = fetched.unwrap_or_default().into_iter();
        let reading = if is_asked && is_reached {
            let (count, value) = (values.next().flatten(), values.next().flatten());
            self.read_answer(collection, counter, count, value).await
        } else {
            Reading::bypassed()
        };
        self.0.tally.answers(uid, start).add(reading.outcome);
        if is_kept {
            self.0.hot.lock().asked(uid, key, start);
        }
        let mut next = || values.next().flatten();
        let vectors = vectors.iter().map(|_| self.read_vector(next(), is_reached)).collect();
        // What is asked once is not worth a write. In memory it costs none, and what is useful is
        // found out there.
        let is_worth_keeping = reading.generation.is_some()
            && (reading.is_stale || self.0.writer.is_none() || self.seen().again(&key));
        let generation = reading.generation;
        LookUp {
            answer: reading.answer,
            vectors,
            ticket: Ticket { uid: uid.clone(), key, generation, is_worth_keeping },
            bypassed: reading.outcome == Outcome::Bypass,
            took: if self.0.writer.is_some() { start.elapsed() } else { Duration::ZERO },
        }
    }

    /// Keeps an answer that took so long to compute, behind the call. `rerun` tells how to ask the
    /// same again, if it can be and the query proves to be a hot one.
    pub(crate) async fn keep(
        &self,
        ticket: Ticket,
        response: &v1::SearchResponse,
        cost: Duration,
        rerun: impl FnOnce() -> Option<Rerun>,
    ) {
        self.0.hot.lock().learn(&ticket.uid, &ticket.key, rerun);
        if let Some(generation) = ticket.generation.filter(|_| ticket.is_worth_keeping) {
            self.keep_at(ticket.key, generation, response, cost).await;
        }
    }

    pub(super) async fn keep_at(
        &self,
        key: Key,
        generation: Generation,
        response: &v1::SearchResponse,
        cost: Duration,
    ) {
        let value = Found::encode(response, generation, cost);
        self.store(Entry { key, value, time_to_live: self.0.config.results_ttl }).await;
    }

    /// Reads what was fetched of an answer.
    async fn read_answer(
        &self,
        collection: &Collection,
        counter: Key,
        count: Option<Bytes>,
        value: Option<Bytes>,
    ) -> Reading {
        let Some(generation) = self.generation_of(collection, counter, count).await else {
            return Reading::bypassed();
        };
        let is_there = value.is_some();
        let found = value.and_then(|value| Found::decode(value, generation));
        if is_there && found.is_none() {
            metrics::cache_unreadable("results");
        }
        match found {
            Some(Found::Current(Valued { value, cost })) => Reading {
                outcome: Outcome::Hit(cost),
                answer: Some(value),
                generation: None,
                is_stale: false,
            },
            found @ (Some(Found::Stale) | None) => Reading {
                outcome: Outcome::Miss,
                answer: None,
                generation: Some(generation),
                is_stale: found.is_some(),
            },
        }
    }

    /// The generation of a collection, whose count was fetched. One that is not there is started,
    /// which costs a second trip, once.
    async fn generation_of(
        &self,
        collection: &Collection,
        counter: Key,
        count: Option<Bytes>,
    ) -> Option<Generation> {
        let count = count.and_then(|digits| std::str::from_utf8(&digits).ok()?.parse().ok());
        let counter = match (count, &self.0.cache) {
            (Some(count), _) => count,
            (None, Some(cache)) => cache.count(counter).await.ok()?,
            (None, None) => return None,
        };
        Some(Generation { store: collection.generation.unwrap_or_default(), counter })
    }

    pub(super) fn read_vector(&self, value: Option<Bytes>, is_reached: bool) -> Option<Known> {
        let counts = &self.0.tally.embeddings;
        if !is_reached {
            counts.add(Outcome::Bypass);
            return None;
        }
        let is_there = value.is_some();
        let Some(Valued { value, cost }) = value.and_then(Known::decode) else {
            if is_there {
                metrics::cache_unreadable("embeddings");
            }
            counts.add(Outcome::Miss);
            return None;
        };
        counts.add(Outcome::Hit(cost));
        Some(value)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Whatever it holds can be worked with, so a panic elsewhere leaves it usable.
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Ticket ===

impl Ticket {
    /// Which answer it is for. A write that was acknowledged before the look-up had raised the
    /// generation; so a search that began at this one shows it, whoever began it.
    pub(crate) fn answer_id(&self) -> Option<AnswerId> {
        let generation = self.generation?;
        Some(AnswerId { key: self.key, generation })
    }
}

// === impl Reading ===

impl Reading {
    fn bypassed() -> Self {
        Self { outcome: Outcome::Bypass, answer: None, generation: None, is_stale: false }
    }
}
