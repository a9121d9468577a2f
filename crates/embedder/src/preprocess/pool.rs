//! Runs preprocessing on threads of its own, so that the runtime stays free to answer.
//!
//! Interactive work goes before bulk work here as it does at the device. A general thread pool
//! takes tasks in order of arrival, so that a person would wait behind every picture of a job.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::Span;

use crate::error::CallError;
use crate::lane::{Lane, Turns};

/// Threads that decode pictures or split texts. How much waits for them is bounded by whoever
/// admits calls. They end with the last clone.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    queue: Arc<Owner>,
}

/// What a task returned, how long it waited and how long it ran.
#[derive(Debug)]
pub(crate) struct Timed<T> {
    pub(crate) value: T,
    pub(crate) waited: Duration,
    pub(crate) elapsed: Duration,
}

/// Closes the queue when the last clone of the pool is dropped.
#[derive(Debug)]
struct Owner(Arc<Queue>);

#[derive(Debug)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lanes: [VecDeque<Task>; 2],
    turns: Turns,
    is_closed: bool,
}

type Task = Box<dyn FnOnce() + Send>;

impl Pool {
    /// `threads` of them, called `name`; zero takes one per core.
    ///
    /// # Errors
    /// Threads that can't be started.
    pub(crate) fn new(name: &str, threads: usize) -> io::Result<Self> {
        let cores = || thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let threads = if threads == 0 { cores() } else { threads };
        let queue = Arc::new(Queue { state: Mutex::default(), changed: Condvar::new() });
        let pool = Self { queue: Arc::new(Owner(Arc::clone(&queue))) };
        for index in 0..threads {
            let queue = Arc::clone(&queue);
            let thread = thread::Builder::new().name(format!("{name}-{index}"));
            thread.spawn(move || queue.work())?;
        }
        Ok(pool)
    }

    /// Runs `task` in the current span. A task whose caller has gone is not started.
    pub(crate) async fn run<T, F>(&self, lane: Lane, task: F) -> Result<Timed<T>, CallError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (reply, result) = oneshot::channel();
        let span = Span::current();
        let queued_at = Instant::now();
        self.queue.0.push(
            lane,
            Box::new(move || {
                if reply.is_closed() {
                    return;
                }
                let started_at = Instant::now();
                // Files come from strangers: a decoder's bug must fail one input, not the process.
                // The panic hook logs it.
                let value = span.in_scope(|| catch_unwind(AssertUnwindSafe(task)));
                let (waited, elapsed) = (started_at - queued_at, started_at.elapsed());
                let timed = value.map(|value| Timed { value, waited, elapsed });
                // The caller may have gone meanwhile, and then no one wants to know.
                drop(reply.send(timed));
            }),
        );
        match result.await {
            Ok(Ok(timed)) => Ok(timed),
            Ok(Err(_panic)) => Err(CallError::Panicked),
            Err(_closed) => Err(CallError::Stopped),
        }
    }
}

impl Queue {
    fn push(&self, lane: Lane, task: Task) {
        self.lock().lanes[lane as usize].push_back(task);
        self.changed.notify_one();
    }

    /// Runs tasks until the queue is closed.
    fn work(&self) {
        while let Some(task) = self.next() {
            task();
        }
    }

