//! The vector store itself: found as the services find it, without them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clipmesh_proto::Embedding;
use clipmesh_proto::ids::{CollectionName, Fingerprint, ItemId};
use clipmesh_search::filter::Filter;
use clipmesh_search::item::{Item, Scalar, Value};
use clipmesh_search::store::edge::{self, Edge};
use clipmesh_search::store::index::{FieldIndex, Indexes, Kind, VectorIndex};
use clipmesh_search::store::qdrant::{self, Qdrant};
use clipmesh_search::store::{
    Distance, Hit, IndexState, NewCollection, Point, Search, Target, VectorStore,
};
use futures::future::BoxFuture;
use tokio::time::Instant;

use crate::filtered;
use crate::load::{self, Latencies};
use crate::recipe::{self, Recipe, Source};
use crate::report::{line, ms};
use crate::truth;

pub(crate) const COLLECTION: &str = "bench";
/// Hits of each search.
pub(crate) const LIMIT: usize = 10;
const BATCH: usize = 500;
/// Items that a graph is built for while others are searched: hardly more than it takes.
const NEW: usize = 5_500;
const CALLERS: [usize; 3] = [1, 8, 64];
/// Longest wait for the graph to be built.
const BUILD_TIMEOUT: Duration = Duration::from_secs(4 * 3600);

/// Vectors, and queries with their truth.
pub(crate) struct Subject {
    pub(crate) source: Source,
    pub(crate) vectors: Vec<Embedding>,
    /// The cluster of each vector, and its tags.
    pub(crate) facts: Vec<(usize, Vec<&'static str>)>,
    pub(crate) queries: Arc<Vec<Embedding>>,
    /// The cluster of each query.
    pub(crate) clusters: Vec<usize>,
    truth: Vec<Vec<usize>>,
}

impl Subject {
    pub(crate) fn make(recipe: &Recipe, queries: usize) -> Self {
        let source = recipe.source();
        let drawn = source.vectors(recipe.vectors, 1).into_iter().enumerate();
        let (facts, vectors): (Vec<_>, Vec<_>) = drawn
            .map(|(number, drawn)| {
                let tags = recipe::tags(number, drawn.cluster);
                ((drawn.cluster, tags), drawn.vector)
            })
            .unzip();
        let queries = source.vectors(queries, 2).into_iter();
        let (clusters, queries): (Vec<_>, Vec<_>) =
            queries.map(|query| (query.cluster, query.vector)).unzip();
        let truth = truth::nearest(&vectors, &queries, LIMIT, |_, _| true);
        Self { source, vectors, facts, queries: Arc::new(queries), clusters, truth }
    }

