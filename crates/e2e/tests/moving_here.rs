//! What people had in the systems that they move here from, each under the name that it went by
//! there: over three real processes, the model that clipmesh brings, and its gallery of pictograms.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clipmesh_e2e::clients::{Clients, acknowledged, cosine, ids, new_item, query, vector};
use clipmesh_e2e::eventually;
use clipmesh_e2e::fields::{condition, is, list, metadata, must, number, number_of, text};
use clipmesh_e2e::sandbox::{Attached, Sandbox, Service, Shared};
use clipmesh_proto::code;
use clipmesh_proto::search::v1 as search;
use clipmesh_proto::search::v1::condition::Test;
use clipmesh_proto::search::v1::query::Kind;
use futures::StreamExt as _;
use image::ImageFormat;
use prost_types::FieldMask;
use prost_types::value::Kind as ValueKind;
use serde::Deserialize;
use tonic::Code;

/// All pictures of the gallery, by name; nothing is written to it.
const GALLERY: &str = "gallery";

/// How long the mesh may take for what it does beside its answers.
const PATIENCE: Duration = Duration::from_secs(60);

static SANDBOX: Shared = Shared::new();

/// A line of the gallery's `metadata.jsonl`.
#[derive(Clone, Debug, Deserialize)]
struct Picture {
    file_name: String,
    kinds: Vec<String>,
    background: String,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/images/gallery")
}

fn bytes(file_name: &str) -> Bytes {
    fs::read(folder().join(file_name)).expect("a picture of the gallery").into()
}

/// The gallery's pictures, in the order of their names.
fn pictures() -> Vec<Picture> {
    let lines = fs::read_to_string(folder().join("metadata.jsonl")).expect("its metadata");
    let parse = |line| serde_json::from_str(line).expect("a line of it");
    lines.lines().map(parse).collect()
}

/// The mesh with the gallery in it, shared by the tests of this file.
async fn attach() -> (Attached, Clients) {
    let sandbox = SANDBOX.attach_or_start(async || {
        let sandbox = Sandbox::builder().model("tiny").start().await?;
        fill(&mut sandbox.clients()?).await;
        Ok(sandbox)
    });
    let sandbox = sandbox.await.expect("the mesh starts");
    let clients = sandbox.clients().expect("the gateway listens");
    (sandbox, clients)
}

/// Pictures belong to one of two projects, and each has a number.
async fn fill(clients: &mut Clients) {
    let indexes = [
        ("metadata.project", search::FieldIndexKind::Keyword),
        ("metadata.kinds", search::FieldIndexKind::Keyword),
        ("metadata.background", search::FieldIndexKind::Keyword),
        ("metadata.number", search::FieldIndexKind::Integer),
    ];
    create(clients, GALLERY, &indexes).await;
    let requests = pictures().into_iter().enumerate().map(|(index, picture)| {
        let kinds: Vec<&str> = picture.kinds.iter().map(String::as_str).collect();
        let fields = [
            ("project", text(if index % 2 == 0 { "north" } else { "south" })),
            ("kinds", list(&kinds)),
            ("background", text(&picture.background)),
            ("number", number(((index * 7) % 50) as f64)),
        ];
        let item = new_item(&picture.file_name, bytes(&picture.file_name));
        search::IndexItemsRequest {
            collection: GALLERY.to_owned(),
            key: index as u64,
            item: Some(search::NewItem { metadata: metadata(fields), ..item }),
        }
    });
    let requests: Vec<_> = requests.collect();
    let mut acks = clients.index_stream(futures::stream::iter(requests)).await.expect("a stream");
    while let Some(ack) = acks.next().await {
        acknowledged(ack.expect("the stream goes on")).1.expect("a good picture is indexed");
    }
}

async fn create(clients: &mut Clients, name: &str, indexes: &[(&str, search::FieldIndexKind)]) {
    let index = |(key, kind): &(&str, search::FieldIndexKind)| search::FieldIndex {
        key: (*key).to_owned(),
        kind: (*kind).into(),
        is_built_in: false,
    };
    let request = search::CreateCollectionRequest {
        name: name.to_owned(),
        field_indexes: indexes.iter().map(index).collect(),
        ..search::CreateCollectionRequest::default()
    };
    clients.collections.create_collection(request).await.expect("a new collection");
}

