//! An embedder whose vectors can be computed by hand: the average colour of a picture, or of what
//! a colour's name means. It does what the contract says, and can be told to misbehave.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use clipmesh_mesh::{Shutdown, server};
use clipmesh_proto::Embedding;
use clipmesh_proto::code::{self, FieldViolation, Reason};
use clipmesh_proto::embedder::v1;
use clipmesh_proto::embedder::v1::embed_input::Content;
use clipmesh_proto::embedder::v1::embed_result::Outcome;
use clipmesh_proto::embedder::v1::embedder_service_server::{
    EmbedderService, EmbedderServiceServer,
};
use clipmesh_proto::ids::PixelHash;
use futures::stream::BoxStream;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tonic::{Request, Response, Status, Streaming};

/// Length of its vectors.
pub(crate) const DIMENSION: usize = 4;
/// Longest text it takes.
pub(crate) const MAX_TEXT_BYTES: u64 = 1_000;

/// What a test sees and sets of a running embedder.
#[derive(Clone)]
pub(crate) struct Embedder {
    state: Arc<State>,
    pub(crate) url: String,
}

/// A running embedder, to be stopped.
pub(crate) struct Running {
    shutdown: Shutdown,
    task: JoinHandle<Result<(), clipmesh_mesh::Error>>,
}

struct State {
    fingerprint: Mutex<String>,
    is_busy: Mutex<bool>,
    /// Inputs that were taken on.
    calls: AtomicUsize,
    /// What it makes of a picture when it is asked for a thumbnail.
    thumbnail: Mutex<Bytes>,
    /// The priorities of the calls, in their order.
    priorities: Mutex<Vec<v1::Priority>>,
    /// Calls that ended before they were answered.
    abandoned: AtomicUsize,
    /// What each call needs to go on.
    gate: Semaphore,
}

impl Embedder {
    pub(crate) async fn start() -> (Self, Running) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let state = Arc::new(State {
            fingerprint: Mutex::new("a".repeat(64)),
            is_busy: Mutex::new(false),
            calls: AtomicUsize::new(0),
            thumbnail: Mutex::default(),
            priorities: Mutex::default(),
            abandoned: AtomicUsize::new(0),
            gate: Semaphore::new(Semaphore::MAX_PERMITS >> 1),
        });
        let embedder = Self { state, url };
        let shutdown = Shutdown::new();
        let service =
            EmbedderServiceServer::new(embedder.clone()).max_decoding_message_size(32 << 20);
        let server = server::Server::new(&server::Config::default()).service(service);
        let task = tokio::spawn(server.serve(listener, shutdown.clone()));
        (embedder, Running { shutdown, task })
    }

    /// Becomes another model.
    pub(crate) fn become_model(&self, digit: &str) {
        *self.state.fingerprint.lock().expect("no panic") = digit.repeat(64);
    }

    /// Turns all calls away.
    pub(crate) fn be_busy(&self) {
        *self.state.is_busy.lock().expect("no panic") = true;
    }

    /// How many inputs it was given.
    pub(crate) fn calls(&self) -> usize {
        self.state.calls.load(Ordering::SeqCst)
    }

    /// Makes this of every picture of which a thumbnail is wanted; at first it makes none.
    pub(crate) fn make_thumbnails(&self, thumbnail: &'static [u8]) {
        *self.state.thumbnail.lock().expect("no panic") = Bytes::from_static(thumbnail);
    }

    /// Who was to go first in the calls since this was last asked.
    pub(crate) fn take_priorities(&self) -> Vec<v1::Priority> {
        std::mem::take(&mut self.state.priorities.lock().expect("no panic"))
    }

    /// How many calls were given up by their callers.
    pub(crate) fn abandoned(&self) -> usize {
        self.state.abandoned.load(Ordering::SeqCst)
    }

    /// Holds every call until it is let through.
    pub(crate) fn hold(&self) {
        let open = self.state.gate.available_permits();
        self.state.gate.forget_permits(open);
    }

    /// Lets all calls through again.
    pub(crate) fn let_through(&self) {
        self.state.gate.add_permits(Semaphore::MAX_PERMITS >> 1);
    }
}

impl Running {
    /// Stops it as an operator would.
    pub(crate) async fn stop(self) {
        self.shutdown.trigger();
        self.task.await.expect("no panic").expect("a clean end");
    }
}

/// Counts a call that is dropped half way.
struct Watch<'a> {
    state: &'a State,
    is_answered: bool,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.state.abandoned.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[tonic::async_trait]
impl EmbedderService for Embedder {
    type EmbedStreamStream = BoxStream<'static, Result<v1::EmbedStreamResponse, Status>>;

