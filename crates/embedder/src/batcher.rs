//! Inputs that wait together are computed together.
//!
//! ```text
//!   calls ─► admit ─► (preprocess) ─► embed ─► lanes ─► a driver per device ─► its threads
//!            │ refuses what is too much        └ State: pure policy ┘ └ Faults: pure policy
//! ```
//!
//! While a device is idle, an input is computed at once, alone if need be. While all are busy,
//! others collect, and the next batch takes what is there. So nothing ever waits for company, and
//! batches grow with the load by themselves; there is no delay to tune. Interactive inputs go
//! before bulk ones.
//!
//! An input is admitted before it is decoded and counts until it is answered, so that the bound
//! holds for all the memory on the way, and whoever is refused has cost nothing.
//!
//! The state is shared under a lock rather than owned by a task: admitting must answer at once, an
//! input that is dropped must give back its share wherever it is, and several devices take from
//! one queue. The lock is held for moments, and never over an await.

mod driver;
mod faults;
mod part;
mod room;
mod state;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clipmesh_proto::embedding::Embedding;
use futures::future::select_all;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::Span;

use self::driver::{Driver, Health};
use self::room::{Load, Refusal};
use self::state::{Opening, Queued, State};
use crate::canary::Trained;
use crate::config::CanaryConfig;
use crate::error::CallError;
use crate::lane::Lane;
use crate::metrics;
use crate::model::Tokens;

pub(crate) use self::faults::{Death, Song};
pub(crate) use self::room::Bounds;

/// Sends inputs to the device. Clones send to the same one.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    shared: Arc<Shared>,
}

/// The tasks that drive the devices.
#[derive(Debug)]
pub(crate) struct Devices {
    handle: Handle,
    tasks: Vec<JoinHandle<Result<(), Death>>>,
    health: watch::Receiver<Vec<bool>>,
    /// The first end of a device, once there is one.
    ended: Option<Result<(), Death>>,
}

/// A preprocessed input.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// RGB levels.
    Picture(Vec<u8>),
    Text(Tokens),
}

/// What became of an input.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) vector: Embedding,
    /// Waiting for the device.
    pub(crate) queued: Duration,
    /// The forward pass.
    pub(crate) computed: Duration,
    /// How many inputs shared it.
    pub(crate) batch_size: usize,
}

/// The right of one input to be in hand; given back when it is dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct Permit {
    shared: Arc<Shared>,
    lane: Lane,
    load: Load,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State<Entry>>,
    /// Wakes the drivers: something was queued, or the end has come.
    changed: Notify,
    /// Wakes those who wait to be admitted.
    freed: Notify,
}

/// An input in a lane.
#[derive(Debug)]
struct Entry {
    input: Input,
    reply: oneshot::Sender<Result<Answer, CallError>>,
    /// Open while the input waits.
    span: Span,
    permit: Permit,
}

/// Starts driving devices, of which there is at least one.
pub(crate) fn start(devices: Vec<Trained>, bounds: Bounds, config: &CanaryConfig) -> Devices {
    let state = Mutex::new(State::new(bounds, devices.len()));
    let shared = Arc::new(Shared { state, changed: Notify::new(), freed: Notify::new() });
    let (sender, health) = watch::channel(vec![true; devices.len()]);
    let sender = Arc::new(sender);
    let devices = devices.into_iter().enumerate().map(|(index, device)| {
        let health = Health { index, devices: Arc::clone(&sender) };
        tokio::spawn(Driver::new(Arc::clone(&shared), device, config.clone(), health).run())
    });
    let tasks = devices.collect();
    Devices { handle: Handle { shared }, tasks, health, ended: None }
}

// === impl Handle ===

impl Handle {
    /// Admits the inputs of one call, given the bytes that each will hold, or none of them.
    ///
    /// # Errors
    /// [`CallError::Busy`] when there is no room now, [`CallError::NeverFits`] when there never
    /// will be, [`CallError::Stopped`] when the model is gone.
    pub(crate) fn admit(&self, lane: Lane, bytes: &[u64]) -> Result<Vec<Permit>, CallError> {
        let admitted = self.try_admit(lane, bytes);
        if admitted.is_err() {
            metrics::refused(lane);
        }
        admitted
    }

    /// Waits until there is room for one input. Others may be faster, so the wait has no bound but
    /// the caller's patience.
    ///
    /// # Errors
    /// [`CallError::NeverFits`] and [`CallError::Stopped`], as [`Handle::admit`].
    pub(crate) async fn admit_in_turn(&self, lane: Lane, bytes: u64) -> Result<Permit, CallError> {
        loop {
            let mut freed = std::pin::pin!(self.shared.freed.notified());
            // What is freed from here on is noticed.
            freed.as_mut().enable();
            match self.try_admit(lane, &[bytes]) {
                Ok(mut permits) => return permits.pop().ok_or(CallError::Stopped),
                Err(CallError::Busy { .. }) => freed.await,
                Err(error) => return Err(error),
            }
        }
    }

