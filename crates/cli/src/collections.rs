//! `clipmesh collections`: what sets of pictures there are.

use clap::{Args, Subcommand};
use clipmesh_proto::ids::CollectionName;
use clipmesh_proto::search::v1 as search;
use serde::Serialize;

use crate::client::{Connection, Mesh, parse_collection};
use crate::error::Error;
use crate::output;
use crate::output::json;
use crate::output::table::{Column, Table};

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
    Create {
        /// 1 to 64 of `a-z`, `0-9`, `-` and `_`.
        #[arg(value_parser = parse_collection)]
        name: CollectionName,
    },
    /// Remove a collection with all its items; asks first on a terminal.
    Rm {
        #[arg(value_parser = parse_collection)]
        name: CollectionName,
        /// Don't ask.
        #[arg(long, short)]
        yes: bool,
    },
}

#[derive(Serialize)]
struct Listing {
    collections: Vec<json::Collection>,
}

#[derive(Serialize)]
struct Deleted {
    deleted: String,
}

// === impl Command ===

impl Command {
    pub(crate) async fn run(self) -> Result<(), Error> {
        let mesh = Mesh::new(&self.connection)?;
        let is_json = self.connection.json;
        match self.action {
            Action::List => list(&mesh, is_json).await,
            Action::Create { name } => create(&mesh, &name, is_json).await,
            Action::Rm { name, yes } => remove(&mesh, &name, yes, is_json).await,
        }
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

/// Makes a collection. The status is left as it is, for callers that can do with `ALREADY_EXISTS`.
pub(crate) async fn make(
    mesh: &Mesh,
    name: &CollectionName,
) -> Result<search::Collection, tonic::Status> {
    let request = search::CreateCollectionRequest {
        name: name.to_string(),
        distance: search::Distance::Cosine.into(),
        ..search::CreateCollectionRequest::default()
    };
    let answer = mesh.collections().create_collection(request).await?.into_inner();
    answer.collection.ok_or_else(|| tonic::Status::internal("the new collection is not named"))
}

pub(crate) fn table(collections: &[search::Collection]) -> Table {
    let mut table = Table::new(&[
        Column::Left("NAME"),
        Column::Right("ITEMS"),
        Column::Left("MODEL"),
        Column::Right("DIMENSION"),
        Column::Left("CREATED"),
    ]);
    for collection in collections {
        table.row([
            collection.name.clone(),
            collection.item_count.to_string(),
            collection.model_name.clone(),
            collection.dimension.to_string(),
            collection.create_time.map(output::local_time).unwrap_or_default(),
        ]);
    }
    table
}

async fn list(mesh: &Mesh, is_json: bool) -> Result<(), Error> {
    let collections = all(mesh).await?;
    if is_json {
        let collections = collections.into_iter().map(json::Collection::from).collect();
        return output::document(&Listing { collections });
    }
    if collections.is_empty() {
        return output::line("no collections yet; `clipmesh index PATH` makes one");
    }
    output::line(table(&collections).to_string())
}

async fn create(mesh: &Mesh, name: &CollectionName, is_json: bool) -> Result<(), Error> {
    let collection = make(mesh, name).await.map_err(|status| mesh.error(status))?;
    if is_json {
        return output::document(&json::Collection::from(collection));
    }
    output::line(format!(
        "made `{name}` for {}, {} dimensions",
        collection.model_name, collection.dimension
    ))
}

async fn remove(mesh: &Mesh, name: &CollectionName, yes: bool, is_json: bool) -> Result<(), Error> {
    if !yes {
        let request = search::GetCollectionRequest { name: name.to_string() };
        let answer = mesh.collections().get_collection(request).await;
        let found = answer.map_err(|status| mesh.error(status))?.into_inner();
        let items = found.collection.map_or(0, |collection| collection.item_count);
        let items = output::count(items, "item");
        if !output::confirmed(&format!("Remove `{name}` with {items} for good?"))? {
            return output::line("nothing was removed");
        }
    }
    let request = search::DeleteCollectionRequest { name: name.to_string() };
    let answer = mesh.collections().delete_collection(request).await;
    answer.map_err(|status| mesh.error(status))?;
    if is_json {
        return output::document(&Deleted { deleted: name.to_string() });
    }
    output::line(format!("removed `{name}`"))
}
