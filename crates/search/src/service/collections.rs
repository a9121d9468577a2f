//! `clipmesh.search.v1.CollectionService`.

use clipmesh_proto::code::{FieldViolation, Reason};
use clipmesh_proto::search::v1;
use clipmesh_proto::search::v1::collection_service_server::CollectionService;
use tonic::{Request, Response, Status};

use crate::collections::Collections;
use crate::convert;
use crate::convert::page::{self, Listing};
use crate::filter::Field;
use crate::store::index::Indexes;

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
        let new = convert::collection::read(request.into_inner())?;
        let described = self.collections.create(new).await?;
        let collection = Some(convert::collection::write(described));
        Ok(Response::new(v1::CreateCollectionResponse { collection }))
    }

    async fn get_collection(
        &self,
        request: Request<v1::GetCollectionRequest>,
    ) -> Result<Response<v1::GetCollectionResponse>, Status> {
        let name = convert::collection_name("name", request.into_inner().name)?;
        let described = self.collections.get(name).await?;
        let collection = Some(convert::collection::write(described));
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
        let next = listed.next.map(|last| listing.token(last.as_str()));
        let next_page_token = next.unwrap_or_default();
        let written = listed.collections.into_iter().map(convert::collection::write);
        let collections = written.collect();
        Ok(Response::new(v1::ListCollectionsResponse { collections, next_page_token }))
    }

    async fn update_collection(
        &self,
        request: Request<v1::UpdateCollectionRequest>,
    ) -> Result<Response<v1::UpdateCollectionResponse>, Status> {
        let v1::UpdateCollectionRequest { collection, update_mask } = request.into_inner();
        let Some(collection) = collection else {
            let message = "must be set";
            return Err(FieldViolation::new("collection", Reason::Missing, message).into());
        };
        let change = convert::collection::read_update(&collection, update_mask)?;
        let name = convert::collection_name("collection.name", collection.name)?;
        let described = self.collections.update(name, change).await?;
        let collection = Some(convert::collection::write(described));
        Ok(Response::new(v1::UpdateCollectionResponse { collection }))
    }

    async fn delete_collection(
        &self,
        request: Request<v1::DeleteCollectionRequest>,
    ) -> Result<Response<v1::DeleteCollectionResponse>, Status> {
        let name = convert::collection_name("name", request.into_inner().name)?;
        self.collections.delete(name).await?;
        Ok(Response::new(v1::DeleteCollectionResponse {}))
    }

    async fn create_field_index(
        &self,
        request: Request<v1::CreateFieldIndexRequest>,
    ) -> Result<Response<v1::CreateFieldIndexResponse>, Status> {
        let v1::CreateFieldIndexRequest { collection, field_index } = request.into_inner();
        let name = convert::collection_name("collection", collection)?;
        let Some(index) = field_index else {
            let message = "must be set";
            return Err(FieldViolation::new("field_index", Reason::Missing, message).into());
        };
        let index = convert::collection::read_index("field_index", &index)?;
        self.collections.create_index(name, index.clone()).await?;
        let field_index = Some(convert::collection::write_index(index));
        Ok(Response::new(v1::CreateFieldIndexResponse { field_index }))
    }

    async fn delete_field_index(
        &self,
        request: Request<v1::DeleteFieldIndexRequest>,
    ) -> Result<Response<v1::DeleteFieldIndexResponse>, Status> {
        let v1::DeleteFieldIndexRequest { collection, key } = request.into_inner();
        let name = convert::collection_name("collection", collection)?;
        let field = convert::field("key", &key)?;
        if Indexes::built_in(&field).is_some() || field == Field::Id {
            let message = format!("every collection has an index on `{key}`");
            return Err(FieldViolation::new("key", Reason::Malformed, message).into());
        }
        self.collections.delete_index(name, field).await?;
        Ok(Response::new(v1::DeleteFieldIndexResponse {}))
    }

    async fn set_alias(
        &self,
        request: Request<v1::SetAliasRequest>,
    ) -> Result<Response<v1::SetAliasResponse>, Status> {
        let v1::SetAliasRequest { alias, collection } = request.into_inner();
        let alias = convert::collection_name("alias", alias)?;
        let name = convert::collection_name("collection", collection)?;
        let previous = self.collections.set_alias(alias, name).await?;
        let previous_collection = previous.map(|name| name.to_string()).unwrap_or_default();
        Ok(Response::new(v1::SetAliasResponse { previous_collection }))
    }

    async fn delete_alias(
        &self,
        request: Request<v1::DeleteAliasRequest>,
    ) -> Result<Response<v1::DeleteAliasResponse>, Status> {
        let alias = convert::collection_name("alias", request.into_inner().alias)?;
        self.collections.delete_alias(alias).await?;
        Ok(Response::new(v1::DeleteAliasResponse {}))
    }

    async fn list_aliases(
        &self,
        _: Request<v1::ListAliasesRequest>,
    ) -> Result<Response<v1::ListAliasesResponse>, Status> {
        let aliases = self.collections.aliases().await?.into_iter();
        let written = aliases.map(|(alias, collection)| v1::Alias {
            alias: alias.to_string(),
            collection: collection.to_string(),
        });
        Ok(Response::new(v1::ListAliasesResponse { aliases: written.collect() }))
    }

    async fn get_collection_stats(
        &self,
        request: Request<v1::GetCollectionStatsRequest>,
    ) -> Result<Response<v1::GetCollectionStatsResponse>, Status> {
        let name = convert::collection_name("name", request.into_inner().name)?;
        let stats = self.collections.stats(name).await?;
        Ok(Response::new(convert::collection::write_stats(&stats)))
    }

    async fn clear_cache(
        &self,
        request: Request<v1::ClearCacheRequest>,
    ) -> Result<Response<v1::ClearCacheResponse>, Status> {
        let name = convert::collection_name("name", request.into_inner().name)?;
        self.collections.clear_cache(name).await?;
        Ok(Response::new(v1::ClearCacheResponse {}))
    }
}
