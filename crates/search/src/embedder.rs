//! Asks the embedder for vectors.
//!
//! What the embedder runs is asked once and remembered for a while, so that a request it would
//! refuse is refused here without sending megabytes. The fingerprint in each answer is what
//! counts: an embedder that was restarted with another model is noticed at its first answer.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use bytesize::ByteSize;
use clipmesh_mesh::client::{self, Channel};
use clipmesh_proto::code::{self, FieldViolation, Reason};
use clipmesh_proto::embedder::v1;
use clipmesh_proto::embedder::v1::embed_input::Content;
use clipmesh_proto::embedder::v1::embed_result::Outcome;
use clipmesh_proto::embedder::v1::embedder_service_client::EmbedderServiceClient;
use clipmesh_proto::ids::{Fingerprint, PerceptualHash, PixelHash};
use clipmesh_proto::{Embedding, embedding};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tonic::Code;

use crate::error::Error;
use crate::store::Collection;
use crate::thumbnail;

/// Settings of calls to the embedder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where it listens. Default: `http://127.0.0.1:8082`.
    pub url: String,
    /// How long to rely on what it said of its model and limits. A change is noticed sooner where
    /// a vector is made. Default: 30 s.
    #[serde(with = "humantime_serde")]
    pub model_refresh: Duration,
    /// How calls are made.
    pub client: client::Config,
}

/// A connection to the embedder.
#[derive(Debug)]
pub(crate) struct Embedder {
    client: EmbedderServiceClient<Channel>,
    model_refresh: Duration,
    known: Mutex<Option<Known>>,
}

#[derive(Clone, Debug)]
struct Known {
    model: Model,
    since: Instant,
}

/// What the embedder runs.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) name: String,
    pub(crate) fingerprint: Fingerprint,
    /// Length of every vector.
    pub(crate) dimension: usize,
    limits: v1::Limits,
}

/// What to make a vector of.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// The bytes of an image file.
    Image(Bytes),
    Text(String),
}

/// Who goes first at the embedder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    /// Someone waits for the answer.
    Interactive,
    /// A stream of items, of which only the whole counts.
    Bulk,
}

/// What is asked for, whatever the input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ask {
    pub(crate) lane: Lane,
    /// Whether to tell its hashes and make a small picture, too, while the large one is decoded.
    pub(crate) facts: bool,
}

/// A vector, and what was learned on the way.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Embedded {
    pub(crate) vector: Embedding,
    /// `None` for text.
    pub(crate) image: Option<ImageInfo>,
    /// A JPEG as large as ours are. `None` if it was not asked for, or comes from the cache, which
    /// keeps none.
    pub(crate) thumbnail: Option<Bytes>,
}

/// What the embedder saw of a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImageInfo {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) format: String,
    /// `None` if they were not asked for.
    pub(crate) hashes: Option<Hashes>,
}

/// By what a picture is known again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hashes {
    /// Of what it shows.
    pub(crate) pixel: PixelHash,
    /// Much the same for what looks alike.
    pub(crate) perceptual: PerceptualHash,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:8082".to_owned(),
            model_refresh: Duration::from_secs(30),
            client: client::Config::default(),
        }
    }
}

// === impl Embedder ===

impl Embedder {
    /// Prepares calls; connects at the first.
    ///
    /// # Errors
    /// An address that is none.
    pub(crate) fn new(config: &Config) -> Result<Self, clipmesh_mesh::Error> {
        let channel = client::channel(&config.url, &config.client)?;
        let max_message = config.client.max_message_len();
        let client = EmbedderServiceClient::new(channel)
            .max_decoding_message_size(max_message)
            .max_encoding_message_size(max_message);
        Ok(Self { client, model_refresh: config.model_refresh, known: Mutex::new(None) })
    }

