//! Which headers go on to the next hop (RFC 9110, section 7.6.1).

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Extensions, Version};

/// Headers that speak of one connection, not of the call.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Removes what must not go on: hop-by-hop headers, those that `connection` names, and the length,
/// which no longer holds once trailers are appended or an encoding is undone.
pub(crate) fn clean(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named).chain([&header::CONTENT_LENGTH]) {
        headers.remove(name);
    }
}

/// The head of the call as it goes to an upstream: everything that the caller sent along, on a
/// connection of our own.
pub(crate) fn outgoing(mut parts: Parts) -> Parts {
    clean(&mut parts.headers);
    // The upstream's own name takes its place.
    parts.headers.remove(header::HOST);
    // Some servers and proxies take only calls that understand trailers.
    parts.headers.insert(header::TE, HeaderValue::from_static("trailers"));
    parts.version = Version::HTTP_2;
    // They belong to the caller's connection.
    parts.extensions = Extensions::new();
    parts
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn head(headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::post("/package.Service/Method").version(Version::HTTP_11);
        for &(name, value) in headers {
            request = request.header(name, value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    #[test]
    fn what_is_about_the_connection_stays_behind() {
        let parts = outgoing(head(&[
            ("connection", "keep-alive, x-secret"),
            ("connection", "x-other"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("x-secret", "1"),
            ("x-other", "1"),
            ("host", "gateway:8080"),
            ("content-length", "17"),
            ("te", "deflate"),
        ]));
        let left: Vec<_> = parts.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["te"], "nothing else goes on");
        assert_eq!(parts.headers["te"], "trailers", "what the upstream may send");
        assert_eq!(parts.version, Version::HTTP_2, "gRPC's only version");
    }

    #[test]
    fn what_is_about_the_call_goes_on() {
        let sent = [
            ("content-type", "application/grpc"),
            ("grpc-timeout", "1S"),
            ("grpc-encoding", "gzip"),
            ("x-request-id", "a"),
            ("x-request-id", "b"),
            ("x-data-bin", "AAEC"),
            ("user-agent", "grpc-go/1.60"),
        ];
        let mut parts = outgoing(head(&sent));
        parts.headers.remove(header::TE);
        let arrived: Vec<_> = parts
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().expect("visible")))
            .collect();
        assert_eq!(arrived, sent, "every name and value, repeated ones too");
    }
}
