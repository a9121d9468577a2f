//! Refuses a request message that is too long, from its prefix alone.
//!
//! gRPC writes the length of a message before the message (gRPC over HTTP/2,
//! "Length-Prefixed-Message"), so a message that nobody will take can be refused before it travels
//! any further. What is checked is the length on the wire: one that is compressed may still grow
//! past the limit, which the upstream notices when it inflates it.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::sync::oneshot;
use tonic::Status;
use tonic::body::Body;

/// One byte of flags, four of length.
const PREFIX_LEN: usize = 5;

/// How long and how much to read on after a refusal; see [`Refused::linger`].
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 64 << 20;

/// Tells, at most once, that a message was refused.
#[derive(Debug)]
pub(crate) struct Refusal(Option<oneshot::Receiver<Refused>>);

/// A message that is too long.
#[derive(Debug)]
pub(crate) struct Refused {
    /// For the caller.
    pub(crate) status: Status,
    /// What it is still sending.
    rest: Body,
}

/// A body whose messages are measured on the way through.
struct Measured {
    inner: Body,
    messages: Messages,
    refusal: Option<oneshot::Sender<Refused>>,
}

/// Follows the boundaries of messages through chunks that know nothing of them.
#[derive(Debug)]
struct Messages {
    limit: usize,
    prefix: [u8; PREFIX_LEN],
    /// How much of the prefix is there.
    filled: usize,
    /// How much of the message itself is still to come.
    left: usize,
}

/// Lets `body` through up to the first message that is longer than `limit` bytes.
pub(crate) fn guard(body: Body, limit: usize) -> (Body, Refusal) {
    let (sender, receiver) = oneshot::channel();
    let messages = Messages { limit, prefix: [0; PREFIX_LEN], filled: 0, left: 0 };
    let measured = Measured { inner: body, messages, refusal: Some(sender) };
    (Body::new(measured), Refusal(Some(receiver)))
}

// === impl Refusal ===

impl Refusal {
    /// Waits for a refusal; for ever, if there is none.
    pub(crate) async fn refused(&mut self) -> Refused {
        std::future::poll_fn(|cx| self.poll_refused(cx)).await
    }

    /// Like [`Self::refused`].
    pub(crate) fn poll_refused(&mut self, cx: &mut Context<'_>) -> Poll<Refused> {
        let Some(receiver) = &mut self.0 else {
            return Poll::Pending;
        };
        let told = ready!(pin!(receiver).poll(cx));
        self.0 = None;
        // The sender goes with the body, once all of it was within bounds.
        told.map_or(Poll::Pending, Poll::Ready)
    }
}

// === impl Refused ===

impl Refused {
    /// Reads on for a little and throws away what comes, then returns the status. A caller over
    /// HTTP/1.1 often looks for the answer only once it has sent everything, and to close the
    /// connection on it would lose the answer. Over HTTP/2 it is told in between.
    pub(crate) async fn linger(mut self) -> Status {
        let drained = async {
            let mut budget = LINGER_BYTES;
            while let Some(Ok(frame)) = self.rest.frame().await {
                let len = frame.data_ref().map_or(0, Bytes::len);
                let Some(left) = budget.checked_sub(len) else {
                    return;
                };
                budget = left;
            }
        };
        // Whoever is still sending by then learns it from the closed connection.
        if tokio::time::timeout(LINGER_TIMEOUT, drained).await.is_err() {
            tracing::debug!("a refused caller goes on sending");
        }
        self.status
    }
}

// === impl Measured ===

