//! How far a download is: a bar for a person, a line now and then for a log.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Between two lines of a log.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Shown until it is dropped.
#[derive(Debug)]
pub(super) struct Progress {
    /// Hides itself where standard error is no terminal.
    bar: ProgressBar,
    name: String,
    pace: Pace,
}

/// When a line is due.
#[derive(Debug)]
struct Pace {
    last: Instant,
}

// === impl Progress ===

impl Progress {
    pub(super) fn start(name: &str, received: u64, size: u64) -> Self {
        let style = ProgressStyle::with_template(
            "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
        );
        let style = style.expect("the template is a constant that was tried");
        let bar = ProgressBar::new(size).with_style(style).with_message(name.to_owned());
        bar.set_position(received);
        bar.reset_eta();
        tracing::info!(file = name, bytes = size, received, "download starts");
        Self { bar, name: name.to_owned(), pace: Pace { last: Instant::now() } }
    }

    pub(super) fn restart(&self) {
        self.bar.reset();
    }

    pub(super) fn advance(&mut self, bytes: u64) {
        self.bar.inc(bytes);
        if self.bar.is_hidden() && self.pace.is_due(Instant::now()) {
            let (received, size) = (self.bar.position(), self.bar.length().unwrap_or(0));
            let percent = received * 100 / size.max(1);
            tracing::info!(file = self.name, received, bytes = size, percent, "download goes on");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

// === impl Pace ===

impl Pace {
    fn is_due(&mut self, now: Instant) -> bool {
        let is_due = now.duration_since(self.last) >= LINE_INTERVAL;
        if is_due {
            self.last = now;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_has_a_line_now_and_then() {
        let start = Instant::now();
        let mut pace = Pace { last: start };
        let due: Vec<u64> =
            (0..40).filter(|&second| pace.is_due(start + Duration::from_secs(second))).collect();
        assert_eq!(due, [10, 20, 30], "one in ten seconds");
    }

    #[test]
    fn a_bar_can_be_drawn() {
        let mut progress = Progress::start("model.safetensors", 1, 10);
        progress.advance(4);
        assert_eq!(progress.bar.position(), 5, "with what was there");
        progress.restart();
        assert_eq!(progress.bar.position(), 0, "from the start again");
    }
}
