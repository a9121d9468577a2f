//! The same files, and files that show the same.
//!
//! Items are in one group when they share a hash of their bytes or of their pixels. The store tells
//! which values of either occur more than once, the most frequent first, and as many values of each
//! as there are groups wanted are enough: equal bytes show equal pixels, so that a group is known
//! by its pixels, or, where nobody looked at those, by its bytes.

use std::collections::{HashMap, HashSet, VecDeque};

use clipmesh_proto::ids::{ContentHash, ItemId, PixelHash};
use futures::stream;
use futures::{StreamExt as _, TryStreamExt as _};

use super::union::Union;
use super::{Groups, MAX_ITEMS, Scope, too_many};
use crate::error::Error;
use crate::filter::{Field, Test};
use crate::item::{Item, Scalar};
use crate::store::{Facet, Page};

/// Values whose items are looked up by one call, and at least so many groups at a time.
const ROUND: usize = 64;
/// Items listed by one call.
const LISTED: usize = 1_000;

/// What an item may have in common with another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Mark {
    Bytes(ContentHash),
    Pixels(PixelHash),
}

/// Where the search for groups stands.
#[derive(Debug)]
struct Rounds {
    scope: Scope,
    /// Marks that several items have, the most frequent first.
    shared: VecDeque<Mark>,
    /// Those whose items were told already.
    told: HashSet<Mark>,
}

/// Finds the `limit` largest groups, or a few more.
pub(super) async fn groups(scope: Scope, limit: usize) -> Result<Groups, Error> {
    let mut shared = scope.shared(Field::PixelHash, limit).await?;
    shared.extend(scope.shared(Field::ContentHash, limit).await?);
    // Stable: of equally frequent ones pixels first, since they tell more.
    shared.sort_by(|(_, a), (_, b)| b.cmp(a));
    let shared = shared.into_iter().map(|(mark, _)| mark).collect();
    let rounds = Rounds { scope, shared, told: HashSet::new() };
    let groups = stream::try_unfold(rounds, async |mut rounds| {
        let groups = rounds.next().await?;
        Ok::<_, Error>(groups.map(|groups| (stream::iter(groups.into_iter().map(Ok)), rounds)))
    });
    Ok(groups.try_flatten().boxed())
}

// === impl Scope ===

impl Scope {
    /// The marks of a field that several items have, and how many.
    async fn shared(&self, field: Field, limit: usize) -> Result<Vec<(Mark, u64)>, Error> {
        let facet = Facet { field: field.clone(), filter: self.filter.clone(), limit };
        let values = self.store.facet(self.collection.clone(), facet).await?;
        let several = values.into_iter().filter(|(_, count)| *count > 1);
        let marks = several.filter_map(|(value, count)| Some((Mark::read(&field, &value)?, count)));
        Ok(marks.collect())
    }

    /// The items that have one of these values, without the others' company.
    async fn listed(&self, field: Field, marks: &[Mark]) -> Result<Vec<Item>, Error> {
        let values = marks.iter().map(|mark| Scalar::String(mark.text())).collect();
        let filter = self.filter.clone().and(field, Test::AnyOf(values));
        let mut items: Vec<Item> = Vec::new();
        loop {
            let after = items.last().map(|item| item.id.clone());
            let page = Page { filter: filter.clone(), after, limit: LISTED, vectors: false };
            let records = self.store.scroll(self.collection.clone(), page).await?;
            let is_last = records.len() < LISTED;
            items.extend(records.into_iter().map(|record| record.item));
            if items.len() as u64 > MAX_ITEMS {
                let count = self.store.count(self.collection.clone(), filter).await?;
                return Err(too_many(count));
            }
            if is_last {
                return Ok(items);
            }
        }
    }
}

// === impl Rounds ===

impl Rounds {
    /// The groups of the next marks; `None` when there are no more.
    async fn next(&mut self) -> Result<Option<Vec<Vec<ItemId>>>, Error> {
        let mut pending: Vec<Mark> = Vec::new();
        while pending.len() < ROUND
            && let Some(mark) = self.shared.pop_front()
        {
            if self.told.insert(mark) {
                pending.push(mark);
            }
        }
        if pending.is_empty() {
            return Ok(None);
        }
        let mut union = Union::default();
        let mut first: HashMap<Mark, ItemId> = HashMap::new();
        // An item leads on by its other mark, which may be none of the most frequent.
        while !pending.is_empty() {
            let mut found = Vec::new();
            for item in self.marked(&pending).await? {
                for mark in Mark::of(&item) {
                    union.join(first.entry(mark).or_insert_with(|| item.id.clone()), &item.id);
                    if self.told.insert(mark) {
                        found.push(mark);
                    }
                }
            }
            pending = found;
        }
        let groups = union.into_groups().into_iter().filter(|group| group.len() > 1);
        Ok(Some(groups.collect()))
    }

    /// The items that have one of these marks.
    async fn marked(&self, marks: &[Mark]) -> Result<Vec<Item>, Error> {
        let (bytes, pixels): (Vec<_>, Vec<_>) =
            marks.iter().partition(|mark| matches!(mark, Mark::Bytes(_)));
        let mut items = Vec::new();
        for (field, marks) in [(Field::ContentHash, bytes), (Field::PixelHash, pixels)] {
            for marks in marks.chunks(ROUND) {
                items.extend(self.scope.listed(field.clone(), marks).await?);
                if items.len() as u64 > MAX_ITEMS {
                    return Err(too_many(items.len() as u64));
                }
            }
        }
        Ok(items)
    }
}

// === impl Mark ===

impl Mark {
    fn of(item: &Item) -> impl Iterator<Item = Self> {
        let bytes = item.content_hash.map(Self::Bytes);
        bytes.into_iter().chain(item.pixel_hash.map(Self::Pixels))
    }

    /// What the store has in one of the two fields; `None` for what is no hash.
    fn read(field: &Field, value: &Scalar) -> Option<Self> {
        let text = value.as_str()?;
        if *field == Field::ContentHash {
            text.parse().ok().map(Self::Bytes)
        } else {
            text.parse().ok().map(Self::Pixels)
        }
    }

    fn text(self) -> String {
        match self {
            Self::Bytes(hash) => hash.to_string(),
            Self::Pixels(hash) => hash.to_string(),
        }
    }
}
