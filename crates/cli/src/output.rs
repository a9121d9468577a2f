//! What goes to standard output: tables for people, JSON for programs.
//!
//! A command prints one or the other, never both; everything that is said on the way (progress,
//! failures, notes) goes to standard error, so that output can be piped.

pub(crate) mod json;
pub(crate) mod table;

use std::io::{self, IsTerminal as _, Write as _};

use jiff::tz::TimeZone;
use serde::Serialize;

use crate::error::Error;

/// How many characters of a long id tables show: enough to tell a million items apart.
const SHORT_ID_CHARS: usize = 12;

/// Prints a line for a person.
pub(crate) fn line(text: impl AsRef<str>) -> Result<(), Error> {
    writeln!(io::stdout().lock(), "{}", text.as_ref())?;
    Ok(())
}

/// Prints a remark beside the output. It is not worth failing for.
pub(crate) fn note(text: impl AsRef<str>) {
    // Where standard error is gone there is nobody left to tell.
    let _nobody_left = writeln!(io::stderr().lock(), "{}", text.as_ref());
}

/// Prints one document on lines of its own: indented for a person who looks, compact in a pipe.
pub(crate) fn document(value: &impl Serialize) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    if stdout.is_terminal() {
        serde_json::to_writer_pretty(&mut stdout, value)?;
    } else {
        serde_json::to_writer(&mut stdout, value)?;
    }
    writeln!(stdout)?;
    stdout.flush()?;
    Ok(())
}

/// Asks a person, and returns the answer without spaces around it. `None` where nobody can be
/// asked, as in a script.
pub(crate) fn ask(question: &str) -> Result<Option<String>, Error> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Ok(None);
    }
    let mut stderr = io::stderr().lock();
    write!(stderr, "{question} ")?;
    stderr.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(Some(answer.trim().to_owned()))
}

/// An id made of a content hash is cut; the caller's own ids are shown whole.
pub(crate) fn short_id(id: &str) -> &str {
    let is_hash = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hash { &id[..SHORT_ID_CHARS] } else { id }
}

/// `1 item`, `2 items`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{ending}")
}

/// Milliseconds with three digits that mean something.
pub(crate) fn millis(ms: f64) -> String {
    match ms {
        ms if ms < 10.0 => format!("{ms:.2} ms"),
        ms if ms < 100.0 => format!("{ms:.1} ms"),
        ms if ms < 10_000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.1} s", ms / 1_000.0),
    }
}

/// A time as the person's own clock and calendar have it.
pub(crate) fn local_time(time: prost_types::Timestamp) -> String {
    let Some(time) = json::timestamp(time) else { return String::new() };
    time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string()
}

/// `512 × 384`, or nothing for what was never decoded.
pub(crate) fn dimensions(width: u32, height: u32) -> String {
    if width == 0 { String::new() } else { format!("{width} × {height}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hashes_are_shortened() {
        assert_eq!(short_id(&"ab".repeat(32)), "abababababab", "a hash");
        let own = "photos/2026/holiday-by-the-sea-with-a-very-long-name-indeed-0001.jpg";
        assert_eq!(short_id(own), own, "an id of the caller's own");
    }

    #[test]
    fn counts_read_as_english() {
        assert_eq!(count(0, "item"), "0 items", "none");
        assert_eq!(count(1, "item"), "1 item", "one");
        assert_eq!(count(2, "file"), "2 files", "two");
    }

    #[test]
    fn times_have_three_digits() {
        let table = [(0.123, "0.12 ms"), (34.21, "34.2 ms"), (812.4, "812 ms"), (12e3, "12.0 s")];
        for (ms, text) in table {
            assert_eq!(millis(ms), text, "{ms} ms");
        }
    }
}
