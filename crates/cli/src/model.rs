//! `clipmesh model`: looks at model folders and makes them, as the embedder's own command does.

use std::io;

use clap::Args;
use clipmesh_embedder::command;

use crate::error::Error;

#[derive(Debug, Args)]
pub(crate) struct Command {
    #[command(subcommand)]
    action: command::Model,
}

// === impl Command ===

impl Command {
    pub(crate) async fn run(self) -> Result<(), Error> {
        // Weights of hundreds of megabytes are read and written.
        let work = tokio::task::spawn_blocking(move || self.action.run(&mut io::stdout().lock()));
        let done = work.await.map_err(|error| Error::Runtime(error.into()))?;
        done.map_err(|error| {
            // Faults of the model's own files come with their names; this one is of the output.
            if let clipmesh_embedder::Error::Io(error) = error {
                return Error::Output(error);
            }
            Error::Part { name: "model", message: error.to_string() }
        })
    }
}
