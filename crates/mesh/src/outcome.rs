//! How a call ended, seen from outside it.
//!
//! gRPC puts the status of a call into its trailers, after the last message, or into the headers
//! when there is no message at all. A layer that wants it must watch the body to its end.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tonic::body::Body;
use tonic::{Code, Status};

/// Calls back once with the status that a call ended with. A body that is dropped before its end
/// was cancelled by the caller.
pub(crate) fn observe<F>(response: http::Response<Body>, done: F) -> http::Response<Body>
where
    F: FnOnce(Code) + Send + 'static,
{
    let (parts, body) = response.into_parts();
    if let Some(code) = code(&parts.headers) {
        done(code);
        return http::Response::from_parts(parts, body);
    }
    let observed = Observed { body, done: Some(Box::new(done)) };
    http::Response::from_parts(parts, Body::new(observed))
}

fn code(headers: &HeaderMap) -> Option<Code> {
    // Not the whole status: parsing its details panics on what is no base64, and a proxied answer
    // may hold anything.
    headers.get("grpc-status").map(|value| Code::from_bytes(value.as_bytes()))
}

struct Observed {
    body: Body,
    done: Option<Box<dyn FnOnce(Code) + Send>>,
}

impl Observed {
    fn finish(&mut self, code: Code) {
        if let Some(done) = self.done.take() {
            done(code);
        }
    }
}

impl http_body::Body for Observed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.finish(code(trailers).unwrap_or(Code::Unknown));
                }
            }
            Some(Err(status)) => {
                let code = status.code();
                self.finish(code);
            }
            // A gRPC body without trailers does not say how the call went.
            None => self.finish(Code::Unknown),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        self.finish(Code::Cancelled);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use http_body_util::BodyExt as _;

    use super::*;

    fn observed(response: http::Response<Body>) -> (http::Response<Body>, mpsc::Receiver<Code>) {
        let (sender, receiver) = mpsc::channel();
        let response = observe(response, move |code| sender.send(code).expect("the test listens"));
        (response, receiver)
    }

    #[test]
    fn reads_a_call_without_messages_from_its_headers() {
        let (_, codes) = observed(Status::not_found("gone").into_http());
        assert_eq!(codes.recv(), Ok(Code::NotFound), "known before the body");
    }

    #[tokio::test]
    async fn reads_a_call_with_messages_from_its_trailers() {
        let trailers = HeaderMap::from_iter([(
            http::HeaderName::from_static("grpc-status"),
            "8".parse().expect("a number"),
        )]);
        let messages = http_body_util::Full::new(Bytes::from_static(b"message"))
            .with_trailers(std::future::ready(Some(Ok(trailers))));
        let (response, codes) = observed(http::Response::new(Body::new(messages)));
        assert!(codes.try_recv().is_err(), "unknown before the end");
        response.into_body().collect().await.expect("the body is whole");
        assert_eq!(codes.recv(), Ok(Code::ResourceExhausted), "from the trailers");
    }

    #[test]
    fn a_body_dropped_midway_is_cancelled() {
        let body = http_body_util::Full::new(Bytes::from_static(b"message"));
        let (response, codes) = observed(http::Response::new(Body::new(body)));
        drop(response);
        assert_eq!(codes.recv(), Ok(Code::Cancelled), "nobody waited for the end");
    }
}