async fn find(clients: &mut Clients, request: search::SearchRequest) -> search::SearchResponse {
    clients.search.search(request).await.expect("an answer").into_inner()
}

fn item(hit: &search::Hit) -> &search::Item {
    hit.item.as_ref().expect("the item")
}

fn strings(item: &search::Item, name: &str) -> Vec<String> {
    let value = item.metadata.as_ref().and_then(|fields| fields.fields.get(name)?.kind.clone());
    let values = match value {
        Some(ValueKind::ListValue(list)) => list.values,
        Some(kind) => vec![prost_types::Value { kind: Some(kind) }],
        None => Vec::new(),
    };
    let string = |value: prost_types::Value| match value.kind {
        Some(ValueKind::StringValue(text)) => text,
        other => panic!("`{name}` holds strings, not {other:?}"),
    };
    values.into_iter().map(string).collect()
}

#[tokio::test]
async fn knn_within_a_project_with_predictions_scores_and_ids() {
    let (_sandbox, mut clients) = attach().await;
    let question = search::Query { kind: Some(Kind::Image(bytes("zebra-on-grey.webp"))) };
    let project = is("metadata.project", "north");
    let request = search::ClassifyRequest {
        collection: GALLERY.to_owned(),
        query: Some(question.clone()),
        field: "metadata.kinds".to_owned(),
        filter: Some(project.clone()),
        k: Some(7),
        ..search::ClassifyRequest::default()
    };
    let answer = clients.search.classify(request).await.expect("classified").into_inner();

    // What the votes must be, from the plain search for the same neighbours.
    let request = search::SearchRequest {
        collection: GALLERY.to_owned(),
        query: Some(question),
        filter: Some(project),
        limit: Some(7),
        ..search::SearchRequest::default()
    };
    let nearest = find(&mut clients, request).await;
    assert_eq!(nearest.hits.len(), 7, "as many as vote");
    let mut votes: BTreeMap<String, (f32, Vec<String>)> = BTreeMap::new();
    for hit in &nearest.hits {
        assert_eq!(strings(item(hit), "project"), ["north"], "no other project votes");
        for kind in strings(item(hit), "kinds") {
            let (score, voters) = votes.entry(kind).or_default();
            *score += hit.score.max(0.0);
            voters.push(item(hit).id.clone());
        }
    }
    let all: f32 = votes.values().map(|(score, _)| score).sum();
    assert_eq!(answer.predictions.len(), votes.len(), "every label: {answer:?}");
    for prediction in &answer.predictions {
        let label = prediction.label.clone().and_then(|value| value.kind);
        let Some(ValueKind::StringValue(label)) = label else { panic!("a label: {prediction:?}") };
        let (score, voters) = &votes[&label];
        assert!((prediction.score - score / all).abs() < 1e-4, "`{label}`: {prediction:?}");
        let ids: Vec<&str> = prediction.neighbours.iter().map(|voter| voter.id.as_str()).collect();
        assert_eq!(ids, *voters, "`{label}` is told with who voted for it, nearest first");
    }
    let scores: Vec<f32> = answer.predictions.iter().map(|prediction| prediction.score).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b), "the most votes first: {scores:?}");
    assert!((scores.iter().sum::<f32>() - 1.0).abs() < 1e-4, "all votes: {scores:?}");
    let best = answer.predictions[0].label.clone();
    assert_eq!(best, Some(text("animal")), "a zebra is one: {answer:?}");
}

