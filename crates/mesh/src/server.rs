//! Serves gRPC, and the plain HTTP that operators need, on one port.

use std::any::Any;
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::routing::get;
use bytesize::ByteSize;
use http::{Request, Response, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::{Routes, RoutesBuilder};
use tower::layer::layer_fn;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceBuilder, ServiceExt as _};
use tower_http::catch_panic::CatchPanicLayer;

use crate::connections::Connections;
use crate::middleware::from_fn;
use crate::{Error, Shutdown, deadline, health, rpc_metrics, trace};

/// A gRPC service with all layers around it.
pub type GrpcService = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// Settings of every server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Longest message in either direction. Must exceed the longest image by a little. Default:
    /// 32 MiB.
    pub max_message_bytes: ByteSize,
    /// How long to go on serving after a stop was asked for, so that load balancers notice. Behind
    /// a Kubernetes Service choose about 5 s. Default: 0 s.
    #[serde(with = "humantime_serde")]
    pub shutdown_delay: Duration,
    /// How long calls in flight may take to finish. Choose less than the orchestrator's grace
    /// period. Default: 20 s.
    #[serde(with = "humantime_serde")]
    pub drain_timeout: Duration,
}

/// A server in the making: services are added, then it serves until it is told to stop.
#[derive(Debug)]
pub struct Server {
    config: Config,
    routes: RoutesBuilder,
    health: health::Reporter,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            max_message_bytes: ByteSize::mib(32),
            shutdown_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(20),
        }
    }
}

impl Config {
    /// The limit in the form that tonic's servers and clients take.
    pub fn max_message_len(&self) -> usize {
        usize::try_from(self.max_message_bytes.as_u64()).unwrap_or(usize::MAX)
    }

    /// Everything that is wrong, with keys under `prefix`.
    pub fn faults(&self, prefix: &str) -> Vec<String> {
        let mut faults = Vec::new();
        if self.max_message_bytes < ByteSize::kib(64) {
            faults.push(format!("`{prefix}.max_message_bytes` must be at least 64 KiB"));
        }
        if self.drain_timeout.is_zero() {
            faults.push(format!("`{prefix}.drain_timeout` must be longer than zero"));
        }
        faults
    }
}

// === impl Server ===

impl Server {
    pub fn new(config: &Config) -> Self {
        Self { config: config.clone(), routes: Routes::builder(), health: health::Reporter::new() }
    }

    /// Adds a generated server. Whoever made it has set its message limits.
    #[must_use]
    pub fn service<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Response: axum::response::IntoResponse,
        S::Future: Send + 'static,
    {
        self.routes.add_service(service);
        self
    }

    /// Where the owner of the services reports whether they can answer.
    pub fn health(&self) -> health::Reporter {
        self.health.clone()
    }

    /// Serves until `shutdown`, then drains.
    ///
    /// # Errors
    /// When the descriptors of its services are malformed.
    pub async fn serve(mut self, listener: TcpListener, shutdown: Shutdown) -> Result<(), Error> {
        self.routes.add_service(self.health.grpc_service());
        add_reflection(&mut self.routes)?;
        let grpc = grpc_stack(self.routes.routes().prepare());
        let router = axum::Router::new().fallback_service(into_axum(grpc));
        serve_router(router, listener, &self.config, self.health, shutdown).await;
        Ok(())
    }
}

/// Adds reflection of all contracts, in both versions that clients ask for.
///
/// # Errors
/// When the descriptors are malformed.
pub fn add_reflection(routes: &mut RoutesBuilder) -> Result<(), Error> {
    let configure = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(clipmesh_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    routes.add_service(configure().build_v1()?).add_service(configure().build_v1alpha()?);
    Ok(())
}

/// Puts the layers around a gRPC service.
pub fn grpc_stack<S>(service: S) -> GrpcService
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    ServiceBuilder::new()
        // Outermost: all below it logs within the call's span, and the status that the layers
        // below decide is the one that the span gets.
        .layer(from_fn(trace::serve))
        // Outside of panics and deadlines, so that both are counted.
        .layer(from_fn(rpc_metrics::count))
        .layer(layer_fn(BoxCloneSyncService::new))
        .map_response(|response: Response<_>| response.map(Body::new))
        // A panic costs one call, not its connection's others. Outside of the deadline, whose
        // timer goes with the call.
        .layer(CatchPanicLayer::custom(panicked))
        // Innermost: what it drops when the time is up is the work itself.
        .layer(from_fn(deadline::enforce))
        .service(BoxCloneSyncService::new(service))
}

/// Serves a router, with `/livez`, `/readyz` and `/metrics` added, until `shutdown`; then reports
/// not ready, waits for load balancers to notice, sends home who watches the health, stops
/// accepting, lets calls finish within the drain time-out, and cuts off those that have not.
pub async fn serve_router(
    router: axum::Router,
    listener: TcpListener,
    config: &Config,
    health: health::Reporter,
    shutdown: Shutdown,
) {
    let router = router
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz).with_state(health.clone()))
        .route("/metrics", get(|| async { clipmesh_telemetry::metrics_text() }));
    let asked_to_stop = async {
        shutdown.requested().await;
        health.drain().await;
        tokio::time::sleep(config.shutdown_delay).await;
        // Last: a watch would hold up the drain to its end.
        health.end_watches().await;
    };
    let mut connections = Connections::default();
    connections.accept(listener, &router, asked_to_stop).await;
    // Bounded: a half-open connection never says goodbye (hyper issue 4170).
    if tokio::time::timeout(config.drain_timeout, connections.drain()).await.is_err() {
        tracing::warn!("calls outlasted the drain time-out and are cut off");
    }
}

/// Lets axum call a gRPC service, whose bodies have another type.
pub fn into_axum(
    service: GrpcService,
) -> impl Service<
    Request<axum::body::Body>,
    Response = Response<Body>,
    Error = Infallible,
    Future: Send + 'static,
> + Clone
+ Send
+ Sync
+ 'static {
    service.map_request(|request: Request<axum::body::Body>| request.map(Body::new))
}

async fn readyz(State(health): State<health::Reporter>) -> (StatusCode, &'static str) {
    if health.is_ready() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

fn panicked(_panic: Box<dyn Any + Send>) -> Response<Body> {
    // The panic hook has logged it; the caller learns no more than that it was not its fault.
    Status::internal("the server failed on this call").into_http()
}
