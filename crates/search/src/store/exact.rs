//! A store in memory that compares a query with every vector. It is slow, obviously right and
//! forgets everything: the oracle that real stores are tested against.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use clipmesh_proto::ids::{CollectionName, ItemId};
use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};
use uuid::Uuid;

use super::index::{FieldIndex, Kind, VectorIndex};
use super::{
    Answer, Collection, Error, Facet, Group, Grouped, Hit, IndexState, NewCollection, Ordered,
    Page, Point, Record, Search, Status, Target, VectorStore, check_dimension, check_length, rank,
};
use crate::filter::{Field, Filter};
use crate::item::{self, Etag, Scalar, Value};
use crate::words::{self, Weights};

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

#[derive(Debug)]
struct Contents {
    collection: Collection,
    points: BTreeMap<ItemId, Point>,
    generation: u64,
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

    fn set_vector_index(&self, name: CollectionName, index: VectorIndex) -> Answer<'_, Collection> {
        self.with(&name, |contents| {
            contents.collection.vector_index = index;
            Ok(contents.describe())
        })
    }

    fn create_index(&self, name: CollectionName, index: FieldIndex) -> Answer<'_, Collection> {
        self.with(&name, |contents| {
            contents.collection.indexes.insert(index);
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

    fn replace(&self, name: CollectionName, point: Point, expected: Etag) -> Answer<'_, bool> {
        self.with(&name, |contents| {
            check_length(&point.vector, contents.collection.dimension)?;
            let Some(own) = contents.points.get_mut(&point.item.id) else {
                return Ok(false);
            };
            let is_same = own.item.etag() == expected;
            if is_same {
                *own = point;
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
        self.with(&name, |contents| {
            let kind = contents.kind(&page.field, &[Kind::Integer, Kind::Float, Kind::Time])?;
            let mut numbered = Vec::new();
            for point in contents.passing(&page.filter) {
                for number in numbers(&page.field, kind, point) {
                    numbered.push((record(point, false), number));
                }
            }
            numbered.sort_by(|(_, a), (_, b)| {
                let order = a.total_cmp(b);
                if page.descending { order.reverse() } else { order }
            });
            numbered.truncate(page.limit);
            Ok(numbered)
        })
    }

    fn search(&self, name: CollectionName, searches: Vec<Search>) -> Answer<'_, Vec<Vec<Hit>>> {
        self.with(&name, |contents| searches.iter().map(|search| contents.search(search)).collect())
    }

    fn group(&self, name: CollectionName, grouped: Grouped) -> Answer<'_, Vec<Group>> {
        self.with(&name, |contents| contents.group(&grouped))
    }

    fn facet(&self, name: CollectionName, facet: Facet) -> Answer<'_, Vec<(Scalar, u64)>> {
        self.with(&name, |contents| {
            let kind =
                contents.kind(&facet.field, &[Kind::Keyword, Kind::Integer, Kind::Boolean])?;
            let mut counts: Vec<(Scalar, u64)> = Vec::new();
            for point in contents.passing(&facet.filter) {
                for value in values(&facet.field, kind, point) {
                    match counts.iter_mut().find(|(own, _)| *own == value) {
                        Some((_, count)) => *count += 1,
                        None => counts.push((value, 1)),
                    }
                }
            }
            counts.sort_by(|(a, a_count), (b, b_count)| {
                b_count.cmp(a_count).then_with(|| in_order(a, b))
            });
            counts.truncate(facet.limit);
            Ok(counts)
        })
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

// === impl Contents ===

impl Contents {
    fn describe(&self) -> Collection {
        Collection { generation: Some(self.generation), ..self.collection.clone() }
    }

    fn passing<'a>(&'a self, filter: &'a Filter) -> impl Iterator<Item = &'a Point> {
        self.points.values().filter(|point| filter.accepts(&point.item))
    }

    fn kind(&self, field: &Field, fitting: &[Kind]) -> Result<Kind, Error> {
        let kind = self.collection.indexes.kind(field).filter(|kind| fitting.contains(kind));
        kind.ok_or_else(|| Error::NotIndexed(field.key()))
    }

    fn search(&self, search: &Search) -> Result<Vec<Hit>, Error> {
        let ranked = rank(self.scored(search)?, search).into_iter();
        Ok(ranked.map(|(point, score)| hit(point, score, search.vectors)).collect())
    }

    /// Whatever the search may find, with its scores, in any order.
    fn scored(&self, search: &Search) -> Result<Vec<(&Point, f32)>, Error> {
        let candidates = self.points.values().filter(|point| {
            !search.exclude.contains(&point.item.id) && search.filter.accepts(&point.item)
        });
        match &search.target {
            Target::Vector(vector) => {
                check_length(vector, self.collection.dimension)?;
                Ok(candidates.map(|point| (point, point.vector.dot(vector))).collect())
            }
            Target::Words(words) => {
                let query = self.rarities(words);
                let scored = candidates.map(|point| {
                    let own = self.collection.words_of(&point.item);
                    let of = |word: &u32| own.words.iter().position(|other| other == word);
                    let weigh = |(word, rarity): &(u32, f32)| {
                        of(word).map_or(0.0, |at| own.weights[at] * rarity)
                    };
                    (point, query.iter().map(weigh).sum())
                });
                Ok(scored.filter(|(_, score)| *score > 0.0).collect())
            }
        }
    }

    /// The words of a query and how rare they are.
    fn rarities(&self, words: &[String]) -> Vec<(u32, f32)> {
        let all = self.points.values().map(|point| self.collection.words_of(&point.item));
        let texts: Vec<_> = all.filter(|weights| !weights.words.is_empty()).collect();
        let rarity = |word: u32| {
            let with = texts.iter().filter(|weights| weights.words.contains(&word)).count();
            (word, words::rarity(texts.len(), with))
        };
        Weights::of_query(words).words.into_iter().map(rarity).collect()
    }

    fn group(&self, grouped: &Grouped) -> Result<Vec<Group>, Error> {
        let kind = self.kind(&grouped.field, &[Kind::Keyword, Kind::Integer])?;
        let everything = Search { limit: usize::MAX, ..grouped.search.clone() };
        let mut groups: Vec<Group> = Vec::new();
        for (point, score) in rank(self.scored(&everything)?, &everything) {
            for value in values(&grouped.field, kind, point) {
                let at = groups.iter().position(|group| group.value == value);
                let at = at.unwrap_or_else(|| {
                    groups.push(Group { value, hits: Vec::new() });
                    groups.len() - 1
                });
                if groups[at].hits.len() < grouped.size {
                    groups[at].hits.push(hit(point, score, grouped.search.vectors));
                }
            }
        }
        groups.truncate(grouped.search.limit);
        Ok(groups)
    }
}

fn record(point: &Point, vectors: bool) -> Record {
    Record { item: point.item.clone(), vector: vectors.then(|| point.vector.clone()) }
}

fn hit(point: &Point, score: f32, vectors: bool) -> Hit {
    let Record { item, vector } = record(point, vectors);
    Hit { item, score, vector }
}

/// The different values of an item that an index of this kind knows.
fn values(field: &Field, kind: Kind, point: &Point) -> Vec<Scalar> {
    let value = field.of(&point.item);
    let mut values: Vec<Scalar> = Vec::new();
    for scalar in value.as_ref().map_or(&[][..], Value::elements) {
        let is_known = match scalar {
            Scalar::String(_) => kind == Kind::Keyword,
            Scalar::Number(number) => kind == Kind::Integer && number.fract() == 0.0,
            Scalar::Bool(_) => kind == Kind::Boolean,
            Scalar::Place(_) => false,
        };
        if is_known && !values.contains(scalar) {
            values.push(scalar.clone());
        }
    }
    values
}

/// The numbers of an item that an index of this kind has in order.
fn numbers(field: &Field, kind: Kind, point: &Point) -> Vec<f64> {
    let value = field.of(&point.item);
    let elements = value.as_ref().map_or(&[][..], Value::elements).iter();
    let numbers = elements.filter_map(|scalar| match scalar {
        Scalar::Number(number) if kind == Kind::Integer => {
            Some(*number).filter(|number| number.fract() == 0.0)
        }
        Scalar::Number(number) => Some(*number).filter(|_| kind == Kind::Float),
        Scalar::String(_) => field.time(scalar).filter(|_| kind == Kind::Time),
        Scalar::Bool(_) | Scalar::Place(_) => None,
    });
    numbers.collect()
}

/// Values of one kind in their order.
fn in_order(a: &Scalar, b: &Scalar) -> Ordering {
    match (a, b) {
        (Scalar::String(a), Scalar::String(b)) => a.cmp(b),
        (Scalar::Number(a), Scalar::Number(b)) => a.total_cmp(b),
        (Scalar::Bool(a), Scalar::Bool(b)) => a.cmp(b),
        (_, _) => Ordering::Equal,
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
