//! A store in memory that compares a query with every vector. It is slow, obviously right and
//! forgets everything: the oracle that real stores are tested against.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use clipmesh_proto::ids::{CollectionName, ItemId};
use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};
use uuid::Uuid;

use super::{
    Answer, Collection, Error, Hit, NewCollection, Page, Point, Search, VectorStore,
    check_dimension, rank,
};
use crate::filter::Filter;
use crate::item::{self, Item};

/// Collections in memory.
#[derive(Debug, Default)]
pub struct Exact {
    collections: Mutex<BTreeMap<CollectionName, Contents>>,
}

#[derive(Debug)]
struct Contents {
    collection: Collection,
    points: BTreeMap<ItemId, Point>,
}

impl Exact {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<CollectionName, Contents>> {
        // The map is whole after every statement, so a panic elsewhere leaves it usable.
        self.collections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(
        &self,
        name: &CollectionName,
        work: impl FnOnce(&mut Contents) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut collections = self.lock();
        let contents =
            collections.get_mut(name).ok_or_else(|| Error::NoCollection(name.clone()))?;
        work(contents)
    }
}

impl VectorStore for Exact {
    fn create(&self, new: NewCollection) -> Answer<'_, Collection> {
        let mut collections = self.lock();
        if collections.contains_key(&new.name) {
            return ready(Err(Error::CollectionExists(new.name))).boxed();
        }
        let collection = Collection {
            name: new.name.clone(),
            uid: Uuid::new_v4().to_string(),
            fingerprint: new.fingerprint,
            model_name: new.model_name,
            dimension: new.dimension,
            distance: new.distance,
            create_time: item::now(),
            generation: 0,
        };
        let contents = Contents { collection: collection.clone(), points: BTreeMap::new() };
        collections.insert(new.name, contents);
        ready(Ok(collection)).boxed()
    }

    fn remove(&self, name: CollectionName) -> Answer<'_, Collection> {
        let removed = self.lock().remove(&name).map(|contents| contents.collection);
        ready(removed.ok_or(Error::NoCollection(name))).boxed()
    }

    fn collection(&self, name: &CollectionName) -> Result<Collection, Error> {
        self.with(name, |contents| Ok(contents.collection.clone()))
    }

    fn collections(&self) -> Vec<Collection> {
        self.lock().values().map(|contents| contents.collection.clone()).collect()
    }

    fn upsert(&self, name: CollectionName, points: Vec<Point>) -> Answer<'_, ()> {
        let done = self.with(&name, |contents| {
            check_dimension(&points, contents.collection.dimension)?;
            contents.points.extend(points.into_iter().map(|point| (point.item.id.clone(), point)));
            contents.collection.generation += 1;
            Ok(())
        });
        ready(done).boxed()
    }

    fn delete(&self, name: CollectionName, ids: Vec<ItemId>) -> Answer<'_, ()> {
        let done = self.with(&name, |contents| {
            contents.points.retain(|id, _| !ids.contains(id));
            contents.collection.generation += 1;
            Ok(())
        });
        ready(done).boxed()
    }

    fn sync(&self, name: CollectionName) -> Answer<'_, ()> {
        ready(self.with(&name, |_| Ok(()))).boxed()
    }

    fn get(&self, name: CollectionName, id: ItemId) -> Answer<'_, Option<Point>> {
        ready(self.with(&name, |contents| Ok(contents.points.get(&id).cloned()))).boxed()
    }

    fn count(&self, name: CollectionName, filter: Filter) -> Answer<'_, u64> {
        let count = self.with(&name, |contents| {
            let passing = contents.points.values().filter(|point| filter.accepts(&point.item));
            Ok(passing.count() as u64)
        });
        ready(count).boxed()
    }

    fn scroll(&self, name: CollectionName, page: Page) -> Answer<'_, Vec<Item>> {
        let items = self.with(&name, |contents| {
            let items = contents.points.values().map(|point| &point.item);
            let rest =
                items.filter(|item| page.after.as_ref().is_none_or(|after| item.id > *after));
            let passing = rest.filter(|item| page.filter.accepts(item));
            Ok(passing.take(page.limit).cloned().collect())
        });
        ready(items).boxed()
    }

    fn search(&self, name: CollectionName, search: Search) -> Answer<'_, Vec<Hit>> {
        let hits = self.with(&name, |contents| {
            let (expected, actual) = (contents.collection.dimension, search.vector.dimension());
            if actual != expected {
                return Err(Error::WrongDimension { expected, actual });
            }
            let candidates = contents.points.values().filter(|point| {
                !search.exclude.contains(&point.item.id) && search.filter.accepts(&point.item)
            });
            let scored =
                candidates.map(|point| (point, point.vector.dot(&search.vector))).collect();
            let ranked = rank(scored, &search).into_iter();
            Ok(ranked.map(|(point, score)| Hit { item: point.item.clone(), score }).collect())
        });
        ready(hits).boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        ready(()).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract;

    #[tokio::test]
    async fn keeps_the_contract() {
        contract::verify(&Exact::default()).await;
    }
}
