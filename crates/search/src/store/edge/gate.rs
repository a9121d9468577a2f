//! How many calls may be in the engine at once, and how many may wait for that.

use std::num::NonZeroUsize;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::closed;
use crate::metrics;
use crate::store::Error;

/// Lets some calls in at once and some more wait in line; the rest are turned away at once.
///
/// The engine can't be interrupted, so whoever has left while it waited costs nothing, and whoever
/// is in stays in to the end.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    name: &'static str,
    /// A place for each call that is in or in line.
    places: Arc<Semaphore>,
    /// A place for each call that is in.
    inside: Arc<Semaphore>,
}

/// The right to be in the engine.
#[derive(Debug)]
#[must_use]
pub(super) struct Pass {
    _inside: OwnedSemaphorePermit,
    _place: OwnedSemaphorePermit,
}

// === impl Gate ===

impl Gate {
    /// `name` is `read` or `write`.
    pub(super) fn new(name: &'static str, inside: NonZeroUsize, waiting: usize) -> Self {
        Self {
            name,
            places: Arc::new(Semaphore::new(inside.get() + waiting)),
            inside: Arc::new(Semaphore::new(inside.get())),
        }
    }

    /// Waits in line.
    ///
    /// # Errors
    /// [`Error::Busy`] when the line is full.
    pub(super) async fn enter(&self) -> Result<Pass, Error> {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            metrics::store_turned_away(self.name);
            return Err(Error::Busy);
        };
        let in_line = metrics::StoreWait::start(self.name);
        let inside = Arc::clone(&self.inside).acquire_owned().await.map_err(|_| closed())?;
        in_line.stop();
        Ok(Pass { _inside: inside, _place: place })
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn turns_away_whom_the_line_has_no_place_for() {
        let gate = Gate::new("read", NonZeroUsize::MIN, 1);
        let inside = gate.enter().await.expect("nobody is in");
        let mut in_line = Box::pin(gate.enter());
        assert!((&mut in_line).now_or_never().is_none(), "the second waits");
        assert_eq!(gate.enter().await.map(drop), Err(Error::Busy), "the third has no place");
        drop(inside);
        drop(in_line.await.expect("its turn"));
        drop(gate.enter().await.expect("nobody is in any more"));
    }

    #[tokio::test]
    async fn who_leaves_the_line_gives_the_place_back() {
        let gate = Gate::new("read", NonZeroUsize::MIN, 1);
        let inside = gate.enter().await.expect("nobody is in");
        let mut in_line = Box::pin(gate.enter());
        assert!((&mut in_line).now_or_never().is_none(), "the second waits");
        drop(in_line);
        let mut next = Box::pin(gate.enter());
        assert!((&mut next).now_or_never().is_none(), "the next waits in its place");
        drop(inside);
        drop(next.await.expect("its turn"));
    }
}
