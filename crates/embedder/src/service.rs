//! The gRPC adapter: from messages to inputs, and from answers to messages.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clipmesh_mesh::deadline;
use clipmesh_proto::code::{self, FieldViolation, Reason};
use clipmesh_proto::embedder::v1 as proto;
use clipmesh_proto::embedder::v1::embed_input::Content;
use clipmesh_proto::embedder::v1::embed_result::Outcome;
use clipmesh_proto::embedder::v1::embedder_service_server::EmbedderService;
use futures::future::try_join_all;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::batcher::{Answer, Handle, Input, Permit};
use crate::error::CallError;
use crate::lane::Lane;
use crate::metrics;
use crate::model::Model;
use crate::preprocess::pool::{Pool, Timed};
use crate::preprocess::{Fault, Info, Preprocessor};

/// Serves `clipmesh.embedder.v1`.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) model: Arc<Model>,
    pub(crate) preprocessor: Arc<Preprocessor>,
    /// Decodes pictures.
    pub(crate) decoding: Pool,
    /// Splits texts.
    pub(crate) tokenizing: Pool,
    pub(crate) batcher: Handle,
    /// What `GetModel` answers; its limits hold for calls.
    pub(crate) card: Arc<proto::Model>,
}

/// An input that passed the first check.
#[derive(Debug)]
enum Checked {
    Image(Bytes),
    Text(String),
}

/// An input that is ready for the device.
#[derive(Debug)]
struct Prepared {
    input: Input,
    info: Option<Info>,
    elapsed: Duration,
    permit: Permit,
}

#[tonic::async_trait]
impl EmbedderService for Service {
    async fn embed(
        &self,
        request: Request<proto::EmbedRequest>,
    ) -> Result<Response<proto::EmbedResponse>, Status> {
        // The queue is left behind by callers whose time is up, also where their connection lives.
        let deadline = deadline::remaining().map(|left| Instant::now() + left);
        let inputs = request.into_inner().inputs;
        self.check_count(inputs.len())?;
        let checked: Vec<_> = inputs.into_iter().map(|input| self.check(input)).collect();
        let weights: Vec<u64> = checked.iter().flatten().map(|input| self.weigh(input)).collect();
        let mut permits = self.batcher.admit(Lane::Interactive, &weights)?.into_iter();
        let results = checked.into_iter().enumerate().map(|(index, checked)| {
            let permit = checked.is_ok().then(|| permits.next()).flatten();
            self.result(index, checked, permit, deadline)
        });
        let results = try_join_all(results).await?;
        let model_fingerprint = self.card.fingerprint.clone();
        Ok(Response::new(proto::EmbedResponse { results, model_fingerprint }))
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
        let max = self.card.limits.as_ref().map_or(0, |limits| limits.max_inputs);
        if count == 0 {
            return Err(FieldViolation::new("inputs", Reason::Missing, "holds no input"));
        }
        if count > max as usize {
            let message = format!("holds {count} inputs, at most {max} are accepted");
            return Err(FieldViolation::new("inputs", Reason::TooMany, message));
        }
        Ok(())
    }

    /// Looks at an input from outside. The fault comes with the name of its field.
    fn check(&self, input: proto::EmbedInput) -> Result<Checked, (Fault, &'static str)> {
        match input.content {
            None => Err((Fault::Missing, "")),
            Some(Content::Image(bytes)) => match self.preprocessor.check_image(&bytes) {
                Ok(()) => Ok(Checked::Image(bytes)),
                Err(fault) => Err((fault, ".image")),
            },
            Some(Content::Text(_)) if !self.model.takes_texts() => {
                Err((Fault::PicturesOnly, ".text"))
            }
            Some(Content::Text(text)) => match self.preprocessor.check_text(&text) {
                Ok(()) => Ok(Checked::Text(text)),
                Err(fault) => Err((fault, ".text")),
            },
        }
    }

    /// The bytes that an input holds from here on: as it came, and as the device takes it.
    fn weigh(&self, input: &Checked) -> u64 {
        match input {
            Checked::Image(bytes) => {
                bytes.len() as u64 + 3 * u64::from(self.card.image_size).pow(2)
            }
            Checked::Text(text) => text.len() as u64,
        }
    }

