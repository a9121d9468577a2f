//! Changing what is known of an item; its picture and vector stay.

use clipmesh_proto::code::FieldViolation;
use clipmesh_proto::ids::{CollectionName, ItemId};

use super::intake::times_after;
use super::write::Write;
use super::{ATTEMPTS, Items, changed_since, check_etag};
use crate::convert;
use crate::error::Error;
use crate::item::{Etag, Item, Metadata};
use crate::store::Point;

/// What to change of an item.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Change {
    pub(crate) uri: Option<String>,
    pub(crate) filename: Option<String>,
    pub(crate) metadata: MetadataChange,
}

/// What to change of an item's metadata.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum MetadataChange {
    /// This in place of all there is.
    Replace(Metadata),
    /// These fields, and no others.
    Merge { set: Metadata, remove: Vec<String> },
}

// === impl Items ===

impl Items {
    /// Changes what is known of an item. Durable once this returns.
    pub(crate) async fn update(
        &self,
        name: CollectionName,
        id: ItemId,
        change: Change,
        etag: Option<Etag>,
    ) -> Result<Item, Error> {
        let collection = self.resolve(name).await?;
        let turn = self.locks.lock(&collection.name, &id).await;
        for _ in 0..ATTEMPTS {
            let found = self.store.point(collection.name.clone(), id.clone()).await?;
            let missing = || Error::NoItem { collection: collection.name.clone(), id: id.clone() };
            let Point { item, vector } = found.ok_or_else(missing)?;
            check_etag(&collection.name, &item, etag.as_ref())?;
            let mut changed = change.applied(&item)?;
            if changed == item {
                self.writer.confirm(&collection, Some(item.update_time)).await?;
                return Ok(item);
            }
            (_, changed.update_time) = times_after(&item);
            let point = Point { item: changed.clone(), vector };
            let write = Write { point, expected: Some(item.etag()), old_picture: None };
            if self.writer.write(turn.clone(), collection.clone(), write).await? {
                return Ok(changed);
            }
        }
        Err(changed_since(&collection.name, &id))
    }
}

// === impl Change ===

impl Change {
    /// The item as it is to be, but for the time of the change.
    fn applied(&self, item: &Item) -> Result<Item, FieldViolation> {
        let mut changed = item.clone();
        if let Some(uri) = &self.uri {
            changed.uri.clone_from(uri);
        }
        if let Some(filename) = &self.filename {
            changed.filename.clone_from(filename);
        }
        match &self.metadata {
            MetadataChange::Replace(metadata) => changed.metadata.clone_from(metadata),
            MetadataChange::Merge { set, remove } => {
                changed.metadata.extend(set.clone());
                changed.metadata.retain(|name, _| !remove.contains(name));
                convert::item::check_metadata(&changed.metadata)?;
            }
        }
        Ok(changed)
    }
}

// === impl MetadataChange ===

impl Default for MetadataChange {
    fn default() -> Self {
        Self::Merge { set: Metadata::new(), remove: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use clipmesh_proto::code::Reason;

    use super::*;
    use crate::item::{Scalar, Value};
    use crate::store::contract::item;

    fn metadata(fields: &[(&str, f64)]) -> Metadata {
        let value = |number| Value::One(Scalar::Number(number));
        fields.iter().map(|(name, number)| ((*name).to_owned(), value(*number))).collect()
    }

    #[test]
    fn changes_what_it_names_and_nothing_else() {
        let before = Item { metadata: metadata(&[("a", 1.0), ("b", 2.0)]), ..item("x") };
        let nothing = Change::default().applied(&before);
        assert_eq!(nothing.as_ref(), Ok(&before), "nothing is named");

        let merge = MetadataChange::Merge {
            set: metadata(&[("b", 3.0), ("c", 4.0)]),
            remove: vec!["a".to_owned(), "absent".to_owned()],
        };
        let change = Change { uri: Some("u".to_owned()), filename: None, metadata: merge };
        let after = change.applied(&before).expect("allowed");
        let expected = Item {
            uri: "u".to_owned(),
            metadata: metadata(&[("b", 3.0), ("c", 4.0)]),
            ..before.clone()
        };
        assert_eq!(after, expected, "set, added and removed");

        let replace = MetadataChange::Replace(metadata(&[("d", 5.0)]));
        let change = Change { uri: None, filename: Some(String::new()), metadata: replace };
        let after = change.applied(&before).expect("allowed");
        let expected =
            Item { filename: String::new(), metadata: metadata(&[("d", 5.0)]), ..before };
        assert_eq!(after, expected, "as a whole");
    }

    #[test]
    fn refuses_to_add_more_than_an_item_may_have() {
        let fields: Vec<_> = (0..60).map(|i| format!("f{i}")).collect();
        let fields: Vec<_> = fields.iter().map(|name| (name.as_str(), 0.0)).collect();
        let before = Item { metadata: metadata(&fields), ..item("x") };
        let set = metadata(&[("a", 0.0), ("b", 0.0), ("c", 0.0), ("d", 0.0), ("e", 0.0)]);
        let merge = |remove| MetadataChange::Merge { set: set.clone(), remove };
        let change = Change { metadata: merge(vec![]), ..Change::default() };
        let violation = change.applied(&before).expect_err("65 fields");
        assert_eq!(
            (violation.field.as_str(), violation.reason),
            ("item.metadata", Reason::TooMany)
        );
        let change = Change { metadata: merge(vec!["f0".to_owned()]), ..Change::default() };
        assert!(change.applied(&before).is_ok(), "64 fields");
    }
}
