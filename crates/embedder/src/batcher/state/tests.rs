//! Histories of a batcher, beside a plain list of what is in hand.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds { max_inputs: 24, max_bytes: 200 };
const MOST: usize = 6;

/// One thing that can happen to a batcher.
#[derive(Clone, Debug)]
enum Step {
    Arrive { lane: Lane, kind: Kind, bytes: u64, patience: Option<u64> },
    Abandon { nth: usize },
    Tick { millis: u64 },
    Batch { is_busy: bool, is_padded: bool },
}

#[derive(Clone, Debug, PartialEq)]
struct Item {
    id: usize,
    lane: Lane,
    kind: Kind,
    deadline: Option<Instant>,
    bytes: u64,
}

fn step() -> impl Strategy<Value = Step> {
    let lane = prop_oneof![Just(Lane::Interactive), Just(Lane::Bulk)];
    let kind =
        prop_oneof![3 => Just(Kind::Picture), 1 => Just(Kind::text(5)), 1 => Just(Kind::text(70))];
    prop_oneof![
        6 => (lane, kind, 0..30_u64, proptest::option::of(0..30_u64))
            .prop_map(|(lane, kind, bytes, patience)| Step::Arrive { lane, kind, bytes, patience }),
        1 => (0..40_usize).prop_map(|nth| Step::Abandon { nth }),
        1 => (0..20_u64).prop_map(|millis| Step::Tick { millis }),
        3 => (any::<bool>(), any::<bool>())
            .prop_map(|(is_busy, is_padded)| Step::Batch { is_busy, is_padded }),
    ]
}

/// A batcher, and the plain list.
struct History {
    state: State<Item>,
    sizes: Sizes,
    now: Instant,
    /// In order of arrival.
    waiting: Vec<Item>,
    abandoned: Vec<usize>,
    /// Batches that were computed while bulk work waited that was not in them.
    passed_over: u32,
}

impl History {
    fn new() -> Self {
        Self {
            state: State::new(BOUNDS, 1),
            sizes: Sizes::up_to(MOST),
            now: Instant::now(),
            waiting: Vec::new(),
            abandoned: Vec::new(),
            passed_over: 0,
        }
    }

    fn arrive(&mut self, item: Item) -> Result<(), TestCaseError> {
        let quarter = if item.lane == Lane::Bulk { 3 } else { 4 };
        let bytes = self.waiting.iter().map(|item| item.bytes).sum::<u64>() + item.bytes;
        let fits = self.waiting.len() < BOUNDS.max_inputs * quarter / 4
            && bytes <= BOUNDS.max_bytes * quarter as u64 / 4;
        let admitted = self.state.admit(item.lane, Load { inputs: 1, bytes: item.bytes });
        prop_assert_eq!(admitted.is_ok(), fits, "bounded by count and bytes");
        if !fits {
            return Ok(());
        }
        let Item { lane, kind, deadline, .. } = item;
        let queued = Queued { item: item.clone(), kind, lane, queued_at: self.now, deadline };
        prop_assert!(self.state.push(queued).is_none(), "open, so it is taken");
        self.waiting.push(item);
        Ok(())
    }

    fn is_dead(&self, item: &Item) -> bool {
        let is_late = item.deadline.is_some_and(|deadline| deadline <= self.now);
        is_late || self.abandoned.contains(&item.id)
    }

    fn sweep(&mut self) -> Result<(), TestCaseError> {
        let abandoned = self.abandoned.clone();
        let dead = self.state.sweep(self.now, |item| abandoned.contains(&item.id));
        let mut dropped: Vec<_> = dead.expired.into_iter().chain(dead.abandoned).collect();
        dropped.sort_by_key(|item| item.id);
        let now_dead = self.waiting.iter().filter(|item| self.is_dead(item));
        prop_assert_eq!(&dropped, &now_dead.cloned().collect::<Vec<_>>(), "those and no other");
        self.leave(&dropped);
        Ok(())
    }

