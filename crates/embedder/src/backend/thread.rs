//! The thread that owns the model.
//!
//! A model's memory, its device and its library's thread pools belong to one operating system
//! thread: every batch runs there, never in a caller's task. If the thread panics, it is gone for
//! good; whoever asks next is told so, and the process is expected to end.

use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::Span;

use super::{Backend, Batch, Description, Error, Output};

/// Batches that wait in the channel. One batch is in flight, so one is enough.
const BACKLOG: usize = 1;

/// A handle on the thread. Dropping it lets the thread end after its current batch.
#[derive(Debug)]
pub(crate) struct Thread {
    jobs: mpsc::Sender<Job>,
    description: Description,
    thread: JoinHandle<()>,
}

#[derive(Debug)]
struct Job {
    batch: Batch,
    span: Span,
    reply: oneshot::Sender<(Result<Output, Error>, Duration)>,
}

impl Thread {
    /// Starts the thread and waits until `load` has made its backend there.
    ///
    /// # Errors
    /// Those of `load`, or a thread that can't be started.
    pub(crate) async fn start<F>(load: F) -> Result<Self, Error>
    where
        F: FnOnce() -> Result<Box<dyn Backend>, Error> + Send + 'static,
    {
        let (jobs, inbox) = mpsc::channel(BACKLOG);
        let (ready, loaded) = oneshot::channel();
        let thread = std::thread::Builder::new().name("model".to_owned()).spawn(move || {
            let loaded = load().map(|backend| (backend.description(), backend));
            match loaded {
                Ok((description, backend)) => {
                    // If nobody waits any more, the channel is closed and the loop ends at once.
                    drop(ready.send(Ok(description)));
                    serve(backend, inbox);
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        })?;
        let description = loaded.await.map_err(|_panicked| Error::Died)??;
        Ok(Self { jobs, description, thread })
    }

    pub(crate) fn description(&self) -> &Description {
        &self.description
    }

    /// Runs a batch within `span`. Tells how long the forward pass took.
    ///
    /// # Errors
    /// Those of the backend; [`Error::Died`] once the thread is gone.
    pub(crate) async fn embed(
        &self,
        batch: Batch,
        span: Span,
    ) -> Result<(Output, Duration), Error> {
        let (reply, result) = oneshot::channel();
        self.jobs.send(Job { batch, span, reply }).await.map_err(|_closed| Error::Died)?;
        let (output, elapsed) = result.await.map_err(|_dropped| Error::Died)?;
        Ok((output?, elapsed))
    }

    /// Lets the thread finish and waits for it.
    ///
    /// # Errors
    /// [`Error::Died`] if it panicked.
    pub(crate) async fn join(self) -> Result<(), Error> {
        drop(self.jobs);
        let thread = self.thread;
        match tokio::task::spawn_blocking(move || thread.join()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Error::Died),
        }
    }
}

fn serve(mut backend: Box<dyn Backend>, mut inbox: mpsc::Receiver<Job>) {
    while let Some(Job { batch, span, reply }) = inbox.blocking_recv() {
        let started_at = Instant::now();
        let output = span.in_scope(|| backend.embed(&batch));
        // The driver waits for every answer; if it is gone, the process is stopping.
        drop(reply.send((output, started_at.elapsed())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::fake::Fake;

    fn texts(count: usize) -> Batch {
        let tokens = crate::model::Tokens { ids: vec![1, 2], pool_at: 1 };
        Batch::Texts(vec![tokens; count])
    }

    #[tokio::test]
    async fn answers_from_a_thread_of_its_own_and_ends() {
        let thread = Thread::start(|| Ok(Box::new(Fake::new(4)))).await.expect("a fake loads");
        let (output, _) = thread.embed(texts(3), Span::none()).await.expect("an answer");
        assert_eq!(output.len(), 3, "a vector per input");
        assert!(thread.join().await.is_ok(), "the thread ends");
    }

    #[tokio::test]
    async fn a_panic_is_told_to_everyone_who_asks() {
        let thread = Thread::start(|| Ok(Box::new(Fake::new(4).panicking()))).await.expect("loads");
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
