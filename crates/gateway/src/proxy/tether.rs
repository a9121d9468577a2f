//! Ends a request when its answer ends.
//!
//! An HTTP/2 stream has two halves, and the client's library resets it only when both are dropped.
//! The half that sends is driven by the connection, out of the proxy's hands: a caller who sends
//! slowly would keep an upstream at work on a call that is over. So the request's body watches
//! whether the answer is still wanted.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::oneshot;
use tonic::Status;
use tonic::body::Body;

/// Held by the answer; dropping it breaks the request off, if it is not over yet.
#[derive(Debug)]
#[must_use = "dropping it ends the request"]
pub(crate) struct Tether {
    _held: oneshot::Sender<Infallible>,
}

struct Tethered {
    body: Body,
    cut: oneshot::Receiver<Infallible>,
}

/// Ties a request's body to the [`Tether`].
pub(crate) fn tie(body: Body) -> (Body, Tether) {
    let (held, cut) = oneshot::channel();
    (Body::new(Tethered { body, cut }), Tether { _held: held })
}

impl http_body::Body for Tethered {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        let has_ended = matches!(frame, Poll::Ready(None | Some(Err(_))));
        // A body that broke by itself knows why, and its reason goes on to the upstream.
        if !has_ended && Pin::new(&mut self.cut).poll(cx).is_ready() {
            return Poll::Ready(Some(Err(Status::cancelled("the call is over"))));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use http_body_util::{BodyExt as _, Full, StreamBody};

    use super::*;

    #[tokio::test]
    async fn a_request_that_still_waits_is_broken_off() {
        let endless = futures::stream::pending::<Result<Frame<Bytes>, Status>>();
        let (mut body, tether) = tie(Body::new(StreamBody::new(endless)));
        assert!(body.frame().now_or_never().is_none(), "nothing comes yet");
        drop(tether);
        let broken = body.frame().now_or_never().expect("it is told at once");
        assert!(broken.expect("not an end").is_err(), "a break: the message may not be whole");
    }

    #[tokio::test]
    async fn a_request_passes_while_the_answer_is_wanted() {
        let (body, _tether) = tie(Body::new(Full::new(Bytes::from_static(b"whole"))));
        let arrived = body.collect().await.expect("no break").to_bytes();
        assert_eq!(arrived, "whole", "unchanged");
    }
}
