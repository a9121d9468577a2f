//! `clipmesh items sample`.

use clap::{Args, value_parser};
use clipmesh_proto::search::v1 as search;
use serde::Serialize;

use super::{Session, table};
use crate::error::Error;
use crate::filter::Filters;
use crate::output::{self, json};

#[derive(Debug, Args)]
pub(super) struct Sample {
    /// How many.
    #[arg(
        long,
        short = 'n',
        value_name = "N",
        default_value_t = 1,
        value_parser = value_parser!(u32).range(1..=256)
    )]
    size: u32,

    /// Draw the items that this number stands for; by default others each time.
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,

    #[command(flatten)]
    filters: Filters,
}

#[derive(Serialize)]
struct Drawn {
    items: Vec<json::Item>,
    seed: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unindexed_fields: Vec<String>,
}

// === impl Sample ===

impl Sample {
    pub(super) async fn run(&self, session: &Session) -> Result<(), Error> {
        let filter = self.filters.message();
        let request = search::SampleItemsRequest {
            collection: session.collection(),
            filter: filter.clone(),
            size: Some(self.size),
            seed: self.seed,
        };
        let answer = session.mesh.items().sample_items(request).await;
        let drawn = answer.map_err(|status| session.error(status))?.into_inner();
        session.note_unindexed(filter.as_ref(), &drawn.unindexed_fields);
        if session.is_json {
            return output::document(&Drawn {
                items: drawn.items.into_iter().map(json::Item::from).collect(),
                seed: drawn.seed,
                unindexed_fields: drawn.unindexed_fields,
            });
        }
        if drawn.items.is_empty() {
            return output::line("no item to draw");
        }
        output::line(table(&drawn.items, &[]).to_string())?;
        output::line(format!("\n--seed {} draws them again", drawn.seed))
    }
}
