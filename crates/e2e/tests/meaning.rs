//! Searches by words and by example that a person can judge: the model that clipmesh brings, over
//! the gallery of pictograms, through the whole mesh in one process.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use clipmesh_e2e::clients::{Clients, query};
use clipmesh_e2e::sandbox::{Attached, Sandbox, Shared, program};
use clipmesh_proto::search::v1 as search;
use clipmesh_proto::search::v1::condition::Test;
use clipmesh_proto::search::v1::query::Kind;
use clipmesh_proto::search::v1::query_part;
use serde::Deserialize;

const COLLECTION: &str = "gallery";

/// A little below what was measured (0.948 and 1.000 of 192), so that another rounding passes
/// and a fault in preprocessing, tokenizer or forward pass does not.
const MIN_RECALL_AT_1: f64 = 0.92;
const MIN_RECALL_AT_5: f64 = 0.98;

static SANDBOX: Shared = Shared::new();

/// A line of the gallery's `metadata.jsonl`.
#[derive(Clone, Debug, Deserialize)]
struct Picture {
    file_name: String,
    caption: String,
    things: Vec<String>,
    kinds: Vec<String>,
    background: String,
}

/// The mesh with the gallery in it, and what is in the gallery.
struct Gallery {
    sandbox: Attached,
    pictures: BTreeMap<String, Picture>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/images/gallery")
}

/// The mesh is shared by the tests of this file.
async fn gallery() -> Gallery {
    let lines = fs::read_to_string(folder().join("metadata.jsonl")).expect("its metadata");
    let pictures = lines.lines().map(|line| {
        let picture: Picture = serde_json::from_str(line).expect("a line of it");
        (picture.file_name.clone(), picture)
    });
    let sandbox = SANDBOX.attach_or_start(start).await.expect("the gallery is indexed");
    Gallery { sandbox, pictures: pictures.collect() }
}

async fn start() -> anyhow::Result<Sandbox> {
    let sandbox = Sandbox::builder().in_one_process().model("tiny").start().await?;
    let mut command = tokio::process::Command::from(program("clipmesh")?);
    command.arg("index").arg(folder()).args(["--collection", COLLECTION]);
    command.arg("--server").arg(format!("http://{}", sandbox.gateway_address()?));
    let output = command.output().await.context("run `clipmesh index`")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(sandbox)
}

impl Gallery {
    fn clients(&self) -> Clients {
        self.sandbox.clients().expect("the gateway listens")
    }

    /// The pictures that a search finds, best first.
    async fn find(&self, request: search::SearchRequest) -> Vec<&Picture> {
        let response = self.clients().search.search(request).await.expect("an answer");
        let items = response.into_inner().hits.into_iter().filter_map(|hit| hit.item);
        items.map(|item| &self.pictures[&item.filename]).collect()
    }

    fn bytes(&self, file_name: &str) -> Bytes {
        fs::read(folder().join(file_name)).expect("a picture of the gallery").into()
    }

    /// A picture that shows `thing` and nothing else, once.
    fn alone(&self, thing: &str) -> &Picture {
        let mut pictures = self.pictures.values();
        let alone = pictures.find(|picture| picture.things == [thing] && is_single(picture));
        alone.unwrap_or_else(|| panic!("the gallery has a {thing}"))
    }
}

/// Whether there is one thing, in one copy.
fn is_single(picture: &Picture) -> bool {
    let is_counted = picture.file_name.starts_with(|first: char| first.is_ascii_digit());
    picture.things.len() == 1 && !is_counted
}

fn text(words: &str) -> Kind {
    Kind::Text(words.to_owned())
}

fn first(limit: u32, kind: Kind) -> search::SearchRequest {
    search::SearchRequest { limit: Some(limit), ..query(COLLECTION, kind) }
}

fn part(weight: f32, kind: query_part::Kind) -> search::QueryPart {
    search::QueryPart { weight: Some(weight), kind: Some(kind) }
}

fn mix(parts: Vec<search::QueryPart>) -> Kind {
    Kind::Mix(search::MixQuery { parts })
}

/// What the hits are, for a message.
fn names<'a>(hits: &[&'a Picture]) -> Vec<&'a str> {
    hits.iter().map(|picture| picture.file_name.as_str()).collect()
}

#[tokio::test]
async fn words_find_the_thing_that_they_name() {
    let gallery = gallery().await;
    for thing in ["penguin", "violin", "rocket", "pizza", "castle", "bicycle"] {
        let hits = gallery.find(first(3, text(&format!("a {thing}")))).await;
        let fitting = hits.iter().filter(|picture| picture.things.iter().any(|has| has == thing));
        assert!(fitting.count() == 3, "a {thing} is in each of {:?}", names(&hits));
    }
}

