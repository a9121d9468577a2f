//! What was acknowledged survives a crash. A process is killed at a random moment in the middle of
//! its work, again and again over one data folder; after each restart everything that was ever
//! acknowledged must be there, whole, and found.
//!
//! The moments come from a seed that is printed. `CLIPMESH_E2E_SEED` repeats a run, as far as the
//! machine's own timing allows.

mod changes;
mod intake;

use std::time::Duration;

/// From the restart of a process to the first answer through all three.
const PATIENCE: Duration = Duration::from_secs(30);

/// The longest pause between an acknowledgement and the kill: a few items' worth, so that the kill
/// falls anywhere between two acknowledgements.
const LONGEST_PAUSE: Duration = Duration::from_millis(4);

/// Repeats a run.
const SEED_VARIABLE: &str = "CLIPMESH_E2E_SEED";

fn seed() -> u64 {
    let given = std::env::var(SEED_VARIABLE).ok();
    let seed = match given {
        Some(given) => given.parse().expect("the seed is a number"),
        None => rand::random_range(0..u64::from(u32::MAX)),
    };
    eprintln!("the kills follow from {SEED_VARIABLE}={seed}");
    seed
}
