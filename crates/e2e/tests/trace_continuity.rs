//! One trace from the caller to the model: what all three processes export, by OTLP, for one call.

use std::collections::BTreeMap;
use std::time::Duration;

use clipmesh_e2e::clients::{Clients, acknowledged, new_item, query};
use clipmesh_e2e::sandbox::{Sandbox, Service};
use clipmesh_e2e::trace_sink::{Span, TraceSink};
use clipmesh_e2e::{eventually, pictures};
use clipmesh_proto::search::v1 as search;
use clipmesh_proto::search::v1::query::Kind;
use futures::StreamExt as _;
use tonic::{Request, Status};

const GATEWAY: &str = "clipmesh-gateway";
const SEARCH: &str = "clipmesh-search";
const EMBEDDER: &str = "clipmesh-embedder";
/// The span of the caller.
const CALLER: &str = "b7ad6b7169203331";
/// Spans leave soon: the default of five seconds is a long wait for a test.
const SHORT_DELAY: Duration = Duration::from_millis(100);
/// Spans leave never, but for the end of their process.
const LONG_DELAY: Duration = Duration::from_secs(3_600);
/// From the end of a call to the arrival of its last span.
const PATIENCE: Duration = Duration::from_secs(30);

/// A mesh whose spans wait so long for others to leave with.
async fn traced_mesh(export_delay: Duration) -> (TraceSink, Sandbox, Clients) {
    let sink = TraceSink::start().await.expect("the sink listens");
    let mesh = Sandbox::builder()
        .setting_of_all("telemetry.otlp_endpoint", &sink.endpoint())
        .env("OTEL_BSP_SCHEDULE_DELAY", &export_delay.as_millis().to_string());
    let sandbox = mesh.start().await.expect("the mesh starts");
    let mut clients = sandbox.clients().expect("the gateway listens");
    clients.create_collection("traced").await.expect("a new collection");
    (sink, sandbox, clients)
}

/// A request that belongs to a trace of the caller's.
fn traced<T>(message: T, trace_id: &str) -> Request<T> {
    let mut request = Request::new(message);
    let parent = format!("00-{trace_id}-{CALLER}-01").parse().expect("plain ASCII");
    request.metadata_mut().insert("traceparent", parent);
    request
}

/// Waits for the server spans of `methods`, each of a service and a method.
async fn arrived(sink: &TraceSink, trace_id: &str, methods: &[(&str, &str)]) -> Vec<Span> {
    let arrived = eventually("every process exports its part", PATIENCE, async || {
        let spans = sink.trace(trace_id);
        let has = |&(service, method): &(&str, &str)| {
            spans.iter().any(|span| span.service == service && span.name.ends_with(method))
        };
        if methods.iter().all(has) { Ok(spans) } else { Err(format!("{spans:#?}")) }
    });
    arrived.await.expect("one trace through all three")
}

/// The services on the way from a span up to the caller.
fn way_up<'a>(spans: &'a [Span], span: &'a Span) -> Vec<&'a str> {
    let by_id: BTreeMap<&str, &Span> =
        spans.iter().map(|span| (span.span_id.as_str(), span)).collect();
    let mut way = vec![span.service.as_str()];
    let mut span = span;
    while span.parent_span_id != CALLER {
        span = by_id.get(span.parent_span_id.as_str()).unwrap_or_else(|| {
            panic!("the parent of {span:?} is missing from {spans:#?}");
        });
        way.push(&span.service);
    }
    way.dedup();
    way
}

fn server_span<'a>(spans: &'a [Span], service: &str, method: &str) -> &'a Span {
    let mut found =
        spans.iter().filter(|span| span.service == service && span.name.ends_with(method));
    found.next().unwrap_or_else(|| panic!("no `{method}` of {service} in {spans:#?}"))
}

#[tokio::test]
async fn one_trace_leads_from_the_caller_to_the_model() {
    let (sink, _sandbox, mut clients) = traced_mesh(SHORT_DELAY).await;
    let trace_id = "0af7651916cd43dd8448eb211c80319c";
    let request = query("traced", Kind::Image(pictures::png(1)));
    clients.search.search(traced(request, trace_id)).await.expect("found");

    let path = [
        (GATEWAY, "SearchService/Search"),
        (SEARCH, "SearchService/Search"),
        (EMBEDDER, "EmbedderService/Embed"),
    ];
    let spans = arrived(&sink, trace_id, &path).await;
    let embed = server_span(&spans, EMBEDDER, "EmbedderService/Embed");
    let way = way_up(&spans, embed);
    assert_eq!(way, [EMBEDDER, SEARCH, GATEWAY], "each hop is the child of the one before");
}

#[tokio::test]
async fn a_stream_and_a_failed_call_are_traced_too() {
    let (sink, _sandbox, mut clients) = traced_mesh(SHORT_DELAY).await;
    let trace_id = "11111111111111111111111111111111";
    let item = search::IndexItemsRequest {
        collection: "traced".to_owned(),
        key: 1,
        item: Some(new_item("a", pictures::png(1))),
    };
    let requests = traced(futures::stream::iter([item]), trace_id);
    let acks = clients.items.index_items(requests).await.expect("the stream opens").into_inner();
    let acks: Vec<_> = acks.map(|ack| acknowledged(ack.expect("it goes on")).1).collect().await;
    assert!(acks.len() == 1 && acks[0].is_ok(), "indexed: {acks:?}");
    let path = [
        (GATEWAY, "ItemService/IndexItems"),
        (SEARCH, "ItemService/IndexItems"),
        (EMBEDDER, "EmbedderService/Embed"),
    ];
    let spans = arrived(&sink, trace_id, &path).await;
    let embed = server_span(&spans, EMBEDDER, "EmbedderService/Embed");
    assert_eq!(way_up(&spans, embed), [EMBEDDER, SEARCH, GATEWAY], "from within the stream too");

    let trace_id = "22222222222222222222222222222222";
    let request = query("nowhere", Kind::Image(pictures::png(1)));
    let refused: Result<_, Status> = clients.search.search(traced(request, trace_id)).await;
    assert!(refused.is_err(), "there is no such collection");
    let path = [(GATEWAY, "SearchService/Search"), (SEARCH, "SearchService/Search")];
    let spans = arrived(&sink, trace_id, &path).await;
    let search = server_span(&spans, SEARCH, "SearchService/Search");
    assert_eq!(way_up(&spans, search), [SEARCH, GATEWAY], "an error has a trace as well");
}

#[tokio::test]
async fn the_last_spans_leave_before_their_process_ends() {
    let (sink, mut sandbox, mut clients) = traced_mesh(LONG_DELAY).await;
    let trace_id = "33333333333333333333333333333333";
    let request = query("traced", Kind::Image(pictures::png(1)));
    clients.search.search(traced(request, trace_id)).await.expect("found");
    assert_eq!(sink.trace(trace_id), [], "nothing leaves while the processes run");
    for service in [Service::Gateway, Service::Search, Service::Embedder] {
        sandbox.terminate(service).expect("it runs");
        sandbox.ended(service, PATIENCE).await.expect("it ends");
    }
    let of = |service: &str| sink.trace(trace_id).iter().any(|span| span.service == service);
    for service in [GATEWAY, SEARCH, EMBEDDER] {
        assert!(of(service), "{service} sent its spans on its way out");
    }
}
