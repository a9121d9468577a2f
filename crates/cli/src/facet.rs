//! `clipmesh facet`: how many items have each value of a field.

use clap::{Args, value_parser};
use clipmesh_proto::search::v1 as search;
use serde::Serialize;

use crate::client::{Connection, Mesh, Scope};
use crate::error::Error;
use crate::fields;
use crate::filter::{self, Filters};
use crate::output::table::{Column, Table};
use crate::output::{self, json};

#[derive(Debug, Args)]
#[command(after_help = filter::HELP)]
pub(crate) struct Command {
    /// The field to count by, as in `album`; it needs an index of whole strings, whole numbers or
    /// booleans.
    #[arg(value_parser = fields::key)]
    field: String,

    /// Most values to show.
    #[arg(
        long,
        short = 'n',
        value_name = "N",
        default_value_t = 10,
        value_parser = value_parser!(u32).range(1..=1_000)
    )]
    limit: u32,

    #[command(flatten)]
    filters: Filters,
    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Serialize)]
struct Facet {
    values: Vec<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unindexed_fields: Vec<String>,
}

#[derive(Serialize)]
struct Value {
    value: serde_json::Value,
    count: u64,
}

// === impl Command ===

impl Command {
    pub(crate) async fn run(self) -> Result<(), Error> {
        let mesh = Mesh::new(&self.connection)?;
        let filter = self.filters.message();
        let request = search::FacetRequest {
            collection: self.scope.collection.to_string(),
            key: self.field,
            filter: filter.clone(),
            limit: Some(self.limit),
        };
        let answer = mesh.search().facet(request).await;
        let answer = answer.map_err(|status| mesh.error(status))?.into_inner();
        let collection = &self.scope.collection;
        filter::note_unindexed(collection, filter.as_ref(), &answer.unindexed_fields);
        if self.connection.json {
            let values = answer.values.into_iter().map(|value| Value {
                value: json::value(value.value.unwrap_or_default()),
                count: value.count,
            });
            let unindexed_fields = answer.unindexed_fields;
            return output::document(&Facet { values: values.collect(), unindexed_fields });
        }
        if answer.values.is_empty() {
            return output::line("no item has a value there");
        }
        output::line(table(&answer.values).to_string())
    }
}

fn table(values: &[search::FacetValue]) -> Table {
    let mut table = Table::new(&[Column::Right("COUNT"), Column::Left("VALUE")]);
    for value in values {
        let name = value.value.as_ref().map(fields::plain).unwrap_or_default();
        table.row([value.count.to_string(), name]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_stands_with_its_count() {
        let value = |value, count| search::FacetValue { value: Some(value), count };
        let values = [value(fields::text_value("cat"), 12), value(fields::number_value(3.0), 1)];
        assert_eq!(table(&values).to_string(), "COUNT  VALUE\n   12  cat\n    1  3", "as printed");
    }
}
