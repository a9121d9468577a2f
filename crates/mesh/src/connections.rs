//! The connections of a server: taken in, drained, and in the end cut off.
//!
//! ```text
//!            asked to stop            the last call is answered
//! accepting ──────────────► draining ─────────────────────────► over
//!                              │ dropped
//!                              └──────► cut off, with the calls that are left
//! ```

use axum::Router;
use axum::serve::Listener;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Open connections. Dropping this cuts them off: their calls are dropped, and the callers see the
/// connection close.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    tasks: JoinSet<()>,
    goodbye: CancellationToken,
}

// === impl Connections ===

impl Connections {
    /// Takes in connections until `asked_to_stop`, then closes the port.
    pub(crate) async fn accept(
        &mut self,
        mut listener: TcpListener,
        router: &Router,
        asked_to_stop: impl Future<Output = ()>,
    ) {
        let mut asked_to_stop = std::pin::pin!(asked_to_stop);
        loop {
            tokio::select! {
                () = &mut asked_to_stop => return,
                // Not tokio's `accept`: this one outlasts a shortage of file descriptors.
                (stream, _) = Listener::accept(&mut listener) => {
                    self.tasks.spawn(serve(stream, router.clone(), self.goodbye.clone()));
                }
                // Lest those that have ended pile up.
                Some(_) = self.tasks.join_next() => {}
            }
        }
    }

    /// Takes no new calls, and waits until those under way are answered.
    pub(crate) async fn drain(mut self) {
        self.goodbye.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

async fn serve(stream: TcpStream, router: Router, goodbye: CancellationToken) {
    // Small messages go out at once: a call is often one packet each way.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps its delays");
    }
    let builder = Builder::new(TokioExecutor::new());
    let service = TowerToHyperService::new(router);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = goodbye.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}
