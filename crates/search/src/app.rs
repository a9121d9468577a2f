//! The service as a whole: what it is made of, and the order in which it comes up and goes down.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clipmesh_mesh::{Shutdown, server};
use clipmesh_proto::search::v1::collection_service_server::CollectionServiceServer;
use clipmesh_proto::search::v1::item_service_server::ItemServiceServer;
use clipmesh_proto::search::v1::search_service_server::SearchServiceServer;
use tokio::net::TcpListener;
use tonic::server::NamedService;

use crate::blobs::{self, Blobs};
use crate::cache::Caches;
use crate::changes::Changes;
use crate::collections::Collections;
use crate::config::{CacheKind, Config, StoreKind};
use crate::embedder::Embedder;
use crate::items::{self, Items};
use crate::query::{Flights, Searches};
use crate::service;
use crate::store::edge::Edge;
use crate::store::qdrant::Qdrant;
use crate::store::{self, VectorStore};
use crate::thumbnail::Thumbnailer;
use crate::vectors::Vectors;

/// How long writes may take that no caller waits for any more.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the service could not start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("open the vector store: {0}")]
    Store(#[from] store::Error),
    #[error("open the object store: {0}")]
    Blobs(String),
    #[error("prepare the cache: {0}")]
    Cache(String),
    #[error(transparent)]
    Mesh(#[from] clipmesh_mesh::Error),
    #[error("find out where it listens: {0}")]
    Listener(#[from] std::io::Error),
}

/// A search service that is ready to run.
#[derive(Debug)]
pub struct App {
    server: server::Server,
    listener: TcpListener,
    local_addr: SocketAddr,
    store: Arc<dyn VectorStore>,
    caches: Caches,
    changes: Changes,
}

impl From<blobs::Error> for Error {
    fn from(error: blobs::Error) -> Self {
        Self::Blobs(error.to_string())
    }
}

impl App {
    /// Opens the stores and puts the parts together. The embedder need not be up.
    ///
    /// # Errors
    /// A data folder that can't be used or is in use, a collection that can't be opened, or an
    /// address of the embedder or of a store that is none.
    pub async fn build(config: Config, listener: TcpListener) -> Result<Self, Error> {
        let local_addr = listener.local_addr()?;
        choose_cryptography();
        let embedder = Arc::new(Embedder::new(&config.embedder)?);
        let store: Arc<dyn VectorStore> = match config.store.kind {
            StoreKind::Edge => {
                let root = config.data_dir.join("collections");
                Arc::new(Edge::open(root, config.store.edge.clone()).await?)
            }
            StoreKind::Qdrant => Arc::new(Qdrant::new(config.store.qdrant.clone())?),
        };
        let blobs = Blobs::open(&config.blobs, &files_folder(&config))?;
        // Only what nobody else can have made: other places may be shared with services whose
        // collections are not known here.
        if config.store.kind == StoreKind::Edge && config.blobs.url.is_none() {
            let uids: Vec<_> = store.collections().await?.into_iter().map(|one| one.uid).collect();
            blobs.retain(&uids).await?;
        }

        let caches = Caches::new(&config.cache).map_err(Error::Cache)?;
        if config.store.kind == StoreKind::Qdrant && config.cache.kind == CacheKind::Memory {
            tracing::info!(
                "answers are not cached: others may write to Qdrant, and a cache in this process \
                 would not learn of it; `cache.kind = \"redis\"` would"
            );
        }

        let parts = Parts { store: Arc::clone(&store), blobs, embedder, caches: caches.clone() };
        let (server, changes) = serve(&config, &parts);
        Ok(Self { server, listener, local_addr, store, caches, changes })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until `shutdown`, lets calls in flight finish, and brings everything onto the disk.
    ///
    /// # Errors
    /// When the server can't be put together.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), Error> {
        let health = self.server.health();
        // What needs the embedder tells so by itself: stored items, vectors and cached queries
        // are served without one.
        for service in [
            CollectionServiceServer::<service::collections::Service>::NAME,
            ItemServiceServer::<service::items::Service>::NAME,
            SearchServiceServer::<service::search::Service>::NAME,
        ] {
            health.set(service, true).await;
        }
        let served = self.server.serve(self.listener, shutdown).await;
        // A write goes on when its caller has left.
        if tokio::time::timeout(SETTLE_TIMEOUT, self.changes.settle()).await.is_err() {
            tracing::warn!("writes under way were not waited for any longer");
        }
        // Other replicas are to know of the last writes.
        if tokio::time::timeout(SETTLE_TIMEOUT, self.caches.close()).await.is_err() {
            tracing::warn!("writes to the cache were not waited for any longer");
        }
        self.store.close().await;
        Ok(served?)
    }
}

/// Where files are kept unless `blobs.url` names another place. Each kind of store has a folder of
/// its own, so that what the collections of one have there is not cleared away by the other, which
/// does not know them.
fn files_folder(config: &Config) -> PathBuf {
    config.data_dir.join(match config.store.kind {
        StoreKind::Edge => "thumbnails",
        StoreKind::Qdrant => "thumbnails-qdrant",
    })
}

/// Chooses the cryptography of all clients in this process that leave the choice to it: two of the
/// libraries in use would each bring another, and then none is the default.
fn choose_cryptography() {
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("the cryptography of this process was chosen before");
    }
}

/// What the three services share.
struct Parts {
    store: Arc<dyn VectorStore>,
    blobs: Blobs,
    embedder: Arc<Embedder>,
    caches: Caches,
}

fn serve(config: &Config, parts: &Parts) -> (server::Server, Changes) {
    let Parts { store, blobs, embedder, caches } = parts;
    let vectors = Arc::new(Vectors::new(Arc::clone(embedder), caches.clone()));
    let limits = &config.limits;
    let changes = Changes::default();

    let collections = Collections {
        store: Arc::clone(store),
        blobs: blobs.clone(),
        embedder: Arc::clone(embedder),
        caches: caches.clone(),
        changes: changes.clone(),
    };
    let items = Arc::new(Items::new(items::Parts {
        store: Arc::clone(store),
        vectors: Arc::clone(&vectors),
        caches: caches.clone(),
        changes: changes.clone(),
        blobs: blobs.clone(),
        thumbnailer: Thumbnailer::new(limits.thumbnail_threads, limits.max_image_pixels),
        max_image_bytes: limits.max_image_bytes,
    }));
    let searches = Searches {
        store: Arc::clone(store),
        vectors,
        caches: caches.clone(),
        max_image_bytes: limits.max_image_bytes,
        flights: Flights::default(),
    };

    let max_message = config.server.max_message_len();
    let server = server::Server::new(&config.server)
        .service(
            CollectionServiceServer::new(service::collections::Service::new(collections))
                .max_decoding_message_size(max_message)
                .max_encoding_message_size(max_message),
        )
        .service(
            ItemServiceServer::new(service::items::Service::new(
                items,
                limits.stream_concurrency,
                max_message,
            ))
            .max_decoding_message_size(max_message)
            .max_encoding_message_size(max_message),
        )
        .service(
            SearchServiceServer::new(service::search::Service::new(searches, max_message))
                .max_decoding_message_size(max_message)
                .max_encoding_message_size(max_message),
        );
    (server, changes)
}
