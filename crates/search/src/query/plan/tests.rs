use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::filter::{Field, Filter};
use crate::item::{Metadata, Scalar, Value};
use crate::query::{Fields, Part};
use crate::store::contract::{DIMENSION, item, name, new_collection};
use crate::store::exact::Exact;
use crate::store::index::{FieldIndex, Indexes, Kind};
use crate::store::{NewCollection, Point, VectorStore};

fn unit(values: [f32; DIMENSION]) -> Embedding {
    Embedding::new(values.to_vec()).expect("a direction")
}

fn request(way: Way) -> Request {
    Request {
        collection: name("pets"),
        query: Vec::<Part>::new(),
        way,
        filter: Filter::default(),
        limit: 10,
        offset: 0,
        threshold: None,
        exact: false,
        effort: None,
        fields: Fields::default(),
        vectors: false,
    }
}

fn words(weight: f32, query_weight: f32) -> Way {
    Way::Words { words: vec!["cat".to_owned()], weight, query_weight }
}

fn field() -> Field {
    Field::Metadata("f".to_owned())
}

/// A store with items that have a direction and texts or numbers in the field `f`.
async fn store(kind: Kind, points: Vec<(String, [f32; DIMENSION], Vec<Scalar>)>) -> Exact {
    let store = Exact::default();
    let indexes = Indexes::new([FieldIndex { field: field(), kind }]);
    let word_fields = vec![field()];
    let new = NewCollection { indexes, word_fields, ..new_collection("pets") };
    store.create(new).await.expect("made");
    let points = points.into_iter().map(|(id, vector, values)| {
        let mut item = item(&id);
        item.metadata = Metadata::from([("f".to_owned(), Value::Many(values))]);
        Point { item, vector: unit(vector) }
    });
    store.upsert(name("pets"), points.collect()).await.expect("stored");
    store
}

async fn found(store: &dyn VectorStore, request: &Request, vector: Option<&Embedding>) -> Found {
    let reply = match ask(request, vector, Vec::new()) {
        Ask::Searches(searches) => {
            Reply::Hits(store.search(name("pets"), searches).await.expect("an answer"))
        }
        Ask::Groups(grouped) => {
            Reply::Groups(store.group(name("pets"), grouped).await.expect("an answer"))
        }
    };
    finish(request, vector, reply).await.expect("finished")
}

async fn hits(
    store: &dyn VectorStore,
    request: &Request,
    vector: Option<&Embedding>,
) -> Vec<Ranked> {
    match found(store, request, vector).await {
        Found::Hits(hits) => hits,
        Found::Groups { groups, .. } => panic!("hits, not groups: {groups:?}"),
    }
}

fn ids(hits: &[Ranked]) -> Vec<&str> {
    hits.iter().map(|hit| hit.item.id.as_str()).collect()
}

/// Two cats by name that point elsewhere, and two others on the way.
async fn captions() -> Exact {
    let text = |text: &str| vec![Scalar::String(text.to_owned())];
    let points = vec![
        ("near".to_owned(), [1.0, 0.0, 0.0, 0.0], text("a dog")),
        ("both".to_owned(), [1.0, 0.2, 0.0, 0.0], text("a cat on a wall")),
        ("named".to_owned(), [-1.0, 1.0, 0.0, 0.0], text("a cat")),
        ("far".to_owned(), [0.0, 0.0, 1.0, 0.0], text("a wall")),
    ];
    store(Kind::Keyword, points).await
}

#[tokio::test]
async fn words_alone_rank_by_words_alone() {
    let store = captions().await;
    let hits = hits(&store, &request(words(1.0, 1.0)), None).await;
    assert_eq!(ids(&hits), ["named", "both"], "the shorter text first");
    assert!(hits.iter().all(|hit| hit.score == 0.0 && hit.fused_score == 0.0), "no other scores");
    assert!(hits[0].word_score > hits[1].word_score, "in order of this one");
    let second = Request { offset: 1, limit: 1, ..request(words(1.0, 1.0)) };
    assert_eq!(ids(&self::hits(&store, &second, None).await), ["both"], "a page of them");
}

