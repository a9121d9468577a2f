//! What was found, for people and for programs.

use clipmesh_proto::search::v1 as search;
use serde::Serialize;

use crate::error::Error;
use crate::fields;
use crate::output::table::{Column, Table};
use crate::output::{self, json};

/// How an answer is shown.
#[derive(Debug)]
pub(super) struct View {
    pub(super) offset: u32,
    /// Those that were asked for; the usual ones if there are none.
    pub(super) fields: Vec<String>,
    pub(super) group_by: Option<String>,
    pub(super) has_words: bool,
}

/// An answer as a document.
#[derive(Debug, Serialize)]
pub(super) struct Found {
    hits: Vec<json::Hit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<Vec<Group>>,
    timing: Option<json::Timing>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unindexed_fields: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Group {
    value: serde_json::Value,
    hits: Vec<json::Hit>,
}

// === impl View ===

impl View {
    pub(super) fn json(&self, answer: search::SearchResponse) -> Result<Found, Error> {
        let groups = answer.groups.into_iter().map(|group| {
            let value = json::value(group.value.unwrap_or_default());
            Ok::<_, Error>(Group { value, hits: self.hits(0, group.hits)? })
        });
        let groups = groups.collect::<Result<Vec<_>, _>>()?;
        Ok(Found {
            hits: self.hits(self.offset, answer.hits)?,
            groups: self.group_by.is_some().then_some(groups),
            timing: answer.timing.map(json::Timing::from),
            unindexed_fields: answer.unindexed_fields,
        })
    }

    pub(super) fn print(&self, answer: search::SearchResponse) -> Result<(), Error> {
        let times = answer.timing.map(|timing| times(&timing)).unwrap_or_default();
        let summary = match (answer.hits.len() as u64, answer.groups.len() as u64) {
            (0, 0) => "nothing similar".to_owned(),
            (found, 0) => output::count(found, "hit"),
            (_, groups) => output::count(groups, "group"),
        };
        if !answer.hits.is_empty() {
            output::line(self.table(self.offset, &answer.hits).to_string())?;
            output::line("")?;
        }
        for group in answer.groups {
            let value = group.value.as_ref().map(fields::plain).unwrap_or_default();
            output::line(format!("{} = {value}", self.group_by.as_deref().unwrap_or_default()))?;
            output::line(self.table(0, &group.hits).to_string())?;
            output::line("")?;
        }
        output::line(format!("{summary}{times}"))
    }

    fn hits(&self, offset: u32, hits: Vec<search::Hit>) -> Result<Vec<json::Hit>, Error> {
        let ranks = u64::from(offset) + 1..;
        let hits = ranks.zip(hits).map(|(rank, hit)| {
            Ok(json::Hit {
                rank,
                score: hit.score,
                word_score: self.has_words.then_some(hit.word_score),
                fused_score: self.has_words.then_some(hit.fused_score),
                item: json::Item::from(hit.item.unwrap_or_default()).only(&self.fields)?,
                vector: hit.vector,
            })
        });
        hits.collect()
    }

    fn table(&self, offset: u32, hits: &[search::Hit]) -> Table {
        let mut columns = vec![Column::Right("RANK"), Column::Right("SCORE")];
        if self.has_words {
            columns.push(Column::Right("WORDS"));
        }
        let names: Vec<String> = self.fields.iter().map(|field| heading(field)).collect();
        if self.fields.is_empty() {
            columns.extend([Column::Left("FILE"), Column::Left("SIZE")]);
        } else {
            columns.extend(names.iter().map(|name| Column::Left(name)));
        }
        columns.push(Column::Left("ID"));
        let mut table = Table::new(&columns);
        for (rank, hit) in (u64::from(offset) + 1..).zip(hits) {
            table.row(self.row(rank, hit));
        }
        table
    }

