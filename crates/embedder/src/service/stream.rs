//! Embedding in bulk: many inputs under way at once, each answered as it finishes.
//!
//! ```text
//!   requests ─► check ─► wait for room ─► pipeline ─► answers
//!               one at a time              up to a window of them
//! ```
//!
//! The answers are a stream that reads on when it is asked for the next one. So a client that does
//! not read its answers is not read from either, and when it goes away the work goes with it. The
//! window bounds what one stream has under way, and the batcher's bounds what all calls have: of
//! what it does not take on yet, a stream holds one input.
//!
//! ```text
//!   Reading ── the client's end ──────────────────────────► Ending(None) ────► end
//!      └────── shutdown, deadline, a dead device, a fault ─► Ending(status) ─► status
//!              of the connection
//! ```
//!
//! While it is ending, a stream still answers what was under way.

use clipmesh_proto::embedder::v1 as proto;
use futures::future::BoxFuture;
use futures::stream::{self, FuturesUnordered};
use futures::{FutureExt as _, Stream, StreamExt as _};
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tracing::{Instrument as _, Span};

use super::Service;
use super::answer::{self, Encoding};
use super::pipeline::{Checked, Terms};
use crate::batcher::Permit;
use crate::error::CallError;

/// The name of the input in a request.
const FIELD: &str = "input";

/// A stream of inputs on its way in.
struct Bulk<S> {
    service: Service,
    requests: S,
    terms: Terms,
    window: usize,
    phase: Phase,
    /// The input that waits for room.
    waiting: Option<BoxFuture<'static, (Job, Result<Permit, CallError>)>>,
    running: FuturesUnordered<BoxFuture<'static, Done>>,
    span: Span,
}

enum Phase {
    Reading,
    /// Nothing more is read. What the caller is told in the end; `None` if all is well.
    Ending(Option<Status>),
}

/// An input that passed the first check.
struct Job {
    key: u64,
    checked: Checked,
    terms: Terms,
    encoding: Encoding,
}

/// An input that was worked on.
struct Done {
    key: u64,
    result: Result<proto::EmbedResult, CallError>,
}

/// What to do about one input that failed, not by its own fault.
enum Verdict {
    /// It alone is answered with its error.
    Answer(Status),
    /// No other can succeed either.
    End(Status),
}

/// Embeds the inputs of a stream.
pub(super) fn answers<S>(
    service: Service,
    requests: S,
    terms: Terms,
) -> impl Stream<Item = Result<proto::EmbedStreamResponse, Status>> + Send + 'static
where
    S: Stream<Item = Result<proto::EmbedStreamRequest, Status>> + Send + Unpin + 'static,
{
    let window = service.limits().stream_window.max(1) as usize;
    let bulk = Bulk {
        service,
        requests,
        terms,
        window,
        phase: Phase::Reading,
        waiting: None,
        running: FuturesUnordered::new(),
        span: Span::current(),
    };
    stream::unfold(bulk, |mut bulk| async {
        let answer = bulk.next().await?;
        Some((answer, bulk))
    })
}

// === impl Bulk ===

