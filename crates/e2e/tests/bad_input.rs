//! What callers get for input that is wrong, odd or hostile: the code, the field, the reason; and
//! that what is merely odd is read as it is meant.

use std::collections::BTreeMap;

use bytes::Bytes;
use clipmesh_e2e::clients::{Clients, acknowledged, cosine, ids, new_item, query, vector};
use clipmesh_e2e::pictures;
use clipmesh_e2e::sandbox::{Attached, Shared};
use clipmesh_proto::code::{self, FieldViolation, Reason};
use clipmesh_proto::embedder::v1::{GetModelRequest, Limits};
use clipmesh_proto::search::v1 as search;
use clipmesh_proto::search::v1::query::Kind;
use clipmesh_proto::search::v1::search_result::Outcome;
use futures::StreamExt as _;
use image::{ImageFormat, RgbImage};
use tonic::{Code, Status};

const MIB: usize = 1 << 20;

static SANDBOX: Shared = Shared::new();

async fn attach() -> (Attached, Clients) {
    let sandbox = SANDBOX.attach().await.expect("the mesh starts");
    let clients = sandbox.clients().expect("the gateway listens");
    (sandbox, clients)
}

/// A collection with one good picture, `good`.
async fn collection(clients: &mut Clients, name: &str) {
    clients.create_collection(name).await.expect("a new collection");
    clients.index(name, new_item("good", pictures::png(1))).await.expect("indexed");
}

/// What the embedder says that it accepts.
async fn limits(clients: &mut Clients) -> Limits {
    let model = clients.embedder.get_model(GetModelRequest {}).await.expect("described");
    model.into_inner().model.expect("the model").limits.expect("its limits")
}

/// Files that are no picture to be had, and why.
fn bad_pictures(limits: &Limits) -> Vec<(&'static str, Bytes, Reason)> {
    let mosaic = pictures::mosaic(1);
    let of = |format| pictures::encode(&mosaic, format);
    let half = |format| pictures::truncated(&of(format));
    let text = Bytes::from_static(b"Dear diary, this is not a photograph at all.\n");
    vec![
        ("empty bytes", Bytes::new(), Reason::Empty),
        ("text named .jpg", text, Reason::NotAnImage),
        ("truncated JPEG", half(ImageFormat::Jpeg), Reason::Corrupt),
        ("truncated PNG", half(ImageFormat::Png), Reason::Corrupt),
        ("giant PNG", pictures::giant_png(), Reason::TooManyPixels),
        // Refused from its header: whoever goes on to the pixels finds them cut off.
        ("start of a giant PNG", pictures::giant_png_start(), Reason::TooManyPixels),
        ("one byte too many", padded(of(ImageFormat::Png), limits), Reason::TooManyBytes),
    ]
}

/// The file with zeros behind its end, where no decoder looks: one byte longer than may be.
fn padded(file: Bytes, limits: &Limits) -> Bytes {
    let mut padded = file.to_vec();
    padded.resize(usize::try_from(limits.max_image_bytes).expect("a length") + 1, 0);
    padded.into()
}

#[track_caller]
fn assert_violation(what: &str, status: &Status, field: &str, reason: Reason) {
    assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status:?}");
    let violation = FieldViolation::from_status(status);
    let violation = violation.unwrap_or_else(|| panic!("{what}: no details in {status:?}"));
    let found = (violation.field.as_str(), violation.reason);
    assert_eq!(found, (field, reason), "{what}: {}", violation.message);
    assert!(!violation.message.is_empty(), "{what}: a person learns why");
}

#[track_caller]
fn assert_code<T: std::fmt::Debug>(what: &str, result: Result<T, Status>, code: Code) {
    let status = result.expect_err(what);
    assert_eq!(status.code(), code, "{what}: {status:?}");
}

