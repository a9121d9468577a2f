//! What a browser needs: grpc-web, permission to call from another origin, and a page that says
//! what this is.
//!
//! gRPC and plain HTTP share the port, told apart by the content type. tonic-web's layer takes
//! every HTTP/1.1 request that is not grpc-web for a broken one and answers 400, so only calls are
//! handed to it; all else is HTTP, with HTTP's own answers.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use clipmesh_mesh::server::GrpcService;
use http::header::{self, HeaderName};
use http::{Method, Request, StatusCode, Version};
use tonic::body::Body;
use tonic_web::GrpcWebLayer;
use tower::util::service_fn;
use tower::{Layer as _, ServiceExt as _};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::Error;
use crate::origin::Pattern;

/// How long a browser may remember what it was allowed: the most that Chromium takes.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(2 * 3600);

/// What a page may send: the protocol's own headers, and a trace context so that a trace can begin
/// in the browser.
const REQUEST_HEADERS: [HeaderName; 9] = [
    header::ACCEPT,
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    HeaderName::from_static("grpc-timeout"),
    HeaderName::from_static("x-grpc-web"),
    HeaderName::from_static("x-user-agent"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("baggage"),
];

/// What a page may read: how the call ended, which comes as headers when there is no message.
const RESPONSE_HEADERS: [HeaderName; 3] = [
    HeaderName::from_static("grpc-status"),
    HeaderName::from_static("grpc-message"),
    HeaderName::from_static("grpc-status-details-bin"),
];

const PAGE: &str = "\
clipmesh: find images by example or by words.

This port speaks gRPC (HTTP/2) and grpc-web (HTTP/1.1 or HTTP/2). Ask it what it serves:

    grpcurl -plaintext HOST:PORT list
    grpcurl -plaintext HOST:PORT describe clipmesh.search.v1.SearchService

For operators there are /livez, /readyz and /metrics.
";

const NOT_FOUND: &str = "\
nothing is here for plain HTTP; calls are POST requests of type application/grpc or \
application/grpc-web
";

const NEEDS_HTTP2: &str = "gRPC needs HTTP/2; over HTTP/1.1 use application/grpc-web\n";

/// What a request is, by its content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Grpc,
    GrpcWeb,
    /// Of the gRPC family, but none that is served here.
    OtherGrpc,
    Plain,
}

/// Everything on the port except what operators need.
pub(crate) fn router(grpc: GrpcService, origins: &[String]) -> Result<Router, Error> {
    let web = GrpcWebLayer::new().layer(grpc);
    let calls = service_fn(move |request: Request<axum::body::Body>| {
        let web = web.clone();
        async move {
            let refuse = |status: StatusCode, text| Ok((status, text).into_response());
            match Kind::of(&request) {
                Kind::Grpc if request.version() < Version::HTTP_2 => {
                    refuse(StatusCode::BAD_REQUEST, NEEDS_HTTP2)
                }
                Kind::Grpc | Kind::GrpcWeb => answered(web.oneshot(request).await),
                Kind::OtherGrpc => refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, NOT_FOUND),
                Kind::Plain => refuse(StatusCode::NOT_FOUND, NOT_FOUND),
            }
        }
    });
    Ok(Router::new().route("/", get(page)).fallback_service(calls).layer(cors(origins)?))
}

async fn page() -> &'static str {
    PAGE
}

fn answered(answer: Result<http::Response<Body>, Infallible>) -> Result<Response, Infallible> {
    answer.map(|response| response.map(axum::body::Body::new))
}

fn cors(origins: &[String]) -> Result<CorsLayer, Error> {
    let patterns: Vec<Pattern> =
        origins.iter().map(|origin| Pattern::parse(origin)).collect::<Result<_, _>>()?;
    // `*` itself is never sent but the caller's own origin, so that a cache can't hand one page's
    // permission to another.
    let is_allowed = AllowOrigin::predicate(move |origin, _| {
        patterns.iter().any(|pattern| pattern.matches(origin))
    });
    Ok(CorsLayer::new()
        .allow_origin(is_allowed)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(REQUEST_HEADERS)
        .expose_headers(RESPONSE_HEADERS)
        .max_age(PREFLIGHT_MAX_AGE))
}

// === impl Kind ===

impl Kind {
    fn of<B>(request: &Request<B>) -> Self {
        let content_type = request.headers().get(header::CONTENT_TYPE);
        let Some(rest) = content_type
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("application/grpc"))
        else {
            return Self::Plain;
        };
        match rest {
            "-web" | "-web+proto" | "-web-text" | "-web-text+proto" => Self::GrpcWeb,
            "" => Self::Grpc,
            _ if rest.starts_with(['+', ';']) => Self::Grpc,
            _ => Self::OtherGrpc,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_type_tells_what_a_request_is() {
        for (content_type, expected) in [
            ("application/grpc", Kind::Grpc),
            ("application/grpc+proto", Kind::Grpc),
            ("application/grpc;charset=utf-8", Kind::Grpc),
            ("application/grpc-web", Kind::GrpcWeb),
            ("application/grpc-web+proto", Kind::GrpcWeb),
            ("application/grpc-web-text", Kind::GrpcWeb),
            ("application/grpc-web-text+proto", Kind::GrpcWeb),
            ("application/grpc-web+json", Kind::OtherGrpc),
            ("application/json", Kind::Plain),
            ("text/html", Kind::Plain),
        ] {
            let request = Request::post("/").header("content-type", content_type).body(());
            let request = request.expect("a request");
            assert_eq!(Kind::of(&request), expected, "`{content_type}`");
        }
        assert_eq!(Kind::of(&Request::new(())), Kind::Plain, "no content type at all");
    }
}
