//! Where vectors live: the trait, and what passes through it.
//!
//! | store | what for |
//! |---|---|
//! | [`edge`] | one machine, on disk, in process |
//! | [`qdrant`] | a Qdrant server or cluster |
//! | [`exact`] | tests: it compares with everything, and so is the oracle of the others |
//!
//! One contract suite (`store/contract.rs`) runs on all of them.

mod collection;
#[cfg(test)]
pub(crate) mod contract;
pub mod edge;
pub mod exact;
mod grouping;
pub mod index;
mod lower;
mod payload;
pub mod qdrant;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use clipmesh_proto::Embedding;
use clipmesh_proto::ids::{CollectionName, ItemId};
use futures::future::BoxFuture;

pub use self::collection::{
    Collection, Distance, IndexState, MAX_INDEXES, NewCollection, Status, VectorIndexChange,
};
use self::index::FieldIndex;
use crate::filter::{Field, Filter};
use crate::item::{Etag, Item, Scalar};

/// Why a store could not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("there is no collection `{0}`")]
    NoCollection(CollectionName),
    #[error("there is no alias `{0}`")]
    NoAlias(CollectionName),
    /// Or an alias of that name.
    #[error("there is a collection `{0}` already")]
    CollectionExists(CollectionName),
    /// Refused before anything was changed.
    #[error("the vector has {actual} values, the collection's have {expected}")]
    WrongDimension { expected: usize, actual: usize },
    /// It has none of the kinds that are needed.
    #[error("there is no fitting index on `{0}`")]
    NotIndexed(String),
    #[error("there are {max} indexes, and no room for another", max = MAX_INDEXES)]
    TooManyIndexes,
    /// What was asked has more to go through than the store takes on.
    #[error("the vector store is busy")]
    Busy,
    /// The time for it was up; a write may have been made all the same.
    #[error("the vector store did not answer in time")]
    TimedOut,
    /// The engine failed; trying again later may help.
    #[error("the vector store failed: {0}")]
    Failed(String),
}

/// The answer of a store.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, Error>>;

