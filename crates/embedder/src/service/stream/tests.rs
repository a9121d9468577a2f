//! A stream before a device that the test holds in its hand.

use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use clipmesh_mesh::Shutdown;
use clipmesh_proto::embedder::v1::embed_input::Content;
use clipmesh_proto::embedder::v1::embed_result::Outcome;
use futures::stream::BoxStream;
use image::{GrayImage, ImageFormat, Luma};
use tokio::time::Instant;
use tonic::Code;

use super::*;
use crate::backend::fake::{Fake, Gate};
use crate::backend::thread::Thread;
use crate::batcher::{self, Bounds, Devices};
use crate::canary::{Probes, Trained};
use crate::config::{CanaryConfig, Limits};
use crate::lane::Lane;
use crate::model::random::{self, Architecture};
use crate::model::{Dtype, Model};
use crate::preprocess::pool::Pool;
use crate::preprocess::{Preprocessor, Wanted};
use crate::service::Pipeline;

const WINDOW: u32 = 3;
const BOUNDS: Bounds = Bounds { max_inputs: 64, max_bytes: 1 << 20 };
/// Batches of a device without padding.
const MAX_BATCH: usize = 2;
/// Inputs of the warm-up: one picture, one text.
const WARM_UP: usize = 2;

type Answers = BoxStream<'static, Result<proto::EmbedStreamResponse, Status>>;

struct Fixture {
    service: Service,
    devices: Devices,
    /// How many requests were read.
    read: Arc<AtomicUsize>,
}

impl Fixture {
    async fn new(fake: Fake, bounds: Bounds) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        random::write(folder.path(), &Architecture::Tiny.config(), 1, Dtype::F32).expect("a model");
        let model = Model::open(folder.path()).expect("the model");
        let thread = Thread::start(|| Ok(Box::new(fake))).await.expect("a fake loads");
        let text = model.encode("a canary").expect("a text");
        let probes = Probes { picture: vec![1], text: Some(text) };
        let device = Trained::warm_up(thread, &probes, MAX_BATCH).await.expect("it warms up");
        let devices = batcher::start(vec![device], bounds, &CanaryConfig::default());
        let preprocessor = Preprocessor::new(model.preprocessing.clone(), Limits::default());
        let pipeline = Pipeline {
            model: Arc::new(model),
            preprocessor: Arc::new(preprocessor),
            decoding: Pool::new("decode", 1).expect("a thread"),
            tokenizing: Pool::new("tokenize", 1).expect("a thread"),
            batcher: devices.handle(),
        };
        let limits = proto::Limits { stream_window: WINDOW, ..proto::Limits::default() };
        let card = proto::Model { limits: Some(limits), ..proto::Model::default() };
        let service =
            Service { pipeline: Arc::new(pipeline), card: Arc::new(card), stop: Shutdown::new() };
        Self { service, devices, read: Arc::default() }
    }

    async fn gated(bounds: Bounds) -> (Self, Gate) {
        let (fake, gate) = Fake::gated(4);
        for _ in 0..WARM_UP {
            gate.open.send(()).expect("the device waits");
        }
        let fixture = Self::new(fake, bounds).await;
        assert_eq!(gate.started.try_iter().count(), WARM_UP, "it is warm");
        (fixture, gate)
    }

    /// The answers to `count` texts, after which the client sends no more and does not end.
    fn answers(&self, count: u64, deadline: Option<Instant>) -> Answers {
        let text = |_| Content::Text("a cat".to_owned());
        self.answers_to((0..count).map(text).collect(), deadline)
    }

    fn answers_to(&self, contents: Vec<Content>, deadline: Option<Instant>) -> Answers {
        let read = Arc::clone(&self.read);
        let requests = stream::iter((0..).zip(contents)).map(move |(key, content)| {
            read.fetch_add(1, Ordering::SeqCst);
            let input = proto::EmbedInput { content: Some(content) };
            Ok(proto::EmbedStreamRequest { key, input: Some(input), ..Default::default() })
        });
        let requests = requests.chain(stream::pending()).boxed();
        let terms = Terms { lane: Lane::Bulk, deadline, wanted: Wanted::default() };
        answers(self.service.clone(), requests, terms).boxed()
    }

    fn read(&self) -> usize {
        self.read.load(Ordering::SeqCst)
    }
}

/// Runs the stream until it has nothing to do but to wait, and shows that it has no answer.
async fn run_dry(answers: &mut Answers) {
    for _ in 0..1_000 {
        let polled = futures::poll!(answers.next());
        assert!(polled.is_pending(), "the device has answered nothing: {polled:?}");
        tokio::task::yield_now().await;
    }
}

async fn is_idle(fixture: &Fixture) {
    while !fixture.service.pipeline.batcher.is_idle() {
        tokio::task::yield_now().await;
    }
}

/// A picture of one level of grey, which is its first as the device gets it.
fn picture(level: u8) -> Content {
    let mut file = Cursor::new(Vec::new());
    let picture = GrayImage::from_pixel(8, 8, Luma([level]));
    picture.write_to(&mut file, ImageFormat::Png).expect("a PNG");
    Content::Image(file.into_inner().into())
}

