//! What the gateway counts beyond what every server counts.

use metrics::{counter, gauge};
use tonic::Code;

/// Messages that were refused for their length, by `upstream`. Rises when a client sends originals
/// where it should send scaled pictures, or when the limit is too tight.
const REFUSED_MESSAGES: &str = "clipmesh_gateway_refused_messages_total";
/// Calls that an upstream did not answer, or whose answer broke off, by `upstream` and `code`.
/// What an upstream answers itself is not counted here, however bad.
const UPSTREAM_FAILURES: &str = "clipmesh_gateway_upstream_failures_total";
/// 1 while a service behind the gateway can answer, else 0, by `service`.
const SERVICE_SERVING: &str = "clipmesh_gateway_service_serving";

pub(crate) fn message_refused(upstream: &'static str) {
    counter!(REFUSED_MESSAGES, "upstream" => upstream).increment(1);
}

pub(crate) fn upstream_failed(upstream: &'static str, code: Code) {
    counter!(UPSTREAM_FAILURES, "upstream" => upstream, "code" => format!("{code:?}")).increment(1);
}

pub(crate) fn service_serving(service: &str, serving: bool) {
    gauge!(SERVICE_SERVING, "service" => service.to_owned()).set(f64::from(u8::from(serving)));
}