#[tokio::test]
async fn a_bad_picture_is_refused_by_every_call_that_takes_one() {
    let (_sandbox, mut clients) = attach().await;
    collection(&mut clients, "bad-pictures").await;
    let limits = limits(&mut clients).await;
    let good = clients.get_item("bad-pictures", "good").await.expect("it is there");
    for (what, file, reason) in bad_pictures(&limits) {
        let item = new_item("bad", file.clone());
        let indexed = clients.index("bad-pictures", item).await.expect_err(what);
        assert_violation(what, &indexed, "item.image", reason);
        let searched = clients.find("bad-pictures", Kind::Image(file.clone())).await;
        assert_violation(what, &searched.expect_err(what), "query.image", reason);
        let request = search::ReplaceImageRequest {
            collection: "bad-pictures".to_owned(),
            id: "good".to_owned(),
            image: file.clone(),
            ..search::ReplaceImageRequest::default()
        };
        let replaced = clients.items.replace_image(request).await.expect_err(what);
        assert_violation(what, &replaced, "image", reason);
        let request = search::ClassifyRequest {
            collection: "bad-pictures".to_owned(),
            query: Some(search::Query { kind: Some(Kind::Image(file.clone())) }),
            field: "format".to_owned(),
            ..search::ClassifyRequest::default()
        };
        let classified = clients.search.classify(request).await.expect_err(what);
        assert_violation(what, &classified, "query.image", reason);
        let embedded = clients.embed_image(file).await.expect_err(what);
        assert_violation(what, &embedded, "inputs[0].image", reason);
    }
    let left = clients.get_item("bad-pictures", "good").await.expect("it is there");
    assert_eq!(left, good, "it has its picture still");
    let kept = clients.list_all("bad-pictures", 0).await.expect("listed");
    assert_eq!(kept.len(), 1, "nothing of a bad picture is kept: {kept:?}");
}

#[tokio::test]
async fn a_bad_picture_in_a_stream_does_not_fail_its_neighbours() {
    let (_sandbox, mut clients) = attach().await;
    clients.create_collection("bad-stream").await.expect("a new collection");
    let bad = bad_pictures(&limits(&mut clients).await);
    let count = bad.len() as u64;
    // Good and bad by turns: every bad one has two good neighbours. The last is good.
    let mut requests = Vec::new();
    for (index, (_, file, _)) in bad.iter().enumerate() {
        let key = 2 * index as u64;
        requests.push((key, new_item(format!("good-{index}"), pictures::png(key))));
        requests.push((key + 1, new_item(format!("bad-{index}"), file.clone())));
    }
    requests.push((2 * count, new_item("good-last", pictures::png(2 * count))));
    // And one whose id is none.
    requests.push((2 * count + 1, new_item("line\nbreak", pictures::png(1))));
    let requests = requests.into_iter().map(|(key, item)| search::IndexItemsRequest {
        collection: "bad-stream".to_owned(),
        key,
        item: Some(item),
    });
    let acks = clients.index_stream(futures::stream::iter(requests)).await;
    let acks = acks.expect("the stream opens").map(|ack| acknowledged(ack.expect("it goes on")));
    let mut acks: BTreeMap<u64, _> = acks.collect().await;

    let id = acks.remove(&(2 * count + 1)).expect("answered").expect_err("no such id may be");
    assert_violation("a line break in an id", &id, "item.id", Reason::Malformed);
    assert_eq!(acks.len() as u64, 2 * count + 1, "every item is answered: {acks:?}");
    for (index, (what, _, reason)) in bad.into_iter().enumerate() {
        let key = 2 * index as u64;
        acks.remove(&key).expect("answered").expect("the neighbour before is indexed");
        let status = acks.remove(&(key + 1)).expect("answered").expect_err(what);
        assert_violation(what, &status, "item.image", reason);
    }
    let listed = clients.count("bad-stream").await.expect("counted");
    assert_eq!(listed, count + 1, "the good ones are there, and nothing else");
}

#[tokio::test]
async fn a_bad_picture_in_a_batch_does_not_fail_its_neighbour() {
    let (_sandbox, mut clients) = attach().await;
    collection(&mut clients, "bad-batch").await;
    let (_, good) = clients.get_item("bad-batch", "good").await.expect("it is there");
    for (what, file, reason) in bad_pictures(&limits(&mut clients).await) {
        let searches = [Kind::Image(file), vector(good.clone())];
        let searches = searches.map(|kind| query("bad-batch", kind)).into();
        let answer = clients.search.search_batch(search::SearchBatchRequest { searches }).await;
        let results = answer.expect("each search has its own outcome").into_inner().results;
        let outcomes: Vec<_> = results.into_iter().map(|result| result.outcome).collect();
        let [Some(Outcome::Error(error)), Some(Outcome::Response(found))] = &outcomes[..] else {
            panic!("{what}: an error, then an answer: {outcomes:?}");
        };
        assert_violation(what, &code::from_rpc(error), "searches[0].query.image", reason);
        assert_eq!(ids(found), ["good"], "{what}: the other is answered");
    }
}

