//! `clipmesh items check`.

use std::path::PathBuf;

use clap::Args;
use clipmesh_proto::ids::ContentHash;
use clipmesh_proto::search::v1 as search;
use serde::Serialize;

use super::Session;
use crate::error::Error;
use crate::input::{self, STDIN};
use crate::output;

/// Ids and hashes in one call: the most that the contract allows.
const BATCH: usize = 1_000;

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(super) struct Check {
    /// Ids, whole; `-` reads them from standard input, one in each line.
    #[arg(value_name = "ID")]
    ids: Vec<String>,

    /// A file whose picture some item may have, under any id. May be repeated.
    #[arg(long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// An id or a file, and what is looked for.
struct Asked {
    name: String,
    is_hash: bool,
    value: String,
}

#[derive(Serialize)]
struct Checked {
    there: Vec<String>,
    missing: Vec<String>,
}

// === impl Check ===

impl Check {
    /// Ends with the code of what is not found if any of them is missing, for scripts.
    pub(super) async fn run(&self, session: &Session) -> Result<(), Error> {
        let asked = self.asked().await?;
        let mut checked = Checked { there: Vec::new(), missing: Vec::new() };
        for batch in asked.chunks(BATCH) {
            let answer = look_up(session, batch).await?;
            for asked in batch {
                let list = if asked.is_hash { &answer.content_hashes } else { &answer.ids };
                let found = list.contains(&asked.value);
                let names = if found { &mut checked.there } else { &mut checked.missing };
                names.push(asked.name.clone());
            }
        }
        let is_complete = checked.missing.is_empty();
        if session.is_json {
            output::document(&checked)?;
        } else {
            for name in &checked.there {
                output::line(name)?;
            }
            for name in &checked.missing {
                output::note(format!("not there: {name}"));
            }
            let of = output::count(asked.len() as u64, "item");
            output::note(format!("{} of {of} are there", checked.there.len()));
        }
        let nothing = Error::NotFound(String::new()).exit_code();
        if is_complete { Ok(()) } else { Err(Error::Told(nothing)) }
    }

    async fn asked(&self) -> Result<Vec<Asked>, Error> {
        let mut asked = Vec::new();
        for id in &self.ids {
            if id == STDIN {
                let text = input::text(STDIN.as_ref()).await?;
                let lines = text.lines().filter(|line| !line.is_empty());
                asked.extend(lines.map(Asked::id));
            } else {
                asked.push(Asked::id(id));
            }
        }
        for path in &self.files {
            let value = ContentHash::of(&input::bytes(path).await?).to_string();
            asked.push(Asked { name: path.display().to_string(), is_hash: true, value });
        }
        Ok(asked)
    }
}

// === impl Asked ===

impl Asked {
    fn id(id: &str) -> Self {
        Self { name: id.to_owned(), is_hash: false, value: id.to_owned() }
    }
}

async fn look_up(session: &Session, batch: &[Asked]) -> Result<search::CheckItemsResponse, Error> {
    let of_kind = |is_hash: bool| {
        let asked = batch.iter().filter(|asked| asked.is_hash == is_hash);
        asked.map(|asked| asked.value.clone()).collect()
    };
    let request = search::CheckItemsRequest {
        collection: session.collection(),
        ids: of_kind(false),
        content_hashes: of_kind(true),
    };
    let answer = session.mesh.items().check_items(request).await;
    Ok(answer.map_err(|status| session.error(status))?.into_inner())
}
