//! The answer's body on its way back: always ended by a status.
//!
//! A connection that breaks in the middle of an answer would reach the caller as a reset stream
//! or, over HTTP/1.1, as a body that just ends. Here it becomes trailers that say what happened.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use super::limit::Refusal;
use super::rescue;
use super::tether::Tether;
use crate::metrics;

/// Ends an upstream's body with a status if the upstream does not, and at once if a request
/// message is refused while the answer is under way.
#[derive(Debug)]
pub(crate) struct Reply {
    upstream: &'static str,
    body: Body,
    refusal: Refusal,
    /// Nothing more is sent once nobody waits for the answer.
    tether: Option<Tether>,
    is_over: bool,
}

// === impl Reply ===

impl Reply {
    pub(crate) fn new(
        upstream: &'static str,
        body: Body,
        refusal: Refusal,
        tether: Tether,
    ) -> Self {
        Self { upstream, body, refusal, tether: Some(tether), is_over: false }
    }

    fn end_with(&mut self, status: &Status) -> Frame<Bytes> {
        self.is_over = true;
        // Together they cancel what the upstream still does for this call.
        self.body = Body::empty();
        self.tether = None;
        let mut trailers = HeaderMap::new();
        if let Err(unfit) = status.add_header(&mut trailers) {
            // Only a status with odd metadata can't be written, and none of ours has any.
            tracing::error!(error = ?unfit, "a status could not be written");
        }
        Frame::trailers(trailers)
    }
}

impl http_body::Body for Reply {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        // First, because the refusal also breaks the call, and it is the cause.
        if let Poll::Ready(refused) = self.refusal.poll_refused(cx) {
            metrics::message_refused(self.upstream);
            return Poll::Ready(Some(Ok(self.end_with(&refused.status))));
        }
        match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Err(status)) => {
                let status = rescue(self.upstream, status);
                Poll::Ready(Some(Ok(self.end_with(&status))))
            }
            frame => Poll::Ready(frame),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Unknown: trailers may be appended, and grpc-web writes them into the body.
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, StreamBody};

    use super::super::{limit, tether};
    use super::*;

    fn reply<S>(frames: S, refusal: Refusal) -> Body
    where
        S: futures::Stream<Item = Result<Frame<Bytes>, Status>> + Send + 'static,
    {
        let (_, tether) = tether::tie(Body::empty());
        Body::new(Reply::new("search", Body::new(StreamBody::new(frames)), refusal, tether))
    }

    fn no_refusal() -> Refusal {
        limit::guard(Body::empty(), 0).1
    }

    async fn grpc_status(body: Body) -> String {
        let collected = body.collect().await.expect("the body ends well");
        let trailers = collected.trailers().expect("trailers");
        trailers["grpc-status"].to_str().expect("a number").to_owned()
    }

    #[tokio::test]
    async fn a_broken_answer_ends_with_unavailable() {
        let frames = [
            Ok(Frame::data(Bytes::from_static(b"first"))),
            Err(Status::unknown("connection reset by peer")),
        ];
        let mut reply = reply(futures::stream::iter(frames), no_refusal());
        let first = reply.frame().await.expect("a frame").expect("it came before the break");
        assert_eq!(first.data_ref().map(AsRef::as_ref), Some(&b"first"[..]), "passed on");
        assert_eq!(grpc_status(reply).await, "14", "UNAVAILABLE");
    }

    #[tokio::test]
    async fn trailers_pass_unchanged() {
        let trailers = HeaderMap::from_iter([(
            http::HeaderName::from_static("grpc-status"),
            http::HeaderValue::from_static("5"),
        )]);
        let reply = reply(futures::stream::iter([Ok(Frame::trailers(trailers))]), no_refusal());
        assert_eq!(grpc_status(reply).await, "5", "NOT_FOUND");
    }

    #[tokio::test]
    async fn a_refusal_ends_an_answer_under_way() {
        let (request, refusal) = limit::guard(
            Body::new(http_body_util::Full::new(Bytes::from_static(&[0, 0, 0, 0, 9]))),
            8,
        );
        let reply = reply(futures::stream::pending(), refusal);
        let (status, sent) = tokio::join!(grpc_status(reply), request.collect());
        assert_eq!(status, "11", "OUT_OF_RANGE");
        assert!(sent.is_err(), "the request breaks off");
    }
}
