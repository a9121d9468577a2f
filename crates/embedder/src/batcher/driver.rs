//! Moves batches from the lanes to one device and answers back, by the policy of [`Faults`].
//!
//! ```text
//!             ┌── no batch for a while: the canary ──┐ right
//!             ▼                                      │
//!   ───► well ──── a pass takes long: slow ──────────┤ it ends
//!             │                                      │
//!             └── a wrong or failed canary: sick ────┘ takes no batches until it sings right
//!             any of them ──── a verdict of death ──► the process ends
//! ```

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::Span;

use super::faults::{Death, Fault, Faults, Song, Verdict};
use super::part::Part;
use super::state::{Dead, Opening, Queued};
use super::{Entry, Shared};
use crate::backend::sizes::Sizes;
use crate::backend::thread::Thread;
use crate::backend::{self, Batch, Output};
use crate::canary::{Canary, Trained};
use crate::config::CanaryConfig;
use crate::error::CallError;
use crate::metrics;

/// How long after a bad song the canary is asked again, unless it's asked more often anyway.
const SECOND_CHANCE: Duration = Duration::from_secs(1);

/// One device and what is known of it.
#[derive(Debug)]
pub(super) struct Driver {
    shared: Arc<Shared>,
    thread: Thread,
    canary: Canary,
    config: CanaryConfig,
    padding: Option<Sizes>,
    health: Health,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    faults: Faults,
    condition: Condition,
    /// When the canary is asked, if there is nothing else to do.
    sings_at: Instant,
    /// Whether it is asked before anything else is done.
    is_doubted: bool,
}

/// Where a driver says whether its device can be relied on.
#[derive(Debug)]
pub(super) struct Health {
    /// Of the device.
    pub(super) index: usize,
    pub(super) devices: Arc<watch::Sender<Vec<bool>>>,
}

/// What a driver goes by.
struct Outlook {
    /// Whether the canary comes first.
    is_doubted: bool,
    is_sick: bool,
    sings_at: Instant,
    /// Most inputs in a batch.
    most: usize,
}

/// How far the device can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Well,
    /// It is at a batch for too long.
    Slow,
    /// It does not compute right.
    Sick,
}

impl Driver {
    pub(super) fn new(
        shared: Arc<Shared>,
        device: Trained,
        config: CanaryConfig,
        health: Health,
    ) -> Self {
        let Trained { thread, canary, sizes } = device;
        let padding = thread.description().padding.is_some().then(|| sizes.clone());
        let sings_at = Instant::now() + config.interval;
        let faults = Faults::new(sizes);
        let condition = Condition::Well;
        let state = Mutex::new(State { faults, condition, sings_at, is_doubted: false });
        Self { shared, thread, canary, config, padding, health, state }
    }

    /// Runs until the batcher is closed or the device has died; then refuses what waits and joins
    /// the device's threads.
    pub(super) async fn run(self) -> Result<(), Death> {
        let ended = self.drive().await;
        if let Err(death) = &ended {
            tracing::error!(%death, device = self.thread.description().device, "a device has died");
            self.health.set(false);
        }
        self.shared.close();
        if ended == Err(Death::Hung) {
            // A thread that hangs can't be waited for.
            return ended;
        }
        let joined = self.thread.join().await;
        ended.and(joined.map_err(|_died| Death::Panicked))
    }

    async fn drive(&self) -> Result<(), Death> {
        let depth = self.thread.description().depth;
        let mut passes = FuturesUnordered::new();
        loop {
            let Outlook { is_doubted, is_sick, sings_at, most } = self.outlook();
            let is_busy = !passes.is_empty();
            let takes = passes.len() < depth && !is_sick && !is_doubted;
            let opening = Opening { most, padding: self.padding.as_ref(), is_busy };
            tokio::select! {
                batch = self.shared.next_batch(opening), if takes => {
                    let Some(batch) = batch else { break };
                    passes.push(self.pass(batch));
                }
                Some(ended) = passes.next() => ended?,
                () = sleep_until(sings_at), if !is_busy => self.sing().await?,
                () = self.shared.closed(), if is_sick => break,
            }
        }
        while let Some(ended) = passes.next().await {
            ended?;
        }
        Ok(())
    }

    /// Computes a batch and answers its callers, in parts where the device can't take the whole.
    async fn pass(&self, batch: Vec<Queued<Entry>>) -> Result<(), Death> {
        let (whole, span) = Part::new(batch);
        let mut parts = vec![whole];
        // Parts that are left at a death are dropped, which tells their callers.
        while let Some(part) = parts.pop() {
            match self.attempt(part.batch(), &span).await {
                Ok((output, elapsed)) => {
                    self.succeeded(part.len(), elapsed);
                    let unusable = part.answer(output, elapsed);
                    if unusable.has_failed {
                        self.doubt();
                    }
                    parts.extend(unusable.again);
                }
                Err(fault) => {
                    tracing::warn!(%fault, inputs = part.len(), "a forward pass failed");
                    metrics::pass_failed(fault.as_str());
                    let verdict = self.locked(|state| state.faults.failed(fault, part.len()));
                    match verdict {
                        Verdict::Split => parts.extend(part.split()),
                        Verdict::Shed => {
                            // Answering takes the lock.
                            let retry_after = self.shared.lock().room.retry_after();
                            part.fail(&CallError::Busy { retry_after });
                        }
                        Verdict::Refuse(message) => {
                            part.fail(&CallError::Compute { message });
                            self.doubt();
                        }
                        Verdict::Die(death) => return Err(death),
                    }
                }
            }
        }
        Ok(())
    }

