//! A Qdrant server or cluster.
//!
//! ```text
//! qdrant        the trait, what is measured and traced
//!   catalogue   collections, indexes, aliases; the record of each
//!     known     what was said of them a moment ago
//!   points      writes, and reads by id, filter and order
//!   search      hits, groups, facets
//!     convert   ours in the types of the protocol, and back
//! transport     connections, past nodes that can't be reached
//! ```
//!
//! What an answered write survives: it was applied on every copy of its shard that is up, and on
//! at least [`Config::write_consistency_factor`] of them, or the answer was an error. Each copy has
//! it in its write-ahead log, a mapped file: it survives the death of the server's process at any
//! moment. Qdrant brings the log onto the disk every few seconds, so a power failure of all copies
//! at once may take the last of them. Later reads see it: a copy that missed it is not read from
//! until it has caught up.
//!
//! All writes are put in one order per shard by one of its copies (`Medium`), so that a write that
//! depends on what is there is decided alike on all of them.

mod catalogue;
mod config;
mod convert;
mod error;
mod known;
mod layout;
mod points;
mod record;
mod search;
mod transport;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clipmesh_mesh::client::{self, Channel};
use clipmesh_proto::ids::{CollectionName, ItemId};
use clipmesh_telemetry::semconv;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use qdrant_client::qdrant::collections_client::CollectionsClient;
use qdrant_client::qdrant::points_client::PointsClient;
use qdrant_client::qdrant::qdrant_client::QdrantClient;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use self::known::{Era, Known};
use self::transport::Transport;
use super::index::FieldIndex;
use super::{
    Answer, Collection, Error, Facet, Group, Grouped, Hit, NewCollection, Ordered, Page, Point,
    Record, Search, Status, VectorIndexChange, VectorStore,
};
use crate::filter::{Field, Filter};
use crate::item::{Etag, Scalar};
use crate::metrics;

pub use config::Config;

/// Collections on a server.
#[derive(Debug)]
pub struct Qdrant {
    inner: Arc<Inner>,
    /// Writes under way.
    writes: TaskTracker,
    closed: AtomicBool,
}

/// Clones share everything.
#[derive(Clone, Debug)]
struct Inner {
    config: Arc<Config>,
    collections: CollectionsClient<Channel>,
    points: PointsClient<Channel>,
    server: QdrantClient<Channel>,
    /// With the time that it takes to build something.
    builders: (CollectionsClient<Channel>, PointsClient<Channel>),
    known: Arc<Known>,
}

// === impl Qdrant ===

impl Qdrant {
    /// Prepares calls; the server need not be up.
    ///
    /// # Errors
    /// Settings that can't be used: an address that is none, a file of authorities that is not
    /// there.
    pub fn new(config: Config) -> Result<Self, Error> {
        let transport = Transport::new(&config)?;
        let quick = client::over(transport.clone(), Some(config.timeout));
        let patient = client::over(transport, Some(config.build_timeout));
        let limit = config.max_message_len();
        let collections = |channel: &Channel| {
            let client = CollectionsClient::new(channel.clone());
            client.max_decoding_message_size(limit).max_encoding_message_size(limit)
        };
        let points = |channel: &Channel| {
            let client = PointsClient::new(channel.clone());
            client.max_decoding_message_size(limit).max_encoding_message_size(limit)
        };
        let inner = Inner {
            collections: collections(&quick),
            points: points(&quick),
            server: QdrantClient::new(quick.clone()),
            builders: (collections(&patient), points(&patient)),
            known: Arc::new(Known::new()),
            config: Arc::new(config),
        };
        Ok(Self {
            inner: Arc::new(inner),
            writes: TaskTracker::new(),
            closed: AtomicBool::new(false),
        })
    }

