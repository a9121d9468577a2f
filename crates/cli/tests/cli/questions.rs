//! A line for each kind of question, against a gallery whose pictures are told apart by fields.

use std::fs;

use serde_json::{Value, json};

use crate::mesh::Mesh;
use crate::{names, picture};

/// Six pictures of two labels, and one of them again in another format.
fn gallery() -> (Mesh, tempfile::TempDir) {
    let (mesh, folder) = (Mesh::start(), tempfile::tempdir().expect("make a folder"));
    let lines = [
        (1, json!({"label": "cat", "year": 2019, "caption": "a red dress on a chair"})),
        (2, json!({"label": "cat", "year": 2020, "caption": "a red chair"})),
        (3, json!({"label": "cat", "year": 2021, "taken": "2021-05-01T12:00:00Z"})),
        (4, json!({"label": "dog", "year": 2022, "at": {"lat": 52.52, "lon": 13.4}})),
        (5, json!({"label": "dog", "year": 2023, "at": {"lat": 48.85, "lon": 2.35}})),
        (6, json!({"label": "dog", "tags": ["blue", "round"]})),
    ];
    let mut metadata = String::new();
    for (seed, mut fields) in lines {
        let name = format!("{seed}.png");
        picture(&folder.path().join(&name), seed);
        fields["file_name"] = name.into();
        metadata += &format!("{fields}\n");
    }
    fs::write(folder.path().join("metadata.jsonl"), metadata).expect("write a file");
    picture(&folder.path().join("1.bmp"), 1);
    let indexes = ["--index", "label", "--index", "year:integer", "--words", "caption"];
    mesh.json(&[&["collections", "create", "images"][..], &indexes].concat(), 0);
    let path = folder.path().to_str().expect("a plain path");
    let summary = mesh.json(&["index", path], 0);
    assert_eq!(summary["indexed"], 7, "all of them: {summary}");
    (mesh, folder)
}

fn path(folder: &tempfile::TempDir, name: &str) -> String {
    folder.path().join(name).to_str().expect("a plain path").to_owned()
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}

