//! Storing pictures and vectors.
//!
//! ```text
//! hash ─► stored and equal? ─ yes ─► unchanged
//!              │ no
//!              ├─ same picture ─────────────────────────────────┐ keeps its vector and files
//!              ├─ a ready vector ───────────────────────────────┤
//!              └─ another picture ─► vector (cache or embedder) ─► files ─┴─► store ─► acknowledged
//! ```
//!
//! Files are written before the item that needs them, so that a crash leaves at worst a file too
//! many.

use bytes::Bytes;
use clipmesh_proto::Embedding;
use clipmesh_proto::code::{FieldViolation, Reason};
use clipmesh_proto::ids::{CollectionName, ContentHash, Fingerprint, ItemId};
use jiff::Timestamp;

use super::locks::Turn;
use super::write::Write;
use super::{ATTEMPTS, Content, Items, NewItem, Outcome, changed_since, check_etag};
use crate::blobs::{File, Name};
use crate::embedder::{Ask, Embedded, Lane, check_image_bytes, check_model};
use crate::error::Error;
use crate::item::{self, Etag, Item, Metadata};
use crate::metrics;
use crate::store::{Collection, Point};
use crate::vectors::{LookedUp, content_hash};

/// Two vectors are one if no value differs by more: a store that scales them again may round.
const ROUNDING: f32 = 1e-6;

/// An item to be stored, with its id settled.
#[derive(Clone, Debug)]
pub(crate) struct Incoming {
    pub(crate) id: ItemId,
    source: Source,
    uri: String,
    filename: String,
    metadata: Metadata,
    etag: Option<Etag>,
}

/// What its vector is made of.
#[derive(Clone, Debug)]
enum Source {
    Image(Picture),
    Vector { values: Embedding, fingerprint: Option<Fingerprint> },
}

/// An image file that came in a field of the request.
#[derive(Clone, Debug)]
struct Picture {
    bytes: Bytes,
    hash: ContentHash,
    field: &'static str,
}

// === impl Items ===

impl Items {
    /// Looks at the bytes of a picture, and settles its id.
    pub(crate) async fn settle(&self, new: NewItem) -> Result<Incoming, Error> {
        let NewItem { id, content, uri, filename, metadata, etag } = new;
        let (id, source) = match content {
            Content::Image(bytes) => {
                let picture = self.picture(bytes, "item.image").await?;
                (id.unwrap_or_else(|| ItemId::from(picture.hash)), Source::Image(picture))
            }
            Content::Vector { values, fingerprint } => {
                let message = "must be set for a vector";
                let missing = || FieldViolation::new("item.id", Reason::Missing, message);
                (id.ok_or_else(missing)?, Source::Vector { values, fingerprint })
            }
        };
        Ok(Incoming { id, source, uri, filename, metadata, etag })
    }

    /// Stores an item. It is durable once this returns.
    pub(crate) async fn index(
        &self,
        collection: &CollectionName,
        incoming: Incoming,
        lane: Lane,
    ) -> Result<(Item, Outcome), Error> {
        let result = self.index_in_turn(collection, &incoming, lane).await;
        metrics::item_indexed(match &result {
            Ok((_, Outcome::Created)) => "created",
            Ok((_, Outcome::Replaced)) => "replaced",
            Ok((_, Outcome::Unchanged)) => "unchanged",
            Err(_) => "error",
        });
        result
    }

    async fn index_in_turn(
        &self,
        name: &CollectionName,
        incoming: &Incoming,
        lane: Lane,
    ) -> Result<(Item, Outcome), Error> {
        let collection = self.resolve(name.clone()).await?;
        incoming.source.check(&collection)?;
        let turn = self.locks.lock(&collection.name, &incoming.id).await;
        for _ in 0..ATTEMPTS {
            let indexed = self.try_index(&collection, incoming, lane, turn.clone()).await?;
            if let Some(indexed) = indexed {
                return Ok(indexed);
            }
        }
        Err(changed_since(&collection.name, &incoming.id))
    }

    /// Stores an item, unless another process changes it meanwhile.
    async fn try_index(
        &self,
        collection: &Collection,
        incoming: &Incoming,
        lane: Lane,
        turn: Turn,
    ) -> Result<Option<(Item, Outcome)>, Error> {
        let (name, id) = (&collection.name, &incoming.id);
        let existing = self.store.point(name.clone(), id.clone()).await?;
        let Some(existing) = existing else {
            if incoming.etag.is_some() {
                return Err(changed_since(name, id));
            }
            let point = self.make(collection, incoming, lane).await?;
            let item = point.item.clone();
            let write = Write { point, expected: None, old_picture: None };
            let is_written = self.writer.write(turn, collection.clone(), write).await?;
            return Ok(is_written.then_some((item, Outcome::Created)));
        };
        check_etag(name, &existing.item, incoming.etag.as_ref())?;
        if incoming.is_in(&existing) {
            self.writer.confirm(collection, Some(existing.item.update_time)).await?;
            return Ok(Some((existing.item, Outcome::Unchanged)));
        }
        let expected = Some(existing.item.etag());
        let old_picture = existing.item.content_hash;
        let (create_time, update_time) = times_after(&existing.item);
        let mut point = if incoming.source.is_picture_of(&existing.item) {
            incoming.described(existing)
        } else {
            self.make(collection, incoming, lane).await?
        };
        (point.item.create_time, point.item.update_time) = (create_time, update_time);
        let item = point.item.clone();
        let old_picture = old_picture.filter(|hash| Some(*hash) != item.content_hash);
        let write = Write { point, expected, old_picture };
        let is_written = self.writer.write(turn, collection.clone(), write).await?;
        Ok(is_written.then_some((item, Outcome::Replaced)))
    }

