//! The policy of the batcher: who waits, who is computed next. It knows nothing of clocks, tasks
//! or devices.
//!
//! ```text
//!                admit            push              next_batch
//!   outside ───► admitted ──────► in a lane ──────► in a batch
//!                   ▲                │ expired, abandoned │
//!                   └── release ◄────┴────────────────────┘
//! ```

use std::collections::VecDeque;

use tokio::time::Instant;

use super::room::{Bounds, Load, Refusal, Room};
use crate::backend::sizes::Sizes;
use crate::lane::{Lane, Turns};

/// Texts of up to so many tokens are all of one length class: shorter ones save nothing more.
const SHORT_TEXT: usize = 8;

/// Inputs of different kinds are not computed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Picture,
    /// Texts of a batch are padded to its longest, so only those of similar length share one.
    Text {
        /// The length in tokens, rounded up to a power of two.
        length: usize,
    },
}

/// An item in a lane.
#[derive(Debug)]
pub(super) struct Queued<T> {
    pub(super) item: T,
    pub(super) kind: Kind,
    pub(super) lane: Lane,
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

/// What a device takes now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opening<'a> {
    /// Most inputs, at least 1.
    pub(super) most: usize,
    /// What its batches are padded to, if they are.
    pub(super) padding: Option<&'a Sizes>,
    /// Whether it is computing. Then a batch is only taken if it can't become any larger, to be
    /// brought to the device meanwhile; everything else may still find company.
    pub(super) is_busy: bool,
}

/// All items in hand.
#[derive(Debug)]
pub(super) struct State<T> {
    pub(super) room: Room,
    /// By lane, each in order of arrival.
    lanes: [VecDeque<Queued<T>>; 2],
    turns: Turns,
    is_closed: bool,
}

impl Kind {
    /// Of a text of so many tokens.
    pub(super) fn text(tokens: usize) -> Self {
        Self::Text { length: tokens.next_power_of_two().max(SHORT_TEXT) }
    }
}

impl<T> State<T> {
    pub(super) fn new(bounds: Bounds, devices: usize) -> Self {
        let lanes = [VecDeque::new(), VecDeque::new()];
        Self { room: Room::new(bounds, devices), lanes, turns: Turns::default(), is_closed: false }
    }

    /// Takes on a load, all or nothing.
    pub(super) fn admit(&mut self, lane: Lane, load: Load) -> Result<(), Refusal> {
        if self.is_closed {
            return Err(Refusal::Closed);
        }
        self.room.admit(lane, load)
    }

    /// Queues an item that was admitted. Gives it back if no more work is taken.
    #[must_use]
    pub(super) fn push(&mut self, queued: Queued<T>) -> Option<Queued<T>> {
        if self.is_closed {
            return Some(queued);
        }
        self.lanes[queued.lane as usize].push_back(queued);
        None
    }

    /// Takes the next batch for a device: the longest waiting item of the lane whose turn it is,
    /// and those of its kind behind it. It is empty if there is none to be taken now.
    pub(super) fn next_batch(&mut self, opening: Opening<'_>) -> Vec<Queued<T>> {
        let Some((lane, kind, waiting)) = self.upcoming(opening) else { return Vec::new() };
        self.turns.taken(lane, self.waiting(Lane::Bulk) > 0);
        let Some(sizes) = opening.padding else { return self.take(lane, kind, waiting) };
        let mut batch = self.take(lane, kind, sizes.worthwhile(waiting));
        // What would be padding costs nothing.
        let padded = sizes.padded(batch.len()).min(opening.most);
        for lane in Lane::ALL {
            let free = padded.saturating_sub(batch.len());
            batch.extend(self.take(lane, kind, free));
        }
        batch
    }

    /// Whether there is a batch to be taken now, apart from what [`State::sweep`] would take out.
    pub(super) fn has_batch(&self, opening: Opening<'_>) -> bool {
        self.upcoming(opening).is_some()
    }

    /// Takes out what is not worth computing. Called before every batch.
    pub(super) fn sweep(&mut self, now: Instant, is_abandoned: impl Fn(&T) -> bool) -> Dead<T> {
        let mut dead = Dead { expired: Vec::new(), abandoned: Vec::new() };
        for lane in &mut self.lanes {
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

    /// Takes no more work and gives back what waits.
    pub(super) fn close(&mut self) -> Vec<T> {
        self.is_closed = true;
        let lanes = std::mem::take(&mut self.lanes);
        lanes.into_iter().flatten().map(|queued| queued.item).collect()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Items in a lane.
    pub(super) fn waiting(&self, lane: Lane) -> usize {
        self.lanes[lane as usize].len()
    }

    /// The lane whose turn it is, the kind that waits longest in it, and how many of that kind wait
    /// there, counted up to what the device takes.
    fn upcoming(&self, opening: Opening<'_>) -> Option<(Lane, Kind, usize)> {
        let [interactive, bulk] = Lane::ALL.map(|lane| self.waiting(lane) > 0);
        let lane = self.turns.upcoming(interactive, bulk)?;
        let items = &self.lanes[lane as usize];
        let kind = items.front()?.kind;
        let alike = items.iter().filter(|queued| queued.kind == kind);
        let waiting = alike.take(opening.most).count();
        let is_worth_it = !opening.is_busy || waiting == opening.most;
        is_worth_it.then_some((lane, kind, waiting))
    }

    /// Takes the first `count` items of a kind out of a lane.
    fn take(&mut self, lane: Lane, kind: Kind, count: usize) -> Vec<Queued<T>> {
        let mut taken = Vec::with_capacity(count);
        if count == 0 {
            return taken;
        }
        let lane = &mut self.lanes[lane as usize];
        for queued in std::mem::take(lane) {
            if taken.len() < count && queued.kind == kind {
                taken.push(queued);
            } else {
                lane.push_back(queued);
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests;
