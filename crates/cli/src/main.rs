//! The `clipmesh` command: the whole mesh in one process ([`up`]), and a client of any mesh.
//!
//! ```text
//!   clipmesh up ──► gateway ──► search ──► embedder        (one process, loopback gRPC)
//!   clipmesh index | search | classify | items | collections | … ──► gateway
//!   clipmesh model ──► a folder on disk
//! ```
//!
//! It holds no knowledge of its own: what it shows comes over the same contracts that every other
//! client uses. Start from [`cli::Cli`]; [`error`] has the table of exit codes.

mod classify;
mod cli;
mod client;
mod collections;
mod duplicates;
mod error;
mod facet;
mod fields;
mod filter;
mod index;
mod input;
mod items;
mod model;
mod output;
mod search;
mod status;
mod up;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return error::Error::Runtime(error).report(),
    };
    let outcome = runtime.block_on(cli.run());
    // What still runs on the blocking pool, such as a read of a dead disk, must not hold us up.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}