    fn next(&self) -> Option<Task> {
        let mut state = self.lock();
        loop {
            if state.is_closed {
                return None;
            }
            if let Some(task) = state.next() {
                return Some(task);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of the state is whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next(&mut self) -> Option<Task> {
        let [interactive, bulk] = Lane::ALL.map(|lane| !self.lanes[lane as usize].is_empty());
        let lane = self.turns.upcoming(interactive, bulk)?;
        self.turns.taken(lane, bulk);
        self.lanes[lane as usize].pop_front()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_closed = true;
        // Dropping what waits tells its callers.
        let waiting = std::mem::take(&mut state.lanes);
        drop(state);
        drop(waiting);
        self.0.changed.notify_all();
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.lanes.each_ref().map(VecDeque::len);
        f.debug_struct("State").field("waiting", &waiting).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const LANE: Lane = Lane::Interactive;

    async fn value<T: Send + 'static>(
        pool: Pool,
        lane: Lane,
        task: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, CallError> {
        pool.run(lane, task).await.map(|timed| timed.value)
    }

    /// A pool of one thread that is kept busy until the sender is used or dropped.
    async fn blocked() -> (Pool, mpsc::Sender<()>) {
        let pool = Pool::new("test", 1).expect("a thread");
        let (release, gate) = mpsc::channel::<()>();
        let (started, running) = oneshot::channel();
        tokio::spawn(value(pool.clone(), LANE, move || {
            assert!(started.send(()).is_ok(), "the test waits");
            assert!(gate.recv().is_err(), "until it may end");
        }));
        running.await.expect("it runs");
        (pool, release)
    }

    async fn wait_for(pool: &Pool, waiting: usize) {
        while pool.queue.0.lock().lanes.iter().map(VecDeque::len).sum::<usize>() < waiting {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_panic_fails_one_task_and_no_other() {
        let pool = Pool::new("test", 1).expect("a thread");
        let failed = value(pool.clone(), LANE, || panic!("a decoder's bug")).await;
        let failed: Result<(), _> = failed;
        assert!(matches!(failed, Err(CallError::Panicked)), "told, not spread: {failed:?}");
        assert_eq!(value(pool, LANE, || 7).await, Ok(7), "the thread lives on");
    }

    #[tokio::test]
    async fn work_that_no_one_waits_for_is_not_done() {
        let (pool, release) = blocked().await;
        let (alive, dropped) = mpsc::channel::<()>();
        let abandoned = tokio::spawn(value(pool.clone(), LANE, move || alive.send(())));
        wait_for(&pool, 1).await;
        abandoned.abort();
        assert!(abandoned.await.is_err_and(|error| error.is_cancelled()), "its caller goes");
        drop(release);
        let outcome = tokio::task::spawn_blocking(move || dropped.recv()).await.expect("no panic");
        assert!(outcome.is_err(), "dropped without being run: {outcome:?}");
    }

    #[tokio::test]
    async fn people_go_before_jobs() {
        let (pool, release) = blocked().await;
        let (done, order) = mpsc::channel();
        let mut tasks = Vec::new();
        for (waiting, lane) in (1..).zip([Lane::Bulk, Lane::Bulk, Lane::Interactive]) {
            let done = done.clone();
            tasks.push(tokio::spawn(value(pool.clone(), lane, move || done.send(lane))));
            wait_for(&pool, waiting).await;
        }
        drop(release);
        for task in tasks {
            assert!(task.await.expect("no panic").is_ok(), "all are done");
        }
        let order: Vec<_> = order.try_iter().collect();
        assert_eq!(order, [Lane::Interactive, Lane::Bulk, Lane::Bulk], "whoever came last first");
    }

    #[test]
    fn the_end_of_the_pool_ends_its_threads_and_what_waits() {
        let pool = Pool::new("test", 1).expect("a thread");
        let (release, gate) = mpsc::channel::<()>();
        let (started, running) = mpsc::channel();
        let (alive, dropped) = mpsc::channel::<()>();
        let queue = Arc::downgrade(&pool.queue.0);
        let run = |task: Task| pool.queue.0.push(LANE, task);
        run(Box::new(move || {
            started.send(()).expect("the test waits");
            assert!(gate.recv().is_err(), "until it may end");
        }));
        run(Box::new(move || alive.send(()).expect("the test waits")));
        running.recv().expect("it runs");
        drop(pool);
        assert!(dropped.recv().is_err(), "what waited is dropped without being run");
        drop(release);
        while queue.strong_count() > 0 {
            thread::yield_now();
        }
    }
}
