//! The gRPC adapter: from messages to inputs, and from answers to messages.
//!
//! ```text
//!   Embed ───────► check ─► admit ──────────┐
//!                  (all at once, or refused) ├─► pipeline ─► answer
//!   EmbedStream ─► check ─► wait for room ──┘
//! ```

mod answer;
mod pipeline;
mod stream;

use std::sync::Arc;

use clipmesh_mesh::{Shutdown, deadline};
use clipmesh_proto::code::{FieldViolation, Reason};
use clipmesh_proto::embedder::v1 as proto;
use clipmesh_proto::embedder::v1::embedder_service_server::EmbedderService;
use futures::StreamExt as _;
use futures::future::try_join_all;
use futures::stream::BoxStream;
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use self::answer::Encoding;
pub(crate) use self::pipeline::Pipeline;
use self::pipeline::{Checked, Refused, Terms};
use crate::batcher::Permit;
use crate::error::CallError;
use crate::lane::Lane;
use crate::preprocess::Wanted;

/// Serves `clipmesh.embedder.v1`.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) pipeline: Arc<Pipeline>,
    /// What `GetModel` answers; its limits hold for calls.
    pub(crate) card: Arc<proto::Model>,
    /// Ends the streams, which would otherwise outlast every drain.
    pub(crate) stop: Shutdown,
}

#[tonic::async_trait]
impl EmbedderService for Service {
    type EmbedStreamStream = BoxStream<'static, Result<proto::EmbedStreamResponse, Status>>;

    async fn embed(
        &self,
        request: Request<proto::EmbedRequest>,
    ) -> Result<Response<proto::EmbedResponse>, Status> {
        let proto::EmbedRequest { inputs, encoding, priority, image_facts } = request.into_inner();
        self.check_count(inputs.len())?;
        let terms = Terms {
            lane: read_lane(priority)?,
            deadline: deadline(),
            wanted: answer::read_wanted(image_facts)?,
        };
        let encoding = Encoding::read(encoding)?;
        let checked: Vec<_> = inputs.into_iter().map(|input| self.pipeline.check(input)).collect();
        let weights: Vec<u64> =
            checked.iter().flatten().map(|input| self.pipeline.weigh(input)).collect();
        let mut permits = self.pipeline.batcher.admit(terms.lane, &weights)?.into_iter();
        let results = checked.into_iter().enumerate().map(|(index, checked)| {
            let permit = checked.is_ok().then(|| permits.next()).flatten();
            self.result(index, checked, permit, terms, encoding)
        });
        let results = try_join_all(results).await?;
        let model_fingerprint = self.card.fingerprint.clone();
        Ok(Response::new(proto::EmbedResponse { results, model_fingerprint }))
    }

    async fn embed_stream(
        &self,
        request: Request<Streaming<proto::EmbedStreamRequest>>,
    ) -> Result<Response<Self::EmbedStreamStream>, Status> {
        let terms = Terms { lane: Lane::Bulk, deadline: deadline(), wanted: Wanted::default() };
        let answers = stream::answers(self.clone(), request.into_inner(), terms);
        Ok(Response::new(answers.boxed()))
    }

    async fn get_model(
        &self,
        _request: Request<proto::GetModelRequest>,
    ) -> Result<Response<proto::GetModelResponse>, Status> {
        let model = Some(proto::Model::clone(&self.card));
        Ok(Response::new(proto::GetModelResponse { model }))
    }
}

impl Service {
    fn check_count(&self, count: usize) -> Result<(), FieldViolation> {
        let max = self.limits().max_inputs;
        if count == 0 {
            return Err(FieldViolation::new("inputs", Reason::Missing, "holds no input"));
        }
        if count > max as usize {
            let message = format!("holds {count} inputs, at most {max} are accepted");
            return Err(FieldViolation::new("inputs", Reason::TooMany, message));
        }
        Ok(())
    }

    /// One input's way to its result. Only what is not the input's fault is an error.
    async fn result(
        &self,
        index: usize,
        checked: Result<Checked, Refused>,
        permit: Option<Permit>,
        terms: Terms,
        encoding: Encoding,
    ) -> Result<proto::EmbedResult, CallError> {
        let outcome = match (checked, permit) {
            (Ok(checked), Some(permit)) => self.pipeline.run(checked, permit, terms).await?,
            (Err(refused), _) => Err(refused),
            (Ok(_), None) => return Err(CallError::Stopped),
        };
        Ok(match outcome {
            Ok(embedded) => answer::embedded(embedded, encoding),
            Err(refused) => answer::refused(&refused, &format!("inputs[{index}]")),
        })
    }

    fn limits(&self) -> proto::Limits {
        self.card.limits.unwrap_or_default()
    }
}

fn read_lane(priority: i32) -> Result<Lane, FieldViolation> {
    match proto::Priority::try_from(priority) {
        Ok(proto::Priority::Unspecified | proto::Priority::Interactive) => Ok(Lane::Interactive),
        Ok(proto::Priority::Bulk) => Ok(Lane::Bulk),
        Err(_) => {
            let message = format!("{priority} is no priority");
            Err(FieldViolation::new("priority", Reason::OutOfRange, message))
        }
    }
}

/// When the caller's time is up. The queue is left behind by those whose time is, also where their
/// connection lives.
fn deadline() -> Option<Instant> {
    deadline::remaining().map(|left| Instant::now() + left)
}
