//! Moves batches from the lanes to the device and answers back. One batch is in flight at a time.

use std::sync::Arc;
use std::time::Duration;

use clipmesh_proto::embedding::Embedding;
use clipmesh_telemetry::semconv;
use tokio::time::Instant;
use tracing::Span;

use super::state::{Dead, Queued};
use super::{Answer, Entry, Input, Shared};
use crate::backend::thread::Thread;
use crate::backend::{self, Batch, Output};
use crate::error::CallError;
use crate::metrics;

/// Runs until the batcher is closed or the device has died; then answers what waits and joins the
/// model's thread.
pub(super) async fn run(shared: Arc<Shared>, thread: Thread) -> Result<(), backend::Error> {
    while let Some(batch) = next_batch(&shared).await {
        let size = batch.len();
        shared.lock().started(Instant::now());
        match compute(&thread, batch).await {
            Outcome::Done(elapsed) => shared.lock().finished(size, elapsed),
            // The device failed on this batch and may not on the next.
            Outcome::Failed => {}
            Outcome::Died => {
                tracing::error!("the thread that runs the model has died");
                break;
            }
        }
    }
    shared.close();
    thread.join().await
}

/// Waits for work. `None` once the batcher is closed.
async fn next_batch(shared: &Shared) -> Option<Vec<Queued<Entry>>> {
    loop {
        shared.sweep();
        let (batch, is_closed) = {
            let mut state = shared.lock();
            let batch = state.next_batch();
            metrics::queue_depth(state.waiting());
            (batch, state.is_closed())
        };
        if !batch.is_empty() {
            return Some(batch);
        }
        if is_closed {
            return None;
        }
        // What came between looking and waiting has left its notice.
        shared.changed.notified().await;
    }
}

/// What became of a batch.
enum Outcome {
    /// Its forward pass took this long.
    Done(Duration),
    Failed,
    /// The device is gone.
    Died,
}

/// Computes a batch and answers its callers.
async fn compute(thread: &Thread, queued: Vec<Queued<Entry>>) -> Outcome {
    let taken_at = Instant::now();
    let size = queued.len();
    let span = tracing::info_span!(parent: None, "batch", { semconv::BATCH_SIZE } = size);
    let mut waits = Vec::with_capacity(size);
    let mut replies = Vec::with_capacity(size);
    let mut inputs = Vec::with_capacity(size);
    for Queued { item, queued_at, .. } in queued {
        // The requests are not the batch's parents, since it has many: it is linked to them.
        span.follows_from(&item.span);
        let wait = taken_at.duration_since(queued_at);
        metrics::waited(wait);
        waits.push(wait);
        let Entry { input, reply, span: _waited, permit } = item;
        inputs.push(input);
        replies.push((reply, permit));
    }
    let outcome = run_batch(thread, inputs, span).await;
    let what = match &outcome {
        Ok((_, elapsed)) => {
            metrics::computed(size, *elapsed);
            Outcome::Done(*elapsed)
        }
        Err(backend::Error::Died) => Outcome::Died,
        Err(_) => Outcome::Failed,
    };
    for ((reply, permit), answer) in replies.into_iter().zip(answers(outcome, &waits)) {
        // First the room, then the answer: whoever gets it may send more at once.
        drop(permit);
        // The caller may have gone meanwhile, and then no one wants to know.
        drop(reply.send(answer));
    }
    what
}

async fn run_batch(
    thread: &Thread,
    inputs: Vec<Input>,
    span: Span,
) -> Result<(Output, Duration), backend::Error> {
    let count = inputs.len();
    let (output, elapsed) = thread.embed(assemble(inputs), span).await?;
    if output.len() != count {
        let message = format!("{} vectors for {count} inputs", output.len());
        return Err(backend::Error::Compute(message));
    }
    Ok((output, elapsed))
}

/// Inputs of one lane are of one kind.
fn assemble(inputs: Vec<Input>) -> Batch {
    let mut pictures = Vec::new();
    let mut texts = Vec::new();
    for input in inputs {
        match input {
            Input::Picture(levels) => pictures.push(levels),
            Input::Text(tokens) => texts.push(tokens),
        }
    }
    debug_assert!(pictures.is_empty() || texts.is_empty(), "a batch of two kinds");
    if texts.is_empty() { Batch::Pictures(pictures) } else { Batch::Texts(texts) }
}

/// One answer per caller.
fn answers(
    outcome: Result<(Output, Duration), backend::Error>,
    waits: &[Duration],
) -> Vec<Result<Answer, CallError>> {
    let batch_size = waits.len();
    match outcome {
        Ok((output, computed)) => {
            let answer = |(values, &queued)| {
                let vector = Embedding::new(values)?;
                Ok(Answer { vector, queued, computed, batch_size })
            };
            output.into_iter().zip(waits).map(answer).collect()
        }
        Err(backend::Error::Died) => vec![Err(CallError::Stopped); batch_size],
        Err(error) => vec![Err(CallError::Compute { message: error.to_string() }); batch_size],
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
