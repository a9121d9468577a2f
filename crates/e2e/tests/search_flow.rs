//! Pictures in, pictures found: every call of the contracts, through the gateway, over three real
//! processes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use clipmesh_e2e::clients::{
    Clients, acknowledged, content_hash, cosine, ids, new_item, query, vector,
};
use clipmesh_e2e::fields::{boolean, condition, list, metadata, must, number, text};
use clipmesh_e2e::sandbox::{Attached, Sandbox, Service, Shared};
use clipmesh_e2e::{eventually, pictures};
use clipmesh_proto::code::{FieldViolation, Reason};
use clipmesh_proto::embedder::v1::GetModelRequest;
use clipmesh_proto::search::v1 as search;
use clipmesh_proto::search::v1::condition::Test;
use clipmesh_proto::search::v1::query::Kind;
use clipmesh_proto::search::v1::query_part::Kind as PartKind;
use futures::StreamExt as _;
use image::ImageFormat;
use tonic::Code;

/// How long a change elsewhere may take to be noticed.
const PATIENCE: Duration = Duration::from_secs(30);

static SANDBOX: Shared = Shared::new();

async fn attach() -> (Attached, Clients) {
    let sandbox = SANDBOX.attach().await.expect("the mesh starts");
    let clients = sandbox.clients().expect("the gateway listens");
    (sandbox, clients)
}

/// A collection of mosaics 0 to `count`, by id `p0`, `p1`, and so on.
async fn collection_of(clients: &mut Clients, name: &str, count: u64) {
    clients.create_collection(name).await.expect("a new collection");
    for seed in 0..count {
        let item = new_item(format!("p{seed}"), pictures::png(seed));
        clients.index(name, item).await.expect("a good picture is indexed");
    }
}

#[tokio::test]
async fn a_unary_index_keeps_every_fact_of_the_picture() {
    let (_sandbox, mut clients) = attach().await;
    clients.create_collection("unary").await.expect("a new collection");
    let image = pictures::encode(&pictures::mosaic(1), ImageFormat::WebP);
    let new = search::NewItem {
        id: "photos/été 1.webp".to_owned(),
        image: image.clone(),
        uri: "file:///photos/1".to_owned(),
        filename: "été 1.webp".to_owned(),
        metadata: metadata([("place", text("Orléans"))]),
        ..search::NewItem::default()
    };
    let response = clients.index("unary", new.clone()).await.expect("a good picture is indexed");
    assert_eq!(response.outcome(), search::IndexOutcome::Created, "it was not there before");

    let (item, vector) = clients.get_item("unary", &new.id).await.expect("it is there now");
    assert_eq!(Some(&item), response.item.as_ref(), "what was answered is what is kept");
    assert_eq!((item.width, item.height), (pictures::WIDTH, pictures::HEIGHT), "its size");
    assert_eq!(item.format, "webp", "its format");
    assert_eq!(item.byte_size, image.len() as u64, "its length");
    assert_eq!(item.content_hash, content_hash(&image), "BLAKE3 of its bytes");
    assert_eq!((item.uri, item.filename), (new.uri.clone(), new.filename.clone()), "as given");
    assert_eq!(item.metadata, new.metadata, "the caller's own fields");
    assert!(item.create_time.is_some(), "when it was stored");

    let direct = clients.embed_image(image).await.expect("the embedder is behind the gateway too");
    assert_eq!(vector.len(), direct.len(), "as long as the model says");
    assert!(cosine(&vector, &direct) > 0.9999, "the vector is the embedder's");
    assert!((cosine(&vector, &vector) - 1.0).abs() < 1e-5, "and has length 1");
}