    /// Gives an item another picture.
    pub(crate) async fn replace_image(
        &self,
        name: CollectionName,
        id: ItemId,
        image: Bytes,
        etag: Option<Etag>,
    ) -> Result<(Item, Outcome), Error> {
        let picture = self.picture(image, "image").await?;
        let collection = self.resolve(name).await?;
        let turn = self.locks.lock(&collection.name, &id).await;
        for _ in 0..ATTEMPTS {
            let found = self.store.point(collection.name.clone(), id.clone()).await?;
            let missing = || Error::NoItem { collection: collection.name.clone(), id: id.clone() };
            let existing = found.ok_or_else(missing)?;
            check_etag(&collection.name, &existing.item, etag.as_ref())?;
            let old_picture = existing.item.content_hash;
            if old_picture == Some(picture.hash) {
                self.writer.confirm(&collection, Some(existing.item.update_time)).await?;
                return Ok((existing.item, Outcome::Unchanged));
            }
            // Made again after another process was faster, it comes from the cache.
            let embedded = self.embed(&collection, &id, &picture, Lane::Interactive).await?;
            let expected = Some(existing.item.etag());
            let (create_time, update_time) = times_after(&existing.item);
            let Item { uri, filename, metadata, .. } = existing.item;
            let told = Item { uri, filename, metadata, create_time, update_time, ..blank(&id) };
            let point = picture.point(told, embedded)?;
            let item = point.item.clone();
            let write = Write { point, expected, old_picture };
            if self.writer.write(turn.clone(), collection.clone(), write).await? {
                return Ok((item, Outcome::Replaced));
            }
        }
        Err(changed_since(&collection.name, &id))
    }

    async fn picture(&self, bytes: Bytes, field: &'static str) -> Result<Picture, Error> {
        check_image_bytes(&bytes, self.max_image_bytes.as_u64())
            .map_err(|violation| violation.renamed(field))?;
        let hash = content_hash(&bytes).await?;
        Ok(Picture { bytes, hash, field })
    }

    /// Makes a point of what is not stored yet.
    async fn make(
        &self,
        collection: &Collection,
        incoming: &Incoming,
        lane: Lane,
    ) -> Result<Point, Error> {
        let item = incoming.item();
        match &incoming.source {
            Source::Vector { values, .. } => Ok(Point { item, vector: values.clone() }),
            Source::Image(picture) => {
                let embedded = self.embed(collection, &incoming.id, picture, lane).await?;
                picture.point(item, embedded)
            }
        }
    }

    /// Has a picture embedded, and keeps its files.
    async fn embed(
        &self,
        collection: &Collection,
        id: &ItemId,
        picture: &Picture,
        lane: Lane,
    ) -> Result<Embedded, Error> {
        let ask = Ask { lane, facts: true };
        let image = picture.bytes.clone();
        let obtained = self
            .vectors
            .of_image(image.clone(), &picture.hash, ask, collection, LookedUp::No)
            .await;
        let mut embedded = obtained.map_err(|error| error.in_field(picture.field))?.embedded;
        let thumbnail = match embedded.thumbnail.take() {
            Some(thumbnail) => Ok(thumbnail),
            // The vector was known already, and nobody has decoded the picture now.
            None => self.thumbnailer.make(image.clone()).await,
        };
        let name = Name { uid: &collection.uid, id, content_hash: &picture.hash };
        match thumbnail {
            Ok(thumbnail) => self.blobs.put(&name, File::Thumbnail, thumbnail).await?,
            // The embedder can see it, so it can be found; it only can't be shown.
            Err(error) => {
                metrics::thumbnail_failed();
                tracing::warn!(%id, %error, "no thumbnail could be made of a picture");
            }
        }
        if self.blobs.keeps_originals() {
            self.blobs.put(&name, File::Original, image).await?;
        }
        Ok(embedded)
    }
}

// === impl Incoming ===

impl Incoming {
    /// A vector, of which nothing else is told.
    #[cfg(test)]
    pub(super) fn along(id: &str, values: Vec<f32>) -> Self {
        let id = ItemId::try_from(id.to_owned()).expect("an id");
        let values = Embedding::new(values).expect("a direction");
        let source = Source::Vector { values, fingerprint: None };
        let (uri, filename) = (String::new(), String::new());
        Self { id, source, uri, filename, metadata: Metadata::new(), etag: None }
    }

