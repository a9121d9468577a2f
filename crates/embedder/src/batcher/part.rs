//! Inputs that are computed together, and who waits for them.

use std::sync::Arc;
use std::time::Duration;

use clipmesh_proto::embedding::Embedding;
use clipmesh_telemetry::semconv;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::Span;

use super::state::Queued;
use super::{Answer, Entry, Input, Permit};
use crate::backend::{Batch, Output};
use crate::error::CallError;
use crate::metrics;

/// A batch, or what is left to do of one.
#[derive(Debug)]
pub(super) struct Part {
    batch: Arc<Batch>,
    callers: Vec<Caller>,
    /// Whether it is computed again because its vectors could not be used.
    is_again: bool,
}

#[derive(Debug)]
struct Caller {
    reply: oneshot::Sender<Result<Answer, CallError>>,
    permit: Permit,
    waited: Duration,
}

/// What came of a part without being of use, as vectors with values that are no numbers.
#[derive(Debug)]
pub(super) struct Unusable {
    /// To be computed once more.
    pub(super) again: Option<Part>,
    /// Whether callers had to be told that it failed.
    pub(super) has_failed: bool,
}

impl Part {
    /// The inputs of a batch, which are of one kind, and its span.
    pub(super) fn new(queued: Vec<Queued<Entry>>) -> (Self, Span) {
        let taken_at = Instant::now();
        let span =
            tracing::info_span!(parent: None, "batch", { semconv::BATCH_SIZE } = queued.len());
        let mut callers = Vec::with_capacity(queued.len());
        let mut inputs = Vec::with_capacity(queued.len());
        for Queued { item, lane, queued_at, .. } in queued {
            // The requests are not the batch's parents, since it has many: it is linked to them.
            span.follows_from(&item.span);
            let waited = taken_at.duration_since(queued_at);
            metrics::waited(lane, waited);
            let Entry { input, reply, span: _waited, permit } = item;
            inputs.push(input);
            callers.push(Caller { reply, permit, waited });
        }
        (Self { batch: Arc::new(assemble(inputs)), callers, is_again: false }, span)
    }

    pub(super) fn batch(&self) -> &Arc<Batch> {
        &self.batch
    }

    pub(super) fn len(&self) -> usize {
        self.callers.len()
    }

    /// Its two halves, the first one last, so that it is taken first from a stack.
    pub(super) fn split(mut self) -> [Self; 2] {
        let half = self.len() / 2;
        let callers = self.callers.split_off(half);
        let last = Self {
            batch: Arc::new(self.batch.part(half..self.batch.len())),
            callers,
            is_again: self.is_again,
        };
        [last, Self { batch: Arc::new(self.batch.part(0..half)), ..self }]
    }

    /// Answers its callers, except those whose vectors can't be used and may be at another try.
    pub(super) fn answer(self, output: Output, computed: Duration) -> Unusable {
        let batch_size = self.len();
        metrics::computed(kind(&self.batch), batch_size, computed);
        let mut unusable = Unusable { again: None, has_failed: false };
        for (index, (caller, values)) in self.callers.into_iter().zip(output).enumerate() {
            match Embedding::new(values) {
                Ok(vector) => {
                    let queued = caller.waited;
                    caller.answer(Ok(Answer { vector, queued, computed, batch_size }));
                }
                Err(error) if self.is_again => {
                    unusable.has_failed = true;
                    caller.answer(Err(error.into()));
                }
                Err(_) => {
                    let input = self.batch.part(index..index + 1);
                    Self::add(&mut unusable.again, input, caller);
                }
            }
        }
        unusable
    }

    /// Tells all its callers that it failed.
    pub(super) fn fail(self, error: &CallError) {
        for caller in self.callers {
            caller.answer(Err(error.clone()));
        }
    }

    fn add(again: &mut Option<Self>, input: Batch, caller: Caller) {
        let Some(part) = again else {
            *again = Some(Self { batch: Arc::new(input), callers: vec![caller], is_again: true });
            return;
        };
        Arc::make_mut(&mut part.batch).append(input);
        part.callers.push(caller);
    }
}

impl Caller {
    fn answer(self, answer: Result<Answer, CallError>) {
        // First the room, then the answer: whoever gets it may send more at once.
        drop(self.permit);
        // The caller may have gone meanwhile, and then no one wants to know.
        drop(self.reply.send(answer));
    }
}

fn kind(batch: &Batch) -> metrics::Kind {
    match batch {
        Batch::Pictures(_) => metrics::Kind::Image,
        Batch::Texts(_) => metrics::Kind::Text,
    }
}

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
