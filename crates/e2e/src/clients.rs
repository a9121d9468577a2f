//! Generated clients of every service, over one connection.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use clipmesh_proto::embedder::v1 as embedder;
use clipmesh_proto::embedder::v1::embedder_service_client::EmbedderServiceClient;
use clipmesh_proto::search::v1 as search;
use clipmesh_proto::search::v1::collection_service_client::CollectionServiceClient;
use clipmesh_proto::search::v1::item_service_client::ItemServiceClient;
use clipmesh_proto::search::v1::search_service_client::SearchServiceClient;
use clipmesh_proto::{code, ids::ContentHash};
use futures::Stream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// No call of a test takes longer, on the slowest machine; a hang becomes an error.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// The clients, in the words of the tests. Clones share the connection.
#[derive(Clone, Debug)]
pub struct Clients {
    pub collections: CollectionServiceClient<Channel>,
    pub items: ItemServiceClient<Channel>,
    pub search: SearchServiceClient<Channel>,
    pub embedder: EmbedderServiceClient<Channel>,
    pub health: HealthClient<Channel>,
}

impl Clients {
    /// Connects at the first call. Must be made within the runtime that makes the calls.
    ///
    /// # Errors
    /// An address that is none.
    pub fn of(address: SocketAddr) -> anyhow::Result<Self> {
        let channel = Endpoint::from_shared(format!("http://{address}"))?
            .connect_timeout(Duration::from_secs(2))
            .timeout(CALL_TIMEOUT)
            .connect_lazy();
        Ok(Self {
            collections: CollectionServiceClient::new(channel.clone()),
            items: ItemServiceClient::new(channel.clone()),
            search: SearchServiceClient::new(channel.clone()),
            embedder: EmbedderServiceClient::new(channel.clone()),
            health: HealthClient::new(channel),
        })
    }

    /// Whether `service`, or the whole server if it is empty, says that it can answer.
    ///
    /// # Errors
    /// Everything but `SERVING`.
    pub async fn check_health(&mut self, service: &str) -> Result<(), Status> {
        let request = HealthCheckRequest { service: service.to_owned() };
        match self.health.check(request).await?.into_inner().status() {
            ServingStatus::Serving => Ok(()),
            status @ (ServingStatus::Unknown
            | ServingStatus::NotServing
            | ServingStatus::ServiceUnknown) => {
                Err(Status::unavailable(format!("`{service}` is {}", status.as_str_name())))
            }
        }
    }

    /// # Errors
    /// What the service answers.
    pub async fn create_collection(&mut self, name: &str) -> Result<search::Collection, Status> {
        let request = search::CreateCollectionRequest {
            name: name.to_owned(),
            ..search::CreateCollectionRequest::default()
        };
        let response = self.collections.create_collection(request).await?.into_inner();
        response.collection.ok_or_else(|| Status::internal("an answer without its collection"))
    }

    /// Indexes one picture by the unary call.
    ///
    /// # Errors
    /// What the service answers.
    pub async fn index(
        &mut self,
        collection: &str,
        item: search::NewItem,
    ) -> Result<search::IndexItemResponse, Status> {
        let request =
            search::IndexItemRequest { collection: collection.to_owned(), item: Some(item) };
        Ok(self.items.index_item(request).await?.into_inner())
    }

    /// Opens the indexing stream.
    ///
    /// # Errors
    /// What the service answers before the first acknowledgement.
    pub async fn index_stream(
        &mut self,
        requests: impl Stream<Item = search::IndexItemsRequest> + Send + 'static,
    ) -> Result<Streaming<search::IndexItemsResponse>, Status> {
        Ok(self.items.index_items(requests).await?.into_inner())
    }

    /// The item and its vector.
    ///
    /// # Errors
    /// What the service answers.
    pub async fn get_item(
        &mut self,
        collection: &str,
        id: &str,
    ) -> Result<(search::Item, Vec<f32>), Status> {
        let request = search::GetItemRequest {
            collection: collection.to_owned(),
            id: id.to_owned(),
            include_vector: true,
        };
        let response = self.items.get_item(request).await?.into_inner();
        let item = response.item.ok_or_else(|| Status::internal("an answer without its item"))?;
        Ok((item, response.vector))
    }

