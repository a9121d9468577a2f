use clipmesh_proto::ids::{ContentHash, PixelHash};

use super::*;
use crate::filter::{Field, Test};
use crate::item::Item;
use crate::store::contract::{must, name, new_collection, point, string};
use crate::store::exact::Exact;
use crate::store::{Point, VectorStore};

/// A picture in a direction of the first two dimensions.
fn picture(id: &str, angle: f32, change: impl FnOnce(&mut Item)) -> Point {
    let mut point = point(id, [angle.cos(), angle.sin(), 0.0, 0.0]);
    point.item.perceptual_hash = None;
    change(&mut point.item);
    point
}

fn marked(id: &str, bytes: Option<&str>, pixels: Option<&str>) -> Point {
    picture(id, 0.0, |item| {
        item.content_hash = bytes.map(|bytes| ContentHash::of(bytes.as_bytes()));
        item.pixel_hash = pixels.map(|pixels| PixelHash::of(1, 1, pixels.as_bytes()));
    })
}

async fn with(points: Vec<Point>) -> Duplicates {
    let store = Exact::default();
    store.create(new_collection("pets")).await.expect("made");
    store.upsert(name("pets"), points).await.expect("stored");
    Duplicates::new(Arc::new(store))
}

fn question(kind: Kind) -> Question {
    let filter = Filter::default();
    Question { collection: name("pets"), kind, filter, limit: 1_000 }
}

fn near(threshold: f32) -> Question {
    question(Kind::Near { threshold, max_hash_distance: None })
}

/// The ids of each group, in order.
async fn groups(duplicates: &Duplicates, question: Question) -> Vec<Vec<String>> {
    let found = duplicates.find(question).await.expect("a stream");
    let groups: Vec<_> = found.try_collect().await.expect("groups");
    let ids = groups.iter().map(|group| {
        let others = group.duplicates.iter().map(|one| &one.item);
        let items = [&group.representative].into_iter().chain(others);
        let mut ids: Vec<_> = items.map(|item| item.id.to_string()).collect();
        ids.sort();
        ids
    });
    ids.collect()
}

#[tokio::test]
async fn the_same_bytes_or_pixels_are_exact_duplicates() {
    let duplicates = with(vec![
        marked("copy-1", Some("a"), Some("a")),
        marked("copy-2", Some("a"), Some("a")),
        marked("saved", Some("b"), Some("a")),
        marked("old-1", Some("c"), None),
        marked("old-2", Some("c"), None),
        marked("single", Some("d"), Some("d")),
        marked("ready-1", None, None),
        marked("ready-2", None, None),
    ])
    .await;
    let found = groups(&duplicates, question(Kind::Exact)).await;
    let expected = [vec!["copy-1", "copy-2", "saved"], vec!["old-1", "old-2"]];
    assert_eq!(found, expected, "the largest first; what nobody looked at is no duplicate");
    let filter = must(Field::Id, Test::AnyOf(["copy-2", "saved", "old-1"].map(string).to_vec()));
    let found = groups(&duplicates, Question { filter, ..question(Kind::Exact) }).await;
    assert_eq!(found, [["copy-2", "saved"]], "among what passes");
    let found = groups(&duplicates, Question { limit: 1, ..question(Kind::Exact) }).await;
    assert_eq!(found, [["copy-1", "copy-2", "saved"]], "the largest alone");
}

#[tokio::test]
async fn groups_that_share_an_item_are_one() {
    // A definition of what is shown that changed since: the same bytes, other pixels.
    let duplicates = with(vec![
        marked("1", Some("a"), Some("old")),
        marked("2", Some("a"), Some("new")),
        marked("3", Some("b"), Some("new")),
        marked("4", Some("b"), None),
        marked("5", Some("c"), Some("old")),
    ])
    .await;
    let found = groups(&duplicates, question(Kind::Exact)).await;
    assert_eq!(found, [["1", "2", "3", "4", "5"]], "all of them, once");
    let first = groups(&duplicates, Question { limit: 1, ..question(Kind::Exact) }).await;
    assert_eq!(first, found, "even where only one value of each is looked up");
}

#[tokio::test]
async fn more_exact_duplicates_than_fit_into_a_round_are_all_found() {
    let mut points = Vec::new();
    for group in 0..200 {
        let copies = if group == 150 { 3 } else { 2 };
        for copy in 0..copies {
            let shown = group.to_string();
            points.push(marked(&format!("{group:03}-{copy}"), Some(&shown), Some(&shown)));
        }
    }
    let duplicates = with(points).await;
    let found = groups(&duplicates, question(Kind::Exact)).await;
    assert_eq!(found.len(), 200, "each group once");
    assert_eq!(found[0], ["150-0", "150-1", "150-2"], "the largest first");
    let few = groups(&duplicates, Question { limit: 70, ..question(Kind::Exact) }).await;
    assert_eq!(few.len(), 70, "no more than asked for");
    assert_eq!(few[0], found[0], "and the largest still");
}

