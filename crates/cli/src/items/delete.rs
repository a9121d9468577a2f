//! `clipmesh items delete`.

use clap::{ArgGroup, Args};
use clipmesh_proto::search::v1 as search;
use clipmesh_proto::search::v1::delete_items_request::Which;
use serde::Serialize;

use super::{Session, count};
use crate::error::Error;
use crate::filter::Filters;
use crate::output;

#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("which")
        .args(["ids", "conditions", "document"])
        .required(true)
        .multiple(true)
)]
pub(super) struct Delete {
    /// Ids; the first digits of a long one will do.
    #[arg(value_name = "ID", conflicts_with_all = ["conditions", "document"])]
    ids: Vec<String>,

    #[command(flatten)]
    filters: Filters,

    /// Don't ask before all that pass a filter are removed.
    #[arg(long, short)]
    yes: bool,
}

#[derive(Serialize)]
struct Deleted {
    deleted: Vec<String>,
}

#[derive(Serialize)]
struct DeletedCount {
    deleted_count: u64,
}

// === impl Delete ===

impl Delete {
    pub(super) async fn run(&self, session: &Session) -> Result<(), Error> {
        match self.filters.message() {
            Some(filter) => self.of_filter(session, filter).await,
            None => of_ids(session, &self.ids).await,
        }
    }

    async fn of_filter(&self, session: &Session, filter: search::Filter) -> Result<(), Error> {
        if !self.yes && !confirmed(session, &filter).await? {
            return output::line("nothing was removed");
        }
        let request = search::DeleteItemsRequest {
            collection: session.collection(),
            which: Some(Which::Filter(filter.clone())),
        };
        let answer = session.mesh.items().delete_items(request).await;
        let answer = answer.map_err(|status| session.error(status))?.into_inner();
        session.note_unindexed(Some(&filter), &answer.unindexed_fields);
        let deleted_count = answer.deleted_count;
        if session.is_json {
            return output::document(&DeletedCount { deleted_count });
        }
        output::line(format!("removed {}", output::count(deleted_count, "item")))
    }
}

async fn confirmed(session: &Session, filter: &search::Filter) -> Result<bool, Error> {
    let (count, _) = count::total(session, Some(filter.clone())).await?;
    let items = output::count(count, "item");
    let question = format!("Remove {items} from `{}` for good? [y/N]", session.scope.collection);
    match output::ask(&question)? {
        Some(answer) => Ok(matches!(answer.as_str(), "y" | "Y" | "yes")),
        None => Err(Error::Usage(format!("{items} would be removed: --yes does it unasked"))),
    }
}

async fn of_ids(session: &Session, ids: &[String]) -> Result<(), Error> {
    let mut deleted = Vec::new();
    let mut outcome = Ok(());
    for id in ids {
        // One that is gone already must not save the others.
        match of_id(session, id).await {
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
    if session.is_json {
        output::document(&Deleted { deleted })?;
    } else {
        for id in deleted {
            output::line(format!("removed {id}"))?;
        }
    }
    outcome
}

async fn of_id(session: &Session, id: &str) -> Result<String, Error> {
    let id = session.full_id(id).await?;
    let request = search::DeleteItemRequest {
        collection: session.collection(),
        id: id.clone(),
        ..search::DeleteItemRequest::default()
    };
    let answer = session.mesh.items().delete_item(request).await;
    answer.map_err(|status| session.error(status))?;
    Ok(id)
}
