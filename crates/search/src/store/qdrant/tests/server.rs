//! A server of Qdrant's protocol on a socket of its own, with faults on demand.

use std::collections::HashMap;
use std::future::{Future, pending};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qdrant_client::qdrant::collections_server::{Collections, CollectionsServer};
use qdrant_client::qdrant::points_server::{Points, PointsServer};
use qdrant_client::qdrant::qdrant_server::{Qdrant, QdrantServer};
use qdrant_client::qdrant::{
    ChangeAliases, ClearPayloadPoints, CollectionClusterInfoRequest, CollectionClusterInfoResponse,
    CollectionExistsRequest, CollectionExistsResponse, CollectionOperationResponse, CountPoints,
    CountResponse, CreateCollection, CreateFieldIndexCollection, CreateShardKeyRequest,
    CreateShardKeyResponse, CreateVectorNameRequest, DeleteCollection, DeleteFieldIndexCollection,
    DeletePayloadPoints, DeletePointVectors, DeletePoints, DeleteShardKeyRequest,
    DeleteShardKeyResponse, DeleteVectorNameRequest, DiscoverBatchPoints, DiscoverBatchResponse,
    DiscoverPoints, DiscoverResponse, FacetCounts, FacetResponse, GetCollectionInfoRequest,
    GetCollectionInfoResponse, GetPoints, GetResponse, HealthCheckReply, HealthCheckRequest,
    ListAliasesRequest, ListAliasesResponse, ListCollectionAliasesRequest, ListCollectionsRequest,
    ListCollectionsResponse, ListShardKeysRequest, ListShardKeysResponse, PointsOperationResponse,
    QueryBatchPoints, QueryBatchResponse, QueryGroupsResponse, QueryPointGroups, QueryPoints,
    QueryResponse, RecommendBatchPoints, RecommendBatchResponse, RecommendGroupsResponse,
    RecommendPointGroups, RecommendPoints, RecommendResponse, ScrollPoints, ScrollResponse,
    SearchBatchPoints, SearchBatchResponse, SearchGroupsResponse, SearchMatrixOffsetsResponse,
    SearchMatrixPairsResponse, SearchMatrixPoints, SearchPointGroups, SearchPoints, SearchResponse,
    SetPayloadPoints, UpdateBatchPoints, UpdateBatchResponse, UpdateCollection,
    UpdateCollectionClusterSetupRequest, UpdateCollectionClusterSetupResponse, UpdatePointVectors,
    UpsertPoints,
};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::transport::ServerTlsConfig;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use super::state::State;

/// What goes wrong, until it is mended.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// A call is refused.
    Refuse(Status),
    /// A call is never answered.
    Hang,
}

/// A server that runs until this is dropped.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) address: SocketAddr,
    service: Service,
    serving: JoinHandle<()>,
}

#[derive(Clone, Debug)]
struct Service {
    state: Arc<Mutex<State>>,
    /// By `service/method`.
    faults: Arc<Mutex<HashMap<&'static str, Fault>>>,
    calls: Arc<Mutex<HashMap<&'static str, usize>>>,
    api_key: Option<&'static str>,
}

// === impl Server ===

impl Server {
    pub(super) async fn start() -> Self {
        Self::start_with(None, None).await
    }

    pub(super) async fn start_with(
        api_key: Option<&'static str>,
        tls: Option<ServerTlsConfig>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (state, faults, calls) = (Arc::default(), Arc::default(), Arc::default());
        let service = Service { state, faults, calls, api_key };
        let mut builder = tonic::transport::Server::builder();
        if let Some(tls) = tls {
            builder = builder.tls_config(tls).expect("TLS");
        }
        let router = builder
            .add_service(CollectionsServer::new(service.clone()))
            .add_service(PointsServer::new(service.clone()))
            .add_service(QdrantServer::new(service.clone()));
        let serving = tokio::spawn(async move {
            // Without, each answer waits for the acknowledgement of what went before it.
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            router.serve_with_incoming(incoming).await.expect("served");
        });
        Self { address, service, serving }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it has.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.service.state()
    }

    /// Has every call of a method, as in `points/count`, go wrong.
    pub(super) fn break_method(&self, method: &'static str, fault: Fault) {
        self.service.faults().insert(method, fault);
    }

    /// How often a method was called.
    pub(super) fn calls(&self, method: &'static str) -> usize {
        self.service.calls().get(method).copied().unwrap_or_default()
    }