#[tokio::test]
async fn indexing_again_says_what_it_did() {
    let (_sandbox, mut clients) = attach().await;
    clients.create_collection("again").await.expect("a new collection");
    let item = new_item("a", pictures::png(1));
    let outcomes = [
        (item.clone(), search::IndexOutcome::Created),
        (item.clone(), search::IndexOutcome::Unchanged),
        (
            search::NewItem { filename: "a.png".to_owned(), ..item.clone() },
            search::IndexOutcome::Replaced,
        ),
        (new_item("a", pictures::png(2)), search::IndexOutcome::Replaced),
    ];
    for (item, expected) in outcomes {
        let response = clients.index("again", item).await.expect("a good picture is indexed");
        assert_eq!(response.outcome(), expected, "compared with what was there");
    }
    assert_eq!(clients.count("again").await.expect("counted"), 1, "one id, one item");
    let found = clients.find("again", Kind::Image(pictures::png(2))).await.expect("found");
    assert!(found.hits[0].score > 0.9999, "the vector is the new picture's: {found:?}");

    let anonymous = new_item("", pictures::png(3));
    let response = clients.index("again", anonymous).await.expect("an id is not needed");
    let id = response.item.expect("the item").id;
    assert_eq!(id, content_hash(&pictures::png(3)), "the content hash stands in for it");
}

#[tokio::test]
async fn a_stream_acknowledges_every_item_once() {
    let (_sandbox, mut clients) = attach().await;
    clients.create_collection("stream").await.expect("a new collection");
    let requests = (0..40_u64).map(|key| search::IndexItemsRequest {
        // Needed in the first message only.
        collection: if key == 0 { "stream".to_owned() } else { String::new() },
        key: key + 1_000,
        item: Some(new_item(format!("s{key}"), pictures::png(key))),
    });
    let mut acks =
        clients.index_stream(futures::stream::iter(requests)).await.expect("the stream opens");
    let mut seen = BTreeMap::new();
    while let Some(ack) = acks.next().await {
        let (key, result) = acknowledged(ack.expect("the stream goes on"));
        let item = result.expect("a good picture is indexed").item.expect("the item");
        // Durable when it is acknowledged, so it is there for another call at once.
        clients.get_item("stream", &item.id).await.expect("an acknowledged item is there");
        assert_eq!(seen.insert(key, item.id), None, "key {key} is acknowledged once");
    }
    let expected = (0..40).map(|key| (key + 1_000, format!("s{key}"))).collect();
    assert_eq!(seen, expected, "each key comes back with its own item");
    assert_eq!(clients.count("stream").await.expect("counted"), 40, "nothing else is there");
}

#[tokio::test]
async fn finds_a_picture_by_itself_its_vector_and_its_id() {
    let (_sandbox, mut clients) = attach().await;
    collection_of(&mut clients, "find", 12).await;

    // The same mosaic in another format: other bytes, the same picture.
    let image = pictures::jpeg(&pictures::mosaic(5));
    let by_image = clients.find("find", Kind::Image(image)).await.expect("found");
    assert_eq!(ids(&by_image)[0], "p5", "the same picture comes first");
    assert!(by_image.hits[0].score > 0.99, "nearly the same: {}", by_image.hits[0].score);
    assert_eq!(by_image.hits.len(), 10, "the default limit");
    let scores: Vec<f32> = by_image.hits.iter().map(|hit| hit.score).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b), "best first: {scores:?}");
    assert!(scores.iter().all(|score| (-1.0..=1.0).contains(score)), "cosines: {scores:?}");

    let (_, values) = clients.get_item("find", "p5").await.expect("it is there");
    let doubled = values.iter().map(|value| value * 2.0).collect();
    let by_vector = clients.find("find", vector(doubled)).await.expect("found");
    assert_eq!(ids(&by_vector)[0], "p5", "the item with this vector, whatever its length");
    assert!((by_vector.hits[0].score - 1.0).abs() < 1e-4, "a cosine knows no length");

    let by_id = clients.find("find", Kind::ItemId("p5".to_owned())).await.expect("found");
    assert!(!ids(&by_id).contains(&"p5"), "it is not among its own hits");
    let others: Vec<&str> = ids(&by_vector).into_iter().filter(|id| *id != "p5").collect();
    assert_eq!(ids(&by_id)[..9], others, "and else it is a search by its vector");

    let by_text = clients.find("find", Kind::Text("a red café 🚲".to_owned())).await;
    let by_text = by_text.expect("words are embedded into the same space");
    assert_eq!(by_text.hits.len(), 10, "every item has some score against any words");
    let timing = by_text.timing.expect("where the time went");
    assert!(!timing.embedding_cached && timing.embed_ms > 0.0, "embedded just now: {timing:?}");
}

