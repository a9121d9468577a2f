//! Indexes: what makes filters on fields quick, and how vectors are searched.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::filter::{Condition, Field, Filter, Test};
use crate::item::Scalar;

/// Which values of a field are found by an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Strings, whole.
    Keyword,
    /// Whole numbers.
    Integer,
    /// All numbers.
    Float,
    Boolean,
    /// Strings that are times.
    Time,
    /// The words of strings.
    Words,
    /// Places.
    Geo,
}

/// An index on one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldIndex {
    pub field: Field,
    pub kind: Kind,
}

/// The indexes that a collection's owner chose, by field, beside those that every collection has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Indexes(BTreeMap<Field, Kind>);

/// How vectors are searched: by a graph (HNSW, arXiv:1603.09320).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VectorIndex {
    /// Links of each vector to others.
    pub links: usize,
    /// Candidates that are looked at to choose a new vector's links.
    pub build_effort: usize,
    pub quantization: Quantization,
}

/// Short forms of vectors that are searched first, before the best are compared in full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quantization {
    #[default]
    None,
    /// A byte per value.
    Scalar,
    /// A bit per value.
    Binary,
}

/// What every collection has: all facts of an item that can be asked for.
const BUILT_IN: [(Field, Kind); 11] = [
    (Field::Uri, Kind::Keyword),
    (Field::Filename, Kind::Keyword),
    (Field::Format, Kind::Keyword),
    (Field::ContentHash, Kind::Keyword),
    (Field::PixelHash, Kind::Keyword),
    (Field::Width, Kind::Integer),
    (Field::Height, Kind::Integer),
    (Field::ByteSize, Kind::Integer),
    (Field::CreateTime, Kind::Integer),
    (Field::UpdateTime, Kind::Integer),
    (Field::Lot, Kind::Integer),
];

impl Default for VectorIndex {
    fn default() -> Self {
        // Qdrant's own, at which its recall was measured.
        Self { links: 16, build_effort: 100, quantization: Quantization::None }
    }
}

// === impl Indexes ===

impl Indexes {
    pub fn new(indexes: impl IntoIterator<Item = FieldIndex>) -> Self {
        Self(indexes.into_iter().map(|FieldIndex { field, kind }| (field, kind)).collect())
    }

    /// The kind of index on a field that every collection has.
    pub fn built_in(field: &Field) -> Option<Kind> {
        BUILT_IN.iter().find(|(own, _)| own == field).map(|(_, kind)| *kind)
    }

    /// The kind of index on a field, if there is one.
    pub fn kind(&self, field: &Field) -> Option<Kind> {
        Self::built_in(field).or_else(|| self.0.get(field).copied())
    }

    /// Those that the owner chose, in order of field.
    pub fn chosen(&self) -> impl Iterator<Item = FieldIndex> + '_ {
        self.0.iter().map(|(field, kind)| FieldIndex { field: field.clone(), kind: *kind })
    }

    /// All, those first that every collection has.
    pub fn all(&self) -> impl Iterator<Item = FieldIndex> + '_ {
        let built_in = BUILT_IN.into_iter().map(|(field, kind)| FieldIndex { field, kind });
        built_in.chain(self.chosen())
    }

    /// Adds one, in place of another on its field.
    pub fn insert(&mut self, FieldIndex { field, kind }: FieldIndex) {
        self.0.insert(field, kind);
    }

    /// Removes one, and tells whether it was there.
    pub fn remove(&mut self, field: &Field) -> bool {
        self.0.remove(field).is_some()
    }

    /// The fields of a filter for which items have to be read one by one, in order.
    pub fn missing_for(&self, filter: &Filter) -> Vec<Field> {
        let conditions = filter.conditions().into_iter();
        let slow = conditions.filter(|condition| !self.serves(condition));
        let mut fields: Vec<_> = slow.map(|condition| condition.field.clone()).collect();
        fields.sort();
        fields.dedup();
        fields
    }

    fn serves(&self, Condition { field, test }: &Condition) -> bool {
        let kind = self.kind(field);
        let fits = |scalar: &Scalar| match scalar {
            // By id, items are looked up.
            Scalar::String(_) => *field == Field::Id || kind == Some(Kind::Keyword),
            // Beside an index of whole numbers is one of all numbers; of a fact, no others exist.
            Scalar::Number(_) => matches!(kind, Some(Kind::Integer | Kind::Float)),
            Scalar::Bool(_) => kind == Some(Kind::Boolean),
            Scalar::Place(_) => false,
        };
        match test {
            Test::Match(wanted) => fits(wanted),
            Test::AnyOf(wanted) => wanted.iter().all(fits),
            Test::Range(_) => matches!(kind, Some(Kind::Integer | Kind::Float)),
            Test::Text(_) => false,
            // Every item has an id. Times and words are indexed away from the field itself.
            Test::Exists(_) => {
                *field == Field::Id
                    || kind.is_some_and(|kind| !matches!(kind, Kind::Time | Kind::Words))
            }
            Test::Time(_) => field.is_time() || kind == Some(Kind::Time),
            Test::Near(_) => kind == Some(Kind::Geo),
            Test::Words(_) => kind == Some(Kind::Words),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::{Clause, Range};

    fn field(name: &str) -> Field {
        Field::Metadata(name.to_owned())
    }

    fn string(text: &str) -> Scalar {
        Scalar::String(text.to_owned())
    }

    #[test]
    fn a_filter_is_told_which_of_its_fields_are_slow() {
        let index = |name: &str, kind| FieldIndex { field: field(name), kind };
        let indexes = Indexes::new([
            index("tag", Kind::Keyword),
            index("year", Kind::Integer),
            index("price", Kind::Float),
            index("taken", Kind::Time),
            index("caption", Kind::Words),
        ]);
        let range = || Range { gte: Some(1.0), ..Range::default() };
        let cases = [
            (field("tag"), Test::Match(string("a")), true),
            (field("tag"), Test::Match(Scalar::Number(1.0)), false),
            (field("tag"), Test::Text("a".to_owned()), false),
            (field("tag"), Test::Exists(true), true),
            (field("tags"), Test::Exists(true), false),
            (field("year"), Test::AnyOf(vec![Scalar::Number(1999.0)]), true),
            (field("year"), Test::Match(Scalar::Number(0.5)), true),
            (field("year"), Test::Exists(false), true),
            (field("year"), Test::Range(range()), true),
            (field("price"), Test::Match(Scalar::Number(0.5)), true),
            (field("taken"), Test::Time(range()), true),
            (field("taken"), Test::Match(string("2026-01-01T00:00:00Z")), false),
            (field("taken"), Test::Exists(true), false),
            (field("caption"), Test::Exists(true), false),
            (field("caption"), Test::Words(vec!["cat".to_owned()]), true),
            (field("tag"), Test::Words(vec!["cat".to_owned()]), false),
            (Field::Id, Test::Match(string("a")), true),
            (Field::Id, Test::Exists(true), true),
            (Field::CreateTime, Test::Time(range()), true),
            (Field::Width, Test::Range(range()), true),
            (Field::Width, Test::Match(Scalar::Number(0.5)), true),
            (Field::Filename, Test::Match(string("a")), true),
        ];
        for (field, test, is_quick) in cases {
            let filter = Filter::default().and(field.clone(), test.clone());
            let missing = if is_quick { vec![] } else { vec![field.clone()] };
            assert_eq!(indexes.missing_for(&filter), missing, "{field:?} {test:?}");
            let nested = Filter { should: vec![Clause::Filter(filter)], ..Filter::default() };
            assert_eq!(indexes.missing_for(&nested), missing, "nested {field:?} {test:?}");
        }
    }
}
