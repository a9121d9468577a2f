//! Counts and times every call of a server.

use std::convert::Infallible;

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
/// Stands for paths that nobody serves: a caller must not be able to invent labels.
const OTHER: &str = "other";

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
        let (service, method) = if code == Code::Unimplemented {
            (OTHER, OTHER)
        } else {
            service_and_method(&self.path)
        };
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