    fn try_admit(&self, lane: Lane, bytes: &[u64]) -> Result<Vec<Permit>, CallError> {
        let load = Load { inputs: bytes.len(), bytes: bytes.iter().sum() };
        let mut admitted = self.shared.lock().admit(lane, load);
        if matches!(admitted, Err(Refusal::Full { .. })) {
            // Room may be taken by inputs that nobody waits for any more.
            self.shared.sweep();
            admitted = self.shared.lock().admit(lane, load);
        }
        admitted.map_err(|refusal| match refusal {
            Refusal::Full { retry_after } => CallError::Busy { retry_after },
            Refusal::NeverFits => CallError::NeverFits,
            Refusal::Closed => CallError::Stopped,
        })?;
        let shares = bytes.iter().map(|&bytes| Load { inputs: 1, bytes });
        Ok(shares.map(|load| Permit { shared: Arc::clone(&self.shared), lane, load }).collect())
    }

    /// Embeds one input in the lane that it was admitted to. Dropping the future drops the input,
    /// if it has not been started.
    ///
    /// # Errors
    /// [`CallError::Expired`] when `deadline` passes in the queue, and what goes wrong on the
    /// device.
    pub(crate) async fn embed(
        &self,
        input: Input,
        deadline: Option<Instant>,
        permit: Permit,
    ) -> Result<Answer, CallError> {
        let (reply, answer) = oneshot::channel();
        let (kind, lane) = (input.kind(), permit.lane);
        let span = tracing::info_span!("queued", lane = lane.as_str());
        let item = Entry { input, reply, span, permit };
        let queued = Queued { item, kind, lane, queued_at: Instant::now(), deadline };
        // A refused entry holds a permit, which takes the lock when it is dropped.
        let refused = self.shared.lock().push(queued);
        if refused.is_some() {
            return Err(CallError::Stopped);
        }
        self.shared.changed.notify_waiters();
        // A driver answers every entry, or drops it with all others at its end.
        answer.await.unwrap_or(Err(CallError::Stopped))
    }

    /// Whether nothing is in hand.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        self.shared.lock().room.is_empty()
    }
}

// === impl Devices ===

impl Devices {
    pub(crate) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Whether each device can be relied on.
    pub(crate) fn health(&self) -> watch::Receiver<Vec<bool>> {
        self.health.clone()
    }

    /// Waits until a device has died.
    pub(crate) async fn died(&mut self) {
        if self.ended.is_some() || self.tasks.is_empty() {
            return;
        }
        let (ended, _, others) = select_all(std::mem::take(&mut self.tasks)).await;
        self.tasks = others;
        self.ended = Some(flat(ended));
    }

    /// Refuses new inputs, answers those that wait, and waits for the devices' threads.
    ///
    /// # Errors
    /// Why a device had died, if one had.
    pub(crate) async fn stop(self) -> Result<(), Death> {
        self.handle.shared.close();
        let mut ended = self.ended.unwrap_or(Ok(()));
        for task in self.tasks {
            ended = ended.and(flat(task.await));
        }
        ended
    }
}

/// A driver that panicked leaves its device without a master.
fn flat(ended: Result<Result<(), Death>, tokio::task::JoinError>) -> Result<(), Death> {
    ended.unwrap_or(Err(Death::Panicked))
}

// === impl Shared ===

impl Shared {
    /// Waits for a batch that a device takes. `None` once the batcher is closed.
    async fn next_batch(&self, opening: Opening<'_>) -> Option<Vec<Queued<Entry>>> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // What changes from here on is noticed.
            changed.as_mut().enable();
            if self.lock().has_batch(opening) {
                self.sweep();
            }
            let (batch, is_closed) = {
                let mut state = self.lock();
                let batch = state.next_batch(opening);
                for lane in Lane::ALL {
                    metrics::queue_depth(lane, state.waiting(lane));
                }
                (batch, state.is_closed())
            };
            if !batch.is_empty() {
                return Some(batch);
            }
            if is_closed {
                return None;
            }
            changed.await;
        }
    }

    /// Waits until no more work is taken.
    async fn closed(&self) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.lock().is_closed() {
                return;
            }
            changed.await;
        }
    }

    /// Drops what nobody waits for.
    fn sweep(&self) {
        let now = Instant::now();
        let dead = self.lock().sweep(now, Entry::is_abandoned);
        driver::drop_dead(dead);
    }

    /// Refuses new inputs and answers those that wait.
    fn close(&self) {
        let waiting = self.lock().close();
        self.changed.notify_waiters();
        self.freed.notify_waiters();
        for entry in waiting {
            entry.answer(Err(CallError::Stopped));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<Entry>> {
        // Every change of the state is whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Entry ===

impl Entry {
    fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    fn answer(self, answer: Result<Answer, CallError>) {
        // First the room, then the answer: whoever gets it may send more at once.
        drop(self.permit);
        // The caller may have gone meanwhile, and then no one wants to know.
        drop(self.reply.send(answer));
    }
}

// === impl Input ===

impl Input {
    fn kind(&self) -> state::Kind {
        match self {
            Self::Picture(_) => state::Kind::Picture,
            Self::Text(tokens) => state::Kind::text(tokens.ids.len()),
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shared.lock().room.release(self.load);
        self.shared.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
