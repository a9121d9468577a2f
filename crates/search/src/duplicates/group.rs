//! A group of duplicates, put into order.

use std::cmp::Reverse;

use clipmesh_proto::Embedding;
use clipmesh_proto::ids::PerceptualHash;

use crate::item::Item;
use crate::store::{Error, Record};

/// Items that are each a duplicate of another in the group.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Group {
    /// The most pixels, then the longest file, then the oldest.
    pub(crate) representative: Item,
    /// The others, the most similar to it first, equal ones in order of id; at least one.
    pub(crate) duplicates: Vec<Duplicate>,
    /// Items of the whole group; more than are here where it is a large one.
    pub(crate) count: usize,
}

/// An item, and how it compares with the representative.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Duplicate {
    pub(crate) item: Item,
    /// Cosine similarity.
    pub(crate) score: f32,
    /// `None` where one of them has no perceptual hash.
    pub(crate) hash_distance: Option<u32>,
    pub(crate) same_bytes: bool,
    pub(crate) same_pixels: bool,
}

// === impl Group ===

impl Group {
    /// `None` for less than two items. `count` is that of the whole group.
    ///
    /// # Errors
    /// Items without the vectors that were asked for.
    pub(super) fn of(records: Vec<Record>, count: usize) -> Result<Option<Self>, Error> {
        let vectored = records.into_iter().map(|Record { item, vector }| {
            let missing = || Error::Failed(format!("item `{}` has no vector", item.id));
            Ok((vector.ok_or_else(missing)?, item))
        });
        let mut items = vectored.collect::<Result<Vec<(Embedding, Item)>, Error>>()?;
        items.sort_by(|(_, a), (_, b)| worth(a).cmp(&worth(b)));
        let mut items = items.into_iter();
        let Some((vector, representative)) = items.next() else {
            return Ok(None);
        };
        let compared = items.map(|(own, item)| {
            let score = own.dot(&vector).clamp(-1.0, 1.0);
            Duplicate::of(item, score, &representative)
        });
        let mut duplicates: Vec<_> = compared.collect();
        duplicates
            .sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.item.id.cmp(&b.item.id)));
        let is_group = !duplicates.is_empty();
        Ok(is_group.then_some(Self { representative, duplicates, count }))
    }
}

// === impl Duplicate ===

impl Duplicate {
    fn of(item: Item, score: f32, representative: &Item) -> Self {
        let distance =
            |(own, other): (PerceptualHash, PerceptualHash)| PerceptualHash::distance(own, other);
        let hash_distance = item.perceptual_hash.zip(representative.perceptual_hash).map(distance);
        let same_bytes =
            item.content_hash.is_some() && item.content_hash == representative.content_hash;
        // The same bytes show the same, even where nobody looked.
        let same_pixels =
            same_bytes || item.pixel_hash.is_some() && item.pixel_hash == representative.pixel_hash;
        Self { item, score, hash_distance, same_bytes, same_pixels }
    }
}

/// What is to be kept if in doubt comes first.
fn worth(item: &Item) -> impl Ord + '_ {
    let pixels = u64::from(item.width) * u64::from(item.height);
    (Reverse(pixels), Reverse(item.byte_size), item.create_time, &item.id)
}

#[cfg(test)]
mod tests {
    use clipmesh_proto::ids::{ContentHash, PixelHash};
    use jiff::Timestamp;

    use super::*;
    use crate::store::contract::{item, point};

    fn record(id: &str, change: impl FnOnce(&mut Item)) -> Record {
        let mut item = item(id);
        item.create_time = Timestamp::UNIX_EPOCH;
        change(&mut item);
        Record { item, vector: Some(point(id, [1.0, 0.0, 0.0, 0.0]).vector) }
    }

    fn group(records: Vec<Record>) -> Group {
        let count = records.len();
        Group::of(records, count).expect("vectors").expect("a group")
    }

    #[test]
    fn the_largest_picture_represents_the_group() {
        let second = Timestamp::from_second(1).expect("a time");
        let cases = [
            ("pixels", record("a", |item| item.byte_size = 9), record("b", |item| item.width += 1)),
            ("bytes", record("a", |_| {}), record("b", |item| item.byte_size += 1)),
            ("age", record("a", |item| item.create_time = second), record("b", |_| {})),
            ("order of id", record("c", |_| {}), record("b", |_| {})),
        ];
        for (by, other, best) in cases {
            for records in [[other.clone(), best.clone()], [best, other]] {
                let group = group(records.to_vec());
                assert_eq!(group.representative.id.as_str(), "b", "by {by}");
                assert_eq!(group.duplicates.len(), 1, "the other one follows");
            }
        }
    }

    #[test]
    fn duplicates_are_compared_with_the_representative() {
        let (bytes, pixels) = (ContentHash::of(b"x"), PixelHash::of(1, 1, b"abc"));
        let hashed = |item: &mut Item, hash: u64| item.perceptual_hash = Some(hash.into());
        let facts = |item: &mut Item| {
            item.content_hash = Some(bytes);
            item.pixel_hash = Some(pixels);
        };
        let best = record("best", |item| {
            facts(item);
            hashed(item, 0b1111);
            item.width = 9_999;
        });
        let copy = record("copy", |item| {
            facts(item);
            item.pixel_hash = None;
            item.perceptual_hash = None;
        });
        let saved = record("saved", |item| {
            item.pixel_hash = Some(pixels);
            hashed(item, 0b1100);
        });
        let mut near = record("near", |item| hashed(item, 0));
        near.vector = Some(point("near", [1.0, 0.5, 0.0, 0.0]).vector);
        let ready = record("ready", |item| {
            (item.content_hash, item.pixel_hash, item.perceptual_hash) = (None, None, None);
        });
        let group = group(vec![near, ready, saved, copy, best]);
        let told: Vec<_> = group
            .duplicates
            .iter()
            .map(|one| (one.item.id.as_str(), one.hash_distance, one.same_bytes, one.same_pixels))
            .collect();
        let expected = [
            ("copy", None, true, true),
            ("ready", None, false, false),
            ("saved", Some(2), false, true),
            ("near", Some(4), false, false),
        ];
        assert_eq!(told, expected, "the most similar first");
        assert_eq!(group.duplicates[0].score, 1.0, "the same direction");
        assert!(group.duplicates[3].score < 0.95, "another one");
    }

    #[test]
    fn one_item_is_no_group() {
        assert_eq!(Group::of(vec![record("a", |_| {})], 1), Ok(None), "the others are gone");
        assert_eq!(Group::of(vec![], 0), Ok(None), "all are gone");
        let blind = Record { vector: None, ..record("a", |_| {}) };
        assert!(Group::of(vec![blind], 1).is_err(), "nothing to compare");
    }
}