impl<S> Bulk<S>
where
    S: Stream<Item = Result<proto::EmbedStreamRequest, Status>> + Send + Unpin,
{
    /// Works until there is something to answer, or nothing left to do.
    async fn next(&mut self) -> Option<Result<proto::EmbedStreamResponse, Status>> {
        loop {
            let is_reading = matches!(self.phase, Phase::Reading);
            let may_read = is_reading && self.waiting.is_none() && self.running.len() < self.window;
            let answer = tokio::select! {
                Some(done) = self.running.next() => self.finish(done),
                Some((job, admitted)) = optional(&mut self.waiting) => {
                    self.waiting = None;
                    self.start(job, admitted)
                }
                () = self.service.stop.requested(), if is_reading => {
                    self.end(CallError::Draining.into());
                    None
                }
                request = self.requests.next(), if may_read => self.take(request),
                else => return self.phase.over().map(Err),
            };
            if let Some(answer) = answer {
                return Some(Ok(answer));
            }
        }
    }

    /// Takes what was read: lets an input wait for room, or answers why it is not worth waiting.
    fn take(
        &mut self,
        read: Option<Result<proto::EmbedStreamRequest, Status>>,
    ) -> Option<proto::EmbedStreamResponse> {
        let proto::EmbedStreamRequest { key, input, encoding, image_facts } = match read {
            Some(Ok(request)) => request,
            // Such as a message over the limit, after which nothing can be read.
            Some(Err(status)) => {
                self.end(status);
                return None;
            }
            None => {
                self.phase = Phase::Ending(None);
                return None;
            }
        };
        let asked = Encoding::read(encoding).and_then(|encoding| {
            let wanted = answer::read_wanted(image_facts)?;
            Ok((encoding, Terms { wanted, ..self.terms }))
        });
        let (encoding, terms) = match asked {
            Ok(asked) => asked,
            Err(violation) => {
                return Some(self.respond(key, answer::failed(&violation.into_status())));
            }
        };
        let pipeline = &self.service.pipeline;
        let checked = match pipeline.check(input.unwrap_or_default()) {
            Ok(checked) => checked,
            Err(refused) => return Some(self.respond(key, answer::refused(&refused, FIELD))),
        };
        let (weight, lane) = (pipeline.weigh(&checked), terms.lane);
        let batcher = pipeline.batcher.clone();
        let job = Job { key, checked, terms, encoding };
        let wait = async move { (job, batcher.admit_in_turn(lane, weight).await) };
        self.waiting = Some(wait.boxed());
        None
    }

    /// Begins with an input that has room now.
    fn start(
        &mut self,
        Job { key, checked, terms, encoding }: Job,
        admitted: Result<Permit, CallError>,
    ) -> Option<proto::EmbedStreamResponse> {
        let permit = match admitted {
            Ok(permit) => permit,
            Err(error) => return self.finish(Done { key, result: Err(error) }),
        };
        let service = self.service.clone();
        let work = async move {
            let outcome = service.pipeline.run(checked, permit, terms).await?;
            Ok(match outcome {
                Ok(embedded) => answer::embedded(embedded, encoding),
                Err(refused) => answer::refused(&refused, FIELD),
            })
        };
        // On a task of its own: the room that it takes is given back also while the client reads
        // no answers. It ends with the stream.
        let task = AbortOnDropHandle::new(tokio::spawn(work.instrument(self.span.clone())));
        let done = task
            .map(move |joined| Done { key, result: joined.unwrap_or(Err(CallError::Panicked)) });
        self.running.push(done.boxed());
        None
    }

    /// Answers an input that was worked on, or ends the stream if that is hopeless.
    fn finish(&mut self, Done { key, result }: Done) -> Option<proto::EmbedStreamResponse> {
        match result.map_err(judge) {
            Ok(result) => Some(self.respond(key, result)),
            Err(Verdict::Answer(status)) => Some(self.respond(key, answer::failed(&status))),
            Err(Verdict::End(status)) => {
                self.end(status);
                None
            }
        }
    }

    fn respond(&self, key: u64, result: proto::EmbedResult) -> proto::EmbedStreamResponse {
        let model_fingerprint = self.service.card.fingerprint.clone();
        proto::EmbedStreamResponse { key, result: Some(result), model_fingerprint }
    }

    /// Reads no further. The first reason is the one that is told.
    fn end(&mut self, status: Status) {
        self.waiting = None;
        match &mut self.phase {
            Phase::Ending(Some(_)) => {}
            phase @ (Phase::Reading | Phase::Ending(None)) => {
                *phase = Phase::Ending(Some(status));
            }
        }
    }
}

// === impl Phase ===

impl Phase {
    /// What is told at the very end, once.
    fn over(&mut self) -> Option<Status> {
        match self {
            Self::Reading => None,
            Self::Ending(status) => status.take(),
        }
    }
}

fn judge(error: CallError) -> Verdict {
    match error {
        CallError::Busy { .. }
        | CallError::NeverFits
        | CallError::Compute { .. }
        | CallError::Vector(_)
        | CallError::Tokens { .. }
        | CallError::Panicked => Verdict::Answer(error.into()),
        CallError::Expired | CallError::Stopped | CallError::Draining => Verdict::End(error.into()),
    }
}

/// The output of a future that may not be there.
async fn optional<F: Future + Unpin>(future: &mut Option<F>) -> Option<F::Output> {
    match future {
        Some(future) => Some(future.await),
        None => None,
    }
}

#[cfg(test)]
mod tests;