    pub(super) fn mend(&self) {
        self.service.faults().clear();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

// === impl Service ===

impl Service {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn faults(&self) -> MutexGuard<'_, HashMap<&'static str, Fault>> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn calls(&self) -> MutexGuard<'_, HashMap<&'static str, usize>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn admit<T>(&self, method: &'static str, request: Request<T>) -> Result<T, Status> {
        let sent = request.metadata().get("api-key").map(|key| key.as_bytes());
        if self.api_key.is_some_and(|key| sent != Some(key.as_bytes())) {
            return Err(Status::unauthenticated("Must provide an API key"));
        }
        *self.calls().entry(method).or_default() += 1;
        let fault = self.faults().get(method).cloned();
        match fault {
            Some(Fault::Refuse(status)) => Err(status),
            Some(Fault::Hang) => pending().await,
            None => Ok(request.into_inner()),
        }
    }
}

type Answer<'f, T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send + 'f>>;

/// Methods that [`State`] answers, by which of its own.
macro_rules! answered {
    ($($path:literal $method:ident: $request:ty => $own:ident $response:ty;)*) => {$(
        fn $method<'a, 'f>(&'a self, request: Request<$request>) -> Answer<'f, $response>
        where
            'a: 'f,
            Self: 'f,
        {
            Box::pin(async move {
                let request = self.admit($path, request).await?;
                self.state().$own(request).map(Response::new)
            })
        }
    )*};
}

/// Methods that the store has no use for.
macro_rules! refused {
    ($($method:ident: $request:ty => $response:ty;)*) => {$(
        fn $method<'a, 'f>(&'a self, _: Request<$request>) -> Answer<'f, $response>
        where
            'a: 'f,
            Self: 'f,
        {
            Box::pin(async { Err(Status::unimplemented(stringify!($method))) })
        }
    )*};
}

impl Collections for Service {
    answered! {
        "collections/get" get: GetCollectionInfoRequest => collection_info GetCollectionInfoResponse;
        "collections/list" list: ListCollectionsRequest => list_collections ListCollectionsResponse;
        "collections/create" create: CreateCollection => create_collection CollectionOperationResponse;
        "collections/update" update: UpdateCollection => update_collection CollectionOperationResponse;
        "collections/delete" delete: DeleteCollection => delete_collection CollectionOperationResponse;
        "collections/update_aliases" update_aliases: ChangeAliases => change_aliases CollectionOperationResponse;
        "collections/list_aliases" list_aliases: ListAliasesRequest => list_aliases ListAliasesResponse;
    }
    refused! {
        list_collection_aliases: ListCollectionAliasesRequest => ListAliasesResponse;
        collection_cluster_info: CollectionClusterInfoRequest => CollectionClusterInfoResponse;
        collection_exists: CollectionExistsRequest => CollectionExistsResponse;
        update_collection_cluster_setup: UpdateCollectionClusterSetupRequest => UpdateCollectionClusterSetupResponse;
        create_shard_key: CreateShardKeyRequest => CreateShardKeyResponse;
        delete_shard_key: DeleteShardKeyRequest => DeleteShardKeyResponse;
        list_shard_keys: ListShardKeysRequest => ListShardKeysResponse;
    }
}

impl Points for Service {
    answered! {
        "points/upsert" upsert: UpsertPoints => upsert PointsOperationResponse;
        "points/delete" delete: DeletePoints => delete_points PointsOperationResponse;
        "points/get" get: GetPoints => get_points GetResponse;
        "points/create_field_index" create_field_index: CreateFieldIndexCollection => create_field_index PointsOperationResponse;
        "points/delete_field_index" delete_field_index: DeleteFieldIndexCollection => delete_field_index PointsOperationResponse;
        "points/scroll" scroll: ScrollPoints => scroll ScrollResponse;
        "points/count" count: CountPoints => count CountResponse;
        "points/query_batch" query_batch: QueryBatchPoints => query_batch QueryBatchResponse;
        "points/query_groups" query_groups: QueryPointGroups => query_groups QueryGroupsResponse;
        "points/facet" facet: FacetCounts => facet FacetResponse;
    }
    refused! {
        update_vectors: UpdatePointVectors => PointsOperationResponse;
        delete_vectors: DeletePointVectors => PointsOperationResponse;
        set_payload: SetPayloadPoints => PointsOperationResponse;
        overwrite_payload: SetPayloadPoints => PointsOperationResponse;
        delete_payload: DeletePayloadPoints => PointsOperationResponse;
        clear_payload: ClearPayloadPoints => PointsOperationResponse;
        create_vector_name: CreateVectorNameRequest => PointsOperationResponse;
        delete_vector_name: DeleteVectorNameRequest => PointsOperationResponse;
        search: SearchPoints => SearchResponse;
        search_batch: SearchBatchPoints => SearchBatchResponse;
        search_groups: SearchPointGroups => SearchGroupsResponse;
        recommend: RecommendPoints => RecommendResponse;
        recommend_batch: RecommendBatchPoints => RecommendBatchResponse;
        recommend_groups: RecommendPointGroups => RecommendGroupsResponse;
        discover: DiscoverPoints => DiscoverResponse;
        discover_batch: DiscoverBatchPoints => DiscoverBatchResponse;
        update_batch: UpdateBatchPoints => UpdateBatchResponse;
        query: QueryPoints => QueryResponse;
        search_matrix_pairs: SearchMatrixPoints => SearchMatrixPairsResponse;
        search_matrix_offsets: SearchMatrixPoints => SearchMatrixOffsetsResponse;
    }
}

impl Qdrant for Service {
    answered! {
        "qdrant/health_check" health_check: HealthCheckRequest => health_check HealthCheckReply;
    }
}
