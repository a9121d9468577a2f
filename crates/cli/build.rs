//! Tells the linker where libtorch lies, so that the binary finds it with no environment variable
//! to set.

use std::env;

/// Set by the embedder's build script; absent when it is built without a backend.
const LIBTORCH_LIB: &str = "DEP_CLIPMESH_TORCH_LIB";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let Ok(libtorch) = env::var(LIBTORCH_LIB) else { return };
    let beside = match env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("macos") => "@loader_path/../lib",
        _ => "$ORIGIN/../lib",
    };
    // The second one is for a binary that is installed with libtorch beside it.
    for folder in [libtorch.as_str(), beside] {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{folder}");
    }
}