/// Keeps items with their vectors, in collections.
///
/// Wherever the name of a collection is asked for, `collection` and `remove` take the name itself,
/// and the others the `name` of a [`Collection`] that [`Self::resolve`] gave.
///
/// Dropping an answer drops the waiting, not the work: a write that has begun is finished.
pub trait VectorStore: fmt::Debug + Send + Sync + 'static {
    /// Makes an empty collection, durably.
    fn create(&self, new: NewCollection) -> Answer<'_, Collection>;

    /// Removes a collection with everything in it and all its aliases, durably.
    fn remove(&self, name: CollectionName) -> Answer<'_, Collection>;

    /// Describes the collection of a name or an alias. It may have been changed or removed by
    /// another process a moment ago. Writes notice that it is gone, or is another model's by now;
    /// one that was made anew of the same name and model they do not tell from the one before.
    ///
    /// # Errors
    /// [`Error::NoCollection`].
    fn resolve(&self, name: CollectionName) -> Answer<'_, Collection>;

    /// Describes all collections, in order of name.
    fn collections(&self) -> Answer<'_, Vec<Collection>>;

    /// Changes how a collection is searched; the new graph is built behind the answer. What two
    /// calls change at a time is changed by both, but where several processes share a server: it
    /// is told the whole, and may be told one of the two last.
    fn set_vector_index(
        &self,
        name: CollectionName,
        change: VectorIndexChange,
    ) -> Answer<'_, Collection>;

    /// Makes an index, and answers once it is there. One of another kind on the field goes.
    ///
    /// # Errors
    /// [`Error::TooManyIndexes`].
    fn create_index(&self, name: CollectionName, index: FieldIndex) -> Answer<'_, Collection>;

    /// Removes the index on a field.
    ///
    /// # Errors
    /// [`Error::NotIndexed`].
    fn remove_index(&self, name: CollectionName, field: Field) -> Answer<'_, Collection>;

    /// Points an alias to a collection, atomically and durably, and tells where it pointed before.
    ///
    /// # Errors
    /// [`Error::CollectionExists`] when the alias is the name of a collection.
    fn set_alias(
        &self,
        alias: CollectionName,
        name: CollectionName,
    ) -> Answer<'_, Option<CollectionName>>;

    /// Removes an alias, durably.
    ///
    /// # Errors
    /// [`Error::NoAlias`].
    fn remove_alias(&self, alias: CollectionName) -> Answer<'_, ()>;

    /// All aliases, and the collections that they stand for.
    fn aliases(&self) -> Answer<'_, BTreeMap<CollectionName, CollectionName>>;

    /// How large a collection is and how well its graph does.
    fn status(&self, name: CollectionName) -> Answer<'_, Status>;

    /// Inserts or replaces points. All have the collection's dimension, or nothing is changed.
    /// Once answered, they survive a crash of the process and every later read sees them.
    fn upsert(&self, name: CollectionName, points: Vec<Point>) -> Answer<'_, ()>;

    /// Replaces a point, with the same promise, unless it was changed since it had this etag; or,
    /// with `None`, inserts one, unless it is there. Tells whether it was written.
    fn replace(
        &self,
        name: CollectionName,
        point: Point,
        expected: Option<Etag>,
    ) -> Answer<'_, bool>;

    /// Removes points, with the same promise; ids that are not there are passed over.
    fn delete(&self, name: CollectionName, ids: Vec<ItemId>) -> Answer<'_, ()>;

    /// Removes a point, with the same promise, unless it was changed since it had this etag. Tells
    /// whether it is gone.
    fn delete_unchanged(
        &self,
        name: CollectionName,
        id: ItemId,
        expected: Etag,
    ) -> Answer<'_, bool>;

    /// Gives what is there the promise of [`Self::upsert`]: a write that was answered with an
    /// error may have been made all the same, and a later read sees it.
    fn sync(&self, name: CollectionName) -> Answer<'_, ()>;

    /// Fetches items by id, in any order; those that are not there are left out.
    fn get(&self, name: CollectionName, ids: Vec<ItemId>, vectors: bool)
    -> Answer<'_, Vec<Record>>;

    /// Counts items exactly.
    fn count(&self, name: CollectionName, filter: Filter) -> Answer<'_, u64>;

    /// Lists items in an order of the store's own, which stays the same while none is added or
    /// removed.
    fn scroll(&self, name: CollectionName, page: Page) -> Answer<'_, Vec<Record>>;

    /// Lists items in order of a number, each with that number; equal ones in any order. An item
    /// without one is left out, and one with a list comes once for each of its different elements.
    ///
    /// # Errors
    /// [`Error::NotIndexed`] for a field without an index of kind integer, float or time.
    fn ordered(&self, name: CollectionName, page: Ordered) -> Answer<'_, Vec<(Record, f64)>>;

    /// Answers searches, each with the nearest items, best first.
    fn search(&self, name: CollectionName, searches: Vec<Search>) -> Answer<'_, Vec<Vec<Hit>>>;

    /// Finds the best hits of each value of a field; the group with the best hit first.
    ///
    /// # Errors
    /// [`Error::NotIndexed`] for a field without an index of kind keyword or integer.
    fn group(&self, name: CollectionName, grouped: Grouped) -> Answer<'_, Vec<Group>>;

    /// Counts items by the values of a field, exactly: the most frequent first, equally frequent
    /// ones in order of the value.
    ///
    /// # Errors
    /// [`Error::NotIndexed`] for a field without an index of kind keyword, integer or boolean.
    fn facet(&self, name: CollectionName, facet: Facet) -> Answer<'_, Vec<(Scalar, u64)>>;

    /// Brings everything onto the disk and lets go of it. Later calls fail.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// An item and its vector.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    pub item: Item,
    pub vector: Embedding,
}

/// An item as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub item: Item,
    /// If it was asked for.
    pub vector: Option<Embedding>,
}

