//! Filters in the terms of Qdrant's engine, which the embedded one and the server share: what is
//! asked of an item becomes what is asked of its [`payload`](super::payload). From here on to the
//! types of either there is one step for each kind of question.

use uuid::Uuid;

use super::index::{FieldIndex, Indexes, Kind};
use super::payload::{self, FOLDED, METADATA, NUMBERS, TIMES, WORDS};
use crate::filter::{Circle, Clause, Condition, Field, Filter, Range, Test, fold_case};
use crate::item::Scalar;

/// The namespace of the UUIDs that stand for item ids. Changing it orphans every stored point.
const NAMESPACE: Uuid = Uuid::from_u128(0x6c1d_3c5e_5f0b_4d0e_9f6a_2b8e_7a41_c9d3);

/// A filter on payloads. An empty list of alternatives is one that asks nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Clauses {
    pub(super) must: Vec<Question>,
    pub(super) should: Vec<Question>,
    pub(super) must_not: Vec<Question>,
}

/// A question about the payload at a path, or about the point.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Question {
    /// One of these strings.
    Keywords {
        path: String,
        any: Vec<String>,
    },
    /// One of these numbers.
    Integers {
        path: String,
        any: Vec<i64>,
    },
    Boolean {
        path: String,
        value: bool,
    },
    Range {
        path: String,
        range: Range,
    },
    /// A string that contains this one.
    Substring {
        path: String,
        text: String,
    },
    /// Absent, null or an empty list.
    IsEmpty {
        path: String,
    },
    Near {
        path: String,
        circle: Circle,
    },
    /// One of these points.
    Points(Vec<Uuid>),
    All(Clauses),
}

/// What the engine indexes a path by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Schema {
    Keyword,
    Integer,
    Float,
    Boolean,
    Geo,
}

/// The engine's name for an item: it takes only numbers and UUIDs.
pub(super) fn point_id(id: &str) -> Uuid {
    Uuid::new_v5(&NAMESPACE, id.as_bytes())
}

/// The path of what an index is on, and what the engine calls its kind.
pub(super) fn index(index: &FieldIndex) -> (String, Schema) {
    let path = path(&index.field);
    match index.kind {
        Kind::Keyword => (path, Schema::Keyword),
        Kind::Integer => (path, Schema::Integer),
        Kind::Float => (path, Schema::Float),
        Kind::Boolean => (path, Schema::Boolean),
        Kind::Time => (format!("{TIMES}.{path}"), Schema::Integer),
        Kind::Words => (format!("{WORDS}.{path}"), Schema::Keyword),
        Kind::Geo => (path, Schema::Geo),
    }
}

/// All that the engine indexes for an index: its [`index`] first, and what that can't know.
pub(super) fn indexes(own: &FieldIndex) -> Vec<(String, Schema)> {
    let mut all = vec![index(own)];
    if is_split(&own.field, Some(own.kind)) {
        all.push((numbers(&own.field), Schema::Float));
    }
    all
}

/// The path that items are put in order by, where there is this index.
pub(super) fn order(index: &FieldIndex) -> String {
    if is_split(&index.field, Some(index.kind)) {
        numbers(&index.field)
    } else {
        self::index(index).0
    }
}

/// Whether an index of integers may not know all numbers of a field, so that there is another of
/// all of them beside it. The numbers among the facts of an item are all integers.
fn is_split(field: &Field, kind: Option<Kind>) -> bool {
    kind == Some(Kind::Integer) && matches!(field, Field::Metadata(_))
}

fn numbers(field: &Field) -> String {
    format!("{NUMBERS}.{}", path(field))
}

/// A filter in the terms of payloads; `None` if it passes everything.
pub(super) fn filter(filter: &Filter, exclude: &[Uuid], indexes: &Indexes) -> Option<Clauses> {
    if filter.is_empty() && exclude.is_empty() {
        return None;
    }
    let mut lowered = clauses(filter, indexes);
    if !exclude.is_empty() {
        lowered.must_not.push(Question::Points(exclude.to_vec()));
    }
    Some(lowered)
}

/// Where a field is in the payload.
pub(super) fn path(field: &Field) -> String {
    if let Field::Metadata(name) = field { format!("{METADATA}.{name}") } else { field.key() }
}

fn clauses(filter: &Filter, indexes: &Indexes) -> Clauses {
    let all = |clauses: &[Clause]| clauses.iter().map(|one| clause(one, indexes)).collect();
    Clauses {
        must: all(&filter.must),
        should: all(&filter.should),
        must_not: all(&filter.must_not),
    }
}

fn clause(clause: &Clause, indexes: &Indexes) -> Question {
    match clause {
        Clause::Condition(condition) => question(condition, indexes),
        Clause::Filter(filter) => Question::All(clauses(filter, indexes)),
    }
}

fn question(Condition { field, test }: &Condition, indexes: &Indexes) -> Question {
    let path = path(field);
    match test {
        Test::Match(wanted) => one_of(field, std::slice::from_ref(wanted), indexes),
        Test::AnyOf(wanted) => one_of(field, wanted, indexes),
        Test::Range(range) => in_range(field, range, indexes),
        Test::Text(text) => {
            Question::Substring { path: format!("{FOLDED}.{path}"), text: fold_case(text) }
        }
        // Every item has one, and no index to look for it in.
        Test::Exists(true) if *field == Field::Id => Question::All(Clauses::default()),
        Test::Exists(false) if *field == Field::Id => Question::Points(Vec::new()),
        Test::Exists(true) => not(Question::IsEmpty { path }),
        Test::Exists(false) => Question::IsEmpty { path },
        Test::Time(range) if field.is_time() => Question::Range { path, range: *range },
        Test::Time(range) => Question::Range { path: format!("{TIMES}.{path}"), range: *range },
        Test::Near(circle) => Question::Near { path, circle: *circle },
        Test::Words(words) => {
            let path = format!("{WORDS}.{path}");
            let word =
                |word: &String| Question::Keywords { path: path.clone(), any: vec![word.clone()] };
            let must = words.iter().map(word).collect();
            Question::All(Clauses { must, ..Clauses::default() })
        }
    }
}

