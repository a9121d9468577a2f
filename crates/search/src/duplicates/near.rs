//! Pictures that look alike: every item is asked for its neighbours, and neighbours form groups.

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
/// Neighbours of an item that are looked at. One that has more of them is surrounded by a dense
/// group, whose members lead to one another.
const NEIGHBOURS: usize = 64;

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

/// Pairs of duplicates, each with one of the batch.
async fn neighbours(
    scope: &Scope,
    near: Near,
    batch: Vec<Record>,
) -> Result<Vec<(ItemId, ItemId)>, Error> {
    let mut askers = Vec::new();
    let mut searches = Vec::new();
    for Record { item, vector } in batch {
        let is_left_out = near.max_hash_distance.is_some() && item.perceptual_hash.is_none();
        let Some(vector) = vector.filter(|_| !is_left_out) else { continue };
        searches.push(Search {
            target: Target::Vector(vector),
            filter: scope.filter.clone(),
            exclude: vec![item.id.clone()],
            offset: 0,
            limit: NEIGHBOURS,
            threshold: Some(near.threshold),
            exact: false,
            effort: None,
            vectors: false,
        });
        askers.push((item.id, item.perceptual_hash));
    }
    if searches.is_empty() {
        return Ok(Vec::new());
    }
    let found = scope.store.search(scope.collection.clone(), searches).await?;
    let mut pairs = Vec::new();
    for ((id, hash), hits) in askers.into_iter().zip(found) {
        let alike = hits.into_iter().filter(|hit| near.accepts(hash, hit));
        pairs.extend(alike.map(|hit| (id.clone(), hit.item.id)));
    }
    Ok(pairs)
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