impl http_body::Body for Measured {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        let Some(Ok(Some(chunk))) = frame.as_ref().map(|frame| frame.as_ref().map(Frame::data_ref))
        else {
            return Poll::Ready(frame);
        };
        let Err(len) = self.messages.follow(chunk) else {
            return Poll::Ready(frame);
        };
        let status = too_long(len, self.messages.limit);
        let rest = std::mem::take(&mut self.inner);
        if let Some(refusal) = self.refusal.take() {
            // Nobody listens when the call is over already; then nobody needs the answer.
            drop(refusal.send(Refused { status: status.clone(), rest }));
        }
        // Breaks the outgoing call: the upstream must not take half a message for a whole one.
        Poll::Ready(Some(Err(status)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Unknown, whatever the inner body says: tonic-web passes on the length of the base64 text
        // as that of the bytes inside, and a wrong `content-length` breaks the call.
        SizeHint::default()
    }
}

// === impl Messages ===

impl Messages {
    /// Takes the next chunk; `Err` holds the length of a message over the limit.
    fn follow(&mut self, mut chunk: &[u8]) -> Result<(), usize> {
        while !chunk.is_empty() {
            if self.left > 0 {
                let taken = self.left.min(chunk.len());
                self.left -= taken;
                chunk = &chunk[taken..];
                continue;
            }
            let taken = (PREFIX_LEN - self.filled).min(chunk.len());
            self.prefix[self.filled..self.filled + taken].copy_from_slice(&chunk[..taken]);
            self.filled += taken;
            chunk = &chunk[taken..];
            if self.filled == PREFIX_LEN {
                let [_flags, length @ ..] = self.prefix;
                let len = u32::from_be_bytes(length) as usize;
                if len > self.limit {
                    return Err(len);
                }
                self.filled = 0;
                self.left = len;
            }
        }
        Ok(())
    }
}

/// The status that a tonic server gives for the same fault, so that a caller needs one rule for
/// all ports.
fn too_long(len: usize, limit: usize) -> Status {
    Status::out_of_range(format!(
        "a request message of {len} bytes is too long: at most {limit} bytes are taken"
    ))
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use proptest::prelude::*;
    use tonic::Code;

    use super::*;

    const LIMIT: usize = 100;

    fn message(len: usize) -> Vec<u8> {
        let prefix = u32::try_from(len).expect("a short message").to_be_bytes();
        // Content that would read as a huge prefix if a boundary were missed.
        [&[0], &prefix[..], &vec![0xff; len]].concat()
    }

    fn chunks(bytes: &[u8], size: usize) -> Body {
        let frames: Vec<_> = bytes
            .chunks(size)
            .map(|chunk| Ok::<_, Status>(Frame::data(Bytes::copy_from_slice(chunk))))
            .collect();
        Body::new(http_body_util::StreamBody::new(futures::stream::iter(frames)))
    }

    #[tokio::test]
    async fn messages_within_the_limit_pass_unchanged() {
        let sent = [message(0), message(1), message(LIMIT), message(7)].concat();
        let (body, mut refusal) = guard(chunks(&sent, 3), LIMIT);
        let arrived = body.collect().await.expect("nothing is refused").to_bytes();
        assert_eq!(arrived, sent, "byte for byte");
        assert!(refusal.refused().now_or_never().is_none(), "and no refusal afterwards");
    }

    #[tokio::test]
    async fn a_message_over_the_limit_is_refused_by_its_prefix() {
        let prefix_only = &message(LIMIT + 1)[..PREFIX_LEN];
        let sent = [&message(LIMIT), prefix_only].concat();
        let (body, mut refusal) = guard(chunks(&sent, 1), LIMIT);
        let error = body.collect().await.expect_err("the outgoing call breaks");
        assert_eq!(error.code(), Code::OutOfRange, "as from a tonic server");
        let refused = refusal.refused().now_or_never().expect("the refusal is told");
        let message = refused.status.message();
        assert!(message.contains("101") && message.contains("100"), "both sizes: {message}");
    }

    #[tokio::test]
    async fn lingers_until_the_caller_has_sent_everything() {
        let (sender, mut sent) = tokio::sync::mpsc::channel::<()>(1);
        let more = futures::stream::unfold((0, sender), |(count, sender)| async move {
            let frame = Ok::<_, Status>(Frame::data(Bytes::from(message(LIMIT + 1))));
            (count < 10).then_some((frame, (count + 1, sender)))
        });
        let (body, mut refusal) = guard(Body::new(http_body_util::StreamBody::new(more)), LIMIT);
        drop(body.collect().await);
        let status = refusal.refused().await.linger().await;
        assert_eq!(status.code(), Code::OutOfRange, "the answer is kept");
        assert_eq!(sent.recv().await, None, "the caller's body was read to its end");
    }

    proptest! {
        #[test]
        fn boundaries_of_chunks_do_not_matter(
            lens in prop::collection::vec(0_usize..2 * LIMIT, 0..8),
            size in 1_usize..300,
        ) {
            let bytes: Vec<u8> = lens.iter().copied().flat_map(message).collect();
            let mut messages =
                Messages { limit: LIMIT, prefix: [0; PREFIX_LEN], filled: 0, left: 0 };
            let verdict = bytes.chunks(size).try_for_each(|chunk| messages.follow(chunk));
            let first_too_long = lens.into_iter().find(|&len| len > LIMIT);
            prop_assert_eq!(verdict.err(), first_too_long, "the first that is too long");
        }
    }
}
