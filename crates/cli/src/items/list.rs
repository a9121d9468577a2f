//! `clipmesh items list`.

use clap::{Args, value_parser};
use clipmesh_proto::search::v1 as search;
use serde::Serialize;

use super::{Session, count, table};
use crate::error::Error;
use crate::fields;
use crate::filter::Filters;
use crate::output::{self, json};

/// Items in one answer: the most that the contract allows.
const MAX_PAGE_SIZE: u32 = 1_000;

#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    filters: Filters,

    /// What to sort by: a field with an index, as in `create_time` or `'year desc'` for the
    /// greatest first.
    #[arg(long, value_name = "FIELD", value_parser = parse_order)]
    sort: Option<Order>,

    /// Most items to show.
    #[arg(
        long,
        short = 'n',
        value_name = "N",
        default_value_t = 50,
        value_parser = value_parser!(u64).range(1..)
    )]
    limit: u64,

    /// Show them all.
    #[arg(long, short, conflicts_with = "limit")]
    all: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Order {
    key: String,
    is_descending: bool,
}

#[derive(Serialize)]
struct Listing {
    items: Vec<json::Item>,
    /// Whether there are items beyond these.
    has_more: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unindexed_fields: Vec<String>,
}

/// What the pages hold together.
#[derive(Default)]
struct Pages {
    items: Vec<search::Item>,
    has_more: bool,
    unindexed_fields: Vec<String>,
}

// === impl List ===

impl List {
    pub(super) async fn run(&self, session: &Session) -> Result<(), Error> {
        let limit = if self.all { u64::MAX } else { self.limit };
        let filter = self.filters.message();
        let found = self.collect(session, filter.as_ref(), limit).await?;
        session.note_unindexed(filter.as_ref(), &found.unindexed_fields);
        if session.is_json {
            return output::document(&Listing {
                items: found.items.into_iter().map(json::Item::from).collect(),
                has_more: found.has_more,
                unindexed_fields: found.unindexed_fields,
            });
        }
        if found.items.is_empty() {
            return output::line(match filter {
                None => format!("no items in `{}`", session.scope.collection),
                Some(_) => "no item passes".to_owned(),
            });
        }
        output::line(table(&found.items, &self.more_columns()).to_string())?;
        if found.has_more {
            let (count, _) = count::total(session, filter).await?;
            let shown = found.items.len();
            output::line("")?;
            output::line(format!("{shown} of {count}; --limit shows more, --all all"))?;
        }
        Ok(())
    }

    /// Up to `limit` items over as many pages as it takes, and whether there are more.
    async fn collect(
        &self,
        session: &Session,
        filter: Option<&search::Filter>,
        limit: u64,
    ) -> Result<Pages, Error> {
        let mut found = Pages::default();
        let mut page_token = String::new();
        // Every page of a listing is asked for with the same size.
        let page_size = u32::try_from(limit).unwrap_or(MAX_PAGE_SIZE).min(MAX_PAGE_SIZE);
        loop {
            let request = search::ListItemsRequest {
                collection: session.collection(),
                filter: filter.cloned(),
                page_size,
                page_token,
                order_by: self.sort.as_ref().map(Order::message).unwrap_or_default(),
            };
            let answer = session.mesh.items().list_items(request).await;
            let page = answer.map_err(|status| session.error(status))?.into_inner();
            found.items.extend(page.items);
            found.unindexed_fields = page.unindexed_fields;
            page_token = page.next_page_token;
            let is_full = found.items.len() as u64 >= limit;
            if is_full || page_token.is_empty() {
                found.has_more = !page_token.is_empty() || found.items.len() as u64 > limit;
                found.items.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
                return Ok(found);
            }
        }
    }

    /// What is sorted by is shown, unless it is shown anyway.
    fn more_columns(&self) -> Vec<String> {
        const SHOWN: [&str; 5] = ["id", "filename", "format", "byte_size", "create_time"];
        let key = self.sort.as_ref().map(|order| order.key.clone());
        key.into_iter().filter(|key| !SHOWN.contains(&key.as_str())).collect()
    }
}

// === impl Order ===

impl Order {
    fn message(&self) -> String {
        let end = if self.is_descending { " desc" } else { "" };
        format!("{}{end}", self.key)
    }
}

fn parse_order(text: &str) -> Result<Order, String> {
    let mut words = text.split_whitespace();
    let key = fields::key(words.next().unwrap_or_default())?;
    match (words.next(), words.next()) {
        (None, _) => Ok(Order { key, is_descending: false }),
        (Some("asc"), None) => Ok(Order { key, is_descending: false }),
        (Some("desc"), None) => Ok(Order { key, is_descending: true }),
        (Some(_), _) => Err("only `desc` may follow the field".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_a_field_and_its_direction() {
        let message = |text: &str| parse_order(text).expect(text).message();
        assert_eq!(message("create_time"), "create_time", "the least first");
        assert_eq!(message("year desc"), "metadata.year desc", "the greatest first");
        assert_eq!(message("year asc"), "metadata.year", "the usual direction");
        assert!(parse_order("year down").is_err(), "no direction");
        assert!(parse_order("").is_err(), "no field");
    }
}