    /// Whether the cluster of a query has a tag.
    pub(crate) fn has(&self, query: usize, tag: &str) -> bool {
        recipe::cluster_tags(self.clusters[query]).any(|own| own == tag)
    }
}

pub(crate) async fn open(
    folder: &Path,
    qdrant_url: Option<&str>,
) -> anyhow::Result<Arc<dyn VectorStore>> {
    if let Some(url) = qdrant_url {
        let url = url.to_owned();
        let config = qdrant::Config { url, prefix: prefix(), ..qdrant::Config::default() };
        return Ok(Arc::new(Qdrant::new(config)?));
    }
    let root = folder.join("collections");
    Ok(Arc::new(Edge::open(root, edge::Config::default()).await?))
}

/// What is ours on a server that others may use.
pub(crate) fn prefix() -> String {
    format!("bench_{}_", std::process::id())
}

pub(crate) fn name() -> CollectionName {
    CollectionName::try_from(COLLECTION.to_owned()).expect("a name")
}

/// Stores all vectors and waits for their graph.
pub(crate) async fn fill(store: &dyn VectorStore, subject: &Subject) -> anyhow::Result<()> {
    let index = |field| FieldIndex { field, kind: Kind::Keyword };
    let new = NewCollection {
        name: name(),
        fingerprint: Fingerprint::try_from("0".repeat(64)).context("a fingerprint")?,
        model_name: "none".to_owned(),
        dimension: subject.vectors[0].dimension(),
        distance: Distance::Cosine,
        indexes: Indexes::new([index(filtered::tag()), index(filtered::cluster())]),
        vector_index: VectorIndex::default(),
        word_fields: Vec::new(),
    };
    store.create(new).await?;
    let start = Instant::now();
    for (number, batch) in subject.vectors.chunks(BATCH).enumerate() {
        let points = batch.iter().enumerate();
        let points = points.map(|(i, vector)| {
            let number = number * BATCH + i;
            let (cluster, tags) = &subject.facts[number];
            point(number, vector.clone(), *cluster, tags)
        });
        store.upsert(name(), points.collect()).await?;
    }
    let took = start.elapsed();
    let rate = subject.vectors.len() as f64 / took.as_secs_f64();
    line(format_args!("store_index_rate={rate:.0} (items a second, {BATCH} in a call)"));
    settle(store).await?;
    let build = (start.elapsed() - took).as_secs_f64();
    line(format_args!("build_seconds={build:.1} (after the last write)"));
    Ok(())
}

/// Waits until no graph is being built.
async fn settle(store: &dyn VectorStore) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut calm = 0;
    // It begins to build a moment after the last write.
    while calm < 10 {
        anyhow::ensure!(start.elapsed() < BUILD_TIMEOUT, "the graph is not finished");
        tokio::time::sleep(Duration::from_millis(500)).await;
        let state = store.status(name()).await?.state;
        calm = if state == IndexState::Ready { calm + 1 } else { 0 };
    }
    Ok(())
}

pub(crate) async fn measure(
    store: &Arc<dyn VectorStore>,
    subject: &Subject,
    duration: Duration,
) -> anyhow::Result<()> {
    let unfiltered = vec![Filter::default(); subject.queries.len()];
    // Once to have all that is mapped in memory.
    one_by_one(store.as_ref(), &subject.queries, &unfiltered).await?;
    let (found, alone) = one_by_one(store.as_ref(), &subject.queries, &unfiltered).await?;
    line(format_args!("recall_at_10={:.4}", truth::recall(&subject.truth, &found)));
    alone.print("one caller, each query once");
    filtered::measure(store.as_ref(), subject, &alone).await?;
    for callers in CALLERS {
        let load = load::run(callers, duration, asking(store, subject)).await?;
        load.print(&format!("{callers} callers"));
    }
    while_building(store, subject, duration).await
}

/// Each query once, with its own filter, and what was found.
pub(crate) async fn one_by_one(
    store: &dyn VectorStore,
    queries: &[Embedding],
    filters: &[Filter],
) -> anyhow::Result<(Vec<Vec<usize>>, Latencies)> {
    let (mut found, mut times) = (Vec::new(), Vec::new());
    let start = Instant::now();
    for (query, filter) in queries.iter().zip(filters) {
        let search = search(query, filter.clone());
        let asked = Instant::now();
        let hits = store.search(name(), vec![search]).await?;
        times.push(asked.elapsed());
        found.push(numbers(hits.into_iter().flatten()));
    }
    Ok((found, Latencies::of(times, start.elapsed())))
}