#[tokio::test]
async fn words_and_a_query_are_fused() {
    let store = captions().await;
    let along = unit([1.0, 0.0, 0.0, 0.0]);
    let along = Some(&along);
    let all = hits(&store, &request(words(1.0, 1.0)), along).await;
    // By direction: near, both, far, named. By words: named, both.
    assert_eq!(ids(&all), ["both", "named", "near", "far"], "what is good by both is first");
    let fused = (1.0 / 62.0 + 1.0 / 62.0) as f32;
    assert_eq!(all[0].fused_score, fused, "second twice");
    assert!(all[0].word_score > 0.0 && all[2].word_score == 0.0, "word scores where found");
    let cosine = -std::f32::consts::FRAC_1_SQRT_2;
    assert!((all[1].score - cosine).abs() < 1e-6, "the score is the similarity: {all:?}");

    let by_query = hits(&store, &request(words(0.01, 10.0)), along).await;
    assert_eq!(ids(&by_query)[0], "near", "the query counts nearly alone");
    let by_words = hits(&store, &request(words(10.0, 0.01)), along).await;
    assert_eq!(ids(&by_words)[..2], ["named", "both"], "the words count nearly alone");
    let page = Request { offset: 1, limit: 2, ..request(words(1.0, 1.0)) };
    assert_eq!(ids(&hits(&store, &page, along).await), ["named", "near"], "a page of them");
}

#[tokio::test]
async fn the_threshold_is_on_similarity_however_an_item_was_found() {
    let store = captions().await;
    let along = unit([1.0, 0.0, 0.0, 0.0]);
    let near = Request { threshold: Some(-0.5), ..request(words(10.0, 1.0)) };
    let found = hits(&store, &near, Some(&along)).await;
    assert_eq!(ids(&found), ["both", "near", "far"], "without what only its words speak for");
    let all = hits(&store, &request(words(10.0, 1.0)), Some(&along)).await;
    let both = |hits: &[Ranked]| hits.iter().find(|hit| hit.item.id.as_str() == "both").cloned();
    assert_eq!(both(&found), both(&all), "the ranks of the others are what they were");
}

#[tokio::test]
async fn what_only_words_find_beyond_the_depth_has_its_similarity() {
    let near = (0..200).map(|i| {
        let slope = i as f32 / 1_000.0;
        (format!("near-{i:03}"), [1.0, slope, 0.0, 0.0], vec![])
    });
    let named = ("named".to_owned(), [0.6, 0.0, 0.8, 0.0], vec![Scalar::String("cat".to_owned())]);
    let store = store(Kind::Keyword, near.chain([named]).collect()).await;
    let along = unit([1.0, 0.0, 0.0, 0.0]);
    let request = Request { limit: 2, ..request(words(2.0, 1.0)) };
    let found = hits(&store, &request, Some(&along)).await;
    assert_eq!(ids(&found), ["named", "near-000"], "it is not among the first 128 by direction");
    assert!((found[0].score - 0.6).abs() < 1e-6, "{found:?}");
}

#[tokio::test]
async fn diverse_hits_can_be_paged_through() {
    let points = [[1.0, 0.1, 0.0, 0.0], [1.0, 0.11, 0.0, 0.0], [1.0, -0.4, 0.0, 0.0]];
    let named = ["a", "twin", "other"].map(str::to_owned);
    let points = named.into_iter().zip(points).map(|(id, vector)| (id, vector, vec![]));
    let store = store(Kind::Keyword, points.collect()).await;
    let along = unit([1.0, 0.0, 0.0, 0.0]);
    let way = || Way::Diverse { weight: 0.5, candidates: 3 };
    let all = hits(&store, &request(way()), Some(&along)).await;
    assert_eq!(ids(&all), ["a", "other", "twin"], "the twin comes last");
    assert!(all[1].score < all[2].score, "with the scores that they have");
    let page = Request { offset: 1, limit: 1, ..request(way()) };
    assert_eq!(ids(&hits(&store, &page, Some(&along)).await), ["other"], "the second");
    let few = Request { limit: 2, ..request(Way::Diverse { weight: 0.5, candidates: 2 }) };
    assert_eq!(ids(&hits(&store, &few, Some(&along)).await), ["a", "twin"], "of the nearest two");
    let near = Request { threshold: Some(0.95), ..request(way()) };
    assert_eq!(ids(&hits(&store, &near, Some(&along)).await), ["a", "twin"], "of what is near");
}

