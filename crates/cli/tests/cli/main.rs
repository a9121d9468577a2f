//! The real binary against a real mesh: what a person types, and what a script gets back.

mod actions;
mod fields;
mod mesh;
mod questions;
mod readme;

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::mesh::{Mesh, Output, clipmesh, ended, model};

/// Writes a picture of coloured stripes; each seed gives another one.
fn picture(path: &Path, seed: u32) {
    let stripes = image::RgbImage::from_fn(64, 48, |x, y| {
        let level = |factor: u32| u8::try_from((x * factor + y * seed * 7) % 256).expect("a byte");
        image::Rgb([level(seed + 1), level(2 * seed + 3), level(5)])
    });
    stripes.save(path).expect("write a picture");
}

/// A folder with three good pictures, one of them in a folder of its own, and two bad files.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("make a folder");
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("deep")).expect("make a folder");
    picture(&path("one.png"), 1);
    picture(&path("two.jpg"), 2);
    picture(&path("deep/three.png"), 3);
    fs::write(path("notes.jpg"), "no picture at all").expect("write a file");
    let whole = fs::read(path("one.png")).expect("read a picture");
    fs::write(path("cut.png"), &whole[..whole.len() / 2]).expect("write a file");
    fs::write(path("readme.txt"), "not even pretending").expect("write a file");
    folder
}

fn names(listing: &Value, key: &str) -> Vec<String> {
    let entries = listing[key].as_array().expect("a list");
    entries.iter().map(|entry| entry["filename"].as_str().expect("a name").to_owned()).collect()
}

fn index(mesh: &Mesh, folder: &Path) -> Output {
    mesh.run(&["index", folder.to_str().expect("a plain path")])
}

#[test]
fn a_folder_is_indexed_around_its_bad_files_and_once_only() {
    let (mesh, folder) = (Mesh::start(), folder());

    let first = index(&mesh, folder.path());
    assert_eq!(first.code, 1, "some files failed: {first:?}");
    assert!(first.stdout.contains("3 indexed, 2 failed"), "summary: {first:?}");
    for bad in ["notes.jpg", "cut.png"] {
        let path = folder.path().join(bad).display().to_string();
        let lines: Vec<&str> =
            first.stderr.lines().filter(|line| line.starts_with(&path)).collect();
        let [line] = lines.as_slice() else { panic!("one line for `{bad}`: {first:?}") };
        assert!(line.len() > path.len() + 5, "with a reason: {line}");
    }
    assert!(!first.stderr.contains("readme.txt"), "other files are no business of ours");

    let again = mesh.json(&["index", folder.path().to_str().expect("a plain path")], 1);
    assert_eq!(again["indexed"], 0, "nothing is new: {again}");
    assert_eq!(again["already_there"], 3, "all good ones are known: {again}");
    assert_eq!(again["failures"].as_array().map(Vec::len), Some(2), "bad ones stay bad: {again}");

    let count = mesh.json(&["items", "count"], 0);
    assert_eq!(count["count"], 3, "each is stored once");
    mesh.stop();
}

#[test]
fn the_same_bytes_twice_are_one_item() {
    let (mesh, folder) = (Mesh::start(), tempfile::tempdir().expect("make a folder"));
    picture(&folder.path().join("a.png"), 1);
    fs::copy(folder.path().join("a.png"), folder.path().join("b.png")).expect("copy a picture");
    let path = folder.path().to_str().expect("a plain path");
    let summary = mesh.json(&["index", path], 0);
    assert_eq!((&summary["indexed"], &summary["duplicates"]), (&1.into(), &1.into()), "{summary}");

    let tagged = mesh.json(&["index", path, "--metadata", "album=holiday"], 0);
    assert_eq!(tagged["updated"], 1, "known pictures get new metadata: {tagged}");
    let found = mesh.json(&["items", "list", "--filter", "album=holiday"], 0);
    assert_eq!(names(&found, "items"), ["a.png"], "found by it");
    let none = mesh.json(&["items", "count", "--filter", "album!=holiday"], 0);
    assert_eq!(none["count"], 0, "and by nothing else");
    mesh.stop();
}