fn part(weight: f32, kind: PartKind) -> search::QueryPart {
    search::QueryPart { weight: Some(weight), kind: Some(kind) }
}

fn mix(parts: Vec<search::QueryPart>) -> Kind {
    Kind::Mix(search::MixQuery { parts })
}

/// Asserts that two searches found the same items with the same scores, up to rounding.
#[track_caller]
fn assert_same_hits(what: &str, found: &search::SearchResponse, expected: &search::SearchResponse) {
    assert_eq!(ids(found), ids(expected), "{what}");
    for (hit, expected) in found.hits.iter().zip(&expected.hits) {
        let (score, expected) = (hit.score, expected.score);
        assert!((score - expected).abs() < 1e-4, "{what}: scores {score}, not {expected}");
    }
}

#[tokio::test]
async fn a_mix_is_a_search_along_the_weighted_sum_of_its_parts() {
    let (_sandbox, mut clients) = attach().await;
    collection_of(&mut clients, "mix", 14).await;
    let image = || pictures::jpeg(&pictures::mosaic(50));
    let alone = mix(vec![part(2.5, PartKind::Image(image()))]);
    let alone = clients.find("mix", alone).await.expect("found");
    let plain = clients.find("mix", Kind::Image(image())).await.expect("found");
    assert_same_hits("one part is the plain query", &alone, &plain);

    let (_, p2) = clients.get_item("mix", "p2").await.expect("it is there");
    let (_, p7) = clients.get_item("mix", "p7").await.expect("it is there");
    let picture = clients.embed_image(image()).await.expect("embedded");
    for (of_p2, of_p7, of_picture) in [(1.0, 1.0, 0.5), (3.0, 0.5, -1.0), (1.0, -0.7, 0.1)] {
        let sum = p2.iter().zip(&p7).zip(&picture);
        let sum = sum.map(|((p2, p7), picture)| of_p2 * p2 + of_p7 * p7 + of_picture * picture);
        let expected = search::SearchRequest {
            limit: Some(12),
            filter: Some(search::Filter {
                must_not: ["p2", "p7"].map(|id| condition("id", Test::Match(text(id)))).into(),
                ..search::Filter::default()
            }),
            ..query("mix", vector(sum.collect()))
        };
        let expected = clients.search.search(expected).await.expect("found").into_inner();
        let parts = vec![
            part(of_p2, PartKind::ItemId("p2".to_owned())),
            part(of_picture, PartKind::Image(image())),
            part(of_p7, PartKind::ItemId("p7".to_owned())),
        ];
        let request = search::SearchRequest { limit: Some(12), ..query("mix", mix(parts)) };
        let found = clients.search.search(request).await.expect("found").into_inner();
        assert_eq!(found.hits.len(), 12, "all but the items that were named");
        assert_same_hits(&format!("{of_p2}, {of_p7}, {of_picture}"), &found, &expected);
    }

    let bad = PartKind::Image(Bytes::from_static(b"just words, called .jpg"));
    let bad = mix(vec![part(1.0, PartKind::Text("a bicycle".to_owned())), part(-1.0, bad)]);
    let refusal = clients.find("mix", bad).await.expect_err("one part is no picture");
    let violation = FieldViolation::from_status(&refusal).expect("it names the field");
    assert_eq!(violation.field, "query.mix.parts[1].image", "{violation}");
    assert_eq!(violation.reason, Reason::NotAnImage, "{violation}");
}