    fn row(&self, rank: u64, hit: &search::Hit) -> Vec<String> {
        let none = search::Item::default();
        let item = hit.item.as_ref().unwrap_or(&none);
        let mut row = vec![rank.to_string(), format!("{:.4}", hit.score)];
        if self.has_words {
            row.push(format!("{:.2}", hit.word_score));
        }
        if self.fields.is_empty() {
            row.push(item.filename.clone());
            row.push(output::dimensions(item.width, item.height));
        } else {
            row.extend(self.fields.iter().map(|field| fields::cell(item, field)));
        }
        row.push(output::short_id(&item.id).to_owned());
        row
    }
}

fn heading(field: &str) -> String {
    field.trim_start_matches("metadata.").to_uppercase()
}

/// Where the time went, as in ` in 31.4 ms (embed 28.0 ms, store 1.93 ms)`.
pub(crate) fn times(timing: &search::SearchTiming) -> String {
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
    if timing.cache_bypassed {
        parts.push("cache out of reach".to_owned());
    } else if timing.cache_ms > 0.0 {
        parts.push(format!("cache {}", output::millis(timing.cache_ms)));
    }
    format!(" in {} ({})", output::millis(timing.total_ms), parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing() -> search::SearchTiming {
        search::SearchTiming {
            total_ms: 31.42,
            embed_ms: 28.04,
            store_ms: 1.934,
            ..search::SearchTiming::default()
        }
    }

    fn view() -> View {
        View { offset: 20, fields: Vec::new(), group_by: None, has_words: false }
    }

    fn hit() -> search::Hit {
        let item = search::Item {
            id: "ab".repeat(32),
            filename: "cat.jpg".to_owned(),
            width: 512,
            height: 384,
            metadata: fields::metadata(&[fields::parse_field("year=2020").expect("a field")]),
            ..search::Item::default()
        };
        let word_score = 2.5;
        search::Hit { item: Some(item), score: 0.9877, word_score, ..search::Hit::default() }
    }

    #[test]
    fn tells_where_the_time_went_and_what_was_spared() {
        let fresh = times(&timing());
        assert_eq!(fresh, " in 31.4 ms (embed 28.0 ms, store 1.93 ms)", "nothing was cached");
        let known = search::SearchTiming { embedding_cached: true, embed_ms: 0.0, ..timing() };
        assert_eq!(times(&known), " in 31.4 ms (vector cached, store 1.93 ms)", "a known picture");
        let answered = search::SearchTiming { result_cached: true, cache_ms: 0.5, ..timing() };
        let expected = " in 31.4 ms (answer cached, cache 0.50 ms)";
        assert_eq!(times(&answered), expected, "a known question");
        let alone = search::SearchTiming { cache_bypassed: true, embed_ms: 0.0, ..timing() };
        let expected = " in 31.4 ms (store 1.93 ms, cache out of reach)";
        assert_eq!(times(&alone), expected, "no cache");
    }

    #[test]
    fn ranks_go_on_over_pages() {
        let expected = "\
RANK   SCORE  FILE     SIZE       ID
  21  0.9877  cat.jpg  512 × 384  abababababab";
        assert_eq!(view().table(20, &[hit()]).to_string(), expected, "the twenty-first hit");
    }

    #[test]
    fn the_fields_that_were_asked_for_are_shown() {
        let fields = vec!["metadata.year".to_owned(), "width".to_owned()];
        let view = View { fields, has_words: true, ..view() };
        let expected = "\
RANK   SCORE  WORDS  YEAR  WIDTH  ID
   1  0.9877   2.50  2020  512    abababababab";
        assert_eq!(view.table(0, &[hit()]).to_string(), expected, "for people");
        let answer = search::SearchResponse { hits: vec![hit()], ..Default::default() };
        let found = view.json(answer).expect("a document");
        let found = serde_json::to_value(&found.hits[0].item).expect("a document");
        assert!(found["filename"].is_null(), "not asked for: {found}");
        assert_eq!(found["metadata"]["year"], 2020, "asked for: {found}");
    }
}
