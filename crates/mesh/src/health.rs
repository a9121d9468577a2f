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
}

#[derive(Debug, Default)]
struct State {
    serving: BTreeMap<String, bool>,
    /// Once draining, nothing is healthy again.
    draining: bool,
}

impl Default for Reporter {
    fn default() -> Self {
        Self::new()
    }
}

impl Reporter {
    /// Not healthy until a service is.
    pub fn new() -> Self {
        Self { grpc: HealthReporter::new(), state: Arc::default() }
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
        let serving = {
            let mut state = self.lock();
            state.serving.insert(service.to_owned(), serving);
            serving && !state.draining
        };
        self.grpc.set_service_status(service, status(serving)).await;
        self.grpc.set_service_status(WHOLE, status(self.is_ready())).await;
        if self.lock().draining {
            // A drain that began in between must have the last word.
            self.grpc.set_service_status(service, ServingStatus::NotServing).await;
            self.grpc.set_service_status(WHOLE, ServingStatus::NotServing).await;
        }
    }

    /// Reports everything as not serving, for good: the first step of a shutdown.
    pub async fn drain(&self) {
        let services: Vec<String> = {
            let mut state = self.lock();
            state.draining = true;
            state.serving.keys().cloned().collect()
        };
        for service in services.iter().map(String::as_str).chain([WHOLE]) {
            self.grpc.set_service_status(service, ServingStatus::NotServing).await;
        }
    }

    /// Whether every service can answer.
    pub fn is_ready(&self) -> bool {
        let state = self.lock();
        let all_serving = state.serving.values().all(|&serving| serving);
        !state.draining && !state.serving.is_empty() && all_serving
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // The state is valid after every statement, so a panic elsewhere leaves it usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn status(serving: bool) -> ServingStatus {
    if serving { ServingStatus::Serving } else { ServingStatus::NotServing }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    }
}
