//! The options of one search, on the command line or in a line of a batch.

use clap::{Args, value_parser};
use clipmesh_proto::ids::CollectionName;
use clipmesh_proto::search::v1 as search;
use prost_types::FieldMask;

use super::query::{self, Query, Typed};
use super::show::View;
use crate::client::Mesh;
use crate::error::Error;
use crate::fields;
use crate::filter::Filters;

/// The options that ask for something.
pub(super) const QUESTIONS: [&str; 9] = {
    let [a, b, c, d, e, f, g, h] = query::OPTIONS;
    [a, b, c, d, e, f, g, h, "words"]
};

/// All options; a batch has them in its lines.
pub(super) const ALL: [&str; 23] = {
    let [a, b, c, d, e, f, g, h, i] = QUESTIONS;
    [
        a,
        b,
        c,
        d,
        e,
        f,
        g,
        h,
        i,
        "text_share",
        "words_weight",
        "limit",
        "offset",
        "threshold",
        "exact",
        "effort",
        "group_by",
        "diversity",
        "candidates",
        "fields",
        "with_vectors",
        "conditions",
        "document",
    ]
};

#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Options {
    #[command(flatten)]
    query: Query,

    /// Look for these words in the fields that the collection has for it (`collections create
    /// --words`), too; alone, it needs no model.
    #[arg(long, value_name = "TEXT")]
    words: Option<String>,

    /// How much the ranking by --words counts against the other, which counts 1: more than 0, at
    /// most 10.
    #[arg(long, value_name = "WEIGHT", requires = "words")]
    words_weight: Option<f32>,

    /// Most hits to show; with --group-by, most groups.
    #[arg(
        long,
        short = 'n',
        value_name = "N",
        default_value_t = 10,
        value_parser = value_parser!(u32).range(1..=1_000)
    )]
    limit: u32,

    /// How many of the best hits to leave out.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        value_parser = value_parser!(u32).range(0..=10_000)
    )]
    offset: u32,

    /// Leave out hits that score less, from -1 to 1.
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true, value_parser = parse_score)]
    threshold: Option<f32>,

    /// Compare with every item that passes: finds the true nearest, and takes its time.
    #[arg(long)]
    exact: bool,

    /// How many candidates a walk through the graph keeps, from 1 to 4096: more find more of the
    /// true nearest, and take longer.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=4_096))]
    effort: Option<u32>,

    /// Show the best hits of each value of this field, three of each or as many as are given.
    #[arg(long, value_name = "FIELD[:N]", value_parser = parse_group_by)]
    group_by: Option<search::GroupBy>,

    /// Prefer hits that differ from one another; how much that counts is from 0 to 1.
    #[arg(
        long,
        value_name = "WEIGHT",
        num_args = 0..=1,
        default_missing_value = "0.5",
        value_parser = parse_share
    )]
    diversity: Option<f32>,

    /// From how many of the nearest --diversity chooses, at most 1000; by default 10 for each hit.
    #[arg(
        long,
        value_name = "N",
        requires = "diversity",
        value_parser = value_parser!(u32).range(1..=1_000)
    )]
    candidates: Option<u32>,

    /// Which fields to show beside the id, as in `filename,album`.
    #[arg(long, value_name = "FIELDS", value_delimiter = ',', value_parser = fields::key)]
    fields: Vec<String>,

    /// Put the vectors of hits into the document; for --json.
    #[arg(long = "vectors")]
    with_vectors: bool,

    #[command(flatten)]
    filters: Filters,
}

// === impl Options ===

impl Options {
    /// The search as it is sent.
    pub(super) async fn request(
        &self,
        mesh: &Mesh,
        collection: &CollectionName,
    ) -> Result<(search::SearchRequest, Typed), Error> {
        let (query, typed) = self.query.read(mesh, collection).await?;
        let paths = self.fields.clone();
        let request = search::SearchRequest {
            collection: collection.to_string(),
            query,
            filter: self.filters.message(),
            limit: Some(self.limit),
            offset: self.offset,
            score_threshold: self.threshold,
            exact: self.exact,
            effort: self.effort,
            group_by: self.group_by.clone(),
            diversity: self.diversity.map(|weight| search::Diversity {
                weight: Some(weight),
                candidates: self.candidates,
            }),
            words: self.words.clone().map(|text| search::WordQuery {
                text,
                weight: self.words_weight,
                query_weight: None,
            }),
            fields: (!paths.is_empty()).then_some(FieldMask { paths }),
            include_vectors: self.with_vectors,
        };
        Ok((request, typed))
    }

    /// How its answer is shown.
    pub(super) fn view(&self) -> View {
        View {
            offset: self.offset,
            fields: self.fields.clone(),
            group_by: self.group_by.as_ref().map(|group_by| group_by.key.clone()),
            has_words: self.words.is_some(),
        }
    }
}

/// A cosine, such as a threshold.
pub(crate) fn parse_score(text: &str) -> Result<f32, String> {
    let score = text.parse::<f32>().ok().filter(|score| (-1.0..=1.0).contains(score));
    score.ok_or_else(|| "a score is a number from -1 to 1".to_owned())
}

fn parse_share(text: &str) -> Result<f32, String> {
    let share = text.parse::<f32>().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "it must be a number from 0 to 1".to_owned())
}

fn parse_group_by(text: &str) -> Result<search::GroupBy, String> {
    let (name, size) = match text.split_once(':') {
        Some((name, size)) => (name, Some(size)),
        None => (text, None),
    };
    let size = match size.map(str::parse::<u32>) {
        None => None,
        Some(Ok(size @ 1..=100)) => Some(size),
        Some(_) => return Err("a group shows 1 to 100 hits".to_owned()),
    };
    Ok(search::GroupBy { key: fields::key(name)?, size })
}

#[cfg(test)]
mod tests {
    use clap::{Command, FromArgMatches as _};

    use super::*;

    #[test]
    fn a_threshold_is_a_cosine() {
        assert_eq!(parse_score("-0.5"), Ok(-0.5), "a score may be negative");
        assert!(parse_score("1.5").is_err(), "nothing scores more than 1");
        assert!(parse_score("nan").is_err(), "NaN is no score");
    }

    #[test]
    fn groups_are_of_a_field_and_a_size() {
        let of = |key: &str, size| Ok(search::GroupBy { key: key.to_owned(), size });
        assert_eq!(parse_group_by("album"), of("metadata.album", None), "of the default size");
        assert_eq!(parse_group_by("format:5"), of("format", Some(5)), "of this size");
        assert!(parse_group_by("format:0").is_err(), "of nothing");
    }

    #[test]
    fn diversity_has_a_weight_of_its_own_or_none_at_all() {
        let parse = |arguments: &[&str]| {
            let command = Options::augment_args(Command::new("search").no_binary_name(true));
            let matches = command.try_get_matches_from(arguments).expect("understood");
            Options::from_arg_matches(&matches).expect("options").diversity
        };
        assert_eq!(parse(&["--diversity", "--exact"]), Some(0.5), "half");
        assert_eq!(parse(&["--diversity", "0.8"]), Some(0.8), "as given");
        assert_eq!(parse(&[]), None, "not asked for");
    }

    #[test]
    fn a_batch_takes_the_place_of_every_option() {
        let command = Options::augment_args(Command::new("search"));
        let mut ids: Vec<&str> = command.get_arguments().map(|arg| arg.get_id().as_str()).collect();
        let mut all = ALL.to_vec();
        ids.sort_unstable();
        all.sort_unstable();
        assert_eq!(ids, all, "each is named");
    }
}