    fn leave(&mut self, items: &[Item]) {
        for item in items {
            self.state.room.release(Load { inputs: 1, bytes: item.bytes });
        }
        self.waiting.retain(|item| !items.contains(item));
    }

    fn first(&self, lane: Lane) -> Option<&Item> {
        self.waiting.iter().find(|item| item.lane == lane)
    }

    /// The oldest of a lane's kind and those like it.
    fn alike(&self, lane: Lane) -> Vec<Item> {
        let Some(first) = self.first(lane) else { return Vec::new() };
        let alike = |item: &&Item| item.lane == lane && item.kind == first.kind;
        self.waiting.iter().filter(alike).cloned().collect()
    }

    fn batch(&mut self, is_busy: bool, is_padded: bool) -> Result<(), TestCaseError> {
        let sizes = self.sizes.clone();
        let padding = is_padded.then_some(&sizes);
        let batch = self.state.next_batch(Opening { most: MOST, padding, is_busy });
        let items: Vec<Item> = batch.into_iter().map(|queued| queued.item).collect();
        let Some(first) = items.first() else {
            let is_idle_for_nothing = !is_busy && !self.waiting.is_empty();
            prop_assert!(!is_idle_for_nothing, "an idle device is never kept waiting");
            return Ok(());
        };
        prop_assert!(items.len() <= MOST, "no more than the device takes");
        prop_assert!(!is_busy || items.len() == MOST, "ahead of time, full batches only");
        prop_assert!(items.iter().all(|item| item.kind == first.kind), "of one kind");
        prop_assert!(!items.iter().any(|item| self.is_dead(item)), "nothing late or unwanted");
        let lane = first.lane;
        prop_assert_eq!(Some(first), self.first(lane), "the one that waited longest");
        for lane in Lane::ALL {
            let of_lane: Vec<_> = items.iter().filter(|item| item.lane == lane).cloned().collect();
            let alike =
                self.waiting.iter().filter(|item| item.lane == lane && item.kind == first.kind);
            let expected: Vec<_> = alike.take(of_lane.len()).cloned().collect();
            prop_assert_eq!(of_lane, expected, "in order within a lane");
        }
        let company = self.alike(lane).len().min(MOST);
        let own = items.iter().filter(|item| item.lane == lane).count();
        let enough = if is_padded { sizes.worthwhile(company) } else { company };
        prop_assert!(own >= enough, "as many as there are, but for padding");
        prop_assert!(is_padded || own == items.len(), "lanes only share what padding would waste");
        let has_bulk = self.first(Lane::Bulk).is_some();
        self.passed_over = match lane {
            Lane::Interactive if has_bulk => self.passed_over + 1,
            Lane::Interactive | Lane::Bulk => 0,
        };
        prop_assert!(self.passed_over <= 4, "bulk work is not starved");
        let is_first = lane == Lane::Interactive || self.first(Lane::Interactive).is_none();
        prop_assert!(
            is_first || self.state.turns.upcoming(true, true) == Some(Lane::Interactive),
            "bulk work goes first only when it is its turn"
        );
        self.leave(&items);
        Ok(())
    }
}

