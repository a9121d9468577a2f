//! One trace through the gateway.

use std::sync::OnceLock;

use clipmesh_telemetry::Guard;
use tonic::Request;
use tonic::metadata::MetadataValue;

use crate::support::{Mesh, get, within};

const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// One subscriber serves the whole process; without one there are no spans.
fn with_telemetry() {
    static GUARD: OnceLock<Guard> = OnceLock::new();
    GUARD.get_or_init(|| {
        let config =
            clipmesh_telemetry::Config { log_filter: "off".to_owned(), ..Default::default() };
        clipmesh_telemetry::init("gateway-test", &config).expect("the first set-up")
    });
}

async fn arrived(request: Request<clipmesh_proto::search::v1::GetItemRequest>) -> Vec<String> {
    let mesh = Mesh::start().await;
    within(mesh.gateway.items().get_item(request)).await.expect("an answer");
    let arrived = mesh.script.only_call();
    let values: Vec<_> = arrived.get_all("traceparent").iter().collect();
    assert_eq!(values.len(), 1, "one context, not the caller's and ours");
    values[0].to_str().expect("visible").split('-').map(str::to_owned).collect()
}

#[tokio::test]
async fn a_callers_trace_goes_on_under_the_gateways_span() {
    with_telemetry();
    let mut request = Request::new(get("cat"));
    request.metadata_mut().insert("traceparent", MetadataValue::from_static(CALLER));
    let context = arrived(request).await;
    assert_eq!(context[1], TRACE_ID, "the caller's trace");
    assert_ne!(context[2], "b7ad6b7169203331", "the gateway's own span, not the caller's");
    assert_eq!(context[3], "01", "sampled, as the caller decided");
}

#[tokio::test]
async fn a_call_without_a_trace_begins_one() {
    with_telemetry();
    let context = arrived(Request::new(get("cat"))).await;
    assert_eq!(context[1].len(), 32, "a trace id");
    assert_ne!(context[1], "0".repeat(32), "a valid one");
}