#[test]
fn a_picture_an_item_and_words_find_pictures() {
    let (mesh, folder) = (Mesh::start(), folder());
    index(&mesh, folder.path());
    let query = folder.path().join("two.jpg");
    let query = query.to_str().expect("a plain path");

    let by_image = mesh.json(&["search", "--image", query], 0);
    let hits = names(&by_image, "hits");
    assert_eq!(hits.len(), 3, "all of them: {by_image}");
    assert_eq!(hits[0], "two.jpg", "itself first: {by_image}");
    let score = by_image["hits"][0]["score"].as_f64().expect("a score");
    assert!((score - 1.0).abs() < 1e-3, "as like as can be: {score}");
    assert!(by_image["timing"]["total_ms"].as_f64() > Some(0.0), "it took some time");

    let id = by_image["hits"][0]["id"].as_str().expect("an id");
    let by_id = mesh.json(&["search", "--id", &id[..8], "--limit", "1"], 0);
    let found = names(&by_id, "hits");
    assert_eq!(found.len(), 1, "as many as asked for: {by_id}");
    assert_ne!(found[0], "two.jpg", "an item is not among its own hits");

    let by_text = mesh.json(&["search", "--text", "stripes", "--filter", "format=png"], 0);
    let mut found = names(&by_text, "hits");
    found.sort();
    assert_eq!(found, ["one.png", "three.png"], "only those that pass");
    let nothing = mesh.run(&["search", "--text", "stripes", "--filter", "width>9000"]);
    assert_eq!(nothing.code, 0, "nothing similar is an answer: {nothing:?}");
    assert!(nothing.stdout.starts_with("nothing similar in "), "and is said: {nothing:?}");

    let table = mesh.run(&["search", "--image", query]);
    let first = table.stdout.lines().nth(1).expect("a first hit");
    let cells: Vec<&str> = first.split_whitespace().collect();
    assert_eq!(cells[..3], ["1", "1.0000", "two.jpg"], "rank, score, file: {table:?}");
    assert!(table.stdout.contains("3 hits in "), "with its times: {table:?}");
    mesh.stop();
}

#[test]
fn items_are_shown_and_removed() {
    let (mesh, folder) = (Mesh::start(), folder());
    index(&mesh, folder.path());
    let listing = mesh.json(&["items", "list", "--filter", "filename=one.png"], 0);
    let id = listing["items"][0]["id"].as_str().expect("an id").to_owned();
    assert_eq!(listing["items"][0]["width"], 64, "what was learned of it: {listing}");
    let uri = listing["items"][0]["uri"].as_str().expect("an uri");
    assert!(Path::new(uri).is_absolute() && uri.ends_with("one.png"), "where it lies: {uri}");

    let page = mesh.run(&["items", "list", "--limit", "1"]);
    assert!(page.stdout.contains("1 of 3; --limit shows more"), "there are more: {page:?}");

    let thumbnail = folder.path().join("thumbnail.jpg");
    let thumbnail_path = thumbnail.to_str().expect("a plain path");
    let got = mesh.json(&["items", "get", &id[..12], "--vector", "--thumbnail", thumbnail_path], 0);
    assert_eq!(got["id"], id.as_str(), "found by its first digits");
    let vector = got["vector"].as_array().expect("a vector");
    let square = |value: &Value| value.as_f64().expect("a number").powi(2);
    let length: f64 = vector.iter().map(square).sum();
    assert!((length - 1.0).abs() < 1e-3, "of length 1: {length}");
    let small = image::open(&thumbnail).expect("a picture");
    assert!(small.width() <= 256 && small.height() <= 256, "a small one");

    let removed = mesh.run(&["items", "rm", &id]);
    assert_eq!(removed.stdout, format!("removed {id}\n"), "told in full");
    let gone = mesh.run(&["items", "get", &id]);
    assert_eq!(gone.code, 4, "not there any more: {gone:?}");
    assert_eq!(mesh.json(&["items", "count"], 0)["count"], 2, "the others are");
    mesh.stop();
}

#[test]
fn several_queries_are_one_search() {
    let (mesh, folder) = (Mesh::start(), folder());
    index(&mesh, folder.path());
    let path = |name: &str| folder.path().join(name).to_str().expect("a plain path").to_owned();
    let (one, two) = (path("one.png"), path("two.jpg"));
    let found = mesh.json(&["search", "--image", &one, "-i", &two, "--unlike-text", "night"], 0);
    let mut nearest = names(&found, "hits");
    nearest.truncate(2);
    nearest.sort();
    assert_eq!(nearest, ["one.png", "two.jpg"], "what is like both comes first: {found}");

    let id = found["hits"][0]["id"].as_str().expect("an id");
    let words = ["search", "--id", &id[..8], "--text", "stripes", "--text-share", "0.3"];
    let found = mesh.json(&words, 0);
    assert_eq!(found["hits"].as_array().map(Vec::len), Some(2), "all but the item: {found}");
    let opposed = mesh.run(&["search", "--id", id, "--unlike-id", id, "--unlike-id", id]);
    assert_eq!(opposed.code, 0, "half of it is left: {opposed:?}");
    mesh.stop();
}

