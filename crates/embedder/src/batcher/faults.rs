//! What to do when a device fails. Pure policy.
//!
//! ```text
//!   out of memory ──► half the batch, and smaller ones from now on ──► at size 1: shed
//!   a failed pass ──► halves, to find the input that it fails on   ──► at size 1: refuse it
//!   sticky error, hang, panic, failures without end, a canary that stays wrong ──► die
//! ```
//!
//! A device that dies takes the process with it: libtorch can't be rid of a broken CUDA context,
//! and whoever runs the process has a better one to put in its place.

use std::fmt;

use crate::backend::sizes::Sizes;

/// Failures in a row, each of a single input, that leave no hope. One bad input fails once.
const MOST_FAILURES: u32 = 8;

/// Wrong songs of the canary in a row that leave no hope.
const MOST_WRONG_SONGS: u32 = 3;

/// Passes that must go well before a larger batch is tried again: memory that another program
/// took may have been given back, and if not, one pass in so many is wasted.
const PASSES_BEFORE_GROWTH: u32 = 256;

/// What went wrong with a pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    OutOfMemory,
    /// It failed in a way that need not come again.
    Failed(String),
    /// It failed in a way that every later pass will.
    Lost(String),
    Hung,
    /// The thread that runs the model is gone.
    Panicked,
}

/// What to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Try each half.
    Split,
    /// Ask the caller to come back.
    Shed,
    /// Tell the caller that it failed.
    Refuse(String),
    Die(Death),
}

/// Why a device is given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    Panicked,
    Lost(String),
    Hung,
    /// Nothing went well any more; the last failure.
    Failing(String),
    /// It computes wrong vectors.
    Wrong,
}

/// How the canary sang.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Song {
    Right,
    Wrong,
}

/// What is known of one device.
#[derive(Debug)]
pub(super) struct Faults {
    sizes: Sizes,
    /// Largest batch that is given to it.
    most: usize,
    /// Passes since `most` was changed.
    passes: u32,
    failures: u32,
    wrong_songs: u32,
}

impl Faults {
    pub(super) fn new(sizes: Sizes) -> Self {
        Self { most: sizes.max(), sizes, passes: 0, failures: 0, wrong_songs: 0 }
    }

    /// Most inputs in a batch.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Learns that a pass of so many inputs failed.
    pub(super) fn failed(&mut self, fault: Fault, inputs: usize) -> Verdict {
        match &fault {
            Fault::Panicked => return Verdict::Die(Death::Panicked),
            Fault::Lost(message) => return Verdict::Die(Death::Lost(message.clone())),
            Fault::Hung => return Verdict::Die(Death::Hung),
            Fault::OutOfMemory => {
                self.passes = 0;
                self.most = self.most.min(self.sizes.halved(inputs));
            }
            Fault::Failed(_) => {}
        }
        if inputs > 1 {
            return Verdict::Split;
        }
        self.failures += 1;
        match &fault {
            Fault::Failed(message) if self.failures < MOST_FAILURES => {
                Verdict::Refuse(message.clone())
            }
            Fault::OutOfMemory if self.failures < MOST_FAILURES => Verdict::Shed,
            Fault::Failed(_)
            | Fault::OutOfMemory
            | Fault::Lost(_)
            | Fault::Hung
            | Fault::Panicked => Verdict::Die(Death::Failing(fault.to_string())),
        }
    }

    /// Learns that a pass went well.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
        self.passes += 1;
        if self.passes >= PASSES_BEFORE_GROWTH {
            self.passes = 0;
            self.most = self.sizes.above(self.most).unwrap_or(self.most);
        }
    }

    /// Learns how the canary sang.
    pub(super) fn sung(&mut self, song: Song) -> Result<(), Death> {
        self.wrong_songs = match song {
            Song::Right => 0,
            Song::Wrong => self.wrong_songs + 1,
        };
        if self.wrong_songs >= MOST_WRONG_SONGS { Err(Death::Wrong) } else { Ok(()) }
    }
}

