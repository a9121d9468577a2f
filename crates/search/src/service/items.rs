//! `clipmesh.search.v1.ItemService`.

use std::num::NonZeroUsize;
use std::sync::Arc;

use clipmesh_proto::ids::{CollectionName, ItemId};
use clipmesh_proto::search::v1;
use clipmesh_proto::search::v1::item_service_server::ItemService;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use tonic::{Request, Response, Status, Streaming};
use tracing::{Instrument as _, Span};

use crate::convert;
use crate::convert::page::{self, Listing};
use crate::embedder::Lane;
use crate::error::Error;
use crate::filter::Filter;
use crate::item::Item;
use crate::items::{Items, Outcome, stream};
use crate::store::Page;

/// What every thumbnail is.
const THUMBNAIL_MEDIA_TYPE: &str = "image/jpeg";

/// The adapter of [`Items`].
#[derive(Debug)]
pub(crate) struct Service {
    items: Arc<Items>,
    stream_concurrency: NonZeroUsize,
}

impl Service {
    pub(crate) fn new(items: Arc<Items>, stream_concurrency: NonZeroUsize) -> Self {
        Self { items, stream_concurrency }
    }
}

#[tonic::async_trait]
impl ItemService for Service {
    type IndexItemsStream = BoxStream<'static, Result<v1::IndexItemsResponse, Status>>;

    async fn index_item(
        &self,
        request: Request<v1::IndexItemRequest>,
    ) -> Result<Response<v1::IndexItemResponse>, Status> {
        let v1::IndexItemRequest { collection, item } = request.into_inner();
        let collection = convert::collection_name("collection", collection)?;
        let new = convert::item::read(item)?;
        let hashed = self.items.hash(new).await?;
        let (item, outcome) = self.items.index(&collection, hashed, Lane::Interactive).await?;
        Ok(Response::new(indexed(item, outcome)))
    }

    async fn index_items(
        &self,
        request: Request<Streaming<v1::IndexItemsRequest>>,
    ) -> Result<Response<Self::IndexItemsStream>, Status> {
        let mut requests = request.into_inner();
        let (items, concurrency) = (Arc::clone(&self.items), self.stream_concurrency.get());
        // Answered before the first request is there: some clients send it only then.
        let answers = async move {
            let Some(first) = requests.message().await? else {
                return Ok(futures::stream::empty().boxed());
            };
            Ok::<_, Status>(stream::index(items, first, requests, concurrency).await?.boxed())
        };
        let answers = futures::stream::once(answers.instrument(Span::current())).try_flatten();
        Ok(Response::new(answers.boxed()))
    }

    async fn get_item(
        &self,
        request: Request<v1::GetItemRequest>,
    ) -> Result<Response<v1::GetItemResponse>, Status> {
        let v1::GetItemRequest { collection, id, include_vector } = request.into_inner();
        let (collection, id) = place(collection, id)?;
        let point = self.items.get(collection, id).await?;
        let vector = if include_vector { point.vector.into_values() } else { Vec::new() };
        let item = Some(convert::item::write(point.item));
        Ok(Response::new(v1::GetItemResponse { item, vector }))
    }

    async fn list_items(
        &self,
        request: Request<v1::ListItemsRequest>,
    ) -> Result<Response<v1::ListItemsResponse>, Status> {
        let v1::ListItemsRequest { collection, filter, page_size, page_token, .. } =
            request.into_inner();
        let collection = convert::collection_name("collection", collection)?;
        let filter = convert::filter::read(filter)?;
        let listing = listing(&collection, &filter)?;
        let after = listing.after(&page_token)?;
        let after = after.map(|id| convert::item_id("page_token", id)).transpose()?;
        let page = Page { filter, after, limit: page::size(page_size), vectors: false };
        let listed = self.items.list(collection, page).await?;
        let last = listed.items.last().map(|last| listing.token(last.id.as_str()));
        let next_page_token = last.filter(|_| listed.has_more).unwrap_or_default();
        let items = listed.items.into_iter().map(convert::item::write).collect();
        Ok(Response::new(v1::ListItemsResponse { items, next_page_token, ..Default::default() }))
    }

