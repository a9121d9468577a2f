//! Lets our binaries and tests find libtorch at run time with no environment variable set, and
//! tells dependent crates where it is so that they can do the same.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Set by torch-sys (`links = "tch"`); absent without the `torch` feature.
    let Ok(libtorch) = std::env::var("DEP_TCH_LIBTORCH_LIB") else { return };
    println!("cargo::metadata=lib={libtorch}");
    let origin = match std::env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("macos") => "@loader_path/../lib",
        _ => "$ORIGIN/../lib",
    };
    // The second one is for a binary that is installed with libtorch beside it.
    for folder in [libtorch.as_str(), origin] {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{folder}");
    }
}
