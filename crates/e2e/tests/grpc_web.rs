//! What a browser does: grpc-web over HTTP/1.1, and the questions that it asks first because the
//! page comes from another origin.

use std::net::SocketAddr;

use bytes::Bytes;
use clipmesh_e2e::clients::{Clients, ids, new_item, query};
use clipmesh_e2e::pictures;
use clipmesh_e2e::sandbox::{Attached, Shared};
use clipmesh_proto::code::{FieldViolation, Reason};
use clipmesh_proto::embedder::v1::GetModelRequest;
use clipmesh_proto::embedder::v1::embedder_service_client::EmbedderServiceClient;
use clipmesh_proto::search::v1 as search;
use clipmesh_proto::search::v1::query::Kind;
use clipmesh_proto::search::v1::search_service_client::SearchServiceClient;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tonic::Code;
use tonic_web::GrpcWebClientLayer;
use tower::ServiceBuilder;

const SEARCH_PATH: &str = "/clipmesh.search.v1.SearchService/Search";
const GET_MODEL_PATH: &str = "/clipmesh.embedder.v1.EmbedderService/GetModel";
/// A page that a developer serves on the same machine.
const LOCAL_PAGE: &str = "http://localhost:3000";

static SANDBOX: Shared = Shared::new();

async fn attach() -> (Attached, SocketAddr) {
    let sandbox = SANDBOX.attach().await.expect("the mesh starts");
    let address = sandbox.gateway_address().expect("the gateway listens");
    (sandbox, address)
}

fn origin(address: SocketAddr) -> Uri {
    format!("http://{address}").parse().expect("an address is a URI's authority")
}

/// A transport that speaks grpc-web over HTTP/1.1, under any generated client.
macro_rules! web_client {
    ($client:ident, $address:expr) => {
        $client::with_origin(
            ServiceBuilder::new()
                .layer(GrpcWebClientLayer::new())
                .service(Client::builder(TokioExecutor::new()).build_http()),
            origin($address),
        )
    };
}

/// One plain request, its answer read to the end.
async fn send(request: Request<Full<Bytes>>) -> Response<Bytes> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let response = client.request(request).await.expect("the gateway answers");
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("the answer is whole").to_bytes();
    Response::from_parts(parts, body)
}

async fn preflight(address: SocketAddr, page: &str) -> Response<Bytes> {
    let request = Request::builder()
        .method(Method::OPTIONS)
        .uri(format!("http://{address}{SEARCH_PATH}"))
        .header("origin", page)
        .header("access-control-request-method", "POST")
        .header(
            "access-control-request-headers",
            "content-type,x-grpc-web,x-user-agent,grpc-timeout",
        )
        .body(Full::default());
    send(request.expect("a request")).await
}

/// The entries of a list in a header, in lower case.
fn entries(headers: &HeaderMap, name: &str) -> Vec<String> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|entry| entry.trim().to_lowercase()).collect()
}

#[tokio::test]
async fn a_browser_searches_by_image() {
    let (sandbox, address) = attach().await;
    let mut native = sandbox.clients().expect("the gateway listens");
    native.create_collection("web").await.expect("a new collection");
    for seed in 0..4 {
        let item = new_item(format!("p{seed}"), pictures::png(seed));
        native.index("web", item).await.expect("indexed");
    }
    let request = query("web", Kind::Image(pictures::jpeg(&pictures::mosaic(2))));
    let mut web = web_client!(SearchServiceClient, address);
    let from_web = web.search(request.clone()).await.expect("found").into_inner();
    assert_eq!(ids(&from_web)[0], "p2", "the same picture comes first");
    let from_native = native.search.search(request).await.expect("found").into_inner();
    assert_eq!(from_web.hits, from_native.hits, "the protocol changes no answer");
}

#[tokio::test]
async fn a_browser_reaches_the_embedder_too() {
    let (_sandbox, address) = attach().await;
    let mut web = web_client!(EmbedderServiceClient, address);
    let model = web.get_model(GetModelRequest {}).await.expect("described").into_inner();
    assert!(model.model.expect("the model").dimension > 0, "a model has a dimension");
}