#[tokio::test]
async fn what_is_near_enough_is_a_near_duplicate() {
    let at = |id: &str, angle: f32| picture(id, angle, |_| {});
    let all = vec![at("a", 0.0), at("b", 0.1), at("c", 0.2), at("far", 1.5), at("twin", 1.55)];
    let duplicates = with(all).await;
    let found = groups(&duplicates, near(0.99)).await;
    assert_eq!(found, [vec!["a", "b", "c"], vec!["far", "twin"]], "by a chain, too");
    assert_eq!(groups(&duplicates, near(0.998)).await, [["far", "twin"]], "0.05 apart");
    assert_eq!(groups(&duplicates, near(1.0)).await, [[""; 0]; 0], "nothing is the same");
    assert_eq!(groups(&duplicates, near(-1.0)).await.len(), 1, "everything is");
    let filter = must(Field::Id, Test::AnyOf(["a", "c", "far"].map(string).to_vec()));
    let question = Question { filter, ..near(0.99) };
    assert_eq!(groups(&duplicates, question).await, [[""; 0]; 0], "what led from a to c is out");
    let question = Question { limit: 1, ..near(0.99) };
    assert_eq!(groups(&duplicates, question).await, [["a", "b", "c"]], "the largest alone");
}

#[tokio::test]
async fn near_duplicates_can_be_held_to_their_perceptual_hash() {
    let hashed =
        |id: &str, hash: u64| picture(id, 0.0, |item| item.perceptual_hash = Some(hash.into()));
    let all = vec![
        hashed("0", 0),
        hashed("1", 1),
        hashed("8", 0xFF),
        hashed("64", u64::MAX),
        picture("none", 0.0, |_| {}),
    ];
    let duplicates = with(all).await;
    let within = async |bits| {
        let max_hash_distance = bits;
        let kind = Kind::Near { threshold: 0.9, max_hash_distance };
        groups(&duplicates, question(kind)).await
    };
    assert_eq!(within(None).await, [["0", "1", "64", "8", "none"]], "nobody looks at them");
    assert_eq!(within(Some(0)).await, [[""; 0]; 0], "no two are alike");
    assert_eq!(within(Some(1)).await, [["0", "1"]], "one bit");
    assert_eq!(within(Some(7)).await, [["0", "1", "8"]], "seven from the one, if not the other");
    assert_eq!(within(Some(64)).await, [["0", "1", "64", "8"]], "all that have one");
}

#[tokio::test]
async fn near_duplicates_are_found_across_batches_and_in_crowds() {
    // 300 of one picture, more than the neighbours that are looked at, and 50 pairs.
    let crowd = (0..300).map(|i| picture(&format!("crowd-{i:03}"), 0.0, |_| {}));
    let pairs = (0..100).map(|i| {
        let angle = 0.5 + (i % 50) as f32 / 50.0;
        point(&format!("pair-{i:03}"), [0.0, angle.cos(), angle.sin(), 0.0])
    });
    let duplicates = with(crowd.chain(pairs).collect()).await;
    let found = groups(&duplicates, near(0.999_99)).await;
    assert_eq!(found.len(), 51, "the crowd and the pairs");
    assert_eq!(found[0].len(), 300, "the crowd first, whole");
    assert!(found[1..].iter().all(|pair| pair.len() == 2), "then the pairs");
    assert_eq!(found[1], ["pair-000", "pair-050"], "in order of id");
}

#[tokio::test]
async fn what_resembles_a_crowd_of_copies_is_found_behind_them() {
    // Each has as many copies as the neighbours that are looked at first.
    let copies = |name: &'static str, angle| {
        (0..65).map(move |i| picture(&format!("{name}-{i:02}"), angle, |_| {}))
    };
    let duplicates = with(copies("a", 0.0).chain(copies("b", 0.1)).collect()).await;
    let found = groups(&duplicates, near(0.99)).await;
    assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [130], "0.995 alike");
    let found = groups(&duplicates, near(0.999)).await;
    assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [65, 65], "and no more than that");
}

#[tokio::test]
async fn a_large_group_is_told_by_its_first_items_and_their_number() {
    let copies = (0..MAX_MEMBERS + 7).map(|i| marked(&format!("{i:05}"), Some("a"), None));
    let duplicates = with(copies.collect()).await;
    let found = duplicates.find(question(Kind::Exact)).await.expect("a stream");
    let found: Vec<Group> = found.try_collect().await.expect("groups");
    assert_eq!(found.len(), 1, "one group");
    assert_eq!(1 + found[0].duplicates.len(), MAX_MEMBERS, "as many as fit into a message");
    assert_eq!(found[0].count, MAX_MEMBERS + 7, "and how many there are");
    let last = found[0].duplicates.iter().map(|one| one.item.id.as_str()).max();
    assert_eq!(last, Some("00999"), "the first by id");
}

#[tokio::test]
async fn the_collection_is_looked_for_before_the_stream_begins() {
    let duplicates = with(vec![]).await;
    for kind in [Kind::Exact, Kind::Near { threshold: 0.5, max_hash_distance: None }] {
        let elsewhere = Question { collection: name("elsewhere"), ..question(kind) };
        let error = duplicates.find(elsewhere).await.map(drop).expect_err("not there");
        assert!(matches!(error, Error::NoCollection(_)), "{error}");
        assert_eq!(groups(&duplicates, question(kind)).await, [[""; 0]; 0], "of nothing");
    }
}

#[tokio::test]
async fn more_items_than_are_compared_are_refused_with_their_number() {
    let all = (0..=MAX_ITEMS).map(|i| picture(&format!("{i:06}"), i as f32, |_| {}));
    let duplicates = with(all.collect()).await;
    let error = duplicates.find(near(0.9)).await.map(drop).expect_err("too many");
    assert!(error.to_string().contains("100001 items"), "how many there are: {error}");
    let one = || must(Field::Id, Test::Match(string("000001")));
    let few = duplicates.find(Question { filter: one(), ..near(0.9) }).await;
    assert!(few.is_ok(), "only those count that pass");
}
