//! A store in memory that compares a query with every vector. It is slow, obviously right and
//! forgets everything: the oracle that real stores are tested against.

mod contents;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use clipmesh_proto::ids::{CollectionName, ItemId};
use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};
use uuid::Uuid;

use self::contents::{Contents, record};
use super::index::FieldIndex;
use super::{
    Answer, Collection, Error, Facet, Group, Grouped, Hit, IndexState, NewCollection, Ordered,
    Page, Point, Record, Search, Status, VectorIndexChange, VectorStore, check_dimension,
    check_length,
};
use crate::filter::{Field, Filter};
use crate::item::{self, Etag, Scalar};

/// Collections in memory.
#[derive(Debug, Default)]
pub struct Exact {
    catalogue: Mutex<Catalogue>,
}

#[derive(Debug, Default)]
struct Catalogue {
    collections: BTreeMap<CollectionName, Contents>,
    aliases: BTreeMap<CollectionName, CollectionName>,
}

// === impl Exact ===

impl Exact {
    fn lock(&self) -> MutexGuard<'_, Catalogue> {
        // Whole after every statement, so a panic elsewhere leaves it usable.
        self.catalogue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T: Send + 'static>(
        &self,
        name: &CollectionName,
        work: impl FnOnce(&mut Contents) -> Result<T, Error>,
    ) -> Answer<'_, T> {
        let done = self.lock().contents(name).and_then(work);
        ready(done).boxed()
    }
}