    /// Asks what the embedder runs now.
    pub(crate) async fn model(&self) -> Result<Model, Error> {
        let answer = self.client.clone().get_model(v1::GetModelRequest {}).await;
        let model = match answer {
            Ok(response) => response.into_inner().model,
            Err(status) => return Err(self.failed(&status)),
        };
        let model = model.and_then(Model::read).ok_or_else(|| {
            Error::Internal("the embedder describes a model without fingerprint".to_owned())
        })?;
        *self.known() = Some(Known { model: model.clone(), since: Instant::now() });
        Ok(model)
    }

    /// Makes a vector for a collection. A fault of the input names the field as the embedder knows
    /// it; the caller has another name for it.
    pub(crate) async fn embed(
        &self,
        input: Input,
        ask: Ask,
        collection: &Collection,
    ) -> Result<Embedded, Error> {
        let mut model = self.recent_model().await?;
        if model.fingerprint != collection.fingerprint {
            // It may have been restarted with the right one.
            model = self.model().await?;
            check_model(collection, &model.fingerprint)?;
        }
        model.check(&input)?;
        let request = v1::EmbedRequest {
            inputs: vec![v1::EmbedInput { content: Some(input.into()) }],
            encoding: v1::VectorEncoding::RawF32.into(),
            priority: v1::Priority::from(ask.lane).into(),
            image_facts: ask
                .facts
                .then_some(v1::ImageFacts { hashes: true, thumbnail_side: thumbnail::MAX_SIDE }),
        };
        let response = match self.client.clone().embed(request).await {
            Ok(response) => response.into_inner(),
            Err(status) => return Err(self.failed(&status)),
        };
        let fingerprint = Fingerprint::try_from(response.model_fingerprint)
            .map_err(|_| Error::Internal("the embedder named no model".to_owned()))?;
        if fingerprint != model.fingerprint {
            self.forget();
        }
        check_model(collection, &fingerprint)?;
        let outcome = response.results.into_iter().next().and_then(|result| result.outcome);
        read_outcome(outcome, collection)
    }

    async fn recent_model(&self) -> Result<Model, Error> {
        let known = self.known().clone();
        match known {
            Some(known) if known.since.elapsed() < self.model_refresh => Ok(known.model),
            Some(_) | None => self.model().await,
        }
    }

    /// After a fault of the connection another embedder may answer next.
    fn failed(&self, status: &tonic::Status) -> Error {
        if status.code() == Code::Unavailable {
            self.forget();
        }
        Error::from_embedder(status)
    }

    fn forget(&self) {
        *self.known() = None;
    }

    fn known(&self) -> MutexGuard<'_, Option<Known>> {
        // The value is whole after every statement, so a panic elsewhere leaves it usable.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Model ===

impl Model {
    fn read(model: v1::Model) -> Option<Self> {
        let dimension = usize::try_from(model.dimension).ok().filter(|dimension| *dimension > 0)?;
        Some(Self {
            name: model.name,
            fingerprint: Fingerprint::try_from(model.fingerprint).ok()?,
            dimension,
            limits: model.limits.unwrap_or_default(),
        })
    }

    /// Refuses what the embedder would refuse by its length. A limit of zero is one that it did
    /// not tell.
    fn check(&self, input: &Input) -> Result<(), FieldViolation> {
        match input {
            Input::Image(bytes) => {
                let max = self.limits.max_image_bytes;
                check_image_bytes(bytes, if max == 0 { u64::MAX } else { max })
            }
            Input::Text(text) => {
                let max = self.limits.max_text_bytes;
                if max > 0 && text.len() as u64 > max {
                    let message = format!("must be at most {max} bytes long, not {}", text.len());
                    return Err(FieldViolation::new("text", Reason::TextTooLong, message));
                }
                Ok(())
            }
        }
    }
}

// === impl Input ===

impl From<Input> for Content {
    fn from(input: Input) -> Self {
        match input {
            Input::Image(bytes) => Self::Image(bytes),
            Input::Text(text) => Self::Text(text),
        }
    }
}

// === impl Lane ===

impl From<Lane> for v1::Priority {
    fn from(lane: Lane) -> Self {
        match lane {
            Lane::Interactive => Self::Interactive,
            Lane::Bulk => Self::Bulk,
        }
    }
}

// === impl Embedded ===

impl Embedded {
    /// Whether it tells all that was asked for, but for the thumbnail, which is made in another way
    /// where it is missing.
    pub(crate) fn answers(&self, ask: Ask) -> bool {
        let has_hashes = self.image.as_ref().is_some_and(|image| image.hashes.is_some());
        has_hashes || !ask.facts
    }
}

impl TryFrom<v1::Embedding> for Embedded {
    type Error = embedding::Error;

