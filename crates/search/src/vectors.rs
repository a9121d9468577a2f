//! Vectors of pictures and words: from the cache, or else from the embedder, which is asked once
//! for what several calls want at the same time, also where the calls are of several replicas.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clipmesh_proto::ids::ContentHash;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::time::Instant;

use crate::cache::single_flight::SingleFlight;
use crate::cache::{Caches, Key, Known, Turn};
use crate::embedder::{Ask, Embedded, Embedder, Input, Lane};
use crate::error::Error;
use crate::metrics;
use crate::store::Collection;

/// Files longer than this are hashed on a blocking thread: it takes longer than 0.1 ms.
const MAX_INLINE_HASH: usize = 128 * 1024;

/// Where vectors come from.
#[derive(Debug)]
pub(crate) struct Vectors {
    embedder: Arc<Embedder>,
    caches: Caches,
    /// By what is asked for, too: whoever waits for an answer must not wait for a bulk lane's turn.
    flights: SingleFlight<(Key, Ask), Result<Embedded, Error>>,
}

/// What the cache was asked already.
#[derive(Clone, Debug)]
pub(crate) enum LookedUp {
    /// Nothing.
    No,
    /// For the vector that is wanted, and what it had.
    Yes(Option<Known>),
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
    pub(crate) fn new(embedder: Arc<Embedder>, caches: Caches) -> Self {
        Self { embedder, caches, flights: SingleFlight::new() }
    }

    /// The vector of an image file with a hash that is known already.
    pub(crate) async fn of_image(
        &self,
        image: Bytes,
        content_hash: &ContentHash,
        ask: Ask,
        collection: &Collection,
        looked_up: LookedUp,
    ) -> Result<Obtained, Error> {
        let key = Key::image(&collection.fingerprint, content_hash);
        self.obtain(key, (Input::Image(image), ask), collection, looked_up).await
    }

    /// The vector of words, for which someone always waits.
    pub(crate) async fn of_text(
        &self,
        text: String,
        collection: &Collection,
        looked_up: LookedUp,
    ) -> Result<Obtained, Error> {
        let key = Key::text(&collection.fingerprint, &text);
        let ask = Ask { lane: Lane::Interactive, facts: false };
        self.obtain(key, (Input::Text(text), ask), collection, looked_up).await
    }

    async fn obtain(
        &self,
        key: Key,
        (input, ask): (Input, Ask),
        collection: &Collection,
        looked_up: LookedUp,
    ) -> Result<Obtained, Error> {
        let known = match looked_up {
            LookedUp::No => self.caches.vector(key).await,
            LookedUp::Yes(known) => known,
        };
        if let Some(embedded) = read(known, ask)? {
            return Ok(Obtained { embedded, is_cached: true, took: Duration::ZERO });
        }
        let start = Instant::now();
        let begin = || self.begin(key, input.clone(), ask, collection);
        let flight = self.flights.join((key, ask), begin);
        let mut outcome = flight.work.await;
        if flight.is_joined {
            metrics::embedding_shared();
            // Whoever began had less time than this call has, or asked for another collection.
            if outcome.as_ref().is_err_and(Error::is_of_one_call) {
                outcome = self.begin(key, input, ask, collection).await;
            }
        }
        Ok(Obtained { embedded: outcome?, is_cached: false, took: start.elapsed() })
    }

    fn begin(
        &self,
        key: Key,
        input: Input,
        ask: Ask,
        collection: &Collection,
    ) -> BoxFuture<'static, Result<Embedded, Error>> {
        let (embedder, caches) = (Arc::clone(&self.embedder), self.caches.clone());
        let collection = collection.clone();
        async move {
            let lease = match caches.turn(key).await {
                Turn::Made(known) => match read(Some(known), ask)? {
                    Some(embedded) => return Ok(embedded),
                    None => None,
                },
                Turn::Mine(lease) => lease,
            };
            let start = Instant::now();
            let outcome = embedder.embed(input, ask, &collection).await;
            if let Some(known) = lasting(&outcome) {
                caches.keep_vector(key, &known, start.elapsed()).await;
            }
            drop(lease);
            outcome
        }
        .boxed()
    }
}

