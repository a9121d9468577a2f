//! Pictures that look alike: every item is asked for its neighbours, and neighbours form groups.

use clipmesh_proto::Embedding;
use clipmesh_proto::ids::{ItemId, PerceptualHash};
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use tracing::Instrument as _;

use super::union::Union;
use super::{CONCURRENCY, Groups, MAX_ITEMS, Scope, too_many};
use crate::error::Error;
use crate::store::{Hit, Page, Record, Search, Target};

/// Items whose neighbours are looked for by one call.
const BATCH: usize = 32;
/// Neighbours of an item that are looked at, first and at most. An item that has more of them is
/// asked for four times as many, and again: the nearest may all be copies of one picture, and what
/// only resembles it comes after them. Beyond the bound it is missed.
const NEIGHBOURS: usize = 64;
const MAX_NEIGHBOURS: usize = 1_024;
/// Hits of one call, so that no answer is larger than that of a first batch.
const MAX_HITS: usize = BATCH * NEIGHBOURS;

/// When two items are duplicates.
#[derive(Clone, Copy, Debug)]
pub(super) struct Near {
    pub(super) threshold: f32,
    pub(super) max_hash_distance: Option<u32>,
}

/// Finds all groups before it tells the first: only then it is known which is the largest.
pub(super) async fn groups(scope: Scope, near: Near) -> Result<Groups, Error> {
    let count = scope.store.count(scope.collection.clone(), scope.filter.clone()).await?;
    if count > MAX_ITEMS {
        return Err(too_many(count));
    }
    let found = async move {
        let pairs = items(&scope).map_ok(|batch| neighbours(&scope, near, batch));
        let pairs = pairs.try_buffer_unordered(CONCURRENCY);
        let union = pairs.try_fold(Union::default(), async |mut union, pairs| {
            for (a, b) in &pairs {
                union.join(a, b);
            }
            Ok(union)
        });
        let groups = union.await?.into_groups();
        Ok::<_, Error>(stream::iter(groups.into_iter().map(Ok)))
    };
    Ok(found.in_current_span().into_stream().try_flatten().boxed())
}

/// All items with their vectors, in batches.
fn items(scope: &Scope) -> BoxStream<'_, Result<Vec<Record>, Error>> {
    let pages = stream::try_unfold(Some(None), async move |after: Option<Option<ItemId>>| {
        let Some(after) = after else { return Ok(None) };
        let filter = scope.filter.clone();
        let page = Page { filter, after, limit: BATCH, vectors: true };
        let records = scope.store.scroll(scope.collection.clone(), page).await?;
        let last = records.last().map(|record| record.item.id.clone());
        let next = last.filter(|_| records.len() == BATCH).map(Some);
        Ok::<_, Error>((!records.is_empty()).then_some((records, next)))
    });
    pages.boxed()
}

/// An item whose neighbours are looked for.
#[derive(Debug)]
struct Asker {
    id: ItemId,
    hash: Option<PerceptualHash>,
    vector: Embedding,
}

/// Pairs of duplicates, each with one of the batch.
async fn neighbours(
    scope: &Scope,
    near: Near,
    batch: Vec<Record>,
) -> Result<Vec<(ItemId, ItemId)>, Error> {
    let askers = batch.into_iter().filter_map(|Record { item, vector }| {
        let (id, hash) = (item.id, item.perceptual_hash);
        let is_left_out = near.max_hash_distance.is_some() && hash.is_none();
        Some(Asker { id, hash, vector: vector.filter(|_| !is_left_out)? })
    });
    let mut askers: Vec<_> = askers.collect();
    let mut pairs = Vec::new();
    let mut limit = NEIGHBOURS;
    while !askers.is_empty() {
        let mut crowded = Vec::new();
        while !askers.is_empty() {
            let few = askers.split_off(askers.len().saturating_sub(MAX_HITS / limit));
            let searches = few.iter().map(|asker| asker.search(scope, near, limit)).collect();
            let found = scope.store.search(scope.collection.clone(), searches).await?;
            for (asker, hits) in few.into_iter().zip(found) {
                let is_full = hits.len() >= limit;
                let alike = hits.into_iter().filter(|hit| near.accepts(asker.hash, hit));
                pairs.extend(alike.map(|hit| (asker.id.clone(), hit.item.id)));
                if is_full && limit < MAX_NEIGHBOURS {
                    crowded.push(asker);
                }
            }
        }
        askers = crowded;
        limit = MAX_NEIGHBOURS.min(4 * limit);
    }
    Ok(pairs)
}

// === impl Asker ===

impl Asker {
    fn search(&self, scope: &Scope, near: Near, limit: usize) -> Search {
        Search {
            target: Target::Vector(self.vector.clone()),
            filter: scope.filter.clone(),
            exclude: vec![self.id.clone()],
            offset: 0,
            limit,
            threshold: Some(near.threshold),
            exact: false,
            effort: None,
            vectors: false,
        }
    }
}

// === impl Near ===

impl Near {
    fn accepts(&self, hash: Option<PerceptualHash>, hit: &Hit) -> bool {
        self.max_hash_distance.is_none_or(|most| {
            let hashes = hash.zip(hit.item.perceptual_hash);
            hashes.is_some_and(|(own, other)| own.distance(other) <= most)
        })
    }
}