#[tokio::test]
async fn search_with_a_threshold_and_metadata_switched_on_or_off() {
    let (_sandbox, mut clients) = attach().await;
    let whole = search::SearchRequest {
        limit: Some(50),
        ..query(GALLERY, Kind::Image(bytes("owl-on-blue.webp")))
    };
    let all = find(&mut clients, whole.clone()).await;
    assert_eq!(item(&all.hits[0]).id, "owl-on-blue.webp", "itself first");
    assert!(all.hits.iter().all(|hit| item(hit).metadata.is_some()), "metadata is on");
    let threshold = (all.hits[9].score + all.hits[10].score) / 2.0;
    let best = search::SearchRequest { score_threshold: Some(threshold), ..whole.clone() };
    let best = find(&mut clients, best).await;
    assert_eq!(best.hits, all.hits[..10], "what scores less is left out, all else is the same");

    let fields = Some(FieldMask { paths: vec!["filename".to_owned()] });
    let bare = find(&mut clients, search::SearchRequest { fields, ..whole }).await;
    assert_eq!(ids(&bare), ids(&all), "the same items");
    for hit in &bare.hits {
        let metadata = item(hit).metadata.clone().unwrap_or_default();
        assert!(metadata.fields.is_empty(), "metadata is off: {hit:?}");
        assert_eq!(item(hit).width, 0, "and so is what else was not asked for: {hit:?}");
    }
}

#[tokio::test]
async fn index_with_id_tags_and_source() {
    let (_sandbox, mut clients) = attach().await;
    create(&mut clients, "tagged", &[]).await;
    let new = search::NewItem {
        uri: "https://shop.example/owl.webp".to_owned(),
        metadata: metadata([("tags", list(&["bird", "blue"])), ("source", text("import"))]),
        ..new_item("sku/7", bytes("owl-on-blue.webp"))
    };
    clients.index("tagged", new.clone()).await.expect("indexed");
    let (stored, _) = clients.get_item("tagged", "sku/7").await.expect("it is there by its id");
    assert_eq!((&stored.uri, &stored.metadata), (&new.uri, &new.metadata), "as it was given");
    for (key, value, expected) in [
        ("metadata.tags", "bird", 1),
        ("metadata.tags", "red", 0),
        ("metadata.source", "import", 1),
        ("uri", "https://shop.example/owl.webp", 1),
    ] {
        let request = search::SearchRequest {
            filter: Some(is(key, value)),
            ..query("tagged", Kind::Text("an owl".to_owned()))
        };
        let found = find(&mut clients, request).await;
        assert_eq!(found.hits.len(), expected, "{key} = {value}");
    }
}

#[tokio::test]
async fn stats() {
    let (_sandbox, mut clients) = attach().await;
    create(&mut clients, "stats", &[]).await;
    let before = stats_of(&mut clients, "stats").await;
    assert_eq!((before.item_count, before.vector_bytes), (0, 0), "nothing is there");
    for name in ["owl-on-blue.webp", "owl-on-red.webp"] {
        clients.index("stats", new_item(name, bytes(name))).await.expect("indexed");
    }
    let (_, values) = clients.get_item("stats", "owl-on-red.webp").await.expect("there");
    for _ in 0..3 {
        clients.find("stats", Kind::Image(bytes("owl-on-black.webp"))).await.expect("found");
    }
    let after = stats_of(&mut clients, "stats").await;
    assert_eq!(after.item_count, 2, "how many there are");
    assert_eq!(after.vector_bytes, 2 * 4 * values.len() as u64, "what their vectors take");
    assert!(after.generation > before.generation, "it has changed: {before:?}, {after:?}");
    let cache = after.result_cache.expect("how the cache does");
    assert_eq!((cache.hits, cache.misses), (2, 1), "asked once, answered thrice: {cache:?}");
    assert!((cache.hit_rate - 2.0 / 3.0).abs() < 1e-6, "two of three: {cache:?}");
    let ready = eventually("the index is up to date", PATIENCE, async || {
        let stats = stats_of(&mut clients, "stats").await;
        let state = stats.index_state();
        if state == search::IndexState::Ready { Ok(()) } else { Err(format!("{state:?}")) }
    });
    ready.await.expect("two items are indexed soon");
}

async fn stats_of(clients: &mut Clients, name: &str) -> search::GetCollectionStatsResponse {
    let request = search::GetCollectionStatsRequest { name: name.to_owned() };
    clients.collections.get_collection_stats(request).await.expect("counted").into_inner()
}

