//! What `metadata.jsonl` and `--metadata` do to pictures, those that are there already among them.

use std::fs;

use crate::mesh::Mesh;
use crate::{names, picture};

#[test]
fn a_folder_tells_of_its_pictures() {
    let (mesh, folder) = (Mesh::start(), tempfile::tempdir().expect("make a folder"));
    for (name, seed) in [("a.png", 1), ("b.png", 2), ("c.png", 3)] {
        picture(&folder.path().join(name), seed);
    }
    let metadata = folder.path().join("metadata.jsonl");
    let tell = |lines: &[&str]| fs::write(&metadata, lines.join("\n")).expect("write a file");
    let a = r#"{"file_name": "a.png", "tags": ["cat", "sofa"], "year": 2019, "album": "attic"}"#;
    tell(&[a, r#"{"file_name": "b.png", "year": 2021}"#, r#"{"file_name": "gone.png"}"#]);
    let path = folder.path().to_str().expect("a plain path");
    let found = |filter| names(&mesh.json(&["items", "list", "--filter", filter], 0), "items");

    let first = mesh.json(&["index", path], 1);
    assert_eq!(first["indexed"], 3, "all pictures, the one without fields too: {first}");
    let failure = serde_json::json!({
        "path": format!("{}:3", metadata.display()),
        "reason": "`gone.png`: no such file or folder",
    });
    assert_eq!(first["failures"], serde_json::json!([failure]), "the line is named: {first}");
    assert_eq!(found("year<2020"), ["a.png"], "a number");
    assert_eq!(found("tags=sofa"), ["a.png"], "an element of a list");
    assert_eq!(found("!year?"), ["c.png"], "no line, no fields");

    tell(&[a, r#"{"file_name": "b.png", "year": 2018}"#]);
    let second = mesh.json(&["index", path], 0);
    let counts = (&second["updated"], &second["already_there"]);
    assert_eq!(counts, (&1.into(), &2.into()), "only what has changed is written: {second}");
    assert_eq!(second["sent"], 1, "and sent: {second}");
    assert_eq!(found("year=2018"), ["b.png"], "the new value");

    let third = mesh.json(&["index", path, "--metadata", "album=holiday"], 0);
    assert_eq!(third["updated"], 3, "the command line's is of all: {third}");
    assert_eq!(found("album=attic"), [""; 0], "and wins");
    assert_eq!(found("tags=cat"), ["a.png"], "over fields of its name alone");
    mesh.stop();
}

#[test]
fn what_is_stored_is_not_sent_again_and_no_bad_line_takes_its_fields() {
    let (mesh, folder) = (Mesh::start(), tempfile::tempdir().expect("make a folder"));
    for (name, seed) in [("a.png", 1), ("b.png", 2), ("c.png", 3)] {
        picture(&folder.path().join(name), seed);
    }
    let metadata = folder.path().join("metadata.jsonl");
    let tell = |lines: &[&str]| fs::write(&metadata, lines.join("\n")).expect("write a file");
    let a = r#"{"file_name": "a.png", "tags": ["cat"], "none": [], "year": 2019, "score": 0.1}"#;
    tell(&[a, r#"{"file_name": "b.png"}"#]);
    let path = folder.path().to_str().expect("a plain path");
    let count = |filter| mesh.json(&["items", "count", "--filter", filter], 0)["count"].clone();

    for arguments in [&["index", path][..], &["index", path, "--metadata", "album=x"]] {
        mesh.json(arguments, 0);
        let again = mesh.json(arguments, 0);
        let counts = (&again["sent"], &again["already_there"]);
        assert_eq!(counts, (&0.into(), &3.into()), "nothing has changed: {again}");
    }

    tell(&[&a.replace("2019", "{}"), r#"{"file_name": "b.png"}"#]);
    let bad = mesh.json(&["index", path, "--metadata", "album=y"], 1);
    let counts = (&bad["updated"], &bad["left_as_is"], &bad["failed"]);
    assert_eq!(counts, (&2.into(), &1.into(), &1.into()), "the others are: {bad}");
    assert_eq!(count("tags=cat"), 1, "its fields are still there");
    assert_eq!((count("album=x"), count("album=y")), (1.into(), 2.into()), "as they were");

    tell(&["{"]);
    let worse = mesh.json(&["index", path, "--metadata", "album=z"], 1);
    let counts = (&worse["sent"], &worse["left_as_is"]);
    assert_eq!(counts, (&0.into(), &3.into()), "it may be about any: {worse}");
    mesh.stop();
}
