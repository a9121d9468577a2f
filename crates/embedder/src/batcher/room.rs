//! How much may be in hand, and when to come back if it is too much. Pure policy.

use std::time::Duration;

use crate::lane::Lane;

/// What is told to callers while nothing was computed yet, and the bounds of what is told later.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const SHORTEST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(10);

/// How much a batch counts in the average time per input. Half the weight is on the last three.
const SMOOTHING: f64 = 0.2;

/// Quarters of the room that bulk work may fill. The rest is kept for people: a queue full of a
/// job's pictures must not turn them away.
const BULK_QUARTERS: u64 = 3;

/// How much is taken on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Inputs in hand.
    pub(crate) max_inputs: usize,
    /// Bytes in hand.
    pub(crate) max_bytes: u64,
}

/// A share of the bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) inputs: usize,
    pub(super) bytes: u64,
}

/// Why a call is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There is no room now.
    Full { retry_after: Duration },
    /// There never will be.
    NeverFits,
    /// No more work is taken.
    Closed,
}

/// What is in hand, and how fast it drains.
#[derive(Debug)]
pub(super) struct Room {
    bounds: Bounds,
    taken: Load,
    /// Average time that a device spends on an input.
    seconds_per_input: Option<f64>,
    /// How many devices there are.
    devices: usize,
}

impl Room {
    pub(super) fn new(bounds: Bounds, devices: usize) -> Self {
        Self { bounds, taken: Load::default(), seconds_per_input: None, devices }
    }

    /// Takes on a load, all or nothing.
    pub(super) fn admit(&mut self, lane: Lane, load: Load) -> Result<(), Refusal> {
        let bounds = self.bounds.of(lane);
        if !load.fits(bounds) {
            return Err(Refusal::NeverFits);
        }
        let total =
            Load { inputs: self.taken.inputs + load.inputs, bytes: self.taken.bytes + load.bytes };
        if !total.fits(bounds) {
            return Err(Refusal::Full { retry_after: self.retry_after() });
        }
        self.taken = total;
        Ok(())
    }

    /// Gives back a load that was admitted.
    pub(super) fn release(&mut self, load: Load) {
        debug_assert!(load.inputs <= self.taken.inputs, "more is given back than was taken");
        self.taken.inputs = self.taken.inputs.saturating_sub(load.inputs);
        self.taken.bytes = self.taken.bytes.saturating_sub(load.bytes);
    }

    /// Learns how long a device took for a batch.
    pub(super) fn finished(&mut self, inputs: usize, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64() / inputs.max(1) as f64;
        let average = self.seconds_per_input.unwrap_or(seconds);
        self.seconds_per_input = Some(average + SMOOTHING * (seconds - average));
    }

    /// Whether nothing is in hand.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.taken.inputs == 0
    }

    /// Until half of what is in hand will be done: room enough for most, and callers that come
    /// back a little early are spread over the rest.
    pub(super) fn retry_after(&self) -> Duration {
        let Some(seconds_per_input) = self.seconds_per_input else { return FIRST_RETRY };
        let inputs = self.taken.inputs as f64 / self.devices.max(1) as f64;
        let seconds = (seconds_per_input * inputs / 2.0).min(LONGEST_RETRY.as_secs_f64());
        Duration::from_secs_f64(seconds).max(SHORTEST_RETRY)
    }
}

impl Bounds {
    fn of(self, lane: Lane) -> Self {
        match lane {
            Lane::Interactive => self,
            Lane::Bulk => Self {
                max_inputs: self.max_inputs / 4 * BULK_QUARTERS as usize,
                max_bytes: self.max_bytes / 4 * BULK_QUARTERS,
            },
        }
    }
}

impl Load {
    fn fits(self, bounds: Bounds) -> bool {
        self.inputs <= bounds.max_inputs && self.bytes <= bounds.max_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { max_inputs: 12, max_bytes: 100 };

    fn load(inputs: usize, bytes: u64) -> Load {
        Load { inputs, bytes }
    }

    #[test]
    fn a_call_is_admitted_as_a_whole_or_not_at_all() {
        let mut room = Room::new(BOUNDS, 1);
        assert_eq!(room.admit(Lane::Interactive, load(10, 10)), Ok(()), "there is room");
        let refusal = room.admit(Lane::Interactive, load(3, 0));
        let expected = Err(Refusal::Full { retry_after: FIRST_RETRY });
        assert_eq!(refusal, expected, "two of three are none");
        assert_eq!(room.admit(Lane::Interactive, load(2, 90)), Ok(()), "nothing was taken");
        let refusal = room.admit(Lane::Interactive, load(13, 0));
        assert_eq!(refusal, Err(Refusal::NeverFits), "coming back would not help");
    }

    #[test]
    fn bulk_work_leaves_room_for_people() {
        let mut room = Room::new(BOUNDS, 1);
        assert_eq!(room.admit(Lane::Bulk, load(9, 0)), Ok(()), "three quarters");
        let refused = room.admit(Lane::Bulk, load(1, 0));
        assert!(matches!(refused, Err(Refusal::Full { .. })), "no more: {refused:?}");
        assert_eq!(room.admit(Lane::Interactive, load(3, 100)), Ok(()), "the rest is for people");
        let refused = room.admit(Lane::Bulk, load(1, 76));
        assert_eq!(refused, Err(Refusal::NeverFits), "more than a job ever gets");
        room.release(load(9, 0));
        room.release(load(3, 100));
        assert!(room.is_empty(), "all was given back");
    }

    #[test]
    fn the_time_to_come_back_follows_the_devices() {
        for (devices, expected) in [(1, 600), (2, 300)] {
            let mut room = Room::new(BOUNDS, devices);
            room.admit(Lane::Interactive, load(12, 0)).expect("there is room");
            for _ in 0..50 {
                room.finished(4, Duration::from_millis(400));
            }
            let expected = Duration::from_millis(expected);
            let distance = room.retry_after().abs_diff(expected);
            let message = "half of 12 inputs at 100 ms each, shared by the devices";
            assert!(distance < Duration::from_millis(1), "{message}: {:?}", room.retry_after());
        }
    }
}
