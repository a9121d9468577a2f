//! `clipmesh.search.v1.ItemService`.

use std::num::NonZeroUsize;
use std::sync::Arc;

use clipmesh_proto::ids::{CollectionName, ItemId};
use clipmesh_proto::search::v1;
use clipmesh_proto::search::v1::item_service_server::ItemService;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use prost::Message as _;
use tonic::{Request, Response, Status, Streaming};
use tracing::{Instrument as _, Span};

use crate::convert;
use crate::convert::page;
use crate::embedder::Lane;
use crate::error::Error;
use crate::filter::{Field, Filter};
use crate::item::Item;
use crate::items::{Items, Listed, Listing, Order, Outcome, Which, stream};
use crate::store::Collection;

/// What every thumbnail is.
const THUMBNAIL_MEDIA_TYPE: &str = "image/jpeg";

/// What an item or a text takes in a message beside itself, at most.
const OVERHEAD_BYTES: usize = 64;

/// The adapter of [`Items`].
#[derive(Debug)]
pub(crate) struct Service {
    items: Arc<Items>,
    stream_concurrency: NonZeroUsize,
    /// Longest answer.
    max_message_len: usize,
}

impl Service {
    pub(crate) fn new(
        items: Arc<Items>,
        stream_concurrency: NonZeroUsize,
        max_message_len: usize,
    ) -> Self {
        Self { items, stream_concurrency, max_message_len }
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
        let incoming = self.items.settle(new).await?;
        let (item, outcome) = self.items.index(&collection, incoming, Lane::Interactive).await?;
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
        let record = self.items.get(collection, id, include_vector).await?;
        let vector = record.vector.map(|vector| vector.into_values()).unwrap_or_default();
        let item = Some(convert::item::write(record.item));
        Ok(Response::new(v1::GetItemResponse { item, vector }))
    }

    async fn check_items(
        &self,
        request: Request<v1::CheckItemsRequest>,
    ) -> Result<Response<v1::CheckItemsResponse>, Status> {
        let v1::CheckItemsRequest { collection, ids, content_hashes } = request.into_inner();
        let name = convert::collection_name("collection", collection)?;
        let (ids, hashes) = convert::item::read_check(ids, content_hashes)?;
        let collection = self.items.resolve(name).await?;
        let known = self.items.known_ids(&collection, &ids).await?;
        let found = ids.iter().filter(|id| known.contains(id)).map(ItemId::to_string).collect();
        let known = self.items.known_hashes(&collection, &hashes).await?;
        let hashes = hashes.iter().map(ToString::to_string);
        let content_hashes = hashes.filter(|hash| known.contains(hash)).collect();
        Ok(Response::new(v1::CheckItemsResponse { ids: found, content_hashes }))
    }

    async fn list_items(
        &self,
        request: Request<v1::ListItemsRequest>,
    ) -> Result<Response<v1::ListItemsResponse>, Status> {
        let request = request.into_inner();
        let name = convert::collection_name("collection", request.collection)?;
        let filter = convert::filter::read(request.filter)?;
        let order = page::order(&request.order_by)?;
        let collection = self.items.resolve(name).await?;
        let unindexed_fields = unindexed(&collection, &filter);
        let pages = pages(&collection, &filter, order.as_ref())?;
        let after = pages.after(&request.page_token)?;
        let listing = Listing { filter, order, after, limit: page::size(request.page_size) };
        let listed = self.items.list(&collection, listing).await?;
        let taken: usize = unindexed_fields.iter().map(|key| key.len() + OVERHEAD_BYTES).sum();
        let (items, next) = fitting(listed, self.max_message_len.saturating_sub(taken));
        let next_page_token = next.map(|next| pages.token(&next)).unwrap_or_default();
        Ok(Response::new(v1::ListItemsResponse { items, next_page_token, unindexed_fields }))
    }

    async fn count_items(
        &self,
        request: Request<v1::CountItemsRequest>,
    ) -> Result<Response<v1::CountItemsResponse>, Status> {
        let v1::CountItemsRequest { collection, filter } = request.into_inner();
        let name = convert::collection_name("collection", collection)?;
        let filter = convert::filter::read(filter)?;
        let collection = self.items.resolve(name).await?;
        let unindexed_fields = unindexed(&collection, &filter);
        let count = self.items.count(&collection, filter).await?;
        Ok(Response::new(v1::CountItemsResponse { count, unindexed_fields }))
    }

    async fn sample_items(
        &self,
        request: Request<v1::SampleItemsRequest>,
    ) -> Result<Response<v1::SampleItemsResponse>, Status> {
        let v1::SampleItemsRequest { collection, filter, size, seed } = request.into_inner();
        let name = convert::collection_name("collection", collection)?;
        let filter = convert::filter::read(filter)?;
        let size = convert::item::read_sample_size(size)?;
        let seed = seed.unwrap_or_else(rand::random);
        let collection = self.items.resolve(name).await?;
        let unindexed_fields = unindexed(&collection, &filter);
        let drawn = self.items.sample(&collection, &filter, size, seed).await?;
        let items = drawn.into_iter().map(convert::item::write).collect();
        Ok(Response::new(v1::SampleItemsResponse { items, seed, unindexed_fields }))
    }

    async fn update_item(
        &self,
        request: Request<v1::UpdateItemRequest>,
    ) -> Result<Response<v1::UpdateItemResponse>, Status> {
        let v1::UpdateItemRequest { collection, item, update_mask, etag } = request.into_inner();
        let name = convert::collection_name("collection", collection)?;
        let mut item = item.ok_or_else(convert::item::missing)?;
        let id = convert::item_id("item.id", std::mem::take(&mut item.id))?;
        let change = convert::item::read_change(item, update_mask)?;
        let item = self.items.update(name, id, change, convert::etag(etag)).await?;
        let item = Some(convert::item::write(item));
        Ok(Response::new(v1::UpdateItemResponse { item }))
    }

