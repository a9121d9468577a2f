//! `clipmesh items replace-image`.

use std::path::PathBuf;

use clap::Args;
use clipmesh_proto::search::v1 as search;
use serde::Serialize;

use super::Session;
use crate::error::Error;
use crate::input;
use crate::output::{self, json};

#[derive(Debug, Args)]
pub(super) struct ReplaceImage {
    /// The item's id; the first digits of a long one will do.
    id: String,

    /// The new picture; `-` reads it from standard input.
    file: PathBuf,

    /// Only if the item still has this etag, as `items get` shows it.
    #[arg(long)]
    etag: Option<String>,
}

#[derive(Serialize)]
struct Replaced {
    replaced: bool,
    item: json::Item,
}

// === impl ReplaceImage ===

impl ReplaceImage {
    pub(super) async fn run(&self, session: &Session) -> Result<(), Error> {
        let image = input::bytes(&self.file).await?.into();
        let request = search::ReplaceImageRequest {
            collection: session.collection(),
            id: session.full_id(&self.id).await?,
            image,
            etag: self.etag.clone().unwrap_or_default(),
        };
        let answer = session.mesh.items().replace_image(request).await;
        let answer = answer.map_err(|status| session.error(status))?.into_inner();
        let replaced = answer.outcome() == search::IndexOutcome::Replaced;
        let item = answer.item.unwrap_or_default();
        if session.is_json {
            return output::document(&Replaced { replaced, item: item.into() });
        }
        output::line(match replaced {
            true => format!("replaced the picture of {}", item.id),
            false => format!("{} has this picture already", item.id),
        })
    }
}
