//! One collection, and everything that can be asked of it, by going through all of it.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use clipmesh_proto::ids::ItemId;

use crate::filter::{Field, Filter};
use crate::item::{Scalar, Value};
use crate::store::index::Kind;
use crate::store::{
    Collection, Error, Facet, Group, Grouped, Hit, Ordered, Point, Record, Search, Target,
    check_length, rank,
};
use crate::words::{self, Weights};

#[derive(Debug)]
pub(super) struct Contents {
    pub(super) collection: Collection,
    pub(super) points: BTreeMap<ItemId, Point>,
    pub(super) generation: u64,
}

// === impl Contents ===

impl Contents {
    pub(super) fn describe(&self) -> Collection {
        Collection { generation: Some(self.generation), ..self.collection.clone() }
    }

    pub(super) fn passing<'a>(&'a self, filter: &'a Filter) -> impl Iterator<Item = &'a Point> {
        self.points.values().filter(|point| filter.accepts(&point.item))
    }

    fn kind(&self, field: &Field, fitting: &[Kind]) -> Result<Kind, Error> {
        let kind = self.collection.indexes.kind(field).filter(|kind| fitting.contains(kind));
        kind.ok_or_else(|| Error::NotIndexed(field.key()))
    }

    pub(super) fn search(&self, search: &Search) -> Result<Vec<Hit>, Error> {
        let ranked = rank(self.scored(search)?, search).into_iter();
        Ok(ranked.map(|(point, score)| hit(point, score, search.vectors)).collect())
    }

    pub(super) fn ordered(&self, page: &Ordered) -> Result<Vec<(Record, f64)>, Error> {
        let kind = self.kind(&page.field, &[Kind::Integer, Kind::Float, Kind::Time])?;
        let mut numbered = Vec::new();
        for point in self.passing(&page.filter) {
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
    }

    pub(super) fn facet(&self, facet: &Facet) -> Result<Vec<(Scalar, u64)>, Error> {
        let kind = self.kind(&facet.field, &[Kind::Keyword, Kind::Integer, Kind::Boolean])?;
        let mut counts: Vec<(Scalar, u64)> = Vec::new();
        for point in self.passing(&facet.filter) {
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

    pub(super) fn group(&self, grouped: &Grouped) -> Result<Vec<Group>, Error> {
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

pub(super) fn record(point: &Point, vectors: bool) -> Record {
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

/// The different numbers of an item that an index of this kind has in order.
fn numbers(field: &Field, kind: Kind, point: &Point) -> Vec<f64> {
    let value = field.of(&point.item);
    let elements = value.as_ref().map_or(&[][..], Value::elements).iter();
    let numbers = elements.filter_map(|scalar| match scalar {
        Scalar::Number(number) => Some(*number).filter(|_| kind != Kind::Time),
        Scalar::String(_) => field.time(scalar).filter(|_| kind == Kind::Time),
        Scalar::Bool(_) | Scalar::Place(_) => None,
    });
    let mut numbers: Vec<_> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    numbers.dedup();
    numbers
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