#[tokio::test]
async fn nothing_found_is_an_empty_list() {
    let (_sandbox, mut clients) = attach().await;
    let owl = || Kind::Image(bytes("owl-on-blue.webp"));
    let (_, values) = clients.get_item(GALLERY, "owl-on-blue.webp").await.expect("there");
    let opposite = vector(values.iter().map(|value| -value).collect());
    let unlike = search::SearchRequest { score_threshold: Some(0.99), ..query(GALLERY, opposite) };
    assert_eq!(find(&mut clients, unlike).await.hits, [], "nothing is similar");
    let nowhere = Some(is("metadata.project", "nowhere"));
    let filtered = search::SearchRequest { filter: nowhere.clone(), ..query(GALLERY, owl()) };
    assert_eq!(find(&mut clients, filtered.clone()).await.hits, [], "nothing passes");

    let collection = || GALLERY.to_owned();
    let request = search::ListItemsRequest {
        collection: collection(),
        filter: nowhere.clone(),
        ..search::ListItemsRequest::default()
    };
    let listed = clients.items.list_items(request).await.expect("listed").into_inner();
    assert_eq!((listed.items, listed.next_page_token), (vec![], String::new()), "no page");
    let request = search::SampleItemsRequest {
        collection: collection(),
        filter: nowhere.clone(),
        ..search::SampleItemsRequest::default()
    };
    let drawn = clients.items.sample_items(request).await.expect("drawn").into_inner();
    assert_eq!(drawn.items, [], "nothing to draw");
    let request = search::ClassifyRequest {
        collection: collection(),
        query: filtered.query,
        field: "metadata.kinds".to_owned(),
        filter: nowhere.clone(),
        ..search::ClassifyRequest::default()
    };
    let voted = clients.search.classify(request).await.expect("classified").into_inner();
    assert_eq!(voted.predictions, [], "nobody votes");
    let request = search::FacetRequest {
        collection: collection(),
        key: "metadata.kinds".to_owned(),
        filter: nowhere.clone(),
        limit: None,
    };
    let facet = clients.search.facet(request).await.expect("counted").into_inner();
    assert_eq!(facet.values, [], "no value");
    for kind in [search::DuplicateKind::Exact, search::DuplicateKind::Near] {
        let groups = duplicates(&mut clients, GALLERY, kind, None, nowhere.clone()).await;
        assert_eq!(groups, Vec::<BTreeSet<String>>::new(), "{kind:?}: no group");
    }
}

/// The ids of each group of duplicates.
async fn duplicates(
    clients: &mut Clients,
    collection: &str,
    kind: search::DuplicateKind,
    score_threshold: Option<f32>,
    filter: Option<search::Filter>,
) -> Vec<BTreeSet<String>> {
    let request = search::FindDuplicatesRequest {
        collection: collection.to_owned(),
        kind: kind.into(),
        filter,
        score_threshold,
        ..search::FindDuplicatesRequest::default()
    };
    groups(clients, request).await
}

async fn groups(
    clients: &mut Clients,
    request: search::FindDuplicatesRequest,
) -> Vec<BTreeSet<String>> {
    let mut stream = clients.search.find_duplicates(request).await.expect("opened").into_inner();
    let mut groups = Vec::new();
    while let Some(message) = stream.next().await {
        // One that has none names fields without an index.
        let Some(group) = message.expect("the stream goes on").group else {
            continue;
        };
        let others = group.duplicates.into_iter().filter_map(|duplicate| duplicate.item);
        let items = group.representative.into_iter().chain(others);
        groups.push(items.map(|item| item.id).collect());
    }
    groups
}

