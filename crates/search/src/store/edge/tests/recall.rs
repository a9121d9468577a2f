//! How much of the truth is found, with the exact store as the one who knows it.
//!
//! Collections are small, and so are the thresholds, so that real graphs are walked.

use clipmesh_proto::Embedding;
use qdrant_edge::ResourceBudget;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::filter::{Range, Test};
use crate::store::Target;
use crate::store::contract::{item, must};
use crate::store::exact::Exact;
use crate::store::index::Quantization;

const WIDE: usize = 32;
const CLUSTERS: usize = 20;
const STORED: u32 = 3_000;

/// Graphs for hundreds of vectors, and built only when a test says so.
pub(super) fn small_graphs() -> Config {
    let positive = |number| NonZeroUsize::new(number).expect("positive");
    Config {
        flush_interval: Duration::from_secs(3600),
        optimize_after: positive(500),
        full_scan_points: positive(50),
        ..Config::default()
    }
}

/// Directions around some common ones, as pictures have them.
pub(super) struct Pictures {
    random: ChaCha8Rng,
    centers: Vec<Vec<f32>>,
}

impl Pictures {
    pub(super) fn new() -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(5);
        let mut center = || (0..WIDE).map(|_| random.random_range(-1.0..1.0)).collect();
        let centers = (0..CLUSTERS).map(|_| center()).collect();
        Self { random, centers }
    }

    /// One of a cluster, which is told by the item's height, among a hundred widths.
    pub(super) fn point(&mut self, number: u32) -> Point {
        let cluster = self.random.random_range(0..CLUSTERS);
        let mut item = item(&format!("p{number}"));
        item.width = 100 + self.random.random_range(0..100);
        item.height = u32::try_from(cluster).expect("small");
        Point { item, vector: self.near(cluster) }
    }

    pub(super) fn points(&mut self, numbers: std::ops::Range<u32>) -> Vec<Point> {
        numbers.map(|number| self.point(number)).collect()
    }

    /// A search for what is near to a picture like those that are stored.
    pub(super) fn search(&mut self, filter: &Filter, limit: usize) -> Search {
        let cluster = self.random.random_range(0..CLUSTERS);
        Search {
            target: Target::Vector(self.near(cluster)),
            filter: filter.clone(),
            ..search([1.0; 4], limit)
        }
    }

    fn near(&mut self, cluster: usize) -> Embedding {
        let random = &mut self.random;
        let near = self.centers[cluster].iter().map(|x| x + random.random_range(-1.0..1.0));
        Embedding::new(near.collect()).expect("a direction")
    }
}

pub(super) fn wide(text: &str) -> NewCollection {
    NewCollection { dimension: WIDE, ..new_collection(text) }
}

/// Builds what there is to build, as the upkeep would.
pub(super) async fn optimize(store: &Edge, collection: &str) -> bool {
    let shard = store.catalogue.shard(&name(collection)).expect("there");
    let built =
        tokio::task::spawn_blocking(move || shard.optimize(&ResourceBudget::new(1, 1))).await;
    built.expect("no panic").expect("optimized")
}

/// A store with most of its vectors in a graph, and the one that knows the truth about it.
async fn stores(folder: &TempDir, pictures: &mut Pictures) -> (Edge, Exact) {
    let edge = open_with(folder.path(), small_graphs()).await;
    let exact = Exact::default();
    let points = pictures.points(0..STORED);
    for store in [&edge as &dyn VectorStore, &exact] {
        store.create(wide("pictures")).await.expect("made");
        store.upsert(name("pictures"), points.clone()).await.expect("stored");
    }
    assert!(optimize(&edge, "pictures").await, "there is something to build");
    let shard = edge.catalogue.shard(&name("pictures")).expect("there");
    assert_eq!(shard.indexed(), Ok(STORED as usize), "all are in a graph");
    let tail = pictures.points(STORED..STORED + 200);
    for store in [&edge as &dyn VectorStore, &exact] {
        store.upsert(name("pictures"), tail.clone()).await.expect("stored");
    }
    (edge, exact)
}

