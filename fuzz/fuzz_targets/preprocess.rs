//! Any bytes, as a choice of settings and a file: all that can be asked of a picture.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../examine.rs"]
mod examine;

fuzz_target!(|bytes: &[u8]| examine::preprocess(bytes));