    fn inner(&self) -> Result<Arc<Inner>, Error> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Failed("it is closed".to_owned()));
        }
        Ok(Arc::clone(&self.inner))
    }

    /// Measures and traces a piece of work. What fails may be out of date with the server, so what
    /// is known of the collection is asked for again next time; but not of a server that has too
    /// much to do.
    fn read<T, F>(
        &self,
        operation: &'static str,
        name: CollectionName,
        work: impl FnOnce(Arc<Inner>, CollectionName) -> F + Send + 'static,
    ) -> Answer<'_, T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let inner = self.inner();
        let span = span(operation, Some(&name));
        let work = async move {
            let inner = inner?;
            let timer = metrics::StoreTimer::start(operation);
            let result = work(Arc::clone(&inner), name.clone()).await;
            timer.stop(result.is_ok());
            if !matches!(result, Ok(_) | Err(Error::Busy | Error::TimedOut)) {
                inner.known.forget(&name);
            }
            result
        };
        work.instrument(span).boxed()
    }

    /// The same for work that is finished even if nobody waits for it any more.
    fn write<T, F>(
        &self,
        operation: &'static str,
        name: CollectionName,
        work: impl FnOnce(Arc<Inner>, CollectionName) -> F + Send + 'static,
    ) -> Answer<'_, T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        self.read(operation, name, {
            let writes = self.writes.clone();
            move |inner, name| async move {
                let task = writes.spawn(work(inner, name).in_current_span());
                let panicked = |_| Err(Error::Failed("a write panicked".to_owned()));
                task.await.unwrap_or_else(panicked)
            }
        })
    }

    /// The same for work that makes another collection of what is called by a name, or none. It may
    /// have done so however it ends.
    fn change<T, F>(
        &self,
        operation: &'static str,
        name: CollectionName,
        work: impl FnOnce(Arc<Inner>, CollectionName) -> F + Send + 'static,
    ) -> Answer<'_, T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        self.write(operation, name, |inner, name| async move {
            let result = work(Arc::clone(&inner), name.clone()).await;
            inner.known.changed(&name);
            result
        })
    }

    /// Work that is about no collection in particular.
    fn list<T, F>(
        &self,
        operation: &'static str,
        work: impl FnOnce(Arc<Inner>) -> F + Send + 'static,
    ) -> Answer<'_, T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let inner = self.inner();
        let work = async move {
            let inner = inner?;
            let timer = metrics::StoreTimer::start(operation);
            let result = work(inner).await;
            timer.stop(result.is_ok());
            result
        };
        work.instrument(span(operation, None)).boxed()
    }
}

impl VectorStore for Qdrant {
    fn create(&self, new: NewCollection) -> Answer<'_, Collection> {
        self.change("create", new.name.clone(), |inner, _| async move { inner.create(new).await })
    }

    fn remove(&self, name: CollectionName) -> Answer<'_, Collection> {
        self.change("remove", name, |inner, name| async move { inner.remove(name).await })
    }

    fn resolve(&self, name: CollectionName) -> Answer<'_, Collection> {
        self.read("resolve", name, |inner, name| async move { inner.describe(&name).await })
    }

    fn collections(&self) -> Answer<'_, Vec<Collection>> {
        self.list("collections", |inner| async move { inner.list().await })
    }

    fn set_vector_index(
        &self,
        name: CollectionName,
        change: VectorIndexChange,
    ) -> Answer<'_, Collection> {
        self.change("set_vector_index", name, move |inner, name| async move {
            inner.set_vector_index(name, change).await
        })
    }

    fn create_index(&self, name: CollectionName, index: FieldIndex) -> Answer<'_, Collection> {
        self.change("create_index", name, |inner, name| async move {
            inner.replace_index(name, index).await
        })
    }

    fn remove_index(&self, name: CollectionName, field: Field) -> Answer<'_, Collection> {
        self.change("remove_index", name, |inner, name| async move {
            inner.remove_index(name, field).await
        })
    }

    fn set_alias(
        &self,
        alias: CollectionName,
        name: CollectionName,
    ) -> Answer<'_, Option<CollectionName>> {
        self.change(
            "set_alias",
            alias,
            |inner, alias| async move { inner.set_alias(alias, name).await },
        )
    }

    fn remove_alias(&self, alias: CollectionName) -> Answer<'_, ()> {
        self.change(
            "remove_alias",
            alias,
            |inner, alias| async move { inner.remove_alias(alias).await },
        )
    }

    fn aliases(&self) -> Answer<'_, BTreeMap<CollectionName, CollectionName>> {
        self.list("aliases", |inner| async move { inner.aliases().await })
    }

    fn status(&self, name: CollectionName) -> Answer<'_, Status> {
        self.read("status", name, |inner, name| async move { inner.status(&name).await })
    }

    fn upsert(&self, name: CollectionName, points: Vec<Point>) -> Answer<'_, ()> {
        self.write("upsert", name, |inner, name| async move { inner.upsert(&name, points).await })
    }

    fn replace(
        &self,
        name: CollectionName,
        point: Point,
        expected: Option<Etag>,
    ) -> Answer<'_, bool> {
        self.write("replace", name, |inner, name| async move {
            inner.replace(&name, point, expected.as_ref()).await
        })
    }

    fn delete(&self, name: CollectionName, ids: Vec<ItemId>) -> Answer<'_, ()> {
        self.write("delete", name, |inner, name| async move { inner.delete(&name, &ids).await })
    }

    fn delete_unchanged(
        &self,
        name: CollectionName,
        id: ItemId,
        expected: Etag,
    ) -> Answer<'_, bool> {
        self.write("delete_unchanged", name, |inner, name| async move {
            inner.delete_unchanged(&name, &id, &expected).await
        })
    }

    fn sync(&self, name: CollectionName) -> Answer<'_, ()> {
        // What is there is in the log of a server, and no more is promised of any write.
        self.read("sync", name, |inner, name| async move { inner.ask(&name).await.map(drop) })
    }

    fn get(
        &self,
        name: CollectionName,
        ids: Vec<ItemId>,
        vectors: bool,
    ) -> Answer<'_, Vec<Record>> {
        self.read(
            "get",
            name,
            move |inner, name| async move { inner.get(&name, &ids, vectors).await },
        )
    }

    fn count(&self, name: CollectionName, filter: Filter) -> Answer<'_, u64> {
        self.read("count", name, |inner, name| async move { inner.count(&name, &filter).await })
    }

    fn scroll(&self, name: CollectionName, page: Page) -> Answer<'_, Vec<Record>> {
        self.read("scroll", name, |inner, name| async move { inner.scroll(&name, page).await })
    }

    fn ordered(&self, name: CollectionName, page: Ordered) -> Answer<'_, Vec<(Record, f64)>> {
        self.read("ordered", name, |inner, name| async move { inner.ordered(&name, page).await })
    }

    fn search(&self, name: CollectionName, searches: Vec<Search>) -> Answer<'_, Vec<Vec<Hit>>> {
        self.read("search", name, |inner, name| async move { inner.search(&name, searches).await })
    }

    fn group(&self, name: CollectionName, grouped: Grouped) -> Answer<'_, Vec<Group>> {
        self.read("group", name, |inner, name| async move { inner.group(&name, grouped).await })
    }

    fn facet(&self, name: CollectionName, facet: Facet) -> Answer<'_, Vec<(Scalar, u64)>> {
        self.read("facet", name, |inner, name| async move { inner.facet(&name, facet).await })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.closed.store(true, Ordering::Release);
        self.writes.close();
        let longest = self.inner.config.timeout;
        async move {
            if timeout(longest, self.writes.wait()).await.is_err() {
                // The server goes on with what it was asked to build; a collection that is half
                // made is cleared away by the next that makes one of its name.
                tracing::warn!("writes under way were not waited for any longer");
            }
        }
        .boxed()
    }
}