    /// Reads a vector in either of the forms that are exact.
    fn try_from(embedding: v1::Embedding) -> Result<Self, embedding::Error> {
        let mut thumbnail = None;
        let image = embedding.image.map(|image| {
            thumbnail = Some(image.thumbnail).filter(|thumbnail| !thumbnail.is_empty());
            let pixel = image.pixel_hash.parse().ok();
            let perceptual = image.perceptual_hash.into();
            let hashes = pixel.map(|pixel| Hashes { pixel, perceptual });
            ImageInfo { width: image.width, height: image.height, format: image.format, hashes }
        });
        // Half a float at the end is none, and the vector too short then.
        let raw = embedding.raw.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes));
        let values = if embedding.raw.is_empty() { embedding.values } else { raw.collect() };
        Ok(Self { vector: Embedding::new(values)?, image, thumbnail })
    }
}

impl From<Embedded> for v1::Embedding {
    /// Without the thumbnail: it is stored with its item, and would push vectors out of the cache.
    fn from(embedded: Embedded) -> Self {
        let image = embedded.image.map(|image| {
            let pixel = image.hashes.map(|hashes| hashes.pixel.to_string());
            v1::ImageInfo {
                width: image.width,
                height: image.height,
                format: image.format,
                pixel_hash: pixel.unwrap_or_default(),
                perceptual_hash: image.hashes.map_or(0, |hashes| hashes.perceptual.into()),
                ..v1::ImageInfo::default()
            }
        });
        Self { values: embedded.vector.into_values(), image, ..Self::default() }
    }
}

/// Refuses an image file that is empty or longer than `max` bytes.
pub(crate) fn check_image_bytes(bytes: &Bytes, max: u64) -> Result<(), FieldViolation> {
    if bytes.is_empty() {
        return Err(FieldViolation::new("image", Reason::Empty, "must not be empty"));
    }
    let actual = bytes.len() as u64;
    if actual > max {
        let (max, actual) = (ByteSize(max), ByteSize(actual));
        let message = format!("must be at most {max} long, not {actual}");
        return Err(FieldViolation::new("image", Reason::TooManyBytes, message));
    }
    Ok(())
}

/// Refuses what another model made than the collection's.
pub(crate) fn check_model(collection: &Collection, actual: &Fingerprint) -> Result<(), Error> {
    if *actual == collection.fingerprint {
        return Ok(());
    }
    Err(Error::ModelMismatch {
        collection: collection.name.clone(),
        expected: collection.fingerprint.clone(),
        actual: actual.clone(),
    })
}

fn read_outcome(outcome: Option<Outcome>, collection: &Collection) -> Result<Embedded, Error> {
    let embedding = match outcome {
        Some(Outcome::Embedding(embedding)) => embedding,
        Some(Outcome::Error(status)) => {
            let status = code::from_rpc(&status);
            return Err(match FieldViolation::from_status(&status) {
                Some(violation) => Error::Invalid(violation),
                None => Error::from_embedder(&status),
            });
        }
        None => return Err(Error::Internal("the embedder answered without a result".to_owned())),
    };
    let embedded = Embedded::try_from(embedding)
        .map_err(|error| Error::Internal(format!("the embedder's answer: {error}")))?;
    if embedded.vector.dimension() != collection.dimension {
        let (actual, expected) = (embedded.vector.dimension(), collection.dimension);
        let message = format!("the embedder's vector has {actual} values, not {expected}");
        return Err(Error::Internal(message));
    }
    Ok(embedded)
}
