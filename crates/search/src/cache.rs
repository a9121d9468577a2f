//! What was computed before and can be had again for nothing: vectors by the content they were
//! made of, answers by the state of the collection they were found in.
//!
//! A cache can only help: it fails by missing, never by an error, and an entry that can't be read
//! counts as missing. Keys hold everything that the value depends on, so no entry is ever wrong
//! and none has to be removed: a write to a collection raises its generation, and answers of
//! earlier generations are not asked for again.

pub(crate) mod memory;
pub(crate) mod single_flight;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use clipmesh_proto::embedder::v1::Embedding as StoredEmbedding;
use clipmesh_proto::ids::{ContentHash, Fingerprint};
use clipmesh_proto::search::v1;
use futures::future::BoxFuture;
use prost::Message as _;

use crate::embedder::Embedded;
use crate::metrics;
use crate::store::Collection;

/// Keeps bytes for a while.
pub(crate) trait Cache: fmt::Debug + Send + Sync + 'static {
    fn get(&self, key: Key) -> BoxFuture<'_, Option<Bytes>>;
    fn put(&self, key: Key, value: Bytes) -> BoxFuture<'_, ()>;
}

/// A digest of all that a value depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key([u8; 32]);

/// Unit vectors by the model that made them and what they were made of.
#[derive(Clone, Debug)]
pub(crate) struct Embeddings(Arc<dyn Cache>);

/// Answers by the collection, its generation and the query.
#[derive(Clone, Debug)]
pub(crate) struct Results(Arc<dyn Cache>);

// === impl Key ===

impl Key {
    /// Digests the parts so that no two lists of parts have one digest.
    pub(crate) fn of(kind: &str, parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in [kind.as_bytes()].iter().chain(parts) {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// The vector that a model makes of an image file.
    pub(crate) fn image(model: &Fingerprint, content_hash: &ContentHash) -> Self {
        Self::of("image", &[model.as_str().as_bytes(), content_hash.as_bytes()])
    }

    /// The vector that a model makes of a text.
    pub(crate) fn text(model: &Fingerprint, text: &str) -> Self {
        Self::of("text", &[model.as_str().as_bytes(), text.as_bytes()])
    }

    /// The answer to a query, as long as the collection does not change.
    pub(crate) fn result(collection: &Collection, query: &[u8]) -> Self {
        let generation = collection.generation.unwrap_or_default().to_le_bytes();
        Self::of("result", &[collection.uid.as_bytes(), &generation, query])
    }
}

// === impl Embeddings ===

impl Embeddings {
    pub(crate) fn new(cache: Arc<dyn Cache>) -> Self {
        Self(cache)
    }

    pub(crate) async fn get(&self, key: Key) -> Option<Embedded> {
        let bytes = self.0.get(key).await;
        let is_there = bytes.is_some();
        // The embedder's own message: floats as they lie in memory, and what it saw of a picture.
        let embedded = bytes
            .and_then(|bytes| StoredEmbedding::decode(bytes).ok())
            .and_then(|stored| Embedded::try_from(stored).ok());
        if is_there && embedded.is_none() {
            metrics::cache_unreadable("embeddings");
        }
        metrics::cache_looked_up("embeddings", embedded.is_some());
        embedded
    }

    pub(crate) async fn put(&self, key: Key, embedded: &Embedded) {
        let stored = StoredEmbedding::from(embedded.clone());
        self.0.put(key, stored.encode_to_vec().into()).await;
    }
}

// === impl Results ===

impl Results {
    pub(crate) fn new(cache: Arc<dyn Cache>) -> Self {
        Self(cache)
    }

    pub(crate) async fn get(&self, key: Key) -> Option<v1::SearchResponse> {
        let bytes = self.0.get(key).await;
        let is_there = bytes.is_some();
        let response = bytes.and_then(|bytes| v1::SearchResponse::decode(bytes).ok());
        if is_there && response.is_none() {
            metrics::cache_unreadable("results");
        }
        metrics::cache_looked_up("results", response.is_some());
        response
    }

    /// Keeps an answer, which has no timing yet.
    pub(crate) async fn put(&self, key: Key, response: &v1::SearchResponse) {
        debug_assert!(response.timing.is_none(), "the next answer takes another time");
        self.0.put(key, response.encode_to_vec().into()).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clipmesh_proto::Embedding;

    use super::memory::Memory;
    use super::*;
    use crate::embedder::ImageInfo;

    fn model(digit: &str) -> Fingerprint {
        Fingerprint::try_from(digit.repeat(64)).expect("64 digits")
    }

    fn memory() -> Arc<dyn Cache> {
        Arc::new(Memory::new(1 << 20, Duration::from_secs(60)))
    }

    #[test]
    fn keys_differ_by_every_part() {
        let keys = [
            Key::text(&model("a"), "word"),
            Key::text(&model("b"), "word"),
            Key::text(&model("a"), "ward"),
            Key::image(&model("a"), &ContentHash::of(b"word")),
            Key::image(&model("a"), &ContentHash::of(b"ward")),
            Key::of("kind", &[b"ab", b"c"]),
            Key::of("kind", &[b"a", b"bc"]),
        ];
        for (i, one) in keys.iter().enumerate() {
            for other in &keys[..i] {
                assert_ne!(one, other, "no two of these are the same question");
            }
        }
    }

    #[tokio::test]
    async fn vectors_come_back_as_they_were() {
        let embeddings = Embeddings::new(memory());
        let embedded = Embedded {
            vector: Embedding::new(vec![0.1, -0.7, 3.0]).expect("a direction"),
            image: Some(ImageInfo { width: 3, height: 2, format: "png".to_owned() }),
            thumbnail: Some(Bytes::from_static(b"a picture")),
        };
        let key = Key::text(&model("a"), "word");
        assert_eq!(embeddings.get(key).await, None, "nothing yet");
        embeddings.put(key, &embedded).await;
        let found = embeddings.get(key).await.expect("there");
        assert!(found.vector.dot(&embedded.vector) > 0.999_999, "the same direction");
        assert_eq!(found.image, embedded.image, "the same picture");
        assert_eq!(found.thumbnail, None, "which is stored elsewhere");
    }

    #[tokio::test]
    async fn an_unreadable_entry_is_a_miss() {
        let cache = memory();
        let key = Key::text(&model("a"), "word");
        for garbage in [&b"abc"[..], &[0; 8], &[0xFF; 8], b""] {
            cache.put(key, Bytes::copy_from_slice(garbage)).await;
            let found = Embeddings::new(Arc::clone(&cache)).get(key).await;
            assert_eq!(found, None, "{garbage:?} is no vector");
        }
        cache.put(key, Bytes::from_static(&[0xFF; 8])).await;
        assert_eq!(Results::new(cache).get(key).await, None, "nor hits");
    }
}