#[test]
fn collections_come_and_go() {
    let mesh = Mesh::start();
    let empty = mesh.run(&["collections", "list"]);
    assert!(empty.stdout.contains("no collections yet"), "a fresh mesh: {empty:?}");
    let made = mesh.json(&["collections", "create", "holiday"], 0);
    assert_eq!(made["item_count"], 0, "empty at first: {made}");
    assert_eq!(mesh.run(&["collections", "create", "holiday"]).code, 5, "the name is taken");
    assert_eq!(mesh.run(&["collections", "create", "Holi/day"]).code, 2, "no name at all");
    let listing = mesh.json(&["collections", "list"], 0);
    assert_eq!(listing["collections"][0]["name"], "holiday", "listed: {listing}");
    assert_eq!(mesh.json(&["items", "count", "-c", "holiday"], 0)["count"], 0, "usable");
    assert_eq!(mesh.run(&["collections", "rm", "holiday", "--yes"]).code, 0, "removed");
    let unknown = mesh.run(&["search", "--text", "x", "-c", "holiday"]);
    assert_eq!(unknown.code, 4, "an unknown collection: {unknown:?}");
    assert!(unknown.stderr.contains("holiday"), "named: {unknown:?}");
    mesh.stop();
}

#[test]
fn status_tells_of_every_service() {
    let mesh = Mesh::start();
    let status = mesh.json(&["status"], 0);
    assert_eq!(status["serving"], true, "all is well: {status}");
    assert_eq!(status["services"].as_array().map(Vec::len), Some(4), "every service: {status}");
    assert_eq!(status["model"]["device"], "cpu", "the model is described: {status}");
    let text = mesh.run(&["status"]);
    assert!(text.stdout.contains("clipmesh.search.v1.SearchService"), "for people: {text:?}");
    mesh.stop();
}

#[test]
fn a_bad_query_is_refused_with_its_reason() {
    let (mesh, folder) = (Mesh::start(), folder());
    let bad = folder.path().join("notes.jpg");
    mesh.json(&["collections", "create", "images"], 0);
    let refused = mesh.run(&["search", "--image", bad.to_str().expect("a plain path")]);
    assert_eq!(refused.code, 5, "no picture: {refused:?}");
    let sentence = refused.stderr.trim_end();
    assert!(sentence.starts_with("clipmesh: ") && !sentence.contains('\n'), "one: {sentence}");
    let bad = bad.to_str().expect("a plain path");
    let refused = mesh.run(&["search", "--text", "a stripe", "--unlike-image", bad]);
    assert_eq!(refused.code, 5, "no picture among other queries: {refused:?}");
    let named = format!("clipmesh: --unlike-image {bad}: ");
    assert!(refused.stderr.starts_with(&named), "named as it was typed: {refused:?}");
    let missing = mesh.run(&["search", "--image", "no/such/file.jpg"]);
    assert_eq!(missing.code, 2, "no file: {missing:?}");
    assert!(missing.stderr.contains("no such file"), "said plainly: {missing:?}");
    mesh.stop();
}

#[test]
fn an_interrupt_stops_the_mesh_in_order() {
    let mesh = Mesh::start();
    let (code, log) = mesh.interrupt();
    assert_eq!(code, Some(0), "a clean stop; its log:\n{log}");
    let at = |name: &str| {
        let line = log.lines().position(|line| {
            line.contains("service stopped") && line.contains(&format!("\"{name}\""))
        });
        line.unwrap_or_else(|| panic!("`{name}` stopped; the log:\n{log}"))
    };
    assert!(at("gateway") < at("search"), "the door before the rooms:\n{log}");
    assert!(at("search") < at("embedder"), "callers before callees:\n{log}");
}

