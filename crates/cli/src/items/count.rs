//! `clipmesh items count`.

use clap::Args;
use clipmesh_proto::search::v1 as search;
use serde::Serialize;

use super::Session;
use crate::error::Error;
use crate::filter::Filters;
use crate::output;

#[derive(Debug, Args)]
pub(super) struct Count {
    #[command(flatten)]
    filters: Filters,
}

#[derive(Serialize)]
struct Counted {
    count: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unindexed_fields: Vec<String>,
}

// === impl Count ===

impl Count {
    pub(super) async fn run(&self, session: &Session) -> Result<(), Error> {
        let filter = self.filters.message();
        let (count, unindexed_fields) = total(session, filter.clone()).await?;
        session.note_unindexed(filter.as_ref(), &unindexed_fields);
        if session.is_json {
            return output::document(&Counted { count, unindexed_fields });
        }
        output::line(count.to_string())
    }
}

/// How many items pass, and which fields had no index for it.
pub(super) async fn total(
    session: &Session,
    filter: Option<search::Filter>,
) -> Result<(u64, Vec<String>), Error> {
    let request = search::CountItemsRequest { collection: session.collection(), filter };
    let answer = session.mesh.items().count_items(request).await;
    let answer = answer.map_err(|status| session.error(status))?.into_inner();
    Ok((answer.count, answer.unindexed_fields))
}
