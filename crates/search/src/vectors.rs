//! Vectors of pictures and words: from the cache, or else from the embedder, which is asked once
//! for what several calls want at the same time.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clipmesh_proto::ids::ContentHash;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::time::Instant;

use crate::cache::single_flight::SingleFlight;
use crate::cache::{Embeddings, Key};
use crate::embedder::{Embedded, Embedder, Input};
use crate::error::Error;
use crate::metrics;
use crate::store::Collection;

/// Files longer than this are hashed on a blocking thread: it takes longer than 0.1 ms.
const MAX_INLINE_HASH: usize = 128 * 1024;

/// Where vectors come from.
#[derive(Debug)]
pub(crate) struct Vectors {
    embedder: Arc<Embedder>,
    cache: Embeddings,
    flights: SingleFlight<Key, Result<Embedded, Error>>,
}

/// A vector and how it was come by.
#[derive(Clone, Debug)]
pub(crate) struct Obtained {
    pub(crate) embedded: Embedded,
    pub(crate) is_cached: bool,
    /// How long the embedder took; zero if it was not asked.
    pub(crate) took: Duration,
}

impl Vectors {
    pub(crate) fn new(embedder: Arc<Embedder>, cache: Embeddings) -> Self {
        Self { embedder, cache, flights: SingleFlight::new() }
    }

    /// The vector of an image file with a hash that is known already.
    pub(crate) async fn of_image(
        &self,
        image: Bytes,
        content_hash: &ContentHash,
        collection: &Collection,
    ) -> Result<Obtained, Error> {
        let key = Key::image(&collection.fingerprint, content_hash);
        self.obtain(key, Input::Image(image), collection).await
    }

    /// The vector of words.
    pub(crate) async fn of_text(
        &self,
        text: String,
        collection: &Collection,
    ) -> Result<Obtained, Error> {
        let key = Key::text(&collection.fingerprint, &text);
        self.obtain(key, Input::Text(text), collection).await
    }

    async fn obtain(
        &self,
        key: Key,
        input: Input,
        collection: &Collection,
    ) -> Result<Obtained, Error> {
        if let Some(embedded) = self.cache.get(key).await {
            return Ok(Obtained { embedded, is_cached: true, took: Duration::ZERO });
        }
        let start = Instant::now();
        let flight = self.flights.join(key, || self.begin(key, input.clone(), collection));
        let mut outcome = flight.work.await;
        if flight.is_joined {
            metrics::embedding_shared();
            // Whoever began had less time than this call has.
            if outcome.as_ref().is_err_and(Error::is_of_one_call) {
                outcome = self.begin(key, input, collection).await;
            }
        }
        Ok(Obtained { embedded: outcome?, is_cached: false, took: start.elapsed() })
    }

    fn begin(
        &self,
        key: Key,
        input: Input,
        collection: &Collection,
    ) -> BoxFuture<'static, Result<Embedded, Error>> {
        let embedder = Arc::clone(&self.embedder);
        let cache = self.cache.clone();
        let collection = collection.clone();
        async move {
            let embedded = embedder.embed(input, &collection).await?;
            cache.put(key, &embedded).await;
            Ok(embedded)
        }
        .boxed()
    }
}

/// Hashes an image file without holding up other calls.
pub(crate) async fn content_hash(image: &Bytes) -> Result<ContentHash, Error> {
    if image.len() <= MAX_INLINE_HASH {
        return Ok(ContentHash::of(image));
    }
    let image = image.clone();
    tokio::task::spawn_blocking(move || ContentHash::of(&image))
        .await
        .map_err(|_| Error::Internal("hashing an image panicked".to_owned()))
}
