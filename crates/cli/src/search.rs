//! `clipmesh search`: the pictures nearest to one, to some words, to an item, or to a mix of these.

mod query;

use clap::Args;
use clipmesh_proto::search::v1 as search;
use serde::Serialize;

use crate::client::{Connection, Mesh, Scope};
use crate::error::Error;
use crate::filter;
use crate::output::table::{Column, Table};
use crate::output::{self, json};

use query::Query;

#[derive(Debug, Args)]
#[command(after_help = format!("{}\n\n{}", query::HELP, filter::HELP))]
pub(crate) struct Command {
    #[command(flatten)]
    query: Query,

    /// What --text weighs of a mix with --image or --id, from 0.01 to 0.99; by default, every query
    /// weighs the same.
    #[arg(long, value_name = "SHARE", value_parser = query::parse_text_share)]
    text_share: Option<f32>,

    /// Most hits to show.
    #[arg(
        long,
        short = 'n',
        value_name = "N",
        default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..=1_000)
    )]
    limit: u32,

    /// How many of the best hits to leave out.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        value_parser = clap::value_parser!(u32).range(0..=10_000)
    )]
    offset: u32,

    /// Leave out hits that score less, from -1 to 1.
    #[arg(
        long,
        value_name = "SCORE",
        allow_negative_numbers = true,
        value_parser = parse_threshold
    )]
    threshold: Option<f32>,

    /// Only items that pass, as in `format=jpeg`; see below.
    #[arg(long = "filter", short, value_name = "CONDITION", value_parser = filter::parse_term)]
    filters: Vec<filter::Term>,

    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Serialize)]
struct Found {
    hits: Vec<json::Hit>,
    timing: Option<json::Timing>,
}

// === impl Command ===

impl Command {
    pub(crate) async fn run(self) -> Result<(), Error> {
        let mesh = Mesh::new(&self.connection)?;
        let (kind, typed) = self.query.read(&mesh, &self.scope.collection, self.text_share).await?;
        let request = search::SearchRequest {
            collection: self.scope.collection.to_string(),
            query: Some(search::Query { kind: Some(kind) }),
            filter: filter::all_of(&self.filters),
            limit: Some(self.limit),
            offset: self.offset,
            score_threshold: self.threshold,
            ..search::SearchRequest::default()
        };
        let answer = mesh.search().search(request).await;
        let answer = answer.map_err(|status| mesh.error(typed.explain(status)))?;
        let answer = answer.into_inner();
        if self.connection.json { self.print_json(answer) } else { self.print_table(answer) }
    }

    fn print_json(&self, answer: search::SearchResponse) -> Result<(), Error> {
        let ranks = u64::from(self.offset) + 1..;
        let hits = ranks.zip(answer.hits).map(|(rank, hit)| json::Hit {
            rank,
            score: hit.score,
            item: hit.item.unwrap_or_default().into(),
        });
        output::document(&Found {
            hits: hits.collect(),
            timing: answer.timing.map(json::Timing::from),
        })
    }

    fn print_table(&self, answer: search::SearchResponse) -> Result<(), Error> {
        let times = answer.timing.map(|timing| times(&timing)).unwrap_or_default();
        let found = answer.hits.len() as u64;
        if !answer.hits.is_empty() {
            output::line(table(u64::from(self.offset), answer.hits).to_string())?;
            output::line("")?;
        }
        let summary = match found {
            0 => "nothing similar".to_owned(),
            found => output::count(found, "hit"),
        };
        output::line(format!("{summary}{times}"))
    }
}

fn table(offset: u64, hits: Vec<search::Hit>) -> Table {
    let mut table = Table::new(&[
        Column::Right("RANK"),
        Column::Right("SCORE"),
        Column::Left("FILE"),
        Column::Left("SIZE"),
        Column::Left("ID"),
    ]);
    for (rank, hit) in (offset + 1..).zip(hits) {
        let item = hit.item.unwrap_or_default();
        table.row([
            rank.to_string(),
            format!("{:.4}", hit.score),
            item.filename,
            output::dimensions(item.width, item.height),
            output::short_id(&item.id).to_owned(),
        ]);
    }
    table
}

/// Where the time went, as in ` in 31.4 ms (embed 28.0 ms, store 1.93 ms)`.
fn times(timing: &search::SearchTiming) -> String {
    let mut parts = Vec::new();
    if timing.result_cached {
        parts.push("answer cached".to_owned());
    } else {
        if timing.embedding_cached {
            parts.push("vector cached".to_owned());
        } else if timing.embed_ms > 0.0 {
            parts.push(format!("embed {}", output::millis(timing.embed_ms)));
        }
        parts.push(format!("store {}", output::millis(timing.store_ms)));
    }
    format!(" in {} ({})", output::millis(timing.total_ms), parts.join(", "))
}

fn parse_threshold(text: &str) -> Result<f32, String> {
    let score = text.parse::<f32>().ok().filter(|score| (-1.0..=1.0).contains(score));
    score.ok_or_else(|| "a score is a number from -1 to 1".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing() -> search::SearchTiming {
        search::SearchTiming {
            total_ms: 31.42,
            embed_ms: 28.04,
            store_ms: 1.934,
            embedding_cached: false,
            result_cached: false,
            ..search::SearchTiming::default()
        }
    }

    #[test]
    fn tells_where_the_time_went_and_what_was_spared() {
        let fresh = times(&timing());
        assert_eq!(fresh, " in 31.4 ms (embed 28.0 ms, store 1.93 ms)", "nothing was cached");
        let known = search::SearchTiming { embedding_cached: true, embed_ms: 0.0, ..timing() };
        assert_eq!(times(&known), " in 31.4 ms (vector cached, store 1.93 ms)", "a known picture");
        let answered = search::SearchTiming { result_cached: true, ..timing() };
        assert_eq!(times(&answered), " in 31.4 ms (answer cached)", "a known question");
    }

    #[test]
    fn ranks_go_on_over_pages() {
        let item = search::Item {
            id: "ab".repeat(32),
            filename: "cat.jpg".to_owned(),
            width: 512,
            height: 384,
            ..search::Item::default()
        };
        let hits = vec![search::Hit { item: Some(item), score: 0.9877, ..search::Hit::default() }];
        let expected = "\
RANK   SCORE  FILE     SIZE       ID
  21  0.9877  cat.jpg  512 × 384  abababababab";
        assert_eq!(table(20, hits).to_string(), expected, "the twenty-first hit");
    }

    #[test]
    fn a_threshold_is_a_cosine() {
        assert_eq!(parse_threshold("-0.5"), Ok(-0.5), "a score may be negative");
        assert!(parse_threshold("1.5").is_err(), "nothing scores more than 1");
        assert!(parse_threshold("nan").is_err(), "NaN is no score");
    }
}