    /// How many items the collection holds.
    ///
    /// # Errors
    /// What the service answers.
    pub async fn count(&mut self, collection: &str) -> Result<u64, Status> {
        let request = search::CountItemsRequest { collection: collection.to_owned(), filter: None };
        Ok(self.items.count_items(request).await?.into_inner().count)
    }

    /// Every item, page by page.
    ///
    /// # Errors
    /// What the service answers.
    pub async fn list_all(
        &mut self,
        collection: &str,
        page_size: u32,
    ) -> Result<Vec<search::Item>, Status> {
        let mut items = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = search::ListItemsRequest {
                collection: collection.to_owned(),
                filter: None,
                page_size,
                page_token,
                order_by: String::new(),
            };
            let page = self.items.list_items(request).await?.into_inner();
            items.extend(page.items);
            if page.next_page_token.is_empty() {
                return Ok(items);
            }
            page_token = page.next_page_token;
        }
    }

    /// Searches with nothing but a query.
    ///
    /// # Errors
    /// What the service answers.
    pub async fn find(
        &mut self,
        collection: &str,
        kind: search::query::Kind,
    ) -> Result<search::SearchResponse, Status> {
        Ok(self.search.search(query(collection, kind)).await?.into_inner())
    }

    /// The vector of one picture, from the embedder.
    ///
    /// # Errors
    /// What the service answers, for the call or for the picture.
    pub async fn embed_image(&mut self, image: Bytes) -> Result<Vec<f32>, Status> {
        let content = Some(embedder::embed_input::Content::Image(image));
        let inputs = vec![embedder::EmbedInput { content }];
        let request = embedder::EmbedRequest { inputs, ..embedder::EmbedRequest::default() };
        let response = self.embedder.embed(request).await?.into_inner();
        let outcome = response.results.into_iter().next().and_then(|result| result.outcome);
        match outcome {
            Some(embedder::embed_result::Outcome::Embedding(embedding)) => Ok(embedding.values),
            Some(embedder::embed_result::Outcome::Error(error)) => Err(code::from_rpc(&error)),
            None => Err(Status::internal("a result without an outcome")),
        }
    }
}

/// A picture with an id and nothing else.
pub fn new_item(id: impl Into<String>, image: Bytes) -> search::NewItem {
    search::NewItem { id: id.into(), image, ..search::NewItem::default() }
}

/// A search with nothing but a query.
pub fn query(collection: &str, kind: search::query::Kind) -> search::SearchRequest {
    search::SearchRequest {
        collection: collection.to_owned(),
        query: Some(search::Query { kind: Some(kind) }),
        ..search::SearchRequest::default()
    }
}

/// The query for a vector of the collection's model.
pub fn vector(values: Vec<f32>) -> search::query::Kind {
    search::query::Kind::Vector(search::VectorQuery { values, model_fingerprint: String::new() })
}

/// The ids of the hits, best first.
pub fn ids(response: &search::SearchResponse) -> Vec<&str> {
    let items = response.hits.iter().filter_map(|hit| hit.item.as_ref());
    items.map(|item| item.id.as_str()).collect()
}

/// What an acknowledgement says: the item, or why there is none.
///
/// # Errors
/// The error of this item.
pub fn acknowledged(
    response: search::IndexItemsResponse,
) -> (u64, Result<search::IndexItemResponse, Status>) {
    let result = match response.result {
        Some(search::index_items_response::Result::Indexed(indexed)) => Ok(indexed),
        Some(search::index_items_response::Result::Error(error)) => Err(code::from_rpc(&error)),
        None => Err(Status::new(Code::Internal, "an acknowledgement of nothing")),
    };
    (response.key, result)
}

/// The content hash that an item of these bytes must have.
pub fn content_hash(image: &[u8]) -> String {
    ContentHash::of(image).to_string()
}

/// Cosine similarity of two vectors of length 1.
pub fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
    products.sum::<f64>() as f32
}
