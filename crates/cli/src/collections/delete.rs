//! `clipmesh collections delete`.

use clap::Args;
use clipmesh_proto::ids::CollectionName;
use clipmesh_proto::search::v1 as search;
use serde::Serialize;

use super::Session;
use crate::client::parse_collection;
use crate::error::Error;
use crate::output;

#[derive(Debug, Args)]
pub(super) struct Delete {
    /// The collection; no alias of it.
    #[arg(value_parser = parse_collection)]
    name: CollectionName,

    /// Don't ask.
    #[arg(long, short)]
    yes: bool,
}

#[derive(Serialize)]
struct Deleted {
    deleted: String,
}

// === impl Delete ===

impl Delete {
    pub(super) async fn run(&self, session: &Session) -> Result<(), Error> {
        let name = &self.name;
        if !self.yes && !self.confirmed(session).await? {
            return output::line("nothing was removed");
        }
        let request = search::DeleteCollectionRequest { name: name.to_string() };
        let answer = session.mesh.collections().delete_collection(request).await;
        answer.map_err(|status| session.error(status))?;
        if session.is_json {
            return output::document(&Deleted { deleted: name.to_string() });
        }
        output::line(format!("removed `{name}`"))
    }

    /// Whether a person has typed the name: what is behind it can't be brought back.
    async fn confirmed(&self, session: &Session) -> Result<bool, Error> {
        let name = &self.name;
        let items = output::count(session.find(name).await?.item_count, "item");
        let question = format!("This removes `{name}` with {items} for good. Its name, to go on:");
        match output::ask(&question)? {
            Some(answer) => Ok(answer == name.as_str()),
            None => {
                let message =
                    format!("`{name}` with {items} would be removed: --yes does it unasked");
                Err(Error::Usage(message))
            }
        }
    }
}
