//! A connection to a mesh, and the options that all client commands share.

use std::time::Duration;

use clap::Args;
use clipmesh_mesh::client::{self, Channel};
use clipmesh_proto::embedder::v1 as embedder;
use clipmesh_proto::embedder::v1::embedder_service_client::EmbedderServiceClient;
use clipmesh_proto::ids::CollectionName;
use clipmesh_proto::search::v1 as search;
use clipmesh_proto::search::v1::collection_service_client::CollectionServiceClient;
use clipmesh_proto::search::v1::item_service_client::ItemServiceClient;
use clipmesh_proto::search::v1::search_service_client::SearchServiceClient;
use humantime_serde::re::humantime;
use tonic::{Code, Status};
use tonic_health::pb::health_client::HealthClient;

use crate::error::Error;
use crate::filter;

/// Fewest digits of an id that may stand for all of it. Six digits tell a million items apart well
/// enough, and what is ambiguous is refused.
const MIN_PREFIX_DIGITS: usize = 6;

/// Digits of an id made of a content hash.
const HASH_DIGITS: usize = 64;

/// Where the mesh is, and how to talk to it.
#[derive(Clone, Debug, Args)]
pub(crate) struct Connection {
    /// The mesh to talk to.
    #[arg(
        long,
        value_name = "URL",
        env = "CLIPMESH_SERVER",
        default_value = "http://127.0.0.1:8080",
        value_parser = parse_server,
        global = true
    )]
    pub(crate) server: String,

    /// Longest wait for an answer, as in `500ms`, `30s` or `2m`.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "30s",
        value_parser = parse_timeout,
        global = true
    )]
    pub(crate) timeout: Duration,

    /// Print one JSON document for programs instead of text for people.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// Which collection a command is about.
#[derive(Clone, Debug, Args)]
pub(crate) struct Scope {
    /// The collection.
    #[arg(
        long,
        short,
        value_name = "NAME",
        env = "CLIPMESH_COLLECTION",
        default_value = "images",
        value_parser = parse_collection,
        global = true
    )]
    pub(crate) collection: CollectionName,
}

/// Clients of everything behind one gateway.
#[derive(Clone, Debug)]
pub(crate) struct Mesh {
    server: String,
    channel: Channel,
    max_message_bytes: usize,
}

// === impl Mesh ===

impl Mesh {
    /// Connects at the first call, so that this fails only for a URL that can't be one.
    pub(crate) fn new(connection: &Connection) -> Result<Self, Error> {
        Self::with_timeout(connection, Some(connection.timeout))
    }

    /// A mesh for streams, which may take as long as they like. Whoever reads one must watch that
    /// it goes on.
    pub(crate) fn for_streams(connection: &Connection) -> Result<Self, Error> {
        Self::with_timeout(connection, None)
    }

    fn with_timeout(connection: &Connection, timeout: Option<Duration>) -> Result<Self, Error> {
        let config = client::Config { timeout, ..client::Config::default() };
        let channel = client::channel(&connection.server, &config)
            .map_err(|error| Error::Usage(error.to_string()))?;
        let server = connection.server.clone();
        Ok(Self { server, channel, max_message_bytes: config.max_message_len() })
    }

    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// Largest message in bytes, one way or the other.
    pub(crate) fn max_message_bytes(&self) -> usize {
        self.max_message_bytes
    }

    /// An error of a call to this mesh.
    pub(crate) fn error(&self, status: Status) -> Error {
        Error::Rpc { server: self.server.clone(), status: Box::new(status) }
    }

    pub(crate) fn collections(&self) -> CollectionServiceClient<Channel> {
        CollectionServiceClient::new(self.channel.clone())
    }

    pub(crate) fn items(&self) -> ItemServiceClient<Channel> {
        ItemServiceClient::new(self.channel.clone())
            .max_decoding_message_size(self.max_message_bytes)
            .max_encoding_message_size(self.max_message_bytes)
    }

    pub(crate) fn search(&self) -> SearchServiceClient<Channel> {
        SearchServiceClient::new(self.channel.clone())
            .max_decoding_message_size(self.max_message_bytes)
            .max_encoding_message_size(self.max_message_bytes)
    }

