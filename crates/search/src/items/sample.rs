//! Some items, at random.
//!
//! Each item has a lot that was drawn when it was stored. From a random lot on, the next items in
//! order of it are a random choice already, but neighbours of one draw would be neighbours of every
//! other; so more are taken than are asked for, and drawn from again.

use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::Items;
use crate::error::Error;
use crate::filter::{Field, Filter, Range, Test};
use crate::item::{Item, LOT_BITS};
use crate::store::{Collection, Ordered};

/// Items that are drawn from. An item's chance goes with the sum of so many gaps between lots,
/// which differs by a sixteenth from one to the next.
pub(crate) const POOL: usize = 256;

impl Items {
    /// Draws items, no two the same. A seed draws the same ones as long as none is added or
    /// deleted.
    pub(crate) async fn sample(
        &self,
        collection: &Collection,
        filter: &Filter,
        size: usize,
        seed: u64,
    ) -> Result<Vec<Item>, Error> {
        // ChaCha gives the same numbers on every machine and in every version.
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let start = (random.next_u64() >> (u64::BITS - LOT_BITS)) as f64;
        let on = Range { gte: Some(start), ..Range::default() };
        let mut pool = self.lots(collection, filter, on, POOL).await?;
        let missing = POOL.saturating_sub(pool.len());
        if missing > 0 {
            // Round the end to the beginning.
            let before = Range { lt: Some(start), ..Range::default() };
            pool.extend(self.lots(collection, filter, before, missing).await?);
        }
        pool.shuffle(&mut random);
        pool.truncate(size);
        Ok(pool)
    }

    /// The first items in order of their lots, within a range of these.
    async fn lots(
        &self,
        collection: &Collection,
        filter: &Filter,
        range: Range,
        limit: usize,
    ) -> Result<Vec<Item>, Error> {
        let filter = filter.clone().and(Field::Lot, Test::Range(range));
        let page = Ordered { filter, field: Field::Lot, descending: false, limit };
        let found = self.store.ordered(collection.name.clone(), page).await?.into_iter();
        Ok(found.map(|(record, _)| record.item).collect())
    }
}