#[test]
fn every_condition_picks_its_items() {
    let (mesh, _folder) = gallery();
    let table: [(&[&str], &[&str]); 13] = [
        (&["--filter", "label=cat"], &["1.png", "2.png", "3.png"]),
        (&["--filter", "year=2019|2023"], &["1.png", "5.png"]),
        (&["--filter", "year>=2020", "--filter", "year<2022"], &["2.png", "3.png"]),
        (&["--filter", "caption~RED D"], &["1.png"]),
        (&["--filter", "caption:chair red"], &["1.png", "2.png"]),
        (&["--filter", "taken>2021-01-01T00:00:00Z"], &["3.png"]),
        (&["--filter", "at@52.5,13.5,20000"], &["4.png"]),
        (&["--filter", "tags=round"], &["6.png"]),
        (&["--filter", "!label?"], &["1.bmp"]),
        (&["--filter", "label=dog and (year=2022 or tags=blue)"], &["4.png", "6.png"]),
        (&["--filter", "!(label=cat or label=dog)"], &["1.bmp"]),
        (&["--filter", "create_time<2020-01-01"], &[]),
        (&["--filter-json", r#"{"must":[{"key":"format","match":"bmp"}]}"#], &["1.bmp"]),
    ];
    for (filter, expected) in table {
        let listed = mesh.json(&[&["items", "list"][..], filter].concat(), 0);
        assert_eq!(sorted(names(&listed, "items")), expected, "listed: {filter:?}");
        let counted = mesh.json(&[&["items", "count"][..], filter].concat(), 0);
        assert_eq!(counted["count"], expected.len(), "counted: {filter:?}");
        let found = mesh.json(&[&["search", "--text", "x"][..], filter].concat(), 0);
        assert_eq!(sorted(names(&found, "hits")), expected, "found: {filter:?}");
    }
    mesh.stop();
}

#[test]
fn a_search_takes_vectors_words_and_all_of_its_options() {
    let (mesh, folder) = gallery();
    let listed = mesh.json(&["items", "list", "--filter", "filename=4.png"], 0);
    let id = listed["items"][0]["id"].as_str().expect("an id").to_owned();
    let shown = mesh.json(&["items", "get", &id, "--vector"], 0);
    let file = path(&folder, "vector.json");
    fs::write(&file, shown.to_string()).expect("write a file");
    let by_vector = mesh.json(&["search", "--vector", &file, "--exact", "-n", "1"], 0);
    assert_eq!(by_vector["hits"][0]["id"], id.as_str(), "itself: {by_vector}");
    let alone = shown["vector"].to_string();
    let away = mesh.json(&["search", "--item", &id, "--unlike-vector", &alone], 0);
    assert!(!names(&away, "hits").is_empty(), "half of it is left: {away}");

    let by_words = mesh.json(&["search", "--words", "dress"], 0);
    assert_eq!(names(&by_words, "hits"), ["1.png"], "the one with the word: {by_words}");
    assert!(by_words["hits"][0]["word_score"].as_f64() > Some(0.0), "by its words: {by_words}");
    let fused =
        ["search", "--image", &path(&folder, "2.png"), "--words", "red", "--words-weight", "2"];
    let fused = mesh.json(&fused, 0);
    assert_eq!(names(&fused, "hits")[0], "2.png", "first in both rankings: {fused}");
    assert!(fused["hits"][0]["fused_score"].as_f64() > Some(0.0), "fused: {fused}");

    let image = path(&folder, "5.png");
    let grouped = mesh.json(&["search", "-i", &image, "--group-by", "label:2"], 0);
    let groups = grouped["groups"].as_array().expect("groups");
    assert_eq!(groups.len(), 2, "a group of each label: {grouped}");
    assert_eq!(groups[0]["value"], "dog", "the best hit's first: {grouped}");
    assert!(groups.iter().all(|group| group["hits"].as_array().map(Vec::len) == Some(2)), "two");
    let table = mesh.run(&["search", "-i", &image, "--group-by", "label"]);
    assert!(table.stdout.contains("metadata.label = dog"), "for people: {table:?}");

    let diverse = mesh.json(&["search", "-i", &image, "--diversity", "0.9", "-n", "3"], 0);
    assert_eq!(diverse["hits"].as_array().map(Vec::len), Some(3), "three: {diverse}");
    assert_eq!(names(&diverse, "hits")[0], "5.png", "the nearest first: {diverse}");
    let part = ["search", "-i", &image, "-n", "1", "--fields", "year", "--vectors"];
    let part = mesh.json(&part, 0);
    let hit = &part["hits"][0];
    assert_eq!(hit["metadata"], json!({"year": 2023}), "what was asked for: {hit}");
    assert!(hit["filename"].is_null() && hit["vector"].is_array(), "and nothing else: {hit}");
    let table = mesh.run(&["search", "-i", &image, "-n", "1", "--fields", "year,label"]);
    assert!(table.stdout.contains("YEAR  LABEL"), "its own columns: {table:?}");
    let opposite = mesh.json(&["search", "-i", &image, "--offset", "1", "--effort", "100"], 0);
    assert_eq!(opposite["hits"][0]["rank"], 2, "the second: {opposite}");
    mesh.stop();
}

#[test]
fn a_batch_answers_each_of_its_lines() {
    let (mesh, folder) = gallery();
    let lines = [
        json!({"image": path(&folder, "3.png"), "limit": 1}),
        json!({"words": "dress", "fields": "label"}),
        json!({"id": "nobody"}),
    ];
    let text = lines.map(|line| line.to_string()).join("\n\n");
    let file = path(&folder, "searches.jsonl");
    fs::write(&file, text).expect("write a file");
    let answers = mesh.json(&["search", "--batch", &file], 1);
    let results = answers["results"].as_array().expect("results");
    assert_eq!(results.len(), 3, "one for each: {answers}");
    assert_eq!(names(&results[0], "hits"), ["3.png"], "by picture: {answers}");
    assert_eq!(results[1]["hits"][0]["metadata"]["label"], "cat", "by words: {answers}");
    let error = results[2]["error"].as_str().expect("an error");
    assert!(error.contains("nobody"), "what is wrong: {answers}");
    let told = mesh.run(&["search", "--batch", &file]);
    assert!(told.stderr.contains("line 5: "), "where it is: {told:?}");

    fs::write(&file, r#"{"text": "x", "limit": 0}"#).expect("write a file");
    let refused = mesh.run(&["search", "--batch", &file]);
    assert_eq!(refused.code, 2, "before anything is sent: {refused:?}");
    assert!(refused.stderr.contains("searches.jsonl:1: "), "where it is: {refused:?}");
    mesh.stop();
}

#[test]
fn pictures_are_classified_counted_and_compared() {
    let (mesh, folder) = gallery();
    let image = path(&folder, "1.png");
    let voted = mesh.json(&["classify", "-i", &image, "--field", "label", "-k", "1"], 0);
    let best = &voted["predictions"][0];
    assert_eq!(best["label"], "cat", "its own label: {voted}");
    assert!((best["score"].as_f64().expect("a score") - 1.0).abs() < 1e-6, "all votes: {voted}");
    let all = ["classify", "-i", &image, "--field", "label", "-k", "6", "--uniform"];
    let all = mesh.json(&all, 0);
    let scores: Vec<f64> = predictions(&all).iter().filter_map(|it| it["score"].as_f64()).collect();
    assert_eq!(scores, [0.5, 0.5], "three of each: {all}");
    let table = mesh.run(&["classify", "-i", &image, "--field", "label"]);
    assert!(table.stdout.contains("LABEL") && table.stdout.contains("cat"), "{table:?}");

    let counted = mesh.json(&["facet", "label", "--filter", "year>=2020"], 0);
    let expected = json!([{"value": "cat", "count": 2}, {"value": "dog", "count": 2}]);
    assert_eq!(counted["values"], expected, "by value: {counted}");
    assert_eq!(mesh.run(&["facet", "caption"]).code, 5, "it has no index");

    let exact = mesh.json(&["duplicates"], 0);
    let groups = exact["groups"].as_array().expect("groups");
    assert_eq!(groups.len(), 1, "one picture is there twice: {exact}");
    let other = &groups[0]["duplicates"][0];
    assert_eq!(
        (&other["same_bytes"], &other["same_pixels"]),
        (&false.into(), &true.into()),
        "{exact}"
    );
    let near = mesh.json(&["duplicates", "--near", "--threshold", "-1", "-n", "1"], 0);
    let group = &near["groups"][0];
    assert_eq!(group["duplicates"].as_array().map(Vec::len), Some(6), "all of them: {near}");
    let table = mesh.run(&["duplicates"]);
    assert!(table.stdout.contains("keep") && table.stdout.ends_with("1 group\n"), "{table:?}");
    mesh.stop();
}

fn predictions(voted: &Value) -> &Vec<Value> {
    voted["predictions"].as_array().expect("predictions")
}

#[test]
fn a_slow_filter_says_how_it_gets_quick() {
    let (mesh, folder) = gallery();
    let slow = mesh.run(&["items", "count", "--filter", "tags=round"]);
    assert_eq!((slow.code, slow.stdout.as_str()), (0, "1\n"), "it is right: {slow:?}");
    let command = "clipmesh collections index add images metadata.tags:keyword";
    assert!(slow.stderr.contains(command), "and says what would help: {slow:?}");
    let batch = path(&folder, "searches.jsonl");
    let line = json!({"text": "x", "filter": ["tags=round"]}).to_string();
    fs::write(&batch, [line.as_str(), line.as_str()].join("\n")).expect("write a file");
    let batch = mesh.run(&["search", "--batch", &batch]);
    assert_eq!(batch.stderr.matches(command).count(), 1, "many searches need it once: {batch:?}");
    let arguments: Vec<&str> = command.split(' ').skip(1).collect();
    mesh.json(&arguments, 0);
    let quick = mesh.run(&["items", "count", "--filter", "tags=round"]);
    assert_eq!((quick.stdout.as_str(), quick.stderr.as_str()), ("1\n", ""), "no note: {quick:?}");
    mesh.json(&["collections", "index", "remove", "images", "tags"], 0);
    let again = mesh.json(&["items", "count", "--filter", "tags=round"], 0);
    assert_eq!(again["unindexed_fields"], json!(["metadata.tags"]), "for programs: {again}");
    mesh.stop();
}

#[test]
fn a_repeated_search_says_that_its_answer_was_cached() {
    let (mesh, _folder) = gallery();
    let ask = || mesh.run(&["search", "--text", "stripes"]).stdout;
    assert!(!ask().contains("answer cached"), "nobody has asked");
    assert!(ask().contains("answer cached"), "the same again");
    mesh.json(&["collections", "clear-cache", "images"], 0);
    let cleared = ask();
    assert!(cleared.contains("vector cached"), "only the answer is forgotten: {cleared}");
    assert!(!cleared.contains("answer cached"), "it is asked again: {cleared}");
    mesh.stop();
}
