//! What is believed of one upstream, and when to look again. No IO and no clock.
//!
//! ```text
//!             answered                    gone, or silent three times
//!   Unknown ───────────► Known ◄──────────────────────────────────────► Lost
//!                         │ ▲                   answered
//!                  silent ▼ │ answered
//!                        Known, with doubts: the last answer stands
//! ```
//!
//! A refused connection is a fact, a late answer a doubt: a host that is busy with a batch must
//! not be taken out for one slow reply. While there is doubt or loss the looks come faster at
//! first, so that a restart is noticed within a tenth of a second, and then at the usual pace, so
//! that a host that stays away costs no more than one that is there.

use std::time::Duration;

/// Silences in a row that mean loss.
const SILENCES: u32 = 3;

/// The first pause after a loss; it doubles up to the usual interval.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// What one look at an upstream showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// It answered: whether each of its services serves.
    Answered(Vec<bool>),
    /// Nothing within the time.
    Silent,
    /// It can't be reached, and why.
    Gone(String),
}

/// What a verdict has to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// The first that is known at all: loss is no trouble yet, it may just be starting.
    First,
    /// It was otherwise before.
    Change,
}

/// What follows from a look.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verdict<'a> {
    /// Whether each service serves.
    pub(crate) serving: &'a [bool],
    /// How that differs from what was told before.
    pub(crate) news: Option<News>,
    /// How long to wait before the next look.
    pub(crate) pause: Duration,
}

/// What is believed of one upstream.
#[derive(Debug)]
pub(crate) struct State {
    interval: Duration,
    serving: Vec<bool>,
    has_told: bool,
    silences: u32,
    /// Looks in a row that brought no answer.
    failures: u32,
}

// === impl State ===

impl State {
    /// Believes nothing good of `services` services before the first look.
    pub(crate) fn new(services: usize, interval: Duration) -> Self {
        let serving = vec![false; services];
        Self { interval, serving, has_told: false, silences: 0, failures: 0 }
    }

    /// Takes in one look.
    pub(crate) fn saw(&mut self, sight: &Sight) -> Verdict<'_> {
        let believed = match sight {
            Sight::Answered(serving) => {
                self.silences = 0;
                self.failures = 0;
                Some(serving.clone())
            }
            Sight::Silent => {
                self.silences = self.silences.saturating_add(1);
                self.failures = self.failures.saturating_add(1);
                (self.silences >= SILENCES).then(|| self.none())
            }
            Sight::Gone(_) => {
                self.failures = self.failures.saturating_add(1);
                Some(self.none())
            }
        };
        let mut news = None;
        if let Some(believed) = believed {
            if !self.has_told {
                news = Some(News::First);
            } else if self.serving != believed {
                news = Some(News::Change);
            }
            self.has_told = true;
            self.serving = believed;
        }
        Verdict { news, pause: self.pause(), serving: &self.serving }
    }

    fn none(&self) -> Vec<bool> {
        vec![false; self.serving.len()]
    }

    fn pause(&self) -> Duration {
        let Some(doublings) = self.failures.checked_sub(1) else {
            return self.interval;
        };
        let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        FIRST_PAUSE.saturating_mul(factor).min(self.interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(1);

    fn gone() -> Sight {
        Sight::Gone("connection refused".to_owned())
    }

    fn answered(serving: &[bool]) -> Sight {
        Sight::Answered(serving.to_vec())
    }

    #[test]
    fn believes_what_it_is_told_and_tells_it_once() {
        let mut state = State::new(2, INTERVAL);
        let verdict = state.saw(&answered(&[true, false]));
        assert_eq!(verdict.serving, [true, false], "service by service");
        assert_eq!(verdict.news, Some(News::First), "nothing was told before");
        let verdict = state.saw(&answered(&[true, false]));
        assert_eq!(verdict.news, None, "nothing changed");
        assert_eq!(verdict.pause, INTERVAL, "the usual pace");
        let verdict = state.saw(&answered(&[true, true]));
        assert_eq!(verdict.news, Some(News::Change), "one service came up");
    }

    #[test]
    fn a_refused_connection_counts_at_once() {
        let mut state = State::new(1, INTERVAL);
        state.saw(&answered(&[true]));
        let verdict = state.saw(&gone());
        assert_eq!(verdict.serving, [false], "nobody is there");
        assert_eq!(verdict.news, Some(News::Change), "it was there before");
        assert_eq!(state.saw(&gone()).news, None, "told once");
        assert_eq!(state.saw(&answered(&[true])).serving, [true], "back at the first answer");
    }

    #[test]
    fn a_late_answer_is_only_a_doubt() {
        let mut state = State::new(1, INTERVAL);
        state.saw(&answered(&[true]));
        for _ in 1..SILENCES {
            assert_eq!(state.saw(&Sight::Silent).serving, [true], "the last answer stands");
        }
        assert_eq!(state.saw(&Sight::Silent).serving, [false], "three silences are a loss");

        state.saw(&answered(&[true]));
        state.saw(&Sight::Silent);
        state.saw(&answered(&[true]));
        state.saw(&Sight::Silent);
        let verdict = state.saw(&Sight::Silent);
        assert_eq!(verdict.serving, [true], "an answer in between starts the count anew");
    }

    #[test]
    fn an_upstream_that_was_never_seen_is_reported_as_lost() {
        let mut state = State::new(1, INTERVAL);
        let verdict = state.saw(&gone());
        assert_eq!(verdict.serving, [false], "nobody is there");
        assert_eq!(verdict.news, Some(News::First), "told, but not as a loss");
    }

    #[test]
    fn looks_again_soon_and_then_at_the_usual_pace() {
        let mut state = State::new(1, INTERVAL);
        let pauses: Vec<u128> = (0..6).map(|_| state.saw(&gone()).pause.as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1000, 1000], "doubling, bounded");
        for _ in 0..100 {
            assert!(state.saw(&gone()).pause <= INTERVAL, "for ever");
        }
        assert_eq!(state.saw(&answered(&[true])).pause, INTERVAL, "and calm again");
    }
}
