//! Starts gateways and what stands behind them, each on a free port.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use bytesize::ByteSize;
use clipmesh_gateway::{App, Config, HealthConfig};
use clipmesh_mesh::{Shutdown, health, server};
use clipmesh_proto::embedder::v1::embedder_service_server::EmbedderServiceServer;
use clipmesh_proto::search::v1 as search;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use search::item_service_client::ItemServiceClient;
use search::item_service_server::ItemServiceServer;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

use crate::fakes::{Embedder, Items, Script};

/// The longest message of the gateways under test: the least that a server accepts as a setting.
pub(crate) const LIMIT: usize = 64 << 10;

/// Any free port.
pub(crate) const ANY: &str = "127.0.0.1:0";

/// After this a test has failed, whatever it waits for.
const PATIENCE: Duration = Duration::from_secs(30);

/// The services that the search service has, as it reports them.
const SEARCH_SERVICES: [&str; 3] = [
    "clipmesh.search.v1.CollectionService",
    "clipmesh.search.v1.ItemService",
    "clipmesh.search.v1.SearchService",
];
pub(crate) const EMBEDDER_SERVICE: &str = "clipmesh.embedder.v1.EmbedderService";

/// A running server, in front or behind.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) shutdown: Shutdown,
    pub(crate) ended: JoinHandle<bool>,
}

/// A gateway with an item service behind it.
#[derive(Debug)]
pub(crate) struct Mesh {
    pub(crate) gateway: Running,
    pub(crate) search: Running,
    pub(crate) search_health: health::Reporter,
    pub(crate) script: Script,
}

// === impl Running ===

impl Running {
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A channel for any generated client.
    pub(crate) fn channel(&self) -> Channel {
        Endpoint::from_shared(self.url()).expect("an address").connect_lazy()
    }

    pub(crate) fn items(&self) -> ItemServiceClient<Channel> {
        ItemServiceClient::new(self.channel())
    }

    /// One plain HTTP/1.1 request.
    pub(crate) async fn http(&self, request: http::request::Builder, body: Bytes) -> Answer {
        let (parts, body) = self.open(request, body).await.into_parts();
        let body = body.collect().await.expect("a whole body").to_bytes();
        Response::from_parts(parts, body)
    }

    /// Like [`Self::http`], with the body still to be read.
    pub(crate) async fn open(
        &self,
        request: http::request::Builder,
        body: Bytes,
    ) -> Response<Incoming> {
        let mut request: Request<Full<Bytes>> = request.body(Full::new(body)).expect("a request");
        let uri = format!("{}{}", self.url(), request.uri());
        *request.uri_mut() = uri.parse().expect("an address and a path");
        let client = Client::builder(TokioExecutor::new()).build_http();
        within(client.request(request)).await.expect("an answer")
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.http(Request::get(path), Bytes::new()).await
    }
}

/// The answer to a plain HTTP request, read to its end.
pub(crate) type Answer = Response<Bytes>;

// === impl Mesh ===

impl Mesh {
    /// A gateway and an item service; nobody embeds.
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// The same, with other settings.
    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let (items, script) = Items::new();
        let (search, search_health) = start_search(items, ANY).await;
        let mut config = config();
        config.search_url = search.url();
        change(&mut config);
        let gateway = start_gateway(config).await;
        Self { gateway, search, search_health, script }
    }
}

/// Settings for tests: nobody behind, short pauses.
pub(crate) fn config() -> Config {
    let interval = Duration::from_millis(50);
    let server = server::Config {
        max_message_bytes: ByteSize::b(LIMIT as u64),
        drain_timeout: PATIENCE,
        ..server::Config::default()
    };
    Config {
        search_url: nobody(),
        embedder_url: nobody(),
        health: HealthConfig { interval, timeout: PATIENCE },
        server,
        ..Config::default()
    }
}

/// An address where nobody listens: port 1 needs privileges that no test has.
pub(crate) fn nobody() -> String {
    "http://127.0.0.1:1".to_owned()
}

pub(crate) async fn start_gateway(config: Config) -> Running {
    let listener = TcpListener::bind(ANY).await.expect("a free port");
    let app = App::build(config, listener).await.expect("valid settings");
    let address = app.local_addr();
    let shutdown = Shutdown::new();
    let ended = tokio::spawn({
        let shutdown = shutdown.clone();
        async move {
            app.run(shutdown).await;
            true
        }
    });
    Running { address, shutdown, ended }
}

pub(crate) async fn start_search(items: Items, address: &str) -> (Running, health::Reporter) {
    let server = server::Server::new(&server::Config::default())
        .service(ItemServiceServer::new(items).max_decoding_message_size(LIMIT));
    let health = server.health();
    for service in SEARCH_SERVICES {
        health.set(service, true).await;
    }
    (start_server(server, address).await, health)
}

pub(crate) async fn start_embedder(address: &str) -> Running {
    let server = server::Server::new(&server::Config::default())
        .service(EmbedderServiceServer::new(Embedder));
    server.health().set(EMBEDDER_SERVICE, true).await;
    start_server(server, address).await
}

async fn start_server(server: server::Server, address: &str) -> Running {
    let listener = TcpListener::bind(address).await.expect("a free port");
    let address = listener.local_addr().expect("a bound port");
    let shutdown = Shutdown::new();
    let ended = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { server.serve(listener, shutdown).await.is_ok() }
    });
    Running { address, shutdown, ended }
}

/// Waits for what must happen, but not for ever.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it happens in time")
}

pub(crate) fn get(id: &str) -> search::GetItemRequest {
    search::GetItemRequest { id: id.to_owned(), ..Default::default() }
}

pub(crate) fn picture(key: u64, len: usize) -> search::IndexItemsRequest {
    let item = search::NewItem { image: vec![0xff; len].into(), ..Default::default() };
    search::IndexItemsRequest { key, item: Some(item), ..Default::default() }
}
