//! Compiles the contracts in `proto/` with protox, so that no protoc is needed.

use std::path::PathBuf;
use std::{env, fs};

use anyhow::Context as _;
use prost::Message as _;

const FILES: [&str; 6] = [
    "clipmesh/embedder/v1/embedder.proto",
    "clipmesh/search/v1/collection.proto",
    "clipmesh/search/v1/filter.proto",
    "clipmesh/search/v1/item.proto",
    "clipmesh/search/v1/search.proto",
    "clipmesh/search/v1/vector.proto",
];

fn main() -> anyhow::Result<()> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    for file in FILES.iter().chain(["google/rpc/status.proto"].iter()) {
        println!("cargo:rerun-if-changed={}", root.join(file).display());
    }

    let descriptors = protox::compile(FILES, [&root]).context("compile the contracts")?;
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out_dir.join("clipmesh.bin"), descriptors.encode_to_vec())
        .context("write the descriptor set")?;

    tonic_prost_build::configure()
        // `tonic-types` already has this message, and the richer error details to go with it.
        .extern_path(".google.rpc", "::tonic_types::pb")
        // Image bytes are handed from socket to decoder without a copy.
        .bytes(".clipmesh")
        .compile_fds(descriptors)
        .context("generate code for the contracts")
}
