//! Items in order of one of their fields, page by page.
//!
//! ```text
//! numbers, times:   values in order ─► items without one
//!                     └ at each value, its items in the store's order
//! strings:          strings in order ─► other values ─► items without the field
//! ```
//!
//! A store gives items in order of a number, but equal ones in any order, and one with a list at
//! each of its elements. So the order is only used to find the values; where items share one, they
//! come in the order in which the store lists them, which goes on after any item. An item with a
//! list stands at its least element, or downwards at its greatest: what lies beyond a value is what
//! has no element on this side of it.
//!
//! Strings are not in order anywhere. All are read for each page, and the first ones kept.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

use clipmesh_proto::ids::{CollectionName, ItemId};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::filter::{Field, Filter, Range, Test};
use crate::item::{Item, Scalar, Value};
use crate::store::index::Kind;
use crate::store::{Collection, Ordered, Page, Record, VectorStore};

/// Most items whose strings are read for one page.
const MAX_STRINGS: usize = 100_000;
/// Items that are read at once.
const BATCH: usize = 1_000;

/// What to sort by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) field: Field,
    pub(crate) descending: bool,
}

/// The place of an item in an order; a listing goes on after it, whether or not it is still there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Place {
    /// At a number, by its bits, which no notation rounds.
    Number(u64, String),
    String(String, String),
    /// With something else where others have strings.
    Other(String),
    /// Without the field.
    None(String),
}

/// Lists what passes a filter in an order.
#[derive(Debug)]
pub(super) struct Sorter<'a> {
    store: &'a dyn VectorStore,
    name: &'a CollectionName,
    filter: &'a Filter,
    order: Order,
    kind: Kind,
}

/// An item in order of its string.
#[derive(Debug)]
struct Entry {
    /// `None` if it has no string there.
    key: Option<String>,
    item: Item,
}

// === impl Order ===

impl Order {
    /// Numbers that come before this one.
    fn before(&self, number: f64) -> Range {
        let bound = Some(number);
        if self.descending {
            Range { gt: bound, ..Range::default() }
        } else {
            Range { lt: bound, ..Range::default() }
        }
    }

    /// This number and those before.
    fn until(&self, number: f64) -> Range {
        let bound = Some(number);
        if self.descending {
            Range { gte: bound, ..Range::default() }
        } else {
            Range { lte: bound, ..Range::default() }
        }
    }

    /// Numbers that come after this one.
    fn after(&self, number: f64) -> Range {
        let bound = Some(number);
        if self.descending {
            Range { lt: bound, ..Range::default() }
        } else {
            Range { gt: bound, ..Range::default() }
        }
    }

    /// The string that an item stands at.
    fn string_of(&self, item: &Item) -> Option<String> {
        let value = self.field.of(item);
        let elements = value.as_ref().map_or(&[][..], Value::elements).iter();
        let strings = elements.filter_map(Scalar::as_str);
        let first = if self.descending { strings.max() } else { strings.min() };
        first.map(str::to_owned)
    }

    /// Strings in order, what has none behind them; equal ones by id.
    fn compare(&self, a: (Option<&str>, &str), b: (Option<&str>, &str)) -> Ordering {
        let by_key = match (a.0, b.0) {
            (Some(a), Some(b)) if self.descending => b.cmp(a),
            (Some(a), Some(b)) => a.cmp(b),
            (a, b) => a.is_none().cmp(&b.is_none()),
        };
        by_key.then_with(|| a.1.cmp(b.1))
    }
}

// === impl Place ===

impl Place {
    pub(super) fn write(&self) -> String {
        // Written without fail: it has no keys.
        serde_json::to_string(self).unwrap_or_default()
    }

    pub(super) fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    fn of_number(number: f64, item: &Item) -> Self {
        Self::Number(number.to_bits(), item.id.to_string())
    }
}

// === impl Sorter ===

impl<'a> Sorter<'a> {
    /// # Errors
    /// [`Error::NotIndexed`] for a field that can't be sorted by.
    pub(super) fn new(
        store: &'a dyn VectorStore,
        collection: &'a Collection,
        filter: &'a Filter,
        order: Order,
    ) -> Result<Self, Error> {
        let kind = match collection.indexes.kind(&order.field) {
            // Every item has one, and it is a string.
            _ if order.field == Field::Id => Kind::Keyword,
            Some(kind @ (Kind::Keyword | Kind::Integer | Kind::Float | Kind::Time)) => kind,
            Some(Kind::Boolean | Kind::Words | Kind::Geo) | None => {
                return Err(Error::NotIndexed(order.field.key()));
            }
        };
        Ok(Self { store, name: &collection.name, filter, order, kind })
    }