    async fn count_items(
        &self,
        request: Request<v1::CountItemsRequest>,
    ) -> Result<Response<v1::CountItemsResponse>, Status> {
        let v1::CountItemsRequest { collection, filter } = request.into_inner();
        let collection = convert::collection_name("collection", collection)?;
        let filter = convert::filter::read(filter)?;
        let count = self.items.count(collection, filter).await?;
        Ok(Response::new(v1::CountItemsResponse { count, ..Default::default() }))
    }

    async fn delete_item(
        &self,
        request: Request<v1::DeleteItemRequest>,
    ) -> Result<Response<v1::DeleteItemResponse>, Status> {
        let v1::DeleteItemRequest { collection, id, .. } = request.into_inner();
        let (collection, id) = place(collection, id)?;
        self.items.delete(collection, id).await?;
        Ok(Response::new(v1::DeleteItemResponse {}))
    }

    async fn get_thumbnail(
        &self,
        request: Request<v1::GetThumbnailRequest>,
    ) -> Result<Response<v1::GetThumbnailResponse>, Status> {
        let v1::GetThumbnailRequest { collection, id } = request.into_inner();
        let (collection, id) = place(collection, id)?;
        let image = self.items.thumbnail(collection, id).await?;
        let media_type = THUMBNAIL_MEDIA_TYPE.to_owned();
        Ok(Response::new(v1::GetThumbnailResponse { image, media_type }))
    }

    async fn check_items(
        &self,
        _: Request<v1::CheckItemsRequest>,
    ) -> Result<Response<v1::CheckItemsResponse>, Status> {
        Err(Status::unimplemented("SKELETON"))
    }

    async fn sample_items(
        &self,
        _: Request<v1::SampleItemsRequest>,
    ) -> Result<Response<v1::SampleItemsResponse>, Status> {
        Err(Status::unimplemented("SKELETON"))
    }

    async fn update_item(
        &self,
        _: Request<v1::UpdateItemRequest>,
    ) -> Result<Response<v1::UpdateItemResponse>, Status> {
        Err(Status::unimplemented("SKELETON"))
    }

    async fn replace_image(
        &self,
        _: Request<v1::ReplaceImageRequest>,
    ) -> Result<Response<v1::ReplaceImageResponse>, Status> {
        Err(Status::unimplemented("SKELETON"))
    }

    async fn delete_items(
        &self,
        _: Request<v1::DeleteItemsRequest>,
    ) -> Result<Response<v1::DeleteItemsResponse>, Status> {
        Err(Status::unimplemented("SKELETON"))
    }

    async fn get_original(
        &self,
        _: Request<v1::GetOriginalRequest>,
    ) -> Result<Response<v1::GetOriginalResponse>, Status> {
        Err(Status::unimplemented("SKELETON"))
    }
}

/// The answer for an item that is stored.
pub(crate) fn indexed(item: Item, outcome: Outcome) -> v1::IndexItemResponse {
    let outcome = match outcome {
        Outcome::Created => v1::IndexOutcome::Created,
        Outcome::Replaced => v1::IndexOutcome::Replaced,
        Outcome::Unchanged => v1::IndexOutcome::Unchanged,
    };
    v1::IndexItemResponse { item: Some(convert::item::write(item)), outcome: outcome.into() }
}

fn place(collection: String, id: String) -> Result<(CollectionName, ItemId), Status> {
    let collection = convert::collection_name("collection", collection)?;
    Ok((collection, convert::item_id("id", id)?))
}

/// Pages belong to one filter of one collection.
fn listing(collection: &CollectionName, filter: &Filter) -> Result<Listing, Error> {
    let filter = serde_json::to_vec(filter)
        .map_err(|error| Error::Internal(format!("write down a filter: {error}")))?;
    Ok(Listing::of(&[b"items", collection.as_str().as_bytes(), &filter]))
}
