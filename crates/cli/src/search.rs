//! `clipmesh search`: the pictures nearest to one, to some words, to an item, or to a mix of these.
//!
//! ```text
//!   options ──► query (what to look for) ──► SearchRequest ──► show
//!   batch: a file of such options, a search in each line ──► SearchBatch ──► show
//! ```

mod batch;
pub(crate) mod options;
pub(crate) mod query;
pub(crate) mod show;

use std::path::PathBuf;

use clap::{ArgGroup, Args};

use crate::client::{Connection, Mesh, Scope};
use crate::error::Error;
use crate::filter;
use crate::output;

use options::Options;

#[derive(Debug, Args)]
#[command(
    after_help = format!("{}\n{}\n\n{}", query::HELP, batch::HELP, filter::HELP),
    group = ArgGroup::new("question")
        .args(options::QUESTIONS)
        .arg("batch")
        .required(true)
        .multiple(true)
)]
pub(crate) struct Command {
    #[command(flatten)]
    options: Options,

    /// Answer every search of this file, with a JSON object in each line; see below. `-` reads it
    /// from standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = options::ALL)]
    batch: Option<PathBuf>,

    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    connection: Connection,
}

// === impl Command ===

impl Command {
    pub(crate) async fn run(self) -> Result<(), Error> {
        let mesh = Mesh::new(&self.connection)?;
        let collection = &self.scope.collection;
        if let Some(path) = &self.batch {
            return batch::run(&mesh, collection, path, self.connection.json).await;
        }
        let (request, typed) = self.options.request(&mesh, collection).await?;
        let filter = request.filter.clone();
        let answer = mesh.search().search(request).await;
        let answer = answer.map_err(|status| mesh.error(typed.explain(status)))?.into_inner();
        filter::note_unindexed(collection, filter.as_ref(), &answer.unindexed_fields);
        let view = self.options.view();
        if self.connection.json {
            return output::document(&view.json(answer)?);
        }
        view.print(answer)
    }
}
