//! `clipmesh items`: what is in a collection, and what can be done to it.

mod check;
mod count;
mod delete;
mod get;
mod list;
mod picture;
mod replace_image;
mod sample;
mod update;

use clap::{Args, Subcommand};
use clipmesh_proto::search::v1 as search;

use crate::client::{Connection, Mesh, Scope};
use crate::error::Error;
use crate::output;
use crate::output::table::{Column, Table};
use crate::{fields, filter};

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
    List(list::List),
    /// Show one item.
    Get(get::Get),
    /// Count items.
    #[command(after_help = filter::HELP)]
    Count(count::Count),
    /// Show items drawn at random.
    #[command(after_help = filter::HELP)]
    Sample(sample::Sample),
    /// Tell which of these ids or files the collection has.
    Check(check::Check),
    /// Change what is known of an item; its picture stays.
    Update(update::Update),
    /// Give an item another picture; what is known of it stays.
    ReplaceImage(replace_image::ReplaceImage),
    /// Remove items.
    #[command(visible_alias = "rm", after_help = filter::HELP)]
    Delete(delete::Delete),
    /// Write the small picture of an item to a file.
    Thumbnail(picture::Picture),
    /// Write the image file of an item as it was indexed, where the mesh keeps them.
    Original(picture::Picture),
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
            Action::List(list) => list.run(&session).await,
            Action::Get(get) => get.run(&session).await,
            Action::Count(count) => count.run(&session).await,
            Action::Sample(sample) => sample.run(&session).await,
            Action::Check(check) => check.run(&session).await,
            Action::Update(update) => update.run(&session).await,
            Action::ReplaceImage(replace) => replace.run(&session).await,
            Action::Delete(delete) => delete.run(&session).await,
            Action::Thumbnail(picture) => picture.thumbnail(&session).await,
            Action::Original(picture) => picture.original(&session).await,
        }
    }
}

// === impl Session ===

impl Session {
    fn collection(&self) -> String {
        self.scope.collection.to_string()
    }

    /// The whole id behind its first digits.
    async fn full_id(&self, id: &str) -> Result<String, Error> {
        self.mesh.full_id(&self.scope.collection, id).await
    }

    fn error(&self, status: tonic::Status) -> Error {
        self.mesh.error(status)
    }

    fn note_unindexed(&self, filter: Option<&search::Filter>, fields: &[String]) {
        filter::note_unindexed(&self.scope.collection, filter, fields);
    }
}

/// A line for each item, with these fields beside the usual ones.
fn table(items: &[search::Item], more: &[String]) -> Table {
    let mut columns = vec![
        Column::Left("ID"),
        Column::Left("FILE"),
        Column::Left("SIZE"),
        Column::Left("FORMAT"),
        Column::Right("BYTES"),
        Column::Left("ADDED"),
    ];
    let names: Vec<String> = more.iter().map(|field| field.to_uppercase()).collect();
    columns.extend(names.iter().map(|name| Column::Left(name.trim_start_matches("METADATA."))));
    let mut table = Table::new(&columns);
    for item in items {
        let mut row = vec![
            output::short_id(&item.id).to_owned(),
            item.filename.clone(),
            output::dimensions(item.width, item.height),
            item.format.clone(),
            bytes(item.byte_size),
            item.create_time.map(output::local_time).unwrap_or_default(),
        ];
        row.extend(more.iter().map(|field| fields::cell(item, field)));
        table.row(row);
    }
    table
}

/// A length, or nothing for an item of a ready vector.
fn bytes(length: u64) -> String {
    if length == 0 { String::new() } else { bytesize::ByteSize(length).to_string() }
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
        assert_eq!(table(std::slice::from_ref(&item), &[]).to_string(), expected, "as printed");
        let album = fields::metadata(&[fields::parse_field("album=x").expect("a field")]);
        let item = search::Item { metadata: album, ..item };
        let shown = table(&[item], &["metadata.album".to_owned()]).to_string();
        assert!(shown.lines().next().is_some_and(|line| line.ends_with("ALBUM")), "{shown}");
        assert!(shown.ends_with('x'), "what it is sorted by: {shown}");
    }
}
