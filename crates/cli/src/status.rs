//! `clipmesh status`: what is behind a gateway, and whether it answers.

use clap::Args;
use clipmesh_proto::embedder::v1 as embedder;
use clipmesh_proto::embedder::v1::embedder_service_server::SERVICE_NAME as EMBEDDER;
use clipmesh_proto::search::v1 as search;
use clipmesh_proto::search::v1::collection_service_server::SERVICE_NAME as COLLECTIONS;
use clipmesh_proto::search::v1::item_service_server::SERVICE_NAME as ITEMS;
use clipmesh_proto::search::v1::search_service_server::SERVICE_NAME as SEARCH;
use serde::Serialize;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::client::{Connection, Mesh};
use crate::collections;
use crate::error::{Error, is_transport};
use crate::output::table::{Column, Facts, Table};
use crate::output::{self, json};

/// Every service of a mesh, in the order in which a search passes them.
pub(crate) const SERVICES: [&str; 4] = [SEARCH, ITEMS, COLLECTIONS, EMBEDDER];

#[derive(Debug, Args)]
pub(crate) struct Command {
    #[command(flatten)]
    connection: Connection,
}

/// The health of one service.
#[derive(Debug, Serialize)]
struct Health {
    service: &'static str,
    /// `serving`, `not serving`, or why that can't be told.
    status: String,
}

#[derive(Serialize)]
struct Report {
    server: String,
    serving: bool,
    services: Vec<Health>,
    model: Option<json::Model>,
    collections: Option<Vec<json::Collection>>,
}

// === impl Command ===

impl Command {
    pub(crate) async fn run(self) -> Result<(), Error> {
        let mesh = Mesh::new(&self.connection)?;
        let mut services = Vec::new();
        for service in SERVICES {
            services.push(Health { service, status: health(&mesh, service).await? });
        }
        // Half a mesh can still tell half of the story.
        let model = mesh.model().await.ok();
        let collections = collections::all(&mesh).await.ok();
        let serving = services.iter().all(Health::is_serving);
        if self.connection.json {
            output::document(&Report {
                server: mesh.server().to_owned(),
                serving,
                services,
                model: model.map(json::Model::from),
                collections: collections
                    .map(|all| all.into_iter().map(json::Collection::from).collect()),
            })?;
        } else {
            print(mesh.server(), &services, model.as_ref(), collections.as_deref())?;
        }
        if serving { Ok(()) } else { Err(Error::Incomplete) }
    }
}

// === impl Health ===

impl Health {
    fn is_serving(&self) -> bool {
        self.status == "serving"
    }
}

/// What one service says of itself. Fails only when there is nobody to ask.
async fn health(mesh: &Mesh, service: &str) -> Result<String, Error> {
    let request = HealthCheckRequest { service: service.to_owned() };
    match mesh.health().check(request).await {
        Ok(answer) => Ok(match answer.into_inner().status() {
            ServingStatus::Serving => "serving",
            ServingStatus::NotServing => "not serving",
            ServingStatus::Unknown | ServingStatus::ServiceUnknown => "unknown",
        }
        .to_owned()),
        Err(status) if is_transport(&status) => Err(mesh.error(status)),
        Err(status) => Ok(reason(&status)),
    }
}

fn reason(status: &Status) -> String {
    match status.code() {
        Code::NotFound | Code::Unimplemented => "unknown".to_owned(),
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss
        | Code::Unauthenticated => format!("no answer: {}", status.message()),
    }
}

fn print(
    server: &str,
    services: &[Health],
    model: Option<&embedder::Model>,
    collections: Option<&[search::Collection]>,
) -> Result<(), Error> {
    output::line(format!("mesh at {server}"))?;
    output::line("")?;
    let mut table = Table::new(&[Column::Left("SERVICE"), Column::Left("HEALTH")]);
    for health in services {
        table.row([health.service, &health.status]);
    }
    output::line(table.to_string())?;
    output::line("")?;
    if let Some(model) = model {
        output::line(facts(model).to_string())?;
        output::line("")?;
    }
    match collections {
        None => output::line("the collections can't be listed now"),
        Some([]) => output::line("no collections yet; `clipmesh index PATH` makes one"),
        Some(collections) => output::line(collections::table(collections).to_string()),
    }
}

fn facts(model: &embedder::Model) -> Facts {
    let modalities: Vec<&str> = model.modalities().map(json::modality).collect();
    let mut facts = Facts::default();
    facts.add("model", &model.name);
    facts.add("fingerprint", &model.fingerprint);
    facts.add("embeds", format!("{} → {} dimensions", modalities.join(", "), model.dimension));
    facts.add("runs on", format!("{} in {}", model.device, model.dtype));
    facts.add("batches of", model.max_batch_size);
    facts.add("looks at", output::dimensions(model.image_size, model.image_size));
    if model.context_length > 0 {
        facts.add("reads", format!("{} tokens", model.context_length));
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_told_in_a_few_lines() {
        let model = embedder::Model {
            name: "vit".to_owned(),
            fingerprint: "ab12".to_owned(),
            dimension: 512,
            modalities: vec![1, 2],
            device: "cpu".to_owned(),
            dtype: "f32".to_owned(),
            max_batch_size: 8,
            context_length: 77,
            image_size: 224,
            limits: None,
        };
        let expected = "\
model        vit
fingerprint  ab12
embeds       image, text → 512 dimensions
runs on      cpu in f32
batches of   8
looks at     224 × 224
reads        77 tokens";
        assert_eq!(facts(&model).to_string(), expected, "as printed");
    }
}