    async fn replace_image(
        &self,
        request: Request<v1::ReplaceImageRequest>,
    ) -> Result<Response<v1::ReplaceImageResponse>, Status> {
        let v1::ReplaceImageRequest { collection, id, image, etag } = request.into_inner();
        let (name, id) = place(collection, id)?;
        let replaced = self.items.replace_image(name, id, image, convert::etag(etag)).await?;
        let v1::IndexItemResponse { item, outcome } = indexed(replaced.0, replaced.1);
        Ok(Response::new(v1::ReplaceImageResponse { item, outcome }))
    }

    async fn delete_item(
        &self,
        request: Request<v1::DeleteItemRequest>,
    ) -> Result<Response<v1::DeleteItemResponse>, Status> {
        let v1::DeleteItemRequest { collection, id, etag } = request.into_inner();
        let (name, id) = place(collection, id)?;
        self.items.delete(name, id, convert::etag(etag)).await?;
        Ok(Response::new(v1::DeleteItemResponse {}))
    }

    async fn delete_items(
        &self,
        request: Request<v1::DeleteItemsRequest>,
    ) -> Result<Response<v1::DeleteItemsResponse>, Status> {
        let v1::DeleteItemsRequest { collection, which } = request.into_inner();
        let name = convert::collection_name("collection", collection)?;
        let which = convert::item::read_which(which)?;
        let collection = self.items.resolve(name).await?;
        let unindexed_fields = match &which {
            Which::Ids(_) => Vec::new(),
            Which::Filter(filter) => unindexed(&collection, filter),
        };
        let deleted_count = self.items.delete_many(&collection, which).await?;
        Ok(Response::new(v1::DeleteItemsResponse { deleted_count, unindexed_fields }))
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

    async fn get_original(
        &self,
        request: Request<v1::GetOriginalRequest>,
    ) -> Result<Response<v1::GetOriginalResponse>, Status> {
        let v1::GetOriginalRequest { collection, id } = request.into_inner();
        let (collection, id) = place(collection, id)?;
        let (image, format) = self.items.original(collection, id).await?;
        // Each format is called as its media type is.
        let media_type = format!("image/{format}");
        Ok(Response::new(v1::GetOriginalResponse { image, media_type }))
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

/// The items of a page that fit into one message, and what the next page comes after, if there is
/// one. A page has at least one item, so that a listing goes on.
fn fitting(listed: Listed, max_bytes: usize) -> (Vec<v1::Item>, Option<String>) {
    let Listed { items, mut has_more } = listed;
    let (mut page, mut bytes, mut last) = (Vec::new(), 0, None);
    for (item, place) in items {
        let item = convert::item::write(item);
        bytes += item.encoded_len() + OVERHEAD_BYTES;
        // Two digits a byte.
        let token_bytes = 2 * place.len() + OVERHEAD_BYTES;
        if !page.is_empty() && bytes + token_bytes > max_bytes {
            has_more = true;
            break;
        }
        page.push(item);
        last = Some(place);
    }
    (page, last.filter(|_| has_more))
}

fn place(collection: String, id: String) -> Result<(CollectionName, ItemId), Status> {
    let collection = convert::collection_name("collection", collection)?;
    Ok((collection, convert::item_id("id", id)?))
}

/// Fields of a filter for which items have to be read one by one.
pub(crate) fn unindexed(collection: &Collection, filter: &Filter) -> Vec<String> {
    collection.indexes.missing_for(filter).iter().map(Field::key).collect()
}

/// Pages belong to one filter and order of one collection, whatever it is called.
fn pages(
    collection: &Collection,
    filter: &Filter,
    order: Option<&Order>,
) -> Result<page::Listing, Error> {
    let filter = serde_json::to_vec(filter)
        .map_err(|error| Error::Internal(format!("write down a filter: {error}")))?;
    let uid = collection.uid.as_bytes();
    let key = order.map(|order| order.field.key()).unwrap_or_default();
    let is_descending = order.is_some_and(|order| order.descending);
    Ok(page::Listing::of(&[b"items", uid, &filter, key.as_bytes(), &[u8::from(is_descending)]]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::item;

    fn listed(count: usize, has_more: bool) -> Listed {
        let placed = |i: usize| {
            let uri = "u".repeat(1_000);
            (Item { uri, ..item(&format!("{i}")) }, i.to_string())
        };
        Listed { items: (0..count).map(placed).collect(), has_more }
    }

    #[test]
    fn a_page_ends_where_a_message_is_full() {
        let (page, next) = fitting(listed(30, true), 1 << 20);
        assert_eq!((page.len(), next.as_deref()), (30, Some("29")), "all of them fit");
        let (page, next) = fitting(listed(30, false), 1 << 20);
        assert_eq!((page.len(), next), (30, None), "and they are the last");

        let (page, next) = fitting(listed(30, false), 16 << 10);
        assert!((5..16).contains(&page.len()), "some of them: {}", page.len());
        assert_eq!(next, Some((page.len() - 1).to_string()), "the others are on the next page");
        let next_page_token = page::Listing::of(&[]).token("29");
        let response = v1::ListItemsResponse { items: page, next_page_token, ..Default::default() };
        assert!(response.encoded_len() <= 16 << 10, "{} bytes", response.encoded_len());

        let (page, next) = fitting(listed(3, false), 10);
        assert_eq!((page.len(), next.as_deref()), (1, Some("0")), "at least one");
        assert_eq!(fitting(listed(0, false), 10), (vec![], None), "none, if there is none");
    }
}