/// A piece of a listing.
#[derive(Clone, Debug)]
pub struct Page {
    pub filter: Filter,
    /// Starts after the place of this id, whether or not it is still there.
    pub after: Option<ItemId>,
    /// Most items to return.
    pub limit: usize,
    /// Whether to return vectors.
    pub vectors: bool,
}

/// A piece of a listing in order of a number, or of a time in microseconds.
#[derive(Clone, Debug)]
pub struct Ordered {
    pub filter: Filter,
    pub field: Field,
    pub descending: bool,
    /// Most items to return.
    pub limit: usize,
}

/// What to look for.
#[derive(Clone, Debug)]
pub struct Search {
    pub target: Target,
    pub filter: Filter,
    /// Items that are not to be found; a few.
    pub exclude: Vec<ItemId>,
    /// How many of the best to leave out.
    pub offset: usize,
    /// Most hits to return.
    pub limit: usize,
    /// Leaves out what scores less.
    pub threshold: Option<f32>,
    /// Whether to compare with every item that passes the filter.
    pub exact: bool,
    /// How many candidates a walk through the graph keeps; `None`: the store's own.
    pub effort: Option<usize>,
    /// Whether to return vectors.
    pub vectors: bool,
}

/// What hits are near to.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// Scored by cosine similarity.
    Vector(Embedding),
    /// Scored by BM25 over the collection's `word_fields`; folded. What has none of them is no hit.
    Words(Vec<String>),
}

/// An item and how near it is: best first, equal scores in order of id.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    pub item: Item,
    /// Cosine similarity, in [-1, 1]; or of words 0 or more.
    pub score: f32,
    /// If it was asked for.
    pub vector: Option<Embedding>,
}

/// A search for the best of each value of a field.
#[derive(Clone, Debug)]
pub struct Grouped {
    /// Its limit is that of groups, its offset 0, its target a vector.
    pub search: Search,
    pub field: Field,
    /// Most hits of each group.
    pub size: usize,
}

/// Hits that have a value in common.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    pub value: Scalar,
    pub hits: Vec<Hit>,
}

/// What to count.
#[derive(Clone, Debug)]
pub struct Facet {
    pub field: Field,
    pub filter: Filter,
    /// Most values to return.
    pub limit: usize,
}

// === impl dyn VectorStore ===

impl dyn VectorStore {
    /// Fetches one item with its vector.
    pub async fn point(&self, name: CollectionName, id: ItemId) -> Result<Option<Point>, Error> {
        let record = self.get(name, vec![id], true).await?.pop();
        let vectored = record.map(|Record { item, vector }| {
            let missing = || Error::Failed(format!("item `{}` has no vector", item.id));
            Ok(Point { vector: vector.ok_or_else(missing)?, item })
        });
        vectored.transpose()
    }
}

/// Refuses points of another dimension than the collection's.
fn check_dimension(points: &[Point], expected: usize) -> Result<(), Error> {
    for point in points {
        check_length(&point.vector, expected)?;
    }
    Ok(())
}

/// Refuses a vector of another dimension than the collection's.
fn check_length(vector: &Embedding, expected: usize) -> Result<(), Error> {
    let actual = vector.dimension();
    if actual == expected { Ok(()) } else { Err(Error::WrongDimension { expected, actual }) }
}

/// Puts scored ids into their order, cuts the threshold and the page out of them.
fn rank<T: AsId>(mut scored: Vec<(T, f32)>, search: &Search) -> Vec<(T, f32)> {
    if let Target::Vector(_) = search.target {
        for (_, score) in &mut scored {
            // A dot product of unit vectors leaves the scale by a rounding error.
            *score = score.clamp(-1.0, 1.0);
        }
    }
    scored.sort_by(by_rank);
    scored.retain(|(_, score)| search.threshold.is_none_or(|least| *score >= least));
    scored.into_iter().skip(search.offset).take(search.limit).collect()
}

/// Best first, equal scores in order of id.
fn by_rank<T: AsId>((a, a_score): &(T, f32), (b, b_score): &(T, f32)) -> Ordering {
    b_score.total_cmp(a_score).then_with(|| a.id().cmp(b.id()))
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
