//! Calls another service.

use std::time::Duration;

use bytesize::ByteSize;
use http::{Request, Response};
use serde::{Deserialize, Serialize};
use tonic::body::Body;
use tonic::transport::Endpoint;
use tonic::{Code, Status};
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceBuilder, ServiceExt as _};

use crate::middleware::from_fn;
use crate::{Error, deadline, trace};

/// How often an idle connection is asked for a sign of life, and how long the answer may take: a
/// peer that vanished without a word is noticed within 15 s.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection to one service, for a generated client. Clones share it. What goes wrong on the way
/// is a status like those that the service itself sends.
pub type Channel = BoxCloneSyncService<Request<Body>, Response<Body>, Status>;

/// Settings of calls to one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Longest time for one call, if the caller's own deadline is not nearer. Absent: the
    /// caller's deadline alone counts, which long streams need. Default: 30 s.
    #[serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Longest time to open a connection. Default: 2 s.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// Longest message in either direction. Default: 32 MiB.
    pub max_message_bytes: ByteSize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            timeout: Some(Duration::from_secs(30)),
            connect_timeout: Duration::from_secs(2),
            max_message_bytes: ByteSize::mib(32),
        }
    }
}

impl Config {
    /// The limit in the form that tonic's clients take.
    pub fn max_message_len(&self) -> usize {
        usize::try_from(self.max_message_bytes.as_u64()).unwrap_or(usize::MAX)
    }
}

/// Prepares calls to `url`, as in `http://127.0.0.1:8082`. Connects at the first call, and again
/// whenever the connection was lost. A peer that can't be reached answers `UNAVAILABLE`, one that
/// takes too long `DEADLINE_EXCEEDED`.
///
/// # Errors
/// An address that is none.
pub fn channel(url: &str, config: &Config) -> Result<Channel, Error> {
    if !url.starts_with("http://") {
        return Err(Error::Scheme { url: url.to_owned() });
    }
    let channel = Endpoint::from_shared(url.to_owned())
        .map_err(|source| Error::Address { url: url.to_owned(), source })?
        .connect_timeout(config.connect_timeout)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true)
        .connect_lazy();
    Ok(over(channel, config.timeout))
}

/// Puts around a way to reach a peer what every call needs: the deadline, which is the caller's or
/// `timeout`, whichever is nearer; the trace; and a status in place of a fault on the way.
pub fn over<S>(transport: S, timeout: Option<Duration>) -> Channel
where
    S: Service<Request<Body>, Response = Response<Body>, Error = tonic::transport::Error>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
{
    ServiceBuilder::new()
        // Outermost: the time to connect counts too.
        .layer(from_fn(move |request, next| deadline::bound(timeout, request, next)))
        // Innermost, so that what goes out is the context of the span that makes the call.
        .layer(from_fn(trace::call))
        .service(BoxCloneSyncService::new(transport.map_err(status)))
}

/// What a fault of the connection is to the caller.
fn status(error: tonic::transport::Error) -> Status {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(error) = cause {
        // tonic's channel reads `grpc-timeout` too, and would call it cancelled.
        if error.is::<tonic::TimeoutExpired>() {
            return deadline::exceeded();
        }
        cause = error.source();
    }
    let status = Status::from_error(error.into());
    // What tonic makes of a connection that breaks during a call. The service itself said nothing,
    // and it may be back in a moment.
    if matches!(status.code(), Code::Unknown | Code::Internal | Code::Cancelled) {
        return Status::unavailable(format!("the connection was lost: {}", status.message()));
    }
    status
}
