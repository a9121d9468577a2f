//! `clipmesh collections create`.

use clap::{Args, ValueEnum, value_parser};
use clipmesh_proto::ids::CollectionName;
use clipmesh_proto::search::v1 as search;

use super::Session;
use super::index::parse_index;
use crate::client::{Mesh, parse_collection};
use crate::error::Error;
use crate::fields;
use crate::output::{self, json};

#[derive(Debug, Args)]
pub(super) struct Create {
    /// 1 to 64 of `a-z`, `0-9`, `-` and `_`.
    #[arg(value_parser = parse_collection)]
    name: CollectionName,

    /// A field that filters shall be quick on, as in `album` or `year:integer`; see below. May be
    /// repeated.
    #[arg(long = "index", value_name = "FIELD[:KIND]", value_parser = parse_index)]
    indexes: Vec<search::FieldIndex>,

    /// A field whose strings `search --words` looks in, such as `caption`. May be repeated; it
    /// can't be changed later.
    #[arg(long = "words", value_name = "FIELD", value_parser = fields::key)]
    word_fields: Vec<String>,

    #[command(flatten)]
    graph: Graph,
}

/// How a collection is searched: by a graph.
#[derive(Clone, Debug, Default, Args)]
#[group(skip)]
pub(super) struct Graph {
    /// Links of each vector to others, from 4 to 128: more find more of the true neighbours, and
    /// cost 8 bytes each.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(4..=128))]
    pub(super) links: Option<u32>,

    /// How many candidates are looked at to choose a new vector's links, from 4 to 1024: more find
    /// better ones and build slower.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(4..=1_024))]
    pub(super) build_effort: Option<u32>,

    /// Search vectors in a short form first: `scalar` takes a quarter of the memory, `binary` 1/32
    /// and wants 1024 values or more.
    #[arg(long, value_enum, value_name = "FORM")]
    pub(super) quantization: Option<Quantization>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Quantization {
    None,
    Scalar,
    Binary,
}

// === impl Create ===

impl Create {
    pub(super) async fn run(&self, session: &Session) -> Result<(), Error> {
        let request = search::CreateCollectionRequest {
            name: self.name.to_string(),
            distance: search::Distance::Cosine.into(),
            field_indexes: self.indexes.clone(),
            vector_index: Some(self.graph.message()),
            word_fields: self.word_fields.clone(),
        };
        let made = send(&session.mesh, request).await.map_err(|status| session.error(status))?;
        if session.is_json {
            return output::document(&json::Collection::from(made));
        }
        let (model, dimension) = (made.model_name, made.dimension);
        output::line(format!("made `{}` for {model}, {dimension} dimensions", self.name))
    }
}

// === impl Graph ===

impl Graph {
    pub(super) fn message(&self) -> search::VectorIndex {
        let quantization = match self.quantization {
            None => search::Quantization::Unspecified,
            Some(Quantization::None) => search::Quantization::None,
            Some(Quantization::Scalar) => search::Quantization::Scalar,
            Some(Quantization::Binary) => search::Quantization::Binary,
        };
        search::VectorIndex {
            links: self.links,
            build_effort: self.build_effort,
            quantization: quantization.into(),
        }
    }
}

/// Makes a collection with nothing but a name. The status is left as it is, for callers that can do
/// with `ALREADY_EXISTS`.
pub(crate) async fn make(
    mesh: &Mesh,
    name: &CollectionName,
) -> Result<search::Collection, tonic::Status> {
    let request = search::CreateCollectionRequest {
        name: name.to_string(),
        distance: search::Distance::Cosine.into(),
        ..search::CreateCollectionRequest::default()
    };
    send(mesh, request).await
}

async fn send(
    mesh: &Mesh,
    request: search::CreateCollectionRequest,
) -> Result<search::Collection, tonic::Status> {
    let answer = mesh.collections().create_collection(request).await?.into_inner();
    answer.collection.ok_or_else(|| tonic::Status::internal("the new collection is not named"))
}
