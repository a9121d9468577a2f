//! Counts and times every call of a server.

use std::convert::Infallible;

use clipmesh_proto::Catalog;
use http::{Request, Response};
use metrics::{counter, gauge, histogram};
use tokio::time::Instant;
use tonic::Code;
use tonic::body::Body;
use tower::ServiceExt as _;

use crate::middleware::Next;
use crate::outcome;
use crate::trace::service_and_method;

/// Calls that ended, by `service`, `method` and `code`.
const CALLS: &str = "clipmesh_rpc_calls_total";
/// From the first byte of a call to the last of its answer, by `service` and `method`.
const DURATION: &str = "clipmesh_rpc_duration_seconds";
/// Calls that run now.
const IN_FLIGHT: &str = "clipmesh_rpc_in_flight";
/// Stands for every path that is in no contract: a caller must not be able to invent labels,
/// whatever it is answered.
const OTHER: &str = "other";

/// What every server has beside our contracts.
const COMMON: [&str; 4] = [
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// A call that runs; one that is dropped before it finished was cancelled.
struct Call {
    path: String,
    started_at: Instant,
    is_finished: bool,
}

/// Counts and times one call.
pub(crate) async fn count(
    request: Request<Body>,
    next: Next<Infallible>,
) -> Result<Response<Body>, Infallible> {
    let call = Call::start(request.uri().path());
    let response = next.oneshot(request).await?;
    Ok(outcome::observe(response, move |code| call.finish(code)))
}

impl Call {
    fn start(path: &str) -> Self {
        gauge!(IN_FLIGHT).increment(1);
        Self { path: path.to_owned(), started_at: Instant::now(), is_finished: false }
    }

    fn finish(mut self, code: Code) {
        self.record(code);
    }

    fn record(&mut self, code: Code) {
        self.is_finished = true;
        gauge!(IN_FLIGHT).decrement(1);
        let (service, method) = labels(&self.path);
        let (service, method) = (service.to_owned(), method.to_owned());
        histogram!(DURATION, "service" => service.clone(), "method" => method.clone())
            .record(self.started_at.elapsed());
        let code = format!("{code:?}");
        counter!(CALLS, "service" => service, "method" => method, "code" => code).increment(1);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.is_finished {
            self.record(Code::Cancelled);
        }
    }
}

/// The `service` and `method` that a call to `path` is counted under.
fn labels(path: &str) -> (&str, &str) {
    if Catalog::contracts().has(path) || COMMON.contains(&path) {
        service_and_method(path)
    } else {
        (OTHER, OTHER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_in_the_contracts_are_told_apart() {
        let search = "clipmesh.search.v1.SearchService";
        assert_eq!(labels("/clipmesh.search.v1.SearchService/Search"), (search, "Search"), "ours");
        let health = "grpc.health.v1.Health";
        assert_eq!(labels("/grpc.health.v1.Health/Check"), (health, "Check"), "every server's");
    }

    #[test]
    fn a_caller_can_not_invent_labels() {
        for path in [
            "",
            "/",
            "/wp-login.php",
            "/clipmesh.search.v1.SearchService",
            "/clipmesh.search.v1.SearchService/",
            "/clipmesh.search.v1.SearchService/Search/",
            "//clipmesh.search.v1.SearchService/Search",
            "/clipmesh.search.v1.SearchService/Guess",
            "/clipmesh.search.v1.GuessService/Search",
            "/grpc.health.v1.Health/Guess",
        ] {
            assert_eq!(labels(path), (OTHER, OTHER), "`{path}`");
        }
    }
}
