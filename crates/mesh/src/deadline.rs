//! A call's deadline: how it comes in, what it bounds, how it goes on to the next hop.
//!
//! A caller sends the time it will still wait in `grpc-timeout`. `enforce` ends the call with
//! `DEADLINE_EXCEEDED` when that time is up, whether it waits for the first message or the last,
//! and drops the work. Inside, [`remaining`] tells what is left, and `bound` passes it on.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tonic::Status;
use tonic::body::Body;
use tower::ServiceExt as _;

use crate::middleware::Next;

/// The header of the gRPC protocol that carries the caller's patience.
const GRPC_TIMEOUT: &str = "grpc-timeout";

/// The protocol allows eight digits.
const MAX_DIGITS: usize = 8;

tokio::task_local! {
    static DEADLINE: Instant;
}

/// What is left of the time that the caller of the present call will wait; `None` if it set none.
/// Zero once it is over. A task that was spawned on the way knows nothing of it.
pub fn remaining() -> Option<Duration> {
    DEADLINE.try_with(|deadline| deadline.saturating_duration_since(Instant::now())).ok()
}

/// Runs an incoming call within the deadline that its headers set.
pub(crate) async fn enforce(
    request: Request<Body>,
    next: Next<Infallible>,
) -> Result<Response<Body>, Infallible> {
    let Some(patience) = parse(request.headers()) else {
        return next.oneshot(request).await;
    };
    let deadline = Instant::now() + patience;
    let call = DEADLINE.scope(deadline, next.oneshot(request));
    match timeout_at(deadline, call).await {
        Ok(answer) => answer.map(|response| response.map(|body| cut_off(body, deadline))),
        Err(_) => Ok(exceeded().into_http()),
    }
}

/// Runs an outgoing call within `cap` and what is left of the incoming one, whichever is tighter,
/// and tells the callee.
pub(crate) async fn bound(
    cap: Option<Duration>,
    mut request: Request<Body>,
    next: Next<Status>,
) -> Result<Response<Body>, Status> {
    // A proxied call still carries its caller's header; what was spent here is taken off.
    let left = remaining().or_else(|| parse(request.headers()));
    let Some(patience) = [cap, left].into_iter().flatten().min() else {
        return next.oneshot(request).await;
    };
    request.headers_mut().insert(GRPC_TIMEOUT, format(patience));
    let deadline = Instant::now() + patience;
    match timeout_at(deadline, next.oneshot(request)).await {
        Ok(answer) => answer.map(|response| response.map(|body| cut_off(body, deadline))),
        Err(_) => Err(exceeded()),
    }
}

/// The status of a call whose time is up.
pub(crate) fn exceeded() -> Status {
    Status::deadline_exceeded("the deadline passed before the answer was there")
}

/// Ends a body with `DEADLINE_EXCEEDED` at `deadline`.
fn cut_off(body: Body, deadline: Instant) -> Body {
    if body.is_end_stream() {
        return body;
    }
    Body::new(Bounded { body, sleep: Box::pin(sleep_until(deadline)), is_over: false })
}

/// A body that must be over by a deadline.
struct Bounded {
    body: Body,
    sleep: Pin<Box<Sleep>>,
    is_over: bool,
}