#[tokio::test]
async fn a_repeated_search_comes_from_the_cache_until_the_collection_changes() {
    let (_sandbox, mut clients) = attach().await;
    collection_of(&mut clients, "cached", 3).await;
    let kind = Kind::Image(pictures::png(100));
    let first = clients.find("cached", kind.clone()).await.expect("found");
    let second = clients.find("cached", kind.clone()).await.expect("found");
    assert!(!first.timing.expect("timing").result_cached, "nothing was asked before");
    assert!(second.timing.expect("timing").result_cached, "the same was asked before");
    assert_eq!(first.hits, second.hits, "a cache changes no answer");

    clients.index("cached", new_item("new", pictures::png(100))).await.expect("indexed");
    let third = clients.find("cached", kind).await.expect("found");
    assert_eq!(ids(&third)[0], "new", "a write is seen by the next search");
    let timing = third.timing.expect("timing");
    assert!(!timing.result_cached && timing.embedding_cached, "only the vector is reused");
}

#[tokio::test]
async fn limit_offset_and_threshold_cut_one_and_the_same_ranking() {
    let (_sandbox, mut clients) = attach().await;
    collection_of(&mut clients, "cuts", 15).await;
    let full = search::SearchRequest {
        limit: Some(1_000),
        ..query("cuts", Kind::Image(pictures::png(4)))
    };
    let all = clients.search.search(full.clone()).await.expect("found").into_inner();
    assert_eq!(all.hits.len(), 15, "a limit beyond the collection is no fault");

    let mut paged = Vec::new();
    for offset in (0..15).step_by(4) {
        let page = search::SearchRequest { limit: Some(4), offset, ..full.clone() };
        let page = clients.search.search(page).await.expect("found").into_inner();
        paged.extend(page.hits);
    }
    assert_eq!(paged, all.hits, "the pages are the whole");

    let threshold = all.hits[6].score;
    let best = search::SearchRequest { score_threshold: Some(threshold), ..full.clone() };
    let best = clients.search.search(best).await.expect("found").into_inner();
    assert!(best.hits.iter().all(|hit| hit.score >= threshold), "none scores less");
    assert!((6..=8).contains(&best.hits.len()), "the seven best, up to rounding: {best:?}");

    let (_, values) = clients.get_item("cuts", "p4").await.expect("it is there");
    let opposite = vector(values.iter().map(|value| -value).collect());
    let nothing = search::SearchRequest { score_threshold: Some(0.99), ..query("cuts", opposite) };
    let nothing = clients.search.search(nothing).await.expect("nothing similar is no error");
    assert_eq!(nothing.into_inner().hits, [], "and an empty list");
}

/// Six items with metadata for the filters.
async fn filtered_collection(clients: &mut Clients, name: &str) {
    clients.create_collection(name).await.expect("a new collection");
    let fields = [
        metadata([("place", text("Rome")), ("year", number(1990.0))]),
        metadata([("place", text("Paris")), ("year", number(2000.0))]),
        metadata([("place", text("Parma")), ("year", number(2010.5))]),
        metadata([("tags", list(&["red", "round"])), ("year", number(2020.0))]),
        metadata([("sold", boolean(true))]),
        None,
    ];
    for (index, metadata) in fields.into_iter().enumerate() {
        let seed = index as u64;
        // The first two are JPEGs.
        let image =
            if index < 2 { pictures::jpeg(&pictures::mosaic(seed)) } else { pictures::png(seed) };
        let item = search::NewItem { metadata, ..new_item(format!("f{index}"), image) };
        clients.index(name, item).await.expect("a good picture is indexed");
    }
}

