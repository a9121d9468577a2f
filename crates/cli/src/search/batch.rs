//! Many searches from one file.

use std::collections::BTreeSet;
use std::path::Path;

use clap::{ArgGroup, Parser};
use clipmesh_proto::code::{self, FieldViolation};
use clipmesh_proto::ids::CollectionName;
use clipmesh_proto::search::v1 as search;
use clipmesh_proto::search::v1::search_result::Outcome;
use prost::Message as _;
use serde::Serialize;
use serde_json::Value;
use tonic::Status;

use super::options::{self, Options};
use super::query::Typed;
use super::show::{Found, View};
use crate::client::Mesh;
use crate::error::{Error, one_sentence};
use crate::{filter, input, output};

/// For `--help`.
pub(super) const HELP: &str = r#"
A batch has a search in each line, with the options of this command:
  {"text": "a cat", "filter": ["year>=2020", "format=png"], "limit": 5}
  {"image": ["a.jpg", "b.jpg"], "unlike-text": "a drawing", "exact": true}
  {"vector": [0.1, -0.2], "group-by": "album:2", "filter-json": {"should": []}}"#;

/// Searches in one message: the most that the contract allows.
const MAX_SEARCHES: usize = 64;

/// What a message holds beside its searches.
const ENVELOPE_BYTES: usize = 1_024;

/// A line of a batch as a command line.
#[derive(Debug, Parser)]
#[command(
    no_binary_name = true,
    disable_help_flag = true,
    group = ArgGroup::new("question").args(options::QUESTIONS).required(true).multiple(true)
)]
struct Line {
    #[command(flatten)]
    options: Options,
}

/// A search that is ready to be sent.
struct Search {
    line: usize,
    request: search::SearchRequest,
    filter: Option<search::Filter>,
    typed: Typed,
    view: View,
}

/// An answer, or why there is none.
#[derive(Serialize)]
#[serde(untagged)]
enum Answer {
    Found(Found),
    Failed { error: String },
}

#[derive(Serialize)]
struct Answers {
    results: Vec<Answer>,
}

/// Runs the searches of a file, in its order.
pub(super) async fn run(
    mesh: &Mesh,
    collection: &CollectionName,
    path: &Path,
    is_json: bool,
) -> Result<(), Error> {
    let text = input::text(path).await?;
    let (results, notes) = (Vec::new(), BTreeSet::new());
    let mut batch = Batch { mesh, collection, is_json, results, notes, failures: 0 };
    let mut waiting: Vec<Search> = Vec::new();
    let mut bytes = 0;
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let of_line =
            |reason: String| Error::Usage(format!("{}:{}: {reason}", path.display(), index + 1));
        let options = parse(line).map_err(of_line)?;
        let (request, typed) = options.request(mesh, collection).await?;
        let length = request.encoded_len();
        if waiting.len() == MAX_SEARCHES
            || bytes + length + ENVELOPE_BYTES > mesh.max_message_bytes()
        {
            batch.answer(std::mem::take(&mut waiting)).await?;
            bytes = 0;
        }
        bytes += length;
        let (filter, view) = (request.filter.clone(), options.view());
        waiting.push(Search { line: index + 1, request, filter, typed, view });
    }
    batch.answer(waiting).await?;
    batch.finish()
}

struct Batch<'a> {
    mesh: &'a Mesh,
    collection: &'a CollectionName,
    is_json: bool,
    results: Vec<Answer>,
    /// Said so far: many searches with one filter need an index once.
    notes: BTreeSet<String>,
    failures: u64,
}

// === impl Batch ===

impl Batch<'_> {
    async fn answer(&mut self, mut searches: Vec<Search>) -> Result<(), Error> {
        if searches.is_empty() {
            return Ok(());
        }
        let take = |search: &mut Search| std::mem::take(&mut search.request);
        let requests = searches.iter_mut().map(take).collect();
        let request = search::SearchBatchRequest { searches: requests };
        let answer = self.mesh.search().search_batch(request).await;
        let answer = answer.map_err(|status| self.mesh.error(status))?.into_inner();
        for (index, (search, result)) in searches.into_iter().zip(answer.results).enumerate() {
            self.take(index, &search, result)?;
        }
        Ok(())
    }

    fn take(
        &mut self,
        index: usize,
        search: &Search,
        result: search::SearchResult,
    ) -> Result<(), Error> {
        let response = match result.outcome {
            Some(Outcome::Response(response)) => Ok(response),
            Some(Outcome::Error(error)) => Err(code::from_rpc(&error)),
            None => Err(Status::internal("the answer is empty")),
        };
        if !self.is_json {
            output::line(format!("line {}", search.line))?;
        }
        if let Ok(response) = &response {
            self.note_unindexed(search, &response.unindexed_fields);
        }
        match response {
            Ok(response) if self.is_json => {
                self.results.push(Answer::Found(search.view.json(response)?));
            }
            Ok(response) => {
                search.view.print(response)?;
                output::line("")?;
            }
            Err(status) => {
                self.failures += 1;
                let error = one_sentence(&search.typed.explain(of_one(index, status)));
                output::note(format!("line {}: {error}", search.line));
                self.results.push(Answer::Failed { error });
            }
        }
        Ok(())
    }

    fn note_unindexed(&mut self, search: &Search, fields: &[String]) {
        for note in filter::unindexed_notes(self.collection, search.filter.as_ref(), fields) {
            if !self.notes.contains(&note) {
                output::note(&note);
                self.notes.insert(note);
            }
        }
    }

    fn finish(self) -> Result<(), Error> {
        if self.is_json {
            output::document(&Answers { results: self.results })?;
        }
        if self.failures > 0 { Err(Error::Incomplete) } else { Ok(()) }
    }
}