#[tokio::test]
async fn many_candidates_are_chosen_from_off_the_way() {
    let points = (0..1_000).map(|i| {
        let angle = i as f32;
        (format!("{i:04}"), [1.0, angle.sin(), angle.cos(), 0.1], vec![])
    });
    let store = store(Kind::Keyword, points.collect()).await;
    let along = unit([1.0, 0.0, 0.0, 0.0]);
    let way = Way::Diverse { weight: 0.0, candidates: 1_000 };
    let request = |way| Request { limit: 1_000, ..request(way) };
    let diverse = hits(&store, &request(way), Some(&along)).await;
    let plain = hits(&store, &request(Way::Nearest), Some(&along)).await;
    assert_eq!(diverse.len() * diverse.len() * DIMENSION, MAX_INLINE_PRODUCTS, "the bound");
    assert_eq!(ids(&diverse), ids(&plain), "without weight it is the plain order");
}

fn points() -> impl Strategy<Value = Vec<(f32, f32, Vec<u8>)>> {
    let values = prop::collection::vec(0u8..5, 0..3);
    prop::collection::vec((0.1f32..1.0, -1.0f32..1.0, values), 0..30)
}

proptest! {
    #[test]
    fn groups_are_what_sorting_everything_into_heaps_gives(
        points in points(),
        limit in 1usize..6,
        size in 1usize..4,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let (grouped, plain) = runtime.block_on(async {
            let points = points.iter().enumerate().map(|(i, (x, y, values))| {
                let values = values.iter().map(|value| Scalar::Number(f64::from(*value)));
                (format!("{i:02}"), [*x, *y, 0.1, 0.0], values.collect())
            });
            let store = store(Kind::Integer, points.collect()).await;
            let along = unit([1.0, 0.0, 0.0, 0.0]);
            let way = Way::Groups { field: field(), size };
            let grouped = Request { limit, ..request(way) };
            let grouped = found(&store, &grouped, Some(&along)).await;
            let all = Request { limit: 1_000, ..request(Way::Nearest) };
            (grouped, hits(&store, &all, Some(&along)).await)
        });

        // Every hit onto the heap of each of its values; a heap has the rank of its first.
        let mut heaps: BTreeMap<u64, (usize, Vec<String>)> = BTreeMap::new();
        for (rank, hit) in plain.iter().enumerate() {
            let value = field().of(&hit.item);
            for scalar in value.iter().flat_map(Value::elements) {
                let Scalar::Number(number) = scalar else { panic!("a number: {scalar:?}") };
                let heap = heaps.entry(*number as u64).or_insert((rank, Vec::new()));
                let id = hit.item.id.to_string();
                if !heap.1.contains(&id) {
                    heap.1.push(id);
                }
            }
        }
        let Found::Groups { groups, .. } = grouped else { panic!("groups") };
        let firsts: Vec<_> = groups.iter().map(|(_, hits)| hits[0].score).collect();
        prop_assert!(firsts.is_sorted_by(|a, b| a >= b), "the best first: {:?}", firsts);
        prop_assert_eq!(groups.len(), heaps.len().min(limit), "as many as there are");
        for (value, hits) in &groups {
            let Scalar::Number(number) = value else { panic!("a number: {value:?}") };
            let (_, heap) = &heaps[&(*number as u64)];
            let own: Vec<_> = hits.iter().map(|hit| hit.item.id.to_string()).collect();
            prop_assert_eq!(&own, &heap[..heap.len().min(size)], "of {}", number);
        }
    }
}
