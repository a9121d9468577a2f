//! One change at a time to one item.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use clipmesh_proto::ids::{CollectionName, ItemId};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// Items share a lock with every so manieth other. Enough that the few hundred changes under way
/// seldom meet, and few enough to be kept for good.
const LOCKS: usize = 1_024;

/// What is read of an item before a change still holds when the change is made.
#[derive(Debug)]
pub(super) struct Locks {
    hasher: RandomState,
    locks: Vec<Arc<Mutex<()>>>,
}

/// The right to change an item; it ends when this is dropped.
pub(super) type Turn = OwnedMutexGuard<()>;

impl Locks {
    pub(super) fn new() -> Self {
        Self { hasher: RandomState::new(), locks: (0..LOCKS).map(|_| Arc::default()).collect() }
    }

    /// Waits for the item's turn, in the order of asking. Whoever holds one must not ask for
    /// another.
    pub(super) async fn lock(&self, collection: &CollectionName, id: &ItemId) -> Turn {
        let hash = self.hasher.hash_one((collection, id));
        // In range by the remainder.
        let lock = &self.locks[(hash % LOCKS as u64) as usize];
        Arc::clone(lock).lock_owned().await
    }
}