fn filters() -> Vec<(&'static str, search::Filter, &'static [usize])> {
    let any_of = |values: &[&str]| {
        Test::AnyOf(search::AnyOf { values: values.iter().map(|value| text(value)).collect() })
    };
    let year = |range| must("metadata.year", Test::Range(range));
    let from_2000 = search::Range { gte: Some(2000.0), ..search::Range::default() };
    let between = search::Range { gt: Some(1990.0), lt: Some(2020.0), ..search::Range::default() };
    let place = "metadata.place";
    let mixed = search::Filter {
        must: vec![condition("metadata.year", Test::Exists(true))],
        should: vec![
            condition(place, Test::Text("par".to_owned())),
            condition("metadata.tags", Test::Match(text("red"))),
        ],
        must_not: vec![condition("format", Test::Match(text("jpeg")))],
    };
    let sold = Test::Match(boolean(true));
    vec![
        ("no conditions", search::Filter::default(), &[0, 1, 2, 3, 4, 5]),
        ("match", must(place, Test::Match(text("Rome"))), &[0]),
        ("match heeds case", must(place, Test::Match(text("rome"))), &[]),
        ("match in a list", must("metadata.tags", Test::Match(text("round"))), &[3]),
        ("match of a boolean", must("metadata.sold", sold), &[4]),
        ("any of", must(place, any_of(&["Rome", "Parma", "Bern"])), &[0, 2]),
        ("at least", year(from_2000), &[1, 2, 3]),
        ("between", year(between), &[1, 2]),
        ("text ignores case", must(place, Test::Text("PAR".to_owned())), &[1, 2]),
        ("exists", must("metadata.year", Test::Exists(true)), &[0, 1, 2, 3]),
        ("does not exist", must(place, Test::Exists(false)), &[3, 4, 5]),
        ("a fact of the picture", must("format", Test::Match(text("jpeg"))), &[0, 1]),
        ("must, should and must not", mixed, &[2, 3]),
    ]
}

#[tokio::test]
async fn every_filter_means_the_same_to_search_list_and_count() {
    let (_sandbox, mut clients) = attach().await;
    filtered_collection(&mut clients, "filters").await;
    for (name, filter, expected) in filters() {
        let expected: BTreeSet<String> = expected.iter().map(|n| format!("f{n}")).collect();
        let filter = Some(filter);
        let request = search::SearchRequest {
            filter: filter.clone(),
            ..query("filters", Kind::Image(pictures::png(1)))
        };
        let found = clients.search.search(request).await.expect("found").into_inner();
        let found: BTreeSet<String> = ids(&found).into_iter().map(str::to_owned).collect();
        assert_eq!(found, expected, "search: {name}");

        let request = search::ListItemsRequest {
            collection: "filters".to_owned(),
            filter: filter.clone(),
            ..search::ListItemsRequest::default()
        };
        let listed = clients.items.list_items(request).await.expect("listed").into_inner().items;
        let listed: BTreeSet<String> = listed.into_iter().map(|item| item.id).collect();
        assert_eq!(listed, expected, "list: {name}");

        let request = search::CountItemsRequest { collection: "filters".to_owned(), filter };
        let counted = clients.items.count_items(request).await.expect("counted").into_inner();
        assert_eq!(counted.count, expected.len() as u64, "count: {name}");
    }
}

#[tokio::test]
async fn pages_of_items_hold_each_item_once() {
    let (_sandbox, mut clients) = attach().await;
    collection_of(&mut clients, "pages", 11).await;
    let whole = clients.list_all("pages", 0).await.expect("listed");
    let expected: BTreeSet<String> = (0..11).map(|seed| format!("p{seed}")).collect();
    let found: BTreeSet<String> = whole.iter().map(|item| item.id.clone()).collect();
    assert_eq!(found, expected, "every item is listed");
    for page_size in [1, 4, 11, 2_000] {
        let paged = clients.list_all("pages", page_size).await.expect("listed");
        assert_eq!(paged, whole, "pages of {page_size} are the whole, in the same order");
    }
}