#[tokio::test]
async fn a_store_that_is_down_is_unavailable() {
    // Port 1 is of a service that nobody runs.
    let mesh = Sandbox::builder().setting(Service::Search, "store.kind", "qdrant").setting(
        Service::Search,
        "store.qdrant.url",
        "http://127.0.0.1:1",
    );
    let sandbox = mesh.start().await.expect("it waits for its store, and starts without");
    let mut clients = sandbox.clients().expect("the gateway listens");
    let collections = clients.collections.clone();
    let list = search::ListCollectionsRequest::default();
    let listed = collections.clone().list_collections(list).await;
    let found = clients.find(GALLERY, vector(vec![1.0; 32])).await;
    for (what, status) in [
        ("making", clients.create_collection("new").await.err()),
        ("listing", listed.err()),
        ("counting", clients.count(GALLERY).await.err()),
        ("getting", clients.get_item(GALLERY, "a").await.err()),
        ("indexing", clients.index(GALLERY, new_item("a", bytes("owl-on-blue.webp"))).await.err()),
        ("searching", found.err()),
    ] {
        let status = status.unwrap_or_else(|| panic!("{what}: answered without a store"));
        assert_eq!(status.code(), Code::Unavailable, "{what}: {status:?}");
        let retry = code::retry_after(&status);
        assert!(retry.is_some(), "{what}: it says when to try again: {status:?}");
    }
}

#[tokio::test]
async fn list_with_page_size_sort_and_filter() {
    let (_sandbox, mut clients) = attach().await;
    let filter = search::Filter {
        must: vec![condition("metadata.background", Test::Match(text("red")))],
        must_not: vec![condition("metadata.kinds", Test::Match(text("animal")))],
        ..search::Filter::default()
    };
    let mut listed = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = search::ListItemsRequest {
            collection: GALLERY.to_owned(),
            filter: Some(filter.clone()),
            page_size: 7,
            page_token,
            order_by: "metadata.number desc".to_owned(),
        };
        let page = clients.items.list_items(request).await.expect("listed").into_inner();
        assert_eq!(page.unindexed_fields, Vec::<String>::new(), "both fields have an index");
        let is_last = page.next_page_token.is_empty();
        assert!(page.items.len() == 7 || is_last, "pages are full: {}", page.items.len());
        listed.extend(page.items);
        page_token = page.next_page_token;
        if is_last {
            break;
        }
    }
    let numbers: Vec<f64> = listed.iter().filter_map(|item| number_of(item, "number")).collect();
    assert_eq!(numbers.len(), listed.len(), "each has a number");
    assert!(numbers.is_sorted_by(|a, b| a >= b), "the greatest first: {numbers:?}");
    let pictures = pictures().into_iter();
    let expected: BTreeSet<String> = pictures
        .filter(|picture| picture.background == "red")
        .filter(|picture| !picture.kinds.contains(&"animal".to_owned()))
        .map(|picture| picture.file_name)
        .collect();
    assert!(expected.len() > 7, "more than a page: {expected:?}");
    let found: BTreeSet<String> = listed.iter().map(|item| item.id.clone()).collect();
    assert_eq!((found.len(), found), (listed.len(), expected), "each that passes, once");
}

#[tokio::test]
async fn a_random_item() {
    let (_sandbox, mut clients) = attach().await;
    let request = |size, seed| search::SampleItemsRequest {
        collection: GALLERY.to_owned(),
        filter: Some(is("metadata.project", "south")),
        size,
        seed,
    };
    let mut draw = async |size, seed| {
        let drawn = clients.items.sample_items(request(size, seed)).await;
        let drawn = drawn.expect("drawn").into_inner();
        let south = drawn.items.iter().all(|item| strings(item, "project") == ["south"]);
        assert!(south, "only those that pass: {drawn:?}");
        let ids: Vec<String> = drawn.items.into_iter().map(|item| item.id).collect();
        (ids, drawn.seed)
    };
    let (one, seed) = draw(None, None).await;
    assert_eq!(one.len(), 1, "one by default");
    assert_eq!(draw(None, Some(seed)).await.0, one, "its seed draws it again");
    let (many, _) = draw(Some(20), Some(3)).await;
    let distinct: BTreeSet<&String> = many.iter().collect();
    assert_eq!(distinct.len(), 20, "no two the same: {many:?}");
    let mut seen = BTreeSet::new();
    for seed in 0..20 {
        seen.extend(draw(Some(1), Some(seed)).await.0);
    }
    // Twenty draws of 152 are all alike once in 152^19 worlds.
    assert!(seen.len() > 5, "by chance: {seen:?}");
}

