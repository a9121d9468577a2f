//! Items that are, or look, the same: two notions, never merged.
//!
//! ```text
//! exact: values of the two hashes that occur twice ─► their items, a few groups at a time ─┐
//! near:  each item ─► its neighbours above the threshold ─► all groups ────────────────────┤
//!                                            the items with their vectors ─► groups ◄──────┘
//! ```
//!
//! Everything happens while the stream is polled: whoever drops it ends the work.

mod exact;
mod group;
mod near;
mod union;

use std::sync::Arc;

use clipmesh_proto::ids::{CollectionName, ItemId};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};

pub(crate) use self::group::{Duplicate, Group};
use crate::error::Error;
use crate::filter::Filter;
use crate::store::VectorStore;

/// Items that are held at once while groups are found.
const MAX_ITEMS: u64 = 100_000;
/// Calls to the store that are under way at once.
const CONCURRENCY: usize = 4;
/// Items fetched with their vectors by one call.
const FETCH: usize = 256;
/// Items of a group that are told, so that it fits into a message, and a few of them into memory.
const MAX_MEMBERS: usize = 1_000;

/// What to look for, and where.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) collection: CollectionName,
    pub(crate) kind: Kind,
    pub(crate) filter: Filter,
    /// Most groups.
    pub(crate) limit: usize,
}

/// What counts as a duplicate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// The same bytes, or the same pixels.
    Exact,
    Near {
        /// The least cosine similarity.
        threshold: f32,
        /// The most bits in which perceptual hashes may differ; `None`: they are not looked at.
        max_hash_distance: Option<u32>,
    },
}

/// Finds duplicates.
#[derive(Clone, Debug)]
pub(crate) struct Duplicates {
    store: Arc<dyn VectorStore>,
}

/// The items that are compared.
#[derive(Clone, Debug)]
struct Scope {
    store: Arc<dyn VectorStore>,
    collection: CollectionName,
    filter: Filter,
}

/// The ids of items that belong together, the largest group first.
type Groups = BoxStream<'static, Result<Vec<ItemId>, Error>>;

// === impl Duplicates ===

impl Duplicates {
    pub(crate) fn new(store: Arc<dyn VectorStore>) -> Self {
        Self { store }
    }

    /// Streams groups of duplicates, the largest first.
    ///
    /// # Errors
    /// Before the stream begins: a collection that is not there, more items than are compared.
    pub(crate) async fn find(
        &self,
        question: Question,
    ) -> Result<BoxStream<'static, Result<Group, Error>>, Error> {
        let Question { collection, kind, filter, limit } = question;
        let collection = self.store.resolve(collection).await?.name;
        let scope = Scope { store: Arc::clone(&self.store), collection, filter };
        let groups = match kind {
            Kind::Exact => exact::groups(scope.clone(), limit).await?,
            Kind::Near { threshold, max_hash_distance } => {
                let near = near::Near { threshold, max_hash_distance };
                near::groups(scope.clone(), near).await?
            }
        };
        let fetched = groups.map_ok(move |ids| scope.clone().fetch(ids)).try_buffered(CONCURRENCY);
        // Some may have been deleted since, and what is left may be no group.
        Ok(fetched.try_filter_map(async |group| Ok(group)).take(limit).boxed())
    }
}

// === impl Scope ===

impl Scope {
    /// The items of a group, put into their order; of a large one the first by id.
    async fn fetch(self, mut ids: Vec<ItemId>) -> Result<Option<Group>, Error> {
        let count = ids.len();
        ids.truncate(MAX_MEMBERS);
        let told = ids.len();
        let mut records = Vec::with_capacity(ids.len());
        for ids in ids.chunks(FETCH) {
            records.extend(self.store.get(self.collection.clone(), ids.to_vec(), true).await?);
        }
        let gone = told - records.len();
        Ok(Group::of(records, count - gone)?)
    }
}

fn too_many(count: u64) -> Error {
    Error::TooManyToCompare { count, max: MAX_ITEMS }
}

#[cfg(test)]
mod tests;
