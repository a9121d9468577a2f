//! `clipmesh collections`: what sets of pictures there are, and how they are searched.

mod alias;
mod create;
mod delete;
mod index;
mod show;
mod stats;
mod update;

use clap::{Args, Subcommand};
use clipmesh_proto::ids::CollectionName;
use clipmesh_proto::search::v1 as search;
use serde::Serialize;

use crate::client::{Connection, Mesh, parse_collection};
use crate::error::Error;
use crate::output::{self, json};

pub(crate) use create::make;
pub(crate) use show::table;

/// Collections in one answer: the most that the contract allows.
const PAGE_SIZE: u32 = 1_000;

#[derive(Debug, Args)]
pub(crate) struct Command {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the collections by name.
    List,
    /// Make an empty collection for the model that the mesh runs now.
    #[command(after_help = index::HELP)]
    Create(create::Create),
    /// Show one collection.
    Get(Named),
    /// Show how large a collection is, and how well it and its caches do.
    Stats(Named),
    /// Change how a collection is searched.
    Update(update::Update),
    /// Remove a collection with all its items; asks for its name on a terminal.
    #[command(visible_alias = "rm")]
    Delete(delete::Delete),
    /// Forget every answer that was found in a collection.
    ClearCache(Named),
    /// Add and remove indexes that make filters quick.
    #[command(subcommand)]
    Index(index::Action),
    /// Set, remove and list other names of collections.
    #[command(subcommand)]
    Alias(alias::Action),
}

/// A collection, or an alias of it.
#[derive(Debug, Args)]
struct Named {
    #[arg(value_parser = parse_collection)]
    name: CollectionName,
}

#[derive(Serialize)]
struct Listing {
    collections: Vec<json::Collection>,
}

#[derive(Serialize)]
struct Cleared {
    cleared: String,
}

/// One run.
struct Session {
    mesh: Mesh,
    is_json: bool,
}

// === impl Command ===

impl Command {
    pub(crate) async fn run(self) -> Result<(), Error> {
        let session = Session { mesh: Mesh::new(&self.connection)?, is_json: self.connection.json };
        match self.action {
            Action::List => session.list().await,
            Action::Create(create) => create.run(&session).await,
            Action::Get(Named { name }) => session.get(&name).await,
            Action::Stats(Named { name }) => stats::run(&session, &name).await,
            Action::Update(update) => update.run(&session).await,
            Action::Delete(delete) => delete.run(&session).await,
            Action::ClearCache(Named { name }) => session.clear_cache(&name).await,
            Action::Index(action) => action.run(&session).await,
            Action::Alias(action) => action.run(&session).await,
        }
    }
}

// === impl Session ===

impl Session {
    fn error(&self, status: tonic::Status) -> Error {
        self.mesh.error(status)
    }

    async fn list(&self) -> Result<(), Error> {
        let collections = all(&self.mesh).await?;
        if self.is_json {
            let collections = collections.into_iter().map(json::Collection::from).collect();
            return output::document(&Listing { collections });
        }
        if collections.is_empty() {
            return output::line("no collections yet; `clipmesh index PATH` makes one");
        }
        output::line(table(&collections).to_string())
    }

    async fn get(&self, name: &CollectionName) -> Result<(), Error> {
        let found = self.find(name).await?;
        if self.is_json {
            return output::document(&json::Collection::from(found));
        }
        output::line(show::facts(found).to_string())
    }

    async fn find(&self, name: &CollectionName) -> Result<search::Collection, Error> {
        let request = search::GetCollectionRequest { name: name.to_string() };
        let answer = self.mesh.collections().get_collection(request).await;
        let answer = answer.map_err(|status| self.error(status))?.into_inner();
        Ok(answer.collection.unwrap_or_default())
    }

    async fn clear_cache(&self, name: &CollectionName) -> Result<(), Error> {
        let request = search::ClearCacheRequest { name: name.to_string() };
        let answer = self.mesh.collections().clear_cache(request).await;
        answer.map_err(|status| self.error(status))?;
        if self.is_json {
            return output::document(&Cleared { cleared: name.to_string() });
        }
        output::line(format!("forgot the answers of `{name}`"))
    }
}

/// Every collection of the mesh, over all pages.
pub(crate) async fn all(mesh: &Mesh) -> Result<Vec<search::Collection>, Error> {
    let mut collections = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = search::ListCollectionsRequest { page_size: PAGE_SIZE, page_token };
        let answer = mesh.collections().list_collections(request).await;
        let page = answer.map_err(|status| mesh.error(status))?.into_inner();
        collections.extend(page.collections);
        if page.next_page_token.is_empty() {
            return Ok(collections);
        }
        page_token = page.next_page_token;
    }
}
