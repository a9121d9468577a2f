//! Watches the services behind the gateway and reports for all of them.
//!
//! ```text
//!  upstream ◄─ Check ─ driver ─ Sight ► state (pure) ─ Verdict ► board ─┬► grpc.health.v1
//!                                                                       └► /readyz
//! ```
//!
//! The gateway as a whole, `""` in `grpc.health.v1` and `/readyz`, is healthy while the search
//! service is. The embedder is reported under its own name but does not count: without it, vectors,
//! stored items and cached queries are still answered. Calls are forwarded whatever the board says,
//! so a mistake here costs a report and never an answer.

mod board;
mod state;

use std::convert::Infallible;
use std::error::Error;
use std::time::Duration;

use clipmesh_mesh::Shutdown;
use clipmesh_mesh::client::Channel;
use futures::future::join_all;
use tokio::time::sleep;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

pub(crate) use self::board::Board;
use self::state::{News, Sight, State};
use crate::HealthConfig;

/// A service to be watched.
#[derive(Debug)]
pub(crate) struct Target {
    /// What people call it.
    name: &'static str,
    /// Its gRPC services, by their full names.
    services: Vec<String>,
    /// Where to ask.
    channel: Channel,
}

/// Asks every target for its health, again and again.
#[derive(Debug)]
pub(crate) struct Watcher {
    targets: Vec<Target>,
    board: Board,
    config: HealthConfig,
    /// How long a stopping gateway goes on serving.
    shutdown_delay: Duration,
}

// === impl Target ===

impl Target {
    pub(crate) fn new(name: &'static str, services: Vec<String>, channel: Channel) -> Self {
        Self { name, services, channel }
    }

    /// Its gRPC services, by their full names.
    pub(crate) fn services(&self) -> &[String] {
        &self.services
    }
}

// === impl Watcher ===

impl Watcher {
    pub(crate) fn new(
        targets: Vec<Target>,
        board: Board,
        config: HealthConfig,
        shutdown_delay: Duration,
    ) -> Self {
        Self { targets, board, config, shutdown_delay }
    }

    /// Watches until `shutdown`, then reports everything as not serving, for good. Once the
    /// gateway stops accepting, those who watch its health are sent home: their streams would
    /// otherwise hold up the drain to its end.
    pub(crate) async fn run(self, shutdown: Shutdown) -> Infallible {
        let watching = join_all(self.targets.iter().map(|target| self.watch(target)));
        tokio::select! {
            _ = watching => {}
            () = shutdown.requested() => {}
        }
        self.board.drain().await;
        sleep(self.shutdown_delay).await;
        self.board.end_watches().await;
        std::future::pending().await
    }

    async fn watch(&self, target: &Target) -> Infallible {
        let mut state = State::new(target.services.len(), self.config.interval);
        loop {
            let sight = look(target, self.config.timeout).await;
            let verdict = state.saw(&sight);
            if let Some(news) = verdict.news {
                report(target.name, news, verdict.serving, &sight);
            }
            for (service, &serving) in target.services.iter().zip(verdict.serving) {
                self.board.set(service, serving).await;
            }
            let pause = verdict.pause;
            sleep(pause).await;
        }
    }
}

/// Asks for every service of a target at once.
async fn look(target: &Target, timeout: Duration) -> Sight {
    let checks = target.services.iter().map(|service| check(target, service, timeout));
    let mut serving = Vec::with_capacity(target.services.len());
    for answer in join_all(checks).await {
        match answer {
            Ok(is_serving) => serving.push(is_serving),
            Err(status) if status.code() == Code::DeadlineExceeded => return Sight::Silent,
            Err(status) if status.code() == Code::Unavailable => {
                return Sight::Gone(root_cause(&status));
            }
            // It is there, but it does not vouch for this service.
            Err(_) => serving.push(false),
        }
    }
    Sight::Answered(serving)
}

async fn check(target: &Target, service: &str, timeout: Duration) -> Result<bool, Status> {
    let mut request = Request::new(HealthCheckRequest { service: service.to_owned() });
    request.set_timeout(timeout);
    let answer = HealthClient::new(target.channel.clone()).check(request).await?;
    Ok(answer.into_inner().status() == ServingStatus::Serving)
}

fn report(upstream: &'static str, news: News, serving: &[bool], sight: &Sight) {
    if serving.iter().all(|&serving| serving) {
        tracing::info!(upstream, "upstream serves");
        return;
    }
    let cause = match sight {
        Sight::Answered(_) => "it says so itself",
        Sight::Silent => "it does not answer in time",
        Sight::Gone(cause) => cause,
    };
    match news {
        News::First => tracing::info!(upstream, cause, "waiting for upstream"),
        News::Change => tracing::warn!(upstream, cause, "upstream does not serve"),
    }
}

/// The innermost cause, as in "connection refused"; those around it say only where it passed.
fn root_cause(status: &Status) -> String {
    let error: &dyn Error = status;
    let last = std::iter::successors(Some(error), |&error| error.source()).last();
    last.map(ToString::to_string).unwrap_or_default()
}
