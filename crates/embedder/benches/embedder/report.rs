//! What is printed: tables in Markdown, and a line for each ratio.

use std::fmt::Display;
use std::time::Duration;

use crate::stats::Spread;

#[expect(clippy::print_stdout, reason = "a benchmark's result")]
pub(crate) fn line(line: impl Display) {
    println!("{line}");
}

/// The head of a table.
pub(crate) fn head(columns: &[&str]) {
    line(format_args!("\n| {} |", columns.join(" | ")));
    line(format_args!("|{}", " --- |".repeat(columns.len())));
}

pub(crate) fn row(cells: &[String]) {
    line(format_args!("| {} |", cells.join(" | ")));
}

/// A number of rounds: the median, and the range.
pub(crate) fn spread(values: &[f64], digits: usize) -> String {
    let Spread { median, low, high } = Spread::of(values);
    format!("{median:.digits$} ({low:.digits$} to {high:.digits$})")
}

pub(crate) fn millis(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1e3)
}

/// A ratio for programs, and what it should be.
pub(crate) fn ratio(name: &str, values: &[f64], goal: &str) {
    let Spread { median, low, high } = Spread::of(values);
    line(format_args!("{name}={median:.3} (rounds {low:.3} to {high:.3}; goal: {goal})"));
}
