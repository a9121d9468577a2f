//! The way to the server: connections to every node, and past those that can't be reached.
//!
//! qdrant-client's own pool knows neither an authority of one's own for TLS, nor several nodes, nor
//! a deadline per call, so its generated clients run over this instead.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{ConnectError, TimeoutExpired};
use tower::{Service, ServiceExt as _};

use super::config::Config;
use crate::store::Error;

/// Where Qdrant looks for the key.
const API_KEY: &str = "api-key";

/// How long a node that could not be reached, or did not answer, is tried only after the others.
/// Every call to a node that swallows packets costs the time to connect, and every call to one that
/// hangs the time until the connection is given up.
const REST: Duration = Duration::from_secs(5);

/// How often an idle connection is asked for a sign of life, and how long the answer may take: a
/// node that vanished without a word is noticed within 15 s.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections to all nodes. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Transport {
    nodes: Arc<[Node]>,
    turn: Arc<AtomicUsize>,
    api_key: Option<HeaderValue>,
}

/// One address.
#[derive(Debug)]
struct Node {
    connections: Vec<Channel>,
    /// When a call to it last failed on the way.
    lost_at: Mutex<Option<Instant>>,
}

// === impl Transport ===

impl Transport {
    /// Prepares connections; they are opened by the first call, and again whenever one was lost.
    ///
    /// # Errors
    /// An address that is none, a key that can't be sent, or a file of authorities that can't be
    /// used.
    pub(super) fn new(config: &Config) -> Result<Self, Error> {
        let authorities = config.ca_file.as_ref().map(|path| {
            let pem = std::fs::read(path);
            pem.map_err(|error| invalid(format!("read `{}`: {error}", path.display())))
        });
        let authorities = authorities.transpose()?;
        let nodes = config.urls().map(|url| Node::new(url, authorities.as_deref(), config));
        let api_key = config.api_key.as_ref().map(|key| {
            let mut value = HeaderValue::from_str(key.reveal())
                .map_err(|_| invalid("`store.qdrant.api_key` has characters of no key"))?;
            value.set_sensitive(true);
            Ok(value)
        });
        Ok(Self {
            nodes: nodes.collect::<Result<_, Error>>()?,
            turn: Arc::default(),
            api_key: api_key.transpose()?,
        })
    }

    /// Sends a call to the next node, and to those after it if it was surely not sent.
    async fn send(self, request: Request<Body>) -> Result<Response<Body>, tonic::transport::Error> {
        let (mut parts, body) = request.into_parts();
        if let Some(api_key) = &self.api_key {
            parts.headers.insert(API_KEY, api_key.clone());
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut order = self.order(turn);
        // There is at least one address: splitting a text gives at least one part.
        let mut node = order.remove(0);
        let mut others = order.into_iter();
        // Calls of the store are single messages, which are there already.
        let body = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(status) => return Ok(status.into_http()),
        };
        loop {
            let sent = node.connection(turn / self.nodes.len());
            let request = Request::from_parts(parts.clone(), whole(body.clone()));
            let answer = sent.oneshot(request).await;
            let fault = answer.as_ref().err().and_then(fault);
            if answer.is_ok() || fault.is_some() {
                *node.lost_at() = fault.map(|_| Instant::now());
            }
            match others.next() {
                Some(next) if fault == Some(Fault::Unsent) => node = next,
                Some(_) | None => return answer,
            }
        }
    }

    /// All nodes, from the one whose turn it is; those last that lately failed.
    fn order(&self, turn: usize) -> Vec<&Node> {
        let count = self.nodes.len();
        let mut order: Vec<_> = (0..count).map(|i| &self.nodes[(turn + i) % count]).collect();
        let now = Instant::now();
        // Each is asked once: other calls may change the answer meanwhile.
        order.sort_by_cached_key(|node| node.is_resting(now));
        order
    }
}

impl Service<Request<Body>> for Transport {
    type Response = Response<Body>;
    type Error = tonic::transport::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, tonic::transport::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), tonic::transport::Error>> {
        // Each connection is waited for when it is known which.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.clone().send(request).boxed()
    }
}

// === impl Node ===

