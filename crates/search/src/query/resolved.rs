//! A search whose vector is known: what is left is the store's part, which can be asked again.

use std::sync::Arc;

use clipmesh_proto::Embedding;
use clipmesh_proto::ids::{CollectionName, ItemId};
use clipmesh_proto::search::v1;
use futures::FutureExt as _;

use super::plan::{Ask, Reply};
use super::{Request, ask, plan};
use crate::cache::Rerun;
use crate::convert;
use crate::error::Error;
use crate::filter::Field;
use crate::store::{Collection, VectorStore};

/// A search that the store has to answer.
#[derive(Debug)]
pub(super) struct Resolved {
    /// Without its query, which is `vector` now.
    pub(super) request: Request,
    pub(super) collection: CollectionName,
    /// Fields of the filter without an index.
    pub(super) unindexed: Vec<Field>,
    /// The items that the query named.
    pub(super) exclude: Vec<ItemId>,
    /// `None` for words alone.
    pub(super) vector: Option<Embedding>,
}

impl Resolved {
    pub(super) fn ask(&self) -> Ask {
        plan::ask(&self.request, self.vector.as_ref(), self.exclude.clone())
    }

    /// The answer, without its timing.
    pub(super) async fn answer(&self, reply: Reply) -> Result<v1::SearchResponse, Error> {
        let found = plan::finish(&self.request, self.vector.as_ref(), reply).await?;
        let mut response = convert::search::write(found, &self.request);
        response.unindexed_fields = self.unindexed.iter().map(Field::key).collect();
        Ok(response)
    }

    /// Asks the store for this and nothing else.
    pub(super) async fn ask_alone(
        &self,
        store: &Arc<dyn VectorStore>,
    ) -> Result<v1::SearchResponse, Error> {
        let asks = vec![(self.collection.clone(), self.ask())];
        let nothing = || Error::Internal("a search has no answer".to_owned());
        let (reply, _) = ask::all(store, asks).await.pop().ok_or_else(nothing)??;
        self.answer(reply).await
    }

    /// How to ask the same again after a write, which costs the embedder nothing. `None` for a query
    /// that named an item: it may have another vector by then, or be gone.
    pub(super) fn rerun(self: &Arc<Self>, store: &Arc<dyn VectorStore>) -> Option<Rerun> {
        if !self.exclude.is_empty() {
            return None;
        }
        let (own, store) = (Arc::clone(self), Arc::clone(store));
        Some(Rerun::new(move || {
            let (own, store) = (Arc::clone(&own), Arc::clone(&store));
            async move { own.again(&store).await }.boxed()
        }))
    }

    async fn again(
        &self,
        store: &Arc<dyn VectorStore>,
    ) -> Option<(Collection, v1::SearchResponse)> {
        let collection = store.resolve(self.collection.clone()).await.ok()?;
        Some((collection, self.ask_alone(store).await.ok()?))
    }
}
