//! What a person sees of an index run while it goes on, and what is left of it at the end.

use std::fmt;
use std::time::Duration;

use indicatif::{HumanDuration, ProgressBar, ProgressState, ProgressStyle};
use serde::Serialize;
use tokio::time::Instant;

use crate::error::Error;
use crate::index::window::Settled;
use crate::output;

/// How often the bar is drawn anew while nothing happens, so that its clock runs.
const TICK: Duration = Duration::from_millis(200);

const TEMPLATE: &str = "{bar:30} {human_pos}/{human_len} files  {rate}  {left}";

/// Counts what becomes of each file, and tells of each that failed as it fails.
#[derive(Debug)]
pub(crate) struct Report {
    bar: ProgressBar,
    started: Instant,
    indexed: u64,
    updated: u64,
    known: u64,
    duplicates: u64,
    left: u64,
    /// How many went to the mesh, whatever came of it.
    sent: u64,
    failures: Vec<Failure>,
}

#[derive(Debug, Serialize)]
struct Failure {
    /// A file, or a line in one: `gallery/metadata.jsonl:12`.
    path: String,
    reason: String,
}

/// The last word, for programs.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    collection: &'a str,
    indexed: u64,
    updated: u64,
    already_there: u64,
    duplicates: u64,
    left_as_is: u64,
    failed: u64,
    sent: u64,
    seconds: f64,
    files_per_second: f64,
    failures: &'a [Failure],
}

// === impl Report ===

impl Report {
    /// A report on `files` files. The bar shows only on a terminal.
    pub(crate) fn new(files: usize) -> Self {
        let bar = ProgressBar::new(files as u64);
        let style = ProgressStyle::with_template(TEMPLATE)
            .expect("the template is well formed")
            .with_key("rate", |state: &ProgressState, out: &mut dyn fmt::Write| {
                // A line in memory can't fail, and there is nowhere to tell it.
                let _never_fails = write!(out, "{:.1}/s", state.per_sec());
            })
            .with_key("left", |state: &ProgressState, out: &mut dyn fmt::Write| {
                // Nothing is known of the time left before the first file is done.
                if state.pos() > 0 {
                    let _never_fails = write!(out, "{:#} left", HumanDuration(state.eta()));
                }
            })
            .progress_chars("━━─");
        bar.set_style(style);
        if !bar.is_hidden() {
            bar.enable_steady_tick(TICK);
        }
        Self {
            bar,
            started: Instant::now(),
            indexed: 0,
            updated: 0,
            known: 0,
            duplicates: 0,
            left: 0,
            sent: 0,
            failures: Vec::new(),
        }
    }

    /// There is another line, where nobody knows beforehand how many there are.
    pub(crate) fn expect_one_more(&self) {
        self.bar.inc_length(1);
    }

    pub(crate) fn settled(&mut self, settled: Settled) {
        self.sent += 1;
        match settled {
            Settled::Indexed(_) => self.indexed += 1,
            Settled::Replaced(_) => self.updated += 1,
            Settled::Unchanged(_) => self.known += 1,
            Settled::Failed(path, reason) => return self.failed(path.display(), reason),
        }
        self.bar.inc(1);
    }

    /// The collection has this picture.
    pub(crate) fn known(&mut self) {
        self.known += 1;
        self.bar.inc(1);
    }

    /// Another file of this run has the same bytes.
    pub(crate) fn duplicate(&mut self) {
        self.duplicates += 1;
        self.bar.inc(1);
    }

    /// What its folder says of it can't be used; why is a failure of its own.
    pub(crate) fn left(&mut self) {
        self.left += 1;
        self.bar.inc(1);
    }

    pub(crate) fn failed(&mut self, path: impl fmt::Display, reason: String) {
        let path = path.to_string();
        self.bar.suspend(|| output::note(format!("{path}: {reason}")));
        self.failures.push(Failure { path, reason });
        self.bar.inc(1);
    }

    /// Says something beside the bar.
    pub(crate) fn note(&self, text: &str) {
        self.bar.suspend(|| output::note(text));
    }

    /// How many pictures were stored anew.
    #[cfg(test)]
    pub(crate) fn indexed(&self) -> u64 {
        self.indexed
    }

    /// Paths of what failed, and why.
    #[cfg(test)]
    pub(crate) fn failures(&self) -> Vec<(&str, &str)> {
        self.failures.iter().map(|failure| (&*failure.path, &*failure.reason)).collect()
    }

    pub(crate) fn has_failures(&self) -> bool {
        !self.failures.is_empty()
    }

    /// Takes the bar away and prints the last word.
    pub(crate) fn finish(&self, collection: &str, is_json: bool) -> Result<(), Error> {
        self.bar.finish_and_clear();
        let seconds = self.started.elapsed().as_secs_f64();
        if !is_json {
            return output::line(self.sentence(seconds));
        }
        output::document(&Summary {
            collection,
            indexed: self.indexed,
            updated: self.updated,
            already_there: self.known,
            duplicates: self.duplicates,
            left_as_is: self.left,
            failed: self.failures.len() as u64,
            sent: self.sent,
            seconds,
            files_per_second: self.rate(seconds),
            failures: &self.failures,
        })
    }

    fn sentence(&self, seconds: f64) -> String {
        let mut parts = vec![format!("{} indexed", self.indexed)];
        let failed = self.failures.len() as u64;
        let others = [
            (self.updated, "updated"),
            (self.known, "already there"),
            (self.duplicates, "the same as another file"),
            (self.left, "left as they are"),
            (failed, "failed"),
        ];
        for (count, what) in others {
            if count > 0 {
                parts.push(format!("{count} {what}"));
            }
        }
        let rate = match self.indexed + self.updated {
            0 => String::new(),
            _ => format!(" ({:.1} pictures/s)", self.rate(seconds)),
        };
        format!("{} in {seconds:.1} s{rate}", parts.join(", "))
    }

    /// Pictures stored per second; what was skipped or refused is not counted, for it cost little.
    fn rate(&self, seconds: f64) -> f64 {
        (self.indexed + self.updated) as f64 / seconds.max(f64::EPSILON)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_says_what_happened_and_nothing_else() {
        let mut report = Report::new(3);
        assert_eq!(report.sentence(0.5), "0 indexed in 0.5 s", "nothing happened");
        for name in ["a", "b", "c", "d"] {
            report.settled(Settled::Indexed(name.into()));
        }
        assert_eq!(report.sentence(2.0), "4 indexed in 2.0 s (2.0 pictures/s)", "all is well");
        report.known();
        report.duplicate();
        report.left();
        report.settled(Settled::Failed("x.jpg".into(), "not an image".to_owned()));
        assert!(report.has_failures(), "one failed");
        let mixed = "4 indexed, 1 already there, 1 the same as another file, 1 left as they are, \
                     1 failed in 2.0 s (2.0 pictures/s)";
        assert_eq!(report.sentence(2.0), mixed, "some of each");
        assert_eq!(report.sent, 5, "what the mesh has, and what it refused");
    }
}