    /// One input's way to its result. Only what is not the input's fault is an error.
    async fn result(
        &self,
        index: usize,
        checked: Result<Checked, (Fault, &'static str)>,
        permit: Option<Permit>,
        deadline: Option<Instant>,
    ) -> Result<proto::EmbedResult, CallError> {
        let prepared = match (checked, permit) {
            (Ok(checked), Some(permit)) => self.prepare(checked, permit).await?,
            (Err(fault), _) => Err(fault),
            (Ok(_), None) => return Err(CallError::Stopped),
        };
        match prepared {
            Ok(Prepared { input, info, elapsed, permit }) => {
                let answer = self.batcher.embed(input, deadline, permit).await?;
                Ok(embedded(answer, info, elapsed))
            }
            Err((fault, field)) => Ok(refused(&fault, format!("inputs[{index}]{field}"))),
        }
    }

    async fn prepare(
        &self,
        checked: Checked,
        permit: Permit,
    ) -> Result<Result<Prepared, (Fault, &'static str)>, CallError> {
        match checked {
            Checked::Image(bytes) => self.prepare_image(bytes, permit).await,
            Checked::Text(text) => self.prepare_text(text, permit).await.map(Ok),
        }
    }

    async fn prepare_image(
        &self,
        bytes: Bytes,
        permit: Permit,
    ) -> Result<Result<Prepared, (Fault, &'static str)>, CallError> {
        let preprocessor = Arc::clone(&self.preprocessor);
        // The permit goes along: a caller that leaves gives back no room that its bytes still take.
        let task = move || preprocessor.picture(&bytes).map(|picture| (picture, permit));
        let picture = match self.decoding.run(Lane::Interactive, task).await {
            Ok(Timed { value, elapsed, .. }) => {
                metrics::preprocessed(metrics::Kind::Image, elapsed);
                value.map(|(picture, permit)| (picture, permit, elapsed))
            }
            // A decoder that gives up in this way does so because of the file.
            Err(CallError::Panicked) => {
                Err(Fault::Corrupt { format: "image", message: "the decoder failed".to_owned() })
            }
            Err(error) => return Err(error),
        };
        Ok(picture.map_err(|fault| (fault, ".image")).map(|(picture, permit, elapsed)| Prepared {
            input: Input::Picture(picture.levels),
            info: Some(picture.info),
            elapsed,
            permit,
        }))
    }

    async fn prepare_text(&self, text: String, permit: Permit) -> Result<Prepared, CallError> {
        let model = Arc::clone(&self.model);
        let task = move || (model.encode(&text), permit);
        let ran = self.tokenizing.run(Lane::Interactive, task).await?;
        let Timed { value: (tokens, permit), elapsed, .. } = ran;
        metrics::preprocessed(metrics::Kind::Text, elapsed);
        let tokens = tokens.map_err(|error| CallError::Tokens { message: error.to_string() })?;
        Ok(Prepared { input: Input::Text(tokens), info: None, elapsed, permit })
    }
}

fn embedded(answer: Answer, info: Option<Info>, decode: Duration) -> proto::EmbedResult {
    let image = info.map(|info| proto::ImageInfo {
        width: info.width,
        height: info.height,
        format: info.format.to_owned(),
    });
    let millis = |duration: Duration| duration.as_secs_f64() * 1e3;
    let values = answer.vector.into_values();
    proto::EmbedResult {
        outcome: Some(Outcome::Embedding(proto::Embedding { values, image })),
        timing: Some(proto::EmbedTiming {
            decode_ms: millis(decode),
            queue_ms: millis(answer.queued),
            compute_ms: millis(answer.computed),
            batch_size: u32::try_from(answer.batch_size).unwrap_or(u32::MAX),
        }),
    }
}

fn refused(fault: &Fault, field: String) -> proto::EmbedResult {
    metrics::fault(fault.reason().as_str());
    let violation = FieldViolation::new(field, fault.reason(), fault.to_string());
    let error = code::to_rpc(&violation.into_status());
    proto::EmbedResult { outcome: Some(Outcome::Error(error)), timing: None }
}
