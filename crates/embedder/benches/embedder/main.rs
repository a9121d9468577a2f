//! The embedder as a process, measured beside the most that its machine could do, in one run.
//!
//! ```text
//!   serve   what comes out over gRPC, next to a bare loop around the forward pass and to decoding
//!   tower   the bare forward pass by batch size and type, next to PyTorch on the same device
//!   soak    memory and answers over many requests, good and bad
//! ```
//!
//! `make bench-embedder`, `make bench-gpu` and `make soak` run it; `docs/benchmarks.md` says what
//! came out where. Everything that is compared is measured in turns, so that whatever else the
//! machine does hits both sides. The load comes from this process, which takes its share of the
//! same cores: about 0.1 ms per request.

mod bare;
mod compare;
mod load;
mod report;
mod requests;
mod server;
mod soak;
mod stats;
mod tower;

#[path = "../../tests/common/photo.rs"]
mod photo;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clipmesh_embedder::backend::{DeviceChoice, DtypeChoice};
use clipmesh_embedder::model::random::{self, Architecture};
use clipmesh_embedder::model::{Dtype, Source};

/// Measures the embedder.
#[derive(Debug, Parser)]
struct Cli {
    /// Cargo's own, which tells a benchmark from a test.
    #[arg(long, global = true, hide = true)]
    bench: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serving, next to the bare model and decoding.
    Serve(compare::Serve),
    /// The bare model, next to PyTorch.
    Tower(tower::Tower),
    /// Memory over many requests.
    Soak(soak::Soak),
}

/// What is measured.
#[derive(Clone, Debug, Args)]
struct Subject {
    /// `tiny`, a model's folder (absolute), or a name of the hub. Default: a ViT-B/32 with random
    /// weights, made once beside the build.
    #[arg(long)]
    model: Option<Source>,
    /// `cpu`, `cuda` or `cuda:N`.
    #[arg(long, default_value = "cpu")]
    device: DeviceChoice,
}

impl Subject {
    fn folder(&self) -> anyhow::Result<PathBuf> {
        if let Some(source) = &self.model {
            return Ok(source.folder()?);
        }
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("ViT-B-32");
        // Written last, so that it is all there.
        if !folder.join("config.json").exists() {
            random::write(&folder, &Architecture::VitB32.config(), 1, Dtype::F32)?;
        }
        Ok(folder)
    }
}

fn parse_dtype(name: &str) -> Result<DtypeChoice, String> {
    match name {
        "f32" => Ok(DtypeChoice::F32),
        "f16" => Ok(DtypeChoice::F16),
        "bf16" => Ok(DtypeChoice::Bf16),
        other => Err(format!("`{other}` is not `f32`, `f16` or `bf16`")),
    }
}

fn main() -> anyhow::Result<()> {
    if !std::env::args().any(|argument| argument == "--bench") {
        // A run of all tests brings benchmarks along, which are none.
        return Ok(());
    }
    let cli = Cli::parse();
    match cli.command {
        Command::Serve(serve) => serve.run(),
        Command::Tower(tower) => tower.run(),
        Command::Soak(soak) => soak.run(),
    }
}
