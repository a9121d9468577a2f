//! Which fields of an item a caller wants to see.

use std::collections::BTreeSet;

use clipmesh_proto::search::v1;
use serde::Serialize;

use crate::filter::Field;

/// A choice of fields. The default is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Fields(BTreeSet<String>);

/// That there is no such field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unknown;

// === impl Fields ===

impl Fields {
    /// Adds a field, as in `filename`, `metadata` or `metadata.album`.
    pub(crate) fn add(&mut self, path: String) -> Result<(), Unknown> {
        let (mut from, mut into) = (v1::Item::default(), v1::Item::default());
        if !pass(&path, &mut from, &mut into) {
            return Err(Unknown);
        }
        self.0.insert(path);
        Ok(())
    }

    /// The item with its id and what was chosen of it.
    pub(crate) fn of(&self, mut item: v1::Item) -> v1::Item {
        if self.0.is_empty() {
            return item;
        }
        let mut chosen = v1::Item { id: item.id.clone(), ..v1::Item::default() };
        // In order of path, so that all metadata goes before a field of it.
        for path in &self.0 {
            pass(path, &mut item, &mut chosen);
        }
        chosen
    }
}

/// Passes a field on, and tells whether there can be one of that name.
fn pass(path: &str, from: &mut v1::Item, into: &mut v1::Item) -> bool {
    use std::mem::swap;
    match path {
        "id" => {}
        "uri" => swap(&mut into.uri, &mut from.uri),
        "filename" => swap(&mut into.filename, &mut from.filename),
        "width" => swap(&mut into.width, &mut from.width),
        "height" => swap(&mut into.height, &mut from.height),
        "format" => swap(&mut into.format, &mut from.format),
        "byte_size" => swap(&mut into.byte_size, &mut from.byte_size),
        "content_hash" => swap(&mut into.content_hash, &mut from.content_hash),
        "pixel_hash" => swap(&mut into.pixel_hash, &mut from.pixel_hash),
        "perceptual_hash" => swap(&mut into.perceptual_hash, &mut from.perceptual_hash),
        "create_time" => swap(&mut into.create_time, &mut from.create_time),
        "update_time" => swap(&mut into.update_time, &mut from.update_time),
        "metadata" => swap(&mut into.metadata, &mut from.metadata),
        "etag" => swap(&mut into.etag, &mut from.etag),
        _ => {
            let Some(Field::Metadata(name)) = Field::of_key(path) else {
                return false;
            };
            let value = from.metadata.as_mut().and_then(|metadata| metadata.fields.remove(&name));
            if let Some(value) = value {
                into.metadata.get_or_insert_default().fields.insert(name, value);
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use prost_types::value::Kind;
    use prost_types::{Struct, Timestamp, Value};

    use super::*;

    /// One with nothing unset.
    fn item() -> v1::Item {
        let text = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
        let fields = [("album".to_owned(), text("x")), ("year".to_owned(), text("y"))];
        v1::Item {
            id: "id".to_owned(),
            uri: "uri".to_owned(),
            filename: "filename".to_owned(),
            width: 1,
            height: 2,
            format: "png".to_owned(),
            byte_size: 3,
            content_hash: "content".to_owned(),
            create_time: Some(Timestamp { seconds: 1, nanos: 0 }),
            update_time: Some(Timestamp { seconds: 2, nanos: 0 }),
            metadata: Some(Struct { fields: fields.into() }),
            etag: "etag".to_owned(),
            pixel_hash: "pixel".to_owned(),
            perceptual_hash: 4,
        }
    }

    fn choose(paths: &[&str]) -> v1::Item {
        let mut fields = Fields::default();
        for path in paths {
            fields.add((*path).to_owned()).expect("a field");
        }
        fields.of(item())
    }

    #[test]
    fn an_item_has_its_id_and_what_was_chosen() {
        let only = || v1::Item { id: "id".to_owned(), ..v1::Item::default() };
        assert_eq!(choose(&[]), item(), "no choice is everything");
        assert_eq!(choose(&["id"]), only(), "the id alone");
        let named = v1::Item { filename: "filename".to_owned(), width: 1, ..only() };
        assert_eq!(choose(&["width", "filename"]), named, "two facts");
        let whole = v1::Item { metadata: item().metadata, ..only() };
        assert_eq!(choose(&["metadata"]), whole, "all metadata");
        assert_eq!(choose(&["metadata.album", "metadata"]), whole, "which a part takes nothing of");
        let album = choose(&["metadata.album"]).metadata.expect("some");
        assert_eq!(album.fields.keys().collect::<Vec<_>>(), ["album"], "one field");
        assert_eq!(choose(&["metadata.none"]), only(), "what is absent stays so");
    }

    #[test]
    fn every_field_can_be_chosen() {
        let all = [
            "id",
            "uri",
            "filename",
            "width",
            "height",
            "format",
            "byte_size",
            "content_hash",
            "create_time",
            "update_time",
            "metadata",
            "etag",
            "pixel_hash",
            "perceptual_hash",
        ];
        assert_eq!(choose(&all), item(), "all of them are the item");
    }

    #[test]
    fn there_is_nothing_else_to_choose() {
        for path in ["", "item", "Id", "vector", "metadatas", "lot", "item.id", "score"] {
            assert_eq!(Fields::default().add(path.to_owned()), Err(Unknown), "`{path}`");
        }
    }
}