    pub(crate) fn health(&self) -> HealthClient<Channel> {
        HealthClient::new(self.channel.clone())
    }

    /// The model behind this mesh.
    pub(crate) async fn model(&self) -> Result<embedder::Model, Error> {
        let answer = EmbedderServiceClient::new(self.channel.clone())
            .get_model(embedder::GetModelRequest {})
            .await
            .map_err(|status| self.error(status))?;
        answer.into_inner().model.ok_or_else(|| self.error(Status::internal("it names no model")))
    }

    /// The full id behind the first digits of one, as `git` has it: tables show ids made of
    /// content hashes shortened, and what is shown can be typed back.
    pub(crate) async fn full_id(
        &self,
        collection: &CollectionName,
        id: &str,
    ) -> Result<String, Error> {
        if !is_prefix(id) {
            return Ok(id.to_owned());
        }
        let request = search::GetItemRequest {
            collection: collection.to_string(),
            id: id.to_owned(),
            include_vector: false,
        };
        match self.items().get_item(request).await {
            // The caller's own id, which only looks like the beginning of a hash.
            Ok(_) => return Ok(id.to_owned()),
            Err(status) if status.code() == Code::NotFound => {}
            Err(status) => return Err(self.error(status)),
        }
        let request = search::ListItemsRequest {
            collection: collection.to_string(),
            filter: Some(filter::id_contains(id)),
            page_size: 1_000,
            page_token: String::new(),
            ..search::ListItemsRequest::default()
        };
        let found = self.items().list_items(request).await.map_err(|status| self.error(status))?;
        let ids = found.into_inner().items.into_iter().map(|item| item.id);
        let mut ids = ids.filter(|full| full.starts_with(id));
        match (ids.next(), ids.next()) {
            (Some(full), None) => Ok(full),
            (None, _) => Err(Error::NotFound(format!("no item `{id}` in `{collection}`"))),
            (Some(_), Some(_)) => {
                Err(Error::Usage(format!("more than one id in `{collection}` starts with `{id}`")))
            }
        }
    }
}

fn is_prefix(id: &str) -> bool {
    (MIN_PREFIX_DIGITS..HASH_DIGITS).contains(&id.len())
        && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn parse_server(text: &str) -> Result<String, String> {
    let url = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    match url.strip_prefix("http://") {
        Some("") => Err("it names no host".to_owned()),
        Some(_) => Ok(url.trim_end_matches('/').to_owned()),
        None => Err("it must start with `http://`".to_owned()),
    }
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("no answer comes in no time".to_owned()),
        Ok(timeout) => Ok(timeout),
        Err(error) => Err(error.to_string()),
    }
}

pub(crate) fn parse_collection(text: &str) -> Result<CollectionName, String> {
    CollectionName::try_from(text.to_owned()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_and_port_are_a_server() {
        let expected = Ok("http://mesh:8080".to_owned());
        for text in ["mesh:8080", "http://mesh:8080", "http://mesh:8080/"] {
            assert_eq!(parse_server(text), expected, "`{text}`");
        }
        assert!(parse_server("ftp://mesh").is_err(), "another protocol is refused");
        assert!(parse_server("").is_err(), "nothing is refused");
    }

    #[test]
    fn the_first_digits_of_a_hash_may_stand_for_it() {
        assert!(is_prefix("3f2a01"), "six digits");
        assert!(!is_prefix("3f2a0"), "five are too few");
        assert!(!is_prefix(&"a".repeat(64)), "a whole hash is no prefix");
        assert!(!is_prefix("astronaut.jpg"), "an id of the caller's own is no prefix");
    }

    #[test]
    fn time_has_a_unit_and_is_not_zero() {
        assert_eq!(parse_timeout("500ms"), Ok(Duration::from_millis(500)), "milliseconds");
        assert!(parse_timeout("0s").is_err(), "zero");
        assert!(parse_timeout("30").is_err(), "no unit");
    }
}