#[tokio::test]
async fn a_word_for_many_things_finds_all_sorts_of_them() {
    let gallery = gallery().await;
    for kind in ["fruit", "animal", "vehicle"] {
        let hits = gallery.find(first(10, text(kind))).await;
        let fitting: Vec<_> =
            hits.iter().filter(|picture| picture.kinds.iter().any(|has| has == kind)).collect();
        assert!(fitting.len() >= 8, "8 of 10 are of kind {kind}: {:?}", names(&hits));
        let mut sorts: Vec<_> = fitting.iter().flat_map(|picture| &picture.things).collect();
        sorts.sort();
        sorts.dedup();
        assert!(sorts.len() >= 3, "more than one sort of {kind}: {sorts:?}");
    }
}

#[tokio::test]
async fn a_filter_holds_whatever_the_words_say() {
    let gallery = gallery().await;
    let wanted = search::Condition {
        key: "metadata.background".to_owned(),
        test: Some(Test::Match("blue".to_owned().into())),
    };
    let filter = search::Filter { must: vec![wanted], ..search::Filter::default() };
    let request = search::SearchRequest { filter: Some(filter), ..first(8, text("an animal")) };
    let hits = gallery.find(request).await;
    assert!(!hits.is_empty(), "some are blue");
    assert!(hits.iter().all(|picture| picture.background == "blue"), "{:?}", names(&hits));
    let best = hits[0];
    assert!(best.kinds.iter().any(|kind| kind == "animal"), "an animal first: {:?}", names(&hits));
}

#[tokio::test]
async fn an_example_finds_the_same_thing_on_other_grounds() {
    let gallery = gallery().await;
    for thing in ["penguin", "violin", "rocket", "castle"] {
        let example = gallery.alone(thing);
        let hits = gallery.find(first(3, Kind::Image(gallery.bytes(&example.file_name)))).await;
        assert_eq!(hits[0].file_name, example.file_name, "the very picture comes first");
        let fitting = hits.iter().filter(|picture| picture.things.iter().any(|has| has == thing));
        assert!(fitting.count() == 3, "a {thing} is in each of {:?}", names(&hits));
    }
}

#[tokio::test]
async fn a_picture_and_words_together_find_what_has_both() {
    let gallery = gallery().await;
    let both = |picture: &&Picture| picture.things.len() == 2;
    let mut seen = 0;
    for picture in gallery.pictures.values().filter(both).take(10) {
        let example = gallery.alone(&picture.things[0]);
        let image = query_part::Kind::Image(gallery.bytes(&example.file_name));
        let words = query_part::Kind::Text(format!("a {}", picture.things[1]));
        let hits = gallery.find(first(5, mix(vec![part(1.0, image), part(1.0, words)]))).await;
        seen += usize::from(hits.iter().any(|hit| hit.things.len() > 1 && has_all(hit, picture)));
    }
    assert!(seen >= 7, "a scene with both is among the first five for {seen} of 10 mixes");
}

fn has_all(hit: &Picture, wanted: &Picture) -> bool {
    wanted.things.iter().all(|thing| hit.things.contains(thing))
}

#[tokio::test]
async fn a_negative_part_pushes_its_thing_down() {
    let gallery = gallery().await;
    let rank = async |kind: Kind| {
        let hits = gallery.find(first(gallery.pictures.len() as u32, kind)).await;
        let place = hits.iter().position(|picture| picture.things == ["strawberry"]);
        place.expect("the gallery has strawberries")
    };
    let fruit = || part(1.0, query_part::Kind::Text("fruit".to_owned()));
    let strawberry = query_part::Kind::Text("a strawberry".to_owned());
    let before = rank(mix(vec![fruit()])).await;
    let after = rank(mix(vec![fruit(), part(-0.7, strawberry)])).await;
    assert!(before < 30, "a strawberry is a fruit: rank {before}");
    assert!(after > before + 20, "without strawberries: rank {before}, then {after}");
}

/// Recall over the gallery, as the model card has it over many more scenes: a caption is to find
/// its own picture. What other pictures it describes as well may stand before it.
#[tokio::test]
async fn recall_does_not_fall() {
    let gallery = gallery().await;
    let singles: Vec<_> = gallery.pictures.values().filter(|picture| is_single(picture)).collect();
    let (mut at_one, mut at_five) = (0, 0);
    for picture in &singles {
        let hits = gallery.find(first(5, text(&picture.caption))).await;
        let place = hits.iter().position(|hit| hit.file_name == picture.file_name);
        at_one += usize::from(place == Some(0));
        at_five += usize::from(place.is_some());
    }
    let share = |count: usize| count as f64 / singles.len() as f64;
    let (at_one, at_five) = (share(at_one), share(at_five));
    assert!(at_one >= MIN_RECALL_AT_1, "recall@1 is {at_one:.3} of {}", singles.len());
    assert!(at_five >= MIN_RECALL_AT_5, "recall@5 is {at_five:.3} of {}", singles.len());
}
