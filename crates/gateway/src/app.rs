//! Puts the gateway together, and runs it.

use std::net::SocketAddr;

use axum::Router;
use clipmesh_mesh::{Shutdown, client, server};
use clipmesh_proto::Catalog;
use tokio::net::TcpListener;
use tonic::service::Routes;

use crate::health::{Board, Target, Watcher};
use crate::proxy::{Proxy, Upstream};
use crate::{Config, Error, web};

const SEARCH: &str = "search";
const SEARCH_PACKAGE: &str = "clipmesh.search.v1";
const EMBEDDER: &str = "embedder";
const EMBEDDER_PACKAGE: &str = "clipmesh.embedder.v1";

/// A gateway that is ready to run.
#[derive(Debug)]
pub struct App {
    listener: TcpListener,
    local_addr: SocketAddr,
    router: Router,
    server: server::Config,
    board: Board,
    watcher: Watcher,
}

// === impl App ===

impl App {
    /// Sets everything up. No service behind the gateway needs to be there yet: connections are
    /// opened by the calls that need them.
    ///
    /// # Errors
    /// An address of a service or an origin that is none, or a listener without an address.
    pub async fn build(config: Config, listener: TcpListener) -> Result<Self, Error> {
        let local_addr = listener.local_addr()?;
        let upstreams = vec![
            upstream(SEARCH, SEARCH_PACKAGE, &config.search_url, &config)?,
            upstream(EMBEDDER, EMBEDDER_PACKAGE, &config.embedder_url, &config)?,
        ];
        let targets: Vec<Target> = upstreams.iter().map(target).collect();
        let services: Vec<String> = targets.iter().flat_map(Target::services).cloned().collect();
        let essential = Catalog::contracts().services_of(SEARCH_PACKAGE);
        let board = Board::new(&services, essential).await;

        let mut own = Routes::builder();
        own.add_service(board.grpc_service());
        server::add_reflection(&mut own)?;
        let max_message_len = config.server.max_message_len();
        let proxy = Proxy::new(upstreams, own.routes().prepare(), max_message_len);
        let router = web::router(server::grpc_stack(proxy), &config.cors_origins)?;
        let shutdown_delay = config.server.shutdown_delay;
        let watcher = Watcher::new(targets, board.clone(), config.health, shutdown_delay);
        Ok(Self { listener, local_addr, router, server: config.server, board, watcher })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until `shutdown`, then lets calls in flight finish within the drain time-out.
    pub async fn run(self, shutdown: Shutdown) {
        let watching = self.watcher.run(shutdown.clone());
        let readiness = self.board.readiness();
        let serving =
            server::serve_router(self.router, self.listener, &self.server, readiness, shutdown);
        tokio::select! {
            () = serving => {}
            never = watching => match never {},
        }
    }
}

fn upstream(
    name: &'static str,
    package: &'static str,
    url: &str,
    config: &Config,
) -> Result<Upstream, Error> {
    let calls = client::channel(url, &config.client(Some(config.call_timeout)))?;
    let streams = client::channel(url, &config.client(None))?;
    Ok(Upstream { name, package, calls, streams })
}

fn target(upstream: &Upstream) -> Target {
    let services = Catalog::contracts().services_of(upstream.package);
    // Over the connection whose health matters to a person who waits.
    Target::new(upstream.name, services, upstream.calls.clone())
}
