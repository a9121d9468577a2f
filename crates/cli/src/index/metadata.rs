//! The fields of each picture: those of `--metadata`, and those that a folder's `metadata.jsonl`
//! has for it.
//!
//! The file is that of Hugging Face's ImageFolder data sets: a JSON object in each line, in which
//! `file_name` says which picture it is about and everything else is a field. A line that can't be
//! used is a failure of its own, and its picture is left as it is: sent without the line, it would
//! lose the fields that it was stored with.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};

use bytesize::ByteSize;
use prost::Message as _;
use prost_types::Struct;
use serde_json::Value as Json;

use crate::error::io_reason;
use crate::fields;
use crate::index::walk::Found;

/// What the file is called, in any folder that is walked.
pub(crate) const FILE_NAME: &str = "metadata.jsonl";

/// For `--help`.
pub(crate) const HELP: &str = r#"Fields of each picture:
  A file `metadata.jsonl` in a folder has them, a JSON object in each line, as in Hugging Face's
  ImageFolder data sets:
    {"file_name": "cats/tom.jpg", "caption": "a cat on a sofa", "year": 2019, "tags": ["cat"]}
  `file_name` is relative to the folder of the file, with `/`. All else are fields: text, numbers,
  true, false, places ({"lat": 52.5, "lon": 13.4}), and lists of one of these; null is left out.
  --metadata wins over a field of its name. Of a picture that is there already, its line replaces
  the fields; without a line they stay. Of files with the same bytes, one with a line is taken;
  those whose lines differ from its own are failures.
  A line that can't be used is a failure, and its picture is left as it is, or left out. So are all
  that may be meant if the line doesn't tell which, and all below if the file can't be read. All
  these files together have at most 64 MiB, and none is read for pictures that are named one by
  one."#;

/// The key that names the picture.
const KEY: &str = "file_name";

/// How much is read of all files together, for the fields of all are held in memory.
const MAX_TOTAL_BYTES: ByteSize = ByteSize::mib(64);

/// What the mesh takes of one picture. It would refuse more itself, but without the line; and a
/// message longer than it reads would end the stream of all.
const MAX_FIELDS: usize = 64;
const MAX_BYTES: ByteSize = ByteSize::kib(32);

/// What is to be stored beside pictures.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    of_all: Option<Struct>,
    /// With those of all pictures in them.
    of_one: HashMap<PathBuf, Struct>,
    unusable: HashSet<PathBuf>,
}

/// What a metadata file says of a picture, in the order in which pictures have to be looked at:
/// two files may have the same bytes, and then the one that comes first decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Line {
    /// Something that can't be used, or may be meant for it. It must not be sent.
    Unusable,
    Usable,
    Missing,
}

/// What can't be used of a metadata file, and why.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The file, or a line of it: `gallery/metadata.jsonl:12`.
    pub(crate) place: String,
    pub(crate) reason: String,
}

struct Reader<'a> {
    pictures: HashSet<&'a Path>,
    fields: Fields,
    /// The file and line that had a picture first.
    places: HashMap<PathBuf, (&'a Path, usize)>,
    /// Folders whose file, or a line of it, doesn't tell which pictures it is about.
    in_doubt: HashSet<&'a Path>,
    bytes_read: u64,
    faults: Vec<Fault>,
}

/// A line that says which picture it is about.
struct Entry {
    name: String,
    /// Below the folder of the file.
    path: PathBuf,
    fields: serde_json::Map<String, Json>,
}

/// Reads the fields of all pictures that were found. `of_all` are those of the command line.
pub(crate) fn read(found: &Found, of_all: Option<Struct>) -> (Fields, Vec<Fault>) {
    let mut reader = Reader {
        pictures: found.pictures.iter().map(PathBuf::as_path).collect(),
        fields: Fields { of_all, ..Fields::default() },
        places: HashMap::new(),
        in_doubt: HashSet::new(),
        bytes_read: 0,
        faults: Vec::new(),
    };
    for file in &found.metadata {
        reader.file(file);
    }
    reader.finish()
}

// === impl Fields ===

impl Fields {
    /// Whether there are fields to be set, even if the picture is there already.
    pub(crate) fn has(&self, picture: &Path) -> bool {
        self.of_all.is_some() || self.of_one.contains_key(picture)
    }

    pub(crate) fn line(&self, picture: &Path) -> Line {
        if self.unusable.contains(picture) {
            Line::Unusable
        } else if self.of_one.contains_key(picture) {
            Line::Usable
        } else {
            Line::Missing
        }
    }

    /// What to store beside the picture.
    pub(crate) fn of(&self, picture: &Path) -> Option<Struct> {
        self.of_one.get(picture).or(self.of_all.as_ref()).cloned()
    }
}

// === impl Reader ===

