//! A collector of traces for tests: takes OTLP over gRPC and keeps every span.
//!
//! Only the few fields that tests look at are declared, by their numbers in the OTLP contract
//! (<https://github.com/open-telemetry/opentelemetry-proto>); the decoder skips the rest.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::Server;
use tower::Service;

const EXPORT_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const SERVICE_NAME: &str = "service.name";

/// Collects spans until it is dropped.
#[derive(Debug)]
pub struct TraceSink {
    address: SocketAddr,
    spans: Spans,
    server: JoinHandle<()>,
}

/// One span as it was exported. Ids are in lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    pub trace_id: String,
    pub span_id: String,
    /// Empty for the root of a trace.
    pub parent_span_id: String,
    pub name: String,
    /// Which process it comes from: `service.name` of its resource.
    pub service: String,
}

type Spans = Arc<Mutex<Vec<Span>>>;

/// `opentelemetry.proto.collector.trace.v1.TraceService`.
#[derive(Clone)]
struct Collector(Spans);

#[derive(Clone, PartialEq, prost::Message)]
struct ExportRequest {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ExportResponse {}

#[derive(Clone, PartialEq, prost::Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AnyValue {
    #[prost(string, tag = "1")]
    string_value: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ScopeSpans {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<ExportedSpan>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ExportedSpan {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
}

// === impl TraceSink ===

impl TraceSink {
    /// Listens on a free port.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("bind the trace sink")?;
        let address = listener.local_addr().context("read the address of the trace sink")?;
        let spans = Spans::default();
        let serving = Server::builder()
            .add_service(Collector(spans.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let server = tokio::spawn(async move {
            serving.await.expect("accepting on loopback does not fail");
        });
        Ok(Self { address, spans, server })
    }

    /// Where exporters send to.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The spans of one trace that have arrived so far.
    pub fn trace(&self, trace_id: &str) -> Vec<Span> {
        let spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        spans.iter().filter(|span| span.trace_id == trace_id).cloned().collect()
    }
}

impl Drop for TraceSink {
    fn drop(&mut self) {
        self.server.abort();
    }
}

// === impl Collector ===

impl NamedService for Collector {
    const NAME: &'static str = "opentelemetry.proto.collector.trace.v1.TraceService";
}

impl Service<http::Request<Body>> for Collector {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let spans = self.0.clone();
        Box::pin(async move {
            if request.uri().path() != EXPORT_PATH {
                return Ok(tonic::Status::unimplemented("only traces are taken").into_http());
            }
            let codec = tonic_prost::ProstCodec::<ExportResponse, ExportRequest>::default();
            let export = tower::service_fn(move |request: tonic::Request<ExportRequest>| {
                let mut kept = spans.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend(request.into_inner().into_spans());
                std::future::ready(Ok(tonic::Response::new(ExportResponse {})))
            });
            Ok(tonic::server::Grpc::new(codec).unary(export, request).await)
        })
    }
}

// === impl ExportRequest ===

impl ExportRequest {
    fn into_spans(self) -> impl Iterator<Item = Span> {
        self.resource_spans.into_iter().flat_map(|of_resource| {
            let attributes = of_resource.resource.unwrap_or_default().attributes;
            let name = attributes.into_iter().find(|attribute| attribute.key == SERVICE_NAME);
            let service = name.and_then(|name| name.value).unwrap_or_default().string_value;
            let spans = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            spans.map(move |span| Span {
                trace_id: hex(&span.trace_id),
                span_id: hex(&span.span_id),
                parent_span_id: hex(&span.parent_span_id),
                name: span.name,
                service: service.clone(),
            })
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
