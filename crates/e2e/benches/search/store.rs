//! The vector store itself: found as the services find it, without them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use clipmesh_proto::Embedding;
use clipmesh_proto::ids::{CollectionName, Fingerprint, ItemId};
use clipmesh_search::filter::{Field, Filter, Test};
use clipmesh_search::item::{Item, Metadata, Scalar, Value};
use clipmesh_search::store::edge::{self, Edge};
use clipmesh_search::store::index::{FieldIndex, Indexes, Kind, VectorIndex};
use clipmesh_search::store::qdrant::{self, Qdrant};
use clipmesh_search::store::{
    Distance, Hit, IndexState, NewCollection, Point, Search, Target, VectorStore,
};
use tokio::time::Instant;

use crate::load::Latencies;
use crate::recipe::{self, CLUSTER_TAGS, Drawn, Recipe, Source, TAGS};
use crate::report::{line, ms};
use crate::truth;

pub(crate) const COLLECTION: &str = "bench";
/// Hits of each search.
const LIMIT: usize = 10;
const BATCH: usize = 500;
const CALLERS: [usize; 3] = [1, 8, 64];
/// Longest wait for the graph to be built.
const BUILD_TIMEOUT: Duration = Duration::from_secs(4 * 3600);

/// Vectors, and queries with their truth.
pub(crate) struct Subject {
    source: Source,
    vectors: Vec<Embedding>,
    /// Of each vector.
    tags: Vec<Vec<&'static str>>,
    pub(crate) queries: Arc<Vec<Embedding>>,
    /// The cluster of each query.
    clusters: Vec<usize>,
    truth: Vec<Vec<usize>>,
}