// === impl Inner ===

impl Inner {
    /// What our collection or alias is called on the server.
    fn outer_name(&self, name: &CollectionName) -> String {
        format!("{}{name}", self.config.prefix)
    }

    /// What one of the server's collections or aliases is called here, if it can be ours.
    fn own_name(&self, outer: &str) -> Option<CollectionName> {
        CollectionName::try_from(outer.strip_prefix(&self.config.prefix)?.to_owned()).ok()
    }

    /// Describes a collection as it was a moment ago.
    async fn describe(&self, name: &CollectionName) -> Result<Collection, Error> {
        let keep = self.config.keep_collections;
        if keep.is_zero() {
            return self.ask(name).await;
        }
        let era = match self.known.recall(name, keep, Instant::now()) {
            Ok(collection) => return Ok(collection),
            Err(era) => era,
        };
        let ask = || self.clone().ask_and_keep(name.clone(), era).boxed();
        let flight = self.known.ask(name, era, ask);
        match flight.work.await {
            // Whoever began had less time than this call has.
            Err(Error::TimedOut) if flight.is_joined => ask().await,
            answer => answer,
        }
    }

    async fn ask_and_keep(self, name: CollectionName, era: Era) -> Result<Collection, Error> {
        let collection = self.ask(&name).await?;
        self.known.keep(&name, collection.clone(), era);
        Ok(collection)
    }
}

fn span(operation: &'static str, name: Option<&CollectionName>) -> tracing::Span {
    tracing::debug_span!(
        "store",
        { semconv::OTEL_NAME } = operation,
        { semconv::OTEL_KIND } = "client",
        { semconv::DB_SYSTEM_NAME } = "qdrant",
        { semconv::DB_OPERATION_NAME } = operation,
        { semconv::DB_COLLECTION_NAME } = name.map(CollectionName::as_str),
    )
}

#[cfg(test)]
mod tests;
