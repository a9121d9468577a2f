//! `clipmesh items get`.

use std::path::PathBuf;

use clap::Args;
use clipmesh_proto::search::v1 as search;
use serde::Serialize;

use super::{Session, bytes, picture};
use crate::error::Error;
use crate::fields;
use crate::output::table::Facts;
use crate::output::{self, json};

#[derive(Debug, Args)]
pub(super) struct Get {
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
struct One {
    #[serde(flatten)]
    item: json::Item,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    vector: Vec<f32>,
}

// === impl Get ===

impl Get {
    pub(super) async fn run(&self, session: &Session) -> Result<(), Error> {
        let id = session.full_id(&self.id).await?;
        let request = search::GetItemRequest {
            collection: session.collection(),
            id: id.clone(),
            include_vector: self.vector,
        };
        let answer = session.mesh.items().get_item(request).await;
        let found = answer.map_err(|status| session.error(status))?.into_inner();
        if let Some(path) = &self.thumbnail {
            picture::thumbnail(session, id, path).await?;
        }
        let item = found.item.unwrap_or_default();
        if session.is_json {
            return output::document(&One { item: item.into(), vector: found.vector });
        }
        output::line(facts(item).to_string())?;
        if self.vector {
            let values: Vec<String> = found.vector.iter().map(f32::to_string).collect();
            output::line("")?;
            output::line(values.join(" "))?;
        }
        Ok(())
    }
}

/// Everything about one item, a line each.
pub(super) fn facts(item: search::Item) -> Facts {
    let mut facts = Facts::default();
    facts.add("id", item.id);
    facts.add("file", item.filename);
    facts.add("uri", item.uri);
    facts.add("size", output::dimensions(item.width, item.height));
    facts.add("format", item.format);
    facts.add("bytes", bytes(item.byte_size));
    facts.add("content hash", item.content_hash);
    facts.add("pixel hash", item.pixel_hash);
    facts.add("added", item.create_time.map(output::local_time).unwrap_or_default());
    facts.add("changed", item.update_time.map(output::local_time).unwrap_or_default());
    facts.add("etag", item.etag);
    for (name, value) in item.metadata.unwrap_or_default().fields {
        facts.add(&name, fields::plain(&value));
    }
    facts
}
