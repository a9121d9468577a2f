//! What can be done to items and collections, line by line.

use std::fs;

use serde_json::json;

use crate::mesh::Mesh;
use crate::{names, picture};

/// Three pictures, indexed in the order of their names.
fn three() -> (Mesh, tempfile::TempDir, Vec<String>) {
    let (mesh, folder) = (Mesh::start(), tempfile::tempdir().expect("make a folder"));
    mesh.json(&["collections", "create", "images", "--index", "year:integer"], 0);
    let mut ids = Vec::new();
    for seed in 1..=3 {
        let file = folder.path().join(format!("{seed}.png"));
        picture(&file, seed);
        let year = format!("year={}", 2020 + seed);
        let path = file.to_str().expect("a plain path");
        mesh.json(&["index", path, "--metadata", &year], 0);
        let listed = mesh.json(&["items", "list", "--filter", &year], 0);
        ids.push(listed["items"][0]["id"].as_str().expect("an id").to_owned());
    }
    (mesh, folder, ids)
}

#[test]
fn items_are_sorted_drawn_and_checked() {
    let (mesh, folder, ids) = three();
    let sorted = mesh.json(&["items", "list", "--sort", "year desc"], 0);
    assert_eq!(names(&sorted, "items"), ["3.png", "2.png", "1.png"], "the latest first: {sorted}");
    let table = mesh.run(&["items", "list", "--sort", "year", "-n", "2"]);
    assert!(table.stdout.contains("YEAR") && table.stdout.contains("2 of 3"), "{table:?}");
    assert_eq!(mesh.run(&["items", "list", "--sort", "album"]).code, 5, "it has no index");

    let drawn = mesh.json(&["items", "sample", "-n", "2", "--seed", "7"], 0);
    let again = mesh.json(&["items", "sample", "-n", "2", "--seed", "7"], 0);
    assert_eq!(names(&drawn, "items").len(), 2, "two: {drawn}");
    assert_eq!(drawn, again, "one seed draws the same");
    let free = mesh.json(&["items", "sample"], 0);
    let seed = free["seed"].as_u64().expect("a seed").to_string();
    assert_eq!(mesh.json(&["items", "sample", "--seed", &seed], 0), free, "told and taken");

    let file = folder.path().join("1.png");
    let file = file.to_str().expect("a plain path");
    let there = mesh.json(&["items", "check", &ids[0], "--file", file], 0);
    assert_eq!(there, json!({"there": [ids[0], file], "missing": []}), "both are");
    let missing = mesh.json(&["items", "check", &ids[1], "nobody"], 4);
    assert_eq!(missing, json!({"there": [ids[1]], "missing": ["nobody"]}), "one is not");
    mesh.stop();
}

#[test]
fn an_item_is_changed_and_nothing_of_it_is_lost() {
    let (mesh, folder, ids) = three();
    let id = ids[0].as_str();
    let before = mesh.json(&["items", "get", id], 0);
    let set = ["items", "update", id, "--set", "tag=a", "--set", "tag=b", "--filename", "new.png"];
    let updated = mesh.json(&set, 0);
    assert_eq!(updated["metadata"], json!({"tag": ["a", "b"], "year": 2021}), "merged: {updated}");
    assert_eq!(updated["filename"], "new.png", "renamed: {updated}");
    assert_eq!(updated["uri"], before["uri"], "all else stays: {updated}");
    let unset = mesh.json(&["items", "update", id, "--unset", "tag"], 0);
    assert_eq!(unset["metadata"], json!({"year": 2021}), "removed: {unset}");
    let etag = before["etag"].as_str().expect("an etag");
    let late = mesh.run(&["items", "update", id, "--set", "tag=c", "--etag", etag]);
    assert_eq!(late.code, 6, "somebody has changed it since: {late:?}");

    let other = folder.path().join("other.png");
    picture(&other, 9);
    let other = other.to_str().expect("a plain path");
    let replaced = mesh.json(&["items", "replace-image", id, other], 0);
    assert_eq!(replaced["replaced"], true, "another picture: {replaced}");
    assert_eq!(replaced["item"]["metadata"], json!({"year": 2021}), "with its fields: {replaced}");
    let found = mesh.json(&["search", "--image", other, "-n", "1"], 0);
    assert_eq!(found["hits"][0]["id"], id, "found by it: {found}");

    let file = folder.path().join("small.jpg");
    let path = file.to_str().expect("a plain path");
    assert_eq!(mesh.run(&["items", "thumbnail", id, path]).code, 0, "written");
    assert!(image::open(&file).is_ok(), "a picture");
    mesh.stop();
}