impl VectorStore for Exact {
    fn create(&self, new: NewCollection) -> Answer<'_, Collection> {
        let mut catalogue = self.lock();
        if catalogue.has(&new.name) {
            return ready(Err(Error::CollectionExists(new.name))).boxed();
        }
        let collection = Collection {
            name: new.name.clone(),
            uid: Uuid::new_v4().to_string(),
            fingerprint: new.fingerprint,
            model_name: new.model_name,
            dimension: new.dimension,
            distance: new.distance,
            indexes: new.indexes,
            vector_index: new.vector_index,
            word_fields: new.word_fields,
            create_time: item::now(),
            generation: Some(0),
        };
        let points = BTreeMap::new();
        let contents = Contents { collection: collection.clone(), points, generation: 0 };
        catalogue.collections.insert(new.name, contents);
        ready(Ok(collection)).boxed()
    }

    fn remove(&self, name: CollectionName) -> Answer<'_, Collection> {
        let mut catalogue = self.lock();
        let removed = catalogue.collections.remove(&name);
        catalogue.aliases.retain(|_, target| *target != name);
        let removed = removed.map(|contents| contents.describe());
        ready(removed.ok_or(Error::NoCollection(name))).boxed()
    }

    fn resolve(&self, name: CollectionName) -> Answer<'_, Collection> {
        let mut catalogue = self.lock();
        let target = catalogue.aliases.get(&name).cloned().unwrap_or(name.clone());
        let found = catalogue.contents(&target).map(|contents| contents.describe());
        ready(found.map_err(|_| Error::NoCollection(name))).boxed()
    }

    fn collections(&self) -> Answer<'_, Vec<Collection>> {
        ready(Ok(self.lock().collections.values().map(Contents::describe).collect())).boxed()
    }

    fn set_vector_index(
        &self,
        name: CollectionName,
        change: VectorIndexChange,
    ) -> Answer<'_, Collection> {
        self.with(&name, |contents| {
            let index = &mut contents.collection.vector_index;
            *index = change.of(*index);
            Ok(contents.describe())
        })
    }

    fn create_index(&self, name: CollectionName, index: FieldIndex) -> Answer<'_, Collection> {
        self.with(&name, |contents| {
            if contents.collection.lacks_index(&index)? {
                contents.collection.indexes.insert(index);
            }
            Ok(contents.describe())
        })
    }

    fn remove_index(&self, name: CollectionName, field: Field) -> Answer<'_, Collection> {
        self.with(&name, |contents| {
            if contents.collection.indexes.remove(&field) {
                Ok(contents.describe())
            } else {
                Err(Error::NotIndexed(field.key()))
            }
        })
    }

    fn set_alias(
        &self,
        alias: CollectionName,
        name: CollectionName,
    ) -> Answer<'_, Option<CollectionName>> {
        let mut catalogue = self.lock();
        if catalogue.collections.contains_key(&alias) {
            return ready(Err(Error::CollectionExists(alias))).boxed();
        }
        if let Err(error) = catalogue.contents(&name) {
            return ready(Err(error)).boxed();
        }
        ready(Ok(catalogue.aliases.insert(alias, name))).boxed()
    }

    fn remove_alias(&self, alias: CollectionName) -> Answer<'_, ()> {
        let removed = self.lock().aliases.remove(&alias).map(drop);
        ready(removed.ok_or(Error::NoAlias(alias))).boxed()
    }

    fn aliases(&self) -> Answer<'_, BTreeMap<CollectionName, CollectionName>> {
        ready(Ok(self.lock().aliases.clone())).boxed()
    }

    fn status(&self, name: CollectionName) -> Answer<'_, Status> {
        self.with(&name, |contents| {
            let unindexed = contents.points.len() as u64;
            Ok(Status { unindexed, state: IndexState::Ready, disk_bytes: None })
        })
    }

    fn upsert(&self, name: CollectionName, points: Vec<Point>) -> Answer<'_, ()> {
        self.with(&name, |contents| {
            check_dimension(&points, contents.collection.dimension)?;
            contents.points.extend(points.into_iter().map(|point| (point.item.id.clone(), point)));
            contents.generation += 1;
            Ok(())
        })
    }

    fn replace(
        &self,
        name: CollectionName,
        point: Point,
        expected: Option<Etag>,
    ) -> Answer<'_, bool> {
        self.with(&name, |contents| {
            check_length(&point.vector, contents.collection.dimension)?;
            let own = contents.points.get(&point.item.id);
            let is_same = own.map(|own| own.item.etag()) == expected;
            if is_same {
                contents.points.insert(point.item.id.clone(), point);
                contents.generation += 1;
            }
            Ok(is_same)
        })
    }

    fn delete(&self, name: CollectionName, ids: Vec<ItemId>) -> Answer<'_, ()> {
        self.with(&name, |contents| {
            contents.points.retain(|id, _| !ids.contains(id));
            contents.generation += 1;
            Ok(())
        })
    }

    fn delete_unchanged(
        &self,
        name: CollectionName,
        id: ItemId,
        expected: Etag,
    ) -> Answer<'_, bool> {
        self.with(&name, |contents| {
            let Some(own) = contents.points.get(&id) else {
                return Ok(true);
            };
            let is_same = own.item.etag() == expected;
            if is_same {
                contents.points.remove(&id);
                contents.generation += 1;
            }
            Ok(is_same)
        })
    }

    fn sync(&self, name: CollectionName) -> Answer<'_, ()> {
        self.with(&name, |_| Ok(()))
    }

    fn get(
        &self,
        name: CollectionName,
        ids: Vec<ItemId>,
        vectors: bool,
    ) -> Answer<'_, Vec<Record>> {
        self.with(&name, |contents| {
            let ids: BTreeSet<_> = ids.into_iter().collect();
            let found = ids.iter().filter_map(|id| contents.points.get(id));
            Ok(found.map(|point| record(point, vectors)).collect())
        })
    }

    fn count(&self, name: CollectionName, filter: Filter) -> Answer<'_, u64> {
        self.with(&name, |contents| Ok(contents.passing(&filter).count() as u64))
    }

    fn scroll(&self, name: CollectionName, page: Page) -> Answer<'_, Vec<Record>> {
        self.with(&name, |contents| {
            let passing = contents.passing(&page.filter);
            let rest = passing
                .filter(|point| page.after.as_ref().is_none_or(|after| point.item.id > *after));
            Ok(rest.take(page.limit).map(|point| record(point, page.vectors)).collect())
        })
    }

    fn ordered(&self, name: CollectionName, page: Ordered) -> Answer<'_, Vec<(Record, f64)>> {
        self.with(&name, |contents| contents.ordered(&page))
    }

    fn search(&self, name: CollectionName, searches: Vec<Search>) -> Answer<'_, Vec<Vec<Hit>>> {
        self.with(&name, |contents| searches.iter().map(|search| contents.search(search)).collect())
    }

    fn group(&self, name: CollectionName, grouped: Grouped) -> Answer<'_, Vec<Group>> {
        self.with(&name, |contents| contents.group(&grouped))
    }

    fn facet(&self, name: CollectionName, facet: Facet) -> Answer<'_, Vec<(Scalar, u64)>> {
        self.with(&name, |contents| contents.facet(&facet))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        ready(()).boxed()
    }
}

// === impl Catalogue ===

impl Catalogue {
    fn has(&self, name: &CollectionName) -> bool {
        self.collections.contains_key(name) || self.aliases.contains_key(name)
    }

    fn contents(&mut self, name: &CollectionName) -> Result<&mut Contents, Error> {
        self.collections.get_mut(name).ok_or_else(|| Error::NoCollection(name.clone()))
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