impl Fault {
    /// The value of the label `fault` of metrics.
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::OutOfMemory => "out_of_memory",
            Self::Failed(_) => "failed",
            Self::Lost(_) => "lost",
            Self::Hung => "hung",
            Self::Panicked => "panicked",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfMemory => f.write_str("the device is out of memory"),
            Self::Failed(message) | Self::Lost(message) => f.write_str(message),
            Self::Hung => f.write_str("the device hangs"),
            Self::Panicked => f.write_str("the thread that runs the model has died"),
        }
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked => f.write_str("the thread that runs the model has died"),
            Self::Lost(message) => write!(f, "the device is lost: {message}"),
            Self::Hung => f.write_str("the device did not finish a batch in time"),
            Self::Failing(message) => write!(f, "the device fails again and again: {message}"),
            Self::Wrong => f.write_str("the device computes wrong vectors"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults() -> Faults {
        Faults::new(Sizes::up_to(32))
    }

    fn failed() -> Fault {
        Fault::Failed("no".to_owned())
    }

    #[test]
    fn out_of_memory_halves_the_batch_then_sheds_and_recovers() {
        let mut faults = faults();
        assert_eq!(faults.failed(Fault::OutOfMemory, 20), Verdict::Split, "in two");
        assert_eq!(faults.most(), 8, "no larger than the largest step within a half");
        assert_eq!(faults.failed(Fault::OutOfMemory, 32), Verdict::Split, "one from before");
        assert_eq!(faults.most(), 8, "which teaches nothing new");
        assert_eq!(faults.failed(Fault::OutOfMemory, 1), Verdict::Shed, "not even one");
        assert_eq!(faults.most(), 1, "from now on, one at a time");
        for _ in 0..PASSES_BEFORE_GROWTH {
            faults.succeeded();
        }
        assert_eq!(faults.most(), 2, "a step up");
        for _ in 0..10 * PASSES_BEFORE_GROWTH {
            faults.succeeded();
        }
        assert_eq!(faults.most(), 32, "up to where it was");
    }

    #[test]
    fn a_failed_pass_is_split_until_the_input_is_found() {
        let mut faults = faults();
        assert_eq!(faults.failed(failed(), 2), Verdict::Split, "one of two");
        assert_eq!(faults.failed(failed(), 1), Verdict::Refuse("no".to_owned()), "this one");
        assert_eq!(faults.most(), 32, "it was not the size");
    }

    #[test]
    fn failures_without_a_success_between_them_are_the_device_s() {
        for (fault, until) in [(failed(), "no"), (Fault::OutOfMemory, "out of memory")] {
            let mut faults = faults();
            for _ in 0..20 {
                for _ in 1..MOST_FAILURES {
                    let verdict = faults.failed(fault.clone(), 1);
                    assert!(!matches!(verdict, Verdict::Die(_)), "not yet: {verdict:?}");
                }
                faults.succeeded();
            }
            for _ in 1..MOST_FAILURES {
                faults.failed(fault.clone(), 1);
            }
            let verdict = faults.failed(fault, 1);
            let Verdict::Die(Death::Failing(message)) = verdict else { panic!("{verdict:?}") };
            assert!(message.contains(until), "the last one is told: {message}");
        }
    }

    #[test]
    fn some_faults_are_final() {
        let lost = || "an illegal memory access".to_owned();
        for (fault, death) in [
            (Fault::Lost(lost()), Death::Lost(lost())),
            (Fault::Hung, Death::Hung),
            (Fault::Panicked, Death::Panicked),
        ] {
            assert_eq!(faults().failed(fault, 32), Verdict::Die(death), "at any size");
        }
    }

    #[test]
    fn a_canary_may_be_wrong_twice() {
        let mut faults = faults();
        for song in [Song::Wrong, Song::Wrong, Song::Right, Song::Wrong, Song::Wrong] {
            assert_eq!(faults.sung(song), Ok(()), "it may have been a passing fault");
        }
        assert_eq!(faults.sung(Song::Wrong), Err(Death::Wrong), "three in a row are none");
    }
}