#[tokio::test]
async fn duplicates_with_threshold_and_limit() {
    let (_sandbox, mut clients) = attach().await;
    create(&mut clients, "twice", &[]).await;
    let encoded = |name: &str, format| {
        let picture = image::load_from_memory(&bytes(name)).expect("a picture").to_rgb8();
        clipmesh_e2e::pictures::encode(&picture, format)
    };
    let (owl, pizza) = ("owl-on-blue.webp", "pizza-on-white.webp");
    let owl_png = encoded(owl, ImageFormat::Png);
    for (id, image) in [
        ("owl.png", owl_png.clone()),
        ("owl again.png", owl_png),
        ("owl.bmp", encoded(owl, ImageFormat::Bmp)),
        ("owl.jpg", encoded(owl, ImageFormat::Jpeg)),
        ("pizza.png", encoded(pizza, ImageFormat::Png)),
        ("pizza.tiff", encoded(pizza, ImageFormat::Tiff)),
        ("key.webp", bytes("key-on-green.webp")),
    ] {
        clients.index("twice", new_item(id, image)).await.expect("indexed");
    }
    let set = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<BTreeSet<_>>();
    let kind = search::DuplicateKind::Exact;
    let exact = duplicates(&mut clients, "twice", kind, None, None).await;
    let owls = set(&["owl.png", "owl again.png", "owl.bmp"]);
    let pizzas = set(&["pizza.png", "pizza.tiff"]);
    assert_eq!(exact, [owls, pizzas], "the same bytes or pixels, the largest group first");

    let vectors = vectors(&mut clients, "twice").await;
    let jpeg = cosine(&vectors["owl.png"], &vectors["owl.jpg"]);
    let between = (jpeg + 1.0) / 2.0;
    let kind = search::DuplicateKind::Near;
    for threshold in [-1.0, 0.5, jpeg - 1e-3, between] {
        let near = duplicates(&mut clients, "twice", kind, Some(threshold), None).await;
        let found: BTreeSet<_> = near.into_iter().collect();
        assert_eq!(found, components(&vectors, threshold), "threshold {threshold}");
    }
    let request = search::FindDuplicatesRequest {
        collection: "twice".to_owned(),
        kind: kind.into(),
        score_threshold: Some(between),
        limit: Some(1),
        ..search::FindDuplicatesRequest::default()
    };
    let limited = groups(&mut clients, request).await;
    assert_eq!(limited.len(), 1, "no more than asked for: {limited:?}");
    assert!(limited[0].contains("owl.bmp"), "the largest: {limited:?}");
}

async fn vectors(clients: &mut Clients, collection: &str) -> BTreeMap<String, Vec<f32>> {
    let mut vectors = BTreeMap::new();
    for item in clients.list_all(collection, 0).await.expect("listed") {
        let (_, values) = clients.get_item(collection, &item.id).await.expect("there");
        vectors.insert(item.id, values);
    }
    vectors
}

/// Groups in which each is near another, by comparing all with all.
fn components(vectors: &BTreeMap<String, Vec<f32>>, threshold: f32) -> BTreeSet<BTreeSet<String>> {
    let mut groups: Vec<BTreeSet<String>> = Vec::new();
    for (id, values) in vectors {
        let is_near = |other: &String| cosine(values, &vectors[other]) >= threshold;
        let (near, far) = groups.into_iter().partition(|group| group.iter().any(is_near));
        let near: Vec<BTreeSet<String>> = near;
        groups = far;
        groups.push(near.into_iter().flatten().chain([id.clone()]).collect());
    }
    groups.into_iter().filter(|group| group.len() > 1).collect()
}

