use std::fs;

use prost_types::value::Kind;
use prost_types::{ListValue, Value};

use super::*;
use crate::index::walk;

/// A folder with these pictures and these lines in its `metadata.jsonl`.
fn gallery(pictures: &[&str], lines: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("make a folder");
    for picture in pictures {
        let path = folder.path().join(picture);
        fs::create_dir_all(path.parent().expect("a folder")).expect("make its folder");
        fs::write(path, "x").expect("write a picture");
    }
    fs::write(folder.path().join(FILE_NAME), lines.join("\n")).expect("write the metadata");
    folder
}

/// Reads a gallery with these `--metadata`.
fn read_with(folder: &tempfile::TempDir, arguments: &[&str]) -> (Fields, Vec<Fault>) {
    let parsed: Result<Vec<_>, _> =
        arguments.iter().map(|text| fields::parse_field(text)).collect();
    let of_all = fields::metadata(&parsed.expect("fields"));
    read(&walk::under(&[folder.path().to_owned()]), of_all)
}

/// What is told of each fault, without the path of the folder.
fn faults(folder: &tempfile::TempDir) -> Vec<String> {
    let root = format!("{}/", folder.path().display());
    let (_, faults) = read_with(folder, &[]);
    let line = |fault: Fault| format!("{}: {}", fault.place, fault.reason).replace(&root, "");
    faults.into_iter().map(line).collect()
}

/// Why the one line about `a.png` is refused.
fn refusal(line: &str) -> String {
    let folder = gallery(&["a.png"], &[line]);
    let (fields, faults) = read_with(&folder, &[]);
    assert_eq!(fields.line(&folder.path().join("a.png")), Line::Unusable, "not sent: {line}");
    let [fault] = faults.as_slice() else { panic!("one fault, not {faults:?}: {line}") };
    fault.reason.clone()
}

fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

fn text(text: &str) -> Value {
    value(Kind::StringValue(text.to_owned()))
}

#[test]
fn a_line_gives_its_picture_fields() {
    let line = r#"{"file_name": "cats/a.png", "caption": "a cat", "year": 2019, "public": true,
        "tags": ["cat", "sofa"], "none": [], "camera": null}"#
        .replace('\n', " ");
    let folder = gallery(&["cats/a.png", "b.png"], &[&line]);
    let (fields, faults) = read_with(&folder, &[]);
    assert_eq!(faults, [], "nothing is wrong");

    let list = |values| value(Kind::ListValue(ListValue { values }));
    let expected = [
        ("caption", text("a cat")),
        ("year", value(Kind::NumberValue(2019.0))),
        ("public", value(Kind::BoolValue(true))),
        ("tags", list(vec![text("cat"), text("sofa")])),
        ("none", list(Vec::new())),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value)).into_iter().collect();
    let found = fields.of(&folder.path().join("cats/a.png"));
    assert_eq!(found, Some(Struct { fields: expected }), "each with its type, and no null");
    let other = folder.path().join("b.png");
    assert!(!fields.has(&other) && fields.of(&other).is_none(), "the other has none");
}

