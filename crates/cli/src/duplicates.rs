//! `clipmesh duplicates`: pictures that are there more than once, for a person to review.

use clap::{Args, value_parser};
use clipmesh_proto::search::v1 as search;
use serde::Serialize;
use tokio::time::timeout;
use tonic::Status;

use crate::client::{Connection, Mesh, Scope};
use crate::error::Error;
use crate::filter::{self, Filters};
use crate::output::table::{Column, Table};
use crate::output::{self, json};
use crate::search::options;

#[derive(Debug, Args)]
#[command(after_help = filter::HELP)]
pub(crate) struct Command {
    /// The same file byte by byte, or the same picture pixel by pixel; this is what is looked for
    /// by default.
    #[arg(long, conflicts_with = "near")]
    exact: bool,

    /// Pictures that look alike.
    #[arg(long)]
    near: bool,

    /// The least score of two pictures that look alike, from -1 to 1; 0.95 by default.
    #[arg(
        long,
        value_name = "SCORE",
        requires = "near",
        conflicts_with = "exact",
        allow_negative_numbers = true,
        value_parser = options::parse_score
    )]
    threshold: Option<f32>,

    /// The most bits in which the perceptual hashes of two pictures that look alike may differ,
    /// from 0 to 64; any number by default.
    #[arg(
        long,
        value_name = "BITS",
        requires = "near",
        conflicts_with = "exact",
        value_parser = value_parser!(u32).range(0..=64)
    )]
    hash_distance: Option<u32>,

    /// Most groups to show.
    #[arg(
        long,
        short = 'n',
        value_name = "N",
        default_value_t = 1_000,
        value_parser = value_parser!(u32).range(1..=10_000)
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
struct Groups {
    groups: Vec<Group>,
}

#[derive(Serialize)]
struct Group {
    /// Of the whole group; more than are listed where it is a large one.
    item_count: u64,
    representative: json::Item,
    duplicates: Vec<Duplicate>,
}

#[derive(Serialize)]
struct Duplicate {
    score: f32,
    hash_distance: Option<u32>,
    same_bytes: bool,
    same_pixels: bool,
    #[serde(flatten)]
    item: json::Item,
}

// === impl Command ===

impl Command {
    pub(crate) async fn run(self) -> Result<(), Error> {
        // It takes as long as there are pictures; what is bounded is the wait for the next group.
        let mesh = Mesh::for_streams(&self.connection)?;
        let answer = self.within(mesh.search().find_duplicates(self.request())).await;
        let mut answers = answer.map_err(|status| mesh.error(status))?.into_inner();
        let filter = self.filters.message();
        let mut found = Vec::new();
        let mut count = 0;
        loop {
            let answer = self.within(answers.message()).await;
            let Some(answer) = answer.map_err(|status| mesh.error(status))? else {
                break;
            };
            let fields = &answer.unindexed_fields;
            filter::note_unindexed(&self.scope.collection, filter.as_ref(), fields);
            let Some(group) = answer.group else {
                continue;
            };
            count += 1;
            if self.connection.json {
                found.push(Group::from(group));
                continue;
            }
            output::line(table(&group).to_string())?;
            if let Some(untold) = untold(&group) {
                output::line(untold)?;
            }
            output::line("")?;
        }
        if self.connection.json {
            return output::document(&Groups { groups: found });
        }
        output::line(match count {
            0 => "no duplicates".to_owned(),
            count => output::count(count, "group"),
        })
    }

    fn request(&self) -> search::FindDuplicatesRequest {
        let kind = match self.near {
            true => search::DuplicateKind::Near,
            false => search::DuplicateKind::Exact,
        };
        search::FindDuplicatesRequest {
            collection: self.scope.collection.to_string(),
            kind: kind.into(),
            filter: self.filters.message(),
            score_threshold: self.threshold,
            max_hash_distance: self.hash_distance,
            limit: Some(self.limit),
        }
    }

    async fn within<T>(
        &self,
        answer: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        let late = |_| Status::deadline_exceeded("no group came in time");
        timeout(self.connection.timeout, answer).await.map_err(late)?
    }
}

impl From<search::DuplicateGroup> for Group {
    fn from(group: search::DuplicateGroup) -> Self {
        let duplicates = group.duplicates.into_iter().map(|duplicate| Duplicate {
            score: duplicate.score,
            hash_distance: duplicate.hash_distance,
            same_bytes: duplicate.same_bytes,
            same_pixels: duplicate.same_pixels,
            item: duplicate.item.unwrap_or_default().into(),
        });
        Self {
            item_count: group.item_count,
            representative: group.representative.unwrap_or_default().into(),
            duplicates: duplicates.collect(),
        }
    }
}

/// What a large group has beside the pictures that are listed.
fn untold(group: &search::DuplicateGroup) -> Option<String> {
    let listed = 1 + group.duplicates.len() as u64;
    let untold = group.item_count.checked_sub(listed).filter(|untold| *untold > 0)?;
    Some(format!("and {untold} more of {}", group.item_count))
}

/// The one to keep, and the others.
fn table(group: &search::DuplicateGroup) -> Table {
    let mut table = Table::new(&[
        Column::Left("SAME"),
        Column::Right("SCORE"),
        Column::Right("BITS"),
        Column::Left("FILE"),
        Column::Left("SIZE"),
        Column::Left("ID"),
    ]);
    let none = search::Item::default();
    let row = |same: &str, score: String, bits: String, item: Option<&search::Item>| {
        let item = item.unwrap_or(&none);
        let size = output::dimensions(item.width, item.height);
        let id = output::short_id(&item.id).to_owned();
        [same.to_owned(), score, bits, item.filename.clone(), size, id]
    };
    table.row(row("keep", String::new(), String::new(), group.representative.as_ref()));
    for duplicate in &group.duplicates {
        let same = match (duplicate.same_bytes, duplicate.same_pixels) {
            (true, _) => "bytes",
            (false, true) => "pixels",
            (false, false) => "look",
        };
        let bits = duplicate.hash_distance.map(|bits| bits.to_string()).unwrap_or_default();
        table.row(row(same, format!("{:.4}", duplicate.score), bits, duplicate.item.as_ref()));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_the_one_to_keep_and_the_others() {
        let item = |id: &str| search::Item { id: id.to_owned(), ..search::Item::default() };
        let other = search::Duplicate {
            item: Some(item("b.jpg")),
            score: 0.97,
            hash_distance: Some(3),
            same_bytes: false,
            same_pixels: false,
        };
        let pixels = search::Duplicate {
            item: Some(item("c.png")),
            score: 1.0,
            hash_distance: Some(0),
            same_pixels: true,
            ..search::Duplicate::default()
        };
        let group = search::DuplicateGroup {
            representative: Some(item("a.jpg")),
            duplicates: vec![pixels, other],
            item_count: 3,
        };
        assert_eq!(untold(&group), None, "all are listed");
        let large = search::DuplicateGroup { item_count: 1_200, ..group.clone() };
        assert_eq!(untold(&large).as_deref(), Some("and 1197 more of 1200"), "as many as are not");
        let shown = table(&group).to_string();
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let lines: Vec<_> = shown.lines().map(words).collect();
        assert_eq!(lines[1], ["keep", "a.jpg"], "first the one to keep: {shown}");
        assert_eq!(lines[2], ["pixels", "1.0000", "0", "c.png"], "what is the same: {shown}");
        assert_eq!(lines[3], ["look", "0.9700", "3", "b.jpg"], "how near it is: {shown}");
    }
}
