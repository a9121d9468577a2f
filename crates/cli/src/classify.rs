//! `clipmesh classify`: what a picture is, by what its nearest neighbours are labelled.

use clap::{ArgGroup, Args, value_parser};
use clipmesh_proto::search::v1 as search;
use serde::Serialize;

use crate::client::{Connection, Mesh, Scope};
use crate::error::Error;
use crate::fields;
use crate::filter::{self, Filters};
use crate::output::table::{Column, Table};
use crate::output::{self, json};
use crate::search::query::{self, Query};
use crate::search::{options, show};

#[derive(Debug, Args)]
#[command(
    after_help = format!("{}\n\n{}", query::HELP, filter::HELP),
    group = ArgGroup::new("question").args(query::OPTIONS).required(true).multiple(true)
)]
pub(crate) struct Command {
    #[command(flatten)]
    query: Query,

    /// The field that holds labels, as in `category`; of a list, each element is one.
    #[arg(long, value_name = "FIELD", value_parser = fields::key)]
    field: String,

    /// How many of the nearest items vote.
    #[arg(
        short,
        value_name = "N",
        default_value_t = 10,
        value_parser = value_parser!(u32).range(1..=1_000)
    )]
    k: u32,

    /// Let all votes count alike, and not by how near they are.
    #[arg(long)]
    uniform: bool,

    /// Items that score less do not vote, from -1 to 1.
    #[arg(
        long,
        value_name = "SCORE",
        allow_negative_numbers = true,
        value_parser = options::parse_score
    )]
    threshold: Option<f32>,

    /// Compare with every item that passes: finds the true nearest, and takes its time.
    #[arg(long)]
    exact: bool,

    #[command(flatten)]
    filters: Filters,
    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Serialize)]
struct Predictions {
    predictions: Vec<Prediction>,
    timing: Option<json::Timing>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unindexed_fields: Vec<String>,
}

#[derive(Serialize)]
struct Prediction {
    label: serde_json::Value,
    score: f32,
    neighbours: Vec<Neighbour>,
}

#[derive(Serialize)]
struct Neighbour {
    id: String,
    score: f32,
}

// === impl Command ===

impl Command {
    pub(crate) async fn run(self) -> Result<(), Error> {
        let mesh = Mesh::new(&self.connection)?;
        let collection = &self.scope.collection;
        let (query, typed) = self.query.read(&mesh, collection).await?;
        let filter = self.filters.message();
        let weight = match self.uniform {
            true => search::VoteWeight::Uniform,
            false => search::VoteWeight::Similarity,
        };
        let request = search::ClassifyRequest {
            collection: collection.to_string(),
            query,
            field: self.field.clone(),
            filter: filter.clone(),
            k: Some(self.k),
            weight: weight.into(),
            score_threshold: self.threshold,
            exact: self.exact,
        };
        let answer = mesh.search().classify(request).await;
        let answer = answer.map_err(|status| mesh.error(typed.explain(status)))?.into_inner();
        filter::note_unindexed(collection, filter.as_ref(), &answer.unindexed_fields);
        if self.connection.json { print_json(answer) } else { print_table(answer) }
    }
}

fn print_json(answer: search::ClassifyResponse) -> Result<(), Error> {
    let neighbour =
        |neighbour: search::Neighbour| Neighbour { id: neighbour.id, score: neighbour.score };
    let predictions = answer.predictions.into_iter().map(|prediction| Prediction {
        label: json::value(prediction.label.unwrap_or_default()),
        score: prediction.score,
        neighbours: prediction.neighbours.into_iter().map(neighbour).collect(),
    });
    output::document(&Predictions {
        predictions: predictions.collect(),
        timing: answer.timing.map(json::Timing::from),
        unindexed_fields: answer.unindexed_fields,
    })
}

fn print_table(answer: search::ClassifyResponse) -> Result<(), Error> {
    let times = answer.timing.map(|timing| show::times(&timing)).unwrap_or_default();
    if answer.predictions.is_empty() {
        return output::line(format!("no item voted{times}"));
    }
    let labels = output::count(answer.predictions.len() as u64, "label");
    output::line(table(&answer.predictions).to_string())?;
    output::line(format!("\n{labels}{times}"))
}

fn table(predictions: &[search::Prediction]) -> Table {
    let mut table = Table::new(&[
        Column::Right("SCORE"),
        Column::Left("LABEL"),
        Column::Right("VOTES"),
        Column::Left("NEAREST"),
    ]);
    for prediction in predictions {
        let nearest = prediction.neighbours.first();
        let nearest = nearest.map(|neighbour| output::short_id(&neighbour.id));
        table.row([
            format!("{:.4}", prediction.score),
            prediction.label.as_ref().map(fields::plain).unwrap_or_default(),
            prediction.neighbours.len().to_string(),
            nearest.unwrap_or_default().to_owned(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_stands_with_its_share_and_its_votes() {
        let vote = |id: &str| search::Neighbour { id: id.to_owned(), score: 0.9 };
        let prediction = search::Prediction {
            label: Some(fields::text_value("cat")),
            score: 0.75,
            neighbours: vec![vote("a.jpg"), vote("b.jpg")],
        };
        let expected = " SCORE  LABEL  VOTES  NEAREST\n0.7500  cat        2  a.jpg";
        assert_eq!(table(&[prediction]).to_string(), expected, "as printed");
    }
}
