//! What README tells people to type works as it is printed.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::mesh::Mesh;
use crate::picture;

const README: &str = include_str!("../../../../README.md");

/// The part of README in which a mesh runs, with everything that can be asked of it.
const START: &str = "and in another terminal:\n";
const END: &str = "### With Qdrant and Redis\n";

/// The lines of all blocks, in their order.
fn script() -> String {
    let (_, rest) = README.split_once(START).expect("README tells to open another terminal");
    let (part, _) = rest.split_once(END).expect("README goes on with Qdrant and Redis");
    let blocks = part.split("```sh\n").skip(1);
    blocks.map(|block| block.split_once("```").expect("a block ends").0).collect()
}

/// A home with the files that README names.
fn home(mesh: &Mesh) -> tempfile::TempDir {
    let home = tempfile::tempdir().expect("make a folder");
    let at = |name: &str| home.path().join(name);
    fs::create_dir_all(at("Pictures/cats")).expect("make a folder");
    for (seed, name) in ["cat.jpg", "chair.jpg", "x.jpg", "new.jpg"].iter().enumerate() {
        picture(&at(name), seed as u32);
    }
    let lines = [
        json!({"caption": "a cat on a sofa", "album": "attic", "year": 2019}),
        json!({"caption": "a red cat", "album": "a", "year": 2021, "taken": "2026-04-01T00:00:00Z"}),
        json!({"album": "trash", "place": {"lat": 52.5, "lon": 13.4}}),
    ];
    let mut metadata = String::new();
    for (seed, mut line) in (10..).zip(lines) {
        let name = format!("cats/{seed}.png");
        picture(&at("Pictures").join(&name), seed);
        line["file_name"] = name.into();
        metadata += &format!("{line}\n");
    }
    fs::write(at("Pictures/metadata.jsonl"), metadata).expect("write a file");

    let vector = vector(mesh, &at("new.jpg"));
    let item = |id| json!({"id": id, "vector": &vector, "metadata": {"draft": true}}).to_string();
    let items = [item("sku-1"), item("sku-2")].join("\n");
    fs::write(at("vectors.jsonl"), items).expect("write a file");
    let search = json!({"text": "a cat", "filter": ["year>=2020"], "limit": 5}).to_string();
    fs::write(at("searches.jsonl"), search).expect("write a file");
    home
}

/// Any vector of the model.
fn vector(mesh: &Mesh, file: &Path) -> serde_json::Value {
    let path = file.to_str().expect("a plain path");
    mesh.json(&["index", path, "-c", "other"], 0);
    let listed = mesh.json(&["items", "list", "-c", "other"], 0);
    let id = listed["items"][0]["id"].as_str().expect("an id");
    mesh.json(&["items", "get", id, "--vector", "-c", "other"], 0)["vector"].take()
}

#[test]
fn every_line_of_readme_runs_as_it_is_printed() {
    let mesh = Mesh::start();
    let home = home(&mesh);
    let script = script();
    assert!(script.lines().count() > 30, "README has a line for each kind of question: {script}");
    let ran = mesh.script(&script, home.path());
    assert_eq!(ran.code, 0, "the last command that is told failed:\n{}", ran.stderr);
    mesh.stop();
}