    /// Whether an item holds all of this already.
    fn is_in(&self, existing: &Point) -> bool {
        let item = &existing.item;
        let is_same = match &self.source {
            Source::Image(picture) => Some(picture.hash) == item.content_hash,
            Source::Vector { values, .. } => {
                item.content_hash.is_none() && is_same_vector(values, &existing.vector)
            }
        };
        is_same
            && self.uri == item.uri
            && self.filename == item.filename
            && self.metadata == item.metadata
    }

    /// What the caller told of it, as of now.
    fn item(&self) -> Item {
        Item {
            uri: self.uri.clone(),
            filename: self.filename.clone(),
            metadata: self.metadata.clone(),
            ..blank(&self.id)
        }
    }

    /// A picture that is stored already, with other words about it.
    fn described(&self, existing: Point) -> Point {
        let Item { uri, filename, metadata, .. } = self.item();
        let item = Item { uri, filename, metadata, ..existing.item };
        Point { item, vector: existing.vector }
    }
}

// === impl Source ===

impl Source {
    /// Refuses a vector that can't be the collection's.
    fn check(&self, collection: &Collection) -> Result<(), Error> {
        let Self::Vector { values, fingerprint } = self else {
            return Ok(());
        };
        if let Some(fingerprint) = fingerprint {
            check_model(collection, fingerprint)?;
        }
        let (expected, actual) = (collection.dimension, values.dimension());
        if actual != expected {
            let message = format!("must have {expected} values, not {actual}");
            let field = "item.vector.values";
            return Err(FieldViolation::new(field, Reason::WrongDimension, message).into());
        }
        Ok(())
    }

    fn is_picture_of(&self, item: &Item) -> bool {
        match self {
            Self::Image(picture) => Some(picture.hash) == item.content_hash,
            Self::Vector { .. } => false,
        }
    }
}

// === impl Picture ===

impl Picture {
    /// What to store of it: what its caller told, and what the embedder saw.
    fn point(&self, told: Item, embedded: Embedded) -> Result<Point, Error> {
        let Some(seen) = embedded.image else {
            return Err(Error::Internal("the embedder did not describe a picture".to_owned()));
        };
        let item = Item {
            width: seen.width,
            height: seen.height,
            format: seen.format,
            byte_size: self.bytes.len() as u64,
            content_hash: Some(self.hash),
            pixel_hash: seen.hashes.map(|hashes| hashes.pixel),
            perceptual_hash: seen.hashes.map(|hashes| hashes.perceptual),
            ..told
        };
        Ok(Point { item, vector: embedded.vector })
    }
}

/// An item of which nothing is known yet.
fn blank(id: &ItemId) -> Item {
    let now = item::now();
    Item {
        id: id.clone(),
        uri: String::new(),
        filename: String::new(),
        width: 0,
        height: 0,
        format: String::new(),
        byte_size: 0,
        content_hash: None,
        pixel_hash: None,
        perceptual_hash: None,
        create_time: now,
        update_time: now,
        metadata: Metadata::new(),
    }
}

/// When an item was made, and when it is changed: later than ever before, also by a clock that was
/// put back, so that its etag is new.
pub(super) fn times_after(item: &Item) -> (Timestamp, Timestamp) {
    let now = item::now();
    let next = Timestamp::from_microsecond(item.update_time.as_microsecond() + 1).unwrap_or(now);
    (item.create_time, now.max(next))
}

fn is_same_vector(a: &Embedding, b: &Embedding) -> bool {
    let mut pairs = a.values().iter().zip(b.values());
    a.dimension() == b.dimension() && pairs.all(|(a, b)| (a - b).abs() <= ROUNDING)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::item;

    #[test]
    fn every_change_is_later_than_the_last() {
        let mut item = item("a");
        item.update_time = Timestamp::from_microsecond(4_000_000_000_000_000).expect("a time");
        let (create_time, update_time) = times_after(&item);
        assert_eq!(create_time, item.create_time, "it was made when it was made");
        let micros = update_time.as_microsecond();
        assert_eq!(micros, 4_000_000_000_000_001, "by the least, where the clock was put back");
        item.update_time = Timestamp::UNIX_EPOCH;
        assert!(times_after(&item).1.as_microsecond() > 1_000_000_000_000_000, "else it is now");
    }

    #[test]
    fn a_vector_may_be_rounded_and_no_more() {
        let vector = |values: [f32; 2]| Embedding::new(values.to_vec()).expect("a direction");
        let one = vector([0.6, 0.8]);
        assert!(is_same_vector(&one, &vector([6.0, 8.0])), "its length does not matter");
        assert!(is_same_vector(&one, &vector([0.600_000_1, 0.8])), "rounded");
        assert!(!is_same_vector(&one, &vector([0.6001, 0.8])), "another");
        let longer = Embedding::new(vec![0.6, 0.8, 0.0]).expect("a direction");
        assert!(!is_same_vector(&one, &longer), "of another length");
    }
}
