//! A running embedder, what to ask it, and how to read its answers.

use std::io::Cursor;

use clipmesh_embedder::model::Dtype;
use clipmesh_embedder::model::random::{self, Architecture};
use clipmesh_embedder::{App, Config, Error};
use clipmesh_mesh::{Shutdown, client};
use clipmesh_proto::code::{self, FieldViolation};
use clipmesh_proto::embedder::v1 as proto;
use clipmesh_proto::embedder::v1::embed_input::Content;
use clipmesh_proto::embedder::v1::embed_result::Outcome;
use clipmesh_proto::embedder::v1::embedder_service_client::EmbedderServiceClient;
use image::{ImageFormat, Rgb, RgbImage};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A running embedder and a client of it.
pub(crate) struct Fixture {
    pub(crate) client: EmbedderServiceClient<client::Channel>,
    pub(crate) shutdown: Shutdown,
    running: JoinHandle<Result<(), Error>>,
    folder: tempfile::TempDir,
}

impl Fixture {
    pub(crate) async fn start(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let model = folder.path().join("tiny");
        random::write(&model, &Architecture::Tiny.config(), 1, Dtype::F32).expect("a model");
        let model = model.into();
        let mut config =
            Config { model, compute_threads: 1, decode_threads: 2, ..Config::default() };
        change(&mut config);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let app = App::build(config, listener).await.expect("an embedder");
        let url = format!("http://{}", app.local_addr());
        let channel = client::channel(&url, &client::Config::default()).expect("an address");
        let shutdown = Shutdown::new();
        let running = tokio::spawn(app.run(shutdown.clone()));
        let client = EmbedderServiceClient::new(channel).max_encoding_message_size(usize::MAX);
        Self { client, shutdown, running, folder }
    }

    pub(crate) async fn embed(
        &mut self,
        inputs: Vec<Option<Content>>,
    ) -> Result<proto::EmbedResponse, tonic::Status> {
        let inputs = inputs.into_iter().map(|content| proto::EmbedInput { content }).collect();
        Ok(self.client.embed(request(inputs)).await?.into_inner())
    }

    pub(crate) async fn stop(self) {
        self.shutdown.trigger();
        let ended = self.running.await.expect("no panic");
        assert!(ended.is_ok(), "an ordered end: {ended:?}");
        drop(self.folder);
    }
}

pub(crate) fn picture(seed: u8, width: u32, height: u32) -> Option<Content> {
    let image = RgbImage::from_fn(width, height, |x, y| {
        Rgb([(x * 7) as u8 ^ seed, (y * 5) as u8, seed.wrapping_mul(31)])
    });
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).expect("a PNG");
    Some(Content::Image(bytes.into_inner().into()))
}

pub(crate) fn request(inputs: Vec<proto::EmbedInput>) -> proto::EmbedRequest {
    proto::EmbedRequest { inputs, ..proto::EmbedRequest::default() }
}

pub(crate) fn text(text: &str) -> Option<Content> {
    Some(Content::Text(text.to_owned()))
}

pub(crate) fn embedding(result: &proto::EmbedResult) -> &proto::Embedding {
    match &result.outcome {
        Some(Outcome::Embedding(embedding)) => embedding,
        other => panic!("a vector, not {other:?}"),
    }
}

pub(crate) fn violation(result: &proto::EmbedResult) -> FieldViolation {
    match &result.outcome {
        Some(Outcome::Error(error)) => {
            FieldViolation::from_status(&code::from_rpc(error)).expect("a field's violation")
        }
        other => panic!("an error, not {other:?}"),
    }
}