impl<'a> Reader<'a> {
    fn file(&mut self, file: &'a Path) {
        let text = match read_within(file, self.bytes_read) {
            Ok(text) => text,
            Err(error) => {
                self.in_doubt.insert(folder(file));
                let (place, reason) = (file.display().to_string(), io_reason(&error));
                return self.faults.push(Fault { place, reason });
            }
        };
        self.bytes_read += text.len() as u64;
        // Some editors begin a file with a byte order mark.
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
        for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
            let number = index + 1;
            if line.trim_ascii().is_empty() {
                continue;
            }
            if let Err(reason) = self.line(file, number, line) {
                self.faults.push(Fault { place: place(file, number), reason });
            }
        }
    }

    fn line(&mut self, file: &'a Path, number: usize, line: &[u8]) -> Result<(), String> {
        let folder = folder(file);
        let Entry { name, path, fields } = match parse(line) {
            Ok(entry) => entry,
            Err(reason) => {
                self.in_doubt.insert(folder);
                return Err(reason);
            }
        };
        let picture = folder.join(path);
        match self.fields_of(&picture, &name, fields) {
            Ok(fields) => {
                self.places.insert(picture.clone(), (file, number));
                self.fields.of_one.insert(picture, fields);
                Ok(())
            }
            Err(reason) => {
                self.fields.unusable.insert(picture);
                Err(reason)
            }
        }
    }

    fn fields_of(
        &self,
        picture: &Path,
        name: &str,
        object: serde_json::Map<String, Json>,
    ) -> Result<Struct, String> {
        if !self.pictures.contains(picture) {
            return Err(match picture.metadata() {
                Ok(_) => format!("`{name}` is not among the pictures of the folder"),
                Err(error) => format!("`{name}`: {}", io_reason(&error)),
            });
        }
        if let Some((file, number)) = self.places.get(picture) {
            return Err(format!("`{name}` has its fields from {} already", place(file, *number)));
        }
        let mut fields = fields::json::object(object)?;
        if let Some(of_all) = &self.fields.of_all {
            fields.fields.extend(of_all.fields.clone());
        }
        check_limits(&fields)?;
        Ok(fields)
    }

    fn finish(mut self) -> (Fields, Vec<Fault>) {
        let may_be_meant = self.pictures.iter().filter(|picture| self.is_in_doubt(picture));
        let may_be_meant: Vec<_> = may_be_meant.map(|picture| picture.to_path_buf()).collect();
        self.fields.unusable.extend(may_be_meant);
        for picture in &self.fields.unusable {
            self.fields.of_one.remove(picture);
        }
        (self.fields, self.faults)
    }

    /// Whether a file that doesn't tell all its pictures may mean this one. It does not if another
    /// of its lines tells of it.
    fn is_in_doubt(&self, picture: &Path) -> bool {
        let told_by = self.places.get(picture).map(|(file, _)| folder(file));
        let mut folders = picture.ancestors().skip(1);
        folders.any(|folder| self.in_doubt.contains(folder) && told_by != Some(folder))
    }
}

fn folder(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new(""))
}

fn place(file: &Path, number: usize) -> String {
    format!("{}:{number}", file.display())
}

/// Reads a whole file, unless it is too long after the `bytes_read` of those before it.
fn read_within(path: &Path, bytes_read: u64) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let total = ByteSize(bytes_read.saturating_add(file.metadata()?.len()));
    if total > MAX_TOTAL_BYTES {
        let reason =
            format!("with this file, {total} of metadata are over the limit of {MAX_TOTAL_BYTES}");
        return Err(io::Error::other(reason));
    }
    let mut bytes = Vec::new();
    // It may grow while it is read, and then its last line is cut.
    file.take(MAX_TOTAL_BYTES.as_u64() - bytes_read).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The picture of a line, and what else is in it.
fn parse(line: &[u8]) -> Result<Entry, String> {
    let mut fields: serde_json::Map<String, Json> = serde_json::from_slice(line).map_err(why)?;
    let name = match fields.remove(KEY) {
        Some(Json::String(name)) => name,
        Some(_) => return Err(format!("`{KEY}` must be a string")),
        None => return Err(format!("`{KEY}` is missing")),
    };
    let path = relative(&name)?;
    Ok(Entry { name, path, fields })
}

/// Why a line is no object. Every line is a text of its own to the parser, so that the number it
/// tells is always 1.
fn why(error: serde_json::Error) -> String {
    let column = error.column();
    let text = error.to_string();
    let reason = text.rsplit_once(" at line ").map_or(&*text, |(reason, _)| reason);
    format!("not a JSON object: {reason} (column {column})")
}

/// The path below the folder that a `file_name` means.
fn relative(name: &str) -> Result<PathBuf, String> {
    let mut path = PathBuf::new();
    for component in Path::new(name).components() {
        match component {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(format!("`{name}` must be relative to the folder and stay inside it"));
            }
        }
    }
    if path.as_os_str().is_empty() {
        return Err(format!("`{KEY}` names no file"));
    }
    Ok(path)
}

fn check_limits(fields: &Struct) -> Result<(), String> {
    let (count, length) = (fields.fields.len(), ByteSize(fields.encoded_len() as u64));
    if count > MAX_FIELDS {
        return Err(format!("{count} fields are over the mesh's limit of {MAX_FIELDS}"));
    }
    if length > MAX_BYTES {
        return Err(format!("fields of {length} are over the mesh's limit of {MAX_BYTES}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
