//! Taking items out.

use clipmesh_proto::ids::{CollectionName, ItemId};

use super::{Items, changed_since, check_etag};
use crate::error::Error;
use crate::filter::Filter;
use crate::item::{Etag, Item};
use crate::store::{Collection, Page, Point};

/// Items that are deleted at once. More is a little quicker, and keeps others waiting for longer.
const BATCH: usize = 128;

/// Which items to delete.
#[derive(Clone, Debug)]
pub(crate) enum Which {
    /// Those of these that are there.
    Ids(Vec<ItemId>),
    /// Those that pass.
    Filter(Filter),
}

impl Items {
    /// Takes an item out.
    pub(crate) async fn delete(
        &self,
        name: CollectionName,
        id: ItemId,
        etag: Option<Etag>,
    ) -> Result<(), Error> {
        let collection = self.resolve(name).await?;
        let turn = self.locks.lock(&collection.name, &id).await;
        let found = self.store.point(collection.name.clone(), id.clone()).await?;
        let missing = || Error::NoItem { collection: collection.name.clone(), id: id.clone() };
        let Point { item, .. } = found.ok_or_else(missing)?;
        check_etag(&collection.name, &item, etag.as_ref())?;
        if etag.is_none() {
            return self.writer.delete(turn, collection, vec![item]).await;
        }
        let name = collection.name.clone();
        match self.writer.delete_unchanged(turn, collection, item).await? {
            true => Ok(()),
            // Another process was faster.
            false => Err(changed_since(&name, &id)),
        }
    }

    /// Takes several items out, and counts them. When it fails, some may be gone.
    pub(crate) async fn delete_many(
        &self,
        collection: &Collection,
        which: Which,
    ) -> Result<u64, Error> {
        let deleted = match which {
            Which::Ids(mut ids) => {
                ids.sort_unstable();
                ids.dedup();
                let mut deleted = 0;
                for ids in ids.chunks(BATCH) {
                    deleted += self.delete_batch(collection, ids.to_vec(), |_| true).await?;
                }
                deleted
            }
            Which::Filter(filter) => self.delete_passing(collection, filter).await?,
        };
        if deleted == 0 {
            // They may be gone by a call that was not answered. Nobody knows since when.
            self.writer.confirm(collection, None).await?;
        }
        Ok(deleted)
    }

    async fn delete_passing(&self, collection: &Collection, filter: Filter) -> Result<u64, Error> {
        let mut deleted = 0;
        let mut after = None;
        loop {
            let page = Page { filter: filter.clone(), after, limit: BATCH, vectors: false };
            let found = self.store.scroll(collection.name.clone(), page).await?.into_iter();
            let ids: Vec<_> = found.map(|record| record.item.id).collect();
            let Some(last) = ids.last().cloned() else {
                return Ok(deleted);
            };
            // It may have been changed since it was found.
            deleted += self.delete_batch(collection, ids, |item| filter.accepts(item)).await?;
            after = Some(last);
        }
    }

    /// Takes out those of some items that are there and to go.
    async fn delete_batch(
        &self,
        collection: &Collection,
        ids: Vec<ItemId>,
        is_to_go: impl Fn(&Item) -> bool,
    ) -> Result<u64, Error> {
        let turn = self.locks.lock_all(&collection.name, &ids).await;
        let found = self.store.get(collection.name.clone(), ids, false).await?.into_iter();
        let items: Vec<_> = found.map(|record| record.item).filter(is_to_go).collect();
        let count = items.len() as u64;
        if count > 0 {
            self.writer.delete(turn, collection.clone(), items).await?;
        }
        Ok(count)
    }
}
