//! What can go wrong, by what is to be done about it.

use std::time::Duration;

use clipmesh_proto::code;
use clipmesh_proto::embedding;
use tonic::Status;

use crate::{backend, model};

/// How long to stay away from an embedder whose device is gone: a restart takes about that long.
const RESTART_TIME: Duration = Duration::from_secs(5);

/// Why an embedder can't start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Model(#[from] model::Error),
    #[error(transparent)]
    Backend(#[from] backend::Error),
    #[error("the model does not answer a first picture and text: {0}")]
    WarmUp(CallError),
    #[error(transparent)]
    Server(#[from] clipmesh_mesh::Error),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    DeviceGone(String),
    #[error("the device did not finish its last batch in time")]
    DeviceStuck,
}

// === impl Error ===

impl Error {
    /// Whether a model of the Hugging Face hub can't be had, so that another one may do.
    pub fn is_of_hub(&self) -> bool {
        matches!(self, Self::Model(model::Error::Hub(_)))
    }
}

/// Why a call as a whole failed, through no fault of its inputs.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CallError {
    #[error("too much work is waiting")]
    Busy { retry_after: Duration },
    #[error("the call holds more bytes at a time than this server takes from all callers")]
    NeverFits,
    #[error("the deadline passed before the device was free")]
    Expired,
    #[error("the model is not running")]
    Stopped,
    #[error("the server is stopping; send again what was not answered")]
    Draining,
    #[error("the forward pass failed: {message}")]
    Compute { message: String },
    #[error("the model gave no usable vector: {0}")]
    Vector(#[from] embedding::Error),
    #[error("the text can't be split into tokens: {message}")]
    Tokens { message: String },
    #[error("preprocessing panicked")]
    Panicked,
}

impl From<CallError> for Status {
    fn from(error: CallError) -> Self {
        let text = error.to_string();
        match error {
            CallError::Busy { retry_after } => code::busy(text, retry_after),
            CallError::NeverFits => Self::resource_exhausted(text),
            CallError::Expired => Self::deadline_exceeded(text),
            CallError::Stopped | CallError::Draining => code::unavailable(text, RESTART_TIME),
            // What happened inside is for the log, not for the caller.
            CallError::Compute { .. }
            | CallError::Vector(_)
            | CallError::Tokens { .. }
            | CallError::Panicked => {
                tracing::error!(%error, "a call failed");
                Self::internal("the model failed on this call")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn callers_learn_what_they_can_act_on() {
        let busy = Status::from(CallError::Busy { retry_after: Duration::from_millis(300) });
        assert_eq!(busy.code(), Code::ResourceExhausted, "come back later");
        assert_eq!(code::retry_after(&busy), Some(Duration::from_millis(300)), "and when");
        let stopped = Status::from(CallError::Stopped);
        assert_eq!(stopped.code(), Code::Unavailable, "another replica may do it");
        let broken = Status::from(CallError::Compute { message: "secret".to_owned() });
        assert_eq!(broken.code(), Code::Internal, "a bug");
        assert!(!broken.message().contains("secret"), "the cause stays here");
    }
}