#[test]
fn many_items_are_removed_only_when_it_is_meant() {
    let (mesh, _folder, _ids) = three();
    let filter = ["items", "delete", "--filter", "year>=2022"];
    let refused = mesh.run(&filter);
    assert_eq!(refused.code, 2, "nobody can be asked: {refused:?}");
    assert!(refused.stderr.contains("2 items would be removed"), "what would be: {refused:?}");
    let deleted = mesh.json(&[&filter[..], &["--yes"]].concat(), 0);
    assert_eq!(deleted["deleted_count"], 2, "those that pass: {deleted}");
    assert_eq!(mesh.json(&["items", "count"], 0)["count"], 1, "and no other");
    mesh.stop();
}

#[test]
fn a_collection_is_shown_changed_and_renamed() {
    let (mesh, _folder, _ids) = three();
    let shown = mesh.json(&["collections", "get", "images"], 0);
    let indexes = shown["field_indexes"].as_array().expect("indexes");
    let year = json!({"key": "metadata.year", "kind": "integer", "is_built_in": false});
    assert!(indexes.contains(&year), "what it was made with: {shown}");
    let changed = mesh.json(&["collections", "update", "images", "--links", "32"], 0);
    assert_eq!(changed["vector_index"]["links"], 32, "changed: {changed}");
    assert_eq!(
        changed["vector_index"]["build_effort"], shown["vector_index"]["build_effort"],
        "nothing else is: {changed}"
    );
    let stats = mesh.json(&["collections", "stats", "images"], 0);
    assert_eq!(stats["item_count"], 3, "how large it is: {stats}");
    let text = mesh.run(&["collections", "stats", "images"]);
    assert!(text.stdout.contains("cached answers"), "for people: {text:?}");

    let set = mesh.json(&["collections", "alias", "set", "now", "images"], 0);
    assert_eq!(set["previous_collection"], "", "a new name: {set}");
    assert_eq!(mesh.json(&["items", "count", "-c", "now"], 0)["count"], 3, "the same items");
    let listed = mesh.json(&["collections", "alias", "list"], 0);
    let expected = json!([{"alias": "now", "collection": "images"}]);
    assert_eq!(listed["aliases"], expected, "listed");
    mesh.json(&["collections", "alias", "delete", "now"], 0);
    assert_eq!(mesh.run(&["items", "count", "-c", "now"]).code, 4, "the name is gone");
    mesh.stop();
}

#[test]
fn a_collection_is_not_removed_by_accident() {
    let (mesh, _folder, _ids) = three();
    let refused = mesh.run(&["collections", "delete", "images"]);
    assert_eq!(refused.code, 2, "nobody can type its name: {refused:?}");
    assert!(refused.stderr.contains("`images` with 3 items"), "what would be lost: {refused:?}");
    assert_eq!(mesh.json(&["items", "count"], 0)["count"], 3, "all is there");
    let deleted = mesh.json(&["collections", "delete", "images", "--yes"], 0);
    assert_eq!(deleted["deleted"], "images", "meant: {deleted}");
    mesh.stop();
}

#[test]
fn ready_vectors_are_indexed_around_bad_lines() {
    let (mesh, folder, ids) = three();
    let shown = mesh.json(&["items", "get", &ids[0], "--vector"], 0);
    let vector = &shown["vector"];
    let lines = [
        json!({"id": "sku-1", "vector": vector, "metadata": {"year": 1999}}).to_string(),
        json!({"id": "sku-2", "vector": [1.0]}).to_string(),
        "no line at all".to_owned(),
        json!({"id": "sku-3", "vector": vector}).to_string(),
    ];
    let file = folder.path().join("vectors.jsonl");
    fs::write(&file, lines.join("\n")).expect("write a file");
    let path = file.to_str().expect("a plain path");
    let summary = mesh.json(&["index", "--vectors", path, "-m", "shop=x"], 1);
    assert_eq!((&summary["indexed"], &summary["failed"]), (&2.into(), &2.into()), "{summary}");
    let failed: Vec<_> = summary["failures"].as_array().expect("failures").iter().collect();
    for line in [2, 3] {
        let place = format!("{path}:{line}");
        assert!(
            failed.iter().any(|failure| failure["path"] == place.as_str()),
            "{place}: {summary}"
        );
    }
    let again = mesh.json(&["index", "--vectors", path, "-m", "shop=x"], 1);
    assert_eq!(again["already_there"], 2, "a second run finds them: {again}");
    let item = mesh.json(&["items", "get", "sku-1"], 0);
    assert_eq!(item["metadata"], json!({"shop": "x", "year": 1999}), "with its fields: {item}");
    let found = mesh.json(&["search", "--item", "sku-1", "-n", "2"], 0);
    let near: Vec<_> =
        found["hits"].as_array().expect("hits").iter().map(|hit| &hit["id"]).collect();
    assert!(near.contains(&&json!("sku-3")), "found like any other: {found}");
    mesh.stop();
}
