//! When to leave a server alone that fails, or that takes longer than it spares.
//!
//! ```text
//!                 failures in a row
//!   Admitting ─────────────────────────► Ejected ◄───────────┐
//!       ▲                                   │ the time is up  │ it failed: for longer
//!       │          it succeeded             ▼                 │
//!       └────────────────────────────── Probing ─────────────┘
//!                                     one call tries
//! ```
//!
//! Pure: it is told the time and the chance, and waits for nothing.

use std::time::Duration;

use tokio::time::Instant;

/// How much of the time of an ejection is left to chance, so that the replicas of a service do not
/// come back all at once.
const JITTER: f64 = 0.2;

/// When to eject, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    /// So many in a row.
    pub(crate) max_failures: u32,
    pub(crate) min_ejection: Duration,
    pub(crate) max_ejection: Duration,
}

/// Whether a server may be asked.
#[derive(Debug)]
pub(crate) struct Breaker {
    policy: Policy,
    state: State,
    /// How long the next ejection lasts.
    ejection: Duration,
}

#[derive(Debug)]
enum State {
    Admitting { failures: u32 },
    Ejected { until: Instant },
    Probing,
}

/// Leave to make one call, whose outcome is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Ordinary,
    /// The call on which it depends whether others are made.
    Probe,
}

/// What an outcome changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    None,
    Ejected(Duration),
    Admitted,
}

impl Breaker {
    pub(crate) fn new(policy: Policy) -> Self {
        let state = State::Admitting { failures: 0 };
        Self { ejection: policy.min_ejection, policy, state }
    }

    /// Asks for leave to make a call. The outcome of one that has it must be told.
    pub(crate) fn admit(&mut self, now: Instant) -> Option<Call> {
        match self.state {
            State::Admitting { .. } => Some(Call::Ordinary),
            State::Ejected { until } if now >= until => {
                self.state = State::Probing;
                Some(Call::Probe)
            }
            State::Ejected { .. } | State::Probing => None,
        }
    }

    pub(crate) fn succeeded(&mut self, call: Call) -> Change {
        match (&mut self.state, call) {
            (State::Admitting { failures }, _) => {
                *failures = 0;
                self.ejection = self.policy.min_ejection;
                Change::None
            }
            (State::Probing, Call::Probe) => {
                // The ejection stays long until an ordinary call has succeeded, too: a server that
                // answers one call in a while is none.
                self.state = State::Admitting { failures: 0 };
                Change::Admitted
            }
            // One that was under way when the server was ejected.
            (State::Ejected { .. } | State::Probing, _) => Change::None,
        }
    }

    /// `chance` is in [0, 1).
    pub(crate) fn failed(&mut self, call: Call, now: Instant, chance: f64) -> Change {
        match (&mut self.state, call) {
            (State::Admitting { failures }, _) => {
                *failures += 1;
                if *failures < self.policy.max_failures {
                    return Change::None;
                }
            }
            (State::Probing, Call::Probe) => {}
            (State::Ejected { .. } | State::Probing, _) => return Change::None,
        }
        let time = self.ejection.mul_f64(1.0 + JITTER * (2.0 * chance - 1.0));
        self.ejection = (2 * self.ejection).min(self.policy.max_ejection);
        self.state = State::Ejected { until: now + time };
        Change::Ejected(time)
    }