#[tokio::test]
async fn a_thumbnail_is_a_small_jpeg_of_the_picture() {
    let (_sandbox, mut clients) = attach().await;
    clients.create_collection("thumbs").await.expect("a new collection");
    let large = image::imageops::resize(
        &pictures::mosaic(1),
        800,
        600,
        image::imageops::FilterType::Nearest,
    );
    let item = new_item("large", pictures::encode(&large, ImageFormat::Png));
    clients.index("thumbs", item).await.expect("a good picture is indexed");
    let request =
        search::GetThumbnailRequest { collection: "thumbs".to_owned(), id: "large".to_owned() };
    let thumbnail = clients.items.get_thumbnail(request).await.expect("made").into_inner();
    assert_eq!(thumbnail.media_type, "image/jpeg", "its media type");
    let small = image::load_from_memory_with_format(&thumbnail.image, ImageFormat::Jpeg);
    let small = small.expect("the bytes are a whole JPEG").to_rgb8();
    assert_eq!(small.dimensions(), (256, 192), "256 on the longer side, the shape kept");
    // The middle of the tile in the corner, far from where resizing blurs.
    let pairs = small.get_pixel(8, 8).0.into_iter().zip(large.get_pixel(25, 25).0);
    let worst = pairs.map(|(a, b)| a.abs_diff(b)).max();
    assert!(worst <= Some(12), "the colours are the picture's, off by {worst:?}");
}

#[tokio::test]
async fn a_deleted_item_is_gone_everywhere() {
    let (_sandbox, mut clients) = attach().await;
    collection_of(&mut clients, "delete", 3).await;
    let request = search::DeleteItemRequest {
        collection: "delete".to_owned(),
        id: "p1".to_owned(),
        ..search::DeleteItemRequest::default()
    };
    clients.items.delete_item(request.clone()).await.expect("it was there");

    let code = |status: tonic::Status| status.code();
    let again = clients.items.delete_item(request).await.map_err(code).map(drop);
    assert_eq!(again, Err(Code::NotFound), "it is there no more");
    let got = clients.get_item("delete", "p1").await.map_err(code).map(drop);
    assert_eq!(got, Err(Code::NotFound), "nor to be got");
    let thumbnail =
        search::GetThumbnailRequest { collection: "delete".to_owned(), id: "p1".to_owned() };
    let thumbnail = clients.items.get_thumbnail(thumbnail).await.map_err(code).map(drop);
    assert_eq!(thumbnail, Err(Code::NotFound), "nor its thumbnail");
    let found = clients.find("delete", Kind::Image(pictures::png(1))).await.expect("found");
    assert!(!ids(&found).contains(&"p1"), "nor found");
    assert_eq!(clients.count("delete").await.expect("counted"), 2, "nor counted");
}

#[tokio::test]
async fn collections_are_made_listed_and_removed() {
    let (_sandbox, mut clients) = attach().await;
    let model = clients.embedder.get_model(GetModelRequest {});
    let model = model.await.expect("described").into_inner().model.expect("the model");
    for name in ["zoo-a", "zoo-b", "zoo-c"] {
        let collection = clients.create_collection(name).await.expect("a new collection");
        assert_eq!(collection.model_fingerprint, model.fingerprint, "pinned to the model");
        assert_eq!(collection.dimension, model.dimension, "and to its dimension");
        assert_eq!(collection.distance(), search::Distance::Cosine, "the default distance");
    }
    let twice = clients.create_collection("zoo-a").await.expect_err("the name is taken");
    assert_eq!(twice.code(), Code::AlreadyExists, "a name is used once");

    clients.index("zoo-b", new_item("a", pictures::png(1))).await.expect("indexed");
    let request = search::GetCollectionRequest { name: "zoo-b".to_owned() };
    let got = clients.collections.get_collection(request).await.expect("it is there");
    let got = got.into_inner().collection.expect("the collection");
    assert_eq!(got.item_count, 1, "it counts its items");

    let names = list_collections(&mut clients).await;
    let ours: Vec<&String> = names.iter().filter(|name| name.starts_with("zoo-")).collect();
    assert_eq!(ours, ["zoo-a", "zoo-b", "zoo-c"], "in order of name, over pages of two");

    let request = search::DeleteCollectionRequest { name: "zoo-b".to_owned() };
    clients.collections.delete_collection(request.clone()).await.expect("it was there");
    let again = clients.collections.delete_collection(request).await.expect_err("it is gone");
    assert_eq!(again.code(), Code::NotFound, "it is there no more");
    clients.create_collection("zoo-b").await.expect("the name is free again");
    assert_eq!(clients.count("zoo-b").await.expect("counted"), 0, "and nothing is left of the old");
}

