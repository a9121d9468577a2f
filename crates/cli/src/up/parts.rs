//! Services that run beside each other and stop one after the other.

use std::time::Duration;

use clipmesh_mesh::Shutdown;
use futures::future::select_all;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::error::Error;

/// One running service.
#[derive(Debug)]
struct Part {
    name: &'static str,
    shutdown: Shutdown,
    task: AbortOnDropHandle<Result<(), String>>,
    /// How it ended, once it has.
    ended: Option<Result<(), String>>,
}

/// Services in the order of their start. Each is called by the ones after it, so they stop the
/// other way round.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    parts: Vec<Part>,
}

// === impl Parts ===

impl Parts {
    /// Starts a service, which runs until its own shutdown is requested.
    pub(crate) fn start<F, E>(&mut self, name: &'static str, run: impl FnOnce(Shutdown) -> F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: std::fmt::Display,
    {
        let shutdown = Shutdown::new();
        let running = run(shutdown.clone());
        let task = tokio::spawn(async move { running.await.map_err(|error| error.to_string()) });
        self.parts.push(Part { name, shutdown, task: AbortOnDropHandle::new(task), ended: None });
    }

    /// Waits until a service ends that nobody has asked to.
    pub(crate) async fn failed(&mut self) {
        if self.parts.iter().any(|part| part.ended.is_some()) {
            return;
        }
        if self.parts.is_empty() {
            return std::future::pending().await;
        }
        let ends = self.parts.iter_mut().map(|part| Box::pin(part.end()));
        select_all(ends).await;
    }

    /// Stops all services, the last one first, each within `limit`.
    ///
    /// # Errors
    /// The first that failed: by itself before, or on its way to the end.
    pub(crate) async fn stop(mut self, limit: Duration) -> Result<(), Error> {
        for part in &self.parts {
            if let Some(Ok(())) = &part.ended {
                tracing::error!(service = part.name, "ended unasked");
            }
        }
        let mut outcome = Ok(());
        for part in self.parts.iter_mut().rev() {
            if let Err(message) = part.stop(limit).await {
                tracing::error!(service = part.name, message, "service failed");
                outcome = Err(Error::Part { name: part.name, message });
            }
        }
        outcome
    }
}

// === impl Part ===

impl Part {
    async fn end(&mut self) {
        if self.ended.is_none() {
            let joined = (&mut self.task).await;
            self.ended = Some(joined.unwrap_or_else(|error| Err(error.to_string())));
        }
    }

    async fn stop(&mut self, limit: Duration) -> Result<(), String> {
        if self.ended.is_some() && !self.shutdown.is_requested() {
            let ended = self.ended.clone().unwrap_or(Ok(()));
            return ended.and_then(|()| Err("ended unasked".to_owned()));
        }
        self.shutdown.trigger();
        if timeout(limit, self.end()).await.is_err() {
            self.task.abort();
            return Err(format!("did not stop within {limit:?}"));
        }
        tracing::info!(service = self.name, "service stopped");
        self.ended.clone().unwrap_or(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);
    /// Waited out, and still long for the others, which only write a word.
    const SHORT: Duration = Duration::from_millis(50);

    type Diary = Arc<Mutex<Vec<&'static str>>>;

    fn parts(diary: &Diary) -> Parts {
        let mut parts = Parts::default();
        for name in ["embedder", "search", "gateway"] {
            let diary = Arc::clone(diary);
            parts.start(name, |shutdown| async move {
                shutdown.requested().await;
                diary.lock().expect("no panic before").push(name);
                Ok::<(), String>(())
            });
        }
        parts
    }

    #[tokio::test]
    async fn the_door_closes_before_the_rooms() {
        let diary = Diary::default();
        parts(&diary).stop(LIMIT).await.expect("all stop well");
        let order = diary.lock().expect("no panic before").clone();
        assert_eq!(order, ["gateway", "search", "embedder"], "callers before callees");
    }

    #[tokio::test]
    async fn one_that_fails_takes_the_others_along_and_is_named() {
        let diary = Diary::default();
        let mut parts = parts(&diary);
        parts.start("broken", |_| async { Err("no disk") });
        parts.failed().await;
        let error = parts.stop(LIMIT).await.expect_err("one failed");
        assert_eq!(error.to_string(), "broken: no disk", "the one that failed");
        assert_eq!(error.exit_code(), 1, "for scripts");
        assert_eq!(diary.lock().expect("no panic before").len(), 3, "the others stopped in order");
    }

    #[tokio::test]
    async fn one_that_hangs_does_not_hold_up_the_others() {
        let diary = Diary::default();
        let mut parts = parts(&diary);
        parts.start("hanging", |_| std::future::pending::<Result<(), String>>());
        let error = parts.stop(SHORT).await.expect_err("one hangs").to_string();
        assert_eq!(error, "hanging: did not stop within 50ms", "told");
        assert_eq!(diary.lock().expect("no panic before").len(), 3, "the others stopped");
    }

    #[tokio::test]
    async fn one_that_panics_is_a_failure() {
        let mut parts = Parts::default();
        parts.start::<_, String>("careless", |_| async { panic!("a bug") });
        parts.failed().await;
        let error = parts.stop(LIMIT).await.expect_err("it panicked").to_string();
        assert!(error.contains("careless") && error.contains("a bug"), "told: {error}");
    }
}
