//! Where vectors live: the trait, and what passes through it.
//!
//! | store | what for |
//! |---|---|
//! | [`edge`] | one machine, on disk, in process |
//! | [`exact`] | tests: it compares with everything, and so is the oracle of the other |
//!
//! One contract suite (`store/contract.rs`) runs on both.

#[cfg(test)]
pub(crate) mod contract;
pub mod edge;
pub mod exact;

use std::fmt;

use clipmesh_proto::Embedding;
use clipmesh_proto::ids::{CollectionName, Fingerprint, ItemId};
use futures::future::BoxFuture;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::filter::Filter;
use crate::item::Item;

/// Why a store could not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("there is no collection `{0}`")]
    NoCollection(CollectionName),
    #[error("there is a collection `{0}` already")]
    CollectionExists(CollectionName),
    /// Refused before anything was changed.
    #[error("the vector has {actual} values, the collection's have {expected}")]
    WrongDimension { expected: usize, actual: usize },
    /// The engine failed; trying again later may help.
    #[error("the vector store failed: {0}")]
    Failed(String),
}

/// The answer of a store.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, Error>>;

/// Keeps items with their vectors, in collections.
///
/// Every method but those on the catalogue may wait for a disk. Dropping an answer drops the
/// waiting, not the work: a write that has begun is finished.
pub trait VectorStore: fmt::Debug + Send + Sync + 'static {
    /// Makes an empty collection, durably.
    fn create(&self, new: NewCollection) -> Answer<'_, Collection>;

    /// Removes a collection with everything in it, durably.
    fn remove(&self, name: CollectionName) -> Answer<'_, Collection>;

    /// Describes a collection from memory.
    ///
    /// # Errors
    /// [`Error::NoCollection`].
    fn collection(&self, name: &CollectionName) -> Result<Collection, Error>;

    /// Describes all collections from memory, in order of name.
    fn collections(&self) -> Vec<Collection>;

    /// Inserts or replaces points. All have the collection's dimension, or nothing is changed.
    /// Once answered, they survive a crash of the process and every later read sees them.
    fn upsert(&self, name: CollectionName, points: Vec<Point>) -> Answer<'_, ()>;

    /// Removes points, with the same promise as [`Self::upsert`]; ids that are not there are
    /// passed over.
    fn delete(&self, name: CollectionName, ids: Vec<ItemId>) -> Answer<'_, ()>;

    /// Gives what is there the promise of [`Self::upsert`]: a write that was answered with an
    /// error may have been made all the same, and a later read sees it.
    fn sync(&self, name: CollectionName) -> Answer<'_, ()>;

    /// Fetches one point.
    fn get(&self, name: CollectionName, id: ItemId) -> Answer<'_, Option<Point>>;

    /// Counts items exactly.
    fn count(&self, name: CollectionName, filter: Filter) -> Answer<'_, u64>;

    /// Lists items in an order of the store's own, which stays the same while none is added or
    /// removed.
    fn scroll(&self, name: CollectionName, page: Page) -> Answer<'_, Vec<Item>>;

    /// Finds the items nearest to a vector.
    fn search(&self, name: CollectionName, search: Search) -> Answer<'_, Vec<Hit>>;

    /// Brings everything onto the disk and lets go of it. Later calls fail.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// A collection to be made.
#[derive(Clone, Debug)]
pub struct NewCollection {
    pub name: CollectionName,
    /// The model whose vectors it will hold.
    pub fingerprint: Fingerprint,
    /// What that model is called.
    pub model_name: String,
    /// Length of every vector.
    pub dimension: usize,
    pub distance: Distance,
}

/// A collection as it is.
#[derive(Clone, Debug)]
pub struct Collection {
    pub name: CollectionName,
    /// Differs between two collections that had one name at different times.
    pub uid: String,
    pub fingerprint: Fingerprint,
    pub model_name: String,
    pub dimension: usize,
    pub distance: Distance,
    pub create_time: Timestamp,
    /// Rises with every write, before the write is answered; never falls, not even by a restart.
    /// What was computed at one generation is valid for that generation only.
    pub generation: u64,
}

/// How vectors are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Distance {
    Cosine,
}

/// An item and its vector.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    pub item: Item,
    pub vector: Embedding,
}

/// A piece of a listing.
#[derive(Clone, Debug)]
pub struct Page {
    pub filter: Filter,
    /// Starts after the place of this id, whether or not it is still there.
    pub after: Option<ItemId>,
    /// Most items to return.
    pub limit: usize,
}

/// What to look for.
#[derive(Clone, Debug)]
pub struct Search {
    pub vector: Embedding,
    pub filter: Filter,
    /// Items that are not to be found; a few.
    pub exclude: Vec<ItemId>,
    /// How many of the best to leave out.
    pub offset: usize,
    /// Most hits to return.
    pub limit: usize,
    /// Leaves out what scores less.
    pub threshold: Option<f32>,
}

/// An item and how near it is: best first, equal scores in order of id.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    pub item: Item,
    /// Cosine similarity, in [-1, 1].
    pub score: f32,
}

/// Refuses points of another dimension than the collection's.
fn check_dimension(points: &[Point], expected: usize) -> Result<(), Error> {
    for point in points {
        let actual = point.vector.dimension();
        if actual != expected {
            return Err(Error::WrongDimension { expected, actual });
        }
    }
    Ok(())
}

/// Puts scored ids into their order, cuts the threshold and the page out of them.
fn rank<T: AsId>(mut scored: Vec<(T, f32)>, search: &Search) -> Vec<(T, f32)> {
    for (_, score) in &mut scored {
        // A dot product of unit vectors leaves the scale by a rounding error.
        *score = score.clamp(-1.0, 1.0);
    }
    scored.sort_by(|(a, a_score), (b, b_score)| {
        b_score.total_cmp(a_score).then_with(|| a.id().cmp(b.id()))
    });
    scored.retain(|(_, score)| search.threshold.is_none_or(|least| *score >= least));
    scored.into_iter().skip(search.offset).take(search.limit).collect()
}

/// What ties are broken by.
trait AsId {
    fn id(&self) -> &str;
}

impl AsId for &Point {
    fn id(&self) -> &str {
        self.item.id.as_str()
    }
}

impl AsId for String {
    fn id(&self) -> &str {
        self
    }
}
