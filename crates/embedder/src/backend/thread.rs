//! The threads of a device: one owns the model, one brings the next batch to it.
//!
//! ```text
//!   driver ─► stage ─► model ─► driver
//!             copies   forward pass
//! ```
//!
//! A model's memory, its device and its library's thread pools belong to one operating system
//! thread: every batch runs there, never in a caller's task. While it computes, the other one
//! copies what comes next. If one of them panics, it is gone for good; whoever asks next is told
//! so, and the process is expected to end.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::Span;

use super::{Backend, Batch, Description, Error, Output, Staged, Stager};

/// Batches that wait in each channel. The driver bounds how many are in flight.
const BACKLOG: usize = 1;

/// A handle on the threads. Dropping it lets them end after their current batches.
#[derive(Debug)]
pub(crate) struct Thread {
    jobs: mpsc::Sender<Job<Arc<Batch>>>,
    description: Description,
    threads: [JoinHandle<()>; 2],
}

#[derive(Debug)]
struct Job<T> {
    batch: T,
    span: Span,
    reply: oneshot::Sender<(Result<Output, Error>, Duration)>,
}

impl Thread {
    /// Starts the threads and waits until `load` has made its backend on its own.
    ///
    /// # Errors
    /// Those of `load`, or a thread that can't be started.
    pub(crate) async fn start<F>(load: F) -> Result<Self, Error>
    where
        F: FnOnce() -> Result<Box<dyn Backend>, Error> + Send + 'static,
    {
        let (jobs, inbox) = mpsc::channel(BACKLOG);
        let (staged, staged_inbox) = mpsc::channel(BACKLOG);
        let (ready, loaded) = oneshot::channel();
        let load = move || {
            let mut backend = load()?;
            let stager = backend.stager()?;
            Ok::<_, Error>((backend, stager))
        };
        let model = spawn("model", move || match load() {
            Ok((backend, stager)) => {
                // If nobody waits any more, the channel is closed and the loop ends at once.
                drop(ready.send(Ok((backend.description(), stager))));
                serve(backend, staged_inbox);
            }
            Err(error) => drop(ready.send(Err(error))),
        })?;
        let (description, stager) = loaded.await.map_err(|_panicked| Error::Died)??;
        let stage = spawn("stage", move || bring(stager, inbox, &staged))?;
        Ok(Self { jobs, description, threads: [stage, model] })
    }

    pub(crate) fn description(&self) -> &Description {
        &self.description
    }

    /// Runs a batch within `span`. Tells how long the forward pass took.
    ///
    /// # Errors
    /// Those of the backend; [`Error::Died`] once a thread is gone.
    pub(crate) async fn embed(
        &self,
        batch: Arc<Batch>,
        span: Span,
    ) -> Result<(Output, Duration), Error> {
        let (reply, result) = oneshot::channel();
        self.jobs.send(Job { batch, span, reply }).await.map_err(|_closed| Error::Died)?;
        let (output, elapsed) = result.await.map_err(|_dropped| Error::Died)?;
        Ok((output?, elapsed))
    }

    /// Lets the threads finish and waits for them.
    ///
    /// # Errors
    /// [`Error::Died`] if one panicked.
    pub(crate) async fn join(self) -> Result<(), Error> {
        drop(self.jobs);
        let threads = self.threads;
        // The one that copies ends first, and its end ends the other.
        let join = move || threads.into_iter().try_for_each(JoinHandle::join);
        match tokio::task::spawn_blocking(join).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Error::Died),
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    Ok(std::thread::Builder::new().name(name.to_owned()).spawn(work)?)
}

/// Brings batches to the device.
fn bring(
    mut stager: Box<dyn Stager>,
    mut inbox: mpsc::Receiver<Job<Arc<Batch>>>,
    staged: &mpsc::Sender<Job<Staged>>,
) {
    while let Some(Job { batch, span, reply }) = inbox.blocking_recv() {
        match span.in_scope(|| stager.stage(batch)) {
            // If the model's thread is gone, the reply goes with the job, and the driver learns.
            Ok(batch) => drop(staged.blocking_send(Job { batch, span, reply })),
            // The driver waits for every answer; if it is gone, the process is stopping.
            Err(error) => drop(reply.send((Err(error), Duration::ZERO))),
        }
    }
}

/// Computes.
fn serve(mut backend: Box<dyn Backend>, mut inbox: mpsc::Receiver<Job<Staged>>) {
    while let Some(Job { batch, span, reply }) = inbox.blocking_recv() {
        let started_at = Instant::now();
        let output = span.in_scope(|| backend.compute(batch));
        drop(reply.send((output, started_at.elapsed())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::fake::{Act, Fake};

    fn texts(count: usize) -> Arc<Batch> {
        let tokens = crate::model::Tokens { ids: vec![1, 2], pool_at: 1 };
        Arc::new(Batch::Texts(vec![tokens; count]))
    }

    #[tokio::test]
    async fn answers_from_threads_of_its_own_and_ends() {
        let thread = Thread::start(|| Ok(Box::new(Fake::new(4)))).await.expect("a fake loads");
        let (output, _) = thread.embed(texts(3), Span::none()).await.expect("an answer");
        assert_eq!(output.len(), 3, "a vector per input");
        assert!(thread.join().await.is_ok(), "the threads end");
    }

    #[tokio::test]
    async fn a_panic_is_told_to_everyone_who_asks() {
        let thread =
            Thread::start(|| Ok(Box::new(Fake::new(4).script([Act::Panic])))).await.expect("loads");
        for _ in 0..2 {
            let result = thread.embed(texts(1), Span::none()).await;
            assert!(matches!(result, Err(Error::Died)), "no answer will come: {result:?}");
        }
        assert!(matches!(thread.join().await, Err(Error::Died)), "it did not end well");
    }

    #[tokio::test]
    async fn a_fault_of_loading_is_passed_on() {
        let result = Thread::start(|| Err(Error::Load("no such file".to_owned()))).await;
        assert!(matches!(result, Err(Error::Load(_))), "the cause: {result:?}");
    }
}
