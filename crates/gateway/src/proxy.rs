//! Forwards calls to the service whose package their path names, without decoding a message.
//!
//! ```text
//!           request                                              response
//!  caller ─────────► headers ► limit ► tether ► channel ─► upstream ─► reply ─────────► caller
//!                                │        ▲───────── hang up ─────────── │
//!                                └────────────────── refusal ──────────► │
//! ```
//!
//! Bodies stream through frame by frame, so that back-pressure reaches from one end to the other,
//! and neither side waits for the other to finish. Dropping the response, as the server does when
//! the caller goes away, ends the request too, and the upstream sees its stream reset.
//!
//! Unary calls and streams travel on connections of their own: an upload of thousands of pictures
//! must not hold up the search of somebody who waits for it. What each fault becomes:
//!
//! | fault | the caller gets |
//! | --- | --- |
//! | the upstream can't be reached, or the connection breaks | `UNAVAILABLE` with `RetryInfo` |
//! | no answer within the time that the caller or a setting grants | `DEADLINE_EXCEEDED` |
//! | a request message over the limit | `OUT_OF_RANGE`, as from a tonic server |
//! | a path that nobody serves | `UNIMPLEMENTED` |
//! | anything that the upstream itself answers | that, unchanged |

mod headers;
mod limit;
mod reply;
mod tether;

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use clipmesh_mesh::client::Channel;
use clipmesh_proto::{Catalog, code};
use futures::future::BoxFuture;
use http::{Request, Response, Version};
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Status};
use tower::{Service, ServiceExt as _};

use self::reply::Reply;
use crate::metrics;

/// When to try again after an upstream was gone: about as long as a restart takes to be noticed.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The packages that the gateway itself serves.
const OWN_PACKAGES: [&str; 3] = ["grpc.health.v1", "grpc.reflection.v1", "grpc.reflection.v1alpha"];

/// A service behind the gateway.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    /// What people call it, in messages, logs and metrics.
    pub(crate) name: &'static str,
    /// The package whose services it has.
    pub(crate) package: &'static str,
    /// For methods that answer once. Bounds the time of a call.
    pub(crate) calls: Channel,
    /// For methods that stream. Only their caller bounds their time.
    pub(crate) streams: Channel,
}

/// The transparent proxy. Clones share everything.
#[derive(Clone, Debug)]
pub(crate) struct Proxy {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    upstreams: Vec<Upstream>,
    own: Routes,
    max_message_len: usize,
}

// === impl Upstream ===

impl Upstream {
    /// Whether `path` names a service of this upstream's package.
    fn serves(&self, path: &str) -> bool {
        is_in_package(path, self.package)
    }
}

// === impl Proxy ===

impl Proxy {
    /// Forwards to `upstreams` by package, and answers health and reflection from `own`.
    pub(crate) fn new(upstreams: Vec<Upstream>, own: Routes, max_message_len: usize) -> Self {
        Self { inner: Arc::new(Inner { upstreams, own, max_message_len }) }
    }
}

impl Service<Request<Body>> for Proxy {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Upstreams are waited for call by call: one that is gone must not hold up the others.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move { inner.route(request).await })
    }
}

// === impl Inner ===

impl Inner {
    async fn route(&self, request: Request<Body>) -> Result<Response<Body>, Infallible> {
        let path = request.uri().path();
        if let Some(upstream) = self.upstreams.iter().find(|upstream| upstream.serves(path)) {
            return Ok(self.forward(upstream, request).await);
        }
        if OWN_PACKAGES.iter().any(|package| is_in_package(path, package)) {
            return self.own.clone().oneshot(request).await;
        }
        let service = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        Ok(Status::unimplemented(format!("there is no service `{service}` here")).into_http())
    }

    async fn forward(&self, upstream: &Upstream, request: Request<Body>) -> Response<Body> {
        let version = request.version();
        let channel = if Catalog::contracts().is_unary(request.uri().path()) {
            &upstream.calls
        } else {
            &upstream.streams
        };
        let (parts, body) = request.into_parts();
        let (body, mut refusal) = limit::guard(body, self.max_message_len);
        let (body, tether) = tether::tie(body);
        let request = Request::from_parts(headers::outgoing(parts), body);

        let answer = tokio::select! {
            // A refusal also breaks the call; it is the cause, so it comes first.
            biased;
            refused = refusal.refused() => {
                metrics::message_refused(upstream.name);
                let is_full_duplex = version >= Version::HTTP_2;
                let status = if is_full_duplex { refused.status } else { refused.linger().await };
                return status.into_http();
            }
            answer = channel.clone().oneshot(request) => answer,
        };
        match answer {
            Ok(response) => {
                let (mut parts, body) = response.into_parts();
                headers::clean(&mut parts.headers);
                parts.version = version;
                Response::from_parts(
                    parts,
                    Body::new(Reply::new(upstream.name, body, refusal, tether)),
                )
            }
            Err(status) => rescue(upstream.name, status).into_http(),
        }
    }
}

/// The status of a call that failed on its way to or from an upstream.
fn rescue(upstream: &'static str, status: Status) -> Status {
    metrics::upstream_failed(upstream, status.code());
    // The cause holds addresses, which are the operator's business and not the caller's.
    tracing::debug!(upstream, error = ?status, "upstream failed");
    match status.code() {
        // Nobody here cancelled, and the transport knows no better: the connection went away.
        Code::Unavailable | Code::Unknown | Code::Cancelled => {
            code::unavailable(format!("the {upstream} service can't be reached"), RETRY_AFTER)
        }
        Code::Ok
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss
        | Code::Unauthenticated => status,
    }
}

/// Whether `path`, as in `/a.b.Service/Method`, names a service in `package` or below it.
fn is_in_package(path: &str, package: &str) -> bool {
    path.strip_prefix('/')
        .and_then(|path| path.strip_prefix(package))
        .is_some_and(|rest| rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_belongs_to_the_package_that_it_starts_with() {
        let package = "clipmesh.search.v1";
        assert!(is_in_package("/clipmesh.search.v1.ItemService/GetItem", package), "its service");
        for stranger in [
            "/clipmesh.search.v10.ItemService/GetItem",
            "/clipmesh.search.v1/GetItem",
            "clipmesh.search.v1.ItemService/GetItem",
            "//clipmesh.search.v1.ItemService/GetItem",
            "/",
            "",
        ] {
            assert!(!is_in_package(stranger, package), "`{stranger}` is another's");
        }
    }

    #[test]
    fn a_lost_connection_is_unavailable_whatever_the_transport_calls_it() {
        for status in [Status::unknown("reset"), Status::cancelled("gone"), Status::unavailable("")]
        {
            let rescued = rescue("search", status);
            assert_eq!(rescued.code(), Code::Unavailable, "worth another try");
            assert_eq!(code::retry_after(&rescued), Some(RETRY_AFTER), "and it says when");
            assert!(rescued.message().contains("search"), "it names what is gone");
        }
    }

    #[test]
    fn what_the_transport_knows_for_sure_stays() {
        let rescued = rescue("search", Status::deadline_exceeded("too late"));
        assert_eq!(rescued.code(), Code::DeadlineExceeded, "our own deadline");
    }
}