/// What is known, if it is enough. A search may have put it there, which asks for the vector alone.
/// A refusal is one, whoever was given it first.
fn read(known: Option<Known>, ask: Ask) -> Result<Option<Embedded>, Error> {
    match known {
        Some(Known::Embedded(embedded)) => Ok(Some(embedded).filter(|known| known.answers(ask))),
        Some(Known::Refused(violation)) => Err(violation.into()),
        None => Ok(None),
    }
}

/// What will be the same the next time.
fn lasting(outcome: &Result<Embedded, Error>) -> Option<Known> {
    match outcome {
        Ok(embedded) => Some(Known::Embedded(embedded.clone())),
        Err(Error::Invalid(violation)) if Known::is_lasting(violation) => {
            Some(Known::Refused(violation.clone()))
        }
        Err(_) => None,
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

#[cfg(test)]
mod tests {
    use clipmesh_mesh::{Shutdown, server};
    use clipmesh_proto::embedder::v1;
    use clipmesh_proto::embedder::v1::embedder_service_server::{
        EmbedderService, EmbedderServiceServer,
    };
    use clipmesh_proto::ids::{CollectionName, Fingerprint};
    use futures::stream::BoxStream;
    use tokio::net::TcpListener;
    use tonic::{Request, Response, Status, Streaming};

    use super::*;
    use crate::cache::config::Config as CacheConfig;
    use crate::embedder;
    use crate::item;
    use crate::store::Distance;
    use crate::store::index::{Indexes, VectorIndex};

    /// Runs a model that no collection is for.
    struct Stranger;

    #[tonic::async_trait]
    impl EmbedderService for Stranger {
        type EmbedStreamStream = BoxStream<'static, Result<v1::EmbedStreamResponse, Status>>;

        async fn embed(
            &self,
            _: Request<v1::EmbedRequest>,
        ) -> Result<Response<v1::EmbedResponse>, Status> {
            Err(Status::unimplemented("it is never asked"))
        }

        async fn embed_stream(
            &self,
            _: Request<Streaming<v1::EmbedStreamRequest>>,
        ) -> Result<Response<Self::EmbedStreamStream>, Status> {
            Err(Status::unimplemented("it is never asked"))
        }

        async fn get_model(
            &self,
            _: Request<v1::GetModelRequest>,
        ) -> Result<Response<v1::GetModelResponse>, Status> {
            let fingerprint = "b".repeat(64);
            let model = v1::Model { fingerprint, dimension: 4, ..v1::Model::default() };
            Ok(Response::new(v1::GetModelResponse { model: Some(model) }))
        }
    }

    fn collection(name: &str) -> Collection {
        Collection {
            name: CollectionName::try_from(name.to_owned()).expect("a name"),
            uid: name.to_owned(),
            fingerprint: Fingerprint::try_from("a".repeat(64)).expect("64 digits"),
            model_name: "tiny".to_owned(),
            dimension: 4,
            distance: Distance::Cosine,
            indexes: Indexes::default(),
            vector_index: VectorIndex::default(),
            word_fields: Vec::new(),
            create_time: item::now(),
            generation: Some(0),
        }
    }

    #[tokio::test]
    async fn callers_that_share_a_refusal_learn_nothing_of_one_another() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let shutdown = Shutdown::new();
        let server = server::Server::new(&server::Config::default())
            .service(EmbedderServiceServer::new(Stranger));
        let running = tokio::spawn(server.serve(listener, shutdown.clone()));
        let config = embedder::Config { url, ..embedder::Config::default() };
        let embedder = Arc::new(Embedder::new(&config).expect("an address"));
        let caches = Caches::new(&CacheConfig::default()).expect("in memory");
        let vectors = Vectors::new(embedder, caches);

        let (mine, yours) = (collection("mine"), collection("yours"));
        let words = || "a cat".to_owned();
        // One key, since both are for one model: the second call joins the first.
        let (first, second) = tokio::join!(
            vectors.of_text(words(), &mine, LookedUp::No),
            vectors.of_text(words(), &yours, LookedUp::No)
        );
        for (outcome, asked) in [(first, &mine), (second, &yours)] {
            let error = outcome.expect_err("another model runs");
            let Error::ModelMismatch { collection, .. } = &error else {
                panic!("the models differ, and that is not what is said: {error}");
            };
            assert_eq!(*collection, asked.name, "the caller's own collection is named");
        }
        shutdown.trigger();
        running.await.expect("no panic").expect("a clean end");
    }
}