/// Pictures that look strange to a decoder, as files, and as what must be seen in them.
fn odd_pictures() -> Vec<(&'static str, &'static str, Bytes, RgbImage)> {
    let mosaic = pictures::mosaic(1);
    let palette = pictures::palette_png_with_alpha(2);
    let cmyk = pictures::cmyk_jpeg(3);
    let grey_png = pictures::grey(4, ImageFormat::Png);
    let grey_jpeg = pictures::grey(5, ImageFormat::Jpeg);
    let animated = pictures::animated_gif(&mosaic, &pictures::mosaic(6));
    let mut odd = vec![
        ("16 bits per channel", "png", pictures::png_of_16_bits(&mosaic), mosaic.clone()),
        ("palette with alpha", "png", palette.file, palette.seen),
        ("CMYK", "jpeg", cmyk.file, cmyk.seen),
        ("grey PNG", "png", grey_png.file, grey_png.seen),
        ("grey JPEG", "jpeg", grey_jpeg.file, grey_jpeg.seen),
        ("animated GIF, first frame", "gif", animated, mosaic.clone()),
    ];
    odd.extend(pictures::FORMATS.map(|(format, name)| {
        ("an ordinary file", name, pictures::encode(&mosaic, format), mosaic.clone())
    }));
    odd.extend((1..=8).map(|orientation| {
        let file = pictures::jpeg_with_orientation(&mosaic, orientation);
        ("Exif orientation", "jpeg", file, mosaic.clone())
    }));
    odd
}

#[tokio::test]
async fn an_odd_picture_is_seen_as_it_is_meant() {
    let (_sandbox, mut clients) = attach().await;
    clients.create_collection("odd").await.expect("a new collection");
    let stranger = clients.embed_image(pictures::png(99)).await.expect("a good picture");
    for (index, (what, format, file, seen)) in odd_pictures().into_iter().enumerate() {
        let what = format!("{what} ({format}, {index})");
        let id = format!("odd-{index}");
        let indexed = clients.index("odd", new_item(&id, file)).await;
        let item = indexed.unwrap_or_else(|status| panic!("{what}: {status:?}")).item;
        let item = item.expect("the item");
        assert_eq!(item.format, format, "{what}: the format in the bytes");
        assert_eq!((item.width, item.height), seen.dimensions(), "{what}: its size when upright");

        let (_, found) = clients.get_item("odd", &id).await.expect("it is there");
        let meant = pictures::encode(&seen, ImageFormat::Png);
        let meant = clients.embed_image(meant).await.expect("a good picture");
        // Measured against how far apart two pictures are for this model.
        let (off, apart) = (1.0 - cosine(&found, &meant), 1.0 - cosine(&meant, &stranger));
        assert!(off < apart * 0.05, "{what}: {off} off, where strangers are {apart} apart");
    }
}

#[tokio::test]
async fn a_turned_picture_without_its_orientation_is_another_picture() {
    // Else the test above would pass for a service that never looks at the orientation.
    let (_sandbox, mut clients) = attach().await;
    let upright = pictures::mosaic(1);
    let meant = pictures::encode(&upright, ImageFormat::Png);
    let meant = clients.embed_image(meant).await.expect("a good picture");
    let stranger = clients.embed_image(pictures::png(99)).await.expect("a good picture");
    let apart = 1.0 - cosine(&meant, &stranger);
    for orientation in 2..=8 {
        let file = pictures::jpeg_with_orientation(&upright, orientation);
        let stored = image::load_from_memory(&file).expect("a JPEG").to_rgb8();
        let turned = pictures::encode(&stored, ImageFormat::Png);
        let turned = clients.embed_image(turned).await.expect("a good picture");
        let off = 1.0 - cosine(&turned, &meant);
        assert!(off > apart * 0.05, "orientation {orientation}: {off} off, {apart} apart");
    }
}

