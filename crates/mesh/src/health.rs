//! Health of services, for `grpc.health.v1` and `/readyz` alike.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// The name of a server as a whole in `grpc.health.v1`.
const WHOLE: &str = "";

/// Says which services can answer. A server as a whole is healthy when all its services are.
#[derive(Clone, Debug)]
pub struct Reporter {
    grpc: HealthReporter,
    state: Arc<Mutex<State>>,
    /// Held while callers are told, so that each report comes before a step of the shutdown or
    /// after it.
    telling: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
struct State {
    serving: BTreeMap<String, bool>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Up,
    /// Nothing is healthy again.
    Draining,
    /// Nobody is told any more.
    Over,
}

impl Default for Reporter {
    fn default() -> Self {
        Self::new()
    }
}

impl Reporter {
    /// Not healthy until a service is.
    pub fn new() -> Self {
        Self { grpc: HealthReporter::new(), state: Arc::default(), telling: Arc::default() }
    }

    /// The service that answers `grpc.health.v1` from this state.
    pub fn grpc_service(
        &self,
    ) -> tonic_health::pb::health_server::HealthServer<tonic_health::server::HealthService> {
        let service = tonic_health::server::HealthService::from_health_reporter(self.grpc.clone());
        tonic_health::pb::health_server::HealthServer::new(service)
    }

    /// Reports one service, named in full, as in `clipmesh.search.v1.SearchService`.
    pub async fn set(&self, service: &str, serving: bool) {
        let _telling = self.telling.lock().await;
        let (serving, all_serving) = {
            let mut state = self.lock();
            if state.phase == Phase::Over {
                return;
            }
            state.serving.insert(service.to_owned(), serving);
            (serving && state.phase == Phase::Up, state.is_ready())
        };
        self.grpc.set_service_status(service, status(serving)).await;
        self.grpc.set_service_status(WHOLE, status(all_serving)).await;
    }

    /// Reports everything as not serving, for good: the first step of a shutdown.
    pub async fn drain(&self) {
        let _telling = self.telling.lock().await;
        for service in self.enter(Phase::Draining) {
            self.grpc.set_service_status(service, ServingStatus::NotServing).await;
        }
    }

    /// Ends every `Watch`, after its last news. From then on no service is known: the last step
    /// before a server stops listening.
    pub async fn end_watches(&self) {
        let _telling = self.telling.lock().await;
        let mut grpc = self.grpc.clone();
        for service in self.enter(Phase::Over) {
            grpc.clear_service_status(&service).await;
        }
    }

    /// Begins a phase, and says which names have a status.
    fn enter(&self, phase: Phase) -> Vec<String> {
        let mut state = self.lock();
        state.phase = phase;
        state.serving.keys().cloned().chain([WHOLE.to_owned()]).collect()
    }

    /// Whether every service can answer.
    pub fn is_ready(&self) -> bool {
        self.lock().is_ready()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // The state is valid after every statement, so a panic elsewhere leaves it usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_ready(&self) -> bool {
        let all_serving = self.serving.values().all(|&serving| serving);
        self.phase == Phase::Up && !self.serving.is_empty() && all_serving
    }
}

fn status(serving: bool) -> ServingStatus {
    if serving { ServingStatus::Serving } else { ServingStatus::NotServing }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;
    use tonic::{Code, Request};
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_check_response::ServingStatus as Wire;
    use tonic_health::pb::health_server::Health as _;
    use tonic_health::server::HealthService;

    use super::*;

    fn about(service: &str) -> Request<HealthCheckRequest> {
        Request::new(HealthCheckRequest { service: service.to_owned() })
    }

    #[tokio::test]
    async fn is_ready_once_every_service_serves() {
        let reporter = Reporter::new();
        assert!(!reporter.is_ready(), "nothing serves yet");
        reporter.set("a", true).await;
        reporter.set("b", false).await;
        assert!(!reporter.is_ready(), "one of two serves");
        reporter.set("b", true).await;
        assert!(reporter.is_ready(), "both serve");
    }

    #[tokio::test]
    async fn stays_down_once_draining() {
        let reporter = Reporter::new();
        reporter.set("a", true).await;
        reporter.drain().await;
        reporter.set("a", true).await;
        assert!(!reporter.is_ready(), "a late report does not undo a shutdown");
        let grpc = HealthService::from_health_reporter(reporter.grpc.clone());
        for service in ["a", WHOLE] {
            let told = grpc.check(about(service)).await.expect("known").into_inner().status();
            assert_eq!(told, Wire::NotServing, "`{service}`");
        }
    }

    #[tokio::test]
    async fn watches_end_after_their_last_news() {
        let reporter = Reporter::new();
        reporter.set("a", true).await;
        let grpc = HealthService::from_health_reporter(reporter.grpc.clone());
        let mut watches = Vec::new();
        for service in ["a", WHOLE] {
            let mut news = grpc.watch(about(service)).await.expect("known").into_inner();
            let first = news.next().await.expect("no end").expect("no error").status();
            assert_eq!(first, Wire::Serving, "`{service}`");
            watches.push(news);
        }
        reporter.drain().await;
        reporter.end_watches().await;
        for mut news in watches {
            let last = news.next().await.expect("no end yet").expect("no error").status();
            assert_eq!(last, Wire::NotServing, "whoever watches is warned");
            assert!(news.next().await.is_none(), "and sent home");
        }
        reporter.set("a", true).await;
        let late = grpc.watch(about("a")).await.expect_err("nobody is told any more");
        assert_eq!(late.code(), Code::NotFound, "a late report opens no watch again: {late:?}");
    }
}
