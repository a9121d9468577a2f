//! The policy of the batcher: who is admitted, who waits, who is computed next. It knows nothing
//! of clocks, tasks or devices.
//!
//! ```text
//!                admit            push              next_batch
//!   outside ───► admitted ──────► in a lane ──────► in a batch
//!                   ▲                │ expired, abandoned │
//!                   └── release ◄────┴────────────────────┘
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// What is told to callers while nothing was computed yet, and the bounds of what is told later.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const SHORTEST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(10);

/// How much a batch counts in the average time per input. Half the weight is on the last three.
const SMOOTHING: f64 = 0.2;

/// How much is taken on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Inputs in one batch, at least 1.
    pub(crate) max_batch: usize,
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

/// Inputs of different kinds can't be computed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Picture,
    Text,
}

/// An item in a lane.
#[derive(Debug)]
pub(super) struct Queued<T> {
    pub(super) item: T,
    pub(super) queued_at: Instant,
    /// When its caller will be gone.
    pub(super) deadline: Option<Instant>,
}

/// Items that are not worth computing.
#[derive(Debug)]
pub(super) struct Dead<T> {
    /// Their deadlines have passed.
    pub(super) expired: Vec<T>,
    /// Nobody waits for them.
    pub(super) abandoned: Vec<T>,
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

/// All items in hand, and the time that they take.
#[derive(Debug)]
pub(super) struct State<T> {
    bounds: Bounds,
    /// Each in order of arrival.
    pictures: VecDeque<Queued<T>>,
    texts: VecDeque<Queued<T>>,
    /// What is in hand, whether in a lane or not.
    admitted: Load,
    /// Average time that the device spends on an input.
    seconds_per_input: Option<f64>,
    /// When the device began what it has not succeeded with since.
    unproven_since: Option<Instant>,
    is_closed: bool,
}

impl<T> State<T> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            pictures: VecDeque::new(),
            texts: VecDeque::new(),
            admitted: Load::default(),
            seconds_per_input: None,
            unproven_since: None,
            is_closed: false,
        }
    }

    /// Takes on a load, all or nothing.
    pub(super) fn admit(&mut self, load: Load) -> Result<(), Refusal> {
        if self.is_closed {
            return Err(Refusal::Closed);
        }
        if load.inputs > self.bounds.max_inputs || load.bytes > self.bounds.max_bytes {
            return Err(Refusal::NeverFits);
        }
        let inputs = self.admitted.inputs + load.inputs;
        let bytes = self.admitted.bytes + load.bytes;
        if inputs > self.bounds.max_inputs || bytes > self.bounds.max_bytes {
            return Err(Refusal::Full { retry_after: self.retry_after() });
        }
        self.admitted = Load { inputs, bytes };
        Ok(())
    }

    /// Gives back a load that was admitted.
    pub(super) fn release(&mut self, load: Load) {
        debug_assert!(load.inputs <= self.admitted.inputs, "more is given back than was taken");
        self.admitted.inputs = self.admitted.inputs.saturating_sub(load.inputs);
        self.admitted.bytes = self.admitted.bytes.saturating_sub(load.bytes);
    }

    /// Queues an item that was admitted. Gives it back if no more work is taken.
    #[must_use]
    pub(super) fn push(&mut self, kind: Kind, queued: Queued<T>) -> Option<Queued<T>> {
        if self.is_closed {
            return Some(queued);
        }
        self.lane(kind).push_back(queued);
        None
    }

    /// Takes the next batch: the longest waiting item and those behind it in its lane. It is empty
    /// if nothing waits.
    pub(super) fn next_batch(&mut self) -> Vec<Queued<T>> {
        let arrival = |lane: &VecDeque<Queued<T>>| lane.front().map(|queued| queued.queued_at);
        let kind = match (arrival(&self.pictures), arrival(&self.texts)) {
            (Some(picture), Some(text)) if text < picture => Kind::Text,
            (None, Some(_)) => Kind::Text,
            (Some(_), _) | (None, None) => Kind::Picture,
        };
        let max_batch = self.bounds.max_batch;
        let lane = self.lane(kind);
        lane.drain(..lane.len().min(max_batch)).collect()
    }

    /// Takes out what is not worth computing. Called before every batch.
    pub(super) fn sweep(&mut self, now: Instant, is_abandoned: impl Fn(&T) -> bool) -> Dead<T> {
        let mut dead = Dead { expired: Vec::new(), abandoned: Vec::new() };
        for lane in [&mut self.pictures, &mut self.texts] {
            for queued in std::mem::take(lane) {
                if is_abandoned(&queued.item) {
                    dead.abandoned.push(queued.item);
                } else if queued.deadline.is_some_and(|deadline| deadline <= now) {
                    dead.expired.push(queued.item);
                } else {
                    lane.push_back(queued);
                }
            }
        }
        dead
    }

    /// Learns that the device was given a batch.
    pub(super) fn started(&mut self, now: Instant) {
        // The first of several failures counts.
        self.unproven_since.get_or_insert(now);
    }

    /// How long the device has gone without a success that was due.
    pub(super) fn unproven(&self, now: Instant) -> Option<Duration> {
        self.unproven_since.map(|since| now.duration_since(since))
    }

    /// Learns that a batch went well, and how long it took.
    pub(super) fn finished(&mut self, inputs: usize, elapsed: Duration) {
        self.unproven_since = None;
        let seconds = elapsed.as_secs_f64() / inputs.max(1) as f64;
        let average = self.seconds_per_input.unwrap_or(seconds);
        self.seconds_per_input = Some(average + SMOOTHING * (seconds - average));
    }

    /// Takes no more work and gives back what waits.
    pub(super) fn close(&mut self) -> Vec<T> {
        self.is_closed = true;
        let lanes = [std::mem::take(&mut self.pictures), std::mem::take(&mut self.texts)];
        lanes.into_iter().flatten().map(|queued| queued.item).collect()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Whether nothing is in hand.
    pub(super) fn is_idle(&self) -> bool {
        self.admitted.inputs == 0
    }

    /// Items in both lanes.
    pub(super) fn waiting(&self) -> usize {
        self.pictures.len() + self.texts.len()
    }

    /// Until half of what is in hand will be done: room enough for most, and callers that come
    /// back a little early are spread over the rest.
    fn retry_after(&self) -> Duration {
        let Some(seconds_per_input) = self.seconds_per_input else { return FIRST_RETRY };
        let seconds = seconds_per_input * self.admitted.inputs as f64 / 2.0;
        Duration::from_secs_f64(seconds.min(LONGEST_RETRY.as_secs_f64())).max(SHORTEST_RETRY)
    }

    fn lane(&mut self, kind: Kind) -> &mut VecDeque<Queued<T>> {
        match kind {
            Kind::Picture => &mut self.pictures,
            Kind::Text => &mut self.texts,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds { max_batch: 4, max_inputs: 12, max_bytes: 100 };

    /// One thing that can happen to a batcher.
    #[derive(Clone, Debug)]
    enum Step {
        Arrive { is_text: bool, bytes: u64, patience: Option<u64> },
        Abandon { nth: usize },
        Tick { millis: u64 },
        Batch,
    }

    #[derive(Clone, Debug)]
    struct Item {
        id: usize,
        bytes: u64,
    }

    /// Identity, whether it is a text, deadline and size.
    type Waiting = (usize, bool, Option<Instant>, u64);

    /// What the next batch must be.
    fn oldest_lane(waiting: &[Waiting]) -> Vec<usize> {
        let kind = waiting.first().map(|entry| entry.1);
        let lane = waiting.iter().filter(|entry| Some(entry.1) == kind);
        lane.take(BOUNDS.max_batch).map(|entry| entry.0).collect()
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (any::<bool>(), 0..40_u64, proptest::option::of(0..30_u64))
                .prop_map(|(is_text, bytes, patience)| Step::Arrive { is_text, bytes, patience }),
            1 => (0..40_usize).prop_map(|nth| Step::Abandon { nth }),
            1 => (0..20_u64).prop_map(|millis| Step::Tick { millis }),
            2 => Just(Step::Batch),
        ]
    }

    proptest! {
        /// Runs any history beside a plain list of what is in hand.
        #[test]
        fn nothing_is_lost_doubled_overtaken_late_or_over_the_bounds(
            steps in proptest::collection::vec(step(), 1..120)
        ) {
            let mut state = State::new(BOUNDS);
            let mut now = Instant::now();
            // In order of arrival.
            let mut waiting: Vec<Waiting> = Vec::new();
            let mut abandoned = Vec::new();
            for (id, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Arrive { is_text, bytes, patience } => {
                        let inputs = waiting.len() + 1;
                        let total = waiting.iter().map(|entry| entry.3).sum::<u64>() + bytes;
                        let fits = inputs <= BOUNDS.max_inputs && total <= BOUNDS.max_bytes;
                        let admitted = state.admit(Load { inputs: 1, bytes });
                        prop_assert_eq!(admitted.is_ok(), fits, "bounded by count and bytes");
                        if !fits {
                            continue;
                        }
                        let deadline = patience.map(|millis| now + Duration::from_millis(millis));
                        let kind = if is_text { Kind::Text } else { Kind::Picture };
                        let queued = Queued { item: Item { id, bytes }, queued_at: now, deadline };
                        prop_assert!(state.push(kind, queued).is_none(), "open, so it is taken");
                        waiting.push((id, is_text, deadline, bytes));
                        now += Duration::from_micros(1);
                    }
                    Step::Abandon { nth } => {
                        abandoned.extend(waiting.get(nth).map(|entry| entry.0));
                    }
                    Step::Tick { millis } => now += Duration::from_millis(millis),
                    Step::Batch => {
                        let dead = state.sweep(now, |item: &Item| abandoned.contains(&item.id));
                        for item in dead.expired.into_iter().chain(dead.abandoned) {
                            let at = waiting.iter().position(|entry| entry.0 == item.id);
                            let (id, _, deadline, _) = waiting.remove(at.expect("it was waiting"));
                            let is_late = deadline.is_some_and(|deadline| deadline <= now);
                            let is_dead = is_late || abandoned.contains(&id);
                            prop_assert!(is_dead, "nobody else is dropped");
                            state.release(Load { inputs: 1, bytes: item.bytes });
                        }
                        let batch = state.next_batch();
                        let expected = oldest_lane(&waiting);
                        let ids: Vec<usize> = batch.iter().map(|queued| queued.item.id).collect();
                        prop_assert_eq!(&ids, &expected, "the longest waiting, its lane in order");
                        for queued in batch {
                            let is_late = queued.deadline.is_some_and(|deadline| deadline <= now);
                            prop_assert!(!is_late, "nothing late is computed");
                            let is_wanted = !abandoned.contains(&queued.item.id);
                            prop_assert!(is_wanted, "nor anything unwanted");
                            state.release(Load { inputs: 1, bytes: queued.item.bytes });
                        }
                        waiting.retain(|entry| !ids.contains(&entry.0));
                    }
                }
            }
            let rest: Vec<usize> = state.close().into_iter().map(|item| item.id).collect();
            prop_assert_eq!(rest.len(), waiting.len(), "what is left comes back");
            let refused = state.admit(Load::default());
            prop_assert_eq!(refused, Err(Refusal::Closed), "and nothing more goes in");
        }
    }

    #[test]
    fn a_call_is_admitted_as_a_whole_or_not_at_all() {
        let mut state = State::<Item>::new(BOUNDS);
        assert_eq!(state.admit(Load { inputs: 10, bytes: 10 }), Ok(()), "there is room");
        let refusal = state.admit(Load { inputs: 3, bytes: 0 });
        assert_eq!(
            refusal,
            Err(Refusal::Full { retry_after: FIRST_RETRY }),
            "two of three are none"
        );
        assert_eq!(state.admit(Load { inputs: 2, bytes: 90 }), Ok(()), "nothing was taken");
        let refusal = state.admit(Load { inputs: 13, bytes: 0 });
        assert_eq!(refusal, Err(Refusal::NeverFits), "coming back would not help");
    }

    #[test]
    fn the_time_to_come_back_follows_the_device() {
        let mut state = State::<Item>::new(BOUNDS);
        state.admit(Load { inputs: 12, bytes: 0 }).expect("there is room");
        for _ in 0..50 {
            state.finished(4, Duration::from_millis(400));
        }
        let Err(Refusal::Full { retry_after }) = state.admit(Load { inputs: 1, bytes: 0 }) else {
            panic!("it is full");
        };
        let distance = retry_after.abs_diff(Duration::from_millis(600));
        assert!(
            distance < Duration::from_millis(1),
            "half of 12 inputs at 100 ms: {retry_after:?}"
        );
    }

    #[test]
    fn only_a_success_proves_the_device() {
        let mut state = State::<Item>::new(BOUNDS);
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(state.unproven(start), None, "nothing was asked of it");
        state.started(start);
        assert_eq!(state.unproven(after(3)), Some(Duration::from_secs(3)), "a batch in flight");
        // That batch failed, or there would have been a success.
        state.started(after(4));
        let since_first = Some(Duration::from_secs(5));
        assert_eq!(state.unproven(after(5)), since_first, "the first failure counts");
        state.finished(1, Duration::from_secs(1));
        assert_eq!(state.unproven(after(6)), None, "proven");
    }
}
