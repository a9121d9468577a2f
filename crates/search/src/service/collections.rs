//! `clipmesh.search.v1.CollectionService`.

use clipmesh_proto::search::v1;
use clipmesh_proto::search::v1::collection_service_server::CollectionService;
use tonic::{Request, Response, Status};

use crate::collections::Collections;
use crate::convert;
use crate::convert::page::{self, Listing};

/// The adapter of [`Collections`].
#[derive(Debug)]
pub(crate) struct Service {
    collections: Collections,
}

impl Service {
    pub(crate) fn new(collections: Collections) -> Self {
        Self { collections }
    }
}

#[tonic::async_trait]
impl CollectionService for Service {
    async fn create_collection(
        &self,
        request: Request<v1::CreateCollectionRequest>,
    ) -> Result<Response<v1::CreateCollectionResponse>, Status> {
        let v1::CreateCollectionRequest { name, distance, .. } = request.into_inner();
        let name = convert::collection_name("name", name)?;
        let distance = convert::distance(distance)?;
        let collection = self.collections.create(name, distance).await?;
        let collection = Some(convert::collection(collection, 0));
        Ok(Response::new(v1::CreateCollectionResponse { collection }))
    }

    async fn get_collection(
        &self,
        request: Request<v1::GetCollectionRequest>,
    ) -> Result<Response<v1::GetCollectionResponse>, Status> {
        let name = convert::collection_name("name", request.into_inner().name)?;
        let (collection, count) = self.collections.get(name).await?;
        let collection = Some(convert::collection(collection, count));
        Ok(Response::new(v1::GetCollectionResponse { collection }))
    }

    async fn list_collections(
        &self,
        request: Request<v1::ListCollectionsRequest>,
    ) -> Result<Response<v1::ListCollectionsResponse>, Status> {
        let v1::ListCollectionsRequest { page_size, page_token } = request.into_inner();
        let listing = Listing::of(&[b"collections"]);
        let after = listing.after(&page_token)?;
        let limit = page::size(page_size);
        let listed = self.collections.list(after, limit).await?;
        let last = listed.collections.last().map(|(last, _)| listing.token(last.name.as_str()));
        let next_page_token = last.filter(|_| listed.has_more).unwrap_or_default();
        let written = listed.collections.into_iter();
        let collections = written.map(|(one, count)| convert::collection(one, count)).collect();
        Ok(Response::new(v1::ListCollectionsResponse { collections, next_page_token }))
    }

    async fn delete_collection(
        &self,
        request: Request<v1::DeleteCollectionRequest>,
    ) -> Result<Response<v1::DeleteCollectionResponse>, Status> {
        let name = convert::collection_name("name", request.into_inner().name)?;
        self.collections.delete(name).await?;
        Ok(Response::new(v1::DeleteCollectionResponse {}))
    }

    async fn update_collection(
        &self,
        _: Request<v1::UpdateCollectionRequest>,
    ) -> Result<Response<v1::UpdateCollectionResponse>, Status> {
        Err(Status::unimplemented("SKELETON"))
    }

    async fn create_field_index(
        &self,
        _: Request<v1::CreateFieldIndexRequest>,
    ) -> Result<Response<v1::CreateFieldIndexResponse>, Status> {
        Err(Status::unimplemented("SKELETON"))
    }

    async fn delete_field_index(
        &self,
        _: Request<v1::DeleteFieldIndexRequest>,
    ) -> Result<Response<v1::DeleteFieldIndexResponse>, Status> {
        Err(Status::unimplemented("SKELETON"))
    }

    async fn set_alias(
        &self,
        _: Request<v1::SetAliasRequest>,
    ) -> Result<Response<v1::SetAliasResponse>, Status> {
        Err(Status::unimplemented("SKELETON"))
    }

    async fn delete_alias(
        &self,
        _: Request<v1::DeleteAliasRequest>,
    ) -> Result<Response<v1::DeleteAliasResponse>, Status> {
        Err(Status::unimplemented("SKELETON"))
    }

    async fn list_aliases(
        &self,
        _: Request<v1::ListAliasesRequest>,
    ) -> Result<Response<v1::ListAliasesResponse>, Status> {
        Err(Status::unimplemented("SKELETON"))
    }

    async fn get_collection_stats(
        &self,
        _: Request<v1::GetCollectionStatsRequest>,
    ) -> Result<Response<v1::GetCollectionStatsResponse>, Status> {
        Err(Status::unimplemented("SKELETON"))
    }

    async fn clear_cache(
        &self,
        _: Request<v1::ClearCacheRequest>,
    ) -> Result<Response<v1::ClearCacheResponse>, Status> {
        Err(Status::unimplemented("SKELETON"))
    }
}
