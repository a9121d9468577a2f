//! Aliases, as they are written down.
//!
//! The file names collections by their uid: an alias of a collection that went can't come to stand
//! for a later one of the same name, whenever a crash comes.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clipmesh_proto::ids::CollectionName;
use serde::{Deserialize, Serialize};

use super::folder::write_atomically;
use crate::store::Error;

const FILE: &str = "aliases.json";
/// Raised when the file's fields change their meaning.
const VERSION: u32 = 1;

/// Aliases, and the uids of the collections that they stand for.
pub(super) type Aliases = BTreeMap<CollectionName, String>;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u32,
    aliases: BTreeMap<String, String>,
}

/// Reads the aliases of a root. None were written where there is no file.
///
/// # Errors
/// A file that can't be used: without it nobody knows what is live.
pub(super) fn read(root: &Path) -> Result<Aliases, Error> {
    let path = path(root);
    let unusable =
        |why: String| Error::Failed(format!("`{}` can't be used: {why}", path.display()));
    let json = match fs::read(&path) {
        Ok(json) => json,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Aliases::new()),
        Err(error) => return Err(unusable(error.to_string())),
    };
    let written: Written =
        serde_json::from_slice(&json).map_err(|error| unusable(error.to_string()))?;
    if written.version != VERSION {
        return Err(unusable(format!("it is of version {}", written.version)));
    }
    let named = written.aliases.into_iter().map(|(alias, uid)| {
        let alias = CollectionName::try_from(alias).map_err(|error| unusable(error.to_string()))?;
        Ok((alias, uid))
    });
    named.collect()
}

/// Brings the aliases of a root onto the disk, all or none of what changed.
pub(super) fn write(root: &Path, aliases: &Aliases) -> io::Result<()> {
    let named = aliases.iter().map(|(alias, uid)| (alias.to_string(), uid.clone()));
    let written = Written { version: VERSION, aliases: named.collect() };
    write_atomically(&path(root), &serde_json::to_vec_pretty(&written)?)
}

fn path(root: &Path) -> PathBuf {
    root.join(FILE)
}
