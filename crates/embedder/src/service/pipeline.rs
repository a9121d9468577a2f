//! One input's way from its bytes to its vector.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clipmesh_proto::embedder::v1 as proto;
use clipmesh_proto::embedder::v1::embed_input::Content;
use tokio::time::Instant;

use crate::batcher::{Answer, Handle, Input, Permit};
use crate::error::CallError;
use crate::lane::Lane;
use crate::metrics;
use crate::model::Model;
use crate::preprocess::pool::{Pool, Timed};
use crate::preprocess::{Fault, Info, Picture, Preprocessor, Wanted};

/// What the service is made of.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) model: Arc<Model>,
    pub(crate) preprocessor: Arc<Preprocessor>,
    /// Decodes pictures.
    pub(crate) decoding: Pool,
    /// Splits texts.
    pub(crate) tokenizing: Pool,
    pub(crate) batcher: Handle,
}

/// What a call asks for, whatever its inputs are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) lane: Lane,
    /// When its caller will be gone.
    pub(super) deadline: Option<Instant>,
    /// What else is asked of pictures.
    pub(super) wanted: Wanted,
}

/// An input that passed the first check.
#[derive(Debug)]
pub(super) enum Checked {
    Image(Bytes),
    Text(String),
}

/// An input that is at fault.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) fault: Fault,
    /// Where in the input, as in `.image`; empty for the whole.
    pub(super) part: &'static str,
}

/// An input that is ready for the device.
#[derive(Debug)]
struct Prepared {
    input: Input,
    seen: Option<Seen>,
    permit: Permit,
}

/// What was learned of a picture on the way.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) info: Info,
    /// A JPEG, if one was wanted.
    pub(super) thumbnail: Option<Vec<u8>>,
}

/// A vector, and how it was come by.
#[derive(Debug)]
pub(super) struct Embedded {
    pub(super) answer: Answer,
    /// `None` for text.
    pub(super) seen: Option<Seen>,
    /// Waiting for a thread.
    pub(super) decode_wait: Duration,
    /// Decoding, or splitting into tokens.
    pub(super) decode: Duration,
}

// === impl Pipeline ===

impl Pipeline {
    /// Looks at an input from outside.
    pub(super) fn check(&self, input: proto::EmbedInput) -> Result<Checked, Refused> {
        match input.content {
            None => Err(Refused { fault: Fault::Missing, part: "" }),
            Some(Content::Image(bytes)) => match self.preprocessor.check_image(&bytes) {
                Ok(()) => Ok(Checked::Image(bytes)),
                Err(fault) => Err(Refused { fault, part: ".image" }),
            },
            Some(Content::Text(_)) if !self.model.takes_texts() => {
                Err(Refused { fault: Fault::PicturesOnly, part: ".text" })
            }
            Some(Content::Text(text)) => match self.preprocessor.check_text(&text) {
                Ok(()) => Ok(Checked::Text(text)),
                Err(fault) => Err(Refused { fault, part: ".text" }),
            },
        }
    }

    /// The bytes that an input holds from here on: as it came, and as the device takes it.
    pub(super) fn weigh(&self, input: &Checked) -> u64 {
        match input {
            Checked::Image(bytes) => {
                let side = self.model.image_size() as u64;
                bytes.len() as u64 + 3 * side.pow(2)
            }
            Checked::Text(text) => text.len() as u64,
        }
    }

    /// Prepares an input and embeds it. Dropping the future drops the input, wherever it is.
    ///
    /// # Errors
    /// Only what is not the input's fault.
    pub(super) async fn run(
        &self,
        checked: Checked,
        permit: Permit,
        terms: Terms,
    ) -> Result<Result<Embedded, Refused>, CallError> {
        let (kind, prepared) = match checked {
            Checked::Image(bytes) => {
                (metrics::Kind::Image, self.prepare_image(bytes, permit, terms).await?)
            }
            Checked::Text(text) => {
                (metrics::Kind::Text, self.prepare_text(text, permit, terms).await?)
            }
        };
        let Timed { value, waited: decode_wait, elapsed: decode } = prepared;
        metrics::preprocessed(kind, decode_wait, decode);
        let Prepared { input, seen, permit } = match value {
            Ok(prepared) => prepared,
            Err(refused) => return Ok(Err(refused)),
        };
        let answer = self.batcher.embed(input, terms.deadline, permit).await?;
        Ok(Ok(Embedded { answer, seen, decode_wait, decode }))
    }

    async fn prepare_image(
        &self,
        bytes: Bytes,
        permit: Permit,
        Terms { lane, wanted, .. }: Terms,
    ) -> Result<Timed<Result<Prepared, Refused>>, CallError> {
        let preprocessor = Arc::clone(&self.preprocessor);
        let refused = |fault| Refused { fault, part: ".image" };
        // The permit goes along: a caller that leaves gives back no room that its bytes still take.
        let task = move || {
            let picture = preprocessor.picture_with(&bytes, &wanted).map_err(refused)?;
            let Picture { levels, info, thumbnail } = picture;
            let seen = Some(Seen { info, thumbnail });
            Ok(Prepared { input: Input::Picture(levels), seen, permit })
        };
        match self.decoding.run(lane, task).await {
            // A decoder that gives up in this way does so because of the file.
            Err(CallError::Panicked) => {
                let message = "the decoder failed".to_owned();
                let fault = Fault::Corrupt { format: "image", message };
                let value = Err(refused(fault));
                Ok(Timed { value, waited: Duration::ZERO, elapsed: Duration::ZERO })
            }
            other => other,
        }
    }

    async fn prepare_text(
        &self,
        text: String,
        permit: Permit,
        Terms { lane, .. }: Terms,
    ) -> Result<Timed<Result<Prepared, Refused>>, CallError> {
        let model = Arc::clone(&self.model);
        let task = move || {
            let tokens = model.encode(&text);
            tokens.map(|tokens| Prepared { input: Input::Text(tokens), seen: None, permit })
        };
        let Timed { value, waited, elapsed } = self.tokenizing.run(lane, task).await?;
        let prepared = value.map_err(|error| CallError::Tokens { message: error.to_string() })?;
        Ok(Timed { value: Ok(prepared), waited, elapsed })
    }
}