/// All names, by pages of two.
async fn list_collections(clients: &mut Clients) -> Vec<String> {
    let mut names = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = search::ListCollectionsRequest { page_size: 2, page_token };
        let page = clients.collections.list_collections(request).await.expect("listed");
        let page = page.into_inner();
        assert!(page.collections.len() <= 2, "no page is longer than asked for");
        names.extend(page.collections.into_iter().map(|collection| collection.name));
        if page.next_page_token.is_empty() {
            return names;
        }
        page_token = page.next_page_token;
    }
}

#[tokio::test]
async fn the_one_process_mesh_gives_the_same_answers() {
    let one = Sandbox::builder().in_one_process().start().await.expect("`clipmesh up` starts");
    let mut of_one = one.clients().expect("it listens");
    let (_three, mut of_three) = attach().await;
    let mut answers = Vec::new();
    for clients in [&mut of_one, &mut of_three] {
        collection_of(clients, "same", 6).await;
        let found = clients.find("same", Kind::Image(pictures::png(50))).await.expect("found");
        let hits = found.hits.into_iter();
        let hits = hits.map(|hit| (hit.item.expect("the item").id, (hit.score * 1e4).round()));
        answers.push(hits.collect::<Vec<_>>());
    }
    assert_eq!(answers[0], answers[1], "one code path for small and large");
}

#[tokio::test]
async fn a_collection_of_another_model_is_not_searched_with_this_one() {
    let mut sandbox = Sandbox::builder().start().await.expect("the mesh starts");
    let mut clients = sandbox.clients().expect("the gateway listens");
    collection_of(&mut clients, "pinned", 2).await;
    let old = clients.embedder.get_model(GetModelRequest {});
    let old = old.await.expect("described").into_inner().model.expect("the model").fingerprint;

    sandbox.replace_model(2).await.expect("another model");
    sandbox.kill(Service::Embedder).await.expect("the old embedder ends");
    sandbox.restart(Service::Embedder).await.expect("the new embedder starts");
    let new = eventually("the new model is seen", PATIENCE, async || {
        let request = GetModelRequest {};
        let model = clients.embedder.get_model(request).await?.into_inner().model;
        Ok::<_, tonic::Status>(model.expect("the model").fingerprint)
    });
    let new = new.await.expect("the gateway reconnects");
    assert_ne!(old, new, "other weights, another fingerprint");

    // The search service may remember the old model for a moment.
    let refusal = eventually("the search is refused", PATIENCE, async || {
        let kind = Kind::Image(pictures::png(77));
        match clients.find("pinned", kind).await {
            Err(status) if status.code() == Code::FailedPrecondition => Ok(status),
            other => Err(format!("{other:?}")),
        }
    });
    let refusal = refusal.await.expect("vectors of two models are never compared");
    let message = refusal.message();
    assert!(message.contains(&old) && message.contains(&new), "it names both: {message}");
    let by_id = clients.find("pinned", Kind::ItemId("p0".to_owned())).await;
    assert_eq!(ids(&by_id.expect("no embedding is needed")), ["p1"], "stored vectors still serve");
}
