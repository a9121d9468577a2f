//! Collections for people.

use clipmesh_proto::search::v1 as search;

use crate::output;
use crate::output::json;
use crate::output::table::{Column, Facts, Table};

pub(crate) fn table(collections: &[search::Collection]) -> Table {
    let mut table = Table::new(&[
        Column::Left("NAME"),
        Column::Right("ITEMS"),
        Column::Left("MODEL"),
        Column::Right("DIMENSION"),
        Column::Left("CREATED"),
        Column::Left("ALIASES"),
    ]);
    for collection in collections {
        table.row([
            collection.name.clone(),
            collection.item_count.to_string(),
            collection.model_name.clone(),
            collection.dimension.to_string(),
            collection.create_time.map(output::local_time).unwrap_or_default(),
            collection.aliases.join(", "),
        ]);
    }
    table
}

/// Everything about one collection, a line each.
pub(super) fn facts(collection: search::Collection) -> Facts {
    let mut facts = Facts::default();
    facts.add("name", &collection.name);
    facts.add("aliases", collection.aliases.join(", "));
    facts.add("items", collection.item_count);
    facts.add("model", &collection.model_name);
    facts.add("fingerprint", output::short_id(&collection.model_fingerprint));
    facts.add("dimension", collection.dimension);
    facts.add("created", collection.create_time.map(output::local_time).unwrap_or_default());
    let chosen = collection.field_indexes.iter().filter(|index| !index.is_built_in);
    let indexes = chosen.map(|index| format!("{}:{}", index.key, json::index_kind(index.kind())));
    facts.add("indexes", indexes.collect::<Vec<_>>().join(", "));
    facts.add("words in", collection.word_fields.join(", "));
    if let Some(index) = collection.vector_index {
        facts.add("graph", graph(index));
    }
    facts
}

fn graph(index: search::VectorIndex) -> String {
    let quantization = json::quantization(index.quantization());
    let number = |number: Option<u32>| number.map_or("default".to_owned(), |n| n.to_string());
    let (links, effort) = (number(index.links), number(index.build_effort));
    format!("{links} links, build effort {effort}, quantization {quantization}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collection_shows_how_it_is_searched() {
        let index = |key: &str, is_built_in| search::FieldIndex {
            key: key.to_owned(),
            kind: search::FieldIndexKind::Integer.into(),
            is_built_in,
        };
        let collection = search::Collection {
            name: "images".to_owned(),
            aliases: vec!["now".to_owned()],
            item_count: 3,
            field_indexes: vec![index("width", true), index("metadata.year", false)],
            vector_index: Some(search::VectorIndex {
                links: Some(24),
                build_effort: Some(100),
                quantization: search::Quantization::Scalar.into(),
            }),
            ..search::Collection::default()
        };
        let shown = facts(collection).to_string();
        let line = |start: &str| shown.lines().find(|line| line.starts_with(start)).unwrap_or("");
        assert!(line("indexes").ends_with("  metadata.year:integer"), "those that were chosen");
        let graph = "24 links, build effort 100, quantization scalar";
        assert!(line("graph").ends_with(graph), "its graph: {shown}");
        assert!(line("aliases").ends_with("now"), "its other names: {shown}");
    }
}