    async fn embed(
        &self,
        request: Request<v1::EmbedRequest>,
    ) -> Result<Response<v1::EmbedResponse>, Status> {
        if *self.state.is_busy.lock().expect("no panic") {
            return Err(code::busy("the queue is full", Duration::from_millis(1_500)));
        }
        let request = request.into_inner();
        self.state.priorities.lock().expect("no panic").push(request.priority());
        let encoding = request.encoding();
        let facts = request.image_facts.unwrap_or_default();
        let side = facts.thumbnail_side;
        let thumbnail = self.state.thumbnail.lock().expect("no panic").clone();
        let thumbnail = if side > 0 { thumbnail } else { Bytes::new() };
        let inputs = request.inputs;
        self.state.calls.fetch_add(inputs.len(), Ordering::SeqCst);
        let mut watch = Watch { state: &self.state, is_answered: false };
        self.state.gate.acquire().await.expect("never closed").forget();
        watch.is_answered = true;
        let results = inputs.into_iter().enumerate().map(|(i, input)| {
            let mut result = embed(i, input, encoding);
            if let Some(Outcome::Embedding(v1::Embedding { image: Some(image), .. })) =
                &mut result.outcome
            {
                image.thumbnail = thumbnail.clone();
                if !facts.hashes {
                    (image.pixel_hash, image.perceptual_hash) = Default::default();
                }
            }
            result
        });
        let results = results.collect();
        let model_fingerprint = self.state.fingerprint.lock().expect("no panic").clone();
        Ok(Response::new(v1::EmbedResponse { results, model_fingerprint }))
    }

    async fn embed_stream(
        &self,
        _: Request<Streaming<v1::EmbedStreamRequest>>,
    ) -> Result<Response<Self::EmbedStreamStream>, Status> {
        Err(Status::unimplemented("the search service asks for one input at a time"))
    }

    async fn get_model(
        &self,
        _: Request<v1::GetModelRequest>,
    ) -> Result<Response<v1::GetModelResponse>, Status> {
        let model = v1::Model {
            name: "colours".to_owned(),
            fingerprint: self.state.fingerprint.lock().expect("no panic").clone(),
            dimension: DIMENSION as u32,
            limits: Some(v1::Limits {
                max_inputs: 8,
                max_image_bytes: 1 << 20,
                max_image_pixels: 1 << 20,
                max_text_bytes: MAX_TEXT_BYTES,
                ..v1::Limits::default()
            }),
            ..v1::Model::default()
        };
        Ok(Response::new(v1::GetModelResponse { model: Some(model) }))
    }
}

fn embed(i: usize, input: v1::EmbedInput, encoding: v1::VectorEncoding) -> v1::EmbedResult {
    let outcome = match input.content {
        Some(Content::Image(bytes)) => average(&bytes).map_err(|_| {
            FieldViolation::new(format!("inputs[{i}].image"), Reason::NotAnImage, "is no image")
        }),
        Some(Content::Text(text)) => Ok((colour_of(&text), None)),
        None => Err(FieldViolation::new(format!("inputs[{i}]"), Reason::Missing, "must be set")),
    };
    let outcome = match outcome {
        Ok((values, image)) => {
            let values = Embedding::new(values.to_vec()).expect("a direction").into_values();
            Outcome::Embedding(match encoding {
                v1::VectorEncoding::Unspecified => {
                    v1::Embedding { values, image, ..v1::Embedding::default() }
                }
                v1::VectorEncoding::RawF32 => {
                    let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                    v1::Embedding { raw, image, ..v1::Embedding::default() }
                }
                v1::VectorEncoding::RawF16 => panic!("the search service wants exact vectors"),
            })
        }
        Err(violation) => Outcome::Error(code::to_rpc(&violation.into_status())),
    };
    v1::EmbedResult { outcome: Some(outcome), timing: None }
}

fn average(bytes: &[u8]) -> image::ImageResult<([f32; DIMENSION], Option<v1::ImageInfo>)> {
    let format = image::guess_format(bytes)?;
    let picture = image::load_from_memory(bytes)?.to_rgb8();
    let mut sum = [0.0; 3];
    for pixel in picture.pixels() {
        for (total, level) in sum.iter_mut().zip(pixel.0) {
            *total += f32::from(level) / 255.0;
        }
    }
    let pixels = (picture.width() * picture.height()) as f32;
    let [red, green, blue] = sum.map(|total| total / pixels);
    let format = format.extensions_str()[0].replace("jpg", "jpeg");
    let (width, height) = picture.dimensions();
    let info = v1::ImageInfo {
        width,
        height,
        format,
        pixel_hash: PixelHash::of(width, height, picture.as_raw()).to_string(),
        perceptual_hash: perceptual_hash(&picture),
        ..v1::ImageInfo::default()
    };
    Ok(([red, green, blue, 0.1], Some(info)))
}

/// A bit for each of 64 places, set where it is light.
fn perceptual_hash(picture: &image::RgbImage) -> u64 {
    let is_light = |i: u32| {
        let (x, y) = (picture.width() * (i % 8) / 8, picture.height() * (i / 8) / 8);
        picture.get_pixel(x, y).0.iter().map(|level| u32::from(*level)).sum::<u32>() > 384
    };
    (0..64).fold(0, |hash, i| hash << 1 | u64::from(is_light(i)))
}

fn colour_of(text: &str) -> [f32; DIMENSION] {
    let has = |colour| if text.contains(colour) { 1.0 } else { 0.0 };
    [has("red"), has("green"), has("blue"), 0.1]
}
