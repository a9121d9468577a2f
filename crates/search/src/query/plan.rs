//! What the store is asked for a search, and what becomes of its answer.
//!
//! | way | what the store is asked | what is done with it |
//! |---|---|---|
//! | nearest | the page | nothing |
//! | groups | the groups | nothing |
//! | diverse | the candidates with their vectors | [`diversity::choose`] |
//! | words alone | the page by words | nothing |
//! | words and a query | the best by each | [`fusion::fuse`] |

use std::collections::BTreeMap;

use clipmesh_proto::Embedding;
use clipmesh_proto::ids::ItemId;

use super::diversity::{self, Candidate};
use super::{Found, Ranked, Request, Way, fusion};
use crate::error::Error;
use crate::store::{self, Grouped, Hit, Search, Target};

/// Multiplications that one thread makes in a few milliseconds; more are done on a thread where
/// they hold up nobody.
const MAX_INLINE_PRODUCTS: usize = 4_000_000;

/// What the store is asked for one search.
#[derive(Debug)]
pub(super) enum Ask {
    /// To be answered in one call, with others of the same collection.
    Searches(Vec<Search>),
    Groups(Grouped),
}

/// What the store answered.
#[derive(Debug)]
pub(super) enum Reply {
    /// One list for each search.
    Hits(Vec<Vec<Hit>>),
    Groups(Vec<store::Group>),
}

/// What to ask for a request, along `vector` if it has a query. `exclude` are the items that the
/// query names.
pub(super) fn ask(request: &Request, vector: Option<&Embedding>, exclude: Vec<ItemId>) -> Ask {
    let search = |target, offset, limit| Search {
        target,
        filter: request.filter.clone(),
        exclude: exclude.clone(),
        offset,
        limit,
        threshold: request.threshold,
        exact: request.exact,
        effort: request.effort,
        vectors: request.vectors,
    };
    let (offset, limit) = (request.offset, request.limit);
    let near = vector.map(|vector| Target::Vector(vector.clone()));
    match (&request.way, near) {
        (Way::Words { words, .. }, None) => {
            Ask::Searches(vec![search(Target::Words(words.clone()), offset, limit)])
        }
        (Way::Words { words, .. }, Some(near)) => {
            let depth = fusion::depth(offset + limit);
            // What only words find needs its vector to have a score, which the threshold is on.
            let by_words = search(Target::Words(words.clone()), 0, depth);
            let by_words = Search { threshold: None, vectors: true, ..by_words };
            Ask::Searches(vec![search(near, 0, depth), by_words])
        }
        (Way::Groups { field, size }, Some(near)) => {
            let (field, size) = (field.clone(), *size);
            Ask::Groups(Grouped { search: search(near, 0, limit), field, size })
        }
        (Way::Diverse { candidates, .. }, Some(near)) => {
            Ask::Searches(vec![Search { vectors: true, ..search(near, 0, *candidates) }])
        }
        (Way::Nearest, Some(near)) => Ask::Searches(vec![search(near, offset, limit)]),
        // Refused where requests come in: there is nothing to look for.
        (Way::Nearest | Way::Groups { .. } | Way::Diverse { .. }, None) => Ask::Searches(vec![]),
    }
}

/// What was found, given the store's reply.
pub(super) async fn finish(
    request: &Request,
    vector: Option<&Embedding>,
    reply: Reply,
) -> Result<Found, Error> {
    let lists = match reply {
        Reply::Groups(groups) => return Ok(grouped(request, groups)),
        Reply::Hits(lists) => lists,
    };
    let mut lists = lists.into_iter();
    let first = lists.next().unwrap_or_default();
    let hits = match (&request.way, vector) {
        (Way::Words { .. }, None) => {
            let worded = |hit: Hit| Ranked { word_score: hit.score, score: 0.0, ..hit.into() };
            first.into_iter().map(worded).collect()
        }
        (Way::Words { weight, query_weight, .. }, Some(vector)) => {
            let by_words = lists.next().unwrap_or_default();
            let weights = Weights { near: *query_weight, words: *weight };
            let page = Page::of(request);
            fused(first, by_words, vector, weights, page)?
        }
        (Way::Diverse { weight, .. }, _) => diverse(first, *weight, Page::of(request)).await?,
        (Way::Nearest | Way::Groups { .. }, _) => first.into_iter().map(Ranked::from).collect(),
    };
    Ok(Found::Hits(hits))
}

