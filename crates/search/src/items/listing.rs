//! Items in pages.

use clipmesh_proto::code::{FieldViolation, Reason};
use clipmesh_proto::ids::ItemId;

use super::Items;
use super::sort::{Order, Place, Sorter};
use crate::error::Error;
use crate::filter::Filter;
use crate::item::Item;
use crate::store::{Collection, Page, VectorStore};

/// A page to be listed.
#[derive(Clone, Debug)]
pub(crate) struct Listing {
    pub(crate) filter: Filter,
    /// `None`: an order of the store's own.
    pub(crate) order: Option<Order>,
    /// What the page before gave as the next one.
    pub(crate) after: Option<String>,
    /// Most items to return.
    pub(crate) limit: usize,
}

/// A page of items.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    /// Each with what a page comes after that begins behind it.
    pub(crate) items: Vec<(Item, String)>,
    /// Whether there are others behind them.
    pub(crate) has_more: bool,
}

impl Items {
    /// Lists items.
    pub(crate) async fn list(
        &self,
        collection: &Collection,
        listing: Listing,
    ) -> Result<Listed, Error> {
        list(&*self.store, collection, listing).await
    }
}

pub(super) async fn list(
    store: &dyn VectorStore,
    collection: &Collection,
    listing: Listing,
) -> Result<Listed, Error> {
    let Listing { filter, order, after, limit } = listing;
    // One more tells whether there is a next page.
    let wanted = limit + 1;
    let Some(order) = order else {
        let after = after.map(|id| ItemId::try_from(id).map_err(|_| foreign())).transpose()?;
        let page = Page { filter, after, limit: wanted, vectors: false };
        let records = store.scroll(collection.name.clone(), page).await?.into_iter();
        let placed = records.map(|record| {
            let place = record.item.id.to_string();
            (record.item, place)
        });
        return Ok(cut(placed.collect(), limit));
    };
    let sorter = Sorter::new(store, collection, &filter, order)?;
    let read = |text: String| Place::read(&text).filter(|place| sorter.has(place));
    let after = after.map(|text| read(text).ok_or_else(foreign)).transpose()?;
    let placed = sorter.page(after, wanted).await?;
    let placed = placed.into_iter().map(|(item, place)| (item, place.write()));
    Ok(cut(placed.collect(), limit))
}

/// The page out of the page and one more.
fn cut(mut items: Vec<(Item, String)>, limit: usize) -> Listed {
    let has_more = items.len() > limit;
    items.truncate(limit);
    Listed { items, has_more }
}

// === impl Listed ===

impl Listed {
    /// What the next page comes after, if there is one.
    #[cfg(test)]
    pub(super) fn next(&self) -> Option<String> {
        self.items.last().map(|(_, place)| place.clone()).filter(|_| self.has_more)
    }
}

/// Of a token that is well-formed, and yet was never given out for this listing.
fn foreign() -> FieldViolation {
    FieldViolation::new("page_token", Reason::Malformed, "is not one that was given out")
}
