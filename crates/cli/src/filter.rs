//! Conditions on items as they are typed: `--filter format=jpeg --filter 'width>=800'`, and whole
//! filters as documents.
//!
//! ```text
//!   syntax  'a=1 and (b=2 or !c?)'  ──► term  'a=1'  ──► Condition ─┐
//!   json    '{"must": [...]}'       ────────────────────────────────┴─► Filter ──► indexes: which
//!                                                                                  are missing
//! ```
//!
//! [`HELP`] has the syntax; names and values are those of [`crate::fields`].

mod indexes;
mod json;
mod syntax;
mod term;

use clap::Args;

use clipmesh_proto::search::v1::condition::Test;
use clipmesh_proto::search::v1::{AnyOf, Condition, Filter};

use crate::fields::text_value;

pub(crate) use indexes::{note_unindexed, unindexed_notes};

/// The syntax, for `--help`.
pub(crate) const HELP: &str = r#"Filters (repeat --filter to ask for several at once):
  key=value   equal               key~text    contains the text, in any letter case
  key!=value  not equal           key:words   contains each of the words, in any order
  key=a|b|c   equal to any        key?        is there at all
  key>n  key>=n  key<n  key<=n    !condition  turns a condition round
  key@LAT,LON,METERS              is nearer to a place than that
  a and b, a or b, (a or b) and c; a value that holds one of these words is in double quotes.
  Keys: id uri filename format content_hash pixel_hash width height byte_size create_time
  update_time; anything else is a name in the metadata (`metadata.width` is your own width). Values
  in metadata are numbers, true, false or text; year="2020" is text. Bounds may be times, as in
  'create_time>=2026-03-01' or 'taken<2026-03-01T12:00:00Z'; without an offset, of this machine."#;

/// Which items a command is about.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Filters {
    /// Only items that pass, as in `format=jpeg`; see below. May be repeated.
    #[arg(long = "filter", short = 'f', value_name = "CONDITION", value_parser = syntax::parse)]
    conditions: Vec<Term>,

    /// The same as a document: clipmesh.search.v1.Filter in protobuf's JSON, or `@FILE`.
    #[arg(long = "filter-json", value_name = "JSON", value_parser = json::parse)]
    document: Option<Filter>,
}

/// One condition, or several in brackets.
#[derive(Clone, Debug, PartialEq)]
struct Term {
    condition: Condition,
    is_negated: bool,
}

// === impl Filters ===

impl Filters {
    /// All of them must hold; `None` when there are none.
    pub(crate) fn message(&self) -> Option<Filter> {
        let terms = self.conditions.iter().cloned();
        let document = self.document.clone().map(|filter| Term::of(group(filter)));
        let terms: Vec<Term> = terms.chain(document).collect();
        (!terms.is_empty()).then(|| all_of(terms))
    }
}

// === impl Term ===

impl Term {
    fn of(condition: Condition) -> Self {
        Self { condition, is_negated: false }
    }

    fn negated(self) -> Self {
        Self { is_negated: !self.is_negated, ..self }
    }

    /// The term where no list takes its negation.
    fn into_condition(self) -> Condition {
        if !self.is_negated {
            return self.condition;
        }
        group(Filter { must_not: vec![self.condition], ..Filter::default() })
    }
}

/// Items whose picture is one of these.
pub(crate) fn content_hash_any_of(hashes: impl Iterator<Item = String>) -> Filter {
    let values = hashes.map(text_value).collect();
    only(Condition { key: "content_hash".to_owned(), test: Some(Test::AnyOf(AnyOf { values })) })
}

/// Items whose id contains this text.
pub(crate) fn id_contains(text: &str) -> Filter {
    only(Condition { key: "id".to_owned(), test: Some(Test::Text(text.to_owned())) })
}

fn only(condition: Condition) -> Filter {
    Filter { must: vec![condition], ..Filter::default() }
}

/// A filter as a condition of another.
fn group(filter: Filter) -> Condition {
    Condition { key: String::new(), test: Some(Test::Filter(filter)) }
}

/// A filter that all terms hold for. One that is a filter as a whole is left as it is.
fn all_of(mut terms: Vec<Term>) -> Filter {
    if let [
        Term { condition: Condition { test: Some(Test::Filter(whole)), .. }, is_negated: false },
    ] = terms.as_mut_slice()
    {
        return std::mem::take(whole);
    }
    let mut filter = Filter::default();
    for term in terms {
        let list = if term.is_negated { &mut filter.must_not } else { &mut filter.must };
        list.push(term.condition);
    }
    filter
}

fn any_of(terms: Vec<Term>) -> Filter {
    let should = terms.into_iter().map(Term::into_condition).collect();
    Filter { should, ..Filter::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(conditions: &[&str], document: Option<&str>) -> Filters {
        let parse = |text: &&str| syntax::parse(text).expect(text);
        let document = document.map(|text| json::parse(text).expect(text));
        Filters { conditions: conditions.iter().map(parse).collect(), document }
    }

    #[test]
    fn every_filter_must_hold() {
        let filter = filters(&["format=png", "width>9", "!tag~x"], None).message();
        let filter = filter.expect("a filter");
        assert_eq!((filter.must.len(), filter.must_not.len()), (2, 1), "each to its list");
        assert_eq!(filters(&[], None).message(), None, "no terms, no filter");
    }

    #[test]
    fn a_document_is_one_of_them() {
        let text = r#"{"should": [{"key": "format", "match": "png"}, {"key": "id", "text": "a"}]}"#;
        let alone = filters(&[], Some(text)).message().expect("a filter");
        assert_eq!(alone.should.len(), 2, "alone it is the filter");
        let both = filters(&["width>9"], Some(text)).message().expect("a filter");
        assert_eq!(both.must.len(), 2, "with others it is in brackets");
        assert_eq!(both.must[1].test, Some(Test::Filter(alone)), "as a whole");
    }
}
