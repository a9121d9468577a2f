//! How many items have which value.

use clipmesh_proto::ids::CollectionName;

use crate::error::Error;
use crate::filter::{Field, Filter};
use crate::item::Scalar;
use crate::query::Searches;
use crate::store::Facet;

/// What to count, and where.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) collection: CollectionName,
    pub(crate) field: Field,
    pub(crate) filter: Filter,
    /// Most values.
    pub(crate) limit: usize,
}

/// What was counted.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    pub(crate) field: Field,
    /// The most frequent first.
    pub(crate) values: Vec<(Scalar, u64)>,
    pub(crate) unindexed: Vec<Field>,
}

impl Searches {
    /// Counts items by the values of a field.
    pub(crate) async fn facet(&self, question: Question) -> Result<Counts, Error> {
        let Question { collection, field, filter, limit } = question;
        let collection = self.store.resolve(collection).await?;
        let unindexed = collection.indexes.missing_for(&filter);
        let facet = Facet { field: field.clone(), filter, limit };
        let values = self.store.facet(collection.name, facet).await?;
        Ok(Counts { field, values, unindexed })
    }
}
