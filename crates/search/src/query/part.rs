//! What a query is made of: as it was asked, and once it fits its collection.

use bytes::Bytes;
use clipmesh_proto::Embedding;
use clipmesh_proto::code::{FieldViolation, Reason};
use clipmesh_proto::ids::{ContentHash, Fingerprint, ItemId};
use serde::Serialize;

use crate::cache::{Key, Known};
use crate::embedder::check_image_bytes;
use crate::error::Error;
use crate::store::Collection;
use crate::vectors::{LookedUp, content_hash};

/// One thing to look for, and how much it counts. A plain query is one part of weight 1.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// Where it stands in the request, as in `query` or `query.mix.parts[2]`.
    pub(crate) field: String,
    /// Finite and not zero; a negative one leads away.
    pub(crate) weight: f32,
    pub(crate) example: Example,
}

/// What to look for, as it was asked.
#[derive(Clone, Debug)]
pub(crate) enum Example {
    /// The bytes of an image file; not empty.
    Image(Bytes),
    /// Not empty.
    Text(String),
    Vector {
        values: Embedding,
        /// The model that made it, if the caller says so.
        fingerprint: Option<Fingerprint>,
    },
    /// An item of the collection.
    Item(ItemId),
}

/// A part that fits its collection.
#[derive(Debug)]
pub(crate) struct Source {
    pub(super) field: String,
    pub(super) weight: f32,
    pub(super) content: Content,
    /// What the cache was asked of its vector already.
    pub(super) looked_up: LookedUp,
}

/// What the vector of a part is made of.
#[derive(Debug)]
pub(crate) enum Content {
    Image { bytes: Bytes, hash: ContentHash },
    Text(String),
    Vector(Embedding),
    Item(ItemId),
}

/// What a part is looked for in the result cache by: content, not the bytes that carried it.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Identity<'a> {
    weight: u32,
    content: ContentIdentity<'a>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
enum ContentIdentity<'a> {
    Image(String),
    Text(&'a str),
    Vector(Vec<u32>),
    Item(&'a str),
}

// === impl Part ===

impl Part {
    /// Refuses what can be refused once the collection is known, and hashes what is large.
    pub(super) async fn check(
        self,
        collection: &Collection,
        max_image_bytes: u64,
    ) -> Result<Source, Error> {
        let Self { field, weight, example } = self;
        let content = match example {
            Example::Image(bytes) => {
                check_image_bytes(&bytes, max_image_bytes)
                    .map_err(|violation| violation.renamed(format!("{field}.image")))?;
                let hash = content_hash(&bytes).await?;
                Content::Image { bytes, hash }
            }
            Example::Text(text) => Content::Text(text),
            Example::Vector { values, fingerprint } => {
                check_model(fingerprint, collection)?;
                check_dimension(&field, &values, collection.dimension)?;
                Content::Vector(values)
            }
            Example::Item(id) => Content::Item(id),
        };
        Ok(Source { field, weight, content, looked_up: LookedUp::No })
    }
}

// === impl Source ===

impl Source {
    pub(super) fn identity(&self) -> Identity<'_> {
        let content = match &self.content {
            Content::Image { hash, .. } => ContentIdentity::Image(hash.to_string()),
            Content::Text(text) => ContentIdentity::Text(text),
            Content::Vector(vector) => {
                let values = vector.values().iter();
                ContentIdentity::Vector(values.map(|value| value.to_bits()).collect())
            }
            Content::Item(id) => ContentIdentity::Item(id.as_str()),
        };
        Identity { weight: self.weight.to_bits(), content }
    }

    /// What its vector is looked for by in the cache; `None` for what is never embedded.
    pub(super) fn key(&self, collection: &Collection) -> Option<Key> {
        match &self.content {
            Content::Image { hash, .. } => Some(Key::image(&collection.fingerprint, hash)),
            Content::Text(text) => Some(Key::text(&collection.fingerprint, text)),
            Content::Vector(_) | Content::Item(_) => None,
        }
    }

    /// The item that it names, which is not to be its own hit.
    pub(crate) fn item(&self) -> Option<&ItemId> {
        match &self.content {
            Content::Item(id) => Some(id),
            Content::Image { .. } | Content::Text(_) | Content::Vector(_) => None,
        }
    }
}

/// Tells sources what the cache had for those of them that have a [`Source::key`], in their order.
pub(super) fn tell(sources: &mut [Source], collection: &Collection, known: Vec<Option<Known>>) {
    let embedded = sources.iter_mut().filter(|source| source.key(collection).is_some());
    for (source, known) in embedded.zip(known) {
        source.looked_up = LookedUp::Yes(known);
    }
}

fn check_model(fingerprint: Option<Fingerprint>, collection: &Collection) -> Result<(), Error> {
    match fingerprint {
        Some(actual) if actual != collection.fingerprint => Err(Error::ModelMismatch {
            collection: collection.name.clone(),
            expected: collection.fingerprint.clone(),
            actual,
        }),
        Some(_) | None => Ok(()),
    }
}

fn check_dimension(field: &str, values: &Embedding, expected: usize) -> Result<(), FieldViolation> {
    let actual = values.dimension();
    if actual == expected {
        return Ok(());
    }
    let message = format!("must have {expected} values, not {actual}");
    Err(FieldViolation::new(format!("{field}.vector.values"), Reason::WrongDimension, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(weight: f32, content: Content) -> Source {
        Source { field: "query".to_owned(), weight, content, looked_up: LookedUp::No }
    }

    fn image(bytes: &'static [u8]) -> Content {
        Content::Image { bytes: Bytes::from_static(bytes), hash: ContentHash::of(bytes) }
    }

    fn vector(values: &[f32]) -> Content {
        Content::Vector(Embedding::new(values.to_vec()).expect("a direction"))
    }

    fn item(id: &str) -> Content {
        Content::Item(ItemId::try_from(id.to_owned()).expect("an id"))
    }

    #[test]
    fn identities_differ_by_kind_content_and_weight() {
        let text = |text: &str| Content::Text(text.to_owned());
        let sources = [
            source(1.0, text("a")),
            source(-1.0, text("a")),
            source(1.000_000_1, text("a")),
            source(1.0, text("b")),
            source(1.0, item("a")),
            source(1.0, image(b"a")),
            source(1.0, image(b"b")),
            source(1.0, vector(&[1.0, 0.0])),
            source(1.0, vector(&[1.0, 1e-6])),
        ];
        for (i, one) in sources.iter().enumerate() {
            for other in &sources[..i] {
                assert_ne!(one.identity(), other.identity(), "{one:?} is not {other:?}");
            }
        }
        let mixed = Source { field: "query.mix.parts[0]".to_owned(), ..source(1.0, text("a")) };
        assert_eq!(mixed.identity(), sources[0].identity(), "wherever it stands");
    }
}
