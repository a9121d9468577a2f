//! Files from strangers, damaged: what `fuzz/` does by the million, some thousand times and the
//! same ones each time.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

#[path = "../../../fuzz/examine.rs"]
mod examine;

/// Damaged copies of each file.
const COPIES: u64 = 60;

/// Numbers that lengths and sizes are often checked against.
const EDGES: [u32; 8] = [0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF];

#[test]
fn no_damage_gets_through() {
    let mut seeds: Vec<(String, Vec<u8>)> = Vec::new();
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/preprocess");
    for entry in fs::read_dir(corpus).expect("the corpus") {
        let path = entry.expect("a file").path();
        seeds.push((path.display().to_string(), fs::read(&path).expect("a file")));
    }
    seeds.sort();
    assert!(seeds.len() > 40, "{} files", seeds.len());
    let mut failures = Vec::new();
    for (index, (name, seed)) in seeds.iter().enumerate() {
        let other = &seeds[(index + 1) % seeds.len()].1;
        for copy in 0..COPIES {
            let mut random = ChaCha8Rng::seed_from_u64((index as u64) << 32 | copy);
            // The first one is whole.
            let bytes = if copy == 0 { seed.clone() } else { damaged(&mut random, seed, other) };
            let choice = random.next_u32() as u8;
            let run = || {
                examine::decode(&bytes);
                examine::preprocess(&[&[choice], &bytes[..]].concat());
            };
            if catch_unwind(AssertUnwindSafe(run)).is_err() {
                failures.push(format!("copy {copy} of {name}"));
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

/// A copy with one to six faults.
fn damaged(random: &mut ChaCha8Rng, seed: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.next_u32() % 6 {
        let at = below(random, bytes.len());
        match random.next_u32() % 8 {
            0 => bytes.truncate(at),
            1 => bytes[at..].iter_mut().take(1).for_each(|byte| *byte ^= 1 << (at % 8)),
            2 => overwrite(&mut bytes, at, &[random.next_u32() as u8]),
            3 => overwrite(&mut bytes, at, &EDGES[below(random, EDGES.len())].to_be_bytes()),
            4 => overwrite(&mut bytes, at, &EDGES[below(random, EDGES.len())].to_le_bytes()),
            5 => overwrite(&mut bytes, at, &[random.next_u32() as u8; 2]),
            6 => {
                let end = (at + below(random, 40)).min(bytes.len());
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            // The rest of another file.
            _ => {
                bytes.truncate(at);
                bytes.extend(&other[below(random, other.len())..]);
            }
        }
    }
    bytes
}

fn overwrite(bytes: &mut [u8], at: usize, with: &[u8]) {
    bytes[at..].iter_mut().zip(with).for_each(|(byte, &with)| *byte = with);
}

/// Of nothing, nothing.
fn below(random: &mut ChaCha8Rng, len: usize) -> usize {
    random.next_u32() as usize % len.max(1)
}