/// Which part of a ranking is wanted.
#[derive(Clone, Copy, Debug)]
struct Page {
    offset: usize,
    limit: usize,
    threshold: Option<f32>,
}

/// How much two rankings count.
#[derive(Clone, Copy, Debug)]
struct Weights {
    near: f32,
    words: f32,
}

// === impl Page ===

impl Page {
    fn of(request: &Request) -> Self {
        Self { offset: request.offset, limit: request.limit, threshold: request.threshold }
    }
}

// === impl Ranked ===

impl From<Hit> for Ranked {
    fn from(hit: Hit) -> Self {
        let Hit { item, score, vector } = hit;
        Self { item, score, word_score: 0.0, fused_score: 0.0, vector }
    }
}

fn grouped(request: &Request, groups: Vec<store::Group>) -> Found {
    let Way::Groups { field, .. } = &request.way else {
        return Found::Hits(Vec::new());
    };
    let hits = |hits: Vec<Hit>| hits.into_iter().map(Ranked::from).collect();
    let groups = groups.into_iter().map(|group| (group.value, hits(group.hits)));
    Found::Groups { field: field.clone(), groups: groups.collect() }
}

async fn diverse(hits: Vec<Hit>, weight: f32, page: Page) -> Result<Vec<Ranked>, Error> {
    let candidates = hits.iter().map(|hit| {
        let vector = vector_of(hit)?.clone();
        Ok(Candidate { score: hit.score, vector })
    });
    let candidates = candidates.collect::<Result<Vec<_>, Error>>()?;
    let take = page.offset + page.limit;
    let dimension = candidates.first().map_or(0, |candidate| candidate.vector.dimension());
    let products = candidates.len() * take.min(candidates.len()) * dimension;
    let choose = move || diversity::choose(&candidates, weight, take);
    let chosen = if products <= MAX_INLINE_PRODUCTS {
        choose()
    } else {
        let choosing = tokio::task::spawn_blocking(choose).await;
        choosing.map_err(|_| Error::Internal("choosing among hits panicked".to_owned()))?
    };
    let mut hits: Vec<_> = hits.into_iter().map(Some).collect();
    let chosen = chosen.into_iter().skip(page.offset);
    Ok(chosen.filter_map(|at| hits[at].take()).map(Ranked::from).collect())
}

fn fused(
    near: Vec<Hit>,
    by_words: Vec<Hit>,
    vector: &Embedding,
    weights: Weights,
    page: Page,
) -> Result<Vec<Ranked>, Error> {
    let ids = |hits: &[Hit]| hits.iter().map(|hit| hit.item.id.clone()).collect::<Vec<_>>();
    let order = fusion::fuse([(weights.near, ids(&near)), (weights.words, ids(&by_words))]);
    let mut hits: BTreeMap<ItemId, Ranked> =
        near.into_iter().map(|hit| (hit.item.id.clone(), Ranked::from(hit))).collect();
    for hit in by_words {
        let word_score = hit.score;
        match hits.get_mut(&hit.item.id) {
            Some(known) => known.word_score = word_score,
            None => {
                let score = vector_of(&hit)?.dot(vector).clamp(-1.0, 1.0);
                let id = hit.item.id.clone();
                hits.insert(id, Ranked { score, word_score, ..hit.into() });
            }
        }
    }
    let ranked = order.into_iter().filter_map(|(id, fused_score)| {
        let hit = hits.remove(&id)?;
        Some(Ranked { fused_score: fused_score as f32, ..hit })
    });
    let passing = ranked.filter(|hit| page.threshold.is_none_or(|least| hit.score >= least));
    Ok(passing.skip(page.offset).take(page.limit).collect())
}

/// The vector of a hit that was asked for with it.
fn vector_of(hit: &Hit) -> Result<&Embedding, Error> {
    let missing = || Error::Internal(format!("item `{}` was found without a vector", hit.item.id));
    hit.vector.as_ref().ok_or_else(missing)
}

#[cfg(test)]
mod tests;