#[tokio::test]
async fn a_single_pixel_is_a_picture() {
    let (_sandbox, mut clients) = attach().await;
    clients.create_collection("pixel").await.expect("a new collection");
    let item = new_item("pixel", pictures::single_pixel());
    let item = clients.index("pixel", item).await.expect("indexed").item.expect("the item");
    assert_eq!((item.width, item.height), (1, 1), "as small as it is");
    let found = clients.find("pixel", Kind::Image(pictures::single_pixel())).await;
    assert!(found.expect("found").hits[0].score > 0.9999, "found by itself");
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let (_sandbox, mut clients) = attach().await;
    collection(&mut clients, "known").await;
    let unknown_item = clients.get_item("known", "nobody").await;
    assert_code("get an unknown item", unknown_item, Code::NotFound);
    let by_item = clients.find("known", Kind::ItemId("nobody".to_owned())).await;
    assert_code("search by an unknown item", by_item, Code::NotFound);
    let collection = || "unknown".to_owned();
    let id = || "good".to_owned();

    assert_code("get", clients.get_item("unknown", "good").await, Code::NotFound);
    assert_code("count", clients.count("unknown").await, Code::NotFound);
    assert_code("list", clients.list_all("unknown", 0).await, Code::NotFound);
    let indexed = clients.index("unknown", new_item("a", pictures::png(1))).await;
    assert_code("index", indexed, Code::NotFound);
    let found = clients.find("unknown", Kind::Image(pictures::png(1))).await;
    assert_code("search", found, Code::NotFound);
    let request = search::DeleteItemRequest {
        collection: collection(),
        id: id(),
        ..search::DeleteItemRequest::default()
    };
    assert_code("delete", clients.items.delete_item(request).await, Code::NotFound);
    let request = search::GetThumbnailRequest { collection: collection(), id: id() };
    assert_code("thumbnail", clients.items.get_thumbnail(request).await, Code::NotFound);
    let request = search::GetCollectionRequest { name: collection() };
    assert_code("describe", clients.collections.get_collection(request).await, Code::NotFound);
    let request = search::DeleteCollectionRequest { name: collection() };
    assert_code("remove", clients.collections.delete_collection(request).await, Code::NotFound);

    let request = search::IndexItemsRequest {
        collection: collection(),
        key: 1,
        item: Some(new_item("a", pictures::png(1))),
    };
    // The stream may open before its first message is read.
    let opened = clients.index_stream(futures::stream::iter([request])).await;
    let first = match opened {
        Ok(mut acks) => acks.next().await.expect("an answer").map(acknowledged),
        Err(status) => Err(status),
    };
    assert_code("index by stream", first, Code::NotFound);
}

#[tokio::test]
async fn a_bad_vector_is_refused() {
    let (_sandbox, mut clients) = attach().await;
    collection(&mut clients, "vectors").await;
    let (_, good) = clients.get_item("vectors", "good").await.expect("it is there");
    let with = |value| {
        let mut values = good.clone();
        values[1] = value;
        values
    };
    let longer = [good.clone(), vec![0.5]].concat();
    let cases = [
        ("no values", Vec::new(), Reason::Empty),
        ("one value too few", good[1..].to_vec(), Reason::WrongDimension),
        ("one value too many", longer, Reason::WrongDimension),
        ("a NaN", with(f32::NAN), Reason::NotFinite),
        ("an infinity", with(f32::INFINITY), Reason::NotFinite),
        ("a negative infinity", with(f32::NEG_INFINITY), Reason::NotFinite),
        ("nothing but zeros", vec![0.0; good.len()], Reason::OutOfRange),
    ];
    for (what, values, reason) in cases {
        let status = clients.find("vectors", vector(values)).await.expect_err(what);
        assert_violation(what, &status, "query.vector.values", reason);
    }
}

#[tokio::test]
async fn bounds_of_a_search_are_kept() {
    let (_sandbox, mut clients) = attach().await;
    collection(&mut clients, "bounds").await;
    let base = query("bounds", Kind::ItemId("good".to_owned()));
    let threshold = |value| search::SearchRequest { score_threshold: Some(value), ..base.clone() };
    let limit = |value| search::SearchRequest { limit: Some(value), ..base.clone() };
    let offset = |offset| search::SearchRequest { offset, ..base.clone() };
    let cases = [
        ("limit 0", limit(0), "limit", Reason::OutOfRange),
        ("limit 1001", limit(1_001), "limit", Reason::OutOfRange),
        ("offset 10001", offset(10_001), "offset", Reason::OutOfRange),
        ("threshold 1.5", threshold(1.5), "score_threshold", Reason::OutOfRange),
        ("threshold -1.5", threshold(-1.5), "score_threshold", Reason::OutOfRange),
        ("threshold NaN", threshold(f32::NAN), "score_threshold", Reason::OutOfRange),
    ];
    for (what, request, field, reason) in cases {
        let status = clients.search.search(request).await.expect_err(what);
        assert_violation(what, &status, field, reason);
    }
    for (what, request) in [
        ("limit 1", limit(1)),
        ("limit 1000", limit(1_000)),
        ("offset 10000", offset(10_000)),
        ("threshold 1", threshold(1.0)),
        ("threshold -1", threshold(-1.0)),
    ] {
        let answer = clients.search.search(request).await;
        assert!(answer.is_ok(), "{what} is within bounds: {answer:?}");
    }
}