#[tokio::test]
async fn no_more_is_read_than_the_window_holds() {
    let (fixture, gate) = Fixture::gated(BOUNDS).await;
    let mut answers = fixture.answers(20, None);
    run_dry(&mut answers).await;
    assert_eq!(fixture.read(), WINDOW as usize, "a full window");
    for _ in 0..20 {
        gate.open.send(()).expect("the device waits");
    }
    for _ in 0..20 {
        answers.next().await.expect("no end").expect("no error");
    }
    assert_eq!(fixture.read(), 20, "all, as room came free");
}

#[tokio::test]
async fn what_waits_for_room_is_one_input() {
    // Three quarters of which are for bulk: room for one text of five bytes.
    let (fixture, _gate) = Fixture::gated(Bounds { max_bytes: 8, ..BOUNDS }).await;
    let mut answers = fixture.answers(20, None);
    run_dry(&mut answers).await;
    assert_eq!(fixture.read(), 2, "one in hand, and one that waits");
}

#[tokio::test]
async fn work_goes_with_the_client() {
    let (fixture, gate) = Fixture::gated(BOUNDS).await;
    let mut answers = fixture.answers(20, None);
    run_dry(&mut answers).await;
    while gate.started.try_recv().is_err() {
        run_dry(&mut answers).await;
    }
    drop(answers);
    for _ in 0..WINDOW {
        gate.open.send(()).expect("the device waits");
    }
    is_idle(&fixture).await;
    let batches = gate.started.try_iter().count();
    assert_eq!(batches, 0, "nothing was begun after it went");
}

#[tokio::test]
async fn room_is_given_back_though_nobody_reads_the_answers() {
    let (fixture, gate) = Fixture::gated(BOUNDS).await;
    let mut answers = fixture.answers(20, None);
    run_dry(&mut answers).await;
    for _ in 0..WINDOW {
        gate.open.send(()).expect("the device waits");
    }
    is_idle(&fixture).await;
    assert_eq!(fixture.read(), WINDOW as usize, "and nothing more is read");
}

#[tokio::test]
async fn a_stop_is_told_after_the_answers_of_what_was_under_way() {
    let (fixture, gate) = Fixture::gated(BOUNDS).await;
    let mut answers = fixture.answers(20, None);
    run_dry(&mut answers).await;
    fixture.service.stop.trigger();
    run_dry(&mut answers).await;
    for _ in 0..WINDOW {
        gate.open.send(()).expect("the device waits");
    }
    for _ in 0..WINDOW {
        answers.next().await.expect("no end").expect("what was under way is answered");
    }
    let status = answers.next().await.expect("a reason").expect_err("the rest is not taken");
    assert_eq!(status.code(), Code::Unavailable, "another replica may do it: {status:?}");
    assert!(answers.next().await.is_none(), "that was the end");
    assert_eq!(fixture.read(), WINDOW as usize, "nothing more was read");
}

#[tokio::test]
async fn a_model_that_is_gone_ends_the_stream() {
    let fixture = Fixture::new(Fake::new(4), BOUNDS).await;
    let mut answers = fixture.answers(20, None);
    fixture.devices.stop().await.expect("an ordered end");
    let status = answers.next().await.expect("a reason").expect_err("no vector can be had");
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(answers.next().await.is_none(), "told once, and not for each input");
}

#[tokio::test]
async fn an_input_that_the_device_fails_on_is_answered_and_the_stream_goes_on() {
    const POISON: u8 = 99;
    let fake = Fake::new(4).failing_on(POISON.into());
    let fixture = Fixture::new(fake, BOUNDS).await;
    let levels = [10, 20, POISON, 30, 40];
    let mut answers = fixture.answers_to(levels.map(picture).to_vec(), None);
    for _ in levels {
        let answer = answers.next().await.expect("no end").expect("the stream is well");
        let is_well = levels[answer.key as usize] != POISON;
        match answer.result.expect("a result").outcome {
            Some(Outcome::Embedding(_)) => assert!(is_well, "the device failed on it"),
            Some(Outcome::Error(error)) => {
                assert!(!is_well, "its neighbour is to blame: {error:?}");
                assert_eq!(error.code, Code::Internal as i32, "the model's fault");
            }
            None => panic!("an outcome"),
        }
    }
}

#[tokio::test]
async fn a_deadline_that_passes_in_the_queue_ends_the_stream() {
    let (fixture, gate) = Fixture::gated(BOUNDS).await;
    let mut answers = fixture.answers(1, None);
    run_dry(&mut answers).await;
    let mut late = fixture.answers(20, Some(Instant::now()));
    run_dry(&mut late).await;
    gate.open.send(()).expect("the device waits");
    let status = late.next().await.expect("a reason").expect_err("nobody waits any more");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert!(late.next().await.is_none(), "that was the end");
}