impl Subject {
    pub(crate) fn make(recipe: &Recipe, queries: usize) -> Self {
        let source = recipe.source();
        let drawn = source.vectors(recipe.vectors, 1);
        let (tags, vectors): (Vec<_>, Vec<_>) = drawn.into_iter().enumerate().map(tagged).unzip();
        let queries = source.vectors(queries, 2).into_iter();
        let (clusters, queries): (Vec<_>, Vec<_>) =
            queries.map(|query| (query.cluster, query.vector)).unzip();
        let truth = truth::nearest(&vectors, &queries, LIMIT, |_| true);
        Self { source, vectors, tags, queries: Arc::new(queries), clusters, truth }
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
    let tag = FieldIndex { field: Field::Metadata("tag".to_owned()), kind: Kind::Keyword };
    let new = NewCollection {
        name: name(),
        fingerprint: Fingerprint::try_from("0".repeat(64)).context("a fingerprint")?,
        model_name: "none".to_owned(),
        dimension: subject.vectors[0].dimension(),
        distance: Distance::Cosine,
        indexes: Indexes::new([tag]),
        vector_index: VectorIndex::default(),
        word_fields: Vec::new(),
    };
    store.create(new).await?;
    let start = Instant::now();
    for (number, batch) in subject.vectors.chunks(BATCH).enumerate() {
        let points = batch.iter().enumerate();
        let points = points.map(|(i, vector)| {
            let number = number * BATCH + i;
            point(number, vector.clone(), &subject.tags[number])
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
    store: &dyn VectorStore,
    subject: &Subject,
    duration: Duration,
) -> anyhow::Result<()> {
    let (found, alone) = one_by_one(store, &subject.queries, &Filter::default()).await?;
    line(format_args!("recall_at_10={:.4}", truth::recall(&subject.truth, &found)));
    alone.print("one caller, each query once");
    filtered(store, subject, &alone).await?;
    under_load(store, subject, duration).await
}

/// Each query once, and what was found.
async fn one_by_one(
    store: &dyn VectorStore,
    queries: &[Embedding],
    filter: &Filter,
) -> anyhow::Result<(Vec<Vec<usize>>, Latencies)> {
    let (mut found, mut times) = (Vec::new(), Vec::new());
    let start = Instant::now();
    for query in queries {
        let asked = Instant::now();
        let hits = store.search(name(), vec![search(query, filter.clone())]).await?;
        times.push(asked.elapsed());
        found.push(numbers(hits.into_iter().flatten()));
    }
    Ok((found, Latencies::of(times, start.elapsed())))
}

async fn filtered(
    store: &dyn VectorStore,
    subject: &Subject,
    unfiltered: &Latencies,
) -> anyhow::Result<()> {
    for (tag, chance) in TAGS {
        let what = format!("{:.1} % by chance", chance * 100.0);
        filtered_by(store, subject, (tag, &what, &subject.queries), unfiltered).await?;
    }
    for (tag, one_of) in CLUSTER_TAGS {
        // Whoever filters by a kind looks for one of that kind.
        let is_asked = |&(at, _): &(usize, &Embedding)| {
            recipe::cluster_tags(subject.clusters[at]).any(|own| own == tag)
        };
        let asked = subject.queries.iter().enumerate().filter(is_asked);
        let asked: Vec<_> = asked.map(|(_, query)| query.clone()).collect();
        let what = format!("one cluster of {one_of}");
        filtered_by(store, subject, (tag, &what, &asked), unfiltered).await?;
    }
    Ok(())
}

async fn filtered_by(
    store: &dyn VectorStore,
    subject: &Subject,
    (tag, what, queries): (&str, &str, &[Embedding]),
    unfiltered: &Latencies,
) -> anyhow::Result<()> {
    let test = Test::Match(Scalar::String(tag.to_owned()));
    let filter = Filter::default().and(Field::Metadata("tag".to_owned()), test);
    let passes = |number: usize| subject.tags[number].contains(&tag);
    let truth = truth::nearest(&subject.vectors, queries, LIMIT, passes);
    let (found, times) = one_by_one(store, queries, &filter).await?;
    let recall = truth::recall(&truth, &found);
    let (p50, p99) = (ms(times.p50()), ms(times.p99()));
    let (slower_p50, slower_p99) = (p50 / ms(unfiltered.p50()), p99 / ms(unfiltered.p99()));
    line(format_args!(
        "filtered, {what}: filtered_p50_ms={p50:.2} filtered_p99_ms={p99:.2} recall={recall:.4} \
         p50_over_unfiltered={slower_p50:.2} p99_over_unfiltered={slower_p99:.2}"
    ));
    Ok(())
}

/// Several callers; then one, while more is written.
async fn under_load(
    store: &dyn VectorStore,
    subject: &Subject,
    duration: Duration,
) -> anyhow::Result<()> {
    for callers in CALLERS {
        concurrent(store, subject, callers, duration).await?.print(&format!("{callers} callers"));
    }
    let calm = concurrent(store, subject, 1, duration).await?;
    let more = subject.source.vectors(subject.vectors.len() / 10, 3);
    let written = AtomicUsize::new(0);
    let writing = async {
        let start = Instant::now();
        for (number, batch) in more.chunks(BATCH).enumerate() {
            let first = subject.vectors.len() + number * BATCH;
            let points = (first..).zip(batch.iter().cloned());
            let points = points.map(|(number, drawn)| {
                let (tags, vector) = tagged((number, drawn));
                point(number, vector, &tags)
            });
            store.upsert(name(), points.collect()).await?;
            written.fetch_add(batch.len(), Ordering::Relaxed);
            if start.elapsed() > duration {
                break;
            }
        }
        anyhow::Ok(written.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64())
    };
    let (busy, rate) = tokio::join!(concurrent(store, subject, 1, duration), writing);
    let (busy, rate) = (busy?, rate?);
    line(format_args!(
        "while indexing {rate:.0} items a second: p99_over_calm={:.2} p50_over_calm={:.2}",
        ms(busy.p99()) / ms(calm.p99()),
        ms(busy.p50()) / ms(calm.p50())
    ));
    Ok(())
}

/// Callers as futures of one task, since the store is only borrowed.
async fn concurrent(
    store: &dyn VectorStore,
    subject: &Subject,
    callers: usize,
    duration: Duration,
) -> anyhow::Result<Latencies> {
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    let caller = async || {
        let mut times = Vec::new();
        while start.elapsed() < duration {
            let number = next.fetch_add(1, Ordering::Relaxed) % subject.queries.len();
            let search = search(&subject.queries[number], Filter::default());
            let asked = Instant::now();
            store.search(name(), vec![search]).await?;
            times.push(asked.elapsed());
        }
        anyhow::Ok(times)
    };
    let all = futures::future::try_join_all((0..callers).map(|_| caller())).await?;
    Ok(Latencies::of(all.into_iter().flatten().collect(), start.elapsed()))
}

/// What the collection costs, by what lies on the disk and what this process holds.
pub(crate) fn cost(folder: &Path, vectors: usize) -> anyhow::Result<()> {
    let per_million = 1e6 / vectors as f64 / f64::from(1 << 20);
    let disk = disk_bytes(folder)? as f64 * per_million;
    let (all, anonymous) = resident_bytes()?;
    line(format_args!(
        "disk_mib_per_million={disk:.0} (mapped and heap of this process: {:.0} MiB, heap alone: \
         {:.0} MiB; both hold the vectors once more, for the truth)",
        all as f64 / f64::from(1 << 20),
        anonymous as f64 / f64::from(1 << 20)
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

fn resident_bytes() -> anyhow::Result<(u64, u64)> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
        kib.map(|kib| kib * 1024).with_context(|| format!("read {name}"))
    };
    Ok((field("VmRSS:")?, field("RssAnon:")?))
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

fn tagged((number, drawn): (usize, Drawn)) -> (Vec<&'static str>, Embedding) {
    (recipe::tags(number, drawn.cluster), drawn.vector)
}

fn point(number: usize, vector: Embedding, tags: &[&str]) -> Point {
    let now = jiff::Timestamp::UNIX_EPOCH;
    let tags = tags.iter().map(|tag| Scalar::String((*tag).to_owned()));
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
        metadata: Metadata::from([("tag".to_owned(), Value::Many(tags.collect()))]),
    };
    Point { item, vector }
}
