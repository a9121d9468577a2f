//! Browsers, and everything else that speaks plain HTTP.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use clipmesh_proto::code::{FieldViolation, Reason};
use clipmesh_proto::search::v1::{GetItemResponse, IndexItemsResponse};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use prost::Message;
use tonic::{Code, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::fakes::FAILS;
use crate::support::{Answer, Mesh, Running, config, get, picture, start_gateway, within};

const GET_ITEM: &str = "/clipmesh.search.v1.ItemService/GetItem";
const PAGE: &str = "http://localhost:5173";

/// The flag of the last frame of a grpc-web body.
const TRAILERS: u8 = 0x80;

/// What a grpc-web client makes of an answer.
pub(crate) struct WebAnswer {
    pub(crate) messages: Vec<Bytes>,
    status: Status,
}

impl WebAnswer {
    fn new(headers: &HeaderMap, mut body: Bytes) -> Self {
        let mut messages = Vec::new();
        let mut trailers = HeaderMap::new();
        while !body.is_empty() {
            let flags = body.get_u8();
            let len = usize::try_from(body.get_u32()).expect("32 bits fit");
            let content = body.split_to(len);
            if flags == TRAILERS {
                trailers = parse(&content);
            } else {
                messages.push(content);
            }
        }
        let status = Status::from_header_map(&trailers)
            .or_else(|| Status::from_header_map(headers))
            .expect("a status in trailers or headers");
        Self { messages, status }
    }

    pub(crate) fn code(&self) -> Code {
        self.status.code()
    }
}

fn parse(trailers: &[u8]) -> HeaderMap {
    let text = std::str::from_utf8(trailers).expect("trailers are text");
    let lines = text.split("\r\n").filter_map(|line| line.split_once(':'));
    lines
        .map(|(name, value)| {
            let name = name.parse::<http::HeaderName>().expect("a name");
            (name, value.trim().parse().expect("a value"))
        })
        .collect()
}

/// A message with its prefix.
pub(crate) fn frame(message: &impl Message) -> Bytes {
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.encoded_len()).expect("a short message"));
    message.encode(&mut framed).expect("room enough");
    framed.freeze()
}

/// Calls over HTTP/1.1 as a browser does.
pub(crate) async fn grpc_web(
    gateway: &Running,
    request: http::request::Builder,
    body: Bytes,
) -> WebAnswer {
    let request = request.header("content-type", "application/grpc-web+proto");
    let answer = within(gateway.http(request.header("x-grpc-web", "1"), body)).await;
    assert_eq!(answer.status(), StatusCode::OK, "gRPC's errors are not HTTP's");
    assert_eq!(answer.headers()["content-type"], "application/grpc-web+proto", "in kind");
    let (parts, body) = answer.into_parts();
    WebAnswer::new(&parts.headers, body)
}

#[tokio::test]
async fn a_browser_calls_over_http_1() {
    let mesh = Mesh::start().await;
    let answer = grpc_web(&mesh.gateway, Request::post(GET_ITEM), frame(&get("cat"))).await;
    assert_eq!(answer.code(), Code::Ok, "it went well");
    let message = GetItemResponse::decode(answer.messages[0].clone()).expect("an answer");
    assert_eq!(message.item.expect("an item").id, "cat", "whole");
}

#[tokio::test]
async fn a_browser_may_call_in_base64() {
    let mesh = Mesh::start().await;
    // The frame of `GetItemRequest { id: "cat" }`, as `base64` writes it.
    assert_eq!(frame(&get("cat"))[..], *b"\0\0\0\0\x05\x12\x03cat", "what is encoded below");
    let request = Request::post(GET_ITEM)
        .header("content-type", "application/grpc-web-text")
        .header("accept", "application/grpc-web-text");
    let answer = within(mesh.gateway.http(request, Bytes::from_static(b"AAAAAAUSA2NhdA=="))).await;
    assert_eq!(answer.status(), StatusCode::OK, "understood");
    let content_type = &answer.headers()["content-type"];
    assert_eq!(content_type, "application/grpc-web-text+proto", "answered in kind");
    let text = std::str::from_utf8(answer.body()).expect("base64 is text");
    assert!(text.starts_with("AAAAA"), "a frame of the same look: {text}");
    assert_eq!(mesh.script.calls(), 1, "the service was called");
}

#[tokio::test]
async fn a_browser_gets_the_details_of_an_error() {
    let mesh = Mesh::start().await;
    let answer = grpc_web(&mesh.gateway, Request::post(GET_ITEM), frame(&get(FAILS))).await;
    assert_eq!(answer.code(), Code::InvalidArgument, "the service's own code");
    let violation = FieldViolation::from_status(&answer.status).expect("details");
    assert_eq!(violation.reason, Reason::Malformed, "that a program can read");
}

#[tokio::test]
async fn a_browser_learns_that_nobody_is_there() {
    let gateway = start_gateway(config()).await;
    let answer = grpc_web(&gateway, Request::post(GET_ITEM), frame(&get("cat"))).await;
    assert_eq!(answer.code(), Code::Unavailable, "as over gRPC");
    let stranger = Request::post("/clipmesh.painter.v1.PainterService/Paint");
    let answer = grpc_web(&gateway, stranger, frame(&get("cat"))).await;
    assert_eq!(answer.code(), Code::Unimplemented, "as over gRPC");
}