impl Node {
    fn new(url: &str, authorities: Option<&[u8]>, config: &Config) -> Result<Self, Error> {
        let not_usable = |error| invalid(format!("`{url}` is not an address to call: {error}"));
        let mut endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(not_usable)?
            .connect_timeout(config.connect_timeout)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        if url.starts_with("https://") {
            let tls = match authorities {
                Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
                None => ClientTlsConfig::new().with_native_roots(),
            };
            endpoint = endpoint.tls_config(tls).map_err(not_usable)?;
        }
        let connections = (0..config.connections.get()).map(|_| endpoint.connect_lazy()).collect();
        Ok(Self { connections, lost_at: Mutex::new(None) })
    }

    fn connection(&self, turn: usize) -> Channel {
        self.connections[turn % self.connections.len()].clone()
    }

    fn is_resting(&self, now: Instant) -> bool {
        self.lost_at().is_some_and(|lost_at| now.duration_since(lost_at) < REST)
    }

    fn lost_at(&self) -> MutexGuard<'_, Option<Instant>> {
        self.lost_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What went wrong with a call on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// It failed before there was a connection to send it over.
    Unsent,
    /// The connection broke, and nobody knows what the node has done.
    Broken,
}

/// What went wrong; `None` if just the caller's time was up, which says nothing of the node.
fn fault(error: &tonic::transport::Error) -> Option<Fault> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return Some(Fault::Unsent);
        }
        if error.is::<TimeoutExpired>() {
            return None;
        }
        cause = error.source();
    }
    Some(Fault::Broken)
}

fn whole(body: Bytes) -> Body {
    Body::new(Full::new(body))
}

fn invalid(why: impl std::fmt::Display) -> Error {
    Error::Failed(why.to_string())
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;

    use super::*;

    fn transport(url: &str) -> Transport {
        let config = Config { url: url.to_owned(), ..Config::default() };
        Transport::new(&config).expect("addresses")
    }

    fn order(transport: &Transport, turn: usize) -> Vec<usize> {
        let nodes = transport.order(turn).into_iter();
        let place =
            |node: &Node| transport.nodes.iter().position(|other| std::ptr::eq(other, node));
        nodes.filter_map(place).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn nodes_take_turns_and_a_lost_one_comes_last_for_a_while() {
        let transport = transport("http://a:1,http://b:2,http://c:3");
        assert_eq!(order(&transport, 0), [0, 1, 2], "the first call");
        assert_eq!(order(&transport, 1), [1, 2, 0], "the second");
        *transport.nodes[1].lost_at() = Some(Instant::now());
        assert_eq!(
            order(&transport, 1),
            [2, 0, 1],
            "it can't be reached, but may be the last hope"
        );
        tokio::time::advance(REST).await;
        assert_eq!(order(&transport, 1), [1, 2, 0], "it gets another chance");
    }

    /// Takes connections, and breaks each at the first call.
    async fn breaks_at_once() -> (String, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let serving = tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.expect("a connection");
                socket.read_u8().await.expect("a call begins");
            }
        });
        (url, serving)
    }

    #[tokio::test]
    async fn a_node_that_breaks_a_call_comes_last_but_the_call_is_not_sent_again() {
        let (one, serving_one) = breaks_at_once().await;
        let (other, serving_other) = breaks_at_once().await;
        let transport = transport(&format!("{one},{other}"));
        let request = || Request::post("/a.B/C").body(Body::empty()).expect("a request");
        transport.clone().send(request()).await.expect_err("it breaks");
        let now = Instant::now();
        let resting: Vec<_> = transport.nodes.iter().map(|node| node.is_resting(now)).collect();
        assert_eq!(resting, [true, false], "the first alone, which may have done it");
        assert_eq!(order(&transport, 0), [1, 0], "it comes last");
        serving_one.abort();
        serving_other.abort();
    }

    #[tokio::test]
    async fn refuses_what_is_no_address() {
        let config = Config { url: "http://a b".to_owned(), ..Config::default() };
        let error = Transport::new(&config).expect_err("no address").to_string();
        assert!(error.contains("http://a b"), "it is named: {error}");
    }
}
