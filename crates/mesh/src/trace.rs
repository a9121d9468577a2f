//! One trace through every hop.
//!
//! [`serve`] opens a span for an incoming call under the caller's W3C trace context, and says how
//! the call ended: in the span, in the log, nowhere else. [`call`] sends the current span's context
//! along with an outgoing call. No handler touches metadata.

use std::convert::Infallible;

use clipmesh_telemetry::{propagation, semconv};
use http::{HeaderMap, Request, Response, Uri};
use opentelemetry::trace::TraceContextExt as _;
use tokio::time::Instant;
use tonic::Code;
use tonic::body::Body;
use tower::ServiceExt as _;
use tracing::field::Empty;
use tracing::{Instrument as _, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::middleware::Next;
use crate::outcome;

/// Runs an incoming call in a span of its own.
pub(crate) async fn serve(
    request: Request<Body>,
    next: Next<Infallible>,
) -> Result<Response<Body>, Infallible> {
    let started_at = Instant::now();
    let span = server_span(request.uri(), request.headers());
    let response = next.oneshot(request).instrument(span.clone()).await?;
    Ok(outcome::observe(response, move |code| finish(&span, code, started_at)))
}

/// Sends the current span's context along with an outgoing call.
pub(crate) async fn call<E: Send + 'static>(
    mut request: Request<Body>,
    next: Next<E>,
) -> Result<Response<Body>, E> {
    propagation::inject(&Span::current().context(), request.headers_mut());
    next.oneshot(request).await
}

/// Splits a gRPC path, `/package.Service/Method`.
pub(crate) fn service_and_method(path: &str) -> (&str, &str) {
    path.trim_start_matches('/').split_once('/').unwrap_or((path, ""))
}

fn server_span(uri: &Uri, headers: &HeaderMap) -> Span {
    let (service, method) = service_and_method(uri.path());
    let span = tracing::info_span!(
        "call",
        { semconv::OTEL_NAME } = uri.path().trim_start_matches('/'),
        { semconv::OTEL_KIND } = "server",
        { semconv::OTEL_STATUS_CODE } = Empty,
        { semconv::RPC_SYSTEM } = "grpc",
        { semconv::RPC_SERVICE } = service,
        { semconv::RPC_METHOD } = method,
        { semconv::RPC_GRPC_STATUS_CODE } = Empty,
        { semconv::TRACE_ID } = Empty,
    );
    // Fails only where no tracer is installed, as in unit tests; the call goes on untraced.
    if span.set_parent(propagation::extract(headers)).is_ok() {
        let trace_id = span.context().span().span_context().trace_id();
        span.record(semconv::TRACE_ID, tracing::field::display(trace_id));
    }
    span
}

fn finish(span: &Span, code: Code, started_at: Instant) {
    span.record(semconv::RPC_GRPC_STATUS_CODE, i32::from(code));
    let _entered = span.enter();
    let elapsed_ms = started_at.elapsed().as_secs_f64() * 1e3;
    // Logged where it is handled, once, at a level that the code decides.
    match code {
        Code::Internal | Code::Unknown | Code::DataLoss => {
            span.record(semconv::OTEL_STATUS_CODE, "error");
            tracing::error!(code = ?code, elapsed_ms, "call failed");
        }
        Code::Unavailable => {
            span.record(semconv::OTEL_STATUS_CODE, "error");
            tracing::warn!(code = ?code, elapsed_ms, "call failed");
        }
        Code::Ok
        | Code::Cancelled
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
        | Code::Unauthenticated => {
            tracing::debug!(code = ?code, elapsed_ms, "call finished");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_service_and_method() {
        let path = "/clipmesh.search.v1.SearchService/Search";
        let expected = ("clipmesh.search.v1.SearchService", "Search");
        assert_eq!(service_and_method(path), expected, "full service name, short method name");
    }
}
