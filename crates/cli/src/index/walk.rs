//! Which files are pictures, and which tell of them.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use crate::error::io_reason;
use crate::index::metadata;

/// Endings of the formats that an embedder reads; a file that is named on the command line may
/// have any.
const EXTENSIONS: [&str; 11] =
    ["avif", "bmp", "gif", "jfif", "jpe", "jpeg", "jpg", "png", "tif", "tiff", "webp"];

/// A file or folder that can't be looked at, and why.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unreadable {
    pub(crate) path: PathBuf,
    pub(crate) reason: String,
}

/// What is under the paths of a run, in the order of the walk.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) pictures: Vec<PathBuf>,
    /// Every [`metadata::FILE_NAME`] of a folder that was walked.
    pub(crate) metadata: Vec<PathBuf>,
    pub(crate) unreadable: Vec<Unreadable>,
}

/// Every picture under `paths`: those that are named, and those in named folders by their ending;
/// with the files that tell of them.
///
/// Sorted within each folder, so that two runs go the same way. Hidden files and folders (`.git`,
/// macOS's `._x.jpg`) are skipped inside folders, and links to folders are not followed, so that
/// no walk goes in circles.
pub(crate) fn under(paths: &[PathBuf]) -> Found {
    let mut found = Found::default();
    for path in paths {
        let entries = WalkDir::new(path).sort_by_file_name().into_iter();
        for entry in entries.filter_entry(|entry| entry.depth() == 0 || !is_hidden(entry)) {
            match entry {
                Ok(entry) if is_picture(&entry) => found.pictures.push(entry.into_path()),
                Ok(entry) if is_metadata(&entry) => found.metadata.push(entry.into_path()),
                Ok(_) => {}
                Err(error) => found.unreadable.push(Unreadable {
                    path: error.path().unwrap_or(path).to_owned(),
                    reason: reason(&error),
                }),
            }
        }
    }
    // A file may be named twice, or be in a folder that is named too.
    for files in [&mut found.pictures, &mut found.metadata] {
        let mut seen = HashSet::new();
        files.retain(|path| seen.insert(path.clone()));
    }
    found
}

fn is_picture(entry: &DirEntry) -> bool {
    // Follows links, so that a link to a file counts as one; a broken one is left to be told of.
    let is_folder = entry.path().is_dir();
    let is_named = entry.depth() == 0;
    !is_folder && (is_named || has_image_extension(entry.path()))
}

fn is_metadata(entry: &DirEntry) -> bool {
    // As with pictures, a broken link is left to be told of.
    let is_inside = entry.depth() > 0;
    is_inside && entry.file_name() == metadata::FILE_NAME && !entry.path().is_dir()
}

fn has_image_extension(path: &Path) -> bool {
    let Some(extension) = path.extension().and_then(OsStr::to_str) else { return false };
    EXTENSIONS.contains(&extension.to_ascii_lowercase().as_str())
}

fn is_hidden(entry: &DirEntry) -> bool {
    entry.file_name().as_encoded_bytes().starts_with(b".")
}

fn reason(error: &walkdir::Error) -> String {
    match error.io_error() {
        Some(error) => io_reason(error),
        None => io_reason(&io::Error::other(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("make a folder");
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().expect("a folder")).expect("make its folder");
            fs::write(path, "x").expect("write a file");
        }
        folder
    }

    fn names(folder: &tempfile::TempDir, paths: &[&str]) -> Vec<String> {
        let paths: Vec<PathBuf> = paths.iter().map(|path| folder.path().join(path)).collect();
        let found = under(&paths);
        assert_eq!(found.unreadable, [], "everything can be read");
        let relative = |path: PathBuf| {
            path.strip_prefix(folder.path()).expect("inside").to_string_lossy().into_owned()
        };
        found.pictures.into_iter().map(relative).collect()
    }

    #[test]
    fn finds_pictures_in_order_and_skips_the_hidden() {
        let folder = folder(&["b.JPG", "a/z.png", "a/notes.txt", ".git/x.png", "a/._z.png"]);
        assert_eq!(names(&folder, &[""]), ["a/z.png", "b.JPG"], "sorted");
    }

    #[test]
    fn a_named_file_needs_no_ending() {
        let folder = folder(&["scan", ".hidden.png"]);
        assert_eq!(names(&folder, &["scan", ".hidden.png"]), ["scan", ".hidden.png"], "as named");
    }

    #[test]
    fn a_file_named_twice_is_one() {
        let folder = folder(&["a.png"]);
        assert_eq!(names(&folder, &["a.png", "a.png"]), ["a.png"], "once");
    }

    #[test]
    fn metadata_is_read_in_folders_only() {
        let folder = folder(&["metadata.jsonl", "a/metadata.jsonl", "a/METADATA.csv", "b.png"]);
        let root = folder.path().to_owned();
        let files = [root.join("a/metadata.jsonl"), root.join("metadata.jsonl")];
        let walked = under(&[root.clone(), root.join("a")]);
        assert_eq!(walked.metadata, files, "in every folder, and each once");
        let named = under(&[root.join("b.png"), root.join("metadata.jsonl")]);
        assert!(named.metadata.is_empty(), "what is named is taken for a picture");
        assert_eq!(named.pictures.len(), 2, "both");
    }

    #[test]
    fn says_what_is_not_there() {
        let missing = PathBuf::from("no/such/folder");
        let found = under(std::slice::from_ref(&missing));
        assert!(found.pictures.is_empty(), "nothing was found");
        let reason = "no such file or folder".to_owned();
        assert_eq!(found.unreadable, [Unreadable { path: missing, reason }], "and it is said");
    }
}