#[test]
fn a_restarted_mesh_has_kept_everything() {
    let folder = folder();
    let data = tempfile::tempdir().expect("make a folder");
    let mesh = Mesh::start_at(data.path());
    index(&mesh, folder.path());
    mesh.stop();
    let mesh = Mesh::start_at(data.path());
    assert_eq!(mesh.json(&["items", "count"], 0)["count"], 3, "as it was left");
    let again = mesh.json(&["index", folder.path().to_str().expect("a plain path")], 1);
    assert_eq!(again["already_there"], 3, "and known: {again}");
    mesh.stop();
}

#[test]
fn indexing_goes_on_where_a_killed_mesh_left_off() {
    const PICTURES: u32 = 200;
    let folder = tempfile::tempdir().expect("make a folder");
    for seed in 0..PICTURES {
        picture(&folder.path().join(format!("{seed}.png")), seed);
    }
    let data = tempfile::tempdir().expect("make a folder");
    let mut mesh = Mesh::start_at(data.path());
    let address = mesh.address().to_owned();
    mesh.json(&["collections", "create", "images"], 0);
    let path = folder.path().to_str().expect("a plain path");
    // One at a time, so that it is still at it when the mesh is killed.
    let mut indexing = mesh.spawn(&["index", path, "--in-flight", "1"]);
    while mesh.json(&["items", "count"], 0)["count"].as_u64() < Some(5) {}
    mesh.kill();
    let ended_before = indexing.try_wait().expect("ask for its status");
    assert_eq!(ended_before, None, "it was still at work");

    let mesh = Mesh::start_on(&address, data.path());
    let indexed = ended(indexing);
    assert_eq!(indexed.code, 0, "it went on by itself: {indexed:?}");
    let summary = format!("{PICTURES} indexed in ");
    assert!(indexed.stdout.starts_with(&summary), "none is lost or told twice: {indexed:?}");
    assert!(indexed.stderr.contains("the connection was lost"), "and said so: {indexed:?}");
    assert_eq!(mesh.json(&["items", "count"], 0)["count"], PICTURES, "all are there");
    mesh.stop();
}

#[test]
fn without_a_mesh_the_way_out_is_told() {
    // Port 1 is reserved, and nobody listens there.
    let output = clipmesh(&["status", "--server", "127.0.0.1:1"]);
    assert_eq!(output.code, 3, "unreachable: {output:?}");
    assert!(output.stderr.contains("`clipmesh up` starts a mesh"), "what to do: {output:?}");
    let nothing = clipmesh(&["search", "--limit", "3"]);
    assert_eq!(nothing.code, 2, "nothing to look for: {nothing:?}");
}

#[test]
fn settings_are_checked_before_anything_starts() {
    let default = clipmesh(&["up", "--check-config"]);
    assert_eq!(default.code, 0, "nothing must be set: {default:?}");
    let nameless = clipmesh(&["up", "--model", "", "--check-config"]);
    assert_eq!(nameless.code, 64, "an empty name: {nameless:?}");
    assert!(nameless.stderr.contains("`model` must name"), "the field: {nameless:?}");

    let model = model().to_str().expect("a plain path").to_owned();
    let fine = clipmesh(&["up", "--model", &model, "--check-config"]);
    assert_eq!(fine.code, 0, "nothing else is: {fine:?}");
    let printed = clipmesh(&["up", "--model", &model, "--listen", "127.0.0.1:9", "--print-config"]);
    let settings = printed.stdout.parse::<toml::Table>().expect("TOML");
    assert_eq!(settings["gateway"]["listen"].as_str(), Some("127.0.0.1:9"), "as given");

    let folder = tempfile::tempdir().expect("make a folder");
    let file = folder.path().join("mesh.toml");
    fs::write(&file, "[gateway]\nlistne = '127.0.0.1:9'\n").expect("write a file");
    let file = file.to_str().expect("a plain path");
    let misspelt = clipmesh(&["up", "--model", &model, "--config", file, "--check-config"]);
    assert_eq!(misspelt.code, 64, "a misspelt key: {misspelt:?}");
    assert!(misspelt.stderr.contains("listne"), "named: {misspelt:?}");
}

#[test]
fn a_model_folder_is_understood() {
    let output = clipmesh(&["model", "inspect", model().to_str().expect("a plain path")]);
    assert_eq!(output.code, 0, "a model made by us: {output:?}");
    let missing = clipmesh(&["model", "inspect", "no/such/folder"]);
    assert_ne!(missing.code, 0, "no model: {missing:?}");
    assert!(missing.stderr.contains("no/such/folder"), "named: {missing:?}");
}
