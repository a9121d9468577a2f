//! `clipmesh items`: what is in a collection.

use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{Args, Subcommand};
use clipmesh_proto::search::v1 as search;
use serde::Serialize;

use crate::client::{Connection, Mesh, Scope};
use crate::error::Error;
use crate::filter;
use crate::output::table::{Column, Table};
use crate::output::{self, json};

/// Items in one answer: the most that the contract allows.
const MAX_PAGE_SIZE: u32 = 1_000;

#[derive(Debug, Args)]
pub(crate) struct Command {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List items.
    #[command(after_help = filter::HELP)]
    List(List),
    /// Show one item.
    Get(Get),
    /// Remove items.
    Rm {
        /// Ids; the first digits of a long one will do.
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
    },
    /// Count items.
    #[command(after_help = filter::HELP)]
    Count {
        /// Only items that pass, as in `format=jpeg`; see below.
        #[arg(long = "filter", short, value_name = "CONDITION", value_parser = filter::parse_term)]
        filters: Vec<filter::Term>,
    },
}

#[derive(Debug, Args)]
struct List {
    /// Only items that pass, as in `format=jpeg`; see below.
    #[arg(long = "filter", short, value_name = "CONDITION", value_parser = filter::parse_term)]
    filters: Vec<filter::Term>,

    /// Most items to show.
    #[arg(
        long,
        short = 'n',
        value_name = "N",
        default_value_t = 50,
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    limit: u64,

    /// Show them all.
    #[arg(long, short, conflicts_with = "limit")]
    all: bool,
}

#[derive(Debug, Args)]
struct Get {
    /// The item's id; the first digits of a long one will do.
    id: String,

    /// Show the vector too.
    #[arg(long)]
    vector: bool,

    /// Write the small picture to this file.
    #[arg(long, value_name = "FILE")]
    thumbnail: Option<PathBuf>,
}

#[derive(Serialize)]
struct Listing {
    items: Vec<json::Item>,
    /// Whether there are items beyond these.
    has_more: bool,
}

#[derive(Serialize)]
struct One {
    #[serde(flatten)]
    item: json::Item,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    vector: Vec<f32>,
}

#[derive(Serialize)]
struct Deleted {
    deleted: Vec<String>,
}

#[derive(Serialize)]
struct Count {
    count: u64,
}

/// One run over one collection.
struct Session {
    mesh: Mesh,
    scope: Scope,
    is_json: bool,
}

// === impl Command ===

impl Command {
    pub(crate) async fn run(self) -> Result<(), Error> {
        let session = Session {
            mesh: Mesh::new(&self.connection)?,
            scope: self.scope,
            is_json: self.connection.json,
        };
        match self.action {
            Action::List(list) => session.list(&list).await,
            Action::Get(get) => session.get(&get).await,
            Action::Rm { ids } => session.remove(&ids).await,
            Action::Count { filters } => session.count(&filters).await,
        }
    }
}

// === impl Session ===

impl Session {
    async fn list(&self, list: &List) -> Result<(), Error> {
        let limit = if list.all { u64::MAX } else { list.limit };
        let (items, has_more) = self.collect(&list.filters, limit).await?;
        if self.is_json {
            let items = items.into_iter().map(json::Item::from).collect();
            return output::document(&Listing { items, has_more });
        }
        if items.is_empty() {
            return output::line(match list.filters.is_empty() {
                true => format!("no items in `{}`", self.scope.collection),
                false => "no item passes".to_owned(),
            });
        }
        output::line(table(&items).to_string())?;
        if has_more {
            let count = self.total(&list.filters).await?;
            output::line("")?;
            output::line(format!("{} of {count}; --limit shows more, --all all", items.len()))?;
        }
        Ok(())
    }

    /// Up to `limit` items over as many pages as it takes, and whether there are more.
    async fn collect(
        &self,
        filters: &[filter::Term],
        limit: u64,
    ) -> Result<(Vec<search::Item>, bool), Error> {
        let mut items: Vec<search::Item> = Vec::new();
        let mut page_token = String::new();
        // Every page of a listing is asked for with the same size.
        let page_size = u32::try_from(limit).unwrap_or(MAX_PAGE_SIZE).min(MAX_PAGE_SIZE);
        loop {
            let request = search::ListItemsRequest {
                collection: self.scope.collection.to_string(),
                filter: filter::all_of(filters),
                page_size,
                page_token,
                ..search::ListItemsRequest::default()
            };
            let answer = self.mesh.items().list_items(request).await;
            let page = answer.map_err(|status| self.mesh.error(status))?.into_inner();
            items.extend(page.items);
            page_token = page.next_page_token;
            let is_full = items.len() as u64 >= limit;
            if is_full || page_token.is_empty() {
                let has_more = !page_token.is_empty() || items.len() as u64 > limit;
                items.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
                return Ok((items, has_more));
            }
        }
    }

