//! Runs preprocessing on threads of its own, so that the runtime stays free to answer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::Span;

use crate::error::CallError;

/// Threads that decode pictures and split texts. How much waits for them is bounded by whoever
/// admits calls.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    threads: Arc<rayon::ThreadPool>,
}

/// What a task returned, and how long it ran.
#[derive(Debug)]
pub(crate) struct Timed<T> {
    pub(crate) value: T,
    pub(crate) elapsed: Duration,
}

impl Pool {
    /// `threads` of them; zero takes one per core.
    pub(crate) fn new(threads: usize) -> Result<Self, rayon::ThreadPoolBuildError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("preprocess-{index}"))
            .build()?;
        Ok(Self { threads: Arc::new(pool) })
    }

    /// Runs `task` in the current span. A task whose caller has gone is not started.
    pub(crate) async fn run<T, F>(&self, task: F) -> Result<Timed<T>, CallError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (reply, result) = oneshot::channel();
        let span = Span::current();
        self.threads.spawn(move || {
            if reply.is_closed() {
                return;
            }
            let started_at = Instant::now();
            // Files come from strangers: a decoder's bug must fail one input, not the process.
            // The panic hook logs it.
            let value = span.in_scope(|| catch_unwind(AssertUnwindSafe(task)));
            let timed = value.map(|value| Timed { value, elapsed: started_at.elapsed() });
            // The caller may have gone meanwhile, and then no one wants to know.
            drop(reply.send(timed));
        });
        match result.await {
            Ok(Ok(timed)) => Ok(timed),
            Ok(Err(_panic)) => Err(CallError::Panicked),
            Err(_closed) => Err(CallError::Stopped),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_fails_one_task_and_no_other() {
        let pool = Pool::new(1).expect("a thread");
        let failed =
            pool.run(|| panic!("a decoder's bug")).await.map(|timed: Timed<()>| timed.value);
        assert!(matches!(failed, Err(CallError::Panicked)), "told, not spread: {failed:?}");
        let next = pool.run(|| 7).await.expect("the thread lives on");
        assert_eq!(next.value, 7, "the next task runs");
    }

    #[tokio::test]
    async fn work_that_no_one_waits_for_is_not_done() {
        let pool = Pool::new(1).expect("a thread");
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let (alive, dropped) = std::sync::mpsc::channel::<()>();
        let blocked = tokio::spawn({
            let pool = pool.clone();
            async move { pool.run(move || gate.recv()).await.map(|timed| timed.value) }
        });
        tokio::task::yield_now().await;
        let abandoned =
            tokio::spawn(
                async move { pool.run(move || alive.send(())).await.map(|timed| timed.value) },
            );
        tokio::task::yield_now().await;
        abandoned.abort();
        assert!(abandoned.await.is_err_and(|error| error.is_cancelled()), "its caller goes");
        release.send(()).expect("the first task waits");
        assert!(blocked.await.is_ok(), "the first task ends");
        let outcome = tokio::task::spawn_blocking(move || dropped.recv()).await.expect("no panic");
        assert!(outcome.is_err(), "dropped without being run: {outcome:?}");
    }
}
