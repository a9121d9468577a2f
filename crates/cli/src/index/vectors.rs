//! Ready vectors from a file, for pictures that are kept elsewhere: `clipmesh index --vectors`.
//!
//! One stream is enough: nothing is read twice or decoded, and a second run over the same file
//! finds what the first one stored unchanged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clipmesh_proto::code;
use clipmesh_proto::search::v1 as search;
use clipmesh_proto::search::v1::index_items_response::Result as Answer;
use prost_types::Struct;
use serde::Deserialize;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, BufReader, Lines};
use tokio::time::timeout;
use tonic::Status;

use crate::client::Mesh;
use crate::error::{Error, item_reason};
use crate::fields;
use crate::index::report::Report;
use crate::index::upload::open;
use crate::index::window::Settled;
use crate::input::STDIN;

/// For `--help`.
pub(crate) const HELP: &str = r#"Ready vectors (--vectors) are a JSON object in each line:
    {"id": "sku-1", "vector": [0.1, -0.2], "metadata": {"year": 2019}, "uri": "s3://shop/1.jpg"}
  `id` and `vector` are needed; `metadata`, `uri`, `filename` and `model_fingerprint` are not."#;

/// Stores the vectors of one file.
#[derive(Debug)]
pub(crate) struct Vectors<'a> {
    /// Without a time-out for whole calls, for a stream lasts as long as there are lines.
    pub(crate) mesh: Mesh,
    pub(crate) collection: String,
    pub(crate) path: &'a Path,
    /// Fields of every item; they win over those of its line.
    pub(crate) of_all: Option<Struct>,
    /// Most items on their way at once.
    pub(crate) in_flight: usize,
    /// Longest wait for the next acknowledgement.
    pub(crate) patience: Duration,
    pub(crate) report: &'a mut Report,
}

/// A line of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: String,
    vector: Vec<f32>,
    #[serde(default)]
    model_fingerprint: String,
    #[serde(default)]
    uri: String,
    #[serde(default)]
    filename: String,
    #[serde(default)]
    metadata: serde_json::Map<String, serde_json::Value>,
}

// === impl Vectors ===

impl Vectors<'_> {
    /// Stores all vectors. Those that can't be taken are reported and cost nothing else.
    pub(crate) async fn run(mut self) -> Result<(), Error> {
        let mut lines = lines(self.path).await?;
        let (sender, mut answers) = open(&self.mesh);
        let mut waiting: BTreeMap<u64, PathBuf> = BTreeMap::new();
        let mut next: Option<search::IndexItemsRequest> = None;
        let mut number = 0;
        let mut is_at_end = false;
        while !is_at_end || !waiting.is_empty() {
            let is_open = !sender.is_closed();
            let has_room = !is_at_end && next.is_none() && waiting.len() < self.in_flight;
            tokio::select! {
                line = lines.next_line(), if has_room => {
                    let line = line.map_err(|source| self.broken_file(source))?;
                    number += 1;
                    is_at_end = line.is_none();
                    next = line.and_then(|line| self.request(number, &line));
                    waiting.extend(next.as_ref().map(|_| (number, self.place(number))));
                }
                permit = sender.reserve(), if is_open && next.is_some() => {
                    // Without a permit the stream has ended, and the next answer says why.
                    if let Ok(permit) = permit && let Some(request) = next.take() {
                        permit.send(request);
                    }
                }
                answer = timeout(self.patience, answers.next()), if !waiting.is_empty() => {
                    let late = |_| Status::deadline_exceeded("no acknowledgement came in time");
                    let answer = answer.map_err(late).and_then(|answer| answer);
                    self.settle(answer.map_err(|status| self.mesh.error(status))?, &mut waiting);
                }
            }
        }
        drop(sender);
        answers.end().await;
        Ok(())
    }

    fn broken_file(&self, source: std::io::Error) -> Error {
        Error::File { path: self.path.to_owned(), source }
    }

    fn place(&self, number: u64) -> PathBuf {
        PathBuf::from(format!("{}:{number}", self.path.display()))
    }

    /// What to send for a line, if it is one that can be sent.
    fn request(&mut self, number: u64, line: &str) -> Option<search::IndexItemsRequest> {
        if line.trim().is_empty() {
            return None;
        }
        self.report.expect_one_more();
        match parse(line, self.of_all.as_ref()) {
            Ok(item) => {
                let collection = self.collection.clone();
                Some(search::IndexItemsRequest { collection, key: number, item: Some(item) })
            }
            Err(reason) => {
                self.report.failed(self.place(number).display(), reason);
                None
            }
        }
    }

    fn settle(&mut self, answer: search::IndexItemsResponse, waiting: &mut BTreeMap<u64, PathBuf>) {
        let Some(place) = waiting.remove(&answer.key) else { return };
        let outcome = match answer.result {
            Some(Answer::Indexed(indexed)) => Ok(indexed.outcome()),
            Some(Answer::Error(error)) => Err(item_reason(&code::from_rpc(&error))),
            None => Err("the acknowledgement is empty".to_owned()),
        };
        self.report.settled(match outcome {
            Ok(search::IndexOutcome::Replaced) => Settled::Replaced(place),
            Ok(search::IndexOutcome::Unchanged) => Settled::Unchanged(place),
            Ok(search::IndexOutcome::Created | search::IndexOutcome::Unspecified) => {
                Settled::Indexed(place)
            }
            Err(reason) => Settled::Failed(place, reason),
        });
    }
}