    async fn get(&self, get: &Get) -> Result<(), Error> {
        let id = self.mesh.full_id(&self.scope.collection, &get.id).await?;
        let request = search::GetItemRequest {
            collection: self.scope.collection.to_string(),
            id: id.clone(),
            include_vector: get.vector,
        };
        let answer = self.mesh.items().get_item(request).await;
        let found = answer.map_err(|status| self.mesh.error(status))?.into_inner();
        if let Some(path) = &get.thumbnail {
            self.save_thumbnail(&id, path).await?;
        }
        let item = found.item.unwrap_or_default();
        if self.is_json {
            return output::document(&One { item: item.into(), vector: found.vector });
        }
        output::line(facts(item).to_string())?;
        if get.vector {
            let values: Vec<String> = found.vector.iter().map(f32::to_string).collect();
            output::line("")?;
            output::line(values.join(" "))?;
        }
        Ok(())
    }

    async fn save_thumbnail(&self, id: &str, path: &PathBuf) -> Result<(), Error> {
        let request = search::GetThumbnailRequest {
            collection: self.scope.collection.to_string(),
            id: id.to_owned(),
        };
        let answer = self.mesh.items().get_thumbnail(request).await;
        let thumbnail = answer.map_err(|status| self.mesh.error(status))?.into_inner();
        tokio::fs::write(path, &thumbnail.image)
            .await
            .map_err(|source| Error::File { path: path.clone(), source })?;
        let size = ByteSize(thumbnail.image.len() as u64);
        output::note(format!("wrote {} ({}, {size})", path.display(), thumbnail.media_type));
        Ok(())
    }

    async fn remove(&self, ids: &[String]) -> Result<(), Error> {
        let mut deleted = Vec::new();
        let mut outcome = Ok(());
        for id in ids {
            // One that is gone already must not save the others.
            match self.remove_one(id).await {
                Ok(id) => deleted.push(id),
                Err(error @ Error::Rpc { .. }) if error.exit_code() != 4 => {
                    outcome = Err(error);
                    break;
                }
                Err(error) => {
                    output::note(format!("clipmesh: {error}"));
                    outcome = Err(Error::Told(error.exit_code()));
                }
            }
        }
        if self.is_json {
            output::document(&Deleted { deleted })?;
        } else {
            for id in deleted {
                output::line(format!("removed {id}"))?;
            }
        }
        outcome
    }

    async fn remove_one(&self, id: &str) -> Result<String, Error> {
        let id = self.mesh.full_id(&self.scope.collection, id).await?;
        let request = search::DeleteItemRequest {
            collection: self.scope.collection.to_string(),
            id: id.clone(),
            ..search::DeleteItemRequest::default()
        };
        let answer = self.mesh.items().delete_item(request).await;
        answer.map_err(|status| self.mesh.error(status))?;
        Ok(id)
    }

    async fn count(&self, filters: &[filter::Term]) -> Result<(), Error> {
        let count = self.total(filters).await?;
        if self.is_json {
            return output::document(&Count { count });
        }
        output::line(count.to_string())
    }

    async fn total(&self, filters: &[filter::Term]) -> Result<u64, Error> {
        let request = search::CountItemsRequest {
            collection: self.scope.collection.to_string(),
            filter: filter::all_of(filters),
        };
        let answer = self.mesh.items().count_items(request).await;
        Ok(answer.map_err(|status| self.mesh.error(status))?.into_inner().count)
    }
}

fn table(items: &[search::Item]) -> Table {
    let mut table = Table::new(&[
        Column::Left("ID"),
        Column::Left("FILE"),
        Column::Left("SIZE"),
        Column::Left("FORMAT"),
        Column::Right("BYTES"),
        Column::Left("ADDED"),
    ]);
    for item in items {
        table.row([
            output::short_id(&item.id).to_owned(),
            item.filename.clone(),
            output::dimensions(item.width, item.height),
            item.format.clone(),
            ByteSize(item.byte_size).to_string(),
            item.create_time.map(output::local_time).unwrap_or_default(),
        ]);
    }
    table
}

/// Everything about one item, a line each.
fn facts(item: search::Item) -> output::table::Facts {
    let mut facts = output::table::Facts::default();
    facts.add("id", item.id);
    facts.add("file", item.filename);
    facts.add("uri", item.uri);
    facts.add("size", output::dimensions(item.width, item.height));
    facts.add("format", item.format);
    facts.add("bytes", ByteSize(item.byte_size));
    facts.add("content hash", item.content_hash);
    facts.add("added", item.create_time.map(output::local_time).unwrap_or_default());
    facts.add("changed", item.update_time.map(output::local_time).unwrap_or_default());
    for (name, value) in item.metadata.unwrap_or_default().fields {
        facts.add(&name, json::value(value));
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_listed_on_one_line() {
        let item = search::Item {
            id: "holiday/1.jpg".to_owned(),
            filename: "1.jpg".to_owned(),
            width: 640,
            height: 480,
            format: "jpeg".to_owned(),
            byte_size: 34_816,
            ..search::Item::default()
        };
        let expected = "\
ID             FILE   SIZE       FORMAT     BYTES  ADDED
holiday/1.jpg  1.jpg  640 × 480  jpeg    34.0 KiB";
        assert_eq!(table(&[item]).to_string(), expected, "as printed");
    }
}