/// A refusal with its field named as in a search of its own.
fn of_one(index: usize, status: Status) -> Status {
    match FieldViolation::from_status(&status) {
        Some(violation) => {
            let prefix = format!("searches[{index}].");
            let field = violation.field.strip_prefix(&prefix).unwrap_or(&violation.field);
            let field = field.to_owned();
            violation.renamed(field).into_status()
        }
        None => status,
    }
}

fn parse(line: &str) -> Result<Options, String> {
    let object: serde_json::Map<String, Value> =
        serde_json::from_str(line).map_err(|_| "it is no JSON object".to_owned())?;
    let arguments = object.into_iter().flat_map(|(name, value)| arguments(&name, value));
    match Line::try_parse_from(arguments) {
        Ok(line) => Ok(line.options),
        Err(error) => {
            let text = error.render().to_string();
            let first = text.lines().next().unwrap_or_default();
            Err(first.trim_start_matches("error: ").to_owned())
        }
    }
}

/// An option as it would be typed.
fn arguments(name: &str, value: Value) -> Vec<String> {
    let name = name.replace('_', "-");
    match value {
        Value::Null | Value::Bool(false) => Vec::new(),
        Value::Bool(true) => vec![format!("--{name}")],
        Value::String(text) => vec![format!("--{name}={text}")],
        // A list of numbers is a vector, any other gives its option as often as it is long.
        Value::Array(elements) if elements.is_empty() || !elements.iter().all(Value::is_number) => {
            elements.into_iter().flat_map(|element| arguments(&name, element)).collect()
        }
        Value::Number(_) | Value::Array(_) | Value::Object(_) => vec![format!("--{name}={value}")],
    }
}

#[cfg(test)]
mod tests {
    use clipmesh_proto::code::Reason;

    use super::*;

    fn typed(line: &str) -> Vec<String> {
        let object: serde_json::Map<String, Value> = serde_json::from_str(line).expect(line);
        object.into_iter().flat_map(|(name, value)| arguments(&name, value)).collect()
    }

    #[test]
    fn a_line_has_the_options_of_the_command() {
        let table = [
            (r#"{"text": "a cat"}"#, &["--text=a cat"][..]),
            (r#"{"image": ["a", "b"]}"#, &["--image=a", "--image=b"]),
            (r#"{"exact": true, "vectors": false}"#, &["--exact"]),
            (r#"{"text": "a cat", "filter": []}"#, &["--text=a cat"]),
            (r#"{"vector": [0.5, 1]}"#, &["--vector=[0.5,1]"]),
            (r#"{"group_by": "album:2", "limit": 5}"#, &["--group-by=album:2", "--limit=5"]),
            (r#"{"filter-json": {"must": []}}"#, &[r#"--filter-json={"must":[]}"#]),
        ];
        for (line, arguments) in table {
            assert_eq!(typed(line), arguments, "{line}");
            let is_question = line.contains("text") || line.contains("image");
            assert_eq!(parse(line).is_ok(), is_question || line.contains("vector\""), "{line}");
        }
    }

    #[test]
    fn says_what_is_wrong_with_a_line() {
        let refusal = |line: &str| parse(line).expect_err(line);
        assert!(refusal("cats").contains("no JSON object"), "not JSON");
        assert!(refusal(r#"{"text": "a", "nope": 1}"#).contains("--nope"), "no such option");
        assert!(refusal(r#"{"text": "a", "limit": 0}"#).contains("--limit"), "out of range");
    }

    #[test]
    fn a_refused_search_names_its_own_field() {
        let violation = FieldViolation::new("searches[3].limit", Reason::NotAnImage, "too many");
        let status = of_one(3, violation.into_status());
        assert_eq!(one_sentence(&status), "limit: too many", "without its place in the message");
    }
}
