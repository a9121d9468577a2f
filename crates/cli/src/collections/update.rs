//! `clipmesh collections update`.

use clap::{ArgGroup, Args};
use clipmesh_proto::ids::CollectionName;
use clipmesh_proto::search::v1 as search;
use prost_types::FieldMask;

use super::create::Graph;
use super::{Session, show};
use crate::client::parse_collection;
use crate::error::Error;
use crate::output::{self, json};

#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("change")
        .args(["links", "build_effort", "quantization"])
        .required(true)
        .multiple(true)
)]
pub(super) struct Update {
    /// The collection.
    #[arg(value_parser = parse_collection)]
    name: CollectionName,

    #[command(flatten)]
    graph: Graph,
}

// === impl Update ===

impl Update {
    pub(super) async fn run(&self, session: &Session) -> Result<(), Error> {
        let collection = search::Collection {
            name: self.name.to_string(),
            vector_index: Some(self.graph.message()),
            ..search::Collection::default()
        };
        let request = search::UpdateCollectionRequest {
            collection: Some(collection),
            update_mask: Some(mask(&self.graph)),
        };
        let answer = session.mesh.collections().update_collection(request).await;
        let updated = answer.map_err(|status| session.error(status))?.into_inner().collection;
        let updated = updated.unwrap_or_default();
        if session.is_json {
            return output::document(&json::Collection::from(updated));
        }
        output::line(show::facts(updated).to_string())
    }
}

/// Exactly what was named, so that all else stays.
fn mask(graph: &Graph) -> FieldMask {
    let paths = [
        graph.links.map(|_| "vector_index.links"),
        graph.build_effort.map(|_| "vector_index.build_effort"),
        graph.quantization.map(|_| "vector_index.quantization"),
    ];
    FieldMask { paths: paths.into_iter().flatten().map(str::to_owned).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collections::create::Quantization;

    #[test]
    fn only_what_was_named_is_changed() {
        let quantization = Some(Quantization::None);
        let graph = Graph { links: Some(32), quantization, ..Graph::default() };
        let expected = ["vector_index.links", "vector_index.quantization"];
        assert_eq!(mask(&graph).paths, expected, "and not the effort");
    }
}