    /// The next items after a place, each with its own.
    pub(super) async fn page(
        &self,
        after: Option<Place>,
        wanted: usize,
    ) -> Result<Vec<(Item, Place)>, Error> {
        let mut found = match &after {
            Some(Place::None(_)) => Vec::new(),
            Some(_) | None if self.is_of_strings() => self.strings(after.as_ref(), wanted).await?,
            Some(_) | None => self.numbers(after.as_ref(), wanted).await?,
        };
        if found.len() < wanted {
            let after = match after {
                Some(Place::None(id)) => ItemId::try_from(id).ok(),
                Some(Place::Number(..) | Place::String(..) | Place::Other(_)) | None => None,
            };
            let limit = wanted - found.len();
            let rest = self.listed(self.without(), after, limit).await?.into_iter();
            found.extend(rest.map(|item| {
                let place = Place::None(item.id.to_string());
                (item, place)
            }));
        }
        Ok(found)
    }

    /// Whether a place is one of this order. It is not, if the field has another index since.
    pub(super) fn has(&self, place: &Place) -> bool {
        match place {
            Place::Number(..) => !self.is_of_strings(),
            Place::String(..) | Place::Other(_) => self.is_of_strings(),
            Place::None(_) => true,
        }
    }

    fn is_of_strings(&self) -> bool {
        self.kind == Kind::Keyword
    }

    /// What has nothing to sort by.
    fn without(&self) -> Filter {
        let test = if self.is_of_strings() { Test::Exists(true) } else { self.within(Range::ALL) };
        self.filter.clone().and_not(self.order.field.clone(), test)
    }

    async fn numbers(
        &self,
        after: Option<&Place>,
        wanted: usize,
    ) -> Result<Vec<(Item, Place)>, Error> {
        let mut found = Vec::new();
        let mut last = None;
        if let Some(Place::Number(bits, id)) = after {
            let number = f64::from_bits(*bits);
            let id = ItemId::try_from(id.clone()).ok();
            self.add_those_at(number, id, wanted, &mut found).await?;
            last = Some(number);
        }
        while found.len() < wanted {
            let limit = wanted - found.len() + 1;
            let page = Ordered {
                filter: self.beyond(last),
                field: self.order.field.clone(),
                descending: self.order.descending,
                limit,
            };
            let ordered = self.store.ordered(self.name.clone(), page).await?;
            let is_all = ordered.len() < limit;
            let (whole, open) = split(ordered, is_all);
            let whole = self.in_store_order(whole).await?.into_iter().take(wanted - found.len());
            found.extend(whole.map(|(item, number)| {
                let place = Place::of_number(number, &item);
                (item, place)
            }));
            let Some(open) = open else { break };
            self.add_those_at(open, None, wanted, &mut found).await?;
            last = Some(open);
        }
        Ok(found)
    }

    /// Adds the items that stand at a number, up to as many as are wanted in all.
    async fn add_those_at(
        &self,
        number: f64,
        after: Option<ItemId>,
        wanted: usize,
        found: &mut Vec<(Item, Place)>,
    ) -> Result<(), Error> {
        let field = || self.order.field.clone();
        let filter = self.filter.clone().and(field(), self.within(Range::only(number)));
        let filter = filter.and_not(field(), self.within(self.order.before(number)));
        let items = self.listed(filter, after, wanted.saturating_sub(found.len())).await?;
        found.extend(items.into_iter().map(|item| {
            let place = Place::of_number(number, &item);
            (item, place)
        }));
        Ok(())
    }

    /// Items with numbers, all of which come after one.
    fn beyond(&self, last: Option<f64>) -> Filter {
        let (filter, field) = (self.filter.clone(), || self.order.field.clone());
        match last {
            None => filter,
            Some(last) => filter
                .and(field(), self.within(self.order.after(last)))
                .and_not(field(), self.within(self.order.until(last))),
        }
    }

    fn within(&self, range: Range) -> Test {
        if self.kind == Kind::Time { Test::Time(range) } else { Test::Range(range) }
    }