    /// Nobody waited for the outcome.
    pub(crate) fn abandoned(&mut self, call: Call, now: Instant) {
        if let (State::Probing, Call::Probe) = (&self.state, call) {
            self.state = State::Ejected { until: now };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of chances, this one leaves times as they are.
    const EVEN: f64 = 0.5;

    fn breaker() -> Breaker {
        Breaker::new(Policy {
            max_failures: 3,
            min_ejection: Duration::from_secs(1),
            max_ejection: Duration::from_secs(5),
        })
    }

    fn eject(breaker: &mut Breaker, now: Instant) -> Change {
        (0..3).map(|_| breaker.failed(Call::Ordinary, now, EVEN)).last().expect("three")
    }

    #[test]
    fn only_failures_in_a_row_eject() {
        let (mut breaker, now) = (breaker(), Instant::now());
        for _ in 0..10 {
            assert_eq!(breaker.failed(Call::Ordinary, now, EVEN), Change::None, "one");
            assert_eq!(breaker.failed(Call::Ordinary, now, EVEN), Change::None, "two");
            assert_eq!(breaker.succeeded(Call::Ordinary), Change::None, "but it answers");
            assert_eq!(breaker.admit(now), Some(Call::Ordinary), "so it is asked");
        }
        let change = eject(&mut breaker, now);
        assert_eq!(change, Change::Ejected(Duration::from_secs(1)), "three in a row");
        assert_eq!(breaker.admit(now), None, "left alone");
    }

    #[test]
    fn one_call_tries_when_the_time_is_up() {
        let (mut breaker, now) = (breaker(), Instant::now());
        eject(&mut breaker, now);
        assert_eq!(breaker.admit(now + Duration::from_millis(999)), None, "not yet");
        let later = now + Duration::from_secs(1);
        assert_eq!(breaker.admit(later), Some(Call::Probe), "one");
        assert_eq!(breaker.admit(later), None, "and no other before its outcome");
        assert_eq!(breaker.succeeded(Call::Ordinary), Change::None, "a late answer is no outcome");
        assert_eq!(breaker.admit(later), None, "still no other");
        assert_eq!(breaker.succeeded(Call::Probe), Change::Admitted, "it is back");
        assert_eq!(breaker.admit(later), Some(Call::Ordinary), "for all");
    }

    #[test]
    fn each_failed_try_doubles_the_time_up_to_the_bound() {
        let (mut breaker, mut now) = (breaker(), Instant::now());
        eject(&mut breaker, now);
        for seconds in [2, 4, 5, 5] {
            now += Duration::from_secs(5);
            assert_eq!(breaker.admit(now), Some(Call::Probe), "it is tried");
            let change = breaker.failed(Call::Probe, now, EVEN);
            assert_eq!(change, Change::Ejected(Duration::from_secs(seconds)), "for longer");
        }
        now += Duration::from_secs(5);
        breaker.admit(now);
        breaker.succeeded(Call::Probe);
        assert_eq!(eject(&mut breaker, now), Change::Ejected(Duration::from_secs(5)), "flapping");
        now += Duration::from_secs(5);
        breaker.admit(now);
        breaker.succeeded(Call::Probe);
        breaker.succeeded(Call::Ordinary);
        assert_eq!(eject(&mut breaker, now), Change::Ejected(Duration::from_secs(1)), "recovered");
    }

    #[test]
    fn failures_that_were_under_way_do_not_eject_again() {
        let (mut breaker, now) = (breaker(), Instant::now());
        eject(&mut breaker, now);
        assert_eq!(eject(&mut breaker, now), Change::None, "it is known");
        let later = now + Duration::from_secs(1);
        assert_eq!(breaker.admit(later), Some(Call::Probe), "the time is what it was");
    }

    #[test]
    fn a_probe_that_nobody_waits_for_leaves_its_place_to_another() {
        let (mut breaker, now) = (breaker(), Instant::now());
        eject(&mut breaker, now);
        let later = now + Duration::from_secs(1);
        assert_eq!(breaker.admit(later), Some(Call::Probe), "one");
        breaker.abandoned(Call::Ordinary, later);
        assert_eq!(breaker.admit(later), None, "it was not that one");
        breaker.abandoned(Call::Probe, later);
        assert_eq!(breaker.admit(later), Some(Call::Probe), "the next");
    }

    #[test]
    fn chance_shifts_the_time_by_a_fifth() {
        let now = Instant::now();
        for (chance, millis) in [(0.0, 800), (0.5, 1_000), (1.0, 1_200)] {
            let mut breaker = breaker();
            for _ in 0..2 {
                breaker.failed(Call::Ordinary, now, chance);
            }
            let change = breaker.failed(Call::Ordinary, now, chance);
            assert_eq!(change, Change::Ejected(Duration::from_millis(millis)), "{chance}");
        }
    }
}
