//! One replica makes a vector that several want at once; the others wait for it to appear.
//!
//! ```text
//!   take the lease ── got it ──► make the vector ─► keep it ─► end the lease
//!        ▲   │ another has it
//!        │   ▼
//!        │  wait a little ──► the vector is there ──► use it
//!        │   ▲     │     └──► waited long enough ───► make it, without a lease
//!        │   └─────┤ still held
//!        └─────────┘ free again: whoever had it failed, or died
//! ```

use std::time::Duration;

use tokio::time::Instant;

/// The first pause between two looks, and the longest.
const MIN_PAUSE: Duration = Duration::from_millis(5);
const MAX_PAUSE: Duration = Duration::from_millis(50);

/// How long to wait for another replica, and how often to look. Pure: it is told the time.
#[derive(Debug)]
pub(super) struct Patience {
    until: Instant,
    pause: Duration,
}

impl Patience {
    /// Nobody waits longer than a lease lasts, nor longer than half of what is left of the caller's
    /// time: the other half is for making the vector.
    pub(super) fn new(now: Instant, lease: Duration, remaining: Option<Duration>) -> Self {
        let longest = remaining.map_or(lease, |remaining| lease.min(remaining / 2));
        Self { until: now + longest, pause: MIN_PAUSE }
    }

    /// How long to wait until the next look; `None` once it was long enough.
    pub(super) fn pause(&mut self, now: Instant) -> Option<Duration> {
        let left = self.until.checked_duration_since(now).filter(|left| !left.is_zero())?;
        let pause = self.pause.min(left);
        self.pause = (2 * self.pause).min(MAX_PAUSE);
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses(lease: Duration, remaining: Option<Duration>) -> Vec<u128> {
        let start = Instant::now();
        let mut patience = Patience::new(start, lease, remaining);
        let (mut now, mut pauses) = (start, Vec::new());
        while let Some(pause) = patience.pause(now) {
            now += pause;
            pauses.push(pause.as_millis());
        }
        pauses
    }

    #[test]
    fn looks_often_at_first_and_ends_with_the_lease() {
        let pauses = pauses(Duration::from_millis(200), None);
        assert_eq!(pauses, [5, 10, 20, 40, 50, 50, 25], "each twice the one before, in all 200");
    }

    #[test]
    fn leaves_half_of_the_time_for_doing_it_oneself() {
        let lease = Duration::from_secs(5);
        let sum = |remaining| pauses(lease, Some(remaining)).iter().sum::<u128>();
        assert_eq!(sum(Duration::from_millis(300)), 150, "half of what is left");
        assert_eq!(sum(Duration::from_secs(60)), 5_000, "but no longer than the lease");
        assert_eq!(sum(Duration::ZERO), 0, "no time, no waiting");
    }
}
