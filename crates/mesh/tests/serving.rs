//! A server and a client of this crate, over a real socket.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use clipmesh_mesh::client::{self, Channel};
use clipmesh_mesh::server::{self, Server};
use clipmesh_mesh::{Error, Shutdown};
use clipmesh_proto::embedder::v1::embedder_service_client::EmbedderServiceClient;
use clipmesh_proto::embedder::v1::embedder_service_server::{
    EmbedderService, EmbedderServiceServer,
};
use clipmesh_proto::embedder::v1::{
    EmbedInput, EmbedRequest, EmbedResponse, EmbedStreamRequest, EmbedStreamResponse,
    GetModelRequest, GetModelResponse, embed_input,
};

const SERVICE: &str = "clipmesh.embedder.v1.EmbedderService";
/// For what should be over at once; a test fails after it instead of hanging.
const PATIENCE: Duration = Duration::from_secs(30);

/// Does what the text of the first input says.
#[derive(Clone, Default)]
struct Obedient {
    started: Arc<Notify>,
    go_on: Arc<Notify>,
    /// The call that waits is over, in whatever way.
    ended: CancellationToken,
}

#[tonic::async_trait]
impl EmbedderService for Obedient {
    type EmbedStreamStream = BoxStream<'static, Result<EmbedStreamResponse, Status>>;

    async fn embed(
        &self,
        request: Request<EmbedRequest>,
    ) -> Result<Response<EmbedResponse>, Status> {
        let traceparent = request.metadata().get("traceparent").cloned();
        let inputs = request.into_inner().inputs;
        let Some(embed_input::Content::Text(order)) =
            inputs.into_iter().next().and_then(|input| input.content)
        else {
            return Err(Status::invalid_argument("no order"));
        };
        match order.as_str() {
            "panic" => panic!("as ordered"),
            "hang" => std::future::pending().await,
            "wait" => {
                let _ended = self.ended.clone().drop_guard();
                self.started.notify_one();
                self.go_on.notified().await;
            }
            "patience" => {
                let left = clipmesh_mesh::deadline::remaining();
                return Err(Status::aborted(format!("{}", left.is_some())));
            }
            "traceparent" => {
                let text = traceparent.and_then(|value| value.to_str().ok().map(str::to_owned));
                return Err(Status::aborted(text.unwrap_or_default()));
            }
            other => return Err(Status::invalid_argument(other.to_owned())),
        }
        Ok(Response::new(EmbedResponse::default()))
    }

    async fn embed_stream(
        &self,
        _request: Request<Streaming<EmbedStreamRequest>>,
    ) -> Result<Response<Self::EmbedStreamStream>, Status> {
        Ok(Response::new(futures::stream::empty().boxed()))
    }

    async fn get_model(
        &self,
        _request: Request<GetModelRequest>,
    ) -> Result<Response<GetModelResponse>, Status> {
        Ok(Response::new(GetModelResponse::default()))
    }
}

struct Running {
    url: String,
    service: Obedient,
    shutdown: Shutdown,
    server: JoinHandle<Result<(), Error>>,
}

impl Running {
    async fn start(config: server::Config) -> Self {
        let service = Obedient::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("a bound port"));
        let server = Server::new(&config).service(EmbedderServiceServer::new(service.clone()));
        server.health().set(SERVICE, true).await;
        let shutdown = Shutdown::new();
        let server = tokio::spawn(server.serve(listener, shutdown.clone()));
        Self { url, service, shutdown, server }
    }

    fn client(&self, timeout: Option<Duration>) -> EmbedderServiceClient<Channel> {
        let config = client::Config { timeout, ..client::Config::default() };
        EmbedderServiceClient::new(client::channel(&self.url, &config).expect("a sound address"))
    }

    async fn stop(self) {
        self.shutdown.trigger();
        self.server.await.expect("no panic").expect("a clean stop");
    }
}

fn order(text: &str) -> EmbedRequest {
    let content = Some(embed_input::Content::Text(text.to_owned()));
    EmbedRequest { inputs: vec![EmbedInput { content }], ..EmbedRequest::default() }
}