    /// Runs a pass, and reports the device while it takes too long.
    async fn attempt(&self, batch: &Arc<Batch>, span: &Span) -> Result<(Output, Duration), Fault> {
        let mut pass = pin!(self.thread.embed(Arc::clone(batch), span.clone()));
        let outcome = tokio::select! {
            biased;
            outcome = &mut pass => outcome,
            () = sleep(self.config.timeout) => {
                tracing::error!(after = ?self.config.timeout, "the device hangs, or is very slow");
                metrics::canary_failed("stuck");
                self.set(Condition::Slow);
                let patience = self.config.give_up_after.saturating_sub(self.config.timeout);
                timeout(patience, pass).await.map_err(|_elapsed| Fault::Hung)?
            }
        };
        match outcome {
            Ok((output, _)) if output.len() != batch.len() => {
                let (vectors, inputs) = (output.len(), batch.len());
                Err(Fault::Failed(format!("{vectors} vectors for {inputs} inputs")))
            }
            Ok(output) => Ok(output),
            Err(error) => Err(error.into()),
        }
    }

    /// Asks the canary.
    async fn sing(&self) -> Result<(), Death> {
        let song = match self.attempt(self.canary.batch(), &Span::none()).await {
            Ok((output, _)) => self.canary.judge(output),
            Err(fault) => {
                tracing::error!(%fault, "the canary can't sing");
                metrics::canary_failed("error");
                return match self.locked(|state| state.faults.failed(fault, 1)) {
                    Verdict::Die(death) => Err(death),
                    Verdict::Split | Verdict::Shed | Verdict::Refuse(_) => {
                        self.set(Condition::Sick);
                        Ok(())
                    }
                };
            }
        };
        match song {
            Song::Right => {
                self.locked(|state| state.faults.succeeded());
                self.set(Condition::Well);
            }
            Song::Wrong => {
                tracing::error!("the device computes wrong vectors");
                metrics::canary_failed("wrong");
                self.set(Condition::Sick);
            }
        }
        self.locked(|state| state.faults.sung(song))
    }

    fn succeeded(&self, inputs: usize, elapsed: Duration) {
        self.shared.lock().room.finished(inputs, elapsed);
        self.locked(|state| {
            state.faults.succeeded();
            // A success is proof enough of life, and the canary must not take the device's time.
            if !state.is_doubted {
                state.sings_at = state.sings_at.max(Instant::now() + self.config.interval);
            }
        });
        if self.locked(|state| state.condition == Condition::Slow) {
            self.set(Condition::Well);
        }
    }

    /// Has the canary asked as soon as the device is free.
    fn doubt(&self) {
        self.locked(|state| {
            state.sings_at = Instant::now();
            state.is_doubted = true;
        });
    }

    fn set(&self, condition: Condition) {
        let wait = match condition {
            Condition::Well | Condition::Slow => self.config.interval,
            Condition::Sick => self.config.interval.min(SECOND_CHANCE),
        };
        let before = self.locked(|state| {
            state.sings_at = Instant::now() + wait;
            state.is_doubted = false;
            std::mem::replace(&mut state.condition, condition)
        });
        if before != condition && condition == Condition::Well {
            tracing::info!("the device answers right again");
        }
        self.health.set(condition == Condition::Well);
    }

    fn outlook(&self) -> Outlook {
        self.locked(|state| Outlook {
            is_doubted: state.is_doubted,
            is_sick: state.condition == Condition::Sick,
            sings_at: state.sings_at,
            most: state.faults.most(),
        })
    }

    fn locked<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        // Every change of the state is whole before anything can panic.
        with(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Health {
    fn set(&self, is_well: bool) {
        self.devices.send_if_modified(|devices| {
            let was_well = std::mem::replace(&mut devices[self.index], is_well);
            was_well != is_well
        });
    }
}

impl From<backend::Error> for Fault {
    fn from(error: backend::Error) -> Self {
        match error {
            backend::Error::OutOfMemory => Self::OutOfMemory,
            backend::Error::Lost(message) => Self::Lost(message),
            backend::Error::Died => Self::Panicked,
            backend::Error::NoBackend
            | backend::Error::NoCuda { .. }
            | backend::Error::HalfOnCpu(_)
            | backend::Error::HalfScript(_)
            | backend::Error::Unfaithful { .. }
            | backend::Error::Load(_)
            | backend::Error::Compute(_)
            | backend::Error::Thread(_) => Self::Failed(error.to_string()),
        }
    }
}

/// Tells those who still listen that they came to nothing.
pub(super) fn drop_dead(dead: Dead<Entry>) {
    metrics::dropped(metrics::Drop::Expired, dead.expired.len());
    metrics::dropped(metrics::Drop::Abandoned, dead.abandoned.len());
    for entry in dead.expired {
        entry.answer(Err(CallError::Expired));
    }
}
