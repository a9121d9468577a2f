//! `clipmesh items update`.

use clap::Args;
use clipmesh_proto::search::v1 as search;
use prost_types::FieldMask;

use super::{Session, get};
use crate::error::Error;
use crate::fields::{self, Field};
use crate::output::{self, json};

#[derive(Debug, Args)]
pub(super) struct Update {
    /// The item's id; the first digits of a long one will do.
    id: String,

    #[command(flatten)]
    changes: Changes,

    /// Only if the item still has this etag, as `items get` shows it.
    #[arg(long)]
    etag: Option<String>,
}

#[derive(Debug, Default, Args)]
#[group(required = true, multiple = true)]
struct Changes {
    /// Set a field of the metadata, as in `album=holiday`; the same name twice makes a list.
    #[arg(long, value_name = "NAME=VALUE", value_parser = fields::parse_field)]
    set: Vec<Field>,

    /// Remove a field of the metadata. May be repeated.
    #[arg(long, value_name = "NAME", value_parser = fields::parse_name)]
    unset: Vec<String>,

    /// Where the picture comes from.
    #[arg(long)]
    uri: Option<String>,

    /// The picture's file name.
    #[arg(long)]
    filename: Option<String>,
}

// === impl Update ===

impl Update {
    pub(super) async fn run(&self, session: &Session) -> Result<(), Error> {
        let id = session.full_id(&self.id).await?;
        let request = search::UpdateItemRequest {
            collection: session.collection(),
            item: Some(search::Item { id, ..self.changes.item() }),
            update_mask: Some(self.changes.mask()?),
            etag: self.etag.clone().unwrap_or_default(),
        };
        let answer = session.mesh.items().update_item(request).await;
        let item = answer.map_err(|status| session.error(status))?.into_inner().item;
        let item = item.unwrap_or_default();
        if session.is_json {
            return output::document(&json::Item::from(item));
        }
        output::line(get::facts(item).to_string())
    }
}

// === impl Changes ===

impl Changes {
    fn item(&self) -> search::Item {
        search::Item {
            uri: self.uri.clone().unwrap_or_default(),
            filename: self.filename.clone().unwrap_or_default(),
            metadata: fields::metadata(&self.set),
            ..search::Item::default()
        }
    }

    /// Exactly what was named, so that all else stays.
    fn mask(&self) -> Result<FieldMask, Error> {
        let set = self.set.iter().map(Field::name);
        let mut names: Vec<&str> = set.collect();
        if let Some(both) = self.unset.iter().find(|name| names.contains(&name.as_str())) {
            return Err(Error::Usage(format!("`{both}` is set and removed at once")));
        }
        names.extend(self.unset.iter().map(String::as_str));
        names.sort_unstable();
        names.dedup();
        let mut paths: Vec<_> = names.iter().map(|name| format!("metadata.{name}")).collect();
        paths.extend(self.uri.as_ref().map(|_| "uri".to_owned()));
        paths.extend(self.filename.as_ref().map(|_| "filename".to_owned()));
        Ok(FieldMask { paths })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_named_is_changed() {
        let set =
            ["tag=a", "tag=b", "year=2020"].map(|text| fields::parse_field(text).expect(text));
        let changes = Changes {
            set: set.into(),
            unset: vec!["album".to_owned()],
            uri: Some(String::new()),
            filename: None,
        };
        let mask = changes.mask().expect("a mask").paths;
        let expected = ["metadata.album", "metadata.tag", "metadata.year", "uri"];
        assert_eq!(mask, expected, "each once, the empty uri among them");
        assert_eq!(changes.item().metadata.map(|set| set.fields.len()), Some(2), "what is set");
    }

    #[test]
    fn a_field_is_not_set_and_removed_at_once() {
        let set = vec![fields::parse_field("a=1").expect("a field")];
        let changes = Changes { set, unset: vec!["a".to_owned()], ..Changes::default() };
        assert!(changes.mask().expect_err("both").to_string().contains("`a`"), "named");
    }
}
