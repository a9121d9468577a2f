//! What the gateway tells the world about its health.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clipmesh_mesh::health::Reporter;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use crate::metrics;

/// The name of the gateway as a whole in `grpc.health.v1`, and in its own readiness.
const WHOLE: &str = "";

/// The health of everything behind the gateway. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Board {
    grpc: HealthReporter,
    readiness: Reporter,
    /// The services without which the gateway is of no use.
    essential: Arc<[String]>,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    serving: BTreeMap<String, bool>,
    /// Once draining, nothing is healthy again.
    is_draining: bool,
}

// === impl Board ===

impl Board {
    /// Nothing serves until it is reported.
    pub(crate) async fn new(services: &[String], essential: Vec<String>) -> Self {
        let board = Self {
            grpc: HealthReporter::new(),
            readiness: Reporter::new(),
            essential: essential.into(),
            known: Arc::default(),
        };
        board.tell(WHOLE, false).await;
        for service in services {
            board.set(service, false).await;
        }
        board
    }

    /// The service that answers `grpc.health.v1` from this board.
    pub(crate) fn grpc_service(&self) -> HealthServer<HealthService> {
        HealthServer::new(HealthService::from_health_reporter(self.grpc.clone()))
    }

    /// What `/readyz` goes by.
    pub(crate) fn readiness(&self) -> Reporter {
        self.readiness.clone()
    }

    /// Reports one service. Whoever watches is told only of changes.
    pub(crate) async fn set(&self, service: &str, serving: bool) {
        let (was_ready, is_ready) = {
            let mut known = self.lock();
            if known.is_draining || known.serving.get(service) == Some(&serving) {
                return;
            }
            let was_ready = self.is_ready(&known);
            known.serving.insert(service.to_owned(), serving);
            (was_ready, self.is_ready(&known))
        };
        self.tell(service, serving).await;
        metrics::service_serving(service, serving);
        if is_ready != was_ready {
            self.tell(WHOLE, is_ready).await;
            self.readiness.set(WHOLE, is_ready).await;
        }
    }

    /// Reports everything as not serving, for good.
    pub(crate) async fn drain(&self) {
        self.lock().is_draining = true;
        for service in self.services() {
            self.tell(&service, false).await;
        }
    }

    /// Ends every `Watch`, after its last news.
    pub(crate) async fn end_watches(&self) {
        let mut grpc = self.grpc.clone();
        for service in self.services() {
            grpc.clear_service_status(&service).await;
        }
    }

    /// Every name that has a status.
    fn services(&self) -> Vec<String> {
        self.lock().serving.keys().cloned().chain([WHOLE.to_owned()]).collect()
    }

    fn is_ready(&self, known: &Known) -> bool {
        self.essential.iter().all(|service| known.serving.get(service) == Some(&true))
    }

    async fn tell(&self, service: &str, serving: bool) {
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        self.grpc.set_service_status(service, status).await;
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Every statement leaves it whole, so a panic elsewhere does no harm.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tonic::{Code, Request};
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_check_response::ServingStatus as Wire;
    use tonic_health::pb::health_server::Health as _;

    use super::*;

    async fn board() -> Board {
        let names = ["search", "embedder"].map(str::to_owned);
        Board::new(&names, vec!["search".to_owned()]).await
    }

    async fn told(board: &Board, service: &str) -> Result<Wire, Code> {
        let server = HealthService::from_health_reporter(board.grpc.clone());
        let request = Request::new(HealthCheckRequest { service: service.to_owned() });
        match server.check(request).await {
            Ok(answer) => Ok(answer.into_inner().status()),
            Err(status) => Err(status.code()),
        }
    }

    #[tokio::test]
    async fn nothing_serves_before_it_was_seen() {
        let board = board().await;
        for service in ["", "search", "embedder"] {
            assert_eq!(told(&board, service).await, Ok(Wire::NotServing), "`{service}`");
        }
        assert_eq!(told(&board, "stranger").await, Err(Code::NotFound), "not behind this door");
    }

    #[tokio::test]
    async fn the_whole_follows_the_essential_services() {
        let board = board().await;
        board.set("embedder", true).await;
        assert_eq!(told(&board, "").await, Ok(Wire::NotServing), "an embedder alone is no use");
        board.set("search", true).await;
        assert_eq!(told(&board, "").await, Ok(Wire::Serving), "search is what counts");
        assert!(board.readiness().is_ready(), "for `/readyz` too");
        board.set("embedder", false).await;
        assert_eq!(told(&board, "embedder").await, Ok(Wire::NotServing), "told by name");
        assert_eq!(told(&board, "").await, Ok(Wire::Serving), "cached queries are still answered");
        board.set("search", false).await;
        assert!(!board.readiness().is_ready(), "nobody behind the door");
    }

    #[tokio::test]
    async fn stays_down_once_draining() {
        let board = board().await;
        board.set("search", true).await;
        board.drain().await;
        board.set("search", false).await;
        board.set("search", true).await;
        for service in ["", "search", "embedder"] {
            assert_eq!(told(&board, service).await, Ok(Wire::NotServing), "`{service}`");
        }
    }
}
