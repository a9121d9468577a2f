//! Any bytes, as a file: decoded and made as small as a model wants it, and nothing else.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../examine.rs"]
mod examine;

fuzz_target!(|bytes: &[u8]| examine::decode(bytes));