#[tokio::test]
async fn an_error_reaches_a_browser_with_its_details() {
    let (sandbox, address) = attach().await;
    let mut native: Clients = sandbox.clients().expect("the gateway listens");
    native.create_collection("web-errors").await.expect("a new collection");
    let mut web = web_client!(SearchServiceClient, address);
    let request = search::SearchRequest {
        limit: Some(0),
        ..query("web-errors", Kind::Image(pictures::png(1)))
    };
    let status = web.search(request).await.expect_err("no limit is 0");
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let violation = FieldViolation::from_status(&status).expect("details");
    let found = (violation.field.as_str(), violation.reason);
    assert_eq!(found, ("limit", Reason::OutOfRange), "as over plain gRPC");
}

#[tokio::test]
async fn the_text_form_of_the_protocol_is_spoken() {
    let (_sandbox, address) = attach().await;
    let request = Request::post(format!("http://{address}{GET_MODEL_PATH}"))
        .header("content-type", "application/grpc-web-text")
        .header("accept", "application/grpc-web-text")
        .header("x-grpc-web", "1")
        // An empty message: a flag and a length, five zero bytes in base64.
        .body(Full::from("AAAAAAA="));
    let response = send(request.expect("a request")).await;
    assert_eq!(response.status(), StatusCode::OK, "{response:?}");
    let content_type = response.headers()["content-type"].to_str().expect("text");
    assert!(content_type.starts_with("application/grpc-web-text"), "{content_type}");
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=".contains(byte);
    assert!(response.body().iter().all(is_base64), "text: {:?}", response.body());
    // Three zero bytes: no flag, and a length far below 64 KiB.
    assert!(response.body().starts_with(b"AAAA"), "a message comes first: {:?}", response.body());
}

#[tokio::test]
async fn a_page_of_this_machine_may_call() {
    let (_sandbox, address) = attach().await;
    let response = preflight(address, LOCAL_PAGE).await;
    assert!(response.status().is_success(), "the question is answered: {response:?}");
    let headers = response.headers();
    assert_eq!(entries(headers, "access-control-allow-origin"), [LOCAL_PAGE], "this page may");
    let methods = entries(headers, "access-control-allow-methods");
    assert!(methods.contains(&"post".to_owned()), "calls are POSTs: {methods:?}");
    let allowed = entries(headers, "access-control-allow-headers");
    for header in ["content-type", "x-grpc-web", "x-user-agent", "grpc-timeout"] {
        assert!(allowed.contains(&header.to_owned()), "`{header}` is sent: {allowed:?}");
    }

    let call = Request::post(format!("http://{address}{GET_MODEL_PATH}"))
        .header("origin", LOCAL_PAGE)
        .header("content-type", "application/grpc-web+proto")
        .header("x-grpc-web", "1")
        .body(Full::from(Bytes::from_static(&[0; 5])));
    let response = send(call.expect("a request")).await;
    assert_eq!(response.status(), StatusCode::OK, "{response:?}");
    assert_eq!(response.version(), Version::HTTP_11, "what a browser speaks without TLS");
    let headers = response.headers();
    assert_eq!(entries(headers, "access-control-allow-origin"), [LOCAL_PAGE], "it may read");
    let exposed = entries(headers, "access-control-expose-headers");
    for header in ["grpc-status", "grpc-message", "grpc-status-details-bin"] {
        assert!(exposed.contains(&header.to_owned()), "`{header}` may be read: {exposed:?}");
    }
    let trailers = response.body().windows(14).any(|part| part == b"grpc-status:0\r".as_slice());
    assert!(trailers, "the trailers come in the body: {:?}", response.body());
}

#[tokio::test]
async fn a_page_of_a_stranger_may_not() {
    let (_sandbox, address) = attach().await;
    for page in ["https://evil.example", "http://localhost.evil.example", "null"] {
        let response = preflight(address, page).await;
        let allowed = entries(response.headers(), "access-control-allow-origin");
        assert_eq!(allowed, Vec::<String>::new(), "`{page}` gets no permission");
    }
}