#[tokio::test]
async fn collections_create_list_delete_and_clear_cache() {
    let (_sandbox, mut clients) = attach().await;
    for name in ["shelf-a", "shelf-b"] {
        create(&mut clients, name, &[]).await;
    }
    let shelves = async |clients: &mut Clients| {
        let request = search::ListCollectionsRequest::default();
        let listed = clients.collections.list_collections(request).await.expect("listed");
        let names = listed.into_inner().collections.into_iter().map(|collection| collection.name);
        names.filter(|name| name.starts_with("shelf-")).collect::<Vec<_>>()
    };
    assert_eq!(shelves(&mut clients).await, ["shelf-a", "shelf-b"], "created and listed");

    clients.index("shelf-a", new_item("owl", bytes("owl-on-blue.webp"))).await.expect("indexed");
    let mut collections = clients.collections.clone();
    let mut ask = async || {
        let found = clients.find("shelf-a", Kind::Text("an owl".to_owned())).await;
        let timing = found.expect("found").timing.expect("timing");
        (timing.result_cached, timing.embedding_cached)
    };
    assert!(!ask().await.0, "nobody has asked before");
    assert!(ask().await.0, "the answer is cached");
    let request = search::ClearCacheRequest { name: "shelf-a".to_owned() };
    collections.clear_cache(request).await.expect("cleared");
    assert_eq!(ask().await, (false, true), "the answer is forgotten, the vector of the words not");

    let request = search::DeleteCollectionRequest { name: "shelf-a".to_owned() };
    collections.delete_collection(request).await.expect("deleted");
    assert_eq!(shelves(&mut clients).await, ["shelf-b"], "deleted");
    let gone = clients.count("shelf-a").await.expect_err("its items went with it");
    assert_eq!(gone.code(), Code::NotFound, "{gone:?}");
}

#[tokio::test]
async fn search_by_a_ready_embedding_with_filter_limit_and_offset() {
    let (_sandbox, mut clients) = attach().await;
    let embedding = clients.embed_image(bytes("horse-on-pink.webp")).await.expect("embedded");
    let filter = Some(must(
        "metadata.number",
        Test::Range(search::Range { gte: Some(10.0), lt: Some(40.0), ..search::Range::default() }),
    ));
    let page = |limit, offset| search::SearchRequest {
        filter: filter.clone(),
        limit: Some(limit),
        offset,
        ..query(GALLERY, vector(embedding.clone()))
    };
    let all = find(&mut clients, page(30, 0)).await;
    assert_eq!(all.timing.expect("timing").embed_ms, 0.0, "nothing is embedded");
    let passes = |hit| number_of(item(hit), "number").is_some_and(|it| (10.0..40.0).contains(&it));
    assert!(all.hits.len() == 30 && all.hits.iter().all(passes), "all pass: {:?}", ids(&all));
    let expected = ranking(&mut clients, &embedding).await;
    assert_eq!(ids(&all), expected[..30], "the nearest of all that pass, in order");
    let part = find(&mut clients, page(10, 15)).await;
    assert_eq!(ids(&part), expected[15..25], "a part of the same ranking");
}

/// Ids of the gallery's items with numbers from 10 to 39 by their similarity, by comparing all.
async fn ranking(clients: &mut Clients, embedding: &[f32]) -> Vec<String> {
    let mut scored = Vec::new();
    for (index, picture) in pictures().into_iter().enumerate() {
        if (10..40).contains(&((index * 7) % 50)) {
            let found = clients.get_item(GALLERY, &picture.file_name).await;
            let (_, values) = found.expect("there");
            scored.push((cosine(embedding, &values), picture.file_name));
        }
    }
    scored.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    scored.into_iter().map(|(_, id)| id).collect()
}