type Source = Box<dyn AsyncBufRead + Unpin + Send>;

async fn lines(path: &Path) -> Result<Lines<Source>, Error> {
    let source: Source = if path == Path::new(STDIN) {
        Box::new(BufReader::new(tokio::io::stdin()))
    } else {
        let file = tokio::fs::File::open(path).await;
        let file = file.map_err(|source| Error::File { path: path.to_owned(), source })?;
        Box::new(BufReader::new(file))
    };
    Ok(source.lines())
}

fn parse(line: &str, of_all: Option<&Struct>) -> Result<search::NewItem, String> {
    let line: Line = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let mut metadata = fields::json::object(line.metadata)?;
    metadata.fields.extend(of_all.cloned().unwrap_or_default().fields);
    Ok(search::NewItem {
        id: line.id,
        uri: line.uri,
        filename: line.filename,
        metadata: (!metadata.fields.is_empty()).then_some(metadata),
        vector: Some(search::VectorQuery {
            values: line.vector,
            model_fingerprint: line.model_fingerprint,
        }),
        ..search::NewItem::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_an_item_without_a_picture() {
        let line =
            r#"{"id": "sku-1", "vector": [0.5, -1], "metadata": {"year": 2019, "tag": "a"}}"#;
        let tag = fields::metadata(&[fields::parse_field("tag=b").expect("a field")]);
        let item = parse(line, tag.as_ref()).expect("an item");
        assert_eq!((item.id.as_str(), item.image.len()), ("sku-1", 0), "its id, and no bytes");
        assert_eq!(item.vector.expect("a vector").values, [0.5, -1.0], "its vector");
        let metadata = item.metadata.expect("metadata").fields;
        assert_eq!(metadata["year"], fields::number_value(2019.0), "of the line");
        assert_eq!(metadata["tag"], fields::text_value("b"), "the command line wins");
    }

    #[test]
    fn says_what_is_wrong_with_a_line() {
        let refusal = |line: &str| parse(line, None).expect_err(line);
        assert!(refusal(r#"{"vector": [1]}"#).contains("`id`"), "no id");
        assert!(refusal(r#"{"id": "a"}"#).contains("`vector`"), "no vector");
        assert!(refusal(r#"{"id": "a", "vector": [1], "tags": 1}"#).contains("tags"), "unknown");
        let nested = r#"{"id": "a", "vector": [1], "metadata": {"x": {}}}"#;
        assert!(refusal(nested).contains("field `x`"), "no value");
    }
}