impl http_body::Body for Bounded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        std::task::ready!(self.sleep.as_mut().poll(cx));
        self.is_over = true;
        // Dropping the body cancels what still feeds it.
        self.body = Body::empty();
        let mut trailers = HeaderMap::new();
        Poll::Ready(Some(match exceeded().add_header(&mut trailers) {
            Ok(()) => Ok(Frame::trailers(trailers)),
            Err(status) => Err(status),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// Reads `grpc-timeout`: up to eight digits and a unit (gRPC over HTTP/2, "Timeout").
fn parse(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > MAX_DIGITS || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

/// Writes a duration in the finest unit that fits into eight digits.
fn format(patience: Duration) -> HeaderValue {
    let largest = 10_u128.pow(MAX_DIGITS as u32) - 1;
    let units = [
        (patience.as_micros(), 'u'),
        (patience.as_millis(), 'm'),
        (patience.as_secs().into(), 'S'),
    ];
    let (value, unit) =
        units.into_iter().find(|&(value, _)| value <= largest).unwrap_or((largest, 'S'));
    HeaderValue::from_str(&format!("{value}{unit}")).expect("digits and a letter are visible ASCII")
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tonic::Code;

    use super::*;

    fn headers(timeout: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(
            http::HeaderName::from_static(GRPC_TIMEOUT),
            HeaderValue::from_static(timeout),
        )])
    }

    fn request(timeout: &'static str) -> Request<Body> {
        let mut request = Request::new(Body::empty());
        *request.headers_mut() = headers(timeout);
        request
    }

    fn next<F, R, E>(call: F) -> Next<E>
    where
        F: Fn(Request<Body>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Result<Response<Body>, E>> + Send + 'static,
        E: Send + 'static,
    {
        Next::new(tower::service_fn(call))
    }

    #[test]
    fn reads_every_unit_and_refuses_the_rest() {
        assert_eq!(parse(&headers("2H")), Some(Duration::from_secs(7200)), "hours");
        assert_eq!(parse(&headers("3M")), Some(Duration::from_secs(180)), "minutes");
        assert_eq!(parse(&headers("250m")), Some(Duration::from_millis(250)), "milliseconds");
        assert_eq!(parse(&headers("99999999n")), Some(Duration::from_nanos(99_999_999)), "nanos");
        for bad in ["", "S", "5", "5s", "-5S", "123456789S", "1.5S"] {
            assert_eq!(parse(&headers(bad)), None, "`{bad}` is no timeout");
        }
    }

    #[test]
    fn writes_what_it_reads() {
        for patience in [Duration::from_micros(1_500), Duration::from_secs(90), Duration::ZERO] {
            let headers = HeaderMap::from_iter([(
                http::HeaderName::from_static(GRPC_TIMEOUT),
                format(patience),
            )]);
            assert_eq!(parse(&headers), Some(patience), "{patience:?} is read back");
        }
        assert_eq!(format(Duration::MAX), "99999999S", "as long as the protocol can say");
    }

    #[tokio::test(start_paused = true)]
    async fn drops_the_work_when_the_time_is_up() {
        let (alive, dropped) = std::sync::mpsc::channel::<()>();
        let stuck = next(move |_| {
            let alive = alive.clone();
            async move {
                let _alive = alive;
                std::future::pending().await
            }
        });
        let Ok(response) = enforce(request("50m"), stuck).await;
        let status = Status::from_header_map(response.headers()).expect("a status");
        assert_eq!(status.code(), Code::DeadlineExceeded, "not cancelled: exceeded");
        let disconnected = Err(std::sync::mpsc::TryRecvError::Disconnected);
        assert_eq!(dropped.try_recv(), disconnected, "the work and all it owned is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn ends_a_stream_that_outlives_its_deadline() {
        let endless = next(|_| async {
            let frames = futures::stream::pending::<Result<Frame<Bytes>, Status>>();
            Ok(Response::new(Body::new(http_body_util::StreamBody::new(frames))))
        });
        let Ok(response) = enforce(request("50m"), endless).await;
        let collected = response.into_body().collect().await.expect("trailers end the body");
        let trailers = collected.trailers().expect("trailers");
        assert_eq!(trailers["grpc-status"], "4", "DEADLINE_EXCEEDED in the trailers");
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_hop_gets_what_is_left() {
        let (sent, received) = std::sync::mpsc::channel();
        let callee = next(move |request: Request<Body>| {
            sent.send(parse(request.headers())).expect("the test listens");
            async { Ok(Response::new(Body::empty())) }
        });
        let service = next(move |_| {
            let callee = callee.clone();
            async move {
                tokio::time::advance(Duration::from_millis(30)).await;
                for cap in [Duration::from_secs(1), Duration::from_millis(10)] {
                    bound(Some(cap), Request::new(Body::empty()), callee.clone())
                        .await
                        .expect("the callee answers");
                }
                Ok(Response::new(Body::empty()))
            }
        });
        let Ok(_) = enforce(request("100m"), service).await;
        assert_eq!(received.recv(), Ok(Some(Duration::from_millis(70))), "100 ms less 30 ms");
        assert_eq!(received.recv(), Ok(Some(Duration::from_millis(10))), "the tighter bound");
        assert_eq!(remaining(), None, "outside of a call there is no deadline");
    }

    #[tokio::test(start_paused = true)]
    async fn gives_up_on_a_callee_that_hangs() {
        let stuck = next(|_| std::future::pending());
        let cap = Some(Duration::from_millis(20));
        let status = bound(cap, Request::new(Body::empty()), stuck).await.expect_err("it hangs");
        assert_eq!(status.code(), Code::DeadlineExceeded, "as the server would have said");
    }
}
