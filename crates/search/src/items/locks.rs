//! One change at a time to one item.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use clipmesh_proto::ids::{CollectionName, ItemId};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// Items share a lock with every so manieth other, and a lock is held while a picture is embedded. A
/// change waits for one that it has nothing to do with as often as there are changes under way, of
/// so many locks: of 300, with one in 55. A lock takes 64 bytes, all of them 1 MiB.
const LOCKS: usize = 16_384;

/// What is read of an item before a change still holds when the change is made.
#[derive(Debug)]
pub(super) struct Locks {
    hasher: RandomState,
    locks: Vec<Arc<Mutex<()>>>,
}

/// The right to change some items; it ends when the last copy of this is dropped.
#[derive(Clone, Debug)]
pub(super) struct Turn {
    _guards: Arc<Vec<OwnedMutexGuard<()>>>,
}

impl Locks {
    pub(super) fn new() -> Self {
        Self { hasher: RandomState::new(), locks: (0..LOCKS).map(|_| Arc::default()).collect() }
    }

    /// Waits for an item's turn, in the order of asking. Whoever has a turn must not ask for
    /// another.
    pub(super) async fn lock(&self, collection: &CollectionName, id: &ItemId) -> Turn {
        self.lock_all(collection, std::iter::once(id)).await
    }

    /// Waits for the turn of several items at once.
    pub(super) async fn lock_all(
        &self,
        collection: &CollectionName,
        ids: impl IntoIterator<Item = &ItemId>,
    ) -> Turn {
        let mut places: Vec<_> = ids.into_iter().map(|id| self.place(collection, id)).collect();
        // All in one order, so that no two wait for each other.
        places.sort_unstable();
        places.dedup();
        let mut guards = Vec::with_capacity(places.len());
        for place in places {
            guards.push(Arc::clone(&self.locks[place]).lock_owned().await);
        }
        Turn { _guards: Arc::new(guards) }
    }

    fn place(&self, collection: &CollectionName, id: &ItemId) -> usize {
        let hash = self.hasher.hash_one((collection, id));
        // In range by the remainder.
        (hash % LOCKS as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::store::contract::{id, name};

    #[tokio::test]
    async fn a_turn_ends_with_its_last_copy() {
        let locks = Locks::new();
        let (collection, ids) = (name("c"), ["a", "b"].map(id));
        let turn = locks.lock_all(&collection, &ids).await;
        let copy = turn.clone();
        for id in &ids {
            assert!(locks.lock(&collection, id).now_or_never().is_none(), "`{id}` is taken");
        }
        drop(turn);
        assert!(locks.lock(&collection, &ids[0]).now_or_never().is_none(), "there is a copy");
        drop(copy);
        for id in &ids {
            assert!(locks.lock(&collection, id).now_or_never().is_some(), "`{id}` is free");
        }
    }

    #[tokio::test]
    async fn one_item_twice_is_one_item() {
        let locks = Locks::new();
        let ids = ["a", "a"].map(id);
        assert!(locks.lock_all(&name("c"), &ids).now_or_never().is_some(), "no waiting for itself");
    }
}
