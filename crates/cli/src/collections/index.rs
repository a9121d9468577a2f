//! `clipmesh collections index`, and how an index is typed.

use clap::Subcommand;
use clipmesh_proto::ids::CollectionName;
use clipmesh_proto::search::v1 as search;
use serde::Serialize;

use super::Session;
use crate::client::parse_collection;
use crate::error::Error;
use crate::fields;
use crate::output::{self, json};

/// For `--help`.
pub(super) const HELP: &str = "\
Kinds of indexes (keyword, if none is given):
  keyword  whole strings: = and |, groups, facets, sorting     time   bounds that are times, sorting
  integer  whole numbers: = and |, bounds, groups, facets,     words  key:words
           sorting                                             geo    key@LAT,LON,METERS
  float    all numbers: = and |, bounds, sorting               boolean  true and false";

const KINDS: [search::FieldIndexKind; 7] = [
    search::FieldIndexKind::Keyword,
    search::FieldIndexKind::Integer,
    search::FieldIndexKind::Float,
    search::FieldIndexKind::Boolean,
    search::FieldIndexKind::Time,
    search::FieldIndexKind::Words,
    search::FieldIndexKind::Geo,
];

#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Make filters on a field quick; searches and writes go on meanwhile.
    #[command(after_help = HELP)]
    Add {
        /// The collection.
        #[arg(value_parser = parse_collection)]
        name: CollectionName,
        /// The field, as in `album` or `year:integer`.
        #[arg(value_name = "FIELD[:KIND]", value_parser = parse_index)]
        index: search::FieldIndex,
    },
    /// Remove an index; filters on its field go on, slower.
    #[command(visible_alias = "rm")]
    Remove {
        /// The collection.
        #[arg(value_parser = parse_collection)]
        name: CollectionName,
        /// The field, as in `album`.
        #[arg(value_parser = fields::key)]
        field: String,
    },
}

#[derive(Serialize)]
struct Removed {
    removed: String,
}

// === impl Action ===

impl Action {
    pub(super) async fn run(self, session: &Session) -> Result<(), Error> {
        match self {
            Self::Add { name, index } => add(session, &name, index).await,
            Self::Remove { name, field } => remove(session, &name, field).await,
        }
    }
}

async fn add(
    session: &Session,
    name: &CollectionName,
    index: search::FieldIndex,
) -> Result<(), Error> {
    let request =
        search::CreateFieldIndexRequest { collection: name.to_string(), field_index: Some(index) };
    let answer = session.mesh.collections().create_field_index(request).await;
    let made = answer.map_err(|status| session.error(status))?.into_inner();
    let made = made.field_index.unwrap_or_default();
    if session.is_json {
        return output::document(&json::FieldIndex::from(made));
    }
    output::line(format!("`{name}` has {}:{}", made.key, json::index_kind(made.kind())))
}

async fn remove(session: &Session, name: &CollectionName, key: String) -> Result<(), Error> {
    let request =
        search::DeleteFieldIndexRequest { collection: name.to_string(), key: key.clone() };
    let answer = session.mesh.collections().delete_field_index(request).await;
    answer.map_err(|status| session.error(status))?;
    if session.is_json {
        return output::document(&Removed { removed: key });
    }
    output::line(format!("removed the index on {key}"))
}

/// Reads `FIELD[:KIND]`.
pub(super) fn parse_index(text: &str) -> Result<search::FieldIndex, String> {
    let (name, kind) = match text.split_once(':') {
        Some((name, kind)) => (name, Some(kind)),
        None => (text, None),
    };
    let kind = match kind {
        None => search::FieldIndexKind::Unspecified,
        Some(kind) => {
            let known = KINDS.into_iter().find(|known| json::index_kind(*known) == kind);
            known.ok_or_else(|| {
                let all: Vec<_> = KINDS.into_iter().map(json::index_kind).collect();
                format!("`{kind}` is no kind of index; there are {}", all.join(", "))
            })?
        }
    };
    let key = fields::key(name)?;
    Ok(search::FieldIndex { key, kind: kind.into(), is_built_in: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_a_field_and_a_kind() {
        let parsed = |text: &str| {
            let index = parse_index(text).expect(text);
            let kind = index.kind();
            (index.key, kind)
        };
        let keyword = ("metadata.album".to_owned(), search::FieldIndexKind::Unspecified);
        assert_eq!(parsed("album"), keyword, "the kind that fits");
        for kind in KINDS {
            let text = format!("metadata.x:{}", json::index_kind(kind));
            assert_eq!(parsed(&text), ("metadata.x".to_owned(), kind), "{text}");
        }
        let refusal = parse_index("x:number").expect_err("no kind");
        assert!(refusal.contains("`number`") && refusal.contains("integer, float"), "{refusal}");
    }
}