#[test]
fn the_command_line_wins() {
    let folder = gallery(
        &["a.png", "b.png"],
        &[r#"{"file_name": "a.png", "album": "attic", "year": 1999}"#],
    );
    let (fields, faults) = read_with(&folder, &["album=holiday"]);
    assert_eq!(faults, [], "nothing is wrong");
    let of = |name: &str| fields.of(&folder.path().join(name)).expect("fields").fields;
    let a = of("a.png");
    assert_eq!(a["album"], text("holiday"), "the command line's");
    assert_eq!(a["year"], value(Kind::NumberValue(1999.0)), "the file's");
    assert_eq!(a.len(), of("b.png").len() + 1, "the other has the command line's alone");
}

#[test]
fn a_line_without_fields_takes_those_away_that_are_there() {
    let folder = gallery(&["a.png"], &[r#"{"file_name": "./a.png", "caption": null}"#]);
    let (fields, faults) = read_with(&folder, &[]);
    assert_eq!(faults, [], "nothing is wrong");
    let picture = folder.path().join("a.png");
    assert!(fields.has(&picture), "the picture is sent though it is there");
    assert_eq!(fields.of(&picture), Some(Struct::default()), "with no fields");
}

#[test]
fn every_fault_names_its_line_and_spares_the_others() {
    let folder = gallery(
        &["a.png", "b.png", "notes.txt"],
        &[
            "\u{feff}{\"file_name\": \"a.png\", \"n\": 1}\r",
            "",
            r#"{"file_name": "a.png", "n": 2}"#,
            r#"{"file_name": "a.png", "n"}"#,
            r#"{"file_name": "gone.png"}"#,
            r#"{"file_name": "notes.txt"}"#,
            r#"{"file_name": "b.png", "n": 3}"#,
        ],
    );
    let told = [
        "metadata.jsonl:3: `a.png` has its fields from metadata.jsonl:1 already",
        "metadata.jsonl:4: not a JSON object: expected `:` (column 27)",
        "metadata.jsonl:5: `gone.png`: no such file or folder",
        "metadata.jsonl:6: `notes.txt` is not among the pictures of the folder",
    ];
    assert_eq!(faults(&folder), told, "each with its line");
    let (fields, _) = read_with(&folder, &[]);
    let found = fields.of(&folder.path().join("b.png")).expect("its fields");
    assert_eq!(found.fields["n"], value(Kind::NumberValue(3.0)), "of the last line");
    assert_eq!(fields.line(&folder.path().join("a.png")), Line::Unusable, "it has two lines");
}

#[test]
fn a_picture_is_left_alone_if_a_fault_may_be_about_it() {
    let pictures = ["a.png", "b.png", "c.png", "deep/d.png", "other/e.png"];
    let lines = |folder: &tempfile::TempDir| {
        let (fields, _) = read_with(folder, &["album=x"]);
        pictures.map(|name| fields.line(&folder.path().join(name)))
    };
    use Line::{Missing, Unusable, Usable};

    let good = r#"{"file_name": "b.png"}"#;
    let named = gallery(&pictures, &[r#"{"file_name": "a.png", "exif": {}}"#, good]);
    assert_eq!(lines(&named), [Unusable, Usable, Missing, Missing, Missing], "the one it names");

    let nameless = gallery(&pictures, &[r#"{"file_name": "a.p"#, good]);
    let expected = [Unusable, Usable, Unusable, Unusable, Unusable];
    assert_eq!(lines(&nameless), expected, "all that no other line is about");

    let unreadable = gallery(&pictures, &[good]);
    fs::write(unreadable.path().join("other").join(FILE_NAME), r#"{"file_name": "e.png"}"#)
        .expect("write the metadata");
    let deep = File::create(unreadable.path().join("deep").join(FILE_NAME)).expect("make a file");
    deep.set_len(80 << 20).expect("make it large");
    let expected = [Missing, Usable, Missing, Unusable, Usable];
    assert_eq!(lines(&unreadable), expected, "all below the file");
}

#[test]
fn a_picture_of_two_files_is_a_fault_of_the_second() {
    let folder = gallery(&["deep/a.png"], &[r#"{"file_name": "deep/a.png", "from": "outer"}"#]);
    fs::write(folder.path().join("deep/metadata.jsonl"), r#"{"file_name": "a.png"}"#)
        .expect("write the metadata");
    let told = "metadata.jsonl:1: `deep/a.png` has its fields from deep/metadata.jsonl:1 already";
    assert_eq!(faults(&folder), [told], "in the order of the walk");
}

#[test]
fn says_what_is_wrong_with_a_line() {
    let kinds = "must be a string, a number, a boolean, a place, or a list of one of these";
    let cases = [
        (r#"["a.png"]"#, "not a JSON object: invalid type: sequence, expected a map"),
        (r#"{"name": "a.png"}"#, "`file_name` is missing"),
        (r#"{"file_name": 1}"#, "`file_name` must be a string"),
        (r#"{"file_name": ""}"#, "`file_name` names no file"),
        (r#"{"file_name": "../a.png"}"#, "`../a.png` must be relative to the folder"),
        (r#"{"file_name": "/a.png"}"#, "`/a.png` must be relative to the folder"),
        (r#"{"file_name": "a.png", "a b": 1}"#, "`a b` is no field"),
        (r#"{"file_name": "a.png", "exif": {"iso": 100}}"#, &format!("field `exif` {kinds}")),
        (r#"{"file_name": "a.png", "box": [[1, 2]]}"#, &format!("field `box` {kinds}")),
        (r#"{"file_name": "a.png", "tags": ["a", null]}"#, &format!("field `tags` {kinds}")),
        (r#"{"file_name": "a.png", "tags": ["a", 1]}"#, "field `tags` must be a list of one type"),
        (r#"{"file_name": "a.png", "id": 9007199254740993}"#, "field `id` is an integer that"),
    ];
    for (line, reason) in cases {
        let told = refusal(line);
        assert!(told.starts_with(reason), "{line}: {told}");
    }
}

#[test]
fn what_the_mesh_would_refuse_is_refused_with_its_line() {
    let long = format!(r#"{{"file_name": "a.png", "text": "{}"}}"#, "x".repeat(40 << 10));
    assert_eq!(refusal(&long), "fields of 40.0 KiB are over the mesh's limit of 32.0 KiB", "bytes");
    let many: Vec<String> = (0..65).map(|index| format!(r#""f{index}": 1"#)).collect();
    let many = format!(r#"{{"file_name": "a.png", {}}}"#, many.join(", "));
    assert_eq!(refusal(&many), "65 fields are over the mesh's limit of 64", "fields");
    let large = 9_007_199_254_740_992_i64;
    let folder = gallery(&["a.png"], &[&format!(r#"{{"file_name": "a.png", "id": {large}}}"#)]);
    assert_eq!(faults(&folder), [""; 0], "an integer that a double holds is a number");
}

#[test]
fn a_file_over_the_limit_is_not_read() {
    let folder = gallery(&["a.png"], &[]);
    let file = File::create(folder.path().join(FILE_NAME)).expect("make a file");
    file.set_len(80 << 20).expect("make it large");
    let told =
        "metadata.jsonl: with this file, 80.0 MiB of metadata are over the limit of 64.0 MiB";
    assert_eq!(faults(&folder), [told], "both sizes");
}

#[test]
fn the_limit_is_of_all_files_together() {
    let folder = gallery(&["a/a.png", "b/b.png"], &["", r#"{"file_name": "a/a.png"}"#]);
    let blank = " ".repeat(40 << 20);
    for name in ["a", "b"] {
        fs::write(folder.path().join(name).join(FILE_NAME), &blank).expect("write the metadata");
    }
    let told =
        "b/metadata.jsonl: with this file, 80.0 MiB of metadata are over the limit of 64.0 MiB";
    assert_eq!(faults(&folder), [told], "the second, for the first is read");
    let (fields, _) = read_with(&folder, &[]);
    let line = fields.line(&folder.path().join("a/a.png"));
    assert_eq!(line, Line::Usable, "a short one after it still fits");
}
