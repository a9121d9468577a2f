//! What is printed.

use std::fmt::Display;
use std::time::Duration;

#[expect(clippy::print_stdout, reason = "a benchmark's result")]
pub(crate) fn line(line: impl Display) {
    println!("{line}");
}

pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The value that a `share` of all are at most, by nearest rank. Zero of nothing.
pub(crate) fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}