#[tokio::test]
async fn a_query_must_be_there() {
    let (_sandbox, mut clients) = attach().await;
    collection(&mut clients, "queries").await;
    let base = search::SearchRequest {
        collection: "queries".to_owned(),
        ..search::SearchRequest::default()
    };
    let status = clients.search.search(base.clone()).await.expect_err("no query");
    assert_violation("no query", &status, "query", Reason::Missing);
    let empty = search::SearchRequest { query: Some(search::Query { kind: None }), ..base };
    let status = clients.search.search(empty).await.expect_err("a query of nothing");
    assert_violation("a query of nothing", &status, "query", Reason::Missing);
    let request = search::IndexItemRequest { collection: "queries".to_owned(), item: None };
    let status = clients.items.index_item(request).await.expect_err("no item");
    assert_violation("no item", &status, "item", Reason::Missing);
}

#[tokio::test]
async fn words_have_bounds_too() {
    let (_sandbox, mut clients) = attach().await;
    collection(&mut clients, "words").await;
    let limits = limits(&mut clients).await;
    let longest = usize::try_from(limits.max_text_bytes).expect("a length");

    let status = clients.find("words", Kind::Text("a".repeat(longest + 1))).await;
    let status = status.expect_err("an over-long text");
    assert_violation("an over-long text", &status, "query.text", Reason::TextTooLong);
    let status = clients.find("words", Kind::Text(String::new())).await.expect_err("no words");
    assert_violation("no words", &status, "query.text", Reason::Empty);
    // Far more tokens than the model reads: cut off, not refused.
    let long = "word ".repeat(longest / 5);
    let found = clients.find("words", Kind::Text(long)).await;
    assert_eq!(found.expect("the longest text is answered").hits.len(), 1, "with the one item");
}

#[tokio::test]
async fn a_page_token_that_was_never_given_is_refused() {
    let (_sandbox, mut clients) = attach().await;
    collection(&mut clients, "tokens").await;
    for token in ["nonsense", "AAAA", "ÿ", "-1", "00000000000000000000"] {
        let request = search::ListItemsRequest {
            collection: "tokens".to_owned(),
            page_token: token.to_owned(),
            ..search::ListItemsRequest::default()
        };
        let status = clients.items.list_items(request).await.expect_err(token);
        assert_violation(token, &status, "page_token", Reason::Malformed);
        let request = search::ListCollectionsRequest { page_size: 0, page_token: token.to_owned() };
        let status = clients.collections.list_collections(request).await.expect_err(token);
        assert_violation(token, &status, "page_token", Reason::Malformed);
    }
}

#[tokio::test]
async fn names_are_checked() {
    let (_sandbox, mut clients) = attach().await;
    collection(&mut clients, "names").await;
    for (what, name, reason) in [
        ("an empty name", "", Reason::Empty),
        ("a path", "../etc", Reason::Malformed),
        ("a capital", "Holiday", Reason::Malformed),
    ] {
        let status = clients.create_collection(name).await.expect_err(what);
        assert_violation(what, &status, "name", reason);
    }
    let long = "x".repeat(257);
    let status = clients.index("names", new_item(long, pictures::png(1))).await;
    assert_violation("a long id", &status.expect_err("too long"), "item.id", Reason::TextTooLong);
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_and_the_connection_lives_on() {
    let (_sandbox, mut clients) = attach().await;
    collection(&mut clients, "messages").await;
    let huge = Bytes::from(vec![0; 40 * MIB]);
    let status = clients.index("messages", new_item("huge", huge.clone())).await;
    assert_code("a huge message", status, Code::OutOfRange);
    let item = clients.index("messages", new_item("next", pictures::png(2))).await;
    assert!(item.is_ok(), "the next call is answered: {item:?}");

    let request = |key, image| search::IndexItemsRequest {
        collection: "messages".to_owned(),
        key,
        item: Some(new_item(format!("s{key}"), image)),
    };
    let requests = [request(1, pictures::png(3)), request(2, huge)];
    // Refused before or after the first acknowledgement: whichever is faster.
    let ended = match clients.index_stream(futures::stream::iter(requests)).await {
        Ok(acks) => acks.filter_map(|ack| std::future::ready(ack.err())).next().await,
        Err(status) => Some(status),
    };
    let code = ended.map(|status| status.code());
    assert_eq!(code, Some(Code::OutOfRange), "a stream ends at what it can't read");
}
