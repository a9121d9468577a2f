//! The fields of each picture: those of `--metadata`, and those that a folder's `metadata.jsonl`
//! has for it.
//!
//! The file is that of Hugging Face's ImageFolder data sets: a JSON object in each line, in which
//! `file_name` says which picture it is about and everything else is a field. A line that can't be
//! used is a failure of its own, and its picture is stored as if the line were not there.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};

use bytesize::ByteSize;
use prost::Message as _;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use serde_json::Value as Json;

use crate::error::io_reason;
use crate::filter;
use crate::index::walk::Found;

/// What the file is called, in any folder that is walked.
pub(crate) const FILE_NAME: &str = "metadata.jsonl";

/// For `--help`.
pub(crate) const HELP: &str = r#"Fields of each picture:
  A file `metadata.jsonl` in a folder has them, a JSON object in each line, as in Hugging Face's
  ImageFolder data sets:
    {"file_name": "cats/tom.jpg", "caption": "a cat on a sofa", "year": 2019, "tags": ["cat"]}
  `file_name` is relative to the folder of the file, with `/`. All else are fields: text, numbers,
  true, false, and lists of one of these; null is left out. --metadata wins over a field of its
  name. Of a picture that is there already, its line replaces the fields; without a line they
  stay. A line that can't be used is a failure, and its picture is taken without it. The file is
  at most 64 MiB long, and is not read for pictures that are named one by one."#;

/// The key that names the picture.
const KEY: &str = "file_name";

/// The longest file that is read; it is held in memory, and so are its fields.
const MAX_FILE_BYTES: ByteSize = ByteSize::mib(64);

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
    faults: Vec<Fault>,
}

/// Reads the fields of all pictures that were found. `of_all` are those of the command line.
pub(crate) fn read(found: &Found, of_all: Option<Struct>) -> (Fields, Vec<Fault>) {
    let mut reader = Reader {
        pictures: found.pictures.iter().map(PathBuf::as_path).collect(),
        fields: Fields { of_all, of_one: HashMap::new() },
        places: HashMap::new(),
        faults: Vec::new(),
    };
    for file in &found.metadata {
        reader.file(file);
    }
    (reader.fields, reader.faults)
}

// === impl Fields ===

impl Fields {
    /// Whether there are fields to be set, even if the picture is there already.
    pub(crate) fn has(&self, picture: &Path) -> bool {
        self.of_all.is_some() || self.of_one.contains_key(picture)
    }

    /// What to store beside the picture.
    pub(crate) fn of(&self, picture: &Path) -> Option<Struct> {
        self.of_one.get(picture).or(self.of_all.as_ref()).cloned()
    }
}

// === impl Reader ===

impl<'a> Reader<'a> {
    fn file(&mut self, file: &'a Path) {
        let text = match read_within(file, MAX_FILE_BYTES) {
            Ok(text) => text,
            Err(error) => {
                let (place, reason) = (file.display().to_string(), io_reason(&error));
                return self.faults.push(Fault { place, reason });
            }
        };
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
        let (name, mut fields) = parse(line)?;
        let folder = file.parent().unwrap_or(Path::new(""));
        let picture = folder.join(relative(&name)?);
        if !self.pictures.contains(picture.as_path()) {
            return Err(match picture.metadata() {
                Ok(_) => format!("`{name}` is not among the pictures of the folder"),
                Err(error) => format!("`{name}`: {}", io_reason(&error)),
            });
        }
        if let Some((file, number)) = self.places.get(&picture) {
            return Err(format!("`{name}` has its fields from {} already", place(file, *number)));
        }
        if let Some(of_all) = &self.fields.of_all {
            fields.fields.extend(of_all.fields.clone());
        }
        check_limits(&fields)?;
        self.places.insert(picture.clone(), (file, number));
        self.fields.of_one.insert(picture, fields);
        Ok(())
    }
}

fn place(file: &Path, number: usize) -> String {
    format!("{}:{number}", file.display())
}

/// Reads a whole file, unless it is too long.
fn read_within(path: &Path, max: ByteSize) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let length = ByteSize(file.metadata()?.len());
    if length > max {
        return Err(io::Error::other(format!("{length} are over the limit of {max}")));
    }
    let mut bytes = Vec::new();
    // It may grow while it is read, and then its last line is cut.
    file.take(max.as_u64()).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The name of the picture in a line, and its fields.
fn parse(line: &[u8]) -> Result<(String, Struct), String> {
    let mut object: serde_json::Map<String, Json> = serde_json::from_slice(line).map_err(why)?;
    let name = match object.remove(KEY) {
        Some(Json::String(name)) => name,
        Some(_) => return Err(format!("`{KEY}` must be a string")),
        None => return Err(format!("`{KEY}` is missing")),
    };
    let mut fields = Struct::default();
    for (name, value) in object {
        filter::check_name(&name)?;
        if let Some(value) = field(value).map_err(|fault| format!("field `{name}` {fault}"))? {
            fields.fields.insert(name, value);
        }
    }
    Ok((name, fields))
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

/// A field as the mesh has it; `None` for null.
fn field(value: Json) -> Result<Option<Value>, &'static str> {
    let kind = match value {
        Json::Null => return Ok(None),
        Json::Array(elements) => {
            let values = elements.into_iter().map(scalar).collect::<Result<Vec<_>, _>>()?;
            if !values.windows(2).all(|pair| is_same_type(&pair[0], &pair[1])) {
                return Err("must be a list of one type");
            }
            Kind::ListValue(ListValue { values })
        }
        Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Object(_) => {
            return scalar(value).map(Some);
        }
    };
    Ok(Some(Value { kind: Some(kind) }))
}

fn scalar(value: Json) -> Result<Value, &'static str> {
    let kind = match value {
        Json::Bool(flag) => Kind::BoolValue(flag),
        Json::String(text) => Kind::StringValue(text),
        Json::Number(number) => Kind::NumberValue(double(&number)?),
        Json::Null | Json::Array(_) | Json::Object(_) => {
            return Err("must be a string, a number, a boolean, or a list of one of these");
        }
    };
    Ok(Value { kind: Some(kind) })
}

/// Numbers are doubles to the mesh. Long integers are mostly ids, and a rounded one is another's.
fn double(number: &serde_json::Number) -> Result<f64, &'static str> {
    let double = number.as_f64().ok_or("must be a number of 64 bits")?;
    match number.as_i128() {
        Some(integer) if double as i128 != integer => {
            Err("is an integer that a double can't hold; in quotes it is text")
        }
        _ => Ok(double),
    }
}

fn is_same_type(one: &Value, other: &Value) -> bool {
    let kind = |value: &Value| value.kind.as_ref().map(std::mem::discriminant);
    kind(one) == kind(other)
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
