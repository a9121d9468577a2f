use super::*;
use crate::fields;
use crate::index::{metadata, walk};

#[test]
fn a_file_is_hashed_as_its_bytes_are() {
    let folder = tempfile::tempdir().expect("make a folder");
    let path = folder.path().join("a.jpg");
    std::fs::write(&path, b"some bytes").expect("write a file");
    let hash = hash(&path, ByteSize::mib(1)).expect("a hash");
    assert_eq!(hash, ContentHash::of(b"some bytes"), "read in pieces or at once");
}

#[test]
fn a_file_over_the_limit_is_not_read() {
    let folder = tempfile::tempdir().expect("make a folder");
    let path = folder.path().join("large.jpg");
    let file = File::create(&path).expect("make a file");
    file.set_len(5 << 20).expect("make it large");
    let reason = io_reason(&hash(&path, ByteSize::mib(4)).expect_err("too large"));
    assert_eq!(reason, "5.0 MiB are over the mesh's limit of 4.0 MiB", "both sizes");
}

/// A folder of pictures with these lines about them, and `album=x` for all.
fn gallery(names: &[&str], lines: &[&str]) -> (tempfile::TempDir, Fields) {
    let folder = tempfile::tempdir().expect("make a folder");
    for name in names {
        std::fs::write(folder.path().join(name), "x").expect("write a picture");
    }
    let metadata = folder.path().join(metadata::FILE_NAME);
    std::fs::write(metadata, lines.join("\n")).expect("write the metadata");
    let found = walk::under(&[folder.path().to_owned()]);
    let album = fields::parse_field("album=x").expect("a field");
    let (fields, _) = metadata::read(&found, fields::metadata(&[album]));
    (folder, fields)
}

#[test]
fn of_the_same_bytes_a_line_decides_and_two_must_agree() {
    let lines = [
        r#"{"file_name": "b.png", "n": 1}"#,
        r#"{"file_name": "c.png", "n": 1}"#,
        r#"{"file_name": "d.png", "n": 2}"#,
    ];
    let (folder, fields) = gallery(&["a.png", "b.png", "c.png", "d.png"], &lines);
    let path = |name: &str| folder.path().join(name);
    let mut paths = ["a.png", "b.png", "c.png", "d.png"].map(path);
    paths.sort_by_key(|path| fields.line(path));
    let (hash, mut seen) = (ContentHash::of(b"x"), HashMap::new());
    let sorted = paths.map(|path| sort((path, Ok(hash)), &fields, &HashMap::new(), &mut seen));
    let other = format!("has the bytes of `{}`, and not the same fields", path("b.png").display());
    let expected = [
        Sorted::New(path("b.png")),
        Sorted::Duplicate,
        Sorted::Failed(path("d.png"), other),
        Sorted::Duplicate,
    ];
    assert_eq!(sorted, expected, "the first with a line, and one that says otherwise");
}

#[test]
fn a_bad_line_keeps_a_twin_from_taking_the_fields_away() {
    let bad = r#"{"file_name": "b.png", "n": {}}"#;
    let (folder, fields) = gallery(&["a.png", "b.png"], &[bad]);
    let mut paths = ["a.png", "b.png"].map(|name| folder.path().join(name));
    paths.sort_by_key(|path| fields.line(path));
    let (hash, mut seen) = (ContentHash::of(b"x"), HashMap::new());
    let sorted = paths.map(|path| sort((path, Ok(hash)), &fields, &HashMap::new(), &mut seen));
    assert_eq!(sorted, [Sorted::Left, Sorted::Duplicate], "nothing is sent");
}

#[test]
fn what_is_stored_as_it_would_be_sent_is_known() {
    let (folder, fields) = gallery(&["a.png"], &[]);
    let (path, hash) = (folder.path().join("a.png"), ContentHash::of(b"x"));
    let new = upload::new_item(&fields, &path, hash);
    let item = search::Item {
        id: new.id,
        uri: new.uri,
        filename: new.filename,
        metadata: new.metadata,
        ..search::Item::default()
    };
    let sorted = |item: search::Item| {
        let stored = HashMap::from([(hash, item)]);
        sort((path.clone(), Ok(hash)), &fields, &stored, &mut HashMap::new())
    };
    assert_eq!(sorted(item.clone()), Sorted::Known, "nothing would change");
    let others = [
        search::Item { id: "mine".to_owned(), ..item.clone() },
        search::Item { uri: "/moved/a.png".to_owned(), ..item.clone() },
        search::Item { filename: "b.png".to_owned(), ..item.clone() },
        search::Item { metadata: None, ..item },
    ];
    for other in others {
        assert_eq!(sorted(other.clone()), Sorted::New(path.clone()), "it changes {other:?}");
    }
}