#[tokio::test]
async fn a_browser_gets_a_stream_of_answers() {
    let mesh = Mesh::start().await;
    let request = Request::post("/clipmesh.search.v1.ItemService/IndexItems");
    let sent = [frame(&picture(1, 10)), frame(&picture(2, 10))].concat();
    let answer = grpc_web(&mesh.gateway, request, sent.into()).await;
    let keys: Vec<u64> = answer
        .messages
        .into_iter()
        .map(|message| IndexItemsResponse::decode(message).expect("an acknowledgement").key)
        .collect();
    assert_eq!((keys, answer.status.code()), (vec![1, 2], Code::Ok), "each, then the end");
}

#[tokio::test]
async fn a_browser_gets_each_answer_when_it_is_there() {
    let mesh = Mesh::start().await;
    let request = Request::post("/grpc.health.v1.Health/Watch")
        .header("content-type", "application/grpc-web+proto");
    let about = HealthCheckRequest { service: String::new() };
    let mut answer = within(mesh.gateway.open(request, frame(&about))).await.into_body();
    let mut told = Vec::new();
    while told.last() != Some(&ServingStatus::Serving) {
        // The stream never ends, so an answer that was held back would never come.
        let part = within(answer.frame()).await.expect("no end").expect("no error");
        let mut data = part.into_data().expect("messages, no trailers");
        assert_eq!(data.get_u8(), 0, "a message");
        data.advance(4);
        told.push(HealthCheckResponse::decode(data).expect("one whole message").status());
    }
}

async fn preflight(gateway: &Running, origin: &str) -> Answer {
    let request = Request::builder()
        .method(Method::OPTIONS)
        .uri(GET_ITEM)
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-type,x-grpc-web,grpc-timeout");
    within(gateway.http(request, Bytes::new())).await
}

#[tokio::test]
async fn a_page_of_this_machine_may_call_and_a_stranger_may_not() {
    let gateway = start_gateway(config()).await;
    let answer = preflight(&gateway, PAGE).await;
    assert_eq!(answer.status(), StatusCode::OK, "a preflight is answered");
    let headers = answer.headers();
    assert_eq!(headers["access-control-allow-origin"], PAGE, "this page, not everyone");
    let allowed = headers["access-control-allow-headers"].to_str().expect("visible");
    for name in ["content-type", "x-grpc-web", "x-user-agent", "grpc-timeout", "traceparent"] {
        assert!(allowed.split(',').any(|allowed| allowed == name), "`{name}` in `{allowed}`");
    }
    let methods = headers["access-control-allow-methods"].to_str().expect("visible");
    assert!(methods.contains("POST"), "what calls are made with: {methods}");

    let answer = preflight(&gateway, "https://evil.example").await;
    let allowed = answer.headers().get("access-control-allow-origin");
    assert_eq!(allowed, None, "a browser stops here");
}

#[tokio::test]
async fn the_operator_says_which_pages_may_call() {
    let mut config = config();
    config.cors_origins = vec!["https://photos.example".to_owned()];
    let gateway = start_gateway(config).await;
    let answer = preflight(&gateway, "https://photos.example").await;
    let allowed = answer.headers().get("access-control-allow-origin");
    assert_eq!(allowed.expect("it is on the list"), "https://photos.example", "this one");
    let answer = preflight(&gateway, PAGE).await;
    let allowed = answer.headers().get("access-control-allow-origin");
    assert_eq!(allowed, None, "the default no longer holds");
}

#[tokio::test]
async fn a_page_may_read_how_the_call_ended() {
    let mesh = Mesh::start().await;
    let request = Request::post(GET_ITEM)
        .header("origin", PAGE)
        .header("content-type", "application/grpc-web+proto");
    let answer = within(mesh.gateway.http(request, frame(&get(FAILS)))).await;
    assert_eq!(answer.headers()["access-control-allow-origin"], PAGE, "on the call itself too");
    let exposed = answer.headers()["access-control-expose-headers"].to_str().expect("visible");
    for name in ["grpc-status", "grpc-message", "grpc-status-details-bin"] {
        assert!(exposed.split(',').any(|exposed| exposed == name), "`{name}` in `{exposed}`");
    }
}

#[tokio::test]
async fn plain_http_is_answered_as_http() {
    let gateway = start_gateway(config()).await;
    let page = gateway.get("/").await;
    assert_eq!(page.status(), StatusCode::OK, "a page for people");
    let text = String::from_utf8(page.body().to_vec()).expect("text");
    assert!(text.contains("clipmesh") && text.contains("grpcurl"), "what it is, how to call it");

    for path in ["/nothing", GET_ITEM] {
        let answer = gateway.get(path).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "`{path}` is no page");
        assert!(!answer.headers().contains_key("grpc-status"), "and not a gRPC answer");
    }
    for (content_type, expected) in [
        ("application/json", StatusCode::NOT_FOUND),
        ("application/grpc-web+json", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("application/grpc", StatusCode::BAD_REQUEST),
    ] {
        let request = Request::post(GET_ITEM).header("content-type", content_type);
        let answer = within(gateway.http(request, Bytes::new())).await;
        assert_eq!(answer.status(), expected, "`{content_type}` over HTTP/1.1");
        assert!(!answer.body().is_empty(), "with a word on why");
    }
}