/// The share of the true hits that are found; as many hits as there are and their true scores, in
/// any case.
async fn recall(edge: &Edge, exact: &Exact, searches: &[Search]) -> f64 {
    let of = async |store: &dyn VectorStore| {
        store.search(name("pictures"), searches.to_vec()).await.expect("an answer")
    };
    let (found, truth) = (of(edge).await, of(exact).await);
    let (mut hits, mut all) = (0, 0);
    for (found, truth) in found.iter().zip(&truth) {
        assert_eq!(found.len(), truth.len(), "as many hits as there are");
        for truth in truth {
            let found = found.iter().filter(|hit| hit.item.id == truth.item.id);
            for hit in found {
                let off = (hit.score - truth.score).abs();
                assert!(off < 1e-4, "{}: {} of {}", hit.item.id, hit.score, truth.score);
                hits += 1;
            }
        }
        all += truth.len();
    }
    hits as f64 / all as f64
}

fn width_below(bound: f64) -> Filter {
    must(Field::Width, Test::Range(Range { lt: Some(bound), ..Range::default() }))
}

fn height_below(bound: f64) -> Filter {
    must(Field::Height, Test::Range(Range { lt: Some(bound), ..Range::default() }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graph_finds_nearly_all_of_the_truth_whatever_the_filter() {
    let folder = folder();
    let mut pictures = Pictures::new();
    let (edge, exact) = stores(&folder, &mut pictures).await;
    let even = must(Field::Filename, Test::Text("0.jpg".to_owned()));
    let cases = [
        ("no filter", Filter::default()),
        ("1 %", width_below(101.0)),
        ("5 %", width_below(105.0)),
        ("10 %", width_below(110.0)),
        ("50 %", width_below(150.0)),
        ("95 %", width_below(195.0)),
        ("one cluster", height_below(1.0)),
        ("half of the clusters", height_below(10.0)),
        ("10 % without an index", even),
    ];
    for (what, filter) in cases {
        let searches: Vec<_> = (0..40).map(|_| pictures.search(&filter, 10)).collect();
        let recall = recall(&edge, &exact, &searches).await;
        assert!(recall >= 0.95, "{what}: {recall} of the truth");
    }
    edge.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_full_whenever_there_is_enough_to_fill_it() {
    let folder = folder();
    let mut pictures = Pictures::new();
    let (edge, exact) = stores(&folder, &mut pictures).await;
    for (filter, limit) in [
        (width_below(101.0), 100),
        (width_below(110.0), 500),
        (height_below(1.0), 300),
        (Filter::default(), 4_000),
    ] {
        let searches: Vec<_> = (0..3).map(|_| pictures.search(&filter, limit)).collect();
        let recall = recall(&edge, &exact, &searches).await;
        assert!(recall >= 0.95, "{limit} of {filter:?}: {recall} of the truth");
    }
    edge.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exact_search_finds_all_of_the_truth() {
    let folder = folder();
    let mut pictures = Pictures::new();
    let (edge, exact) = stores(&folder, &mut pictures).await;
    for filter in [Filter::default(), width_below(150.0), height_below(10.0)] {
        let exactly = |search| Search { exact: true, ..search };
        let searches: Vec<_> = (0..20).map(|_| exactly(pictures.search(&filter, 10))).collect();
        let recall = recall(&edge, &exact, &searches).await;
        assert!((recall - 1.0).abs() < 1e-9, "{filter:?}: {recall} of the truth");
    }
    edge.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_effort_finds_more() {
    let folder = folder();
    let mut pictures = Pictures::new();
    let (edge, exact) = stores(&folder, &mut pictures).await;
    let searches: Vec<_> = (0..40).map(|_| pictures.search(&Filter::default(), 10)).collect();
    let with = |effort| {
        let with = |search: &Search| Search { effort: Some(effort), ..search.clone() };
        searches.iter().map(with).collect::<Vec<_>>()
    };
    let little = recall(&edge, &exact, &with(1)).await;
    let much = recall(&edge, &exact, &with(1_000)).await;
    assert!(little < much, "{little} with little and {much} with much");
    edge.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_what_is_in_a_graph_are_seen_at_once() {
    let folder = folder();
    let mut pictures = Pictures::new();
    let (edge, _) = stores(&folder, &mut pictures).await;
    let search = pictures.search(&Filter::default(), 10);
    let found = async || {
        let answers = edge.search(name("pictures"), vec![search.clone()]).await;
        answers.expect("an answer").remove(0)
    };
    let before = found().await;
    let (gone, moved) = (before[0].item.id.clone(), before[1].item.id.clone());
    edge.delete(name("pictures"), vec![gone.clone()]).await.expect("deleted");
    let Target::Vector(wanted) = &search.target else { unreachable!("it is of a vector") };
    let away = wanted.values().iter().map(|x| -x).collect();
    let away = Embedding::new(away).expect("a direction");
    let point = Point { item: item(moved.as_str()), vector: away };
    edge.upsert(name("pictures"), vec![point]).await.expect("moved");
    let best = Point { item: item("best"), vector: wanted.clone() };
    edge.upsert(name("pictures"), vec![best]).await.expect("stored");

    let after = found().await;
    assert_eq!(after.len(), 10, "a full page");
    assert_eq!(after[0].item.id, id("best"), "the new one is there");
    assert!(after.iter().all(|hit| hit.item.id != gone), "the deleted one is not");
    assert!(after.iter().all(|hit| hit.item.id != moved), "nor the one that moved away");
    edge.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn graphs_are_built_anew_where_many_points_are_gone() {
    let folder = folder();
    let mut pictures = Pictures::new();
    let (edge, exact) = stores(&folder, &mut pictures).await;
    assert!(!optimize(&edge, "pictures").await, "there is nothing to build");
    let gone: Vec<_> = (0..STORED).step_by(2).map(|number| id(&format!("p{number}"))).collect();
    for store in [&edge as &dyn VectorStore, &exact] {
        store.delete(name("pictures"), gone.clone()).await.expect("deleted");
    }
    let shard = edge.catalogue.shard(&name("pictures")).expect("there");
    assert!(shard.wants_optimizing(), "deletions count");
    assert!(optimize(&edge, "pictures").await, "half of the graph is holes");
    let searches: Vec<_> = (0..40).map(|_| pictures.search(&Filter::default(), 10)).collect();
    let recall = recall(&edge, &exact, &searches).await;
    assert!(recall >= 0.95, "{recall} of the truth");
    edge.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn short_forms_of_vectors_find_nearly_all_of_the_truth() {
    let folder = folder();
    let mut pictures = Pictures::new();
    let (edge, exact) = stores(&folder, &mut pictures).await;
    let shard = edge.catalogue.shard(&name("pictures")).expect("there");
    // A bit per float says little where there are 32.
    for (quantization, is_short, least) in [
        (Quantization::Scalar, true, 0.95),
        (Quantization::Binary, true, 0.5),
        (Quantization::None, false, 0.95),
    ] {
        let change =
            VectorIndexChange { quantization: Some(quantization), ..VectorIndexChange::default() };
        edge.set_vector_index(name("pictures"), change).await.expect("changed");
        assert!(shard.wants_optimizing(), "the graph is to be changed");
        assert!(optimize(&edge, "pictures").await, "and is");
        assert_eq!(shard.graph_in_engine(), Ok((16, 100, is_short)), "{quantization:?}");
        for filter in [Filter::default(), width_below(150.0)] {
            let searches: Vec<_> = (0..40).map(|_| pictures.search(&filter, 10)).collect();
            let recall = recall(&edge, &exact, &searches).await;
            assert!(recall >= least, "{quantization:?}: {recall} of the truth");
        }
    }
    edge.close().await;
}