    /// Puts items of one number into the order in which the store lists them.
    async fn in_store_order(&self, items: Vec<(Item, f64)>) -> Result<Vec<(Item, f64)>, Error> {
        let ties: Vec<_> = tied(&items).map(|id| Scalar::String(id.to_string())).collect();
        if ties.is_empty() {
            return Ok(items);
        }
        let limit = ties.len();
        let filter = Filter::default().and(Field::Id, Test::AnyOf(ties));
        let listed = self.listed(filter, None, limit).await?.into_iter();
        let places: HashMap<_, _> =
            listed.enumerate().map(|(place, item)| (item.id, place)).collect();
        Ok(arranged(items, &places))
    }

    async fn listed(
        &self,
        filter: Filter,
        after: Option<ItemId>,
        limit: usize,
    ) -> Result<Vec<Item>, Error> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let page = Page { filter, after, limit, vectors: false };
        let records = self.store.scroll(self.name.clone(), page).await?.into_iter();
        Ok(records.map(|record| record.item).collect())
    }

    async fn strings(
        &self,
        after: Option<&Place>,
        wanted: usize,
    ) -> Result<Vec<(Item, Place)>, Error> {
        let there = self.filter.clone().and(self.order.field.clone(), Test::Exists(true));
        let count = self.store.count(self.name.clone(), there.clone()).await?;
        if count > MAX_STRINGS as u64 {
            let field = self.order.field.key();
            return Err(Error::TooManyToSort { field, max: MAX_STRINGS });
        }
        let mut first = Vec::new();
        let mut last = None;
        loop {
            let items = self.listed(there.clone(), last.take(), BATCH).await?;
            let is_all = items.len() < BATCH;
            last = items.last().map(|item| item.id.clone());
            let entries =
                items.into_iter().map(|item| Entry { key: self.order.string_of(&item), item });
            keep_first(&self.order, after, &mut first, entries, wanted);
            if is_all {
                break;
            }
        }
        let placed = first.into_iter().map(|Entry { key, item }| {
            let id = item.id.to_string();
            let place = match key {
                Some(key) => Place::String(key, id),
                None => Place::Other(id),
            };
            (item, place)
        });
        Ok(placed.collect())
    }
}

/// What stands in order of a number: each item at its first place; and the number at the end, if
/// there may be more at it than were read. Those at it are left out then.
fn split(ordered: Vec<(Record, f64)>, is_all: bool) -> (Vec<(Item, f64)>, Option<f64>) {
    let open = ordered.last().map(|(_, number)| *number).filter(|_| !is_all);
    let mut seen = HashSet::new();
    let whole = ordered
        .into_iter()
        .filter(|(record, number)| Some(*number) != open && seen.insert(record.item.id.clone()))
        .map(|(record, number)| (record.item, number));
    (whole.collect(), open)
}

/// The items whose number another has, too.
fn tied(items: &[(Item, f64)]) -> impl Iterator<Item = &ItemId> {
    let groups = items.chunk_by(|(_, a), (_, b)| a == b).filter(|group| group.len() > 1);
    groups.flatten().map(|(item, _)| &item.id)
}

/// The same items, those of one number by their places.
fn arranged(mut items: Vec<(Item, f64)>, places: &HashMap<ItemId, usize>) -> Vec<(Item, f64)> {
    // What was deleted meanwhile has none, and comes last of its number.
    let place = |item: &Item| places.get(&item.id).copied().unwrap_or(usize::MAX);
    for group in items.chunk_by_mut(|(_, a), (_, b)| a == b) {
        group.sort_by_key(|(item, _)| place(item));
    }
    items
}

/// Adds entries that come after a place to the first of those, of which as many are kept as wanted.
fn keep_first(
    order: &Order,
    after: Option<&Place>,
    first: &mut Vec<Entry>,
    entries: impl Iterator<Item = Entry>,
    wanted: usize,
) {
    let after = match after {
        Some(Place::String(key, id)) => Some((Some(key.as_str()), id.as_str())),
        Some(Place::Other(id)) => Some((None, id.as_str())),
        Some(Place::Number(..) | Place::None(_)) | None => None,
    };
    let rank = |entry: &Entry, other: (Option<&str>, &str)| {
        order.compare((entry.key.as_deref(), entry.item.id.as_str()), other)
    };
    let is_next = |entry: &Entry| after.is_none_or(|after| rank(entry, after).is_gt());
    first.extend(entries.filter(is_next));
    first.sort_by(|a, b| rank(a, (b.key.as_deref(), b.item.id.as_str())));
    first.truncate(wanted);
}

#[cfg(test)]
mod tests;
