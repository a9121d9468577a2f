//! Inputs that wait together are computed together.
//!
//! ```text
//!   calls ─► admit ─► (preprocess) ─► embed ─► lanes ─► driver ─► the model's thread
//!            │ refuses what is too much        └ State: pure policy ┘
//! ```
//!
//! While the device is idle, an input is computed at once, alone if need be. While it is busy,
//! others collect, and the next batch takes what is there. So nothing ever waits for company, and
//! batches grow with the load by themselves; there is no delay to tune.
//!
//! An input is admitted before it is decoded and counts until it is answered, so that the bound
//! holds for all the memory on the way, and whoever is refused has cost nothing.
//!
//! The state is shared under a lock rather than owned by the driver: admitting must answer at
//! once, and an input that is dropped must give back its share wherever it is. The lock is held
//! for moments, and never over an await.

mod driver;
mod state;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clipmesh_proto::embedding::Embedding;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::Span;

use self::state::{Load, Queued, Refusal, State};
use crate::backend::thread::Thread;
use crate::backend::{self, Description};
use crate::error::CallError;
use crate::metrics;
use crate::model::Tokens;

pub(crate) use self::state::Bounds;

/// Sends inputs to the device. Clones send to the same one.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    shared: Arc<Shared>,
}

/// The task that drives the device.
#[derive(Debug)]
pub(crate) struct Driver {
    handle: Handle,
    task: JoinHandle<Result<(), backend::Error>>,
    ended: Option<Result<(), backend::Error>>,
    description: Description,
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
    load: Load,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State<Entry>>,
    /// Wakes the driver: something was queued, or the end has come.
    changed: Notify,
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

/// Starts driving a device.
pub(crate) fn start(thread: Thread, bounds: Bounds) -> Driver {
    let shared = Arc::new(Shared { state: Mutex::new(State::new(bounds)), changed: Notify::new() });
    let description = thread.description().clone();
    let task = tokio::spawn(driver::run(Arc::clone(&shared), thread));
    Driver { handle: Handle { shared }, task, ended: None, description }
}

// === impl Handle ===

impl Handle {
    /// Admits the inputs of one call, given the bytes that each will hold, or none of them.
    ///
    /// # Errors
    /// [`CallError::Busy`] when there is no room now, [`CallError::NeverFits`] when there never
    /// will be, [`CallError::Stopped`] when the model is gone.
    pub(crate) fn admit(&self, bytes: &[u64]) -> Result<Vec<Permit>, CallError> {
        let load = Load { inputs: bytes.len(), bytes: bytes.iter().sum() };
        let mut admitted = self.shared.lock().admit(load);
        if matches!(admitted, Err(Refusal::Full { .. })) {
            // Room may be taken by inputs that nobody waits for any more.
            self.shared.sweep();
            admitted = self.shared.lock().admit(load);
        }
        match admitted {
            Ok(()) => {}
            Err(refusal) => {
                metrics::refused();
                return Err(match refusal {
                    Refusal::Full { retry_after } => CallError::Busy { retry_after },
                    Refusal::NeverFits => CallError::NeverFits,
                    Refusal::Closed => CallError::Stopped,
                });
            }
        }
        let shares = bytes.iter().map(|&bytes| Load { inputs: 1, bytes });
        Ok(shares.map(|load| Permit { shared: Arc::clone(&self.shared), load }).collect())
    }

    /// Embeds one input. Dropping the future drops the input, if it has not been started.
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
        let kind = input.kind();
        let span = tracing::info_span!("queued");
        let entry = Entry { input, reply, span, permit };
        let queued = Queued { item: entry, queued_at: Instant::now(), deadline };
        // A refused entry holds a permit, which takes the lock when it is dropped.
        let refused = self.shared.lock().push(kind, queued);
        if refused.is_some() {
            return Err(CallError::Stopped);
        }
        self.shared.changed.notify_one();
        // The driver answers every entry, or drops it with all others at its end.
        answer.await.unwrap_or(Err(CallError::Stopped))
    }

    /// How long the device has been at work without a success: since the batch in flight began,
    /// or the first of those that failed one after another. `None` if its last batch went well
    /// and none is in flight.
    pub(crate) fn unproven(&self) -> Option<Duration> {
        self.shared.lock().unproven(Instant::now())
    }

    /// Whether nothing is in hand.
    pub(crate) fn is_idle(&self) -> bool {
        self.shared.lock().is_idle()
    }
}

// === impl Driver ===

impl Driver {
    pub(crate) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Where the device is, and what it computes in.
    pub(crate) fn description(&self) -> &Description {
        &self.description
    }

    /// Waits until the device has died.
    pub(crate) async fn died(&mut self) {
        if self.ended.is_none() {
            self.ended = Some(flat((&mut self.task).await));
        }
    }

    /// Refuses new inputs, answers those that wait, and waits for the model's thread.
    ///
    /// # Errors
    /// [`backend::Error::Died`] if the device had died.
    pub(crate) async fn stop(self) -> Result<(), backend::Error> {
        self.handle.shared.close();
        match self.ended {
            Some(ended) => ended,
            None => flat(self.task.await),
        }
    }
}

/// A driver that panicked leaves its device without a master.
fn flat(
    ended: Result<Result<(), backend::Error>, tokio::task::JoinError>,
) -> Result<(), backend::Error> {
    ended.unwrap_or(Err(backend::Error::Died))
}

// === impl Shared ===

impl Shared {
    /// Drops what nobody waits for.
    fn sweep(&self) {
        let now = Instant::now();
        let dead = self.lock().sweep(now, Entry::is_abandoned);
        driver::drop_dead(dead);
    }

    /// Refuses new inputs and answers those that wait.
    fn close(&self) {
        let waiting = self.lock().close();
        self.changed.notify_one();
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
            Self::Text(_) => state::Kind::Text,
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shared.lock().release(self.load);
    }
}

#[cfg(test)]
mod tests;