#[tokio::test]
async fn has_this_product_a_vector_which_have_and_how_many() {
    let (_sandbox, mut clients) = attach().await;
    let mut check = async |ids: &[&str]| {
        let request = search::CheckItemsRequest {
            collection: GALLERY.to_owned(),
            ids: ids.iter().map(|id| (*id).to_owned()).collect(),
            content_hashes: Vec::new(),
        };
        clients.items.check_items(request).await.expect("checked").into_inner().ids
    };
    assert_eq!(check(&["owl-on-blue.webp"]).await, ["owl-on-blue.webp"], "this one has");
    assert_eq!(check(&["owl-on-mars.webp"]).await, [""; 0], "this one has none");
    let asked = ["pizza-on-white.webp", "nothing", "owl-on-blue.webp"];
    let expected = ["pizza-on-white.webp", "owl-on-blue.webp"];
    assert_eq!(check(&asked).await, expected, "those of several that have, in their order");

    let names: BTreeSet<String> = pictures().into_iter().map(|picture| picture.file_name).collect();
    let listed = clients.list_all(GALLERY, 100).await.expect("listed");
    let listed: BTreeSet<String> = listed.into_iter().map(|item| item.id).collect();
    assert_eq!(listed, names, "all that have");
    assert_eq!(clients.count(GALLERY).await.expect("counted"), names.len() as u64, "how many");
}

#[tokio::test]
async fn create_update_and_delete_the_vector_of_one_product() {
    let (_sandbox, mut clients) = attach().await;
    create(&mut clients, "products", &[]).await;
    let owl = clients.embed_image(bytes("owl-on-blue.webp")).await.expect("embedded");
    let pizza = clients.embed_image(bytes("pizza-on-white.webp")).await.expect("embedded");
    let product = |values: &[f32]| search::NewItem {
        id: "sku-1".to_owned(),
        vector: Some(search::VectorQuery {
            // Of any length.
            values: values.iter().map(|value| value * 3.0).collect(),
            ..search::VectorQuery::default()
        }),
        ..search::NewItem::default()
    };
    for (values, outcome) in [
        (&owl, search::IndexOutcome::Created),
        (&owl, search::IndexOutcome::Unchanged),
        (&pizza, search::IndexOutcome::Replaced),
    ] {
        let answer = clients.index("products", product(values)).await.expect("stored");
        assert_eq!(answer.outcome(), outcome, "compared with what was there");
        let (item, stored) = clients.get_item("products", "sku-1").await.expect("there");
        assert!(cosine(&stored, values) > 0.99999, "its vector is the one that was given");
        assert_eq!((item.width, item.content_hash.as_str()), (0, ""), "it has no picture");
        let found = clients.find("products", vector(values.clone())).await.expect("found");
        assert_eq!(ids(&found), ["sku-1"], "found by it");
        assert!(found.hits[0].score > 0.9999, "as near as can be: {found:?}");
    }
    let request = search::DeleteItemRequest {
        collection: "products".to_owned(),
        id: "sku-1".to_owned(),
        ..search::DeleteItemRequest::default()
    };
    clients.items.delete_item(request).await.expect("it was there");
    let gone = clients.get_item("products", "sku-1").await.expect_err("it is gone");
    assert_eq!(gone.code(), Code::NotFound, "{gone:?}");
    let found = clients.find("products", vector(pizza)).await.expect("found");
    assert_eq!(found.hits, [], "and is found no more");
}

#[tokio::test]
async fn similar_products_to_a_stored_one_with_top_n_and_threshold() {
    let (_sandbox, mut clients) = attach().await;
    let alike = |limit, score_threshold| search::SearchRequest {
        limit: Some(limit),
        score_threshold,
        ..query(GALLERY, Kind::ItemId("horse-on-pink.webp".to_owned()))
    };
    let five = find(&mut clients, alike(5, None)).await;
    assert_eq!(five.hits.len(), 5, "as many as asked for");
    assert!(!ids(&five).contains(&"horse-on-pink.webp"), "it is not similar to itself");
    assert_eq!(five.timing.expect("timing").embed_ms, 0.0, "its vector is there");
    let threshold = (five.hits[2].score + five.hits[3].score) / 2.0;
    let three = find(&mut clients, alike(5, Some(threshold))).await;
    assert_eq!(three.hits, five.hits[..3], "those that are similar enough");
    let horses = ids(&five).into_iter().filter(|id| id.starts_with("horse")).count();
    assert!(horses >= 1, "other horses are among them: {:?}", ids(&five));
}
