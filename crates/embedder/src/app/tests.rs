//! A whole embedder, over a socket, around a device that fails as a test asks.

use std::time::Duration;

use clipmesh_mesh::client;
use clipmesh_proto::embedder::v1::embed_input::Content;
use clipmesh_proto::embedder::v1::embedder_service_client::EmbedderServiceClient;
use tokio::task::JoinHandle;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::*;
use crate::backend::fake::{Act, Fake, Gate};
use crate::config::CanaryConfig;
use crate::model::Dtype;
use crate::model::random::{self, Architecture};

/// Inputs of the warm-up: one picture, one text.
const WARM_UP: usize = 2;

struct Fixture {
    embedder: EmbedderServiceClient<client::Channel>,
    health: HealthClient<client::Channel>,
    running: JoinHandle<Result<(), Error>>,
    _model: tempfile::TempDir,
}

/// An embedder whose device ends its batches as told once it is warm. The canary is asked after
/// `interval`.
async fn start_around(fake: Fake, interval: Duration) -> Fixture {
    let folder = tempfile::tempdir().expect("a folder");
    let architecture = Architecture::Tiny.config();
    random::write(folder.path(), &architecture, 1, Dtype::F32).expect("a random model");
    let model = Arc::new(Model::open(folder.path()).expect("what is written can be read"));
    let thread = Thread::start(|| Ok(Box::new(fake))).await.expect("a fake loads");
    let text = model.encode(CANARY_TEXT).expect("a text");
    let probes = Probes { picture: vec![1], text: Some(text) };
    let device = Trained::warm_up(thread, &probes, 4).await.expect("a fake warms up");
    let canary = CanaryConfig { interval, ..CanaryConfig::default() };
    let config = Config { canary, ..Config::default() };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let fingerprint = model.fingerprint().to_string();
    let app = App::assemble(config, listener, model, fingerprint, vec![device]);
    let app = app.await.expect("an embedder");
    let url = format!("http://{}", app.local_addr());
    let channel = client::channel(&url, &client::Config::default()).expect("an address");
    Fixture {
        embedder: EmbedderServiceClient::new(channel.clone()),
        health: HealthClient::new(channel),
        running: tokio::spawn(app.run(Shutdown::new())),
        _model: folder,
    }
}

impl Fixture {
    async fn embed(&mut self, text: &str) -> Result<(), Status> {
        let content = Some(Content::Text(text.to_owned()));
        let inputs = vec![proto::EmbedInput { content }];
        let request = proto::EmbedRequest { inputs, ..proto::EmbedRequest::default() };
        self.embedder.embed(request).await.map(|_| ())
    }

    /// Waits until `grpc.health.v1` says so.
    async fn until(&mut self, expected: ServingStatus) {
        let request = HealthCheckRequest { service: SERVICE_NAME.to_owned() };
        let watched = self.health.watch(request).await.expect("health is served");
        let mut watched = watched.into_inner();
        while let Some(answer) = watched.message().await.expect("the server lives") {
            if answer.status() == expected {
                return;
            }
        }
        panic!("the service never was {expected:?}");
    }
}

async fn open(gate: Gate) -> Gate {
    let opened = tokio::task::spawn_blocking(move || {
        gate.started.recv().expect("a batch starts");
        gate.open.send(()).expect("the device waits");
        gate
    });
    opened.await.expect("no panic")
}

#[tokio::test]
async fn a_device_that_is_lost_ends_the_process_with_an_error() {
    for act in [Act::Lose, Act::Panic] {
        let acts = [Act::Well; WARM_UP].into_iter().chain([act]);
        let mut embedder = start_around(Fake::new(32).script(acts), Duration::from_secs(600)).await;
        let refused = embedder.embed("a cat").await.expect_err("no vector will come");
        assert_eq!(refused.code(), Code::Unavailable, "another replica may have it: {refused:?}");
        let ended = embedder.running.await.expect("no panic");
        assert!(matches!(ended, Err(Error::DeviceGone(_))), "{act:?}: {ended:?}");
    }
}

#[tokio::test]
async fn health_follows_the_canary_both_ways() {
    let (fake, gate) = Fake::gated(32);
    let acts = [Act::Well; WARM_UP].into_iter().chain([Act::Fail]);
    let warm_up = async {
        let mut gate = gate;
        for _ in 0..WARM_UP {
            gate = open(gate).await;
        }
        gate
    };
    let starting = start_around(fake.script(acts), Duration::from_millis(1));
    let (mut embedder, gate) = tokio::join!(starting, warm_up);
    embedder.until(ServingStatus::Serving).await;
    let gate = open(gate).await;
    embedder.until(ServingStatus::NotServing).await;
    let gate = open(gate).await;
    embedder.until(ServingStatus::Serving).await;
    drop(gate);
}