/// One caller, alone and while a graph is built for what came in.
async fn while_building(
    store: &Arc<dyn VectorStore>,
    subject: &Subject,
    duration: Duration,
) -> anyhow::Result<()> {
    let calm = load::run(1, duration, asking(store, subject)).await?;
    let new = subject.source.vectors(NEW, 3).into_iter().zip(subject.vectors.len()..);
    let points = new.map(|(drawn, number)| {
        let tags = recipe::tags(number, drawn.cluster);
        point(number, drawn.vector, drawn.cluster, &tags)
    });
    store.upsert(name(), points.collect()).await?;
    while store.status(name()).await?.state != IndexState::Building {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut second = 1;
    while store.status(name()).await?.state == IndexState::Building && second <= 10 {
        let busy = load::run(1, Duration::from_secs(1), asking(store, subject)).await?;
        line(format_args!(
            "while a graph is built for {NEW} new items, second {second}: p99_over_calm={:.2} \
             p50_over_calm={:.2}",
            ms(busy.p99()) / ms(calm.p99()),
            ms(busy.p50()) / ms(calm.p50())
        ));
        second += 1;
    }
    settle(store.as_ref()).await
}

fn asking(
    store: &Arc<dyn VectorStore>,
    subject: &Subject,
) -> impl Fn(usize) -> BoxFuture<'static, anyhow::Result<()>> + Clone + Send + 'static {
    let (store, queries) = (Arc::clone(store), Arc::clone(&subject.queries));
    move |number| {
        let search = search(&queries[number % queries.len()], Filter::default());
        let store = Arc::clone(&store);
        Box::pin(async move {
            store.search(name(), vec![search]).await?;
            Ok(())
        })
    }
}

/// What a collection of so many vectors costs: what lies on the disk, and what this process holds
/// beyond what it held `before`.
pub(crate) fn cost(folder: &Path, vectors: usize, before: Memory) -> anyhow::Result<()> {
    let per_million = |bytes: u64| bytes as f64 * 1e6 / vectors as f64 / f64::from(1 << 20);
    let after = Memory::now()?;
    line(format_args!(
        "disk_mib_per_million={:.0} memory_mib_per_million={:.0} (heap; files mapped: {:.0})",
        per_million(disk_bytes(folder)?),
        per_million(after.heap.saturating_sub(before.heap)),
        per_million(after.mapped.saturating_sub(before.mapped)),
    ));
    Ok(())
}

/// Blocks in use: the engine's files have holes.
fn disk_bytes(folder: &Path) -> anyhow::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        let own = metadata.blocks() * 512;
        bytes += if metadata.is_dir() { disk_bytes(&entry.path())? } else { own };
    }
    Ok(bytes)
}

/// Bytes that this process has in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    heap: u64,
    mapped: u64,
}

impl Memory {
    pub(crate) fn now() -> anyhow::Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
            kib.map(|kib| kib * 1024).with_context(|| format!("read {name}"))
        };
        Ok(Self { heap: field("RssAnon:")?, mapped: field("RssFile:")? })
    }
}

fn search(query: &Embedding, filter: Filter) -> Search {
    Search {
        target: Target::Vector(query.clone()),
        filter,
        exclude: Vec::new(),
        offset: 0,
        limit: LIMIT,
        threshold: None,
        exact: false,
        effort: None,
        vectors: false,
    }
}

fn numbers(hits: impl Iterator<Item = Hit>) -> Vec<usize> {
    hits.filter_map(|hit| hit.item.id.as_str().parse().ok()).collect()
}

fn point(number: usize, vector: Embedding, cluster: usize, tags: &[&str]) -> Point {
    let now = jiff::Timestamp::UNIX_EPOCH;
    let tags = tags.iter().map(|tag| Scalar::String((*tag).to_owned())).collect();
    let cluster = Scalar::String(filtered::cluster_name(cluster));
    let digit = Scalar::String((number % 10).to_string());
    let metadata = [
        ("tag", Value::Many(tags)),
        ("cluster", Value::One(cluster)),
        ("digit", Value::One(digit)),
    ];
    let item = Item {
        id: ItemId::try_from(number.to_string()).expect("digits"),
        uri: String::new(),
        filename: format!("{number}.jpg"),
        width: 0,
        height: 0,
        format: String::new(),
        byte_size: 0,
        content_hash: None,
        pixel_hash: None,
        perceptual_hash: None,
        create_time: now,
        update_time: now,
        metadata: metadata.map(|(name, value)| (name.to_owned(), value)).into(),
    };
    Point { item, vector }
}
