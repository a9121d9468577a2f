//! The identity of a model: BLAKE3 over everything that its vectors depend on.
//!
//! Architecture and preprocessing count by their meaning, so that a reformatted `config.json` is
//! the same model; weights and tokenizer by their bytes. The device and the type that is computed
//! in are left out: they move a vector by less than the rounding of its use.

use blake3::Hasher;
use clipmesh_proto::ids::Fingerprint;
use rayon::prelude::*;
use serde::Serialize;

use super::{Model, Network};

/// Keeps these hashes apart from all others; changes when what is hashed changes.
const CONTEXT: &str = "clipmesh 2026 model fingerprint 1";

/// Large parts are hashed in pieces of this many bytes on all cores, and then the hashes of the
/// pieces are hashed, since a single stream takes seconds for a large model.
const PIECE_BYTES: usize = 4 << 20;

pub(super) fn of(model: &Model) -> Fingerprint {
    let mut hasher = Hasher::new_derive_key(CONTEXT);
    if let Network::Towers { config, .. } = &model.network {
        part(&mut hasher, "architecture", &canonical(config));
    }
    part(&mut hasher, "preprocessing", &canonical(&model.preprocessing));
    if let Some(tokenizer) = &model.tokenizer {
        part(&mut hasher, "tokenizer", tokenizer.source());
    }
    match &model.network {
        Network::Towers { weights, .. } => {
            for file in weights.file_bytes() {
                part(&mut hasher, "weights", file);
            }
        }
        Network::Script(script) => part(&mut hasher, "script", script.bytes()),
    }
    let digits = hasher.finalize().to_hex().to_string();
    Fingerprint::try_from(digits).expect("a BLAKE3 hash has 64 hexadecimal digits")
}

fn canonical(value: &impl Serialize) -> Vec<u8> {
    // Field order is that of the type, and floats are written in their shortest exact form.
    serde_json::to_vec(value).expect("plain structs of numbers have a JSON form")
}

/// Adds a part under its name and length, so that no two models can mean the same bytes.
fn part(hasher: &mut Hasher, name: &str, bytes: &[u8]) {
    hasher.update(name.as_bytes());
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    let pieces: Vec<_> = bytes.par_chunks(PIECE_BYTES).map(blake3::hash).collect();
    for piece in pieces {
        hasher.update(piece.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn models_that_are_in_use_keep_their_fingerprint() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for (folder, expected) in [
            (
                "tests/golden/model",
                "589ae21878554a789da61c9055f05f9475296b578e583add0ec9b5019e3b2205",
            ),
            (
                "tests/golden/model-gelu",
                "a58e13fbf2d9490f1ab9f5b876808adb62b982c0fe1c25b856172b8ec02eb272",
            ),
        ] {
            let model = Model::open(&root.join(folder)).expect("a model");
            // A collection is pinned to it: what is hashed must not change unnoticed.
            assert_eq!(model.fingerprint().to_string(), expected, "of {folder}");
        }
    }
}