proptest! {
    #[test]
    fn nothing_is_lost_doubled_starved_late_or_over_the_bounds(
        steps in proptest::collection::vec(step(), 1..160)
    ) {
        let mut history = History::new();
        for (id, step) in steps.into_iter().enumerate() {
            match step {
                Step::Arrive { lane, kind, bytes, patience } => {
                    let deadline = patience.map(|millis| history.now + Duration::from_millis(millis));
                    history.arrive(Item { id, lane, kind, deadline, bytes })?;
                }
                Step::Abandon { nth } => {
                    let id = history.waiting.get(nth).map(|item| item.id);
                    history.abandoned.extend(id);
                }
                Step::Tick { millis } => history.now += Duration::from_millis(millis),
                Step::Batch { is_busy, is_padded } => {
                    history.sweep()?;
                    history.batch(is_busy, is_padded)?;
                }
            }
        }
        let rest = history.state.close();
        let mut left: HashMap<_, _> = history.waiting.iter().map(|item| (item.id, item)).collect();
        for item in &rest {
            prop_assert!(left.remove(&item.id).is_some(), "what is left comes back, once");
        }
        prop_assert!(left.is_empty(), "all of it");
        history.leave(&rest);
        prop_assert!(history.state.room.is_empty(), "the room is given back");
        let bytes = 0;
        let queued = Item { id: 0, lane: Lane::Bulk, kind: Kind::Picture, deadline: None, bytes };
        let queued = Queued { item: queued, kind: Kind::Picture, lane: Lane::Bulk,
            queued_at: history.now, deadline: None };
        prop_assert!(history.state.push(queued).is_some(), "nothing more goes in");
    }
}

fn state(arrivals: &[(Lane, Kind)]) -> State<usize> {
    let mut state = State::new(BOUNDS, 1);
    let now = Instant::now();
    for (item, &(lane, kind)) in arrivals.iter().enumerate() {
        let queued = Queued { item, kind, lane, queued_at: now, deadline: None };
        assert!(state.push(queued).is_none(), "open");
    }
    state
}

fn ids(batch: Vec<Queued<usize>>) -> Vec<usize> {
    batch.into_iter().map(|queued| queued.item).collect()
}

const IDLE: Opening<'static> = Opening { most: 4, padding: None, is_busy: false };

#[test]
fn texts_share_a_batch_with_texts_of_their_length() {
    let [short, long] = [Kind::text(5), Kind::text(70)];
    assert_eq!(Kind::text(8), short, "up to eight tokens are short");
    let lane = Lane::Interactive;
    let mut state = state(&[(lane, short), (lane, long), (lane, short), (lane, Kind::Picture)]);
    let batches: Vec<_> = (0..3).map(|_| ids(state.next_batch(IDLE))).collect();
    assert_eq!(batches, [vec![0, 2], vec![1], vec![3]], "by length, the oldest first");
}

#[test]
fn bulk_work_takes_the_place_of_padding() {
    let (people, job) = ((Lane::Interactive, Kind::Picture), (Lane::Bulk, Kind::Picture));
    let mut state = state(&[job, people, job, people, people, (Lane::Bulk, Kind::text(5))]);
    let sizes = Sizes::up_to(8);
    let opening = Opening { most: 8, padding: Some(&sizes), is_busy: false };
    assert_eq!(ids(state.next_batch(opening)), [1, 3, 4, 0], "three, and one to make it four");
    assert_eq!(ids(state.next_batch(opening)), [2], "the lane's oldest kind");
}

#[test]
fn while_the_device_is_busy_only_full_batches_go_ahead_and_not_past_people() {
    let job = (Lane::Bulk, Kind::Picture);
    let busy = Opening { is_busy: true, ..IDLE };
    let mut waiting = state(&[job; 3]);
    assert!(waiting.next_batch(busy).is_empty(), "a fourth may come");
    let mut full = state(&[job; 5]);
    assert_eq!(ids(full.next_batch(busy)), [0, 1, 2, 3], "no larger batch can come of it");
    let mut person = state(&[job, job, job, job, (Lane::Interactive, Kind::Picture)]);
    assert!(person.next_batch(busy).is_empty(), "a person is next");
    assert_eq!(ids(person.next_batch(IDLE)), [4], "as soon as the device is free");
}

#[test]
fn a_closed_batcher_admits_nothing() {
    let mut state = state(&[(Lane::Bulk, Kind::Picture)]);
    assert_eq!(state.close(), [0], "what waited comes back");
    assert!(state.is_closed(), "and the driver can see it");
    let refusal = state.admit(Lane::Interactive, Load::default());
    assert_eq!(refusal, Err(Refusal::Closed), "no new work");
}