/// The status line and body of a plain HTTP request.
async fn get(url: &str, path: &str) -> (u16, String) {
    use http_body_util::BodyExt as _;
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .build_http::<http_body_util::Empty<bytes::Bytes>>();
    let uri = format!("{url}{path}").parse().expect("a sound address");
    let response = client.get(uri).await.expect("an answer");
    let code = response.status().as_u16();
    let body = response.into_body().collect().await.expect("a whole body").to_bytes();
    (code, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn a_panic_costs_one_call() {
    let running = Running::start(server::Config::default()).await;
    let mut client = running.client(None);
    let status = client.embed(order("panic")).await.expect_err("it panics");
    assert_eq!(status.code(), Code::Internal, "a bug of ours: {status:?}");
    client.get_model(GetModelRequest {}).await.expect("the connection and the server live on");
    running.stop().await;
}

#[tokio::test]
async fn a_hanging_service_costs_no_more_than_the_deadline() {
    let running = Running::start(server::Config::default()).await;
    let mut client = running.client(Some(Duration::from_millis(50)));
    let status = client.embed(order("hang")).await.expect_err("it hangs");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    running.stop().await;
}

#[tokio::test]
async fn the_service_knows_the_callers_patience() {
    let running = Running::start(server::Config::default()).await;
    for (timeout, expected) in [(Some(Duration::from_secs(60)), "true"), (None, "false")] {
        let status = running.client(timeout).embed(order("patience")).await.expect_err("ordered");
        assert_eq!(status.message(), expected, "with a time-out of {timeout:?}");
    }
    running.stop().await;
}

#[tokio::test]
async fn a_dead_peer_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("a bound port"));
    drop(listener);
    let channel = client::channel(&url, &client::Config::default()).expect("a sound address");
    let mut client = EmbedderServiceClient::new(channel);
    let status = client.get_model(GetModelRequest {}).await.expect_err("nobody listens");
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
}

#[tokio::test]
async fn a_stop_lets_calls_in_flight_finish_and_refuses_new_ones() {
    let running = Running::start(server::Config::default()).await;
    let mut client = running.client(None);
    let in_flight = tokio::spawn(async move { client.embed(order("wait")).await });
    running.service.started.notified().await;

    running.shutdown.trigger();
    let (late, go_on) = (running.client(None), running.service.go_on.clone());
    let refused = async {
        // The port closes a moment after the signal.
        loop {
            let answer = late.clone().get_model(GetModelRequest {}).await;
            if let Err(status) = answer {
                break status;
            }
            tokio::task::yield_now().await;
        }
    };
    let status = refused.await;
    assert_eq!(status.code(), Code::Unavailable, "new calls are refused: {status:?}");

    go_on.notify_one();
    in_flight.await.expect("no panic").expect("the call in flight is answered");
    running.server.await.expect("no panic").expect("a clean stop");
}

#[tokio::test]
async fn a_drain_is_bounded() {
    let config =
        server::Config { drain_timeout: Duration::from_millis(50), ..server::Config::default() };
    let running = Running::start(config).await;
    let mut client = running.client(None);
    let stuck = tokio::spawn(async move { client.embed(order("wait")).await });
    running.service.started.notified().await;
    let ended = running.service.ended.clone();
    running.stop().await;
    let ended = tokio::time::timeout(PATIENCE, ended.cancelled()).await;
    ended.expect("the call is over");
    stuck.await.expect("no panic").expect_err("the call is cut off, not left behind");
}

#[tokio::test]
async fn an_open_watch_does_not_hold_up_a_stop() {
    let running = Running::start(server::Config::default()).await;
    let channel = client::channel(&running.url, &client::Config::default()).expect("an address");
    let about = HealthCheckRequest { service: SERVICE.to_owned() };
    let mut news = HealthClient::new(channel).watch(about).await.expect("known").into_inner();
    let first = news.message().await.expect("no error").expect("no end").status();
    assert_eq!(first, ServingStatus::Serving, "it serves");

    running.stop().await;
    let last = news.message().await.expect("no error").expect("no end yet").status();
    assert_eq!(last, ServingStatus::NotServing, "whoever watches is warned");
    // A watch that is cut off after the drain ends with an error instead.
    assert_eq!(news.message().await.expect("no error"), None, "and sent home");
}

#[tokio::test]
async fn operators_get_plain_http() {
    let running = Running::start(server::Config::default()).await;
    assert_eq!(get(&running.url, "/livez").await.0, 200, "it lives");
    assert_eq!(get(&running.url, "/readyz").await.0, 200, "its only service serves");
    assert_eq!(get(&running.url, "/metrics").await.0, 200, "metrics can be read");
    running.stop().await;
}

#[tokio::test]
async fn a_trace_goes_on_at_the_next_hop() {
    let guard = clipmesh_telemetry::init("mesh-test", &clipmesh_telemetry::Config::default())
        .expect("the only set-up in this process");
    let running = Running::start(server::Config::default()).await;
    let mut client = running.client(None);
    let span = tracing::info_span!(target: "clipmesh_mesh", "caller");
    let trace_id = {
        use opentelemetry::trace::TraceContextExt as _;
        use tracing_opentelemetry::OpenTelemetrySpanExt as _;
        span.context().span().span_context().trace_id().to_string()
    };
    let call = client.embed(order("traceparent"));
    let status = tracing::Instrument::instrument(call, span).await.expect_err("ordered");
    let traceparent = status.message();
    assert!(traceparent.contains(&trace_id), "`{traceparent}` goes on with trace {trace_id}");
    let metrics = clipmesh_telemetry::metrics_text();
    let counted = r#"clipmesh_rpc_calls_total{service="clipmesh.embedder.v1.EmbedderService",method="Embed",code="Aborted"}"#;
    assert!(metrics.contains(counted), "the call is counted:\n{metrics}");
    running.stop().await;
    guard.shutdown().await;
}
