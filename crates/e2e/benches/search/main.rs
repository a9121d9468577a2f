//! Search at scale: how well, how fast, at what cost, and what the service adds to its store.
//!
//! ```text
//!   store     recall, latency, filters, writing, memory and disk of the vector store itself
//!   service   the same searches through gateway and search, next to the store's own time
//!   cache     what share of a skewed stream of pictures is answered without computing
//! ```
//!
//! `make bench-search` runs all three; `docs/benchmarks.md` says what came out where. The vectors
//! are made by [`recipe`]; truth is found by comparing with every one of them, here and not in the
//! store.

mod cache;
mod filtered;
mod load;
mod recipe;
mod report;
mod service;
mod store;
mod truth;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use recipe::Recipe;

/// Measures the search service and its store.
#[derive(Debug, Parser)]
struct Cli {
    /// Cargo's own, which tells a benchmark from a test.
    #[arg(long, hide = true)]
    bench: bool,
    /// What to measure.
    #[arg(value_enum, default_values_t = [Part::Store, Part::Service, Part::Cache])]
    parts: Vec<Part>,
    /// Vectors.
    #[arg(short = 'n', long, default_value = "100000")]
    vectors: NonZeroUsize,
    /// Floats of each.
    #[arg(long, default_value = "512")]
    dimension: NonZeroUsize,
    /// Queries whose truth is found.
    #[arg(long, default_value = "500")]
    queries: NonZeroUsize,
    /// Seconds of each load.
    #[arg(long, default_value = "10")]
    seconds: u64,
    /// Pictures and searches of the skewed stream.
    #[arg(long, default_value = "10000")]
    pictures: NonZeroUsize,
    #[arg(long, default_value = "100000")]
    searches: NonZeroUsize,
    /// Where a Qdrant server listens for gRPC, to be measured instead of the embedded store.
    #[arg(long)]
    qdrant_url: Option<String>,
    /// Where collections are kept. Default: a new folder beside the build.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Measure what an earlier run with the same number of vectors left in the folder.
    #[arg(long, requires = "folder", conflicts_with = "qdrant_url")]
    again: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    Store,
    Service,
    Cache,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(cli))
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let folder = cli.folder.clone().unwrap_or_else(|| scratch.path().to_owned());
    let load = Duration::from_secs(cli.seconds);
    if cli.parts.contains(&Part::Store) || cli.parts.contains(&Part::Service) {
        let recipe = Recipe { vectors: cli.vectors.get(), dimension: cli.dimension.get() };
        let subject = store::Subject::make(&recipe, cli.queries.get());
        let before = store::Memory::now()?;
        let store = store::open(&folder, cli.qdrant_url.as_deref()).await?;
        if !cli.again {
            store::fill(store.as_ref(), &subject).await?;
        }
        if cli.qdrant_url.is_none() && !cli.again {
            store::cost(&folder, cli.vectors.get(), before)?;
        }
        if cli.parts.contains(&Part::Store) {
            store::measure(&store, &subject, load).await?;
        }
        // Closed, so that the service may have the folder.
        store.close().await;
        drop(store);
        let qdrant_url = cli.qdrant_url.as_deref();
        if cli.parts.contains(&Part::Service) {
            service::measure(&folder, qdrant_url, &subject, load).await?;
        }
        if qdrant_url.is_some() {
            store::open(&folder, qdrant_url).await?.remove(store::name()).await?;
        }
    }
    if cli.parts.contains(&Part::Cache) {
        cache::measure(cli.pictures.get(), cli.searches.get()).await?;
    }
    Ok(())
}