/// A field that equals one of some scalars. Each type of scalar takes another kind of question.
fn one_of(field: &Field, wanted: &[Scalar], indexes: &Indexes) -> Question {
    let path = path(field);
    let is_float = indexes.kind(field) == Some(Kind::Float);
    let mut strings = Vec::new();
    let mut integers = Vec::new();
    let mut alternatives = Vec::new();
    for scalar in wanted {
        match scalar {
            Scalar::String(string) => strings.push(string.clone()),
            Scalar::Bool(value) => {
                alternatives.push(Question::Boolean { path: path.clone(), value: *value });
            }
            Scalar::Number(number) => match payload::integer(*number) {
                // An index of floats knows nothing of equality.
                Some(integer) if !is_float => integers.push(integer),
                Some(_) | None => {
                    alternatives.push(in_range(field, &Range::only(*number), indexes));
                }
            },
            // Nobody can ask for one place exactly.
            Scalar::Place(_) => {}
        }
    }
    if !strings.is_empty() && *field == Field::Id {
        // A look-up instead of a search through payloads.
        let points = strings.iter().map(|id| point_id(id)).collect();
        alternatives.push(Question::Points(points));
    } else if !strings.is_empty() {
        alternatives.push(Question::Keywords { path: path.clone(), any: strings });
    }
    if !integers.is_empty() {
        alternatives.push(Question::Integers { path, any: integers });
    }
    match <[Question; 1]>::try_from(alternatives) {
        Ok([only]) => only,
        Err(should) if should.is_empty() => Question::Points(Vec::new()),
        Err(should) => Question::All(Clauses { should, ..Clauses::default() }),
    }
}

/// A field that is a number within these bounds.
fn in_range(field: &Field, range: &Range, indexes: &Indexes) -> Question {
    let is_split = is_split(field, indexes.kind(field));
    let path = if is_split { numbers(field) } else { path(field) };
    let is_whole = Indexes::built_in(field) == Some(Kind::Integer);
    Question::Range { path, range: if is_whole { whole(range) } else { lasting(range) } }
}

fn not(question: Question) -> Question {
    Question::All(Clauses { must_not: vec![question], ..Clauses::default() })
}

/// The bounds that the same whole numbers are within. An index of integers cuts off what is behind
/// the point, in servers without <https://github.com/qdrant/qdrant/pull/9054>.
fn whole(range: &Range) -> Range {
    Range {
        gt: range.gt.map(f64::floor),
        gte: range.gte.map(f64::ceil),
        lt: range.lt.map(f64::ceil),
        lte: range.lte.map(f64::floor),
    }
}

/// Bounds in the form that numbers are kept in.
fn lasting(range: &Range) -> Range {
    let bound = |bound: Option<f64>| bound.map(payload::lasting);
    Range { gt: bound(range.gt), gte: bound(range.gte), lt: bound(range.lt), lte: bound(range.lte) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lowered(field: Field, test: Test) -> Question {
        question(&Condition { field, test }, &Indexes::default())
    }

    fn range(gt: Option<f64>, gte: Option<f64>, lt: Option<f64>, lte: Option<f64>) -> Range {
        Range { gt, gte, lt, lte }
    }

    #[test]
    fn bounds_of_whole_numbers_are_whole() {
        let cases = [
            (
                range(Some(639.5), None, Some(640.5), None),
                range(Some(639.0), None, Some(641.0), None),
            ),
            (
                range(None, Some(639.5), None, Some(640.5)),
                range(None, Some(640.0), None, Some(640.0)),
            ),
            (range(Some(-0.5), None, Some(-1.5), None), range(Some(-1.0), None, Some(-1.0), None)),
            (
                range(None, Some(640.0), None, Some(640.0)),
                range(None, Some(640.0), None, Some(640.0)),
            ),
        ];
        for (asked, expected) in cases {
            for number in (-3..700).map(f64::from) {
                assert_eq!(asked.holds(number), expected.holds(number), "{number} in {asked:?}");
            }
            let question = lowered(Field::Width, Test::Range(asked));
            let expected = Question::Range { path: "width".to_owned(), range: expected };
            assert_eq!(question, expected, "{asked:?}");
        }
        let question = lowered(Field::Width, Test::Match(Scalar::Number(640.5)));
        let Question::Range { range: none, .. } = question else {
            panic!("bounds: {question:?}");
        };
        assert!(none.gte > none.lte, "no width is that: {none:?}");
        let asked = range(None, Some(0.5), None, None);
        let question = lowered(Field::Metadata("f".to_owned()), Test::Range(asked));
        let expected = Question::Range { path: "metadata.f".to_owned(), range: asked };
        assert_eq!(question, expected, "other fields may have any number");
    }

    #[test]
    fn whether_there_is_an_id_is_not_asked_of_any_item() {
        let exists = |wanted| lowered(Field::Id, Test::Exists(wanted));
        assert_eq!(exists(true), Question::All(Clauses::default()), "all");
        assert_eq!(exists(false), Question::Points(Vec::new()), "none");
    }
}
