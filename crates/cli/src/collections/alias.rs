//! `clipmesh collections alias`.

use clap::Subcommand;
use clipmesh_proto::ids::CollectionName;
use clipmesh_proto::search::v1 as search;
use serde::Serialize;

use super::Session;
use crate::client::parse_collection;
use crate::error::Error;
use crate::output;
use crate::output::table::{Column, Table};

#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Give a collection another name, from one moment to the next.
    Set {
        /// The other name.
        #[arg(value_parser = parse_collection)]
        alias: CollectionName,
        /// The collection that it shall stand for.
        #[arg(value_parser = parse_collection)]
        collection: CollectionName,
    },
    /// Remove a name; its collection stays.
    #[command(visible_alias = "rm")]
    Delete {
        /// The other name.
        #[arg(value_parser = parse_collection)]
        alias: CollectionName,
    },
    /// List all of them.
    List,
}

#[derive(Serialize)]
struct Set {
    alias: String,
    collection: String,
    /// What it stood for before; empty if it is new.
    previous_collection: String,
}

#[derive(Serialize)]
struct Deleted {
    deleted: String,
}

#[derive(Serialize)]
struct Aliases {
    aliases: Vec<Alias>,
}

#[derive(Serialize)]
struct Alias {
    alias: String,
    collection: String,
}

// === impl Action ===

impl Action {
    pub(super) async fn run(self, session: &Session) -> Result<(), Error> {
        match self {
            Self::Set { alias, collection } => set(session, &alias, &collection).await,
            Self::Delete { alias } => delete(session, &alias).await,
            Self::List => list(session).await,
        }
    }
}

async fn set(
    session: &Session,
    alias: &CollectionName,
    collection: &CollectionName,
) -> Result<(), Error> {
    let (alias, collection) = (alias.to_string(), collection.to_string());
    let request = search::SetAliasRequest { alias: alias.clone(), collection: collection.clone() };
    let answer = session.mesh.collections().set_alias(request).await;
    let previous_collection =
        answer.map_err(|status| session.error(status))?.into_inner().previous_collection;
    if session.is_json {
        return output::document(&Set { alias, collection, previous_collection });
    }
    output::line(match previous_collection.is_empty() {
        true => format!("`{alias}` is `{collection}`"),
        false => format!("`{alias}` is `{collection}`, and was `{previous_collection}`"),
    })
}

async fn delete(session: &Session, alias: &CollectionName) -> Result<(), Error> {
    let request = search::DeleteAliasRequest { alias: alias.to_string() };
    let answer = session.mesh.collections().delete_alias(request).await;
    answer.map_err(|status| session.error(status))?;
    if session.is_json {
        return output::document(&Deleted { deleted: alias.to_string() });
    }
    output::line(format!("removed the name `{alias}`"))
}

async fn list(session: &Session) -> Result<(), Error> {
    let answer = session.mesh.collections().list_aliases(search::ListAliasesRequest {}).await;
    let aliases = answer.map_err(|status| session.error(status))?.into_inner().aliases;
    if session.is_json {
        let aliases = aliases.into_iter();
        let alias =
            |alias: search::Alias| Alias { alias: alias.alias, collection: alias.collection };
        return output::document(&Aliases { aliases: aliases.map(alias).collect() });
    }
    if aliases.is_empty() {
        return output::line("no aliases");
    }
    let mut table = Table::new(&[Column::Left("ALIAS"), Column::Left("COLLECTION")]);
    for alias in aliases {
        table.row([alias.alias, alias.collection]);
    }
    output::line(table.to_string())
}
